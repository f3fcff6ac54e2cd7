"""Models that would end the process or fill memory in ONNX's own shape inference are refused by name."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from cosma import load_onnx
from cosma.errors import ModelLoadError

HEAD = '<ir_version: 9, opset_import: ["" : 18]>\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("g (float[4,8] x) => (y) <float[8] s> { y, m, v = LayerNormalization<axis=9223372036854775807>(x, x) }",
         "axis 9223372036854775807 is no axis; tensors have at most 64"),
        ("g (float[4,8] x) => (y) { y, m, v = LayerNormalization<axis=3>(x, x) }", "axis 3 is outside 'x' float32"),
        ("g (float[4,8] x) => (a) { a, b = Split<num_outputs=2147483648>(x) }", "splits into 2147483648 pieces"),
        ("g (float[4,8] x) => (a) { a, b, c = Split<num_outputs=2>(x) }", "splits into 2 pieces and has 3 results"),
        ("g (float[1,3] x, int64[4611686018427387] s) => (y) { y = Expand(x, s) }", "laid out by 's' of 4611686018"),
        ("g (float[9007199254740993] x) => (y) { y = Relu(x) }", r"axis 0 of 'x' has size .* larger than cosma counts"),
        ("g (float[900000,2] x) => (y) { s = SplitToSequence(x) y = SequenceLength(s) }", "splits into 900000 pieces"),
        ("g (float[2] x) => (y, z) { y, z = Size(x) }", "has 2 results; Size gives at most 1"),
    ],
)  # fmt: skip
def test_refused_with_what_is_out_of_range(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx.parser.parse_model(HEAD + text).SerializeToString())
    with pytest.raises(ModelLoadError, match=message):
        load_onnx(path)


def test_no_version_of_operators_is_larger_than_a_machine_word(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("lib", 2**40)])
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelLoadError, match="imports version 1099511627776 of the domain 'lib'"):
        load_onnx(tmp_path / "model.onnx")


def test_bound_sizes_are_held_to_the_same_limit(tmp_path: Path) -> None:
    text = HEAD + 'g (float["N*N*N","M"] x) => (y) { y = Relu(x) }'
    (tmp_path / "model.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
    with pytest.raises(ModelLoadError, match=r"axis 0 of 'x' has size .*, larger than cosma counts"):
        load_onnx(tmp_path / "model.onnx", dims={"N": 2**31, "M": 1})
