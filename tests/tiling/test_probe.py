"""Tables of what operators read: those of like operators are found once, and none is mistaken for another."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from cosma.frontend import load_onnx
from cosma.tiling import build_grid
from cosma.tiling.probe import Touch, Touches
from tests.onnx_files import save_network

SHAPE = [1, 4, 12, 12]
#: Convolutions that keep the shape; the third is like the first.
CONVOLUTIONS = (
    {"pads": [1, 1, 1, 1]}, {"pads": [2, 2, 2, 2], "dilations": [2, 2]}, {"pads": [1, 1, 1, 1]},
    {"pads": [2, 1, 0, 1]}, {"pads": [0, 1, 2, 1]}, {"pads": [1, 1, 1, 1], "group": 4},
)  # fmt: skip


class Forgetful(dict[Hashable, tuple[Touch, ...]]):
    """Knows no operator again."""

    def __contains__(self, key: object) -> bool:
        return False


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Convolutions one after another, and a product with a slice of what they yield."""
    nodes, weights = [], {}
    for i, own in enumerate(CONVOLUTIONS):
        nodes.append(helper.make_node("Conv", [f"t{i}", f"w{i}"], [f"t{i + 1}"], **own))
        weights[f"w{i}"] = np.ones((4, 4 // own.get("group", 1), 3, 3), np.float32)  # type: ignore[operator]
    last = f"t{len(CONVOLUTIONS)}"
    for i, begin in enumerate((0, 6)):
        weights |= {f"b{i}": np.array([begin]), f"e{i}": np.array([begin + 6]), f"a{i}": np.array([2])}
        nodes.append(helper.make_node("Slice", [last, f"b{i}", f"e{i}", f"a{i}"], [f"s{i}"]))
    nodes.append(helper.make_node("Add", ["s0", "s1"], ["y"]))
    return save_network(tmp_path / "net.onnx", nodes, {"t0": SHAPE}, weights, {"y": [1, 4, 6, 12]})


def test_like_operators_are_looked_at_once_and_others_by_themselves(network: Path) -> None:
    model = load_onnx(network)
    known: Touches = {}
    grid = build_grid(model.graph, model.sites, known).grid
    alone = build_grid(model.graph, model.sites, Forgetful()).grid
    for name, one, other in zip(grid._fields, grid, alone, strict=True):
        assert np.array_equal(one, other), name
    assert len(known) == len(model.graph.operators) - 1  # one convolution is like another
    again = build_grid(model.graph, model.sites, known).grid
    assert all(np.array_equal(one, other) for one, other in zip(grid, again, strict=True))
