"""Shapes follow exactly or are an error; what the model states is checked against what follows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto, helper

from cosma.errors import ModelLoadError
from cosma.frontend import LoadedModel

Load = Callable[..., LoadedModel]


def test_true_data_dependence_is_an_error_that_says_what_to_do(load_text: Load) -> None:
    message = r"node 'n' \(ConstantOfShape\).*only when the model runs.*value_info"
    with pytest.raises(ModelLoadError, match=message):
        load_text("g (int64[1] x) => (float[?] y) { n = ConstantOfShape(x)\n y = Abs(n) }")


def test_a_stated_shape_is_taken_where_none_follows(load_text: Load) -> None:
    loaded = load_text(
        "g (float[4] x) => (float[3,2] y) <float[3,2] a> { a = other.Thing(x)\n y = Relu(a) }", domains=', "other" : 1'
    )
    assert loaded.graph.tensors["a"].size_bytes == 24
    assert loaded.graph.operators[0].type == "other.Thing"


def test_a_data_dependent_dimension_can_be_bound_by_its_symbol(load_text: Load) -> None:
    loaded = load_text("g (float[4] x) => (int64[1,n] y) { y = NonZero(x) }", {"n": 3})
    assert loaded.graph.tensors["y"].shape == (1, 3)


@pytest.mark.parametrize("stated", ["float[5]", "float[2,2]", "double[4]", "int32[4]"])
def test_a_statement_that_contradicts_is_an_error_naming_both(stated: str, load_text: Load) -> None:
    with pytest.raises(ModelLoadError, match=r"states that 'a' is .* but node 'a' \(Relu\) yields float32\[4\]"):
        load_text(f"g (float[4] x) => (float[4] y) <{stated} a> {{ a = Relu(x)\n y = Neg(a) }}")


def test_a_wrong_output_type_is_an_error(load_text: Load) -> None:
    with pytest.raises(ModelLoadError, match=r"'y' is float32\[5\], but node 'y'"):
        load_text("g (float[4] x) => (float[5] y) { y = Relu(x) }")


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("g (float[4] x) => (float[4] y) { y = Conv(x) }", "has 1 operands; Conv takes 2 to 3"),
        ("g (float[4] x) => (float[4] y) { y = Relu(x, x) }", "has 2 operands; Relu takes 1"),
        ("g (float[4] x) => (float[4] y) { y, z = Relu(x) }", "has 2 results; Relu gives at most 1"),
        ("g (float[4] x) => (float[4] y) { y = Concat(x, x) }", "lacks the attribute 'axis'"),
        ("g (float[4] x, float[3,2] z) => (float[4] y) { y = MatMul(x, z) }", "Incompatible dimensions"),
        ("g (string[4] x) => (string[4] y) { y = Identity(x) }", "element type string"),
        ("g (float[4] x) => (float[4] y) { a = Nonsense(x)\n y = Relu(a) }", "no operator 'Nonsense' is known"),
        ("g (seq(float[4]) x) => (float[4] y) { y = ConcatFromSequence<axis = 0>(x) }", "of kind sequence_type"),
    ],
)
def test_nodes_that_do_not_fit_are_refused(graph: str, message: str, load_text: Load) -> None:
    with pytest.raises(ModelLoadError, match=message):
        load_text(graph)


def test_a_shape_that_needs_absent_content_says_so(load_proto: Load) -> None:
    shape = TensorProto(name="s", data_type=TensorProto.INT64, dims=[2], data_location=TensorProto.EXTERNAL)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Expand", ["x", "s"], ["y"])], "g", [x], [y], [shape])
    with pytest.raises(ModelLoadError, match="content of the constant 's', which is not in the file"):
        load_proto(helper.make_model(graph))


def test_a_constant_whose_content_does_not_fit_its_shape_is_an_error(load_proto: Load) -> None:
    shape = TensorProto(name="s", data_type=TensorProto.INT64, dims=[2], raw_data=b"\0" * 12)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Expand", ["x", "s"], ["y"])], "g", [x], [y], [shape])
    with pytest.raises(ModelLoadError, match="constant 's': its content does not fit"):
        load_proto(helper.make_model(graph))


def test_operators_defined_by_a_function_are_typed(load_text: Load) -> None:
    loaded = load_text("""
        g (float[2,3] x) => (float[?,?] y) <float[3] s = {1,1,1}> {
            a = MeanVarianceNormalization<axes = [0]>(x)
            b = Gelu(a)
            y = LayerNormalization(b, s)
        }""")
    assert [loaded.graph.tensors[name].shape for name in "aby"] == [(2, 3)] * 3


def test_normalised_groups_have_the_shape_of_their_operand(load_text: Load) -> None:
    loaded = load_text("""
        g (float[2,4,5] x) => (float[?,?,?] y) <float[4] s = {1,1,1,1}, float[4] b = {0,0,0,0}> {
            y = GroupNormalization<num_groups = 2>(x, s, b)
        }""")
    assert loaded.graph.tensors["y"].shape == (2, 4, 5)


@pytest.mark.parametrize(
    ("node", "shape"),
    [
        ("y = com.microsoft.FusedMatMul<transA = 1>(m, m)", (4, 3, 3)),
        ("y = com.microsoft.FusedMatMul<transB = 1>(m, m)", (4, 2, 2)),
        ("y = com.microsoft.FusedGemm<transB = 1>(a, a)", (5, 5)),
        ("y = com.microsoft.BiasGelu(a, v)", (5, 6)),
        ("y = com.microsoft.SkipLayerNormalization(a, a, v)", (5, 6)),
        ("y = com.microsoft.DynamicQuantizeMatMul(m, integers, scales)", (4, 2, 5)),
        ("y = com.microsoft.QLinearGlobalAveragePool(image, s, z, s, z)", (1, 4, 1, 1)),
        ("y = com.microsoft.QLinearGlobalAveragePool<channels_last = 1>(image, s, z, s, z)", (1, 1, 1, 8)),
        ("y = com.microsoft.EmbedLayerNormalization(ids, , words, positions, , v, v)", (2, 7, 6)),
        ("y = com.microsoft.Attention<num_heads = 1>(m, packed_qkv, bias)", (4, 2, 3)),
        ("y = com.microsoft.Attention<num_heads = 1, qkv_hidden_sizes = [2, 2, 5]>(m, packed_qkv, bias)", (4, 2, 5)),
        ("y = com.microsoft.MultiHeadAttention<num_heads = 1>(m, m, other)", (4, 2, 7)),
        ("y = com.microsoft.MatMulNBits<K = 6, N = 9, bits = 4, block_size = 16>(a, packed, scales)", (5, 9)),
        ("y = com.microsoft.FusedConv<pads = [1,1,1,1], activation = \"Relu\">(image, kernel)", (1, 7, 8, 8)),
    ],
)
def test_fused_operators_of_onnx_runtime_are_typed(node: str, shape: tuple[int, ...], load_text: Load) -> None:
    rank = ",".join("?" * len(shape))
    loaded = load_text(
        f"g (float[4,2,3] m, float[5,6] a, float[1,4,8,8] image, int32[2,7] ids, float[4,2,7] other)"
        f" => (float[{rank}] y) <float s = {{1}}, float z = {{0}}> {{ {node} }}",
        domains=', "com.microsoft" : 1',
        weights={
            "v": (1, (6,)), "packed": (2, (9, 1, 8)), "scales": (1, (9,)), "kernel": (1, (7, 4, 3, 3)),
            "integers": (3, (3, 5)), "words": (1, (30, 6)), "positions": (1, (9, 6)), "packed_qkv": (1, (3, 9)),
            "bias": (1, (9,)),
        },
    )
    assert loaded.graph.tensors["y"].shape == shape


def test_quantized_operators_of_onnx_runtime_are_typed(load_text: Load) -> None:
    loaded = load_text(
        """g (uint8[2,3,4] x, uint8[4] b, uint8[5,4] m) => (uint8[?,?,?] y, uint8[?,?] q, float[?,?] f)
        <float s = {0.1}, uint8 z = {0}> {
            y = com.microsoft.QLinearAdd(x, s, z, b, s, z, s, z)
            q = com.microsoft.QGemm(m, s, z, w, s, z, , s, z)
            f = com.microsoft.QGemm(m, s, z, w, s, z)
        }""",
        domains=', "com.microsoft" : 1',
        weights={"w": (2, (4, 7))},
    )
    tensors = loaded.graph.tensors
    assert (tensors["y"].shape, tensors["y"].dtype) == ((2, 3, 4), "uint8")
    assert (tensors["q"].shape, tensors["q"].dtype) == ((5, 7), "uint8")
    assert (tensors["f"].shape, tensors["f"].dtype) == ((5, 7), "float32")


@pytest.mark.parametrize(
    ("node", "shape"),
    [
        ("y = Concat(x, x)", (2, 6, 4, 4)),
        ("y = Reshape<shape = [0, -1]>(x)", (2, 48)),
        ("y = Cast<to = \"DOUBLE\">(x)", (2, 3, 4, 4)),
        ("y = Pad<paddings = [0,0,1,1,0,0,2,2]>(x)", (2, 3, 7, 7)),
        ("y = Add<broadcast = 1, axis = 1>(x, c)", (2, 3, 4, 4)),
        ("y = Sum(x, x)", (2, 3, 4, 4)),
    ],
)
def test_the_oldest_opset_is_read(node: str, shape: tuple[int, ...], load_text: Load) -> None:
    kind, rank = "double" if "DOUBLE" in node else "float", ",".join("?" * len(shape))
    loaded = load_text(
        f"g (float[2,3,4,4] x) => ({kind}[{rank}] z) <float[3] c = {{1,2,3}}> {{ {node}\n z = Relu(y) }}", opset=1
    )
    assert loaded.aliases.get("y") == "x" or loaded.graph.tensors["y"].shape == shape
    assert loaded.graph.tensors["z"].shape == shape


@pytest.mark.parametrize("pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize(
    ("kernel", "attributes"),
    [
        (3, {"strides": [2, 3], "output_padding": [1, 2]}),
        (1, {"strides": [2, 3], "output_padding": [1, 1]}),
        (3, {"strides": [3, 3], "output_padding": [1, 2], "dilations": [1, 2]}),
        (3, {"strides": [2, 2]}),
    ],
)
def test_a_transposed_convolution_padded_by_name_has_the_size_that_onnx_runtime_yields(
    kernel: int, attributes: dict[str, list[int]], pad: str, load_proto: Load
) -> None:
    ort = pytest.importorskip("onnxruntime")
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], auto_pad=pad, kernel_shape=[kernel] * 2, **attributes)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 8, 5])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    w = helper.make_tensor("w", TensorProto.FLOAT, [1, 2, kernel, kernel], [1.0] * (2 * kernel * kernel))
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(helper.make_graph([node], "g", [x], [y], [w]), opset_imports=[opset], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.ones((1, 1, 8, 5), np.float32)})
    assert load_proto(model).graph.tensors["y"].shape == found.shape


def test_only_optional_results_can_be_left_out(load_text: Load) -> None:
    with pytest.raises(ModelLoadError, match=r"\(Split\) leaves out its result 0; Split has to yield it"):
        load_text("g (float[4] x) => (float[2] y) { , b = Split<num_outputs = 2>(x)\n y = Relu(b) }")
    loaded = load_text("g (float[1,2,4,4] x) => (float[1,2,4,4] y) { y, = MaxPool<kernel_shape = [1, 1]>(x) }")
    assert loaded.graph.tensors["y"].shape == (1, 2, 4, 4)


COUNTED = """g (float[12] x, float[1] row) => (float[] y)
    <int64[1] all = {{12}}, int64[1] one = {{1}}, int64 z = {{0}}, int64[1] z1 = {{0}}> {{
    n = NonZero(x)
    k = Shape<start = 1>(n)
    {nodes}
}}"""
REST = "m = Sub(all, k)\n"


@pytest.mark.parametrize(
    ("nodes", "most"),
    [
        ("t = Slice(x, k, all)\n y = Relu(t)", 12),
        ("t = Slice(x, one, k)\n y = Relu(t)", 11),
        ("t = Expand(row, k)\n y = Relu(t)", 12),
        ("h = Sub(k, one)\n t = Expand(row, h)\n y = Relu(t)", 11),
        ("f = Flatten<axis = 0>(n)\n h = Shape<start = 1>(f)\n p = ConstantOfShape(h)\n y = Add(p, row)", 12),
        # The first axis of what NonZero yields is the same in every run.
        ("r = Shape<end = 1>(n)\n h = Add(r, all)\n t = Expand(row, h)\n y = Relu(t)", 13),
        ("r = Shape(n)\n u = Gather(r, z)\n v = Unsqueeze(u, z1)\n t = Slice(x, v, all)\n y = Relu(t)", 11),
        # A shape as PyTorch's exporter expands to: -1 keeps a size.
        ("o = Neg(one)\n e = Equal(k, o)\n h = Where(e, one, k)\n t = Expand(row, h)\n y = Relu(t)", 12),
        ("e = Equal(k, one)\n h = Where(e, all, one)\n t = Expand(row, h)\n y = Relu(t)", None),
        (REST + "t = Expand(row, m)\n y = Relu(t)", None),
        (REST + "p = ConstantOfShape(m)\n y = Add(p, row)", None),
        (REST + "h = Mul(m, k)\n t = Expand(row, h)\n y = Relu(t)", None),
        (REST + "t = Slice(x, one, m)\n y = Relu(t)", 12),
    ],
)
def test_what_follows_from_a_size_known_only_at_run_time_is_planned_for_the_most(
    nodes: str, most: int | None, load_text: Load
) -> None:
    text = COUNTED.format(nodes=nodes)
    if most is None:
        with pytest.raises(ModelLoadError, match="known only when the model runs"):
            load_text(text)
        return
    loaded = load_text(text)
    assert loaded.graph.tensors[loaded.aliases.get("y", "y")].shape == (most,)


@pytest.mark.parametrize("dims", [None, {"n": 9}])
@pytest.mark.parametrize(
    "nodes",
    [
        """c = Less(k, all)\n y = If(c) <then_branch = a () => (float[] p) { p = Concat<axis = 0>(x, x) },
                                        else_branch = e () => (float[] q) { q = Relu(x) }>""",
        """m = Sub(all, k)\n y = Loop(m, , x) <body = b (int64 i, bool d, float[] s) => (bool e, float[] t) {
            e = Identity(d)\n t = Concat<axis = 0>(s, x) }>""",
        """c = Less(k, all)\n y = If(c) <then_branch = a () => (float[] p) { h = Shape<start = 1>(n)\n
                j = Sub(all, h)\n p = Expand(row, j) }, else_branch = e () => (float[] q) { q = Relu(x) }>""",
    ],
)
def test_no_branch_and_no_number_of_rounds_is_decided_by_a_size_known_only_at_run_time(
    nodes: str, dims: dict[str, int] | None, load_text: Load
) -> None:
    with pytest.raises(ModelLoadError, match=r"node 'y' \((If|Loop)\)"):
        load_text(COUNTED.replace("{nodes}", nodes).replace("{{", "{").replace("}}", "}"), dims)
