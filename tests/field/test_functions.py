"""Local functions written for another opset than the model's."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from cosma.errors import ModelLoadError
from cosma.frontend.functions import inline_functions
from tests.field.conftest import Load, planned


def function_model(model_opset: int, function_opset: int, body: str, shape: str = "4,64", extra: str = "") -> str:
    return f"""<ir_version: 10, opset_import: ["" : {model_opset}, "lib" : 1]>
g (float[{shape}] x) => (float[?,?] y) {{
  p = lib.f (x)
  y = Relu (p)
}}
<domain: "lib", opset_import: ["" : {function_opset}{extra}]>
f (a) => (b) {{ {body} }}"""


@pytest.mark.parametrize(
    ("model_opset", "function_opset", "body", "types"),
    [
        (18, 15, "t = Transpose <perm = [1, 0]> (a) b = Flatten <axis = 1> (t)", ["Transpose", "Relu"]),
        (15, 18, "b = Neg (a)", ["Neg", "Relu"]),
        (18, 13, "b = ReduceMean <axes = [1], keepdims = 1> (a)", ["ReduceMean", "Relu"]),
        (13, 18, "k = Constant <value = int64[1] {1}> () b = ReduceMean (a, k)", ["ReduceMean", "Relu"]),
        (18, 10, "b = Clip <min = 0.25, max = 0.75> (a)", ["Clip", "Relu"]),
        (18, 9, "b = Pad <pads = [0, 0, 1, 1]> (a)", ["Pad", "Relu"]),
    ],
)
def test_a_function_of_another_opset_is_inlined(
    model_opset: int, function_opset: int, body: str, types: list[str], load: Load
) -> None:
    text = function_model(model_opset, function_opset, body)
    loaded = load(text)
    assert [operator.type for operator in loaded.graph.operators] == types
    x = np.random.default_rng(1).standard_normal((4, 64)).astype(np.float32)
    # ONNX Runtime inlines functions without regard to their opsets; ONNX's reference evaluator heeds them.
    right = ReferenceEvaluator(onnx.parser.parse_model(text)).run(None, {"x": x})[0]
    assert planned(loaded, ["y"]) == {"y": right.shape}
    inlined = inline_functions(onnx.parser.parse_model(text))
    assert not inlined.functions
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(inlined.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x})[0], right, rtol=1e-6)


def test_a_function_that_cannot_be_converted_is_refused_by_name(load: Load) -> None:
    text = function_model(18, 13, "b = ReduceMean <axes : ints = @axes> (a)").replace("f (a)", "f <axes> (a)")
    text = text.replace("lib.f (x)", "lib.f <axes = [1]> (x)")
    with pytest.raises(ModelLoadError, match=r"function lib\.f is written for opset 13 .* 18; ReduceMean differs"):
        load(text)
    text = function_model(18, 13, "b = If (a) <then_branch = t () => (p) { p = ReduceMean <axes = [1]> (a) }, "
                          "else_branch = e () => (q) { q = Neg (a) }>")  # fmt: skip
    with pytest.raises(ModelLoadError, match="a function with subgraphs cannot be converted"):
        load(text)


def test_a_domain_that_only_a_function_imports_is_imported(load: Load) -> None:
    text = function_model(18, 18, "b = com.microsoft.Gelu (a)", extra=', "com.microsoft" : 1')
    assert [operator.type for operator in load(text).graph.operators] == ["Gelu", "Relu"]


def test_a_function_called_by_a_function_of_another_opset(load: Load) -> None:
    text = function_model(18, 15, "b = lib.h (a)", extra=', "lib" : 1')
    text += '\n<domain: "lib", opset_import: ["" : 13]> h (a) => (b) { b = ReduceMean <axes = [1]> (a) }'
    loaded = load(text)
    assert planned(loaded, ["y"]) == {"y": (4, 1)}
