# SPDX-License-Identifier: Apache-2.0
PYTHON ?= python3
# The ROS 2 whose wheels are installed: kilted, or another one that has a list in .ci.
DISTRO ?= kilted
VENV ?= $(if $(filter kilted,$(DISTRO)),.venv,.venv-$(DISTRO))
# For make test and develop, installed before everything else. Another build of it, such as the one
# for CPUs, with the index that PyTorch's site names: TORCH="torch --index-url ..."
TORCH ?= torch==2.13.0
ARGS ?=
# How processes share the tests; PARALLEL= runs them in one.
PARALLEL ?= -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PROGRAMS := $(VENV)/lib/meanflow_ik_ros
# Python sources are not among them: the install is editable.
BUILD_SOURCES := setup.py pyproject.toml package.xml CMakeLists.txt \
	$(wildcard msg/*.msg srv/*.srv scripts/* config/* config/*/* launch/*)

# The environment holds a whole ROS 2; a sourced one must not mix with it.
export AMENT_PREFIX_PATH := $(abspath $(VENV))
unexport CMAKE_PREFIX_PATH COLCON_PREFIX_PATH PYTHONPATH _ROS_WHEELS_BOOTSTRAP_COMPLETE
ifdef ROS_DISTRO
unexport LD_LIBRARY_PATH
endif

ifeq ($(DISTRO),kilted)
ROS := ros,
BUILD := ,build
# The extra `build`, once it is there, saves pip an environment of its own.
ISOLATION = $(if $(wildcard $(VENV)/share/ament_cmake),--no-build-isolation)
else
# In the place of the extras that name Kilted; installed first, so that pip builds with it.
LIST := .ci/$(DISTRO).txt
LISTED := $(VENV)/.$(DISTRO)
ISOLATION := --no-build-isolation
endif

.PHONY: help demo node test lint format tables docs figures install develop
.PHONY: build-colcon test-colcon clean distclean

help:
	@echo "make demo          install into $(VENV), start the node, solve real poses, draw demo.png"
	@echo "make node          install into $(VENV) and keep the node running"
	@echo "  after that, with $(BIN) on PATH or in front of the names:"
	@echo "  meanflow-ik             solve, view, train, evaluate, bench, add-robot, without ROS (--help)"
	@echo "  meanflow-ik-node        the node; --ros-args --params-file config/solver.yaml"
	@echo "  meanflow-ik-send-goal   ask the node for solutions of a pose, and show them"
	@echo "  meanflow-ik-demo, meanflow-ik-node-bench   the demo; the node measured"
	@echo "make test          all tests, the linter and the type checker"
	@echo "make lint, format  the linter and the type checker only; let ruff rewrite the sources"
	@echo "make docs          the documentation as a site, build/docs/index.html; figures draws its pictures"
	@echo "make tables        put the tables of the records in docs/benchmarks into the documentation"
	@echo "make build-colcon  colcon build and (test-colcon) colcon test, with the ROS of $(VENV)"
	@echo "make clean         remove builds and caches; distclean removes $(VENV) too"
	@echo "TORCH=\"torch --index-url ...\", with the index of builds for CPUs that PyTorch's site names, makes test and develop smaller"
	@echo "PYTHON=python3.12  chooses the interpreter, VENV=path the environment, ARGS=... what a program gets"
	@echo "DISTRO=jazzy       takes the wheels of ROS 2 Jazzy, in .venv-jazzy"
	@echo "PARALLEL=          runs the tests in one process"

demo: install
	$(BIN)/python $(PROGRAMS)/demo $(ARGS)

node: install
	@exec $(BIN)/python $(PROGRAMS)/solver_node --ros-args --params-file config/solver.yaml $(ARGS)

test: lint
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

lint: develop
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

tables:
	$(BIN)/meanflow-ik bench $(addprefix --write-tables ,$(shell grep -rl --include=*.md '<!-- bench ' README.md docs))

format: develop
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What developing needs includes what running needs.
install: $(VENV)/$(if $(wildcard $(VENV)/.developed),.developed,.installed)
develop: $(VENV)/.developed

# pip 23, which comes with Python 3.10, had not chosen versions for all extras after nine minutes.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit("make PYTHON=...: Python 3.10 or newer is needed, this is " + sys.version if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip
	@touch $@

$(VENV)/.torch: | $(VENV)/.made
	$(PIP) install $(TORCH)
	@touch $@

$(VENV)/.$(DISTRO): $(LIST) | $(VENV)/.made
	$(PIP) install --requirement $(LIST)
	@touch $@

$(VENV)/.installed: $(BUILD_SOURCES) $(LISTED) | $(VENV)/.made
	$(PIP) install $(ISOLATION) --editable ".[$(ROS)demo]"
	@touch $@

$(VENV)/.developed: $(VENV)/.torch $(LISTED) $(BUILD_SOURCES)
	$(PIP) install $(ISOLATION) --editable ".[$(ROS)demo,train,bench,test,dev$(BUILD)]"
	@touch $(VENV)/.installed $@

docs: develop
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs build/docs

figures: develop
	$(BIN)/python docs/figures.py

COLCON := PATH="$(abspath $(BIN)):$$PATH" CMAKE_PREFIX_PATH="$(abspath $(VENV))" $(BIN)/colcon
build-colcon: develop
	$(COLCON) build --base-paths . --symlink-install

test-colcon: build-colcon
	$(COLCON) test --base-paths . --event-handlers console_direct+
	$(COLCON) test-result --verbose

clean:
	rm -rf build install log dist *.egg-info .pytest_cache .ruff_cache demo.png
	find . -name __pycache__ -not -path "./$(VENV)/*" -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
