"""Divide and conquer as in COSMA (section on large networks): parts solved exactly, joined at the cuts.

An order is cut into parts of a few operators. A cut behind an operator that is comparable (ancestor or descendant)
with all others is *exact*: every order passes through it, so dynamic programming over what may lie in the scratchpad
there loses nothing. Longer subproblems without such an operator are cut where the fewest bytes are live; these
cuts are heuristic, because another order might interleave what lies on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from cosma.csr import rows_of
from cosma.evaluation.evaluate import lives
from cosma.intervals import sums_over
from cosma.parameters.replacement import ReplacementParameters
from cosma.parameters.search import DivideParameters
from cosma.problem import Decisions, check_feasible, noncompulsory_bytes
from cosma.problem.precedence import ancestors, descendants
from cosma.search.searcher import Searcher
from cosma.search.subproblem import Subproblem, Unsolved, needed_after, solve_subproblem, subproblem_network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cosma.evaluation.network import Network
    from cosma.problem import Problem

DEFAULTS = DivideParameters()
REPLACEMENT_DEFAULTS = ReplacementParameters()


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the order, steps ``[start, end)``."""

    #: Steps.
    start: int
    end: int
    #: Whether both its cuts are exact and all its states were solved to proof.
    exact: bool
    #: Why it is not exact, or empty.
    reason: str


@dataclass(frozen=True, slots=True)
class DivideOutcome:
    """Decisions of divide and conquer, and which parts are exact."""

    #: The plan without addresses, and its traffic.
    decisions: Decisions
    noncompulsory_bytes: int
    #: The parts, in order.
    parts: tuple[Part, ...]
    #: Whether every part is exact, and the last replacement too: then no plan has less traffic.
    exact: bool


@dataclass(frozen=True, slots=True)
class _State:
    """Content of the scratchpad at a cut, the bytes paid so far, and the order so far."""

    held: tuple[tuple[int, bool], ...]
    cost: int
    order: tuple[int, ...]


def divide(
    problem: Problem,
    order: Sequence[int] | None = None,
    *,
    effort: float = 10.0,
    seed: int = 0,
    stop: Callable[[], bool] | None = None,
    parameters: DivideParameters = DEFAULTS,
    replacement: ReplacementParameters = REPLACEMENT_DEFAULTS,
) -> DivideOutcome:
    """Plan part by part; deterministic.

    Raises InfeasibleError if no plan exists because an operator does not fit.

    Parameters
    ----------
    problem
        A feasible instance.
    order
        The order to cut; by default one with a low peak.
    effort
        Nominal seconds, shared evenly among the parts.
    stop
        Polled between parts; the rest of the order then stays as given.
    """
    from cosma.heuristics import ORDERS

    check_feasible(problem)
    contraction = subproblem_network(problem)
    net = contraction.network
    base = contraction.contract(order if order is not None else ORDERS["peak-minimising"](problem)).tolist()
    cuts = _cuts(net, base, parameters.most_operators)
    work = min(parameters.most_part_work, max(0.05, effort / max(1, len(cuts))))
    states = [_State((), 0, ())]
    parts: list[Part] = []
    steps = np.concatenate([[0], np.cumsum([len(contraction.members[v]) for v in base])])
    begin, begins_exact = 0, True
    for end, cut_exact in cuts:
        if stop is not None and stop():
            states = [_State((), states[0].cost, (*states[0].order, *base[begin:end]))]
            reason = "stopped"
        else:
            every = cut_exact and begins_exact
            states, reason = _advance(
                net, base, begin, end, states, parameters.most_crossing if every else None, work, seed
            )
        if not reason and not (begins_exact and cut_exact):
            reason = "its cuts are not at operators comparable with all others"
        parts.append(Part(int(steps[begin]), int(steps[end]), not reason, reason))
        begin, begins_exact = end, cut_exact
    best = min(states, key=lambda state: state.cost)
    found = contraction.expand(best.order)
    decisions, proven = _replacement(problem, found, contraction.expand(base), replacement, stop)
    exact = proven and all(part.exact for part in parts)
    return DivideOutcome(decisions, noncompulsory_bytes(problem, decisions), tuple(parts), exact)


