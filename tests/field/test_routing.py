"""Routing traces, counts and expert maps from the field, at the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cosma.cli.app import app
from cosma.errors import CosmaError
from cosma.placement.synthetic import SyntheticOptions, synthetic_trace

REPORTS = Path(__file__).resolve().parents[3] / "shared" / "reports"
DEVICES = ("--nodes", "1", "--devices-per-node", "4", "--work", "4000", "--lower-bound", "none")


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.stdout)


def report(name: str) -> Path:
    if not (REPORTS / name).is_file():
        pytest.skip("no shared reports beside the project")
    return REPORTS / name


@pytest.fixture
def tokens() -> np.ndarray:
    options = SyntheticOptions(tokens=400, layers=6, experts=16, top_k=2, clusters=4, seed=3)
    return np.asarray(synthetic_trace(options)).astype(np.int64)


@pytest.mark.parametrize("name", ["load_counts.npy", "load_counts_by_step.npy", "load_counts.csv"])
def test_counts_are_placed_by_load_alone(name: str) -> None:
    path = report(name)
    info = run("trace-info", path)
    assert (info["layers"], info["experts"], info["affinity"]) == (6, 16, None)
    assert info["kind"].startswith("load")
    found = run("place", path, *DEVICES)["scores"]["fitted on"]
    assert found["placement"]["mean_cost"] is None
    assert found["placement"]["imbalance"] <= found["eplb"]["imbalance"]
    assert found["placement"]["worst_imbalance"] < 1.02


@pytest.mark.parametrize(
    ("name", "layers", "dense", "least_k"),
    [
        ("trace_dense_first_layer.npy", 5, [0], 2),
        ("trace_varying_k.jsonl", 6, [], 1),
        ("responses_choices.jsonl", 6, [], 2),
        ("trace_array.json", 6, [], 2),
    ],
)
def test_traces_are_read(name: str, layers: int, dense: list[int], least_k: int) -> None:
    info = run("trace-info", report(name))
    assert (info["kind"], info["layers"], info["dense_layers"], info["least_k"]) == ("trace", layers, dense, least_k)
    assert run("place", report(name), *DEVICES)["layers"] == layers


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trace_k_zero.npy", "k = 0"),
        ("trace_no_layers.npy", "no layers"),
        ("trace_empty_rows.npy", "no layers"),
        ("trace_huge_id.npy", "names expert 1099511627776; at most 65536 experts per layer are possible"),
        ("trace_bad_checksum.npz", "damaged"),
    ],
)
def test_damaged_traces_are_refused(name: str, message: str) -> None:
    for command in (["trace-info"], ["place", *DEVICES]):
        with pytest.raises(CosmaError, match=message) as caught:
            run(*command, report(name))
        assert caught.value.exit_code == 2
        assert "\n" not in str(caught.value)


def test_padding_in_unsigned_bytes_is_no_expert(tmp_path: Path, tokens: np.ndarray) -> None:
    path = tmp_path / "trace.npy"
    tokens[0, 0, 1] = -1
    np.save(path, tokens.astype(np.int8))
    assert run("trace-info", path)["experts"] == 16
    np.save(path, tokens.astype(np.uint8))
    for command in (["trace-info"], ["place", *DEVICES]):
        with pytest.raises(CosmaError, match="names expert 255 and no other above 15: -1 becomes 255"):
            run(*command, path)
    # A model may have as many experts as a byte tells apart.
    np.save(path, (tokens * 16 + 15).astype(np.uint8))
    assert run("trace-info", path)["experts"] == 256


@pytest.mark.parametrize("shape", [(6, 16), (8, 6, 16)])
def test_counts_beyond_exact_numbers_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "load_counts.npy"
    np.save(path, np.full(shape, 2**62))
    with pytest.raises(CosmaError, match=r"at most 2\*\*53 are counted"):
        run("place", path, *DEVICES)


@pytest.mark.parametrize("wrong", [("--evaluate", "nothing"), ("--hidden", 8, "--dtype", "int3")])
def test_what_cannot_be_reported_is_refused_before_the_search(
    tmp_path: Path, tokens: np.ndarray, wrong: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def place(*_: object) -> None:
        raise AssertionError("searched")

    monkeypatch.setattr("cosma.placement.service.place", place)
    np.save(tmp_path / "trace.npy", tokens)
    with pytest.raises(CosmaError, match=r"nothing|int3"):
        run("place", tmp_path / "trace.npy", *DEVICES, *wrong)


def test_exported_maps_waste_no_place(tmp_path: Path) -> None:
    target = tmp_path / "map.json"
    run(
        "place", report("trace_4x60_top4.npy"), "--nodes", 1, "--devices-per-node", 8, "--work", 4000,
        "--lower-bound", "none", "--format", "eplb", "-o", target,
    )  # fmt: skip
    for row in json.loads(target.read_text()):
        assert len(row) == 64
        assert set(row) == set(range(60))
        assert all(len(set(row[first : first + 8])) == 8 for first in range(0, 64, 8))


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("map_with_dense_row.json", "row 0 of the map taken for dense layers"),
        ("map_copy_on_one_device.json", "24 places repeat an expert that their device already holds"),
        ("map_layers_from_3.json", None),
    ],
)
def test_maps_are_scored(name: str, note: str | None) -> None:
    found = run(
        "place", report("trace_6x16_top2.npy"), "--nodes", 1, "--devices-per-node", 4, "--score", report(name)
    )  # fmt: skip
    assert found["scores"]["fitted on"]["placement"] == found["scores"]["fitted on"]["vanilla"]
    assert [line.startswith(note) for line in found["notes"]] == [True] if note else found["notes"] == []


def test_maps_with_rows_for_dense_layers(tmp_path: Path, tokens: np.ndarray) -> None:
    logged = np.concatenate([np.full((400, 1, 2), -1), tokens], axis=1)
    np.save(tmp_path / "t.npy", logged)
    target = tmp_path / "map.json"
    placed = run("place", tmp_path / "t.npy", *DEVICES, "--format", "sglang", "--dense-rows", "-o", target)
    rows = json.loads(target.read_text())["physical_to_logical_map"]
    assert len(rows) == 7
    assert rows[0] == list(range(16))
    scored = run("place", tmp_path / "t.npy", "--nodes", 1, "--devices-per-node", 4, "--score", target)
    assert scored["scores"]["fitted on"]["placement"] == placed["scores"]["fitted on"]["placement"]
    np.save(tmp_path / "short.npy", tokens)
    again = run(
        "place", tmp_path / "short.npy", "--nodes", 1, "--devices-per-node", 4, "--score", target,
        "--dense-layers", "0",
    )  # fmt: skip
    assert again["scores"]["fitted on"]["placement"] == scored["scores"]["fitted on"]["placement"]


def test_text_output_says_what_a_file_holds(tmp_path: Path, tokens: np.ndarray) -> None:
    np.save(tmp_path / "t.npy", tokens)
    result = CliRunner().invoke(app, ["trace-info", str(tmp_path / "t.npy")], catch_exceptions=False)
    assert result.exit_code == 0
    for text in ("layers with experts", "6 (numbers 0-5)", "16 (16 are used)", "affinity between layers and load"):
        assert text in result.stdout
    with pytest.raises(CosmaError, match="write layer numbers"):
        run("trace-info", tmp_path / "t.npy", "--dense-layers", "a")
    with pytest.raises(CosmaError, match="layers and experts per token"):
        run("trace-info", tmp_path / "t.npy", "--routing-shape", "61")
