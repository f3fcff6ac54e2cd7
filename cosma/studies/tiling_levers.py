"""What another cut of an operator would cost: each planned in one pass along the plan's own order of tiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cosma.accelerator import Operands, Weights
from cosma.access.modes import with_modes
from cosma.access.operator import OperatorAccess, operator_access
from cosma.compiler.fusion import AMPLE_BYTES, fusion_choices
from cosma.compiler.modes import fitting_modes
from cosma.compiler.turns import modes_along
from cosma.errors import InputError
from cosma.graph import Graph
from cosma.lowering.along import RULES, plan_along
from cosma.plan.tiles import fused_groups, untiled_name
from cosma.problem import build_problem, noncompulsory_bytes
from cosma.problem.feasibility import fits
from cosma.rewrite.tile import tile
from cosma.rewrite.tiling import Cuts, Tiling, even_cuts, order_of_tiles, tiling_of_tiles
from cosma.tiling.axes import ROWS, tensor_axes
from cosma.tiling.rows import channel_axis

if TYPE_CHECKING:
    from cosma.frontend import LoadedModel
    from cosma.plan import Plan

#: The trial of the plan's own tiles.
AS_IT_IS = "as it is"


@dataclass(frozen=True, slots=True)
class CutTrial:
    """Another cut, and what a plan of it moves."""

    #: What is cut otherwise.
    change: str
    #: Tiles of the whole graph.
    tiles: int
    #: Of a plan made in one pass; None where the tiles do not fit so.
    noncompulsory_bytes: int | None


def untiled_graph(plan: Plan, source: LoadedModel) -> Graph:
    """The graph that a plan's tiles were cut from, fused as the plan is.

    Raises InputError if the plan is of another model.
    """
    graph = source.graph if plan.dtype is None else source.graph.with_dtype(plan.dtype)
    names = {untiled_name(operator) for operator in plan.graph.operators}
    for choice in fusion_choices(graph, plan.accelerator.replace(scratchpad=AMPLE_BYTES), [plan.graph]):
        if names == {operator.name for operator in choice.graph.operators}:
            return choice.graph
    raise InputError("the plan is not one of this model: its operators are others")


def cut_trials(plan: Plan, source: LoadedModel, name: str) -> Iterator[CutTrial]:
    """Try an untiled operator's group in one stripe more and fewer, and its weights in one part more and fewer.

    The plan, a valid one, comes first with its own tiles, planned in the same way, so that all are comparable. Tiles
    run in the plan's order, new ones where their readers need them; tiles stream what a quick replay streams, in modes
    that they have.
    """
    graph = untiled_graph(plan, source)
    own = replace(tiling_of_tiles(plan.graph), order=order_of_tiles(map(plan.graph.operator, plan.schedule)))
    groups = fused_groups(plan.graph, plan.schedule)
    segments = tuple(group.operators for group in groups)
    group = next((names for names in segments if name in names), (name,))
    every = {o.name: operator_access(graph, source.sites, o) for o in graph.operators}
    rows_of = {tensor: axes[ROWS] for tensor, axes in tensor_axes(graph, list(every.values())).items()}
    access = {v: every[v] for v in group}
    yield _tried(plan, source, graph, AS_IT_IS, replace(own, segments=segments))
    axis, stripes = _count(own, access[name], rows_of)
    if axis is not None:
        rows = access[name].shapes[access[name].result][axis]
        for count in (stripes - 1, stripes + 1):
            if 1 <= count <= rows:
                cuts = dict(own.cuts) | _striped(graph, access, own, rows_of, count)
                words = f"{_counted(count, 'stripe')} for its group" if len(group) > 1 else _counted(count, "stripe")
                yield _tried(plan, source, graph, words, replace(own, cuts=cuts, segments=segments))
    channel = channel_axis(access[name])
    if channel is not None and channel != axis:
        shape = access[name].shapes[access[name].result]
        given = own.cuts.get(name, ((),) * len(shape))
        for count in (len(given[channel]), len(given[channel]) + 2):
            if 1 <= count <= shape[channel]:
                changed = tuple(even_cuts(shape[i], count) if i == channel else at for i, at in enumerate(given))
                words = f"its weights in {_counted(count, 'part')}"
                tiling = replace(own, cuts={**own.cuts, name: changed}, segments=segments)
                yield _tried(plan, source, graph, words, tiling)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _count(own: Tiling, one: OperatorAccess, rows_of: Mapping[str, int]) -> tuple[int | None, int]:
    """Axis of the rows and the stripes along it; None where the operator cannot be cut there."""
    shape, allowed = one.shapes.get(one.result, ()), one.cuts()
    axis = rows_of.get(one.result, -1)
    if axis < 0 or not allowed[axis] or shape[axis] < 2:
        return None, 1
    given = own.cuts.get(one.operator.name)
    return axis, 1 if given is None else len(given[axis]) + 1


def _striped(
    graph: Graph, access: Mapping[str, OperatorAccess], own: Tiling, rows_of: Mapping[str, int], stripes: int
) -> dict[str, tuple[Cuts, ...]]:
    """Cuts of a group along its rows: each stripe computes just the rows that the stripe of its readers lacks."""
    wanted: dict[str, list[int]] = {}  # by tensor: last row, exclusive, that readers within need for each stripe
    found: dict[str, tuple[Cuts, ...]] = {}
    for operator in reversed([o for o in graph.operators if o.name in access]):
        one = access[operator.name]
        shape = one.shapes.get(one.result, ())
        axis, _ = _count(own, one, rows_of)
        cuts = list(own.cuts.get(operator.name, ((),) * len(shape)))
        if axis is not None:
            needs = [wanted[t] for t in operator.outputs if t in wanted]
            even = [*even_cuts(shape[axis], stripes), shape[axis]]
            stops = [max(column) for column in zip(*needs, strict=True)] if needs else even
            cuts[axis] = tuple(sorted({stop for stop in stops if 0 < stop < shape[axis]}))
            for name, ends in _needed(one, stops, axis, rows_of).items():
                wanted[name] = [max(a, b) for a, b in zip(wanted.get(name, ends), ends, strict=False)]
        if operator.name in own.cuts or any(cuts):
            found[operator.name] = tuple(cuts)
    return found


def _needed(
    one: OperatorAccess, stops: Sequence[int], axis: int, rows_of: Mapping[str, int]
) -> dict[str, list[int]]:
    """Last row, exclusive, of each operand that rows up to each stop need."""
    shape = one.shapes[one.result]
    found: dict[str, list[int]] = {}
    for stop in stops:
        box = tuple((max(0, stop - 1), max(1, stop)) if i == axis else (0, size) for i, size in enumerate(shape))
        for name, read in one.reads(box).items():
            if name in one.operator.inputs and rows_of[name] >= 0:
                found.setdefault(name, []).append(read[rows_of[name]][1])
    return {name: ends for name, ends in found.items() if len(ends) == len(stops)}


def _tried(
    plan: Plan, source: LoadedModel, graph: Graph, change: str, tiling: Tiling
) -> CutTrial:
    accelerator, streamed = plan.accelerator, frozenset[tuple[int, int]]()
    if accelerator.operands == Operands.STATIONARY:
        graph = with_modes(graph, source.sites, keep_weights=accelerator.weights == Weights.SCRATCHPAD)
    tiled = tile(graph, source.sites, tiling).graph
    if accelerator.operands == Operands.STATIONARY:
        tiled = fitting_modes(tiled, accelerator)
    problem = build_problem(tiled, accelerator)
    if accelerator.operands != Operands.RESIDENT and fits(problem):
        modes = modes_along(tiled, problem, accelerator, range(problem.operator_count))
        problem, streamed = modes.problem, modes.streamed
    planned = plan_along(problem, range(problem.operator_count), *RULES, streamed=streamed)
    cost = None if planned is None else noncompulsory_bytes(problem, planned.decisions)
    return CutTrial(change, len(tiled.operators), cost)
