"""From a graph and an accelerator to an instance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.accelerator import Accelerator, Operands, Weights
from cosma.csr import csr
from cosma.graph import Graph, Mode, Operator, Tensor, TensorKind
from cosma.graph.mode import RESIDENT
from cosma.problem.forced import arrivals_of, forced_on, places_of, settings_conflict, spaces_of
from cosma.problem.homes import Homes, homes_of
from cosma.problem.problem import Instance
from cosma.rewrite.constraints import keeps_apart, overwritable
from cosma.units import align_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.accelerator.constraints import Constraints
    from cosma.arrays import Bools, Int32s


def build_problem(graph: Graph, accelerator: Accelerator) -> Instance:
    """Number a graph's operators and tensors for an accelerator.

    Nothing is fused here: which operators to fuse is a choice, see :mod:`cosma.rewrite.fuse`. The result is a function
    of its arguments alone; work and memory are linear in the graph.
    """
    keep_weights = accelerator.weights == Weights.SCRATCHPAD
    forced = forced_on(graph, accelerator)
    graph, rules = forced.graph, forced.constraints
    modes = [_plain_mode(o) for o in graph.operators] if accelerator.operands == Operands.STATIONARY else []
    scratch = _scratch_bytes(graph, rules, modes)
    net = _number(graph, scratch, keep_weights=keep_weights)
    predecessors, successors = _neighbours(net, rules)
    homes = homes_of(graph, accelerator.replace(constraints=rules))
    pairs = _in_place_pairs(net, accelerator, rules, homes)
    places = places_of(rules, accelerator, net.number)
    capacity = accelerator.replace(constraints=rules).usable_bytes
    kept = frozenset(net.number[name] for name in rules.resident if name in net.number)
    held = _held(net, modes, kept)
    streamable = accelerator.operands != Operands.RESIDENT
    none = [0] * len(net.workspace)
    arrivals = arrivals_of(net.tensors, [len(row) for row in net.consumers[: len(net.tensors)]], kept)
    spaces = spaces_of(net.tensors, rules, places, accelerator, capacity)
    operand_start, operand = csr(net.operands)
    result_start, result = csr(net.results)
    consumer_start, consumer = csr(net.consumers)
    predecessor_start, predecessor = csr(predecessors)
    successor_start, successor = csr(successors)
    pair_start, pair_result = csr([[r for r, _ in row] for row in pairs])
    _, pair_operand = csr([[o for _, o in row] for row in pairs])
    return Instance(
        name=graph.name,
        alignment=accelerator.alignment,
        graph=graph,
        accelerator=accelerator.replace(constraints=rules) if accelerator.constraints else accelerator,
        operator_names=tuple(o.name for o in graph.operators),
        tensor_names=net.tensor_names,
        size_bytes=np.array([*arrivals, *none], dtype=np.int64),
        space_bytes=np.array(
            [*spaces, *(align_up(scratch[v], accelerator.alignment) for v in net.workspace)], dtype=np.int64
        ),
        starts_off_chip=np.array([*(t.starts_off_chip for t in net.tensors), *none], dtype=np.bool_),
        must_store=np.array([*(t.kind is TensorKind.OUTPUT for t in net.tensors), *none], dtype=np.bool_),
        producer=net.producer,
        operand_start=operand_start,
        operand=operand,
        operand_streams=_streams(net.operands, held, streamable=streamable),
        result_start=result_start,
        result=result,
        result_streams=_streams(net.results, held, streamable=streamable),
        consumer_start=consumer_start,
        consumer=consumer,
        predecessor_start=predecessor_start,
        predecessor=predecessor,
        successor_start=successor_start,
        successor=successor,
        pair_start=pair_start,
        pair_result=pair_result,
        pair_operand=pair_operand,
        capacity_bytes=capacity,
        workspace=net.workspace,
        places=places,
        kept=kept,
        conflict=forced.conflict or settings_conflict(graph, rules, accelerator),
        runs={
            graph.operator_index(name): tuple(tuple(net.number[t] for t in row) for row in rows)
            for name, rows in homes.runs.items()
        },
        refused=homes.refused,
        homes={net.number[name]: place for name, place in homes.place.items()},
        constant_noncompulsory_bytes=0 if keep_weights else _repeated_weight_bytes(graph),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Numbered:
    """Operators and tensors of a graph by number."""

    #: The graph; its operators are numbered in its order.
    graph: Graph
    #: Tensors that may lie in the scratchpad, and the number of each by name.
    tensors: list[Tensor]
    number: dict[str, int]
    #: By operator that needs scratch space, what stands for it: a result that nobody reads. Tensors come first.
    workspace: dict[int, int]
    #: By operator, what it reads and writes.
    operands: list[list[int]]
    results: list[list[int]]
    #: By tensor, the operators that read it, and the one that writes it; -1 for none.
    consumers: list[list[int]]
    producer: Int32s

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """Names by number, for messages."""
        scratch = (f"workspace of {self.graph.operators[v].name}" for v in self.workspace)
        return (*self.number, *scratch)


def _number(graph: Graph, scratch_bytes: Sequence[int], *, keep_weights: bool) -> _Numbered:
    tensors = [
        tensor
        for tensor in graph.tensors.values()
        if (keep_weights or tensor.kind is not TensorKind.WEIGHT)
        and (graph.consumers(tensor.name) or graph.producer(tensor.name) is not None)
    ]
    number = {tensor.name: i for i, tensor in enumerate(tensors)}
    scratch = [v for v, space in enumerate(scratch_bytes) if space]
    workspace = {v: len(tensors) + i for i, v in enumerate(scratch)}
    operands = [[number[name] for name in o.operands if name in number] for o in graph.operators]
    results = [[number[name] for name in o.outputs] for o in graph.operators]
    for v, t in workspace.items():
        results[v].append(t)
    consumers = [[graph.operator_index(name) for name in graph.consumers(t.name)] for t in tensors]
    consumers += [[] for _ in scratch]
    producer = np.full(len(tensors) + len(scratch), -1, dtype=np.int32)
    for v, row in enumerate(results):
        producer[row] = v
    return _Numbered(graph, tensors, number, workspace, operands, results, consumers, producer)


def _neighbours(net: _Numbered, rules: Constraints) -> tuple[list[list[int]], list[list[int]]]:
    """Operators right before and right after each one: those whose results it reads, and those it is forced behind."""
    above = [{int(net.producer[t]) for t in row if net.producer[t] >= 0} for row in net.operands]
    below = [{w for t in row for w in net.consumers[t]} for row in net.results]
    for first, second in rules.before:
        a, b = net.graph.operator_index(first), net.graph.operator_index(second)
        above[b].add(a)
        below[a].add(b)
    return [sorted(row) for row in above], [sorted(row) for row in below]


def _scratch_bytes(graph: Graph, rules: Constraints, modes: Sequence[Mode]) -> list[int]:
    """Scratch space of each operator: what its mode needs, and at least what a constraint asks for."""
    least = dict(rules.workspaces)
    asked = [least.get(o.name, 0) for o in graph.operators]
    return [max(pair) for pair in zip(asked, (m.workspace_bytes for m in modes), strict=True)] if modes else asked


def _plain_mode(operator: Operator) -> Mode:
    """The one mode of an operator; of several, all that any of them allows, for the least workspace: a relaxation."""
    modes = operator.modes or (RESIDENT,)
    if len(modes) == 1:
        return modes[0]
    streamed = dict.fromkeys(name for mode in modes for name in mode.may_stream)
    return Mode("any", tuple(streamed), min(mode.workspace_bytes for mode in modes))


def _held(net: _Numbered, modes: Sequence[Mode], kept: frozenset[int]) -> frozenset[tuple[int, int]]:
    """Pairs of operator and tensor that may not stream: its mode does not let it, it must stay, or it is scratch."""
    if not (modes or kept or net.workspace):
        return frozenset()

    def may_not(v: int, t: int) -> bool:
        if t in kept or t >= len(net.tensors):
            return True
        return bool(modes) and net.tensors[t].name not in modes[v].may_stream

    touched = enumerate(zip(net.operands, net.results, strict=True))
    return frozenset((v, t) for v, rows in touched for row in rows for t in row if may_not(v, t))


def _streams(touched: list[list[int]], held: frozenset[tuple[int, int]], *, streamable: bool) -> Bools:
    """Whether each touch may stream, beside the values of a table of what operators touch."""
    return np.array([streamable and (v, t) not in held for v, row in enumerate(touched) for t in row], dtype=np.bool_)


def _in_place_pairs(
    net: _Numbered, accelerator: Accelerator, rules: Constraints, homes: Homes
) -> list[list[tuple[int, int]]]:
    """(result, operand) pairs per operator. Constants may be overwritten too: they keep their off-chip copy."""
    found = []
    for operator, row in zip(net.graph.operators, net.operands, strict=True):
        every = [net.tensors[t] for t in row]
        sums: dict[str, list[Tensor]] = {}
        if operator.accumulation is not None and not rules:
            # Steps of sums touch hundreds of parts, and each result takes over its own partial sum alone.
            pairs = zip(operator.outputs, operator.accumulation.sums, strict=False)
            sums = {name: [] for name in operator.outputs} | {name: [net.tensors[net.number[u]]] for name, u in pairs}
        found.append([
            (net.number[name], net.number[operand.name])
            for name in operator.outputs
            for operand in overwritable(
                operator, net.graph.tensors[name], sums.get(name, every), rules, by_table=accelerator.in_place
            )
            if not keeps_apart(rules, name, operand.name) and _keeps_homes(net.graph.tensors[name], operand, homes)
        ])
    return found


def _keeps_homes(result: Tensor, operand: Tensor, homes: Homes) -> bool:
    """Whether a takeover leaves what lies side by side where it is.

    What has a home is taken over by nothing, and takes over nothing larger, which would reach into its neighbour.
    """
    if operand.name in homes.place:
        return False
    return result.name not in homes.place or result.size_bytes == operand.size_bytes


def _repeated_weight_bytes(graph: Graph) -> int:
    return sum(
        max(0, len(graph.consumers(weight.name)) - 1) * weight.size_bytes for weight in graph.of_kind(TensorKind.WEIGHT)
    )

