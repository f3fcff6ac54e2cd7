"""Graphs to plan under ``operands = stationary``: every operator in one of its modes, chosen for the capacity.

Engines know no choice of modes. Plans are made with one mode for each operator, a restriction; bounds with all that any
of its modes allows for the least workspace, a relaxation. Modes are chosen along one order: first by what a plan of the
relaxation streams, then changed one by one while that moves less.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from cosma.accelerator import Operands, Weights
from cosma.access.modes import undominated, with_modes
from cosma.compiler.fusion import Choice, fusion_choices
from cosma.compiler.parts import with_parts
from cosma.errors import CosmaWarning, InfeasibleError
from cosma.graph import Graph, Mode, Operator, TensorKind
from cosma.graph.mode import RESIDENT
from cosma.plan.instructions import Execute
from cosma.problem import build_problem
from cosma.problem.feasibility import infeasible
from cosma.rewrite.fuse import mode_needs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cosma.accelerator import Accelerator
    from cosma.frontend import LoadedModel
    from cosma.problem import Problem

#: Changes of one mode that are tried, times operators; not measured.
MOST_TRIED = 20_000

#: Methods whose plans of the relaxation say what to stream: order, replacement, addresses.
_GUIDES = (("given", "belady", "greedy-by-size"), ("peak-minimising", "cost-aware-belady", "greedy-by-size"))


def stationary_choices(
    source: LoadedModel, graph: Graph, accelerator: Accelerator, starts: Sequence[Graph] = (), *, parts: bool = False
) -> tuple[Choice, ...]:
    """Choices of operators to fuse, each with modes chosen, and with the graph that all modes allow beside it.

    Parameters
    ----------
    source
        The model, whose nodes say what an operator is.
    graph
        Its graph, element type applied, before fusion.
    accelerator
        What to plan for.
    starts
        Graphs of plans to start from: what they fuse is a choice too, and their modes are.
    parts
        Whether tensors may be cut where operators select from them.

    Raises
    ------
    InfeasibleError
        If some operator fits in none of its modes.
    """
    if not source.sites and not any(operator.modes for operator in graph.operators):
        warnings.warn(
            "operands = stationary of a graph that says of no operator how it can run: nothing is streamed; plan from "
            "the ONNX file, or give operators modes",
            CosmaWarning,
            stacklevel=4,
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
    choices: Sequence[Choice], accelerator: Accelerator, starts: Sequence[Graph] = ()
) -> tuple[Choice, ...]:
    """Those choices that fit, with a mode for each operator, and with the graph that all modes allow beside it.

    Parameters
    ----------
    choices
        Networks, cut or not, with all modes of their operators.
    accelerator
        What to plan for.
    starts
        Graphs of plans to start from: their modes are a choice too.

    Raises
    ------
    InfeasibleError
        If none fits: why the first of them does not.
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
        for made in [*(g for g in given if g is not None), choose_modes(every, accelerator)]:
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
    never = set(accelerator.constraints.never_on_chip)
    passing = {t.name for t in graph.of_kind(TensorKind.WEIGHT)} if accelerator.weights == Weights.STREAM else set()

    def fitting(operator: Operator) -> tuple[Mode, ...]:
        modes = operator.modes or (RESIDENT,)
        # What is never on chip has to stream.
        must = {name for name in (*operator.operands, *operator.outputs) if name in never}
        modes = tuple(mode for mode in modes if must <= {*mode.may_stream, *passing}) or modes
        operator = replace(operator, modes=modes)
        needs = mode_needs(graph, operator, accelerator)
        fit = [mode for mode, need in zip(modes, needs, strict=True) if need <= capacity]
        return undominated(fit) if fit else (modes[needs.index(min(needs))],)

    return _with(graph, {operator.name: fitting(operator) for operator in graph.operators})


