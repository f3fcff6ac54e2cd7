from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cosma.cli.app import app
from cosma.errors import FormatError, InputError, PlanInvalidError

TRACE = Path(__file__).resolve().parents[2] / "models" / "traces" / "gpt_12x8_top1.npz"


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["place", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_place_then_score(tmp_path: Path) -> None:
    target = tmp_path / "p.json"
    report = json.loads(
        run(TRACE, "--nodes", 2, "--devices-per-node", 2, "--holdout", 0.2, "--hidden", 64, "-o", target, "--json")
    )
    assert report["certificate"]["status"] == "optimal"
    scores = report["scores"]
    assert set(scores) == {"fitted on", "held out"}
    assert scores["held out"]["placement"]["tokens"] == 1200
    assert scores["held out"]["placement"]["mean_cost"] < scores["held out"]["vanilla"]["mean_cost"]
    again = json.loads(run(TRACE, "--score", target, "--evaluate", "eval_in", "--json"))
    assert again["metrics"] == report["metrics"]
    assert "eval_in" in again["scores"]
    first = target.read_bytes()
    run(TRACE, "--nodes", 2, "--devices-per-node", 2, "--holdout", 0.2, "-o", target)
    assert target.read_bytes() == first


def test_other_devices(tmp_path: Path) -> None:
    assert "lower bound" in run(TRACE, "--uneven", "1,2", "--work", 5000, "--lower-bound", "none")
    assert "lower bound" in run(TRACE, "--levels", "2,2,2", "--strategy", "vanilla", "--lower-bound", "none")
    out = tmp_path / "p.csv"
    run(TRACE, "--nodes", 1, "--devices-per-node", 4, "--strategy", "eplb", "--format", "exflow", "-o", out)
    assert out.read_text().startswith("Expert,Node\n0,")
    assert "moved: " in run(
        TRACE, "--nodes", 1, "--devices-per-node", 4, "--current", out, "--max-moved", "4KiB", "--expert-size", "1KiB",
        "--work", 5000,
    )  # fmt: skip


def test_a_placement_in_force_is_of_these_devices(tmp_path: Path) -> None:
    run(TRACE, "--nodes", 2, "--devices-per-node", 2, "--strategy", "vanilla", "-o", tmp_path / "p.json")
    with pytest.raises(InputError, match=r"names device \d; there are 2"):
        run(TRACE, "--nodes", 1, "--devices-per-node", 2, "--current", tmp_path / "p.json", "--max-moves", 3)


def test_room_for_more_experts_than_there_are() -> None:
    shown = run(TRACE, "--nodes", 1, "--devices-per-node", 2, "--capacities", f"{10**9},1", "--work", 5000)
    assert "lower bound 0.0000" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no devices"),
        (["--nodes", "2"], "belong together"),
        (["--nodes", "2", "--devices-per-node", "2", "--levels", "2,2"], "devices once"),
        (["--levels", "2,x"], "numbers separated by commas"),
        (["--nodes", "2", "--devices-per-node", "2", "--strategy", "magic"], "expected one of"),
        (["--nodes", "2", "--devices-per-node", "2", "--max-moved", "1KiB"], "--expert-size"),
        (["--nodes", "2", "--devices-per-node", "2", "--max-moves", "3"], "belong together"),
        (["--nodes", "2", "--devices-per-node", "2", "--array", "nothing"], "no array 'nothing'"),
        (["--nodes", "2", "--devices-per-node", "2", "--holdout", "2"], "leaves one part empty"),
        (["--nodes", "2", "--devices-per-node", "2", "--costs", "1e300,1"], "at most 1e\\+12"),
        (["--nodes", "2", "--devices-per-node", "2", "--dense-layers", "3-1"], "write layer numbers"),
    ],
)
def test_bad_options_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(TRACE, *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "magic"], "format 'magic': expected one of"),
        (["--format", "exflow", "--replicas-per-device", "1"], "one device per expert"),
        (["--format", "exflow", "--dense-layers", "0-1", "--dense-rows"], "no rows for layers without experts"),
        (["--evaluate", "deeper"], "5 layers and 8 experts, to be placed are 4 layers of 8"),
        (["--evaluate", "wider"], "4 layers and 12 experts, .* --experts if the first misses some"),
    ],
)
def test_what_cannot_be_written_or_reported_is_refused_before_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    random = np.random.default_rng(0)
    path = tmp_path / "t.npz"
    shapes = {"profile": (8, (90, 4)), "deeper": (8, (90, 5)), "wider": (12, (90, 4))}
    np.savez(path, **{name: random.integers(0, most, shape) for name, (most, shape) in shapes.items()})
    monkeypatch.setattr("cosma.placement.service.place", lambda *_: pytest.fail("searched"))
    with pytest.raises(InputError, match=message):
        run(path, "--nodes", "1", "--devices-per-node", "2", *arguments)


