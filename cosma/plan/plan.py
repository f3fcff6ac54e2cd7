"""A plan: instructions, what they were made for, what they cost, and how good that is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from cosma.errors import InputError
from cosma.plan.instructions import Execute

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cosma.accelerator import Accelerator
    from cosma.graph import Graph
    from cosma.plan.instructions import Instruction


@dataclass(frozen=True, slots=True)
class Traffic:
    """Off-chip traffic in bytes.

    Attributes
    ----------
    loaded, stored
        Bytes moved by ``load`` and ``store`` instructions.
    streamed
        Bytes operators read from or write to off-chip memory as they run, streamed weights included.
    compulsory
        Bytes no plan does without.
    """

    loaded: int = 0
    stored: int = 0
    streamed: int = 0
    compulsory: int = 0

    @property
    def total(self) -> int:
        """All bytes that cross the chip's edge."""
        return self.loaded + self.stored + self.streamed

    @property
    def noncompulsory(self) -> int:
        """The objective: bytes beyond the compulsory ones."""
        return self.total - self.compulsory


@dataclass(frozen=True, slots=True)
class Certificate:
    """How far from optimal a plan can be.

    Attributes
    ----------
    lower_bound
        Non-compulsory bytes that any valid plan for the same graph and accelerator needs at least.
    noncompulsory
        What this plan needs.
    method
        How the bound was found, and what it assumes.
    """

    lower_bound: int
    noncompulsory: int
    method: str

    @property
    def status(self) -> Literal["optimal", "feasible"]:
        """``optimal`` where bound and plan meet, else ``feasible``."""
        return "optimal" if self.lower_bound >= self.noncompulsory else "feasible"

    @property
    def gap(self) -> float:
        """(achieved - bound) / achieved; 0 where nothing is achieved beyond the bound."""
        if self.noncompulsory <= self.lower_bound:
            return 0.0
        return (self.noncompulsory - self.lower_bound) / self.noncompulsory


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A schedule, an allocation and a replacement, as instructions replayed in order.

    Attributes
    ----------
    graph
        What is executed, fusion and element type already applied.
    accelerator
        What it is executed on.
    instructions
        In order.
    traffic, peak_bytes
        As counted by replay; ``peak_bytes`` is the most that lies in the scratchpad at any instant.
    certificate
        Lower bound and status.
    model_name, model_sha256
        The ONNX file this was made from, where there is one.
    dtype
        Element type that floating-point tensors were counted as, where overridden.
    dims
        Sizes that the model's dynamic dimensions were bound to, by symbol.
    solver
        Strategy, seed and other settings that reproduce the plan.
    """

    graph: Graph
    accelerator: Accelerator
    instructions: tuple[Instruction, ...]
    traffic: Traffic
    peak_bytes: int
    certificate: Certificate
    model_name: str
    model_sha256: str | None = None
    dtype: str | None = None
    dims: Mapping[str, int] = field(default_factory=dict)
    solver: dict[str, Any] = field(default_factory=dict)

    @property
    def schedule(self) -> tuple[str, ...]:
        """Operator names in the order they execute."""
        return tuple(i.operator for i in self.instructions if isinstance(i, Execute))

    def sizes(self, given: Mapping[str, int]) -> dict[str, int]:
        """Sizes to read the plan's model with: those it was made for, and others that were given.

        Raises
        ------
        InputError
            If a size was given that is not the one the plan was made for.
        """
        for symbol, size in given.items():
            made_for = self.dims.get(symbol, size)
            if size != made_for:
                raise InputError(f"the plan was made for {symbol}={made_for}, not for {symbol}={size}")
        return {**self.dims, **given}
