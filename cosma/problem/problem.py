"""A graph on an accelerator as integer arrays: what every optimiser works on.

Operators and tensors are numbered. Only tensors that can occupy the scratchpad are here: activations, and
constants under ``weights = scratchpad``. Ragged tables are stored as offsets and values (CSR): row ``i`` of
``operand`` is ``operand[operand_start[i]:operand_start[i + 1]]``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cosma.accelerator import Accelerator, Operands, Weights
from cosma.csr import csr
from cosma.errors import InfeasibleError
from cosma.graph import Graph, Tensor, TensorKind
from cosma.graph.in_place import in_place_operands
from cosma.problem.feasible import find_remedies
from cosma.rewrite.fuse import smallest_capacity
from cosma.units import align_up, format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Int64s = NDArray[np.int64]
    Int32s = NDArray[np.int32]
    Bools = NDArray[np.bool_]


#: Tensors of an operator that a message lists.
_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Problem:
    """The instance that optimisers see.

    Attributes
    ----------
    graph, accelerator
        Where it comes from; what is to be fused is fused in the graph already.
    operator_names, tensor_names
        Names by number. Operators are numbered in the graph's topological order.
    size_bytes
        True sizes: what a transfer costs. ``int64[tensors]``.
    space_bytes
        Sizes rounded up to the alignment: what residency takes. ``int64[tensors]``.
    starts_off_chip
        Inputs and weights: a valid off-chip copy exists from the start. ``bool[tensors]``.
    must_store
        Graph outputs: an off-chip copy must exist at the end. ``bool[tensors]``.
    producer
        Number of the producing operator, -1 for inputs and weights. ``int32[tensors]``.
    operand_start, operand
        CSR: tensors each operator reads from the scratchpad or streams, each once, in operand order.
    result_start, result
        CSR: tensors each operator produces.
    consumer_start, consumer
        CSR: operators that read each tensor, ascending, each once.
    predecessor_start, predecessor, successor_start, successor
        CSR: operators whose results an operator reads, and the reverse; ascending, each once.
    pair_start, pair_result, pair_operand
        CSR over operators: (result, operand) pairs allowed in place; empty when in-place is off.
    capacity_bytes
        Scratchpad less reserved, rounded down to the alignment.
    streamable
        Whether operands and results may bypass the scratchpad (weights kept as tensors included).
    constant_noncompulsory_bytes
        Traffic beyond compulsory that no decision changes: streamed weights that several operators read.
    """

    graph: Graph
    accelerator: Accelerator
    operator_names: tuple[str, ...]
    tensor_names: tuple[str, ...]
    size_bytes: Int64s
    space_bytes: Int64s
    starts_off_chip: Bools
    must_store: Bools
    producer: Int32s
    operand_start: Int32s
    operand: Int32s
    result_start: Int32s
    result: Int32s
    consumer_start: Int32s
    consumer: Int32s
    predecessor_start: Int32s
    predecessor: Int32s
    successor_start: Int32s
    successor: Int32s
    pair_start: Int32s
    pair_result: Int32s
    pair_operand: Int32s
    capacity_bytes: int
    streamable: bool
    constant_noncompulsory_bytes: int

    def __repr__(self) -> str:
        return (
            f"Problem({self.graph.name!r}, {self.operator_count} operators, {self.tensor_count} tensors, "
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

    def working_set_bytes(self, operator: int) -> int:
        """Least space an operator needs under ``operands = resident``.

        Operands and results at once, less the best set of in-place takeovers (each operand and each result
        in one pair at most). A takeover counts even where the operand is needed later: it may be stored
        first and loaded again.
        """
        touched = np.concatenate([self.operands_of(operator), self.results_of(operator)])
        total = int(self.space_bytes[touched].sum())
        # Elementwise operators have one result, so the best pair is the best set.
        pairs = self.pairs_of(operator)
        return total - max((int(self.space_bytes[result]) for result, _ in pairs), default=0)

    def check_feasible(self) -> None:
        """Raise :class:`InfeasibleError` if some operator cannot run at all, saying which and what would help."""
        error = infeasible(self, self.graph)
        if error is not None:
            raise error


def infeasible(problem: Problem, graph: Graph) -> InfeasibleError | None:
    """The error of an instance in which some operator does not fit; None where all do.

    Parameters
    ----------
    problem
        The instance.
    graph
        The network it was made from, before fusion.
    """
    needs = [problem.working_set_bytes(v) for v in range(problem.operator_count)]
    worst = max(range(len(needs)), key=needs.__getitem__, default=None)
    if problem.streamable or worst is None or needs[worst] <= problem.capacity_bytes:
        return None
    names = [*problem.operands_of(worst).tolist(), *problem.results_of(worst).tolist()]
    sizes = (f"{problem.tensor_names[t]} ({format_size(int(problem.size_bytes[t]))})" for t in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    name, kind = problem.operator_names[worst], problem.graph.operators[worst].type
    return InfeasibleError(
        f"does not fit: operator {name!r} ({kind}) needs {needs[worst]} bytes ({format_size(needs[worst])}) at once, "
        f"{problem.capacity_bytes} bytes ({format_size(problem.capacity_bytes)}) are available",
        operator=name,
        operator_type=kind,
        needed_bytes=needs[worst],
        available_bytes=problem.capacity_bytes,
        smallest_capacity_bytes=smallest_capacity(graph, problem.accelerator),
        remedies=tuple(find_remedies(graph, problem.accelerator)),
    ).with_details(
        [
            f"  its tensors: {', '.join(sizes)}{more}",
            f"  {sum(need > problem.capacity_bytes for need in needs)} of {len(needs)} operators do not fit",
        ]
    )


def smallest_feasible_capacity(problem: Problem) -> int:
    """Least capacity in bytes at which a plan of this instance exists, without what is reserved.

    It is 0 if everything may stream. Of a network, :func:`cosma.rewrite.smallest_capacity` says it for every choice of
    operators to fuse.
    """
    if problem.streamable:
        return 0
    return max((problem.working_set_bytes(v) for v in range(problem.operator_count)), default=0)


def tightened(problem: Problem, share: float) -> Problem | None:
    """Build the same problem with a share of the capacity; None if an operator does not fit then."""
    alignment = problem.accelerator.alignment
    tighter = replace(problem, capacity_bytes=int(problem.capacity_bytes * share) // alignment * alignment)
    return tighter if smallest_feasible_capacity(tighter) <= tighter.capacity_bytes else None


def build_problem(graph: Graph, accelerator: Accelerator) -> Problem:
    """Number a graph's operators and tensors for an accelerator.

    Nothing is fused here: which operators to fuse is a choice, see :mod:`cosma.rewrite.fuse`. The result is a function
    of its arguments alone; work and memory are linear in the graph.
    """
    keep_weights = accelerator.weights == Weights.SCRATCHPAD
    tensors = [
        tensor
        for tensor in graph.tensors.values()
        if (keep_weights or tensor.kind is not TensorKind.WEIGHT)
        and (graph.consumers(tensor.name) or graph.producer(tensor.name) is not None)
    ]
    number = {tensor.name: i for i, tensor in enumerate(tensors)}
    index = graph.operator_index
    operands = [[number[name] for name in o.operands if name in number] for o in graph.operators]
    results = [[number[name] for name in o.outputs] for o in graph.operators]
    consumers = [[index(name) for name in graph.consumers(t.name)] for t in tensors]
    producer = np.full(len(tensors), -1, dtype=np.int32)
    for v, row in enumerate(results):
        producer[row] = v
    predecessors = [sorted({int(producer[t]) for t in row if producer[t] >= 0}) for row in operands]
    successors = [sorted({v for t in row for v in consumers[t]}) for row in results]
    pairs = _in_place_pairs(graph, tensors, number, operands) if accelerator.in_place else [[] for _ in operands]
    size = np.array([t.size_bytes for t in tensors], dtype=np.int64)
    operand_start, operand = csr(operands)
    result_start, result = csr(results)
    consumer_start, consumer = csr(consumers)
    predecessor_start, predecessor = csr(predecessors)
    successor_start, successor = csr(successors)
    pair_start, pair_result = csr([[r for r, _ in row] for row in pairs])
    _, pair_operand = csr([[o for _, o in row] for row in pairs])
    return Problem(
        graph=graph,
        accelerator=accelerator,
        operator_names=tuple(o.name for o in graph.operators),
        tensor_names=tuple(t.name for t in tensors),
        size_bytes=size,
        space_bytes=np.array([align_up(t.size_bytes, accelerator.alignment) for t in tensors], dtype=np.int64),
        starts_off_chip=np.array([t.starts_off_chip for t in tensors], dtype=np.bool_),
        must_store=np.array([t.kind is TensorKind.OUTPUT for t in tensors], dtype=np.bool_),
        producer=producer,
        operand_start=operand_start,
        operand=operand,
        result_start=result_start,
        result=result,
        consumer_start=consumer_start,
        consumer=consumer,
        predecessor_start=predecessor_start,
        predecessor=predecessor,
        successor_start=successor_start,
        successor=successor,
        pair_start=pair_start,
        pair_result=pair_result,
        pair_operand=pair_operand,
        capacity_bytes=accelerator.capacity_bytes // accelerator.alignment * accelerator.alignment,
        streamable=accelerator.operands == Operands.STREAMABLE,
        constant_noncompulsory_bytes=0 if keep_weights else _repeated_weight_bytes(graph),
    )


def _in_place_pairs(
    graph: Graph, tensors: Sequence[Tensor], number: dict[str, int], operands: list[list[int]]
) -> list[list[tuple[int, int]]]:
    """(result, operand) pairs per operator. Constants may be overwritten too: they keep their off-chip copy."""
    return [
        [
            (number[name], number[operand.name])
            for name in operator.outputs
            for operand in in_place_operands(operator, graph.tensors[name], [tensors[t] for t in row])
        ]
        for operator, row in zip(graph.operators, operands, strict=True)
    ]


def _repeated_weight_bytes(graph: Graph) -> int:
    return sum(
        max(0, len(graph.consumers(weight.name)) - 1) * weight.size_bytes for weight in graph.of_kind(TensorKind.WEIGHT)
    )

