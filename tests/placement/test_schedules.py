"""Fronts of crossings against imbalance, and placements over windows of a trace."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cosma.cli.app import app
from cosma.errors import CosmaError, InputError
from cosma.figures import KINDS
from cosma.placement.affinity import Affinity
from cosma.placement.check import check_placement, score
from cosma.placement.front import front, front_csv, with_less_room
from cosma.placement.options import PlaceOptions
from cosma.placement.plots import front_figure
from cosma.placement.service import place
from cosma.placement.synthetic import SyntheticOptions, synthetic_trace
from cosma.placement.topology import Topology
from cosma.placement.traces import open_trace, read_affinity
from cosma.placement.windows import MovePrice, compare, totals

TOPOLOGY = Topology.grid(2, 2)
WORK = 60_000


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    """Return a trace whose routing changes in the middle."""
    halves = [
        np.asarray(
            synthetic_trace(SyntheticOptions(tokens=1200, layers=3, experts=16, clusters=4, skew=1.5, seed=seed))
        )
        for seed in (1, 2)
    ]
    return np.concatenate(halves).astype(np.int64)


@pytest.fixture(scope="module")
def path(tokens: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("traces") / "drift.npy"
    np.save(target, tokens)
    return target


def test_fronts_fall_and_points_are_what_they_say(tokens: np.ndarray, tmp_path: Path) -> None:
    affinity = Affinity.from_tokens(tokens, 16)
    missed: list[str] = []
    points = front(
        affinity, TOPOLOGY, (0, 1), (1.0001, 1.2), PlaceOptions(bound="none", proposals=WORK), missed
    )  # fmt: skip
    for number in (0, 1):
        own = [p for p in points if p.replicas_per_device == number and p.strategy == "ours"]
        assert own[-1].limit is None
        assert all(one.mean_cost >= other.mean_cost for one, other in pairwise(own))
        for point in own:
            check_placement(point.placement, number)
            counted = score(point.placement, [tokens], "split")
            assert counted.mean_cost == pytest.approx(point.mean_cost)
            assert counted.worst_imbalance == pytest.approx(point.worst_imbalance)
            assert point.limit is None or counted.worst_imbalance <= point.limit + 1e-9
            assert point.lower_bound <= point.mean_cost + 1e-9
    alone = {p.limit: p.mean_cost for p in points if (p.strategy, p.replicas_per_device) == ("ours", 0)}
    for point in points:
        if point.strategy == "ours" and point.limit in alone:
            assert point.mean_cost <= alone[point.limit]
    assert {(p.strategy, p.replicas_per_device) for p in points} >= {("eplb", 0), ("eplb", 1)}
    assert any("limit 1.0001" in line for line in missed)
    rows = list(csv.DictReader(io.StringIO(front_csv(points))))
    assert len(rows) == len(points)
    pytest.importorskip("matplotlib")
    for kind in KINDS:
        assert front_figure(kind, points, "a title") == front_figure(kind, points, "a title")
    with pytest.raises(InputError, match="expected one of png, svg, pdf"):
        front_figure("txt", points, "a title")
    with pytest.raises(InputError, match="limits"):
        front(affinity, TOPOLOGY, (0,), (0.5,))
    with pytest.raises(InputError, match="say nothing of crossings"):
        front(Affinity.from_load(affinity.load), TOPOLOGY)


def test_places_may_stay_empty(tokens: np.ndarray) -> None:
    affinity = Affinity.from_tokens(tokens, 16)
    few, many = (
        front(affinity, TOPOLOGY, (number,), (1.5,), PlaceOptions(bound="none", proposals=WORK))[0] for number in (0, 1)
    )
    dear = replace(many, mean_cost=few.mean_cost + 1.0)
    found = with_less_room([few, dear])
    assert found[0] == few
    assert found[1].mean_cost == few.mean_cost
    assert found[1].replicas_per_device == 1
    check_placement(found[1].placement, 1)


def test_windows_are_judged_on_their_own_tokens(path: Path) -> None:
    trace = open_trace(path)
    options = PlaceOptions(proposals=WORK, replicas_per_device=1, balance=1.3)
    found = compare(trace, TOPOLOGY, 4, MovePrice(max_moves=6), options)
    by = {name: [one for one in found if one.strategy == name] for name in ("static", "near", "scratch", "eplb")}
    assert all([one.window for one in own] == [1, 2, 3] for own in by.values())
    assert sum(one.moved for one in by["static"]) == 0
    assert all(one.moved <= 6 for one in by["near"])
    assert all(own[0].moved == 0 for own in by.values())
    assert by["scratch"][0].mean_cost == by["static"][0].mean_cost == by["near"][0].mean_cost
    # The last window follows the change: who placed anew by the one before knows of it.
    assert by["scratch"][2].mean_cost < by["static"][2].mean_cost
    rows = {row["strategy"]: row for row in totals(found)}
    assert rows["scratch"]["moved"] == sum(one.moved for one in by["scratch"]) > rows["near"]["moved"] > 0
    assert all(row["limit_missed"] == sum(not one.kept_limit for one in by[name]) for name, row in rows.items())
    again = compare(trace, TOPOLOGY, 4, MovePrice(max_moves=6), options, strategies=("near",))
    assert again == by["near"]
    # Without a move allowed what is in force stays, and breaks the limit on what the windows have shown.
    still = compare(trace, TOPOLOGY, 4, MovePrice(max_moves=0), options, strategies=("near",))
    assert totals(still)[0]["limit_missed"] == 2
    assert totals(still)[0]["moved"] == 0


def test_dear_moves_are_not_made_and_cheap_ones_are(path: Path) -> None:
    trace = open_trace(path)
    options = PlaceOptions(proposals=WORK)
    moved = {}
    for size, strategies in ((1, ("near", "scratch")), (10**9, ("near",))):
        price = MovePrice(expert_bytes=size, activation_bytes=100)
        found = compare(trace, TOPOLOGY, 3, price, options, strategies=strategies)
        rows = {row["strategy"]: row for row in totals(found)}
        moved[size] = rows["near"]["moved"]
        assert rows["near"]["moved_bytes"] == size * rows["near"]["moved"]
        crossing = sum(
            one.mean_cost * read_affinity(part, 16).steps * 100
            for one, part in zip([o for o in found if o.strategy == "near"], trace.windows(3)[1:], strict=True)
        )
        assert rows["near"]["crossing_bytes"] == pytest.approx(crossing, rel=1e-6)
    assert moved[1] > 0 == moved[10**9]
    with pytest.raises(InputError, match="budget of moves, or the size"):
        compare(trace, TOPOLOGY, 4, MovePrice())
    with pytest.raises(InputError, match="at least 2"):
        compare(trace, TOPOLOGY, 1, MovePrice(max_moves=1))
    with pytest.raises(InputError, match="expected one of"):
        compare(trace, TOPOLOGY, 2, MovePrice(max_moves=1), strategies=("magic",))


def test_commands(tmp_path: Path) -> None:
    def run(*arguments: object) -> object:
        result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
        assert result.exit_code == 0
        return result.stdout

    devices = ("--nodes", 2, "--devices-per-node", 1, "--work", 20_000)
    table = tmp_path / "f.csv"
    path = tmp_path / "few.npy"
    np.save(path, small_trace())
    rooms = ("--replicas-per-device", "0,1", "--balance", "2.0")
    text = run("place-front", path, *devices, *rooms, "--lower-bound", "none", "-o", table)
    assert "eplb" in str(text)
    assert len(table.read_text().splitlines()) == 7
    record = json.loads(str(run("place-front", path, *devices, *rooms, "--json")))
    assert {row["strategy"] for row in record} == {"ours", "eplb"}
    assert all(0 < row["lower_bound"] <= row["mean_cost"] for row in record if row["strategy"] == "ours")
    record = json.loads(
        str(run("place-windows", path, *devices, "--windows", 3, "--max-moves", 4, "--json", "-o", tmp_path / "w.csv"))
    )
    assert {row["strategy"] for row in record["totals"]} == {"static", "near", "scratch", "eplb"}
    assert len((tmp_path / "w.csv").read_text().splitlines()) == 9
    assert "scratch" in str(
        run("place-windows", path, *devices, "--windows", 2, "--expert-size", "1KiB", "--activation-size", 64)
    )
    with pytest.raises(CosmaError, match="budget of moves"):
        run("place-windows", path, *devices, "--windows", 2)
    with pytest.raises(InputError, match="choose split or least-loaded"):
        run("place-windows", path, *devices, "--windows", 2, "--max-moves", 4, "--routing", "nearest")


def small_trace() -> np.ndarray:
    """Return routing of two layers of five experts."""
    return np.random.default_rng(1).integers(0, 5, (90, 2))


def test_an_interrupted_front_keeps_its_points(monkeypatch: pytest.MonkeyPatch) -> None:
    affinity, topology = Affinity.from_tokens(small_trace(), 5), Topology.grid(2, 1)
    whole = front(affinity, topology, (0, 1), (1.3, 1.6), PlaceOptions())
    polls = [0]

    def interrupted() -> bool:
        return polls[0] <= 0

    def struck(*given: object) -> object:
        """Place, until the interrupt comes in the middle of a search that has nothing yet."""
        polls[0] -= 1
        if interrupted():
            raise KeyboardInterrupt
        return place(*given)

    monkeypatch.setattr("cosma.placement.front.place", struck)
    for calls in (2, 5):
        polls[0] = calls
        missed: list[str] = []
        part = front(affinity, topology, (0, 1), (1.3, 1.6), PlaceOptions(interrupted=interrupted), missed)
        assert [one.row() for one in part if one.strategy == "ours"] == [
            one.row() for one in whole if one.strategy == "ours"
        ][: calls - 1]
        assert not missed
    polls[0] = 1
    with pytest.raises(KeyboardInterrupt):
        front(affinity, topology, (0, 1), (1.3, 1.6), PlaceOptions(interrupted=interrupted))
    # Who polls nothing gets the interrupt itself.
    polls[0] = 3
    with pytest.raises(KeyboardInterrupt):
        front(affinity, topology, (0, 1), (1.3, 1.6))


def test_interrupted_windows_are_those_judged_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = open_trace(path)
    whole = compare(trace, TOPOLOGY, 4, MovePrice(max_moves=6), strategies=("eplb", "static"))
    came = [False]
    for strikes in (False, True):

        def interrupted_in(*given: object, strikes: bool = strikes) -> object:
            came[0] = True
            if strikes:
                raise KeyboardInterrupt
            return place(*given)

        came[0] = False
        monkeypatch.setattr("cosma.placement.windows.place", interrupted_in)
        options = PlaceOptions(interrupted=lambda: came[0], proposals=WORK)
        part = compare(trace, TOPOLOGY, 4, MovePrice(max_moves=6), options, strategies=("eplb", "static"))
        assert part == whole[:3]
        came[0] = False
        with pytest.raises(KeyboardInterrupt):
            compare(trace, TOPOLOGY, 4, MovePrice(max_moves=6), options, strategies=("static", "eplb"))


def test_prices_and_budgets_of_moves_are_whole_numbers_that_can_be_counted() -> None:
    for wrong in ({"max_moves": -1}, {"max_moves": 10**30}, {"expert_bytes": -5}, {"activation_bytes": 1.5}):
        with pytest.raises(InputError, match=f"windows: {next(iter(wrong))}"):
            MovePrice(**wrong)  # type: ignore[arg-type]
