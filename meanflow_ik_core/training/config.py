# SPDX-License-Identifier: Apache-2.0
"""Settings of a training run: type, default, bounds and meaning of each in one place."""

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError
from ..network.kinds import NETWORKS
from .losses import JVP_TANGENTS, TANGENT_VELOCITIES

_LONGEST_CHAIN = 5


def _number(
    default: Any, help: str, low: float, high: float = math.inf, low_open: bool = False
) -> Any:
    metadata = {"help": help, "low": low, "high": high, "low_open": low_open}
    return dataclasses.field(default=default, metadata=metadata)


def _choice(default: str, help: str, choices: tuple[str, ...]) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


def _flag(default: bool, help: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class TrainConfig:
    """Settings of `train`; the metadata of each field holds its help, bounds or choices.

    Raises:
        ConfigError: a value has the wrong type or is out of its range.
    """

    network: str = _choice(
        "mlp",
        "mlp: all tips as one vector; tokens: one token per tip, any of which may be left out",
        tuple(NETWORKS),
    )
    hidden_dim: int = _number(256, "width of the residual stream", 1)
    depth: int = _number(6, "number of residual blocks", 1)
    context_dim: int = _number(64, "width of the embedding of pose and times", 1)
    context_depth: int = _number(0, "residual blocks of that embedding, run once per pose", 0)

    token_dim: int = _number(128, "width of a token of network tokens", 1)
    token_depth: int = _number(1, "layers of attention between tokens, run once per pose", 0)

    collision_free: bool = _flag(
        False, "learn from, and be validated on, configurations that do not touch themselves"
    )
    collision_free_start: float = _number(
        0.0, "share of the run before which that does not act, for such are dearer to draw", 0, 1
    )
    drop_tip: float = _number(
        0.0, "share of the poses of which tips are left out at random, at least one stays", 0, 1
    )
    drop_orientation: float = _number(
        0.0, "share of the tips that are left of which the orientation is left out", 0, 1
    )
    drop_position: float = _number(
        0.0, "share of the tips that then still have both of which the position is left out", 0, 1
    )

    batch_size: int = _number(1024, "samples per step, over all processes together", 2)
    iterations: int = _number(50_000, "steps of the whole run", 1)
    max_seconds: float = _number(
        0.0, "wall time of the whole run, resumed parts included; 0: no limit", 0
    )
    optimizer: str = _choice(
        "adamw",
        "muon makes the updates of the blocks' matrices orthogonal (torch 2.9 and later)",
        ("adamw", "muon"),
    )
    muon_iterations: int = _number(5, "Newton-Schulz iterations of each of those", 1, 20)
    lr: float = _number(1e-3, "peak learning rate", 0, low_open=True)
    warmup_steps: int = _number(1000, "steps over which the learning rate rises linearly", 0)
    decay_start: float = _number(
        0.5, "share of the run after which the learning rate falls to 0 as a cosine", 0, 1
    )
    weight_decay: float = _number(0.0, "decoupled weight decay", 0)
    grad_clip: float = _number(1.0, "largest norm of the gradient; 0: no clipping", 0)
    ema_decay: float = _number(0.999, "decay of the averaged weights, which are exported", 0, 1)

    mode: str = _choice("meanflow", "objective", ("meanflow", "baseline"))
    jvp_tangent: str = _choice(
        "total", "derivative along the path (the paper's) or only in t", JVP_TANGENTS
    )
    tangent_velocity: str = _choice(
        "network", "velocity along which z moves in the total derivative", TANGENT_VELOCITIES
    )
    reference_time: str = _choice(
        "uniform",
        "r: uniform and sorted with t, or always zero with a flow term on every row",
        ("uniform", "zero"),
    )
    flow_share: float = _number(0.5, "share of the rows with r = t, plain flow matching", 0, 1)
    gap_start: float = _number(
        0.0, "share of the run before which every row has r = t: flow matching as a warm-up", 0, 1
    )
    one_step_share: float = _number(
        0.0, "share of the rows with r < t that late in the run get r = 0, t = 1", 0, 1
    )
    one_step_start: float = _number(0.6, "share of the run after which that happens", 0, 1)
    alpha_meanflow: float = _number(1.0, "weight of the average-velocity term", 0)
    adaptive_power: float = _number(
        0.5, "p: each row's error is divided by (error + epsilon)^p; 0: plain squares", 0, 1
    )
    adaptive_epsilon: float = _number(1e-2, "epsilon of that", 0, low_open=True)
    lambda_disp: float = _number(0.0, "weight of the dispersive loss", 0)
    tau: float = _number(0.5, "temperature of the dispersive loss", 0, low_open=True)
    dispersive_normalise: bool = _flag(
        True, "divide squared feature distances by the feature dimension"
    )
    estimate_start: float = _number(
        0.75, "share of the run after which the terms on one-step estimates act", 0, 1
    )
    estimate_poses: int = _number(256, "poses per step with one-step estimates", 1)
    estimate_samples: int = _number(4, "one-step estimates for each of those poses", 2)
    lambda_energy: float = _number(0.0, "weight of their energy score", 0)
    energy_power: float = _number(
        1.0, "power of the distances in it: below 1, near ones count more", 0, 2, low_open=True
    )
    lambda_kernel: float = _number(0.0, "weight of their kernel score", 0)
    score_tips: float = _number(
        0.0,
        "weight of the same two scores on the joints of each tip by themselves, beside all joints",
        0,
    )
    lambda_refine: float = _number(
        0.0, "weight of the distance from them to their refined selves", 0
    )
    refine_tips: bool = _flag(
        False, "weigh that distance for the joints of each tip by themselves, not for all joints"
    )
    refine_power: float = _number(
        0.5,
        "p of that term: 0: its square, 0.5: the distance itself, 1: far ones hardly pull",
        0,
        1,
    )
    refine_epsilon: float = _number(1e-5, "epsilon of that", 0, low_open=True)
    refine_steps: int = _number(1, "damped least-squares steps of the refined self", 1, 20)
    velocity_end: float = _number(
        1.0, "share of the run after which the terms on velocities are left out", 0, 1
    )

    precision: str = _choice(
        "float32", "arithmetic of the network; weights stay float32", ("float32", "bfloat16")
    )
    compile: bool = _flag(False, "fuse the network with torch.compile (needs a C++ compiler)")
    seed: int = _number(0, "seed of weights, data and validation poses", 0, 2**31)

    log_every: int = _number(100, "steps between logged losses", 1)
    save_every: int = _number(1000, "steps between saved states and exported checkpoints", 1)
    validate_every: int = _number(2000, "steps between validations", 1)
    validation_poses: int = _number(300, "poses of a validation", 1)
    validation_samples: int = _number(50, "samples per pose of a validation", 2)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field, getattr(self, field.name)))
        drops = self.drop_tip + self.drop_orientation + self.drop_position
        if self.network == "mlp" and drops > 0:
            raise ConfigError(
                "network is 'mlp', which needs complete goals; only 'tokens' can drop parts"
            )

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
    unknown = [str(key) for key in settings if key not in names]
    if unknown:
        where = f" in {source}" if source else ""
        raise ConfigError(f"unknown setting {', '.join(unknown)}{where}; settings are {names}")
    return TrainConfig(**settings)


