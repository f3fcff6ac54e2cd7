"""Tilings given by the user: operators that are fused, and rows in any layout."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import cosma
from cosma.rewrite.tile import tile
from cosma.rewrite.tiling import Tiling
from cosma.tiling.given import rule_tiling
from tests.execute.networks import Maker

MACHINE = cosma.Accelerator(scratchpad="24KiB", operands="resident", weights="scratchpad", fusion="epilogue")


def test_a_file_may_name_operators_that_are_fused(tmp_path: Path) -> None:
    """Fused operators are cut as each of them is; where two are cut differently, they are not fused."""
    m = Maker()
    m.add("Conv", ["x", m.weight("w", 8, 4, 1, 1)], "c")
    m.add("Relu", ["c"], "r")
    m.add("MaxPool", ["r"], "y", kernel_shape=[1, 2], strides=[1, 2])
    model, file = m.save(tmp_path / "net.onnx", {"x": (1, 4, 12, 12)}, ["y"]), tmp_path / "tiling.toml"

    def tiles(**counts: int) -> dict[str, int]:
        names = {**counts, "n_y": 2}
        file.write_text("".join(f'[[cut]]\noperator = "{name}"\naxis = 2\ntiles = {n}\n' for name, n in names.items()))
        plan = cosma.compile(model, MACHINE.replace(scratchpad="2KiB"), dtype="int8", tiling=file, effort=0.1)
        return dict(Counter(operator.tile.root for operator in plan.graph.operators if operator.tile))

    assert tiles(n_c=4, n_r=4) == tiles(n_c=4) == {"n_c": 4, "n_y": 2}
    assert tiles(n_c=4, n_r=3) == {"n_c": 4, "n_r": 3, "n_y": 2}
    assert tiles(n_r=4) == {"n_r": 4, "n_y": 2}


def test_tilings_follow_operators_into_fused_ones() -> None:
    order = (("a", (2,), 0), ("c", (), 0))
    tiling = Tiling({"a": ((2,),), "b": ((2,),)}, (("a", "b"), ("c",)), {"a": (3,)}, {"b": (0,)}, order)
    paths = {"a": ("a", "b"), "c": ("c",)}
    assert tiling.fused(paths) == Tiling({"a": ((2,),)}, (("a",), ("c",)), {"a": (3,)}, {"a": (0,)}, order)
    assert Tiling({"a": ((2,),)}, sums={"a": (3,)}).fused(paths) == Tiling({"a": ((2,),)}, sums={"a": (3,)})
    assert Tiling({"b": ((),)}).fused(paths) == Tiling({"a": ((),)}), "not cut, and neither is the first"


@pytest.mark.parametrize(
    "tiling",
    [
        Tiling({"a": ((2,),), "b": ((1,),)}),
        Tiling({"b": ((2,),)}),
        Tiling({"a": ((),), "b": ((2,),)}),
        Tiling({"a": ((2,),), "b": ((),)}),
        Tiling({"b": ((2,),)}, sums={"a": (3,)}),
        Tiling(sums={"b": (3,)}),
        Tiling(segments=(("a",), ("b", "c"))),
        Tiling({"a": ((2,),), "b": ((2,),)}, order=(("b", (), 0), ("a", (2,), 0))),
    ],
)
def test_what_is_cut_or_placed_by_itself_is_not_fused(tiling: Tiling) -> None:
    assert tiling.fused({"a": ("a", "b"), "c": ("c",)}) is None


def test_rows_stay_rows_where_channels_come_last(tmp_path: Path) -> None:
    """Cut along axis 2 whatever the layout, maps would lie in squares of rows by columns."""
    m = Maker()
    m.add("Conv", ["x", m.weight("w", 8, 4, 3, 3)], "c", pads=[1] * 4)
    m.add("Transpose", ["c"], "t", perm=[0, 2, 3, 1])
    m.add("Mul", ["t", m.weight("s", 8)], "u")
    m.add("Transpose", ["u"], "v", perm=[0, 3, 1, 2])
    m.add("Conv", ["v", m.weight("w2", 4, 8, 3, 3)], "y", pads=[1] * 4)
    loaded = cosma.load_onnx(m.save(tmp_path / "net.onnx", {"x": (1, 4, 16, 12)}, ["y"]))
    tiling = rule_tiling(loaded.graph, loaded.sites, {"rows": 4})
    along = {name: [axis for axis, at in enumerate(axes) if at] for name, axes in tiling.cuts.items()}
    assert along == {"n_c": [2], "n_t": [1], "n_u": [1], "n_v": [2], "n_y": [2]}
    made = tile(loaded.graph, loaded.sites, tiling).graph
    assert len(made.operators) == 20
    # Four rows of a map, and of those that convolutions read the first and last of four apart.
    assert max(Counter(t.region.root for t in made.tensors.values() if t.region).values()) == 10


def test_every_result_of_an_operator_has_the_rows_of_its_operand(tmp_path: Path) -> None:
    m = Maker()
    m.add("Transpose", ["x"], "t", perm=[1, 0, 2])
    sizes = m.constant("sizes", np.array([16, 16], np.int64))
    m.nodes.append(helper.make_node("Split", ["t", sizes], ["a", "b"], name="n_s", axis=2))
    m.add("Relu", ["a"], "ra")
    m.add("Relu", ["b"], "rb")
    loaded = cosma.load_onnx(m.save(tmp_path / "net.onnx", {"x": (8, 64, 32)}, ["ra", "rb"]))
    cuts = rule_tiling(loaded.graph, loaded.sites, {"stripes": 4}).cuts
    assert cuts["n_ra"] == cuts["n_rb"] == ((16, 32, 48), (), ())
