from __future__ import annotations

from typing import Any

import pytest

from cosma.accelerator import Accelerator
from cosma.compiler import compile
from cosma.errors import AcceleratorError, InputError
from cosma.experiments import Choice, SizeRange, Study
from cosma.experiments.study import Evaluation
from tests.planning import diamond

SPACE: dict[str, Choice | SizeRange] = {"scratchpad": SizeRange(128, 1024, step=16), "alignment": Choice((16, 64))}


def study(**options: Any) -> Study:
    return Study(diamond(), SPACE, strategy="existing", base={"operands": "resident", "in_place": False}, **options)


def values(evaluations: list[Evaluation]) -> list[tuple[float, ...] | None]:
    return [evaluation.values for evaluation in evaluations]


def test_values_are_those_of_the_plan_and_runs_repeat() -> None:
    first, second, other = (list(study(seed=seed).run(30)) for seed in (1, 1, 2))
    assert values(first) == values(second) != values(other)
    planned = [evaluation for evaluation in first if evaluation.plan is not None]
    assert 0 < len(planned) < 30
    for evaluation in planned[:5]:
        accelerator = evaluation.trial.accelerator
        again = compile(diamond(), accelerator, strategy="existing")
        assert evaluation.values == (again.traffic.noncompulsory, accelerator.scratchpad)
        assert accelerator.scratchpad % accelerator.alignment == 0
        assert accelerator == Accelerator(
            scratchpad=accelerator.scratchpad,
            alignment=evaluation.trial.params["alignment"],
            operands="resident",
            in_place=False,
        )


def test_what_does_not_fit_is_told_without_values() -> None:
    told = []

    class Small:
        def ask(self) -> dict[str, Any]:
            return {"scratchpad": 128, "alignment": 64}

        def tell(self, params: dict[str, Any], values: tuple[float, ...] | None) -> None:
            told.append((params, values))

    (evaluation,) = study(optimiser=Small()).run(1)
    assert evaluation.plan is None
    assert "does not fit" in (evaluation.reason or "")
    assert told == [({"scratchpad": 128, "alignment": 64}, None)]


def test_the_front_holds_exactly_what_nothing_beats() -> None:
    made = study(seed=3)
    list(made.run(60))
    points = {e.values for e in made.evaluations if e.values is not None}
    beaten = {p for p in points for q in points if q != p and all(a <= b for a, b in zip(q, p, strict=True))}
    assert sorted(points - beaten) == [e.values for e in made.front()]
    assert made.front()


def test_steps_by_hand_and_the_iterator_agree() -> None:
    by_hand, run = study(seed=5), study(seed=5)
    for _ in range(5):
        by_hand.tell(by_hand.evaluate(by_hand.ask()))
    list(run.run(5))
    assert values(by_hand.evaluations) == values(run.evaluations)


def test_objectives_may_be_any_function_of_the_plan() -> None:
    made = study(objectives=[lambda plan: len(plan.instructions), "peak", "traffic", "gap"])
    evaluation = next(e for e in made.run(30) if e.plan is not None)
    assert evaluation.plan is not None
    assert evaluation.values is not None
    assert evaluation.values[0] == len(evaluation.plan.instructions)


def test_ranges_stay_on_their_steps() -> None:
    domain = SizeRange("64", "1KiB", step=48, log=True)
    assert (domain.low, domain.high) == (64, 1024)
    assert [domain.snap(x) for x in (0, 64, 111, 112, 5000)] == [64, 64, 64, 112, 1024]


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: SizeRange(0, 5), InputError),
        (lambda: SizeRange(6, 5), InputError),
        (lambda: Choice(()), InputError),
        (lambda: Study(diamond(), {}), InputError),
        (lambda: Study(diamond(), {"size": Choice((1,))}), InputError),
        (lambda: Study(diamond(), {"alignment": Choice((1,))}), InputError),
        (lambda: Study(diamond(), SPACE, objectives=("beauty",)), InputError),
        (lambda: Study(diamond(), SPACE | {"operands": Choice(("no",))}, strategy="e1").ask(), AcceleratorError),
    ],
)
def test_wrong_studies_are_refused(make: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        make()


def test_optuna_finds_the_front_of_a_small_space() -> None:
    pytest.importorskip("optuna")
    from cosma.experiments.optuna_optimiser import OptunaOptimiser

    fronts = []
    for _ in range(2):
        made = study(optimiser=OptunaOptimiser(SPACE, seed=0))
        list(made.run(80))
        fronts.append([e.values for e in made.front()])
    assert fronts[0] == fronts[1]
    # The smallest feasible capacity is 384 bytes; somewhere above nothing is moved twice (32 bytes of the shared
    # weight aside).
    assert min(v[1] for v in fronts[0] if v) <= 448
    assert min(v[0] for v in fronts[0] if v) == 32


def test_optuna_learns_what_did_not_fit_and_minds_what_was_not_asked() -> None:
    optuna = pytest.importorskip("optuna")
    from cosma.experiments.optuna_optimiser import OptunaOptimiser

    small: dict[str, Choice | SizeRange] = {"scratchpad": SizeRange(64, 128, step=64)}
    optimiser = OptunaOptimiser(small, objectives=1)
    base = {"operands": "resident"}
    made = Study(diamond(), small, strategy="e1", objectives=["traffic"], optimiser=optimiser, base=base)
    assert all(e.plan is None for e in made.run(3))
    assert [t.state for t in optimiser.study.trials] == [optuna.trial.TrialState.FAIL] * 3
    with pytest.raises(ValueError, match="not asked"):
        optimiser.tell({"scratchpad": 1}, None)
