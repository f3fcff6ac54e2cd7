"""``cosma cache`` at the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cosma.placement import Placement, Topology, write_placement


def cosma(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cosma", "cache", *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "t.npz"
    np.savez(path, profile=rng.integers(0, 8, (200, 3)), eval_in=rng.integers(0, 8, (100, 3)))
    return path


def test_learns_on_one_part_and_reports_on_another(trace: Path) -> None:
    done = cosma(trace, "--share", "0.5", "--json", "--expert-size", "1MiB", "--bandwidth", "1GB")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["options"]["slots"] == 4
    assert list(report["reports"]) == ["eval_in"]
    part = report["reports"]["eval_in"]
    assert part["proven"]
    assert part["compulsory_fetches"] == 24
    best = part["results"][0]
    assert best["policy"] == "optimum"
    assert best["fetches"] == part["lower_bound_fetches"]
    assert best["stalled_s"] == pytest.approx(best["fetches"] * 2**20 / 1e9)
    assert best["moved_bytes"] == best["fetches"] * 2**20


def test_prints_a_table_and_the_bound(trace: Path) -> None:
    done = cosma(trace, "--slots", "4", "--policy", "lru", "--policy", "optimum", "--shared", "--one-by-one")
    assert done.returncode == 0, done.stderr
    assert "every schedule fetches at least" in done.stdout
    assert "proven" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--slots", "4", "--share", "0.5"], "once"),
        ([], "--slots N or --share S"),
        (["--share", "1.5"], "above 0"),
        (["--slots", "4", "--bandwidth", "1GB"], "--expert-size"),
        (["--slots", "4", "--policy", "mru"], "choose from"),
        (["--slots", "4", "--evaluate", "nothing"], "no array 'nothing'"),
        (["--slots", "2", "--batch-tokens", "4"], "experts at once"),
        (["--slots", "2", "--batch", "4"], "experts at once"),
        (["--slots", "2", "--batch", "0"], "--batch-tokens must be at least 1"),
    ],
)
def test_bad_options_end_with_one_line(trace: Path, arguments: list[str], says: str) -> None:
    done = cosma(trace, *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def reports_of(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, object]]:
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)["reports"])


def test_declared_experts_count_though_no_token_uses_them(tmp_path: Path) -> None:
    ids = np.random.default_rng(1).integers(0, 5, (50, 3))
    np.savez(tmp_path / "t.npz", profile=ids, eval_in=ids, meta=json.dumps({"experts": 8}))
    arguments = ["--share", "0.5", "--json", "--policy", "lru"]
    assert reports_of(cosma(tmp_path / "t.npz", *arguments))["eval_in"]["experts"] == 8
    assert reports_of(cosma(tmp_path / "t.npz", "--experts", "9", *arguments))["eval_in"]["experts"] == 9


def test_dense_layers_and_fewer_experts_than_k_make_no_requests(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    ids = np.argsort(rng.random((60, 4, 6)), axis=2)[:, :, :2].astype(np.int16)
    ids[:, 0] = -1
    np.save(tmp_path / "dense.npy", ids)
    rows = [[[int(e) for e in layer[: 1 + (token + at) % 2]] for at, layer in enumerate(layers)]
            for token, layers in enumerate(ids[:, 1:])]  # fmt: skip
    (tmp_path / "ragged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    both = ["--slots", "3", "--json", "--policy", "lru"]
    dense = next(iter(reports_of(cosma(tmp_path / "dense.npy", *both)).values()))
    assert (dense["layers"], dense["steps"], dense["widest_step"]) == (3, 180, 2)
    ragged = next(iter(reports_of(cosma(tmp_path / "ragged.jsonl", *both)).values()))
    assert ragged["layers"] == 3
    assert ragged["results"][0]["requests"] == sum(len(layer) for row in rows for layer in row)  # type: ignore[index]
    left_out = next(iter(reports_of(cosma(tmp_path / "dense.npy", "--dense-layers", "0", *both)).values()))
    assert left_out == dense


def test_counts_are_refused_by_name(tmp_path: Path) -> None:
    np.save(tmp_path / "load.npy", np.random.default_rng(3).multinomial(1000, [0.125] * 8, size=5))
    done = cosma(tmp_path / "load.npy", "--slots", "4", "--kind", "load")
    assert done.returncode == 2
    assert "holds counts (load)" in done.stderr
    assert "Traceback" not in done.stderr


def test_parts_of_two_models_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    np.savez(tmp_path / "t.npz", profile=rng.integers(0, 8, (200, 3)), eval_in=rng.integers(0, 8, (100, 4)))
    done = cosma(tmp_path / "t.npz", "--slots", "4")
    assert done.returncode == 2
    assert "parts of one model" in done.stderr


def test_a_placement_gives_every_device_slots_and_copies_take_none(trace: Path, tmp_path: Path) -> None:
    homes = np.tile(np.arange(8) // 2, (3, 1))
    topology = Topology.grid(2, 2)
    write_placement(tmp_path / "single.json", Placement(topology, homes))
    row = tuple((expert // 2, (expert // 2 + 1) % 4) if expert < 4 else (expert // 2,) for expert in range(8))
    copies = (row,) * 3
    write_placement(tmp_path / "copied.json", Placement(topology, homes, copies))
    asked = ["--slots", "1", "--json"]
    single = cosma(trace, *asked, "--placement", tmp_path / "single.json")
    copied = cosma(trace, *asked, "--placement", tmp_path / "copied.json")
    assert reports_of(single) == reports_of(copied)
    assert reports_of(single)["eval_in"]["groups"] == 4 * 3
    assert "12 experts have copies; the home of each serves it" in copied.stderr
    assert "copies" not in single.stderr
    wrong = tmp_path / "wrong.json"
    write_placement(wrong, Placement(topology, homes[:2]))
    done = cosma(trace, *asked, "--placement", wrong)
    assert done.returncode == 2
    assert "the trace has (3, 8)" in done.stderr
