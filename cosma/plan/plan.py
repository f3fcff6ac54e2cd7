"""A plan: instructions, what they were made for, what they cost, and how good that is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

import cosma.door as door
from cosma.accelerator import Accelerator
from cosma.errors import InputError
from cosma.graph import Graph
from cosma.plan.instructions import Allocate, Execute, Free, Instruction, Load, Store
from cosma.plan.off_chip import OffChip
from cosma.text import counted, html_table, short_repr, shortened
from cosma.units import format_size

if TYPE_CHECKING:
    from pathlib import Path

    from cosma.accelerator.files import Preset

_INSTRUCTIONS = (Load, Allocate, Execute, Store, Free)


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

    if TYPE_CHECKING:  # what callers may write; dataclass makes the constructor, and __post_init__ converts

        def __init__(
            self,
            loaded: SupportsIndex = ...,
            stored: SupportsIndex = ...,
            streamed: SupportsIndex = ...,
            compulsory: SupportsIndex = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        for name in ("loaded", "stored", "streamed", "compulsory"):
            value = door.integer(getattr(self, name), f"traffic: {name}", most=door.UNLIMITED)
            object.__setattr__(self, name, value)

    @property
    def total(self) -> int:
        """All bytes that cross the chip's edge."""
        return self.loaded + self.stored + self.streamed

    @property
    def noncompulsory(self) -> int:
        """The objective: bytes beyond the compulsory ones."""
        return self.total - self.compulsory


@dataclass(frozen=True, slots=True)
class ScopedBound:
    """A lower bound and the plans that it holds for.

    Attributes
    ----------
    scope
        ``graph``: plans of this graph, which has no tiles. ``tiling``: plans of this graph of tiles. ``tilings``: plans
        of every tiling, along any axes and in partial sums, in any order, whatever is fused. ``rows``, in older files:
        plans of every tiling along rows and channels.
    lower_bound
        Non-compulsory bytes.
    method
        How it was found.
    """

    __repr__ = short_repr

    scope: Literal["graph", "tiling", "tilings", "rows"]
    lower_bound: int
    method: str


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
    claimed
        Whether it was read from a file, so that nothing here has verified the bound.
    bounds
        For a plan of tiles, bounds by scope.
    """

    __repr__ = short_repr

    lower_bound: int
    noncompulsory: int
    method: str
    claimed: bool = field(default=False, compare=False)
    bounds: tuple[ScopedBound, ...] = ()

    if TYPE_CHECKING:  # as above

        def __init__(
            self, lower_bound: SupportsIndex, noncompulsory: SupportsIndex, method: str, claimed: bool = ...,
            bounds: tuple[ScopedBound, ...] = ...,
        ) -> None: ...  # fmt: skip

    def __post_init__(self) -> None:
        for name in ("lower_bound", "noncompulsory"):
            value = door.integer(getattr(self, name), f"certificate: {name}", most=4 * door.UNLIMITED)
            object.__setattr__(self, name, value)
        object.__setattr__(self, "method", door.text(self.method, "certificate: method"))

    @property
    def status(self) -> Literal["optimal", "feasible"]:
        """``optimal`` where bound and plan meet, else ``feasible``."""
        return "optimal" if self.lower_bound >= self.noncompulsory else "feasible"

    @property
    def gap(self) -> float:
        """(achieved - bound) / achieved; 0 where nothing is achieved beyond the bound."""
        if self.noncompulsory <= max(0, self.lower_bound):
            return 0.0
        return (self.noncompulsory - self.lower_bound) / self.noncompulsory


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Plan:
    """A schedule, an allocation and a replacement, as instructions replayed in order.

    Attributes
    ----------
    graph
        What is executed, fusion and element type already applied.
    accelerator
        What it is executed on.
    instructions
        In order; may be given as any sequence.
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
    stopped_by
        ``time`` or ``interrupt`` where a clock or an interrupt cut the run short.
    off_chip
        Where tensors lie off-chip, where that was laid out.
    not_claimed
        What a foreign file leaves out of ``traffic``, ``peak`` and ``certificate``: a replay counts it.
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
    stopped_by: Literal["time", "interrupt"] | None = None
    off_chip: OffChip | None = None
    not_claimed: frozenset[str] = field(default=frozenset(), compare=False)

    if TYPE_CHECKING:  # as above

        def __init__(
            self,
            *,
            graph: Graph,
            accelerator: Accelerator | Preset | Path | str,
            instructions: Iterable[Instruction],
            traffic: Traffic,
            peak_bytes: SupportsIndex,
            certificate: Certificate,
            model_name: str,
            model_sha256: str | None = ...,
            dtype: str | None = ...,
            dims: Mapping[str, SupportsIndex] = ...,
            solver: Mapping[str, Any] = ...,
            stopped_by: Literal["time", "interrupt"] | None = ...,
            off_chip: OffChip | None = ...,
            not_claimed: frozenset[str] = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        put = object.__setattr__
        door.instance(self.graph, Graph, "plan: graph")
        given: object = self.accelerator
        if not isinstance(given, Accelerator):
            from cosma.accelerator.files import as_accelerator

            put(self, "accelerator", as_accelerator(given))
        instructions = tuple(door.items(self.instructions, "plan: instructions"))
        for i, one in enumerate(instructions):
            if not isinstance(one, _INSTRUCTIONS):
                raise InputError(f"plan: instructions[{i}] must be an instruction, not {door.shown(one)}")
        put(self, "instructions", instructions)
        door.instance(self.traffic, Traffic, "plan: traffic")
        put(self, "peak_bytes", door.integer(self.peak_bytes, "plan: peak_bytes", most=door.UNLIMITED))
        door.instance(self.certificate, Certificate, "plan: certificate")
        put(self, "model_name", door.text(self.model_name, "plan: model_name"))
        put(self, "model_sha256", door.optional_text(self.model_sha256, "plan: model_sha256"))
        put(self, "dtype", door.optional_text(self.dtype, "plan: dtype"))
        put(self, "dims", door.counts_by_name(self.dims, "plan: dims"))
        if self.off_chip is not None:
            door.instance(self.off_chip, OffChip, "plan: off_chip")
        put(self, "solver", door.mapping(self.solver, "plan: solver"))

    def __repr__(self) -> str:
        return (
            f"Plan({shortened(repr(self.model_name))}, {counted(len(self.graph.operators), 'operator')}, "
            f"{len(self.instructions)} instructions, {self.traffic.noncompulsory} non-compulsory bytes, "
            f"{self.certificate.status})"
        )

    def _repr_html_(self) -> str:
        traffic, certificate = self.traffic, self.certificate
        claimed = ", claimed by its file" if certificate.claimed else ""
        rows = [
            ("accelerator", self.accelerator.describe()),
            ("operators", f"{len(self.graph.operators)}, {len(self.instructions)} instructions"),
            ("peak", f"{format_size(self.peak_bytes)} of {format_size(self.accelerator.capacity_bytes)}"),
            ("traffic", f"{format_size(traffic.total)}, {format_size(traffic.noncompulsory)} beyond the compulsory"),
            ("lower bound", f"{format_size(certificate.lower_bound)}: {certificate.status}{claimed}"),
        ]
        return html_table((self.model_name, ""), rows)

    @property
    def reproducible(self) -> bool:
        """Whether the same input, options and seed give the same plan again."""
        return self.stopped_by is None

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
