"""Views move nothing: a result that is its operand is one tensor under its producer's name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cosma.frontend import LoadedModel, NodeFate
from cosma.graph import TensorKind

Load = Callable[..., LoadedModel]


def test_a_view_is_its_operand_and_is_covered_by_its_producer(load_text: Load) -> None:
    loaded = load_text("""
        g (float[2,3,4] x) => (float[24] y) <int64[1] flat = {-1}> {
            a = Relu(x)
            b = Reshape(a, flat)
            y = Sigmoid(b)
        }""")
    relu, sigmoid = loaded.graph.operators
    assert (relu.outputs, relu.covers) == (("a",), ("a", "b"))
    assert (sigmoid.inputs, sigmoid.weights, sigmoid.covers) == (("a",), (), ("y",))
    assert loaded.graph.tensors["a"].shape == (2, 3, 4)
    assert loaded.aliases == {"b": "a"}


def test_views_of_an_input_belong_to_the_first_operator_that_reads_them(load_text: Load) -> None:
    loaded = load_text("""
        g (float[2,3,4] x) => (float[24] y, float[24,1] z) <int64[1] flat = {-1}, int64[1] last = {1}> {
            a = Reshape(x, flat)
            c = Unsqueeze(a, last)
            y = Relu(a)
            z = Relu(c)
        }""")
    first, second = loaded.graph.operators
    assert first.covers == ("y", "a")
    assert second.covers == ("z", "c")
    assert first.inputs == second.inputs == ("x",)


def test_an_output_that_is_a_view_keeps_its_producers_name(load_text: Load) -> None:
    loaded = load_text("""
        g (float[4] x) => (float[2,2] y, float[4] z) <int64[2] shape = {2,2}> {
            a = Relu(x)
            y = Reshape(a, shape)
            z = Neg(a)
        }""")
    assert loaded.graph.tensors["a"].kind is TensorKind.OUTPUT
    assert "y" not in loaded.graph.tensors
    assert any("'y' is a view of 'a'" in note for note in loaded.notes)


def test_two_outputs_of_one_tensor_are_one(load_text: Load) -> None:
    loaded = load_text("g (float[4] x) => (float[4] y, float[4] z) { y = Relu(x)\n z = Identity(y) }")
    assert [tensor.name for tensor in loaded.graph.of_kind(TensorKind.OUTPUT)] == ["y"]
    assert any("'y' and 'z' are one tensor" in note for note in loaded.notes)


def test_a_view_from_input_to_output_reaches_no_operator(load_text: Load) -> None:
    loaded = load_text("g (float[4] x) => (float[2,2] y) <int64[2] s = {2,2}> { y = Reshape(x, s) }")
    assert loaded.graph.operators == ()
    assert [(node.fate, node.operator) for node in loaded.nodes] == [(NodeFate.VIEW, None)]


@pytest.mark.parametrize(
    "node",
    [
        "b = Identity(a)",
        "b = Cast<to = 1>(a)",
        "b = CastLike(a, x)",
        "b = Dropout(a)",
        "b = Expand(a, same)",
        "b = Pad(a, no_pad)",
        "b = Tile(a, ones)",
        "b = Transpose<perm = [1, 0, 2, 3]>(a)",
        "b = Slice(a, zeros, ends)",
        "b = Concat<axis = 1>(a)",
        "b = Sum(a)",
        "b = Max(a)",
        "b = Squeeze(a, axis)",
        "b = Flatten(a)",
    ],
)
def test_what_moves_no_data_is_a_view(node: str, load_text: Load) -> None:
    loaded = load_text(f"""
        g (float[1,2,3,4] x) => (float[?] y)
        <int64[4] same = {{1,2,3,4}}, int64[8] no_pad = {{0,0,0,0,0,0,0,0}}, int64[4] ones = {{1,1,1,1}},
         int64[4] zeros = {{0,0,0,0}}, int64[4] ends = {{9,9,9,9}}, int64[1] axis = {{0}}, int64[1] flat = {{-1}}> {{
            a = Relu(x)
            {node}
            c = Reshape(b, flat)
            y = Neg(c)
        }}""")
    assert [operator.type for operator in loaded.graph.operators] == ["Relu", "Neg"]
    assert loaded.graph.operators[0].covers == ("a", "b", "c")


@pytest.mark.parametrize(
    ("node", "kind"),
    [
        ("b = Transpose<perm = [0, 2, 1, 3]>(a)", "Transpose"),
        ("b = Transpose(a)", "Transpose"),
        ("b = Slice(a, starts, ends)", "Slice"),
        ("b = Slice(a, last, before, all, back)", "Slice"),
        ("b = Pad(a, crop)", "Pad"),
        ("b = Expand(a, more)", "Expand"),
        ("b = Concat<axis = 0>(a, a)", "Concat"),
        ("b, mask = Dropout(a, half, yes)", "Dropout"),
    ],
)
def test_what_moves_data_is_an_operator(node: str, kind: str, load_text: Load) -> None:
    loaded = load_text(f"""
        g (float[1,2,3,4] x) => (float[?] y)
        <int64[4] starts = {{0,0,1,0}}, int64[4] ends = {{9,9,9,9}}, int64[8] crop = {{0,0,1,0,0,0,-1,0}},
         int64[4] more = {{5,2,3,4}}, int64[1] last = {{-1}}, int64[1] before = {{-99}}, int64[1] all = {{2}},
         int64[1] back = {{-1}}, float half = {{0.5}}, bool yes = {{1}}, int64[1] flat = {{-1}}> {{
            a = Relu(x)
            {node}
            c = Reshape(b, flat)
            y = Abs(c)
        }}""")
    assert [operator.type for operator in loaded.graph.operators] == ["Relu", kind, "Abs"]


def test_an_unread_dropout_mask_is_dropped_and_a_read_one_is_kept(load_text: Load) -> None:
    unread = load_text("g (float[4] x) => (float[4] y) { a, mask = Dropout(x)\n y = Relu(a) }")
    assert [operator.type for operator in unread.graph.operators] == ["Relu"]
    read = load_text("g (float[4] x) => (float[4] y, bool[4] mask) { a, mask = Dropout(x)\n y = Relu(a) }")
    assert [(o.type, o.outputs) for o in read.graph.operators] == [("Dropout", ("a", "mask")), ("Relu", ("y",))]


def test_unread_results_of_an_operator_stay_unless_they_are_optional(load_text: Load) -> None:
    split = load_text("g (float[4] x) => (float[2] a) { a, b = Split<num_outputs = 2>(x) }")
    assert split.graph.operators[0].outputs == ("a", "b")
    gru = load_text("""
        g (float[5,1,4] x, float[1,12,4] w, float[1,12,4] r) => (float[1,1,4] h) {
            y, h = GRU<hidden_size = 4>(x, w, r)
        }
    """)
    assert gru.graph.operators[0].outputs == ("h",)


def test_dead_nodes_are_dropped_even_if_nothing_is_known_of_them(load_text: Load) -> None:
    loaded = load_text(
        "g (float[4] x, float[N] unused) => (float[4] y) { y = Relu(x)\n d = other.Thing(x) }", domains=', "other" : 1'
    )
    assert [node.fate for node in loaded.nodes] == [NodeFate.OPERATOR, NodeFate.DEAD]
    assert set(loaded.graph.tensors) == {"x", "y"}


def test_a_node_whose_shape_alone_is_used_is_folded(load_text: Load) -> None:
    loaded = load_text("""
        g (float[2,6] x) => (float[3,4] y) {
            a = Transpose(x)
            s = Shape(a)
            half = Constant<value = int64[1] {2}>()
            rows = Div(s, half)
            first = Constant<value = int64[1] {0}>()
            n = Gather(rows, first)
            rest = Constant<value = int64[1] {-1}>()
            shape = Concat<axis = 0>(n, rest)
            b = Relu(x)
            y = Reshape(b, shape)
        }""")
    assert [operator.type for operator in loaded.graph.operators] == ["Relu"]
    assert next(node.fate for node in loaded.nodes if node.output == "a") is NodeFate.FOLDED


def test_a_change_of_type_is_an_operator(load_text: Load) -> None:
    loaded = load_text("g (float[4] x) => (float16[4] y) { a = Cast<to = 1>(x)\n y = Cast<to = 10>(a) }")
    assert [(operator.type, operator.covers) for operator in loaded.graph.operators] == [("Cast", ("y", "a"))]
    assert loaded.graph.tensors["y"].size_bytes == 8
