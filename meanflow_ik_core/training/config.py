# SPDX-License-Identifier: Apache-2.0
"""Settings of a training run: type, default, bounds and meaning of each in one place."""

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..network.sizes import SIZES
from ..plain_numbers import plain_float
from ..plain_yaml import plain_from_file
from ..settings import check_names, check_settings, setting

JVP_TANGENTS = ("total", "partial")
TANGENT_VELOCITIES = ("network", "sample")

_LONGEST_CHAIN = 5
_RECIPES = Path(__file__).parents[1] / "recipes"


@dataclass(frozen=True)
class TrainConfig:
    """Settings of `train`; the metadata of each field holds its help, bounds or choices.

    Raises:
        ConfigError: a value has the wrong type or is out of its range.
    """

    network: str = setting(
        "mlp",
        "mlp: the poses of all tips as one vector; tokens: one token per tip, and goals may leave "
        "out any part",
        choices=tuple(SIZES),
    )
    hidden_dim: int = setting(256, "width of the residual stream", low=1)
    depth: int = setting(6, "number of residual blocks", low=1)
    context_dim: int = setting(64, "width of the embedding of target poses and times", low=1)
    context_depth: int = setting(
        0, "residual blocks of the embedding of poses and times, which is run once per pose", low=0
    )
    token_dim: int = setting(128, "width of a token, in network tokens", low=1)
    token_depth: int = setting(
        1, "layers of attention between tokens, run once per pose, in network tokens", low=0
    )

    collision_free: bool = setting(
        False, "draw configurations without self-collision only, for training and validation"
    )
    collision_free_start: float = setting(
        0.0,
        "share of the run after which collision_free acts on training; drawing is faster before",
        low=0,
        high=1,
    )
    drop_tip: float = setting(
        0.0,
        "share of the goals that leave out tips, each with probability 1/2; one always stays",
        low=0,
        high=1,
    )
    drop_orientation: float = setting(
        0.0, "share of the tips in a goal whose orientation is left out", low=0, high=1
    )
    drop_position: float = setting(
        0.0,
        "share of the tips in a goal that keep their orientation whose position is left out",
        low=0,
        high=1,
    )

    batch_size: int = setting(
        1024, "samples per step for the terms on velocities, over all processes together", low=2
    )
    iterations: int = setting(50_000, "steps of the whole run", low=1)
    max_seconds: float = setting(
        0.0, "seconds of wall time of the whole run, resumed parts included; 0: no limit", low=0
    )
    optimizer: str = setting(
        "adamw",
        "adamw: for all weights; muon: for the matrices of the blocks, adamw for the rest (torch "
        "2.9 and later)",
        choices=("adamw", "muon"),
    )
    muon_iterations: int = setting(
        5, "Newton-Schulz iterations that make an update of muon orthogonal", low=1, high=20
    )
    lr: float = setting(1e-3, "peak learning rate", low=0, low_open=True)
    warmup_steps: int = setting(
        1000, "steps over which the learning rate rises linearly to its peak", low=0
    )
    decay_start: float = setting(
        0.5,
        "share of the run after which the learning rate falls to 0 as a cosine",
        low=0,
        high=1,
    )
    weight_decay: float = setting(0.0, "decoupled weight decay", low=0)
    grad_clip: float = setting(1.0, "largest norm of the gradient; 0: no clipping", low=0)
    ema_decay: float = setting(
        0.999,
        "decay of the exponential average of the weights, which is validated and exported",
        low=0,
        high=1,
    )

    mode: str = setting(
        "meanflow",
        "meanflow: average velocities and flow matching; baseline: flow matching alone",
        choices=("meanflow", "baseline"),
    )
    jvp_tangent: str = setting(
        "total",
        "derivative in the target of the average velocity: total, along the path as in the paper "
        "on MeanFlow; partial, in t alone",
        choices=JVP_TANGENTS,
    )
    tangent_velocity: str = setting(
        "network",
        "velocity of z along the path, for jvp_tangent total: network: its own at r = t; sample: "
        "x1 - x0",
        choices=TANGENT_VELOCITIES,
    )
    reference_time: str = setting(
        "uniform",
        "uniform: r and t are two uniform times, sorted; zero: r = 0, and every row has the flow "
        "term as well",
        choices=("uniform", "zero"),
    )
    flow_share: float = setting(
        0.5, "share of the rows with r = t, which is plain flow matching", low=0, high=1
    )
    gap_start: float = setting(
        0.0,
        "share of the run before which all rows have r = t: a warm-up by flow matching",
        low=0,
        high=1,
    )
    one_step_share: float = setting(
        0.0,
        "share of the rows with r < t that get r = 0 and t = 1, from one_step_start on",
        low=0,
        high=1,
    )
    one_step_start: float = setting(
        0.6, "share of the run after which one_step_share acts", low=0, high=1
    )
    alpha_meanflow: float = setting(
        1.0, "weight of the average-velocity term; that of the flow term is 1", low=0
    )
    adaptive_power: float = setting(
        0.5,
        "p: in the terms on velocities each row's squared error is divided by "
        "(error + adaptive_epsilon)^p",
        low=0,
        high=1,
    )
    adaptive_epsilon: float = setting(
        1e-2,
        "epsilon of adaptive_power: errors far below it count as squares",
        low=0,
        low_open=True,
    )
    lambda_disp: float = setting(
        0.0, "weight of the dispersive loss, which keeps features of different samples apart", low=0
    )
    tau: float = setting(0.5, "temperature of the dispersive loss", low=0, low_open=True)
    dispersive_normalise: bool = setting(
        True, "divide squared distances in the dispersive loss by the dimension of the features"
    )
    estimate_start: float = setting(
        0.75,
        "share of the run after which the terms on one-step estimates act",
        low=0,
        high=1,
    )
    estimate_poses: int = setting(
        256, "poses per step for the terms on one-step estimates, over all processes", low=1
    )
    estimate_samples: int = setting(4, "one-step estimates per pose", low=2)
    lambda_energy: float = setting(0.0, "weight of the energy score of one-step estimates", low=0)
    energy_power: float = setting(
        1.0,
        "power of the distances in the energy score: below 1, near ones count more",
        low=0,
        high=2,
        low_open=True,
    )
    lambda_kernel: float = setting(0.0, "weight of the kernel score of one-step estimates", low=0)
    score_tips: float = setting(
        0.0,
        "weight of the energy and kernel scores of each tip's own joints, beside those of all "
        "joints",
        low=0,
    )
    lambda_refine: float = setting(
        0.0, "weight of the refinement term: the error of one-step estimates to refined ones", low=0
    )
    refine_tips: bool = setting(
        False,
        "one refinement term per tip, of the joints that move it, instead of one of all joints",
    )
    refine_power: float = setting(
        0.5,
        "p of the refinement term, as adaptive_power: 0: squares, 0.5: distances, 1: far estimates "
        "hardly pull",
        low=0,
        high=1,
    )
    refine_epsilon: float = setting(
        1e-5, "epsilon of refine_power: errors far below it count as squares", low=0, low_open=True
    )
    refine_steps: int = setting(
        1, "damped least-squares steps from a one-step estimate to its refined one", low=1, high=20
    )
    velocity_end: float = setting(
        1.0,
        "share of the run after which the terms on velocities are left out, where those on "
        "estimates act",
        low=0,
        high=1,
    )
    velocity_every: int = setting(
        1, "steps from one with the terms on velocities to the next, where estimates act", low=1
    )

    precision: str = setting(
        "float32",
        "arithmetic of the network; weights stay float32",
        choices=("float32", "bfloat16"),
    )
    step: str = setting(
        "eager",
        "eager: one operation after the other, on any device; fused: generated kernels in one CUDA "
        "graph, on device cuda, in one process (docs/gpu.md)",
        choices=("eager", "fused"),
    )
    compile: bool = setting(False, "fuse the network with torch.compile (needs a C++ compiler)")
    seed: int = setting(0, "seed of weights, data and validation poses", low=0, high=2**31)

    log_every: int = setting(100, "steps between logged losses", low=1)
    save_every: int = setting(1000, "steps between saved states and exported checkpoints", low=1)
    validate_every: int = setting(2000, "steps between validations", low=1)
    validation_poses: int = setting(300, "poses of a validation", low=1)
    validation_samples: int = setting(50, "samples per pose of a validation", low=2)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if isinstance(field.default, float):
                object.__setattr__(self, field.name, _as_float(getattr(self, field.name)))
        check_settings(self)
        if self.network == "mlp" and self.drops:
            raise ConfigError(
                "network is 'mlp', which needs complete goals; only 'tokens' can drop parts"
            )

    @property
    def drops(self) -> bool:
        """Whether some goals leave out parts of their poses."""
        return self.drop_tip + self.drop_orientation + self.drop_position > 0

    @property
    def estimate_weights(self) -> dict[str, float]:
        """Weights of the terms on one-step estimates, by term."""
        return {
            "energy": self.lambda_energy,
            "kernel": self.lambda_kernel,
            "refine": self.lambda_refine,
        }

    @property
    def network_sizes(self) -> dict[str, int]:
        """Sizes that a network of this kind takes."""
        names = ["hidden_dim", "depth", "context_dim", "context_depth"]
        if self.network == "tokens":
            names += ["token_dim", "token_depth"]
        return {name: getattr(self, name) for name in names}


