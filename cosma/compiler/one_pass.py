"""Plans made in one pass along the order given: they judge a tiling before any work goes into its plan."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cosma.graph.mode import RESIDENT
from cosma.problem import build_problem, noncompulsory_bytes
from cosma.problem.feasibility import fits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.accelerator import Accelerator
    from cosma.compiler.fusion import Choice
    from cosma.compiler.limits import TilingWork
    from cosma.graph import Graph
    from cosma.lowering import Realised
    from cosma.problem import Instance


def best_along(choices: Sequence[Choice], accelerator: Accelerator) -> tuple[int, Choice] | None:
    """The choice whose plan in one pass moves least, with that plan; None where none fits in this way."""
    best: tuple[int, Choice] | None = None
    for choice in choices:
        one = _resident(choice)
        problem = one.instance(accelerator)
        planned = plan_in_one_pass(problem)
        if planned is not None and (best is None or planned[0] < best[0]):
            best = planned[0], replace(one, start=planned[1], problem=problem)
    return best


def _resident(choice: Choice) -> Choice:
    """Where operators have modes, let them stream nothing: a tile of one row is as small as streaming would make it."""
    made = without_modes(choice.graph)
    return choice if made is choice.graph else replace(choice, graph=made, relaxed=choice.graph)


def without_modes(graph: Graph) -> Graph:
    """A graph whose operators stream nothing; the graph itself where they have no modes."""
    if not any(operator.modes for operator in graph.operators):
        return graph
    operators = [replace(operator, modes=(RESIDENT,)) for operator in graph.operators]
    return graph.replace(operators=operators)


def moves_nothing_twice(graph: Graph, accelerator: Accelerator) -> bool:
    """Whether a plan of whole tensors that a quick look finds leaves nothing to gain."""
    planned = plan_in_one_pass(build_problem(graph, accelerator))
    return planned is not None and planned[0] == 0


def _packed_along(problem: Instance) -> tuple[int, Realised] | None:
    """The same under constraints on places: addresses are packed afterwards."""
    from cosma.heuristics import Method, run_method
    from cosma.lowering import NoAddressesError

    if not fits(problem):
        return None
    try:
        realised = run_method(problem, Method("given", "cost-aware-belady", "greedy-by-size"))
    except NoAddressesError:
        return None
    return noncompulsory_bytes(problem, realised.decisions), realised


def improved(best: tuple[int, Choice], accelerator: Accelerator, work: TilingWork) -> tuple[int, Choice]:
    """The plan of a choice made in one pass, with a better order of its tiles, for so much work."""
    from cosma.search.one_pass import better_in_one_pass

    cost_bytes, choice = best
    if cost_bytes == 0 or work.effort == 0 or work.clock.stop():
        return best
    problem = choice.instance(accelerator)
    if _is_packed_afterwards(problem):
        return best
    order = range(problem.operator_count)
    found = better_in_one_pass(problem, order, work.effort, work.seed, work.clock.stop, work.report)
    return best if found is None or found[0] >= cost_bytes else (found[0], replace(choice, start=found[1]))


def plan_in_one_pass(problem: Instance) -> tuple[int, Realised] | None:
    """The best of the plans made in one pass along the order given, and its bytes beyond the compulsory."""
    from cosma.lowering.along import RULES, plan_along

    if problem.refused:
        return None
    if _is_packed_afterwards(problem):
        return _packed_along(problem)
    found = plan_along(problem, range(problem.operator_count), *RULES)
    return None if found is None else (noncompulsory_bytes(problem, found.decisions), found)


def _is_packed_afterwards(problem: Instance) -> bool:
    """Whether constraints say what may lie where; what is never on chip has to stream, which no one pass does."""
    never_on_chip = problem.accelerator.constraints.never_on_chip
    return bool(problem.conflict or problem.places is not None or problem.homes or never_on_chip)
