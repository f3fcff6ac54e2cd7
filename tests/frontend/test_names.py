"""Operators have unique names, tensors keep theirs, every node is accounted for."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from onnx import TensorProto, helper

from cosma.frontend import LoadedModel, NodeFate
from cosma.frontend.nodes import readable

Load = Callable[..., LoadedModel]


def chain(names: list[str]) -> object:
    x = helper.make_tensor_value_info("t0", TensorProto.FLOAT, [2])
    y = helper.make_tensor_value_info(f"t{len(names)}", TensorProto.FLOAT, [2])
    nodes = [helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"], name=name) for i, name in enumerate(names)]
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y]))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        (["", ""], ["Relu_t1", "Relu_t2"]),
        (["a", "a", "a"], ["a", "a#2", "a#3"]),
        (["a#2", "a", "a"], ["a#2", "a", "a#3"]),
        (["a", "a", "a#2"], ["a", "a#3", "a#2"]),
        (["Relu_t2", ""], ["Relu_t2", "Relu_t2#2"]),
        (["/layer/0.weight:0", "é\n"], ["/layer/0.weight:0", "é\n"]),
    ],
)
def test_operator_names_are_unique_and_kept_where_they_are(
    given: list[str], expected: list[str], load_proto: Load
) -> None:
    assert [operator.name for operator in load_proto(chain(given)).graph.operators] == expected


def unreadable(text: str) -> bytes:
    """Undo :func:`readable` for a name that is not UTF-8."""
    pieces = re.split(r"(\\\\|\\x[0-9a-f]{2})", text)
    return b"".join(
        b"\\" if piece == "\\\\" else bytes([int(piece[2:], 16)]) if piece.startswith("\\x") else piece.encode()
        for piece in pieces
    )


def test_names_that_are_not_utf8_are_written_so_that_they_can_be_read_back() -> None:
    for raw in (b"\xff", b"a\\\xfe", b"\\xff\xff", "é".encode() + b"\x80"):
        assert unreadable(readable(raw)) == raw
    assert readable(b"\xff") == r"\xff"
    assert readable(b"\\\xff") == r"\\\xff"
    assert readable("plain\\xff") == "plain\\xff"


def test_operators_of_other_domains_are_written_with_theirs(load_text: Load) -> None:
    loaded = load_text(
        "g (float[4] x) => (float[4] y) <float[4] a> { a = ai.other.Relu(x)\n y = com.microsoft.QuickGelu(a) }",
        domains=', "ai.other" : 1, "com.microsoft" : 1',
    )
    assert [operator.type for operator in loaded.graph.operators] == ["ai.other.Relu", "QuickGelu"]


def test_a_plan_that_misses_a_node_is_found_out(load_text: Load) -> None:
    loaded = load_text("""
        g (float[4] x) => (float[2,2] z) <int64[2] s = {2,2}, float[2,2] w = {1,2,3,4}> {
            a = Relu(x)
            b = Reshape(a, s)
            c = Neg(w)
            z = Add(b, c)
            dead = Abs(x)
        }""")
    assert {node.output: node.fate for node in loaded.nodes} == {
        "a": NodeFate.OPERATOR, "b": NodeFate.VIEW, "c": NodeFate.FOLDED, "z": NodeFate.OPERATOR,
        "dead": NodeFate.DEAD,
    }  # fmt: skip
    assert [node.output for node in loaded.nodes if node.operator is not None] == ["a", "b", "z"]


def test_nodes_out_of_order_are_sorted_without_disturbing_the_rest(load_text: Load) -> None:
    loaded = load_text("g (float[4] x) => (float[4] d) { d = Neg(c)\n a = Relu(x)\n b = Abs(x)\n c = Add(a, b) }")
    assert [operator.outputs[0] for operator in loaded.graph.operators] == ["a", "b", "c", "d"]