def test_counts_cannot_be_held_out(tmp_path: Path) -> None:
    (tmp_path / "load.csv").write_text("layer,expert,count\n0,0,5\n0,1,7\n")
    with pytest.raises(InputError, match="no single tokens; a part of them cannot be held out"):
        run(tmp_path / "load.csv", "--nodes", "1", "--devices-per-node", "2", "--holdout", "0.5")


def test_an_invalid_placement_is_refused(tmp_path: Path) -> None:
    record = {
        "format": "cosma-placement", "version": 1, "topology": {"nodes": 1, "devices_per_node": 2}, "layers": 12,
        "experts": 8, "placement": np.zeros((12, 8), dtype=int).tolist(), "replicas": None,
    }  # fmt: skip
    (tmp_path / "p.json").write_text(json.dumps(record))
    with pytest.raises(PlanInvalidError, match="holds 8 experts, room for 4"):
        run(TRACE, "--score", tmp_path / "p.json")


def _copies_of(record: dict[str, Any], wanted: int) -> list[int]:
    """Return the copies of the first expert that has as many as wanted, or more."""
    return next(copies for row in record["replicas"] for copies in row if len(copies) >= wanted)


def _moved(record: dict[str, Any]) -> None:
    """Move an expert to another device, without making room there."""
    row = record["replicas"][0]
    expert, target = next((e, d) for e, held in enumerate(row) if len(held) == 1 for d in range(4) if d not in held)
    full = next(d for d in range(4) if sum(d in held for held in row) == 3 and d != row[expert][0])
    row[expert] = [full if full not in row[expert] else target]
    record["placement"][0][expert] = row[expert][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_moved, "holds 4 experts, room for 3"),
        (lambda r: _copies_of(r, 1).clear(), "on no device"),
        (lambda r: _copies_of(r, 2).reverse(), "but its first copy is on"),
        (lambda r: _copies_of(r, 2).append(_copies_of(r, 2)[0]), "two copies on one device"),
        (lambda r: _copies_of(r, 2).append(9), "device 9, but there are 4"),
        (lambda r: r["solver"].update(replicas_per_device=0), "holds 3 experts, room for 2"),
        (lambda r: r["replicas"].pop(), "must list every expert of every layer"),
        (lambda r: r["placement"].pop(), "but layers and experts say"),
        (lambda r: r.update(replicas=None), None),
        (lambda r: r["metrics"].update(mean_cost=0.1), "claims, not verified here: mean_cost 0.1,"),
    ],
)
def test_a_changed_placement_is_refused_or_counted_anew(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str | None
) -> None:
    tokens = np.random.default_rng(2).integers(0, 8, (300, 4))
    np.save(tmp_path / "t.npy", tokens)
    target = tmp_path / "p.json"
    devices = ("--nodes", 2, "--devices-per-node", 2)
    run(tmp_path / "t.npy", *devices, "--replicas-per-device", 1, "--routing", "split", "--balance", 1.02,
        "--work", 20_000, "-o", target)  # fmt: skip
    true = json.loads(run(tmp_path / "t.npy", "--score", target, "--json"))["scores"]["fitted on"]["placement"]
    record = json.loads(target.read_text())
    change(record)
    target.write_text(json.dumps(record))
    if message is None or "claims" in message:
        assert message is None or message in run(tmp_path / "t.npy", "--score", target)
        again = json.loads(run(tmp_path / "t.npy", "--score", target, "--json"))["scores"]["fitted on"]["placement"]
        assert (again == true) == (message is not None)
        return
    with pytest.raises((PlanInvalidError, FormatError), match=message):
        run(tmp_path / "t.npy", "--score", target)