def load_train_config(path: str | Path, **overrides: Any) -> TrainConfig:
    """Configuration from a YAML file; keyword arguments override the file.

    A key `base` names another such file, relative to this one, whose settings this one changes.

    Raises:
        ConfigError: the file is missing or not a YAML mapping, or a setting is wrong.
    """
    return train_config_from_mapping({**_read_mapping(Path(path)), **overrides}, str(path))


def _read_mapping(path: Path, depth: int = 0) -> dict[str, Any]:
    """Settings of a file and of those it builds on."""
    if depth > _LONGEST_CHAIN:
        raise ConfigError(f"{path}: more than {_LONGEST_CHAIN} files build on one another")
    try:
        settings = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
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


def _checked(field: dataclasses.Field, value: Any) -> Any:
    kind = type(field.default)
    # YAML 1.1 reads 1e-4, without a dot, as text
    if kind is float and isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ConfigError(f"{field.name} is {value!r}; it must be of type {kind.__name__}")
    choices = field.metadata.get("choices")
    if choices and value not in choices:
        raise ConfigError(f"{field.name} is {value!r}; it must be one of {', '.join(choices)}")
    if "low" in field.metadata:
        low, high = field.metadata["low"], field.metadata["high"]
        low_open = field.metadata["low_open"]
        if not (low <= value <= high) or value == math.inf or (low_open and value == low):
            above = "above" if low_open else "at least"
            upto = f" and at most {high}" if high < math.inf else ""
            raise ConfigError(f"{field.name} is {value!r}; it must be {above} {low}{upto}")
    return value
