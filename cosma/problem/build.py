"""From a graph and an accelerator to an instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.accelerator import Accelerator, Operands, Weights
from cosma.csr import csr
from cosma.graph import Graph, Mode, Operator, Tensor, TensorKind
from cosma.graph.mode import RESIDENT
from cosma.problem.forced import arrivals_of, forced_on, places_of, settings_conflict, spaces_of
from cosma.problem.homes import Homes, homes_of, settles_places
from cosma.problem.problem import Instance
from cosma.rewrite.constraints import keeps_apart, overwritable
from cosma.units import align_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cosma.accelerator.constraints import Constraints


def build_problem(graph: Graph, accelerator: Accelerator) -> Instance:
    """Number a graph's operators and tensors for an accelerator.

    Nothing is fused here: which operators to fuse is a choice, see :mod:`cosma.rewrite.fuse`. The result is a function
    of its arguments alone; work and memory are linear in the graph.
    """
    keep_weights = accelerator.weights == Weights.SCRATCHPAD
    forced = forced_on(graph, accelerator)
    graph, rules = forced.graph, forced.constraints
    tensors = [
        tensor
        for tensor in graph.tensors.values()
        if (keep_weights or tensor.kind is not TensorKind.WEIGHT)
        and (graph.consumers(tensor.name) or graph.producer(tensor.name) is not None)
    ]
    number = {tensor.name: i for i, tensor in enumerate(tensors)}
    modes = [_plain_mode(o) for o in graph.operators] if accelerator.operands == Operands.STATIONARY else []
    least = dict(rules.workspaces)
    spaces = [least.get(o.name, 0) for o in graph.operators]
    spaces = [max(pair) for pair in zip(spaces, (m.workspace_bytes for m in modes), strict=True)] if modes else spaces
    scratch = [v for v, space in enumerate(spaces) if space]
    workspace = {v: len(tensors) + i for i, v in enumerate(scratch)}
    index = graph.operator_index
    operands = [[number[name] for name in o.operands if name in number] for o in graph.operators]
    results = [[number[name] for name in o.outputs] for o in graph.operators]
    for v, t in workspace.items():
        results[v].append(t)
    consumers = [[index(name) for name in graph.consumers(t.name)] for t in tensors] + [[] for _ in scratch]
    producer = np.full(len(tensors) + len(scratch), -1, dtype=np.int32)
    for v, row in enumerate(results):
        producer[row] = v
    above = [{int(producer[t]) for t in row if producer[t] >= 0} for row in operands]
    below = [{w for t in row for w in consumers[t]} for row in results]
    for a, b in rules.before:
        above[index(b)].add(index(a))
        below[index(a)].add(index(b))
    predecessors, successors = [sorted(row) for row in above], [sorted(row) for row in below]
    pairs = _in_place_pairs(graph, accelerator, rules, tensors, number, operands)
    homes = homes_of(graph, accelerator)
    if homes.runs and settles_places(rules):
        homes = Homes(refused=tuple((name, "operands") for name in homes.runs))
    pairs = [[pair for pair in row if _keeps_homes(pair, tensors, homes)] for row in pairs] if homes.place else pairs
    none = [0] * len(scratch)
    places = places_of(rules, accelerator, number)
    capacity = accelerator.replace(constraints=rules).usable_bytes
    kept = frozenset(number[name] for name in rules.resident if name in number)
    held = _held(tensors, modes, operands, results)
    if kept or scratch:
        touching = ((v, t) for v in range(len(operands)) for t in (*operands[v], *results[v]))
        held |= {(v, t) for v, t in touching if t in kept or t >= len(tensors)}
    streamable = accelerator.operands != Operands.RESIDENT
    operand_start, operand = csr(operands)
    result_start, result = csr(results)
    consumer_start, consumer = csr(consumers)
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
        tensor_names=(*(t.name for t in tensors), *(f"workspace of {graph.operators[v].name}" for v in scratch)),
        size_bytes=np.array(
            [*arrivals_of(tensors, [len(row) for row in consumers[: len(tensors)]], kept), *none], dtype=np.int64
        ),
        space_bytes=np.array(
            [
                *spaces_of(tensors, rules, places, accelerator, capacity),
                *(align_up(spaces[v], accelerator.alignment) for v in scratch),
            ],
            dtype=np.int64,
        ),
        starts_off_chip=np.array([*(t.starts_off_chip for t in tensors), *none], dtype=np.bool_),
        must_store=np.array([*(t.kind is TensorKind.OUTPUT for t in tensors), *none], dtype=np.bool_),
        producer=producer,
        operand_start=operand_start,
        operand=operand,
        operand_streams=_streams(operands, held, streamable=streamable),
        result_start=result_start,
        result=result,
        result_streams=_streams(results, held, streamable=streamable),
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
        workspace=workspace,
        places=places,
        kept=kept,
        conflict=forced.conflict or settings_conflict(graph, rules, accelerator),
        runs={index(name): tuple(tuple(number[t] for t in row) for row in rows) for name, rows in homes.runs.items()},
        refused=homes.refused,
        homes={number[name]: place for name, place in homes.place.items()},
        constant_noncompulsory_bytes=0 if keep_weights else _repeated_weight_bytes(graph),
    )


def _plain_mode(operator: Operator) -> Mode:
    """The one mode of an operator; of several, all that any of them allows, for the least workspace: a relaxation."""
    modes = operator.modes or (RESIDENT,)
    if len(modes) == 1:
        return modes[0]
    streamed = dict.fromkeys(name for mode in modes for name in mode.may_stream)
    return Mode("any", tuple(streamed), min(mode.workspace_bytes for mode in modes))


def _held(
    tensors: Sequence[Tensor], modes: Sequence[Mode], operands: list[list[int]], results: list[list[int]]
) -> frozenset[tuple[int, int]]:
    """Pairs of operator and tensor that its mode does not let stream, its workspace among them."""
    return frozenset(
        (v, t)
        for v, mode in enumerate(modes)
        for t in (*operands[v], *results[v])
        if t >= len(tensors) or tensors[t].name not in mode.may_stream
    )


def _streams(
    touched: list[list[int]], held: frozenset[tuple[int, int]], *, streamable: bool
) -> NDArray[np.bool_]:
    """Whether each touch may stream, beside the values of a table of what operators touch."""
    return np.array([streamable and (v, t) not in held for v, row in enumerate(touched) for t in row], dtype=np.bool_)


def _in_place_pairs(
    graph: Graph, accelerator: Accelerator, rules: Constraints, tensors: Sequence[Tensor], number: dict[str, int],
    operands: list[list[int]],
) -> list[list[tuple[int, int]]]:  # fmt: skip
    """(result, operand) pairs per operator. Constants may be overwritten too: they keep their off-chip copy."""
    return [
        [
            (number[name], number[operand.name])
            for name in operator.outputs
            for operand in overwritable(
                operator, graph.tensors[name], [tensors[t] for t in row], rules, by_table=accelerator.in_place
            )
            if not keeps_apart(rules, name, operand.name)
        ]
        for operator, row in zip(graph.operators, operands, strict=True)
    ]


def _keeps_homes(pair: tuple[int, int], tensors: Sequence[Tensor], homes: Homes) -> bool:
    """Whether a takeover leaves what lies side by side where it is.

    What has a home is taken over by nothing, and takes over nothing larger, which would reach into its neighbour.
    """
    result, operand = (tensors[t] for t in pair)
    if operand.name in homes.place:
        return False
    return result.name not in homes.place or result.size_bytes == operand.size_bytes


def _repeated_weight_bytes(graph: Graph) -> int:
    return sum(
        max(0, len(graph.consumers(weight.name)) - 1) * weight.size_bytes for weight in graph.of_kind(TensorKind.WEIGHT)
    )

