"""Numbers against numbers worked out by hand."""

from __future__ import annotations

import pytest

from cosma.errors import InputError
from cosma.experiments.summary import (
    BEST,
    front,
    gap_profile,
    labels_of,
    pair,
    performance_profile,
    quality,
    reduction,
    time_profile,
)
from cosma.experiments.tables import TABLES, make_tables
from tests.experiments.rows import row

ROWS = [
    # a: e1 100, e2 80, ours 20 and proven; b: e1 zero already; c: ours has no plan; d: ours is worse than e2.
    row("a", "e1", 100), row("a", "e2", 80), row("a", "auto", 20, 20, seconds=2.0),
    row("b", "e1", 0), row("b", "e2", 0), row("b", "auto", 0, 0, seconds=0.5),
    row("c", "e1", 10), row("c", "e2", 10), row("c", "auto", None),
    row("d", "e1", 50), row("d", "e2", 40), row("d", "auto", 45, 9, seconds=20.0),
]  # fmt: skip


def test_reductions_are_over_what_there_is_to_reduce() -> None:
    r = reduction(pair(ROWS, "auto"), "e1")
    assert (r.pairings, r.compared, r.zero, r.unplanned, r.worse) == (4, 2, 1, 1, 0)
    assert r.mean == pytest.approx((0.8 + 0.1) / 2)
    assert r.median == pytest.approx(0.45)
    assert r.total == pytest.approx(1 - 65 / 150)
    best = reduction(pair(ROWS, "auto"), BEST)
    assert best.mean == pytest.approx((0.75 - 0.125) / 2)
    assert best.worse == 1


def test_the_mean_of_models_weighs_each_model_once() -> None:
    rows = [
        *(row("a", "e1", 100, capacity=c) for c in "123"), *(row("a", "auto", 0, capacity=c) for c in "123"),
        row("b", "e1", 100), row("b", "auto", 100),
    ]  # fmt: skip
    r = reduction(pair(rows, "auto"), "e1")
    assert (r.mean, r.model_mean) == (0.75, 0.5)


def test_quality_counts_failures_against_the_method_but_not_the_infeasible() -> None:
    rows = [made for made in ROWS if made.label == "auto"]
    rows.append(row("e", "auto", None, status="infeasible"))
    q = quality(rows)
    assert (q.cells, q.failed, q.optimal, q.optimal_share) == (4, 1, 2, 0.5)
    assert q.mean_gap == pytest.approx((0 + 0 + 0.8) / 3)
    assert (q.median_s, q.max_s, q.proven_in_10_s) == (2.0, 20.0, 2)


def test_profiles_count_shares_of_all_cells() -> None:
    rows = [made for made in ROWS if made.label == "auto"]
    assert gap_profile(rows, [0.0, 0.79, 0.8, 1.0]) == [0.5, 0.5, 0.75, 0.75]
    assert time_profile(rows, [0.1, 0.5, 2.0, 100.0]) == [0.0, 0.25, 0.5, 0.5]
    profile = performance_profile(ROWS, ["e2", "auto"], [1.0, 1.125, 4.0])
    assert profile == {"e2": [0.75, 0.75, 1.0], "auto": [0.5, 0.75, 0.75]}


def test_a_front_holds_what_nothing_beats() -> None:
    rows = [row("a", "auto", n, capacity=str(s), scratchpad=s) for s, n in ((4, 9), (1, 30), (2, 30), (3, 10), (5, 9))]
    assert [(made.scratchpad, made.noncompulsory) for made in front(rows)] == [(1, 30), (3, 10), (4, 9)]


def test_labels_are_ours_unless_chosen() -> None:
    assert labels_of(ROWS) == ["auto"]
    assert labels_of(ROWS, ["e2"]) == ["e2"]
    assert labels_of([made for made in ROWS if made.label == "e1"]) == ["e1"]
    with pytest.raises(InputError, match="e3"):
        labels_of(ROWS, ["e3"])


def test_every_table_is_well_formed_and_says_the_same_in_each_form() -> None:
    for table in make_tables(ROWS, list(TABLES)):
        assert table.rows, table.name
        assert all(len(values) == len(table.columns) for values in table.rows)
        assert len(table.to_csv().splitlines()) == len(table.rows) + 1
        lines = [line for line in table.to_markdown().splitlines() if line.startswith("|")]
        assert len(lines) == len(table.rows) + 2
        assert {line.count("|") for line in lines} == {len(table.columns) + 1}
        assert len(table.to_records()) == len(table.rows)


def test_reductions_name_what_they_left_out() -> None:
    against = {record["against"]: record for record in make_tables(ROWS, ["reduction"])[0].to_records()}
    assert against["e1"]["mean"] == pytest.approx(0.45)
    assert (against["e1"]["compared"], against["e1"]["no plan"], against["e1"]["worse"]) == (2, 1, 0)
    assert against["best existing"]["worse"] == 1
    assert "e3" not in against


def test_the_headline_has_a_line_a_grid() -> None:
    (record,) = make_tables(ROWS, ["headline"])[0].to_records()
    assert record["vs e1"] == pytest.approx(0.45)
    assert record["vs e3"] is None
    assert [record[name] for name in ("models", "cells", "compared", "worse", "no plan")] == [4, 4, 2, 1, 1]


def test_an_empty_table_says_so() -> None:
    assert "None." in make_tables(ROWS[:8], ["failures"])[0].to_markdown()


def test_no_bound_is_drawn_above_a_plan() -> None:
    pytest.importorskip("matplotlib")
    from cosma.experiments.plots import draw_fronts

    # Traffic, bound: the bound for 2 KiB holds for 1 KiB as well, and the plan for 1 KiB serves 2 KiB.
    cells = {1: (4096, 3072), 2: (4096, 4096), 3: (0, 0)}
    rows = []
    for size, (moved, bound) in cells.items():
        given = {"capacity": f"{size}KiB", "scratchpad": size * 1024}
        rows += [row("a", "auto", moved, bound, **given), row("a", "e1", 8192, **given)]
    axes = draw_fronts(rows, ["auto"]).axes[0]
    lines = {str(line.get_label()): line for line in axes.get_lines()}
    assert list(lines["auto"].get_ydata()) == [4, 0]
    assert lines["auto"].get_drawstyle() == "steps-post"
    assert list(lines["lower bound"].get_ydata()) == [4, 4, 0]
    assert lines["lower bound"].get_drawstyle() == "steps-pre"
