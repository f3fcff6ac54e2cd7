from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from cosma.experiments import Experiment
from cosma.experiments.progress import MEASURED_CELLS, Estimate, ProgressView, clock
from tests.experiments.rows import row


def test_the_estimate_knows_each_strategy_by_itself(experiment: Callable[..., Experiment]) -> None:
    cells = experiment("a", "b", strategies='["e1", "existing"]').cells()
    estimate = Estimate(cells, jobs=2)
    assert estimate.seconds_left() is None
    # Six cells of each strategy wait; of the one that is unknown the mean of the known is expected.
    estimate.learn([row("x", "e1", 1, grid="T", seconds=1.0)])
    assert estimate.seconds_left() == pytest.approx(12 * 1 / 2)
    estimate.finish(row("a", "existing", 1, grid="T", seconds=5.0))
    assert estimate.seconds_left() == pytest.approx((6 * 1 + 5 * 5) / 2)


def test_the_number_of_cells_at_once_is_measured(
    experiment: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("cosma.experiments.progress.time.monotonic", lambda: now[0])
    cells = experiment(*(f"m{i}" for i in range(10)), strategies='["e1"]').cells()
    estimate = Estimate(cells, jobs=1)
    for _ in range(MEASURED_CELLS):
        now[0] += 0.5
        estimate.finish(row("a", "e1", 1, grid="T", seconds=4.0))
    # Ten cells of 4 s in 5 s of wall clock: eight at once.
    assert estimate.seconds_left() == pytest.approx(20 * 4 / 8)


def test_lines_say_how_far_and_the_last_one_always_comes(experiment: Callable[..., Experiment]) -> None:
    cells = experiment("a", strategies='["e1"]').cells()
    stream = io.StringIO()
    view = ProgressView(len(cells), Estimate(cells, 1), stream=stream)
    for number in range(3):
        view.update(row("a", "e1", None if number == 1 else 3, grid="T"))
    view.close()
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("1/3 cells, 0 failed, ")
    assert lines[-1].startswith("3/3 cells, 1 failed, ")
    assert "about 0:00:00 left" in lines[-1]


def test_clocks() -> None:
    assert [clock(s) for s in (0, 59.6, 3661)] == ["0:00:00", "0:01:00", "1:01:01"]
