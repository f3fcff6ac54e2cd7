from __future__ import annotations

from itertools import product

import pytest

from cosma.accelerator import Accelerator, Operands
from cosma.compiler import Limits, slack
from cosma.compiler.run import CompileRun
from cosma.compiler.slack import search_with_slack
from cosma.heuristics import EXISTING, ORDERS, run_method
from cosma.problem import Decisions, Problem, build_problem, noncompulsory_bytes, smallest_feasible_capacity
from cosma.problem.reductions import Tightened
from cosma.problem.reductions import tightened as problem_tightened
from cosma.search import search
from tests.planning import diamond
from tests.random_graphs import Shape, random_problem

ODD = Shape(operators=80, inputs=3, weights=4, most_units=40)


def state_of(problem: Problem) -> CompileRun:
    """A compile that holds the plan of an existing method."""
    state = CompileRun(problem, Limits())
    method = EXISTING["e1"]
    state.offer(run_method(problem, method, ORDERS[method.order](problem)), "e1")
    return state


@pytest.mark.parametrize(("seed", "work"), [*product((2, 6, 9, 37), (0.0, 0.05)), (239, 0.05)])
def test_decisions_that_do_not_pack_cost_little_with_slack(seed: int, work: float) -> None:
    """What search finds with all the room does not pack as it is; with a little less room, nearly the same does."""
    problem = random_problem(seed, ODD)
    found = search(problem, effort=0.02).decisions
    found_bytes = noncompulsory_bytes(problem, found)
    state = state_of(problem)
    existing_bytes = state.noncompulsory_bytes
    assert not state.offer_as_is(found, "search", work_limit=50_000)
    search_with_slack(state, found.order, work, least_bytes=found_bytes, by="search")
    assert state.best is not None
    assert state.best_by == "search, with slack"
    assert state.best.repairs == 0
    assert state.noncompulsory_bytes < (1.1 * found_bytes if work else existing_bytes)


def test_slack_grows_where_it_was_too_little_and_shrinks_where_it_was_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn searches with a capacity of its own: twice the slack after a failure, then the middle."""
    problem = random_problem(9, ODD)
    order = search(problem, effort=0.02).decisions.order
    state = state_of(problem)
    shares: list[float] = []
    verdicts = iter([False, True, True])

    def tightened(problem: Problem, share: float) -> Tightened | None:
        shares.append(1 - share)
        return problem_tightened(problem, share)

    def offer(self: CompileRun, decisions: Decisions, by: str, *, work_limit: int) -> bool:
        if next(verdicts):
            monkeypatch.setattr(CompileRun, "noncompulsory_bytes", noncompulsory_bytes(problem, decisions))
        else:
            monkeypatch.setattr(CompileRun, "noncompulsory_bytes", 1 << 60)
        return True

    monkeypatch.setattr(slack, "tightened", tightened)
    monkeypatch.setattr(CompileRun, "offer_as_is", offer)
    search_with_slack(state, order, 1.0, least_bytes=-1, by="search")
    used = list(dict.fromkeys(shares))
    assert used[:4] == [1 / 64, 1 / 32, 3 / 128, 5 / 256]


def test_where_no_room_is_to_spare_nothing_changes() -> None:
    """An operator that fills the scratchpad leaves no slack."""
    roomy = Accelerator(scratchpad=1 << 20, operands=Operands.RESIDENT)
    need = smallest_feasible_capacity(build_problem(diamond(), roomy))
    problem = build_problem(diamond(), roomy.replace(scratchpad=need))
    state = state_of(problem)
    before = state.best
    search_with_slack(state, range(problem.operator_count), 0.05, least_bytes=-1, by="search")
    assert state.best is before
