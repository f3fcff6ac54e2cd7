"""A small share of the fuzz cases; ``python -m tests.fuzz`` runs them all."""

from __future__ import annotations

import json
import os
import time

import pytest

from tests.fuzz import judge, models, plans, runner, tables
from tests.fuzz.runner import Case, WrongError, run_cases

#: Seeds of cases that once ended badly, beside those of the first.
ONCE = {
    models: (
        1536, 1735, 2725, 4418, 4578, 4787, 6224, 7635, 8440, 11315, 11363, 11431, 15444, 15975, 18107, 19682, 49513,
    ),
    plans: (227, 246, 455, 536, 1383),
    tables: (4, 39, 77, 90, 115, 245, 4883, 6038),
}  # fmt: skip


@pytest.mark.parametrize(("module", "count"), [(models, 250), (plans, 400), (tables, 300)])
def test_nothing_breaks_and_nothing_wrong_is_accepted(module: object, count: int) -> None:
    module.bases()  # type: ignore[attr-defined]
    outcome = run_cases(module.case, (*range(count), *ONCE[module]), jobs=2)  # type: ignore[attr-defined, index]
    assert outcome.findings == []
    # The generators make what is accepted as well as what is refused.
    fine = sum(n for how, n in outcome.counts.items() if not how.startswith("refused"))
    assert 0.05 * count < fine < 0.95 * count, outcome.counts


def test_the_same_seed_makes_the_same_input() -> None:
    import random

    for module in (models, plans, tables):
        assert module.make(random.Random(5)) == module.make(random.Random(5))


def test_the_judge_knows_valid_plans_and_broken_ones() -> None:
    text = plans.bases()[0]
    assert judge.judge(json.loads(text)) == "valid"
    for text in plans.bases():
        plan = json.loads(text)
        assert judge.judge(plan) == "valid"
        assert judge.judge(plan | {"peak": plan["peak"] + 1}) == "peak"
        assert judge.judge(plan | {"instructions": plan["instructions"][:-1]}) != "valid" or (
            plan["instructions"][-1]["do"] == "free"
        )


def _misbehave(seed: int) -> str:
    match seed:
        case 0:
            return "fine"
        case 1:
            raise KeyError("no")
        case 2:
            time.sleep(60)
        case 3:
            return f"{len(bytearray(3 * 2**30))}"
        case 4:
            os._exit(7)
        case _:
            raise WrongError("accepted")
    return ""


def test_the_runner_notices_every_kind_of_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SECONDS", 1.0)
    case: Case = _misbehave
    found = dict(run_cases(case, range(6), jobs=2).findings)
    assert set(found) == {1, 2, 3, 4, 5}
    assert found[1].startswith("KeyError")
    assert found[2].startswith("hangs")
    assert found[3].startswith("MemoryError")
    assert "died, exit code 7" in found[4]
    assert found[5] == "WRONG: accepted"
