"""Bytes in: payloads are left out before parsing, and every kind of damage gets a message of its own."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from cosma.errors import ModelLoadError
from cosma.frontend import LoadedModel, load_onnx
from cosma.frontend.wire import PAYLOAD_LIMIT_BYTES, nesting_depth, slim_model

Load = Callable[..., LoadedModel]


def weighty(elements: int) -> onnx.ModelProto:
    """A model with payloads in every place they occur: raw, typed, in a Constant, sparse."""
    rng = np.random.default_rng(0)
    raw = numpy_helper.from_array(rng.random(elements, np.float32), "raw")
    typed = helper.make_tensor("typed", TensorProto.FLOAT, [elements], rng.random(elements).tolist())
    value = numpy_helper.from_array(rng.random(elements, np.float32), "value")
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(rng.random(elements, np.float32), "sparse"),
        numpy_helper.from_array(np.arange(elements, dtype=np.int64)),
        [elements],
    )
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [elements])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [elements])
    nodes = [
        helper.make_node("Constant", [], ["c"], value=value),
        helper.make_node("Sum", ["x", "raw", "typed", "c", "sparse"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], [raw, typed], sparse_initializer=[sparse])
    return helper.make_model(graph)


def test_large_payloads_are_left_out_and_small_ones_kept() -> None:
    big = PAYLOAD_LIMIT_BYTES
    slim = slim_model(memoryview(weighty(big).SerializeToString()))
    assert len(slim) < 2000
    model = onnx.ModelProto.FromString(slim)
    assert [list(tensor.dims) for tensor in model.graph.initializer] == [[big], [big]]
    assert list(model.graph.node[0].attribute[0].t.dims) == [big]
    small = weighty(4)
    assert onnx.ModelProto.FromString(slim_model(memoryview(small.SerializeToString()))) == small


def test_a_model_with_its_weights_inside_reads_like_one_without(load_proto: Load) -> None:
    loaded = load_proto(weighty(100_000))
    assert loaded.graph.operators[0].weights == ("raw", "typed", "c", "sparse")
    assert {t.size_bytes for t in loaded.graph.tensors.values()} == {400_000}


def test_a_file_beyond_two_gigabytes_is_read(tmp_path: Path) -> None:
    """Protobuf stops there; the weights are never handed to it."""
    elements = 540_000_000  # 2.16 GB of float32
    kind = f"float[{elements}]"
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 20]> g ({kind} x) => ({kind} y) {{ y = Add(x, w) }}'
    )
    tensor = TensorProto(name="w", data_type=1, dims=[elements])
    head = tensor.SerializeToString() + _tag(9, 2) + _number(4 * elements)  # raw_data, whose bytes follow as a hole
    graph = model.graph.SerializeToString()
    model.ClearField("graph")
    field = _tag(5, 2) + _number(len(head) + 4 * elements) + head
    whole = _tag(7, 2) + _number(len(graph) + len(field) + 4 * elements) + graph + field
    path = tmp_path / "large.onnx"
    with path.open("wb") as stream:
        stream.write(model.SerializeToString() + whole)
        stream.truncate(stream.tell() + 4 * elements)
    if path.stat().st_blocks * 512 > 10**8:
        pytest.skip("this file system keeps no holes")
    loaded = load_onnx(path)
    assert loaded.graph.tensors["w"].size_bytes == 4 * elements
    assert path.stat().st_size > 2**31


def _number(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _tag(number: int, wire_type: int) -> bytes:
    return _number(number << 3 | wire_type)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"hello, this is text\n", "plain text"),
        (b"\x00\x01\x02\x03", "is not an ONNX protobuf file"),
        (b"\x08\x0a", "it holds no graph"),
        (b"\xff" * 40, "is not an ONNX protobuf file"),
        (b"PK\x03\x04" + bytes(60), "not an ONNX protobuf"),
    ],
)
def test_what_is_no_model_says_so(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match=message):
        load_onnx(path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"missing\.onnx: no such file"):
        load_onnx(tmp_path / "missing.onnx")
    with pytest.raises(ModelLoadError, match="is a folder"):
        load_onnx(tmp_path)


def test_a_pipe_is_refused_unread() -> None:
    reader, writer = os.pipe()
    try:
        with pytest.raises(ModelLoadError, match="is a pipe, not a regular file"):
            load_onnx(f"/dev/fd/{reader}")
    finally:
        os.close(reader)
        os.close(writer)


def nested(depth: int) -> bytes:
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [], [])
    for _ in range(depth):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=graph)], "g", [], [])
    return helper.make_model(graph).SerializeToString()


def test_nesting_is_measured_without_recursion() -> None:
    assert nesting_depth(memoryview(nested(0))) == 3
    assert nesting_depth(memoryview(nested(4))) == 3 + 4 * 3


SAMPLE = """<ir_version: 10, opset_import: ["" : 20]>
g (float[1,3,8,8] x) => (float[1,4] y)
<float[4,3,3,3] w, float[4] b = {1,2,3,4}, int64[2] s = {1,-1}> {
    k = Constant<value = float[4,3,3,3] {""" + ",".join("0" * 108) + """}>()
    a = Conv<pads = [1,1,1,1]>(x, k, b)
    n = Shape(a)
    r = ReduceMean<keepdims = 0>(a, two)
    two = Constant<value_ints = [2,3]>()
    y = Reshape(r, s)
}"""


def test_damaged_files_never_do_worse_than_a_message(tmp_path: Path) -> None:
    """Cut anywhere, or with bytes changed at random: read, or refused with a ModelLoadError."""
    whole = onnx.parser.parse_model(SAMPLE).SerializeToString()
    rng = random.Random(5)
    damaged = [whole[:length] for length in range(0, len(whole), 7)]
    for _ in range(600):
        copy = bytearray(whole)
        for _ in range(rng.choice((1, 1, 2, 8))):
            copy[rng.randrange(len(copy))] = rng.randrange(256)
        damaged.append(bytes(copy))
    path = tmp_path / "m.onnx"
    outcomes = {"read": 0, "refused": 0}
    for content in damaged:
        path.write_bytes(content)
        try:
            load_onnx(path)
            outcomes["read"] += 1
        except ModelLoadError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 50
