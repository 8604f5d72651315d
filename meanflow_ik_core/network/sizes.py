# SPDX-License-Identifier: Apache-2.0
"""The sizes of each kind of network, and the names and shapes of its weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from ..errors import OptionError

POSE_FEATURES = 12  # position (3), rotation matrix (9)
TIME_FREQUENCIES = 8
TIME_DIM = 64

Shape = tuple[str, tuple[int, ...]]


@dataclass(frozen=True)
class NetworkSizes(ABC):
    """What makes a network again, but for its weights.

    Args:
        num_joints: J.
        num_tips: T.
        hidden_dim: width of the residual stream.
        depth: number of residual blocks; the features of training are the output of block
            depth // 2.
        context_dim: width of the embedding of targets and times.
        context_depth: residual blocks of that embedding; they run once per pose, not per sample.

    Raises:
        OptionError: a size is not a positive integer.
    """

    kind: ClassVar[str]  # in settings and checkpoints
    takes_partial_goals: ClassVar[bool]
    least: ClassVar[dict[str, int]]  # of sizes that may be below 1

    num_joints: int
    num_tips: int = 1
    hidden_dim: int = 512
    depth: int = 8
    context_dim: int = 128
    context_depth: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            low = self.least.get(name, 1)
            if not isinstance(value, int) or value < low:
                raise OptionError(f"{name} is {value!r}; it must be an integer of at least {low}")

    @classmethod
    def check_given(cls, given: Any) -> None:
        """Refuse a bool array or tensor of what is asked for, if this kind cannot answer it.

        Raises:
            OptionError: the network needs all tips, and not all are given.
        """
        if given is not None and not cls.takes_partial_goals and not given.all():
            raise OptionError(
                "this network has learned complete goals only: it needs the position and the "
                "orientation of every tip"
            )

    def shapes(self) -> Iterator[Shape]:
        """Names and shapes of all weights, one after another: a stranger's depth may be huge."""
        hidden, context = self.hidden_dim, self.context_dim
        yield from _linear("time_mlp.0", TIME_DIM, 2 * TIME_FREQUENCIES)
        yield from _linear("time_mlp.2", TIME_DIM, TIME_DIM)
        yield from _linear("time_in", context, 2 * TIME_DIM)
        yield from self._target_shapes()
        yield from _linear("context_mlp", context, context)
        for i in range(self.context_depth):
            yield from _linear(f"context_blocks.{i}.first", context, context)
            yield from _linear(f"context_blocks.{i}.second", context, context)
        yield from _linear("z_in", hidden, self.num_joints)
        yield "context_in.weight", (hidden, context)
        for i in range(self.depth):
            yield from _linear(f"blocks.{i}.first", hidden, hidden)
            yield from _linear(f"blocks.{i}.second", hidden, hidden)
            yield from _linear(f"blocks.{i}.modulation", 2 * hidden, context)
        yield from _linear("out", self.num_joints, hidden)

    @abstractmethod
    def _target_shapes(self) -> Iterator[Shape]:
        """The weights that turn targets into the context's input."""


@dataclass(frozen=True)
class MlpSizes(NetworkSizes):
    """Of the network whose targets are one vector, see `MeanFlowNetwork`."""

    kind: ClassVar = "mlp"
    takes_partial_goals: ClassVar = False
    least: ClassVar = {"context_depth": 0}

    def _target_shapes(self) -> Iterator[Shape]:
        yield from _linear("pose_in", self.context_dim, POSE_FEATURES * self.num_tips)


@dataclass(frozen=True)
class TokenSizes(NetworkSizes):
    """Of the network whose targets are a set of tokens, see `TokenNetwork`.

    Args:
        token_dim: width of a token.
        token_depth: layers of the encoder.
        num_heads: of their attention; divides token_dim.

    Raises:
        OptionError: a size is not a positive integer, or num_heads does not divide token_dim.
    """

    kind: ClassVar = "tokens"
    takes_partial_goals: ClassVar = True
    least: ClassVar = {"context_depth": 0, "token_depth": 0}

    hidden_dim: int = 256
    depth: int = 6
    context_dim: int = 256
    token_dim: int = 128
    token_depth: int = 1
    num_heads: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.token_dim % self.num_heads:
            raise OptionError(
                f"num_heads is {self.num_heads}; it must divide token_dim, {self.token_dim}"
            )

    def _target_shapes(self) -> Iterator[Shape]:
        tips, width = self.num_tips, self.token_dim
        yield "pose_weight", (tips, POSE_FEATURES, width)
        yield "absent", (tips, 2, width)
        yield "identity", (tips, width)
        for i in range(self.token_depth):
            yield from _linear(f"token_blocks.{i}.query_key_value", 3 * width, width)
            yield from _linear(f"token_blocks.{i}.joined", width, width)
            yield from _linear(f"token_blocks.{i}.first", 2 * width, width)
            yield from _linear(f"token_blocks.{i}.second", width, 2 * width)
        yield from _linear("token_out", self.context_dim, tips * width)


SIZES: dict[str, type[MlpSizes] | type[TokenSizes]] = {
    sizes.kind: sizes for sizes in (MlpSizes, TokenSizes)
}


def _linear(name: str, outputs: int, inputs: int) -> Iterator[Shape]:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)
