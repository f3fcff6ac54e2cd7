"""Constants: counted once however reached, folded where computed, left out where only shapes used them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cosma.frontend import LoadedModel, NodeFate
from cosma.graph import TensorKind

Load = Callable[..., LoadedModel]


def weights(loaded: LoadedModel) -> dict[str, int]:
    return {tensor.name: tensor.size_bytes for tensor in loaded.graph.of_kind(TensorKind.WEIGHT)}


def test_a_weight_is_counted_once_however_it_is_reached(load_text: Load) -> None:
    loaded = load_text("""
        g (float[4] x) => (float[4] y) <float[4] w = {1,2,3,4}, int64[1] s = {-1}> {
            a = Identity(w)
            b = Reshape(a, s)
            c = Mul(x, a)
            y = Add(c, b)
        }""")
    assert weights(loaded) == {"w": 16}
    assert [operator.weights for operator in loaded.graph.operators] == [("w",), ("w",)]


def test_what_a_constant_subgraph_yields_is_a_weight_of_its_own(load_text: Load) -> None:
    loaded = load_text("""
        g (float[1,3] x) => (float[1,2] y) {
            t = Transpose<perm = [1, 0]>(w)
            u = Neg(t)
            y = MatMul(x, u)
        }""", weights={"w": (1, (2, 3))})
    assert weights(loaded) == {"u": 24}
    assert [node.fate for node in loaded.nodes] == [NodeFate.FOLDED, NodeFate.FOLDED, NodeFate.OPERATOR]


def test_large_constant_subgraphs_are_sized_but_not_evaluated(load_text: Load) -> None:
    loaded = load_text("""
        g (float[1,65536] x) => (float[1,65536] y) <int64[2] s = {65536,65536}> {
            w = ConstantOfShape<value = float[1] {2.0}>(s)
            t = Transpose(w)
            y = MatMul(x, t)
        }""")
    assert weights(loaded) == {}
    assert any("shapes and attributes: 1 generated constant" in note for note in loaded.notes)


def test_shapes_are_no_traffic_but_scalars_are(load_text: Load) -> None:
    loaded = load_text("""
        g (float[2,8] x) => (float[1,3] y)
        <int64[1] s = {1}, int64[1] e = {4}, int64[1] a = {1}, float low = {0}, float high = {6}, int64[1] k = {0}> {
            b = Slice(x, s, e, a)
            c = Clip(b, low, high)
            y = ReduceSum(c, k)
        }""")
    assert weights(loaded) == {"low": 4, "high": 4}
    assert [operator.type for operator in loaded.graph.operators] == ["Slice", "Clip", "ReduceSum"]


def test_a_shape_computed_while_the_model_runs_is_an_operand(load_text: Load) -> None:
    loaded = load_text(
        "g (float[4] x, int64[1] s) => (float[2,2] y) { a = Relu(x)\n n = Abs(s)\n y = my.View(a, n) }",
        domains=', "my" : 1',
    )
    assert loaded.graph.operators[2].inputs == ("a", "n")
    assert loaded.graph.operators[2].type == "my.View"


def test_dequantized_constants_count_as_they_are_stored(load_text: Load) -> None:
    loaded = load_text("""
        g (float[1,16] x) => (float[1,8] y) <float s = {0.1}, int8 z = {0}> {
            f = DequantizeLinear(w, s, z)
            t = Transpose<perm = [1, 0]>(f)
            y = MatMul(x, t)
        }""", weights={"w": (3, (8, 16))})
    assert weights(loaded) == {"w": 128, "s": 4, "z": 1}
    assert loaded.graph.operators[0].weights == ("w", "s", "z")
    assert any("quantized" in note for note in loaded.notes)


def test_quantized_activations_stay_operators(load_text: Load) -> None:
    loaded = load_text("""
        g (float[4] x) => (float[4] y) <float s = {0.1}, uint8 z = {0}> {
            q = QuantizeLinear(x, s, z)
            y = DequantizeLinear(q, s, z)
        }""")
    assert [operator.type for operator in loaded.graph.operators] == ["QuantizeLinear", "DequantizeLinear"]
    assert loaded.graph.tensors["q"].size_bytes == 4


def test_sub_byte_tensors_are_packed(load_text: Load) -> None:
    loaded = load_text("g (int4[3,5] x) => (float[3,5] y) { y = Cast<to = 1>(x) }", opset=21)
    assert loaded.graph.tensors["x"].size_bytes == 8


def test_initializers_that_are_inputs_as_well_are_weights(load_text: Load) -> None:
    loaded = load_text(
        "g (float[1,2] x, float[2,2] w) => (float[1,2] y) <float[2,2] w = {1,2,3,4}> { y = MatMul(x, w) }",
        opset=9, ir_version=3,
    )  # fmt: skip
    assert weights(loaded) == {"w": 16}
    assert [tensor.name for tensor in loaded.graph.of_kind(TensorKind.INPUT)] == ["x"]


def test_random_operators_are_no_constants(load_text: Load) -> None:
    loaded = load_text("g (float[4] x) => (float[4] y) { r = RandomNormal<shape = [4]>()\n y = Add(x, r) }")
    assert [(operator.type, operator.inputs) for operator in loaded.graph.operators] == [
        ("RandomNormal", ()),
        ("Add", ("x", "r")),
    ]


def test_a_constant_output_moves_nothing(load_text: Load) -> None:
    loaded = load_text("g (float[2] x) => (float[2] y, float[2] c) <float[2] w = {1,2}> { y = Relu(x)\n c = Neg(w) }")
    assert weights(loaded) == {}
    assert any("'c' is a constant" in note for note in loaded.notes)


def test_a_constant_given_twice_to_one_operator_is_listed_once(load_text: Load) -> None:
    loaded = load_text("g (float[2] x) => (float[2] y) <float[2] w = {1,2}> { y = Sum(w, x, w, x) }")
    assert (loaded.graph.operators[0].inputs, loaded.graph.operators[0].weights) == (("x",), ("w",))


def test_shapes_that_come_from_nonzero_of_a_constant_are_known(load_text: Load) -> None:
    loaded = load_text("""
        g (float[2,3] x) => (float[?] y) <bool[2,3] mask = {1,0,1,1,0,0}> {
            n = NonZero(mask)
            t = Transpose(n)
            g = GatherND(x, t)
            y = Relu(g)
        }""")
    assert loaded.graph.tensors["y"].shape == (3,)
    assert weights(loaded) == {"mask": 6}


def test_every_kind_of_literal_is_read(load_text: Load) -> None:
    loaded = load_text("""
        g (float[2] x) => (float[2] y) {
            a = Constant<value_float = 2.0>()
            b = Constant<value_floats = [1.0, 2.0]>()
            i = Constant<value_int = 3>()
            c = Cast<to = 1>(i)
            j = Constant<value_ints = [2]>()
            v = Mul(x, a)
            w = Add(v, b)
            u = Mul(w, c)
            y = Reshape(u, j)
        }""")
    assert weights(loaded) == {"a": 4, "b": 8, "c": 4}


def test_sparse_constants_count_dense(load_proto: Load) -> None:
    values = numpy_helper.from_array(np.ones(2, np.float32), "c")
    indices = numpy_helper.from_array(np.array([0, 5], np.int64))
    literal = helper.make_node("Constant", [], ["c"], sparse_value=helper.make_sparse_tensor(values, indices, [8]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [8])
    graph = helper.make_graph([literal, helper.make_node("Add", ["x", "c"], ["y"])], "g", [x], [y])
    assert weights(load_proto(helper.make_model(graph))) == {"c": 32}


def test_the_content_of_external_data_is_never_looked_for(load_proto: Load) -> None:
    tensor = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../../../etc/passwd")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    model = helper.make_model(helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [tensor]))
    assert isinstance(model, onnx.ModelProto)
    assert weights(load_proto(model)) == {"w": 16}


def test_an_operand_that_gives_only_its_type_is_not_read(load_text: Load) -> None:
    loaded = load_text("""
        g (float[2,2] x, float16[8] t) => (float16[2,2] y, float[2,2] z, float[3] e)
        <double w = {2.0}, double[1] k = {3.0}> {
            y = CastLike(x, t)
            c = CastLike(w, x)
            eye = EyeLike(x)
            p = Mul(x, c)
            z = Add(p, eye)
            i = Constant<value = int64[4] {0,0,0,0}>()
            n = CastLike(k, i)
            e = Expand(s, n)
            s = Constant<value = float[1] {1.0}>()
        }""")
    assert [(operator.type, operator.inputs, operator.weights) for operator in loaded.graph.operators] == [
        ("CastLike", ("x",), ()),
        ("Mul", ("x",), ("c",)),
        ("Add", ("p",), ()),
    ]
    assert weights(loaded) == {"c": 4}
