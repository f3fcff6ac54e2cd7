"""A graph on an accelerator as integer arrays: what every optimiser works on.

Operators and tensors are numbered. Only tensors that can occupy the scratchpad are here: activations, and
constants under ``weights = scratchpad``. Ragged tables are stored as offsets and values (CSR): row ``i`` of
``operand`` is ``operand[operand_start[i]:operand_start[i + 1]]``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cosma.accelerator import Accelerator
    from cosma.arrays import Bools, Int32s, Ints
    from cosma.graph import Graph
    from cosma.problem.forced import Places
    from cosma.problem.homes import Refused


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Problem:
    """The problem that optimisers see; it may be a part of a network, or a network with less room."""

    #: Name of the network it comes from, for messages.
    name: str
    #: Every address is a multiple of it, in bytes.
    alignment: int
    #: Names by number. Operators are numbered in a topological order.
    operator_names: tuple[str, ...]
    tensor_names: tuple[str, ...]
    #: True sizes: what a transfer costs. ``int64[tensors]``.
    size_bytes: Ints
    #: Sizes rounded up to the alignment: what residency takes. ``int64[tensors]``.
    space_bytes: Ints
    #: Inputs and weights: a valid off-chip copy exists from the start. ``bool[tensors]``.
    starts_off_chip: Bools
    #: Graph outputs: an off-chip copy must exist at the end. ``bool[tensors]``.
    must_store: Bools
    #: Number of the producing operator, -1 for inputs and weights. ``int32[tensors]``.
    producer: Int32s
    #: CSR: tensors each operator reads from the scratchpad or streams, each once, in operand order.
    operand_start: Int32s
    operand: Int32s
    #: Beside ``operand``: whether the operator may read it from off-chip, past the scratchpad.
    operand_streams: Bools
    #: CSR: tensors each operator produces.
    result_start: Int32s
    result: Int32s
    #: Beside ``result``: whether the operator may write it off-chip, past the scratchpad.
    result_streams: Bools
    #: CSR: operators that read each tensor, ascending, each once.
    consumer_start: Int32s
    consumer: Int32s
    #: CSR: operators whose results an operator reads, and the reverse; ascending, each once.
    predecessor_start: Int32s
    predecessor: Int32s
    successor_start: Int32s
    successor: Int32s
    #: CSR over operators: (result, operand) pairs allowed in place; empty when in-place is off.
    pair_start: Int32s
    pair_result: Int32s
    pair_operand: Int32s
    #: Scratchpad less reserved, rounded down to the alignment.
    capacity_bytes: int
    #: Traffic beyond compulsory that no decision changes: streamed weights that several operators read.
    constant_noncompulsory_bytes: int
    #: By operator that needs scratch space: the tensor that stands for it. It is a result of no size that takes space
    #: and that nobody reads, the last of its operator's.
    workspace: Mapping[int, int] = field(default_factory=dict)
    #: Where tensors may lie; None for anywhere below the capacity. With it, the capacity is what is left for use.
    places: Places | None = None
    #: Tensors that must stay once they have come in. Their sizes are such that no good plan brings them in twice.
    kept: frozenset[int] = frozenset()
    #: By operator: rows of tensors that it reads or writes as one address range, in order of their addresses. They are
    #: all in the scratchpad while it runs, or all streamed.
    runs: Mapping[int, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    #: By tensor of a run: the number of the home that it shares with others, and its offset there in bytes; see
    #: :mod:`cosma.problem.homes`.
    homes: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    #: What operators touch in more pieces than they take, whatever the addresses.
    refused: tuple[Refused, ...] = ()
    #: Whether anything may stream. Follows from the tables.
    streamable: bool = field(init=False)
    #: Where ``streamable``: pairs of operator and tensor that may not stream all the same. Follows from the tables.
    held: frozenset[tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        tables = (
            (self.operand_start, self.operand, self.operand_streams),
            (self.result_start, self.result, self.result_streams),
        )
        streamable = any(bool(streams.any()) for _, _, streams in tables)
        held: list[tuple[int, int]] = []
        for start, touched, streams in tables if streamable else ():
            stays = np.flatnonzero(~streams)
            operators = np.searchsorted(start, stays, side="right") - 1
            held += zip(operators.tolist(), touched[stays].tolist(), strict=True)
        object.__setattr__(self, "streamable", streamable)
        object.__setattr__(self, "held", frozenset(held))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name!r}, {self.operator_count} operators, {self.tensor_count} tensors, "
            f"{self.capacity_bytes} bytes)"
        )

    @property
    def operator_count(self) -> int:
        """Number of operators."""
        return len(self.operator_names)

    @property
    def tensor_count(self) -> int:
        """Number of tensors that can occupy the scratchpad."""
        return len(self.tensor_names)

    @property
    def address_limit_bytes(self) -> int:
        """End of the addresses that may be used."""
        return self.capacity_bytes if self.places is None else self.places.limit_bytes

    def operands_of(self, operator: int) -> Int32s:
        """Tensors an operator reads, in operand order."""
        return self.operand[self.operand_start[operator] : self.operand_start[operator + 1]]

    def results_of(self, operator: int) -> Int32s:
        """Tensors an operator produces."""
        return self.result[self.result_start[operator] : self.result_start[operator + 1]]

    def consumers_of(self, tensor: int) -> Int32s:
        """Operators that read a tensor, ascending."""
        return self.consumer[self.consumer_start[tensor] : self.consumer_start[tensor + 1]]

    def predecessors_of(self, operator: int) -> Int32s:
        """Operators whose results an operator reads, ascending."""
        return self.predecessor[self.predecessor_start[operator] : self.predecessor_start[operator + 1]]

    def successors_of(self, operator: int) -> Int32s:
        """Operators that read an operator's results, ascending."""
        return self.successor[self.successor_start[operator] : self.successor_start[operator + 1]]

    def pairs_of(self, operator: int) -> list[tuple[int, int]]:
        """(result, operand) pairs that may share space while an operator runs."""
        row = slice(int(self.pair_start[operator]), int(self.pair_start[operator + 1]))
        return list(zip(self.pair_result[row].tolist(), self.pair_operand[row].tolist(), strict=True))

    def derived(self, **changes: Any) -> Problem:
        """The problem with other values in some fields; what comes out stands for no graph."""
        values = {f.name: getattr(self, f.name) for f in fields(Problem) if f.init}
        return Problem(**(values | changes))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Instance(Problem):
    """The problem of a whole graph on an accelerator: operator ``v`` is the graph's operator ``v``.

    Plans are plans of an instance. Whatever is derived from one is a :class:`Problem` again. Raises ValueError if the
    arrays are not those of the graph on the accelerator.
    """

    #: Where it comes from; what is to be fused is fused in the graph already.
    graph: Graph
    accelerator: Accelerator
    #: Why the constraints cannot hold, as far as building the instance tells; empty otherwise.
    conflict: str = ""

    def __post_init__(self) -> None:
        Problem.__post_init__(self)
        if self.operator_names != tuple(operator.name for operator in self.graph.operators):
            raise ValueError(f"the operators are not those of graph {self.graph.name!r}")
        if (self.capacity_bytes, self.alignment) != (self.accelerator.usable_bytes, self.accelerator.alignment):
            raise ValueError(
                f"capacity {self.capacity_bytes} and alignment {self.alignment} are not the accelerator's, "
                f"{self.accelerator.usable_bytes} and {self.accelerator.alignment}"
            )
