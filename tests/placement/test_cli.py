from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cosma.cli.app import app
from cosma.errors import InputError, PlanInvalidError

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