def train_config_from_mapping(settings: Mapping[str, Any], source: str = "") -> TrainConfig:
    """Configuration from a mapping of field names to values; what is left out has its default.

    Raises:
        ConfigError: unknown key, or a value of the wrong type or out of its range.
    """
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    check_names(settings, names, "setting", source)
    return TrainConfig(**settings)


def load_train_config(path: str | Path, **overrides: Any) -> TrainConfig:
    """Configuration from a YAML file, or from a recipe of the package by its name.

    Keyword arguments override the file. A key `base` names another such file, relative to this one,
    whose settings this one changes.

    Raises:
        ConfigError: the file is missing or not a YAML mapping, or a setting is wrong.
    """
    file = _file_of(path)
    return train_config_from_mapping({**_read_mapping(file), **overrides}, str(file))


def _file_of(name: str | Path) -> Path:
    path = Path(name)
    if path.is_file() or path.suffix or len(path.parts) > 1:
        return path
    if not (_RECIPES / f"{name}.yaml").is_file():
        recipes = ", ".join(sorted(file.stem for file in _RECIPES.glob("*.yaml")))
        raise ConfigError(f"there is no recipe {str(name)!r}; recipes are {recipes}, or any file")
    return _RECIPES / f"{name}.yaml"


def _read_mapping(path: Path, depth: int = 0) -> dict[str, Any]:
    """Settings of a file and of those it builds on."""
    if depth > _LONGEST_CHAIN:
        raise ConfigError(f"{path}: more than {_LONGEST_CHAIN} files build on one another")
    settings = plain_from_file(path, ConfigError)
    if settings is None:
        settings = {}
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} holds a {type(settings).__name__}; it must be a mapping")
    base = settings.pop("base", None)
    if base is None:
        return settings
    if not isinstance(base, str):
        raise ConfigError(f"base in {path} is {base!r}; it must be the name of a file")
    return {**_read_mapping(path.parent / base, depth + 1), **settings}


def _as_float(value: Any) -> Any:
    """The value of a setting that is a float, where it came as an integer or as text.

    YAML 1.1 reads 1e-4, without a dot, as text.
    """
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return plain_float(value)
    return float(value) if type(value) is int else value
