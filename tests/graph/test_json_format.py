from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings

from cosma.access.modes import with_modes
from cosma.errors import FormatError, GraphError
from cosma.frontend import load_onnx
from cosma.graph import Graph
from cosma.graph.json_format import graph_from_json, graph_to_json, load_graph, save_graph
from cosma.rewrite import cut_selections
from cosma.rewrite.join import join_copies
from tests.random_graphs import instances
from tests.zero_copy.models import random_model

if TYPE_CHECKING:
    from pathlib import Path

GOOD: dict[str, Any] = {
    "format": "cosma-graph",
    "version": 1,
    "name": "tiny",
    "tensors": [{"name": "x", "bytes": 4, "kind": "input"}, {"name": "y", "bytes": 4, "kind": "output"}],
    "operators": [{"name": "r", "type": "Relu", "inputs": ["x"], "outputs": ["y"]}],
}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(instances())
def test_a_graph_survives_the_trip(instance: tuple[Graph, object]) -> None:
    text = graph_to_json(instance[0])
    assert graph_from_json(text) == instance[0]
    assert graph_to_json(graph_from_json(text)) == text


def test_files(tmp_path: Path) -> None:
    graph = graph_from_json(json.dumps(GOOD))
    save_graph(graph, tmp_path / "g.json")
    assert load_graph(tmp_path / "g.json") == graph


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "format"),
        ({"version": 2}, "version"),
        ({"tensors": [{"name": "x", "bytes": "4"}]}, r"tensors\[0\].bytes|tensors\[\.\.\.\]\.bytes"),
        ({"tensors": [{"name": "x", "bytes": 4, "kind": "scratch"}]}, "kind"),
        ({"operators": "none"}, "operators"),
    ],
)
def test_a_broken_file_names_the_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        graph_from_json(json.dumps(GOOD | change), "g.json")


def test_no_json_and_no_graph() -> None:
    with pytest.raises(FormatError, match=r"g\.json"):
        graph_from_json("{", "g.json")
    with pytest.raises(GraphError, match="'r' reads 'x'"):
        graph_from_json(json.dumps(GOOD | {"tensors": GOOD["tensors"][1:]}))


@pytest.mark.parametrize("seed", range(8))
def test_modes_parts_and_joins_survive_the_trip(tmp_path: Path, seed: int) -> None:
    made = random_model(tmp_path, seed)
    if made is None:
        pytest.skip("no legal model of this seed")
    loaded = load_onnx(made[0])
    for graph in (join_copies(loaded.graph, loaded.sites).graph, cut_selections(loaded.graph, least_unread=0).graph):
        moded = with_modes(graph, loaded.sites, keep_weights=True)
        assert graph_from_json(graph_to_json(moded)) == moded
