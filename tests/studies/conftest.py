"""Networks that studies of tiles look at."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import helper

from tests.onnx_files import save_network


@pytest.fixture(scope="session")
def gated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two convolutions over maps of 2 KiB (int8), a pooled gate that waits for all rows, a product with it."""
    shapes = {"w1": (8, 4, 3, 3), "w2": (8, 8, 3, 3), "v": (8, 8, 1, 1), "w3": (2, 8, 1, 1)}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="c1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "w2"], ["b"], name="c2", pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["b"], ["g"], name="gap"),
        helper.make_node("Conv", ["g", "v"], ["s"], name="gate"),
        helper.make_node("Mul", ["b", "s"], ["m"], name="scale"),
        helper.make_node("Conv", ["m", "w3"], ["y"], name="c3"),
    ]
    return save_network(tmp_path_factory.mktemp("gated") / "gated.onnx", nodes, {"x": [1, 4, 16, 16]}, shapes)
