"""Plans and bounds under each kind of constraint against a search over all plans that keep to it."""

from __future__ import annotations

import pytest

from cosma.compiler import Limits, run_compile
from cosma.errors import InfeasibleError
from cosma.validator import replay
from tests.brute_force import TooLargeError
from tests.constraints.brute import brute_force_forced
from tests.constraints.draw import KINDS, instances

pytestmark = pytest.mark.filterwarnings("ignore:everything is streamed")


def compare(kinds: tuple[str, ...], seed: int, count: int, strategy: str) -> tuple[int, int, int, int]:
    """How many instances were compared, were optimal, were infeasible, and were refused although a plan exists."""
    checked = optimal = infeasible = missed = 0
    for i, (graph, accelerator, forced) in enumerate(instances(kinds, seed, count)):
        try:
            best = brute_force_forced(graph, accelerator, forced, most_states=8000).noncompulsory_bytes
        except TooLargeError:
            continue
        try:
            plan = run_compile(
                graph, accelerator, strategy=strategy, limits=Limits(effort=0.1), constraints=forced
            ).plan
        except InfeasibleError as error:
            infeasible += best is None
            missed += best is not None
            wrong = best is not None and "no plan was found" not in str(error)
            if wrong:
                raise
            continue
        assert best is not None, f"instance {i} has no plan"
        assert replay(plan).valid
        assert plan.certificate.lower_bound <= best <= plan.traffic.noncompulsory, f"instance {i}"
        checked += 1
        optimal += plan.traffic.noncompulsory == best
    return checked, optimal, infeasible, missed


@pytest.mark.parametrize("kind", KINDS)
def test_no_bound_is_above_the_optimum_and_no_plan_below(kind: str) -> None:
    checked, optimal, _, missed = compare((kind,), KINDS.index(kind), 24, "exact")
    assert checked >= 8
    assert optimal >= 0.9 * checked
    assert missed == 0


@pytest.mark.parametrize("strategy", ["auto", "exact", "ilp", "divide", "e1", "e2", "e3", "depth-first+lru+first-fit"])
def test_every_strategy_keeps_to_constraints_of_all_kinds(strategy: str) -> None:
    checked, optimal, infeasible, missed = compare(KINDS, 100, 36, strategy)
    assert checked >= 12
    assert infeasible > 0
    assert missed == 0
    if strategy in ("auto", "exact", "ilp"):
        assert optimal >= 0.9 * checked
