"""Graphs to plan under ``operands = stationary``: every operator in one of its modes, chosen for the capacity.

Engines know no choice of modes. Plans are made with one mode for each operator, a restriction; bounds with all that any
of its modes allows for the least workspace, a relaxation. Modes are chosen along one order: first by what a plan of the
relaxation streams, then changed one by one while that moves less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from cosma.accelerator import Operands, Weights
from cosma.accelerator.constraints import Constraints
from cosma.access.modes import undominated, with_modes
from cosma.clock import never
from cosma.compiler.fusion import Choice, fusion_choices
from cosma.compiler.mode_replay import ModeReplay, in_modes
from cosma.compiler.parts import with_parts
from cosma.errors import InfeasibleError, warn
from cosma.graph import Graph, Mode, Operator, TensorKind
from cosma.graph.mode import RESIDENT
from cosma.plan.tiles import untiled_name
from cosma.problem import build_problem
from cosma.problem.feasibility import infeasible
from cosma.rewrite.constraints import resolve
from cosma.rewrite.fuse import mode_needs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cosma.accelerator import Accelerator
    from cosma.frontend import LoadedModel
    from cosma.problem import Decisions, Problem

#: Operators replayed while modes are changed one by one.
MOST_REPLAYED = 1_000_000

#: Methods whose plans of the relaxation choose the streamed tensors: order and replacement.
_GUIDES = (("given", "belady"), ("peak-minimising", "cost-aware-belady"))


def stationary_choices(
    source: LoadedModel, graph: Graph, accelerator: Accelerator, starts: Sequence[Graph] = (), *, parts: bool = False
) -> tuple[Choice, ...]:
    """Choices of operators to fuse, each with modes chosen, and with the graph that all modes allow beside it.

    ``graph`` is before fusion, element type applied. The fusion and the modes of the graphs in ``starts`` are choices
    too. ``parts`` says whether tensors may be cut where operators select from them. Raises InfeasibleError if some
    operator fits in none of its modes.
    """
    if not source.sites and not any(operator.modes for operator in graph.operators):
        warn(
            "operands = stationary of a graph that says of no operator how it can run: nothing is streamed; plan from "
            "the ONNX file, or give operators modes"
        )
    free = fusion_choices(graph, accelerator.replace(operands=Operands.STREAMABLE), starts)
    choices = tuple(with_all_modes(choice, source, accelerator) for choice in free)
    try:
        return in_chosen_modes(with_parts(choices, accelerator, starts) if parts else choices, accelerator, starts)
    except InfeasibleError:
        # The error is about operators as the model has them.
        unfused = with_all_modes(Choice("none", frozenset(), graph), source, accelerator)
        return in_chosen_modes([unfused], accelerator)


def with_all_modes(choice: Choice, source: LoadedModel, accelerator: Accelerator) -> Choice:
    """A choice whose operators have all their modes."""
    keep = accelerator.weights == Weights.SCRATCHPAD
    return replace(choice, graph=with_modes(choice.graph, source.sites, keep_weights=keep))


def in_chosen_modes(
    choices: Sequence[Choice], accelerator: Accelerator, starts: Sequence[Graph] = (),
    stop: Callable[[], bool] = never,
) -> tuple[Choice, ...]:  # fmt: skip
    """Those choices that fit, with a mode for each operator, and with the graph that all modes allow beside it.

    The choices are networks, cut or not, with all modes of their operators; the modes of the graphs in ``starts`` are
    choices too. ``stop`` is polled while modes are changed for the better. Raises InfeasibleError if none fits: why the
    first of them does not.
    """
    found: list[Choice] = []
    errors: list[InfeasibleError] = []
    forced = bool(accelerator.constraints or accelerator.reserved_ranges)
    for choice in choices:
        every = fitting_modes(choice.graph, accelerator)
        error = infeasible(build_problem(every, accelerator), every)
        if error is not None:
            errors.append(error)
            continue
        given = [with_these_modes(every, start) for start in starts]
        for made in [*(g for g in given if g is not None), choose_modes(every, accelerator, stop)]:
            error = infeasible(build_problem(made, accelerator), made) if forced else None
            if error is not None:
                errors.append(error)  # what any of the modes allows is possible, and the modes chosen are not
                continue
            found.append(replace(choice, graph=made, relaxed=every if made is not every else None))
    if errors and not found:
        raise errors[0]
    return tuple(found)


def fitting_modes(graph: Graph, accelerator: Accelerator) -> Graph:
    """Leave out modes in which an operator does not fit; where none fits, the one that needs least stays."""
    capacity = accelerator.usable_bytes
    # By the names of this graph: parts of a tensor that is never on chip have to stream as well.
    forced = Constraints(never_on_chip=accelerator.constraints.never_on_chip)
    never = set(resolve(forced, graph).never_on_chip)
    passing = {t.name for t in graph.of_kind(TensorKind.WEIGHT)} if accelerator.weights == Weights.STREAM else set()

    def fitting(operator: Operator) -> tuple[Mode, ...]:
        modes = operator.modes or (RESIDENT,)
        # A tensor that is never on chip has to stream.
        must = {name for name in (*operator.operands, *operator.outputs) if name in never}
        modes = tuple(mode for mode in modes if must <= {*mode.may_stream, *passing}) or modes
        operator = replace(operator, modes=modes)
        needs = mode_needs(graph, operator, accelerator)
        fit = [mode for mode, need in zip(modes, needs, strict=True) if need <= capacity]
        return undominated(fit) if fit else (modes[needs.index(min(needs))],)

    return in_modes(graph, {operator.name: fitting(operator) for operator in graph.operators})


def choose_modes(graph: Graph, accelerator: Accelerator, stop: Callable[[], bool] = never) -> Graph:
    """One mode for each operator, of those in which it fits; the graph itself where there is nothing to choose.

    ``stop`` is polled while modes are changed for the better.
    """
    if all(len(operator.modes) <= 1 for operator in graph.operators):
        return graph
    replay = ModeReplay(graph, accelerator)
    best: tuple[int, list[Mode], tuple[int, ...]] | None = None
    for chosen, order in _guided(graph, build_problem(graph, accelerator), accelerator):
        for v, mode in enumerate(chosen):
            replay.put(v, mode)
        replay.follow(order)
        cost = replay.noncompulsory_bytes()
        if best is None or cost < best[0]:
            best = (cost, chosen, order)
    assert best is not None
    chosen = _improved(graph, replay, *best, stop)
    return in_modes(graph, {o.name: (mode,) for o, mode in zip(graph.operators, chosen, strict=True)})


def with_these_modes(graph: Graph, other: Graph) -> Graph | None:
    """The graph with the modes of another of the same operators, where each is one of its own; None otherwise."""
    theirs = {operator.name: operator.modes for operator in other.operators}
    if all(len(theirs.get(o.name, ())) == 1 and theirs[o.name][0] in o.modes for o in graph.operators):
        return in_modes(graph, theirs)
    return None


def _guided(
    graph: Graph, relaxed: Problem, accelerator: Accelerator
) -> list[tuple[list[Mode], tuple[int, ...]]]:
    """Modes that allow the streaming of quick plans of the relaxation, and the orders of those plans."""
    from cosma.heuristics import ORDERS

    found = []
    needs = _needs(graph, accelerator)
    # The order of tiles was chosen along with them.
    tiled = graph.is_tiled
    for order, replacement in _GUIDES[:1] if tiled else _GUIDES:
        along = ORDERS[order](relaxed)
        found.append((modes_along(graph, relaxed, along, replacement, needs), along))
    last = found[-1][1]
    # Modes that need the least room, whatever is streamed; and those that take no room of their own.
    found.append((_each(graph, lambda o, mode: (needs[o.name][mode], mode.workspace_bytes)), last))
    found.append((_each(graph, lambda o, mode: (mode.workspace_bytes, needs[o.name][mode])), last))
    return found


def modes_along(
    graph: Graph, relaxed: Problem, order: Sequence[int], replacement: str, needs: Mapping[str, Mapping[Mode, int]]
) -> list[Mode]:
    """For each operator the mode that allows most of the streaming in a quick plan of the relaxation along an order.

    ``needs`` says how much space each operator takes in each of its modes.
    """
    from cosma.heuristics.simulate import simulate

    size = {name: tensor.size_bytes for name, tensor in graph.tensors.items()}
    # Addresses are only counted: streaming for want of an address says nothing about modes.
    decisions, _ = simulate(relaxed, order, replacement, "greedy-by-size")
    streamed = _streamed(relaxed, decisions)

    def loss(operator: Operator, mode: Mode) -> tuple[int, int]:
        kept = sum(size[name] for name in streamed[operator.name] if name not in mode.may_stream)
        return kept + mode.workspace_bytes, needs[operator.name][mode]

    return _each(graph, loss)


def _needs(graph: Graph, accelerator: Accelerator) -> dict[str, dict[Mode, int]]:
    """Space of each operator in each of its modes."""
    return {o.name: dict(zip(o.modes, mode_needs(graph, o, accelerator), strict=True)) for o in graph.operators}


def in_modes_along(graph: Graph, relaxed: Problem, accelerator: Accelerator, order: Sequence[int]) -> Graph:
    """The graph in modes that suit a quick plan of the relaxation along an order; itself where there is no choice."""
    if all(len(operator.modes) <= 1 for operator in graph.operators):
        return graph
    chosen = modes_along(graph, relaxed, order, "belady", _needs(graph, accelerator))
    return in_modes(graph, {o.name: (mode,) for o, mode in zip(graph.operators, chosen, strict=True)})


def _streamed(problem: Problem, decisions: Decisions) -> dict[str, list[str]]:
    """Tensors that each operator reads or writes past the scratchpad."""
    resident: dict[int, list[tuple[int, int]]] = {}
    for stay in decisions.residencies:
        resident.setdefault(stay.tensor, []).append((stay.start, stay.end))
    return {
        problem.operator_names[v]: [
            problem.tensor_names[t]
            for t in (*problem.operands_of(v).tolist(), *problem.results_of(v).tolist())
            if not any(start <= step < end for start, end in resident.get(t, ()))
        ]
        for step, v in enumerate(decisions.order)
    }


def _each(graph: Graph, rank: Callable[[Operator, Mode], tuple[int, int]]) -> list[Mode]:
    return [min(o.modes, key=lambda mode: rank(o, mode)) for o in graph.operators]


def _improved(
    graph: Graph, replay: ModeReplay, cost: int, chosen: list[Mode], order: tuple[int, ...], stop: Callable[[], bool]
) -> list[Mode]:
    """Change the mode of one operator, or of all tiles of one, at a time while the order moves less with it."""
    chosen = list(chosen)
    for v, mode in enumerate(chosen):
        replay.put(v, mode)
    replay.follow(order)
    left = max(1, MOST_REPLAYED // len(chosen))
    better = True
    while better:
        better = False
        for trial in mode_changes(graph):
            if left <= 0 or cost <= replay.problem.constant_noncompulsory_bytes or stop():
                return chosen
            changed = [(v, mode) for v, mode in trial if mode != chosen[v]]
            if not changed:
                continue
            left -= 1
            for v, mode in changed:
                replay.put(v, mode)
            found = replay.noncompulsory_bytes()
            if found < cost:
                cost, better = found, True
                for v, mode in changed:
                    chosen[v] = mode
            else:
                for v, _ in changed:
                    replay.put(v, chosen[v])
    return chosen


def mode_changes(graph: Graph) -> Iterator[list[tuple[int, Mode]]]:
    """All tiles of an operator in a mode of one name, operator by operator; then each operator alone in each mode."""
    tiles: dict[str, list[int]] = {}
    for v, operator in enumerate(graph.operators):
        tiles.setdefault(untiled_name(operator), []).append(v)
    for row in tiles.values():
        for name in dict.fromkeys(mode.name for v in row for mode in graph.operators[v].modes) if len(row) > 1 else ():
            yield [
                (v, mode)
                for v in row
                if (mode := next((m for m in graph.operators[v].modes if m.name == name), None)) is not None
            ]
    for v, operator in enumerate(graph.operators):
        for mode in operator.modes:
            yield [(v, mode)]
