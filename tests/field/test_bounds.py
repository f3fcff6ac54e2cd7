"""Results whose size is known only when the model runs are planned for the most they can be, or for a bound."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from cosma.errors import ModelLoadError
from tests.field.conftest import Array, Load, planned, single

HEAD = '<ir_version: 9, opset_import: ["" : 17, "com.microsoft" : 1]>\n'
NMS = (
    HEAD
    + """g (float[2,3,100] s, float[2,100,4] bx, float[100,4] b2) => (float[nsel,4] y)
 <int64[1] mx = {20}, float[1] iou = {0.5}, float[1] th = {0.1}, int64 two = {2}> {
 sel = NonMaxSuppression (bx, s, mx, iou, th)
 gi = Gather <axis: int = 1> (sel, two)
 y = Gather <axis: int = 0> (b2, gi)
}"""
)


def test_boxes_are_bounded_by_limit_classes_and_images(load: Load) -> None:
    loaded = load(NMS)
    assert planned(loaded, ["sel", "gi", "y"]) == {"sel": (120, 3), "gi": (120,), "y": (120, 4)}
    assert loaded.graph.tensors["sel"].dtype == "int64"
    assert any("'sel' is planned for at most 120" in note for note in loaded.notes)
    assert load(NMS.replace("{20}", "{1000}")).graph.tensors["sel"].shape == (600, 3)
    assert load(NMS.replace(", mx, iou, th", "")).graph.tensors["sel"].shape == (0, 3)


@pytest.mark.parametrize(
    "options", [{"bounds": {"sel": 7}}, {"bounds": {"sel.0": 7}}, {"dims": {"sel.0": 7}}, {"dims": {"nsel": 7}}]
)
def test_a_bound_is_given_for_the_tensor_its_axis_or_the_symbol_of_what_follows(
    options: dict[str, dict[str, int]], load: Load
) -> None:
    loaded = load(NMS, **options)
    assert planned(loaded, ["sel", "y"]) == {"sel": (7, 3), "y": (7, 4)}
    again = load(NMS, dims=loaded.dims)
    assert again.graph == loaded.graph or planned(again, ["sel", "y"]) == planned(loaded, ["sel", "y"])


def test_a_bound_above_the_operators_own_limit_changes_nothing(load: Load) -> None:
    assert load(NMS, bounds={"sel": 500}).graph.tensors["sel"].shape == (120, 3)


@pytest.mark.parametrize(
    ("body", "name", "shape"),
    [
        ("u, i = TopK <axis: int = 1> (x, k)", "u", (4, 3, 5)),
        ("u, i = TopK (x, k)", "u", (4, 8, 3)),
        ("u = Compress <axis: int = -2> (x, c)", "u", (4, 3, 5)),
        ("u = Unique <axis: int = -1> (x)", "u", (4, 8, 3)),
        ("u = Slice (x, k, k)", "u", (3, 8, 5)),
        ("u = Slice (x, k, k, one)", "u", (4, 3, 5)),
    ],
)
def test_a_bound_holds_for_the_axes_that_vary(body: str, name: str, shape: tuple[int, ...], load: Load) -> None:
    text = HEAD + f"""g (float[4,8,5] x, int64[1] k, bool[8] c) => (float[p,q,r] y) <int64[1] one = {{1}}> {{
 {body}
 y = Neg (u)
}}"""
    assert planned(load(text, bounds={name: 3}), [name, "y"]) == {name: shape, "y": shape}


def test_a_bound_for_what_is_known_is_an_error(load: Load) -> None:
    with pytest.raises(ModelLoadError, match="'gi' cannot be bounded: its size is known without"):
        load(NMS, bounds={"gi": 3})
    with pytest.raises(ModelLoadError, match="no dimension of the model, and no result of a node, is called 'ghost'"):
        load(NMS, bounds={"ghost": 3})
    with pytest.raises(ModelLoadError, match="bounded by 5 and by 6"):
        load(NMS, bounds={"sel": 6, "sel.0": 5})


@pytest.mark.parametrize(
    ("op", "operands", "attributes", "shapes"),
    [
        ("NonZero", [np.ones((3, 4), np.float32)], {}, [(2, 12)]),
        ("Compress", [np.ones((3, 4), np.float32), np.ones(2, bool)], {"axis": 0}, [(2, 4)]),
        ("Compress", [np.ones((3, 4), np.float32), np.ones(9, bool)], {}, [(9,)]),
        ("Unique", [np.ones((3, 4), np.float32)], {}, [(12,), (12,), (12,), (12,)]),
        ("Unique", [np.ones((3, 4), np.float32)], {"axis": 1}, [(3, 4), (4,), (4,), (4,)]),
        ("TopK", [np.ones((3, 4), np.float32), np.array([2])], {}, [(3, 4), (3, 4)]),
        ("Slice", [np.ones((3, 4), np.float32), np.array([0]), np.array([2]), np.array([1])], {}, [(3, 4)]),
    ],
)
def test_operators_limit_their_results(
    op: str, operands: list[Array], attributes: dict[str, int], shapes: list[tuple[int, ...]], load: Load
) -> None:
    names = [f"i{i}" for i in range(len(operands))]
    results = [f"o{i}" for i in range(len(shapes))]
    model = single(
        helper.make_node(op, names, results, **attributes), dict(zip(names, operands, strict=True)), {}, 17
    )
    loaded = load(model)
    assert list(planned(loaded, results).values()) == shapes
    assert any("planned for at most" in note for note in loaded.notes)


def test_what_follows_from_a_limit_and_does_not_fit_says_what_was_assumed(load: Load) -> None:
    model = HEAD + "g (float[4] x, float[3] z) => (float[?,?] y) { n = NonZero(x)\n f = Cast<to=1>(n)\n y = Add(f, z) }"
    with pytest.raises(ModelLoadError, match=r"assumed: node 'n' \(NonZero\): axis 1 of 'n' is planned for at most 4"):
        load(model)
    assert load(model, bounds={"n": 3}).graph.tensors["y"].shape == (1, 3)


def test_a_cache_of_unknown_length_is_the_buffer_or_what_is_stated(load: Load) -> None:
    text = (
        HEAD
        + """g (float[1,1,64] q, float[1,1,32] k, float[1,1,32] v, float[1,2,32,16] pk, float[1,2,32,16] pv,
   int32[1] sl, int32 tl) => (float[1,1,64] y, float[1,2,STATED,16] prk, float[1,2,STATED,16] prv) {
 y, prk, prv = com.microsoft.GroupQueryAttention <kv_num_heads = 2, num_heads = 4> (q, k, v, pk, pv, sl, tl)
}"""
    )
    loaded = load(text.replace("STATED", "total"))
    assert planned(loaded, ["y", "prk", "prv"]) == {"y": (1, 1, 64), "prk": (1, 2, 32, 16), "prv": (1, 2, 32, 16)}
    assert any("buffer that is updated in place" in note for note in loaded.notes)
    assert planned(load(text.replace("STATED", "33")), ["prk"]) == {"prk": (1, 2, 33, 16)}


def test_max_unpool_by_its_operand_or_by_rule(load: Load) -> None:
    text = (
        HEAD
        + """g (float[1,4,9,9] x) => (float[?,?,?,?] y) <int64[4] os = {1,4,9,9}> {
 m, i = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
 y = MaxUnpool <kernel_shape = [2, 2], strides = [2, 2]> (m, i, os)
}"""
    )
    assert planned(load(text), ["y"]) == {"y": (1, 4, 9, 9)}
    assert planned(load(text.replace(", os)", ")")), ["y"]) == {"y": (1, 4, 8, 8)}


def test_bounds_on_the_command_line(tmp_path: Path) -> None:
    onnx.save(onnx.parser.parse_model(NMS), tmp_path / "m.onnx")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}

    def cosma(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from cosma.cli import main; main()", *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    done = cosma("compile", "m.onnx", "--scratchpad", "64KiB", "--bound", "sel=7", "-o", "plan.json")
    assert done.returncode == 0, done.stderr
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert {t["name"]: t["bytes"] for t in plan["tensors"]}["y"] == 7 * 4 * 4
    assert plan["dims"] == {"sel.0": 7}
    assert cosma("check", "plan.json", "m.onnx").returncode == 0
    done = cosma("compile", "m.onnx", "--scratchpad", "64KiB")
    assert "axis 0 of 'sel' is planned for at most 120" in done.stderr
    done = cosma("compile", "m.onnx", "--scratchpad", "64KiB", "--json")
    assert "planned for at most 120" in json.loads(done.stdout)["assumptions"][0]
    done = cosma("inspect", "m.onnx")
    assert "is planned for at most 120" in " ".join(done.stdout.split())
    done = cosma("inspect", "m.onnx", "--bound", "sel")
    assert done.returncode == 2
    assert "--bound 'sel': write NAME=N" in done.stderr
