"""What ``cosma inspect`` says can be cut, and where the barriers are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from onnx import helper
from typer.testing import CliRunner

import cosma
from cosma.cli.app import app
from cosma.cli.inspect_ import describe_tiling
from cosma.errors import InputError
from cosma.rewrite.tile import tile
from cosma.rewrite.tiling import Tiling
from tests.execute.networks import FAMILIES
from tests.onnx_files import save_network


def shown(path: Path, *options: str) -> str:
    result = CliRunner().invoke(app, ["inspect", str(path), *options])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_said_to_be_cut_can_be_cut(family: str, tmp_path: Path) -> None:
    """Each axis that is named can be cut, and no other one; a barrier is one that cannot be cut at all."""
    loaded = cosma.load_onnx(FAMILIES[family](tmp_path / "net.onnx"))
    facts = describe_tiling(loaded.graph, loaded.sites)
    assert facts is not None
    barriers = {row["operator"] for row in facts["barriers"]}
    for row in facts["operators"]:
        assert not (row["axes"] and row["operator"] in barriers)
        for axis, size in enumerate(row["shape"]):
            if size < 2:
                assert axis not in row["axes"]
                continue
            cuts = tuple((1,) if i == axis else () for i in range(len(row["shape"])))
            try:
                tile(loaded.graph, loaded.sites, Tiling({row["operator"]: cuts}))
            except InputError:
                assert axis not in row["axes"]
            else:
                assert axis in row["axes"]
    assert sum(found["operators"] for found in facts["by_type"].values()) == len(loaded.graph.operators)
    assert sum(found["barriers"] for found in facts["by_type"].values()) == len(facts["barriers"])


def test_barriers_have_reasons(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="conv"),
        helper.make_node("Softmax", ["a"], ["b"], name="soft", axis=3),
        helper.make_node("GlobalMaxPool", ["b"], ["c"], name="pool"),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Softmax", ["d"], ["e"], name="last"),
        helper.make_node("Trilu", ["e"], ["y"], name="triangle"),
    ]
    path = save_network(tmp_path / "net.onnx", nodes, {"x": [1, 3, 8, 8]}, {"w": (8, 3, 1, 1)})
    facts = json.loads(shown(path, "--json"))["tiling"]
    assert facts["by_type"]["Conv"] == {
        "operators": 1, "barriers": 0, "axes": {"1": 1, "2": 1, "3": 1}, "reads_whole": {"1": 1}
    }  # fmt: skip
    assert facts["by_type"]["GlobalMaxPool"]["reads_whole"] == {"2": 1, "3": 1}
    assert {row["operator"]: row["axes"] for row in facts["operators"]} == {
        "conv": [1, 2, 3], "soft": [1, 2], "pool": [1], "last": [], "triangle": []
    }  # fmt: skip
    assert [(row["operator"], row["why"]) for row in facts["barriers"]] == [
        ("last", "every element depends on all of an operand"), ("triangle", "no rule of access covers Trilu")
    ]  # fmt: skip
    text = shown(path)
    assert "What can be cut into tiles" in text
    assert "no rule of access covers Trilu" in text


def test_a_graph_alone_has_no_nodes_to_look_at(tmp_path: Path) -> None:
    loaded = cosma.load_onnx(FAMILIES["cnn"](tmp_path / "net.onnx"))
    assert describe_tiling(loaded.graph, {}) is None
