"""Loops and scans: states and what is collected, with the shapes that ONNX Runtime yields."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from cosma.errors import ModelLoadError
from tests.field.conftest import Array, Load, executed, planned

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
CONST_TRIP = (
    HEAD
    + """g (float[4,8] x, float[4,8] xi) => (float[?,?] o, float[?,?,?] st) <int64 n = {5}> {
 o, st = Loop (n, "", x) <body = b (int64 it, bool c, float[4,8] acc) => (bool c2, float[4,8] acc2, float[4,8] sc) {
  acc2 = Add (acc, xi)
  c2 = Identity (c)
  sc = Relu (acc2)
 }>
}"""
)
WHILE = (
    HEAD
    + """g (float[4,16] x) => (float[d0,d1] y) <int64 big = {9223372036854775807}, bool cond = {1}, int64 z = {0},
  int64 one = {1}, int64 four = {4}, float k = {1.5}> {
 y, il = Loop (big, cond, x, z) <body = b (int64 it, bool ci, float[d0,d1] v, int64 i)
  => (bool co, float[d0,d1] vo, int64 io) {
  vo = Mul (v, k)
  io = Add (i, one)
  co = Less (io, four)
 }>
}"""
)
GROWING = (
    HEAD
    + """g (float[2,3] x) => (float[?,?] o, float[?] st) <int64 n = {4}> {
 o, st = Loop (n, "", x) <body = b (int64 it, bool c, float[?,?] acc) => (bool c2, float[?,?] acc2, float[] sc) {
  acc2 = Concat <axis = 0> (acc, x)
  c2 = Identity (c)
  sc = ReduceSum <keepdims = 0> (acc)
 }>
}"""
)
SCRIPTED = (
    HEAD
    + """g (float[1,6,16] x, float[1,16] h) => (float[a,b,c] y) <int64 n = {6}, bool cond = {1}> {
 s0 = SequenceEmpty <dtype = 1> ()
 hl, sl = Loop (n, cond, h, s0) <body = b (int64 it, bool ci, float[] hs, seq(float[]) sq)
  => (bool co, float[] ho, seq(float[]) so) {
  xt = Gather <axis = 1> (x, it)
  pre = Add (xt, hs)
  ho = Tanh (pre)
  so = SequenceInsert (sq, ho)
  co = Identity (ci)
 }>
 y = ConcatFromSequence <axis = 1, new_axis = 1> (sl)
}"""
)
SCAN = (
    HEAD
    + """g (float[3] h, float[2,5,3] x) => (float[?] hn, float[?,?,?] o) {
 hn, o = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],
  body = b (float[m] hi, float[k,m] xi) => (float[m] ho, float[k,m] oi) {
  oi = Add (hi, xi)
  ho = Tanh (hi)
 }> (h, x)
}"""
)
BRANCHES = (
    HEAD
    + """g (bool c, float[2,3] x) => (float[?,?] y) {
 y = If (c) <then_branch = t () => (float[a,b] p) { p = Relu (x) },
  else_branch = e () => (float[a,b] q) { q = Neg (x) }>
}"""
)


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        (CONST_TRIP, {"o": (4, 8), "st": (5, 4, 8)}),
        (WHILE, {"y": (4, 16)}),
        (GROWING, {"o": (10, 3), "st": (4,)}),
        (SCRIPTED, {"y": (1, 6, 16)}),
        (SCAN, {"hn": (3,), "o": (2, 5, 3)}),
        (BRANCHES, {"y": (2, 3)}),
    ],
    ids=["const_trip", "while", "growing", "scripted", "scan", "branches"],
)
def test_types_of_control_flow_follow_from_its_body(text: str, shapes: dict[str, tuple[int, ...]], load: Load) -> None:
    model = onnx.parser.parse_model(text)
    loaded = load(model)
    assert planned(loaded, list(shapes)) == shapes
    dice = np.random.default_rng(1)
    inputs: dict[str, Array] = {}
    for value in model.graph.input:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        inputs[value.name] = np.array(True) if not shape else dice.random(shape).astype(np.float32)
    assert executed(model, inputs)[0] == shapes


def test_a_loop_over_sequences_of_constant_length_is_unrolled(load: Load) -> None:
    loaded = load(SCRIPTED)
    types = [operator.type for operator in loaded.graph.operators]
    assert types.count("Tanh") == 6
    assert types[-1] == "ConcatFromSequence"
    assert "Loop" not in types


def test_what_an_unrolled_loop_collects_is_stacked(load: Load) -> None:
    text = SCRIPTED.replace("hl, sl = Loop", "hl, sl, st = Loop")
    text = text.replace("seq(float[]) so)", "seq(float[]) so, float[] cu)")
    text = text.replace("co = Identity (ci)", "co = Identity (ci)\n  cu = Neg (ho)")
    text = text.replace("(float[a,b,c] y)", "(float[a,b,c] y, float[?,?,?] st)")
    assert planned(load(text), ["st", "y"]) == {"st": (6, 1, 16), "y": (1, 6, 16)}


def test_a_loop_over_sequences_of_unknown_length_says_what_to_do(load: Load) -> None:
    text = SCRIPTED.replace("<int64 n = {6}, bool", "<bool").replace("float[1,16] h)", "float[1,16] h, int64 n)")
    with pytest.raises(ModelLoadError, match="carries a sequence through a number of rounds that is known only when"):
        load(text)


def test_a_state_that_changes_by_an_unknown_number_of_rounds_is_refused(load: Load) -> None:
    text = GROWING.replace("<int64 n = {4}>", "").replace("float[2,3] x)", "float[2,3] x, int64 n)")
    with pytest.raises(ModelLoadError, match=r"of its result 'o' only this is known: float32\[\?,3\]"):
        load(text)


def test_rounds_that_may_end_early_need_a_bound(load: Load) -> None:
    text = CONST_TRIP.replace("c2 = Identity (c)", "m = ReduceMax <keepdims = 0> (acc)\n  c2 = Cast <to = 9> (m)")
    with pytest.raises(ModelLoadError, match=r"'st'.*float32\[\?,4,8\].*give the most that 'st' can hold"):
        load(text)
    loaded = load(text, bounds={"st": 5})
    assert planned(loaded, ["o", "st"]) == {"o": (4, 8), "st": (5, 4, 8)}