def _replacement(
    problem: Problem,
    found: Sequence[int],
    given: Sequence[int],
    parameters: ReplacementParameters,
    stop: Callable[[], bool] | None,
) -> tuple[Decisions, bool]:
    """The better of two orders with its best replacement, and whether that of the first is proven.

    Very large programs are not built: the greedy rule of the search decides there.
    """
    from cosma.replacement import optimal_replacement, supports

    if not all(supports(problem, order, parameters) for order in (found, given)):
        return Searcher(problem, (found, given)).outcome.decisions, False
    first, _, proven = optimal_replacement(problem, found, stop=stop)
    second, _, _ = optimal_replacement(problem, given, stop=stop)
    return min((first, second), key=lambda d: noncompulsory_bytes(problem, d)), proven


def _advance(
    net: Network,
    base: list[int],
    begin: int,
    end: int,
    states: list[_State],
    most_crossing: int | None,
    work: float,
    seed: int,
) -> tuple[list[_State], str]:
    """Solve one part from every state before it.

    Where at most ``most_crossing`` tensors cross its end, to every state after it; None where its cuts are not exact.
    """
    after = needed_after(net, base, end)
    inside = after & _made(net, base[:end])
    crossing = sorted(inside)
    enumerate_ends = most_crossing is not None and 0 < len(crossing) <= most_crossing
    reason = "" if most_crossing is None or len(crossing) <= most_crossing else f"{len(crossing)} tensors cross its end"
    found: dict[tuple[tuple[int, bool], ...], _State] = {}
    for state in states:
        ends: Iterator[Mapping[int, bool] | None] = _ends(net, crossing) if enumerate_ends else iter((None,))
        for held_after in ends:
            subproblem = Subproblem(tuple(base[begin:end]), dict(state.held), after, held_after)
            result = solve_subproblem(net, subproblem, work_limit=work, seed=seed)
            if result is Unsolved.NONE_EXISTS:
                continue
            if isinstance(result, Unsolved):
                reason = reason or "the solver found nothing within its work limit"
                continue
            if not result.proven:
                reason = reason or "not solved to proof within the work limit"
            held = tuple(sorted(result.held.items()))
            cost = state.cost + result.cost
            if held not in found or cost < found[held].cost:
                found[held] = _State(held, cost, (*state.order, *result.order))
    if not found:
        return [_State((), states[0].cost, (*states[0].order, *base[begin:end]))], reason or "no end state was reached"
    ranked = sorted(found.values(), key=lambda state: (state.cost, state.held))
    return (ranked if enumerate_ends else ranked[:1]), reason


def _ends(net: Network, crossing: list[int]) -> Iterator[dict[int, bool]]:
    """Every way for the crossing tensors to be at a cut: off-chip, inside, inside with an off-chip copy."""
    for choice in product((None, False, True), repeat=len(crossing)):
        held = {t: bool(stored) for t, stored in zip(crossing, choice, strict=True) if stored is not None}
        if sum(int(net.space[t]) for t in held) <= int(net.capacity[0]):
            yield held


def _made(net: Network, order: Sequence[int]) -> set[int]:
    """Tensors that exist once some operators have run: their results and operands."""
    made: set[int] = set()
    for v in order:
        made.update(net.result[net.result_start[v] : net.result_start[v + 1]].tolist())
        made.update(net.operand[net.operand_start[v] : net.operand_start[v + 1]].tolist())
    return made


def _cuts(net: Network, order: list[int], most_operators: int) -> list[tuple[int, bool]]:
    """Ends of the parts as steps of the order, each with whether the cut there is exact."""
    n = len(order)
    exact = sorted({i + 1 for i in _comparable_steps(net, order)} | {n})
    # Bytes live at the border before each step, and after the last.
    tensors, first, last = lives(net, order)
    live = sums_over(first + 1, last, net.space[tensors], n + 1).tolist()
    cuts: list[tuple[int, bool]] = []
    begin = 0
    for k, end in enumerate(exact):
        following = exact[k + 1] if k + 1 < len(exact) else None
        if following is not None and following - begin <= most_operators:
            continue
        while end - begin > most_operators:
            low, high = begin + max(1, most_operators // 2), begin + most_operators
            at = min(range(low, high + 1), key=lambda i: (live[i], -i))
            cuts.append((at, False))
            begin = at
        if end > begin:
            cuts.append((end, True))
            begin = end
    return cuts


def _comparable_steps(net: Network, order: list[int]) -> list[int]:
    """Steps whose operator is comparable with all others: everything before it reaches it, it reaches the rest."""
    n = len(order)
    before = ancestors(rows_of(net.predecessor_start, net.predecessor))
    after = descendants(rows_of(net.successor_start, net.successor))
    return [i for i, v in enumerate(order) if before[v].bit_count() + after[v].bit_count() == n - 1]
