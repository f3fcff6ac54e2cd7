"""Engines by name, and which problems each can take.

Strategies ask here before they hand a problem to an engine; each engine says for itself what it cannot take. Modules
are imported when asked, so that listing engines costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from cosma.problem.support import SUPPORTED, Support, one_takeover_each, up_to

if TYPE_CHECKING:
    from cosma.parameters.compiler import CompileParameters
    from cosma.problem import Problem

#: Whether an engine takes a problem under an order, where it is one that needs an order.
Supports: TypeAlias = Callable[["Problem", "CompileParameters", Sequence[int]], Support]


@dataclass(frozen=True, slots=True)
class Engine:
    """A way to find schedules or to prove bounds."""

    #: Its name and a summary, for lists.
    name: str
    summary: str
    #: Whether it takes a problem.
    supports: Supports


def _any(_problem: Problem, _parameters: CompileParameters, _order: Sequence[int]) -> Support:
    return SUPPORTED


def _states(problem: Problem, parameters: CompileParameters, _order: Sequence[int]) -> Support:
    from cosma.states import supports

    return supports(problem, parameters.states)


def _replacement(problem: Problem, parameters: CompileParameters, order: Sequence[int]) -> Support:
    from cosma.replacement import supports

    return supports(problem, order, parameters.replacement)


def _joint(problem: Problem, _parameters: CompileParameters, _order: Sequence[int]) -> Support:
    from cosma.joint import supports

    return supports(problem)


def _conflicts(problem: Problem, parameters: CompileParameters, _order: Sequence[int]) -> Support:
    most = parameters.exact.most_operators_for_conflicts
    return one_takeover_each(problem) and up_to(most, problem.operator_count, "operators")


def _bounds(problem: Problem, _parameters: CompileParameters, _order: Sequence[int]) -> Support:
    return one_takeover_each(problem)


def _rounds(problem: Problem, parameters: CompileParameters, _order: Sequence[int]) -> Support:
    return up_to(parameters.auto.most_operators_as_one, problem.operator_count, "operators")


ENGINES: dict[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine("existing methods", "an order, a rule of replacement and addresses on the way", _any),
        Engine("search", "annealing over orders under a greedy rule of replacement", _any),
        Engine("divide and conquer", "parts of an order solved exactly and joined", _any),
        Engine("best replacement", "an integer program for what stays, under one order", _replacement),
        Engine("dynamic programming", "all orders and residencies, without addresses", _states),
        Engine("joint program", "an integer program for order and residency", _joint),
        Engine("learnt conflicts", "the joint program without what had no addresses", _conflicts),
        Engine("bounds", "forced liveness, least peaks, label search, pieces", _bounds),
        Engine("rounds", "search and bounds over the whole network in turn", _rounds),
    )
}


def supports(name: str, problem: Problem, parameters: CompileParameters, order: Sequence[int] = ()) -> Support:
    """Whether an engine takes a problem; see :data:`ENGINES`."""
    return ENGINES[name].supports(problem, parameters, order)
