from __future__ import annotations

from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

import pytest

import cosma
from cosma.accelerator import Accelerator, Operands
from cosma.bounds import BoundEngine
from cosma.compiler import CompileResult, CompileRun, Limits, Progress, auto, run_compile
from cosma.compiler.strategies import STRATEGIES
from cosma.errors import InfeasibleError, InputError, PlanInvalidError
from cosma.graph.json_format import save_graph
from cosma.heuristics import EXISTING, ORDERS, run_method
from cosma.lowering import Realised
from cosma.plan import Plan
from cosma.plan.file import plan_to_json
from cosma.problem import build_problem, noncompulsory_bytes
from cosma.replacement import optimal_replacement
from cosma.search import search
from tests.planning import diamond
from tests.random_graphs import Shape, random_instance, random_order, random_problem

if TYPE_CHECKING:
    from pathlib import Path

RESIDENT = Accelerator(scratchpad=320, operands=Operands.RESIDENT, in_place=False)
TIGHT = RESIDENT.replace(scratchpad=384)
#: What search finds on these has no addresses as it is.
HARD_TO_PACK = Shape(operators=80, inputs=3, weights=4, most_units=40)


def test_graphs_models_and_files_are_all_welcome(tmp_path: Path) -> None:
    save_graph(diamond(), tmp_path / "g.json")
    plan = cosma.compile(diamond(), TIGHT)
    again = cosma.compile(tmp_path / "g.json", TIGHT)
    assert isinstance(plan, Plan)
    assert plan_to_json(plan) == plan_to_json(again)
    assert cosma.replay(plan, diamond()).valid


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_is_valid_certified_and_repeatable(strategy: str) -> None:
    for seed in range(12):
        graph, accelerator = random_instance(seed)
        try:
            plan = cosma.compile(graph, accelerator, strategy=strategy, effort=0.5)
        except InfeasibleError:
            continue
        assert cosma.replay(plan).valid
        assert 0 <= plan.certificate.lower_bound <= plan.traffic.noncompulsory
        again = cosma.compile(graph, accelerator, strategy=strategy, effort=0.5)
        assert plan_to_json(plan) == plan_to_json(again)


def test_auto_is_never_worse_than_existing_methods() -> None:
    for seed in range(25):
        graph, accelerator = random_instance(seed)
        try:
            ours = cosma.compile(graph, accelerator, effort=0.5)
        except InfeasibleError:
            continue
        for name in ("e1", "e2", "e3"):
            theirs = cosma.compile(graph, accelerator, strategy=name)
            assert ours.traffic.noncompulsory <= theirs.traffic.noncompulsory


def test_infeasible_says_what_would_work() -> None:
    with pytest.raises(InfeasibleError, match="scratchpad = 384"):
        cosma.compile(diamond(), RESIDENT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "magic"}, "strategy 'magic' is unknown"),
        ({"strategy": "given+magic+first-fit"}, "replacement 'magic' is unknown"),
        ({"effort": -1.0}, "effort"),
        ({"effort": float("nan")}, "effort"),
        ({"gap": 1.0}, "gap"),
        ({"time_limit_s": 0.0}, "time limit"),
        ({"seed": -1}, "seed"),
        ({"dtype": "int8"}, "no element type"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        cosma.compile(diamond(), TIGHT, **options)


def test_an_interrupt_keeps_the_best_plan() -> None:
    result = run_compile(diamond(), TIGHT.replace(scratchpad=384), interrupted=lambda: True)
    assert cosma.replay(result.plan).valid
    assert result.stopped_by in ("interrupt", "proof")


def test_an_interrupt_at_any_moment_keeps_a_valid_plan() -> None:
    """Interrupted at the n-th look: in the existing methods, in bounds, in search, while packing."""
    graph, accelerator = random_instance(6, HARD_TO_PACK)
    existing = run_compile(graph, accelerator, strategy="existing").plan.traffic.noncompulsory

    def interrupted_at(look: int) -> CompileResult:
        looks = count()
        return run_compile(graph, accelerator, interrupted=lambda: next(looks) >= look, limits=Limits(effort=0.8))

    looks = count()
    whole = run_compile(graph, accelerator, interrupted=lambda: next(looks) < 0, limits=Limits(effort=0.8))
    assert whole.stopped_by == "work"
    results = [interrupted_at(next(looks) * tenths // 10) for tenths in (2, 7, 9)]
    assert all(cosma.replay(result.plan).valid for result in results)
    # The first comes while the existing methods run.
    assert all(result.plan.traffic.noncompulsory <= existing for result in results[1:])
    # A solver is asked now and then, by the clock: the last looks may not come.
    assert any(result.stopped_by == "interrupt" for result in results)


@pytest.mark.parametrize("gap", [0.0, 0.99])
def test_no_work_is_done_once_the_gap_is_met(monkeypatch: pytest.MonkeyPatch, gap: float) -> None:
    """Decisions without addresses are left alone where the plan in hand is within the gap asked for, and only there."""
    problem = random_problem(2, HARD_TO_PACK)
    tries: list[int] = []
    monkeypatch.setattr(auto, "search_with_slack", lambda *_, **__: tries.append(1))
    state = CompileRun(problem, Limits(effort=1.0, gap=gap))
    state.offer(run_method(problem, EXISTING["e1"], ORDERS[EXISTING["e1"].order](problem)), "e1")
    found = search(problem, effort=0.02)
    state.raise_bound(found.noncompulsory_bytes // 2, "made up")
    planner = auto._Auto(state, BoundEngine(problem), relaxed=found.decisions, relaxed_bytes=found.noncompulsory_bytes)
    planner.address(last=True)
    assert bool(tries) == (gap == 0.0)
    assert (planner.spent > 0) == (gap == 0.0)


def test_progress_is_monotone() -> None:
    seen: list[Progress] = []
    graph, accelerator = random_instance(3)
    run_compile(graph, accelerator, sink=seen.append, limits=Limits(effort=0.5))
    assert seen
    for before, after in pairwise(seen):
        assert after.noncompulsory_bytes <= before.noncompulsory_bytes
        assert after.bound_bytes >= before.bound_bytes


def test_a_strategy_cannot_hand_out_an_invalid_plan() -> None:
    run = CompileRun(build_problem(diamond(), TIGHT), Limits())
    good = run_compile(diamond(), TIGHT, strategy="e1").plan.instructions
    from cosma.problem import Decisions

    broken = Realised(Decisions((), ()), good[:-4], 0)
    with pytest.raises(PlanInvalidError, match="made an invalid plan"):
        run.offer(broken, "broken")
    assert run.best is None


def test_decisions_without_addresses_are_packed_with_little_loss() -> None:
    for seed in (7, 20, 56, 170):
        problem = random_problem(seed, Shape(operators=60, inputs=4, weights=6, most_units=23))
        decisions, _, _ = optimal_replacement(problem, random_order(problem, seed), work_limit=0.2)
        run = CompileRun(problem, Limits())
        assert not run.offer_as_is(decisions, "best replacement", work_limit=20_000), "these have no addresses"
        assert run.best is None
        assert run.packing_units > 0
        assert run.offer(decisions, "best replacement")
        assert run.best is not None
        assert run.best.decisions.order == decisions.order
        wanted = noncompulsory_bytes(problem, decisions)
        assert wanted < run.noncompulsory_bytes <= 1.05 * wanted
