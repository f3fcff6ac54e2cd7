"""Sequences are resolved to their tensors."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cosma.errors import ModelLoadError
from cosma.frontend import LoadedModel
from cosma.graph import TensorKind

Load = Callable[..., LoadedModel]


def test_a_split_sequence_is_a_split_named_by_what_takes_it_apart(load_text: Load) -> None:
    loaded = load_text("""
        g (float[2,9] x) => (float[2,3] y) <int64 size = {3}, int64 i = {0}, int64 j = {2}> {
            s = SplitToSequence<axis = 1>(x, size)
            a = SequenceAt(s, i)
            b = SequenceAt(s, j)
            y = Add(a, b)
        }""")
    split, add = loaded.graph.operators
    assert (split.type, split.outputs, split.weights) == ("SplitToSequence", ("a", "s[1]", "b"), ())
    assert split.covers == ("s", "a", "b")
    assert add.inputs == ("a", "b")
    assert {t.size_bytes for t in loaded.graph.tensors.values() if t.kind is TensorKind.INTERMEDIATE} == {24}


def test_an_uneven_split_has_a_smaller_last_piece(load_text: Load) -> None:
    loaded = load_text("""
        g (float[7] x) => (float[1] y) <int64 size = {3}, int64 last = {-1}> {
            s = SplitToSequence(x, size)
            a = SequenceAt(s, last)
            y = Relu(a)
        }""")
    assert [loaded.graph.tensors[name].size_bytes for name in loaded.graph.operators[0].outputs] == [12, 12, 4]


def test_an_element_taken_twice_is_one_tensor(load_text: Load) -> None:
    loaded = load_text("""
        g (float[2,4] x) => (float[1,4] y) <int64 i = {0}> {
            s = SplitToSequence<axis = 0>(x)
            a = SequenceAt(s, i)
            b = SequenceAt(s, i)
            y = Mul(a, b)
        }""")
    assert loaded.graph.operators[1].inputs == ("a",)


def test_making_and_changing_a_sequence_moves_nothing(load_text: Load) -> None:
    loaded = load_text("""
        g (float[4] x, float[3] z) => (float[9] y, int64 n) <int64 i = {0}> {
            a = Relu(x)
            b = Neg(z)
            s = SequenceConstruct(a, b)
            t = SequenceInsert(s, b, i)
            u = SequenceErase(t, i)
            v = SequenceInsert(u, z)
            w = SequenceErase(v, i)
            c = SequenceAt(w, i)
            e = SequenceConstruct(c, z, z)
            y = ConcatFromSequence<axis = 0>(e)
            n = SequenceLength(e)
        }""")
    assert [operator.type for operator in loaded.graph.operators] == ["Neg", "ConcatFromSequence"]
    assert loaded.graph.operators[1].inputs == ("b", "z")
    assert "a" not in loaded.graph.tensors


@pytest.mark.parametrize(
    ("position", "order"), [(0, "zab"), (1, "azb"), (2, "abz"), (-1, "azb"), (-2, "zab"), (3, ""), (-3, "")]
)
def test_a_negative_position_counts_from_the_end_of_the_sequence_as_it_is(
    load_text: Load, position: int, order: str
) -> None:
    text = f"""
        g (float[4] a, float[4] b, float[4] z) => (float[12] y) <int64 i = {{{position}}}> {{
            s = SequenceConstruct(a, b)
            t = SequenceInsert(s, z, i)
            y = ConcatFromSequence<axis = 0>(t)
        }}"""
    if not order:
        with pytest.raises(ModelLoadError, match=f"position {position} is outside a sequence of 2"):
            load_text(text)
        return
    assert load_text(text).graph.operators[0].inputs == tuple(order)


def test_stacking_adds_an_axis(load_text: Load) -> None:
    loaded = load_text("""
        g (float[4] x) => (float[4,2] y) {
            a = Relu(x)
            s = SequenceConstruct(a, x)
            y = ConcatFromSequence<axis = -1, new_axis = 1>(s)
        }""")
    assert loaded.graph.tensors["y"].shape == (4, 2)


def test_an_output_that_is_a_sequence_is_its_tensors(load_text: Load) -> None:
    loaded = load_text("""
        g (float[4] x) => (seq(float[4]) s) {
            a = Relu(x)
            b = Neg(x)
            s = SequenceConstruct(a, b)
        }""")
    assert {tensor.name for tensor in loaded.graph.of_kind(TensorKind.OUTPUT)} == {"a", "b"}


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ("s = SequenceConstruct(x, x)\n y = SequenceAt(s, k)", "position 'k' is known only when the model runs"),
        ("s = SequenceConstruct(x, x)\n y = SequenceAt(s, two)", "position 2 is outside a sequence of 2"),
        ("s = SplitToSequence(x, k)\n y = SequenceAt(s, two)", "'k', are not known in advance"),
        ("s = SplitToSequence(x, parts)\n y = SequenceAt(s, two)", "which do not add up"),
        ("s = SequenceConstruct(x, z)\n y = ConcatFromSequence<axis = 0, new_axis = 1>(s)", "do not fit"),
        ("s = SequenceConstruct(x, z)\n y = Relu(s)", "not understood"),
    ],
)
def test_what_cannot_be_known_is_refused(nodes: str, message: str, load_text: Load) -> None:
    with pytest.raises(ModelLoadError, match=message):
        load_text(
            f"""g (float[4] x, float[3] z, int64 k) => (float[?] y)
            <int64 two = {{2}}, int64[2] parts = {{1,2}}> {{ {nodes} }}"""
        )
