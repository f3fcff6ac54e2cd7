"""The zoo is what its manifest says, and its scripts make it again."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from cosma.frontend import LoadedModel, load_onnx

MODELS = Path(__file__).parents[2] / "models"
ENTRIES = tomllib.loads((MODELS / "manifest.toml").read_text())["model"]


def test_the_manifest_names_every_file() -> None:
    assert [entry["file"] for entry in ENTRIES] == sorted(path.name for path in (MODELS / "zoo").glob("*.onnx"))


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["file"])
def test_a_model_is_as_the_manifest_says(entry: dict[str, object], check: Callable[[LoadedModel], None]) -> None:
    loaded = load_onnx(MODELS / "zoo" / str(entry["file"]))
    check(loaded)
    graph = loaded.graph
    assert entry["source"]
    assert loaded.sha256 == entry["sha256"]
    assert len(graph.operators) == entry["operators"]
    assert len(graph.tensors) == entry["tensors"]
    assert sum(operator.macs or 0 for operator in graph.operators) == entry["macs"]
    largest = max(graph.working_set_bytes(operator.name, weights=False) for operator in graph.operators)
    assert largest == entry["largest_working_set_bytes"]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["file"])
def test_no_model_carries_weights(entry: dict[str, object]) -> None:
    model = onnx.load(MODELS / "zoo" / str(entry["file"]), load_external_data=False)
    assert all(len(tensor.raw_data) <= 1024 for tensor in model.graph.initializer)


def test_the_generated_networks_come_out_the_same(tmp_path: Path) -> None:
    made = [entry for entry in ENTRIES if entry.get("made_by")]
    assert len(made) == 17
    subprocess.run(
        [sys.executable, MODELS / "make" / "zoo.py", "--into", tmp_path], check=True, capture_output=True, text=True
    )
    assert {path.name for path in tmp_path.iterdir()} == {entry["file"] for entry in made}
    for entry in made:
        assert (tmp_path / entry["file"]).read_bytes() == (MODELS / "zoo" / entry["file"]).read_bytes()


def test_generated_networks_cost_what_their_papers_say() -> None:
    """Multiply-accumulates of the published ImageNet networks, within what stems and classifiers differ by."""
    published = {  # millions
        "amoebanet_a_imagenet": 555, "nasnet_a_imagenet": 564, "pnasnet5_imagenet": 588, "darts_v2_imagenet": 574,
        "randwire_small_ws_1": 583, "randwire_small_ba_1": 583,
    }  # fmt: skip
    macs = {entry["file"].removesuffix(".onnx"): entry["macs"] / 1e6 for entry in ENTRIES}
    for name, millions in published.items():
        assert macs[name] == pytest.approx(millions, rel=0.2), name


@pytest.mark.parametrize("operators", [2, 3, 50, 1000, 1001])
def test_a_synthetic_network_has_the_size_asked_for(operators: int, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    subprocess.run([sys.executable, MODELS / "make" / "synthetic.py", str(operators), path], check=True)
    assert len(load_onnx(path).graph.operators) == operators
