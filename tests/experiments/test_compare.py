from __future__ import annotations

from pathlib import Path

import pytest

from cosma.experiments import Row
from cosma.experiments.compare import compare
from cosma.experiments.row import rows_to_csv
from tests.cli.test_commands import cosma
from tests.experiments.rows import row


def kinds(before: list[Row], after: list[Row], **options: object) -> list[str]:
    return [d.kind for d in compare(before, after, **options)]  # type: ignore[arg-type]


def test_equal_results_have_no_difference() -> None:
    rows = [row("a", "auto", 5, 3), row("b", "auto", None), row("c", "e1", 0)]
    assert kinds(rows, [row("a", "auto", 5, 3, seconds=9.0), *rows[1:]]) == []


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (row("a", "auto", 100, 50), row("a", "auto", 101, 50), "traffic"),
        (row("a", "auto", 0, 0), row("a", "auto", 1, 0), "traffic"),
        (row("a", "auto", 100, 50), row("a", "auto", 100, 49), "bound"),
        (row("a", "auto", 100, 50), row("a", "auto", None), "lost"),
        (row("a", "auto", 100, 50), row("b", "auto", 1, 1), "missing"),
        (row("a", "auto", 100, 50), row("a", "auto", 49, 40), "contradiction"),
    ],
)
def test_each_regression_is_found(old: Row, new: Row, kind: str) -> None:
    found = compare([old], [new])
    assert found[0].kind == kind
    assert found[0].regression


def test_what_is_better_is_no_regression() -> None:
    old = [row("a", "auto", 100, 100), row("b", "auto", None), row("c", "auto", 9, 3)]
    new = [row("b", "auto", 7), row("c", "auto", 9, 4), row("d", "auto", 1), row("a", "auto", 100, 100)]
    found = compare(old, new)
    assert sorted(d.kind for d in found) == ["found", "new"]
    assert not any(d.regression for d in found)


def test_a_bound_that_followed_its_plan_down_is_no_regression() -> None:
    assert kinds([row("a", "auto", 100, 50)], [row("a", "auto", 50, 50)]) == ["better"]


def test_tolerance_slowdown_and_missing_are_as_asked() -> None:
    old, new = [row("a", "auto", 100, 50)], [row("a", "auto", 101, 49, seconds=3.0)]
    assert sorted(kinds(old, new)) == ["bound", "traffic"]
    assert kinds(old, new, tolerance=0.05) == []
    assert kinds(old, new, tolerance=0.05, slowdown=2.0) == ["slower"]
    assert kinds(old, [], allow_missing=True) == []


def test_a_bound_above_any_plan_of_the_instance_is_a_contradiction() -> None:
    rows = [row("a", "e1", 40), row("a", "auto", 50, 45)]
    found = compare(rows, rows)
    assert [(d.kind, d.before, d.after) for d in found] == [("contradiction", 45, 40)] * 2


def test_the_command_exits_with_5_on_a_regression_alone(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(rows_to_csv([row("a", "auto", 100, 50)]))
    (tmp_path / "worse.csv").write_text(rows_to_csv([row("a", "auto", 120, 50)]))
    (tmp_path / "better.csv").write_text(rows_to_csv([row("a", "auto", 90, 50)]))
    worse = cosma(tmp_path, "compare", "a.csv", "worse.csv")
    assert worse.returncode == 5
    assert "+20.0 %" in worse.stdout
    assert cosma(tmp_path, "compare", "a.csv", "worse.csv", "--tolerance", "0.2").returncode == 0
    assert cosma(tmp_path, "compare", "a.csv", "better.csv").returncode == 0