def choose_modes(graph: Graph, accelerator: Accelerator) -> Graph:
    """One mode for each operator; the graph itself where there is nothing to choose.

    Parameters
    ----------
    graph
        Every operator with the modes in which it fits.
    accelerator
        What to plan for.
    """
    if all(len(operator.modes) <= 1 for operator in graph.operators):
        return graph
    relaxed = build_problem(graph, accelerator)
    best: tuple[int, dict[str, Mode], tuple[int, ...]] | None = None
    for chosen, order in _guided(graph, relaxed, accelerator):
        cost = _traffic(graph, chosen, accelerator, order)
        if best is None or cost < best[0]:
            best = (cost, chosen, order)
    assert best is not None
    return _with(graph, {name: (mode,) for name, mode in _improved(graph, accelerator, *best).items()})


def with_these_modes(graph: Graph, other: Graph) -> Graph | None:
    """The graph with the modes of another of the same operators, where each is one of its own; None otherwise."""
    theirs = {operator.name: operator.modes for operator in other.operators}
    if all(len(theirs.get(o.name, ())) == 1 and theirs[o.name][0] in o.modes for o in graph.operators):
        return _with(graph, theirs)
    return None


def _guided(
    graph: Graph, relaxed: Problem, accelerator: Accelerator
) -> list[tuple[dict[str, Mode], tuple[int, ...]]]:
    """Modes that allow what quick plans of the relaxation stream, and the orders of those plans."""
    from cosma.heuristics import run_method
    from cosma.heuristics.existing import Method

    found = []
    size = {name: tensor.size_bytes for name, tensor in graph.tensors.items()}
    needs = {o.name: dict(zip(o.modes, mode_needs(graph, o, accelerator), strict=True)) for o in graph.operators}
    for method in _GUIDES:
        realised = run_method(relaxed, Method(*method))
        streamed = {i.operator: i.streamed for i in realised.instructions if isinstance(i, Execute)}

        def loss(operator: Operator, mode: Mode, streamed: Mapping[str, tuple[str, ...]] = streamed) -> tuple[int, int]:
            kept = sum(size[name] for name in streamed[operator.name] if name not in mode.may_stream)
            return kept + mode.workspace_bytes, needs[operator.name][mode]

        found.append((_each(graph, loss), realised.decisions.order))
    order = found[-1][1]
    # Modes that need the least room, whatever is streamed; and those that take no room of their own.
    found.append((_each(graph, lambda o, mode: (needs[o.name][mode], mode.workspace_bytes)), order))
    found.append((_each(graph, lambda o, mode: (mode.workspace_bytes, needs[o.name][mode])), order))
    return found


def _each(graph: Graph, rank: Callable[[Operator, Mode], tuple[int, int]]) -> dict[str, Mode]:
    return {o.name: min(o.modes, key=lambda mode: rank(o, mode)) for o in graph.operators}


def _improved(
    graph: Graph, accelerator: Accelerator, cost: int, chosen: dict[str, Mode], order: tuple[int, ...]
) -> dict[str, Mode]:
    """Change one mode at a time while the order moves less with it."""
    left = MOST_TRIED // max(1, len(graph.operators))
    better = True
    while better:
        better = False
        for operator in graph.operators:
            for mode in operator.modes:
                if mode == chosen[operator.name]:
                    continue
                if left <= 0 or cost == 0:
                    return chosen
                left -= 1
                trial = chosen | {operator.name: mode}
                found = _traffic(graph, trial, accelerator, order)
                if found < cost:
                    cost, chosen, better = found, trial, True
    return chosen


def _traffic(graph: Graph, chosen: Mapping[str, Mode], accelerator: Accelerator, order: tuple[int, ...]) -> int:
    """Non-compulsory bytes of one order with some modes, by the replay that search goes by."""
    from cosma.evaluation.evaluate import greedy_bytes

    problem = build_problem(_with(graph, {name: (mode,) for name, mode in chosen.items()}), accelerator)
    return greedy_bytes(problem, order)


def _with(graph: Graph, modes: Mapping[str, tuple[Mode, ...]]) -> Graph:
    operators = [replace(operator, modes=modes[operator.name]) for operator in graph.operators]
    return graph.replace(operators=operators)
