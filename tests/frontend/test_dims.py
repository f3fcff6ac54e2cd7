"""Dynamic dimensions are bound by name, or refused with every name and how to bind it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto, helper

from cosma.errors import ModelLoadError, UnboundDimensionError
from cosma.frontend import LoadedModel

Load = Callable[..., LoadedModel]
TWO = "g (float[batch,seq] x, float[seq,?] w) => (float[batch,m] y) { y = MatMul(x, w) }"


def test_an_unbound_model_names_every_symbol_and_the_flags(load_text: Load) -> None:
    with pytest.raises(UnboundDimensionError) as caught:
        load_text(TWO)
    message = str(caught.value)
    assert caught.value.symbols == ("batch", "seq", "w.1")
    assert "batch ('x' axis 0), seq ('x' axis 1), w.1 ('w' axis 1)" in message
    assert "batch=1, seq=1, w.1=1" in message


def test_what_is_too_long_for_an_expression_is_bound_by_its_axis(load_text: Load) -> None:
    model = f'g (float["{"N" + " + N" * 300}",4] x) => (float[m,4] y) {{ y = Relu(x) }}'
    with pytest.raises(UnboundDimensionError, match=r"dimensions: x\.0 \('x' axis 0\); bind each, for example x\.0=1$"):
        load_text(model)
    assert load_text(model, {"x.0": 3}).graph.tensors["y"].shape == (3, 4)


def test_what_is_still_open_after_some_are_bound_is_named_alone(load_text: Load) -> None:
    with pytest.raises(ModelLoadError, match=r"dimensions: seq \('x' axis 1\); bind each, for example seq=1$"):
        load_text(TWO, {"batch": 2, "w.1": 3})


def test_bound_dimensions_size_everything(load_text: Load) -> None:
    loaded = load_text(TWO, {"batch": 2, "seq": 5, "w.1": 3})
    assert loaded.graph.tensors["y"].shape == (2, 3)
    assert loaded.dims == {"batch": 2, "seq": 5, "w.1": 3}
    assert "bound batch=2, seq=5, w.1=3" in loaded.notes
    assert loaded.graph.operators[0].macs == 30


def test_an_unknown_name_is_refused_with_those_there_are(load_text: Load) -> None:
    with pytest.raises(ModelLoadError, match=r"called 'btach'; its dynamic dimensions are: batch, seq, w\.1"):
        load_text(TWO, {"btach": 2, "batch": 1, "seq": 1, "w.1": 1})
    with pytest.raises(ModelLoadError, match=r"called 'N'; every shape of it is fixed"):
        load_text("g (float[2] x) => (float[2] y) { y = Relu(x) }", {"N": 1})


@pytest.mark.parametrize("size", [-1, True, 1.5, "3"])
def test_a_size_is_a_whole_number(size: object, load_text: Load) -> None:
    with pytest.raises(ModelLoadError, match=r"dims\['batch'\].*(whole number|negative)"):
        load_text(TWO, {"batch": size, "seq": 1, "w.1": 1})


def test_a_symbol_that_is_a_sum_of_bound_ones_follows(load_proto: Load) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["past"])
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["past + 2*now"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    concat = helper.make_node("Concat", ["x", "z"], ["y"], axis=0)
    model = helper.make_model(helper.make_graph([concat], "g", [x, z], [y]))
    assert load_proto(model, {"past": 7, "now": 2}).graph.tensors["y"].shape == (18,)
    assert load_proto(model, {"past": 7, "past + 2*now": 1}).graph.tensors["y"].shape == (8,)
    with pytest.raises(ModelLoadError, match=r"past \+ 2\*now \('z' axis 0\).*for example past=1, now=1$"):
        load_proto(model)


def test_zero_is_a_size(load_text: Load) -> None:
    graph = "g (float[p,4] past, float[1,4] x) => (float[n,4] y) { y = Concat<axis = 0>(past, x) }"
    loaded = load_text(graph, {"p": 0})
    assert loaded.graph.tensors["past"].size_bytes == 0
    assert loaded.graph.operators[0].inputs == ("past", "x")


def test_symbols_of_unused_inputs_need_no_size(load_text: Load) -> None:
    loaded = load_text("g (float[2] x, float[N] u) => (float[2] y) { y = Relu(x) }")
    assert loaded.notes == ("unused graph inputs: u",)
    assert load_text("g (float[2] x, float[N] u) => (float[2] y) { y = Relu(x) }", {"N": 3}).graph.operators
    assert load_text("g (float[2] x, float[?] u) => (float[2] y) { y = Relu(x) }", {"u.0": 3}).graph.operators


def test_stated_shapes_are_checked_with_their_symbols_bound(load_text: Load) -> None:
    with pytest.raises(ModelLoadError, match=r"'y' is float32\[2,3\], but node 'y' \(Relu\) yields float32\[3,2\]"):
        load_text("g (float[n,m] x) => (float[m,n] y) { y = Relu(x) }", {"n": 3, "m": 2})


def _single(load_proto: Load, shape: list[int | str], dims: dict[str, int], *others: list[int | str]) -> LoadedModel:
    """A Relu of a tensor of that shape; further inputs state further dimensions."""
    values = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, s) for i, s in enumerate((shape, *others))]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    extra = [helper.make_node("Relu", [value.name], [f"r{value.name}"]) for value in values[1:]]
    outputs = [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None) for node in extra]
    nodes = [helper.make_node("Relu", ["x0"], ["y"]), *extra]
    return load_proto(helper.make_model(helper.make_graph(nodes, "g", values, [y, *outputs])), dims)


@pytest.mark.parametrize(
    ("text", "dims", "size"),
    [
        ("H/2 + 1/2", {"H": 7}, 4),
        ("H/2 + 1/2", {"H": 9}, 5),
        ("floor(s0/2)", {"s0": 8}, 4),
        ("floor(s0/2)", {"s0": 9}, 4),
        ("ceiling(s0/2)", {"s0": 9}, 5),
        ("floor(s0/2 - 1/2) + 1", {"s0": 8}, 4),
        ("s0//2", {"s0": 9}, 4),
        ("((s0 - 1)//2) + 1", {"s0": 9}, 5),
        ("2*s0**2 - s0", {"s0": 3}, 15),
        ("-s0**2 + 10", {"s0": 3}, 1),
        ("2**-1*s0", {"s0": 6}, 3),
        ("Max(1, s0, s1)", {"s0": 3, "s1": 4}, 4),
        ("min(s0, s1)", {"s0": 3, "s1": 4}, 3),
        ("Mod(s0, 4)", {"s0": 7}, 3),
        ("(s0 + 3) % 4", {"s0": 7}, 2),
        ("CeilToInt(IntTrueDiv(s0, 2))", {"s0": 7}, 4),
        ("ModularIndexing(s0, 2, 3)", {"s0": 10}, 2),
        ("0.5*s0", {"s0": 8}, 4),
        ("batch-size*2", {"batch-size": 3}, 6),
        ("batch-size - 1", {"batch-size": 3}, 2),
        ("n - 1", {"n": 1}, 0),
        ("N-1", {"N-1": 5}, 5),
        ("batch size", {"batch size": 5}, 5),
        ("N+", {"N+": 5}, 5),
        ("weird(N)", {"weird(N)": 5}, 5),
    ],
)
def test_expressions_are_rational_arithmetic(text: str, dims: dict[str, int], size: int, load_proto: Load) -> None:
    loaded = _single(load_proto, [text, 2], dims)
    assert loaded.graph.tensors["x0"].shape == (size, 2)
    assert loaded.dims == dims


@pytest.mark.parametrize(
    ("text", "dims", "message"),
    [
        ("H/2 + 1/2", {"H": 8}, r"'H/2 \+ 1/2' of 'x0', axis 0, comes to 9/2 with H=8"),
        ("n - 3", {"n": 2}, r"comes to -1 with n=2"),
        ("8/n", {"n": 0}, r"has no value with n=0: it divides by zero"),
        ("9**9**9**n", {"n": 9}, r"beyond all sizes"),
    ],
)
def test_a_value_that_is_no_size_is_an_error(text: str, dims: dict[str, int], message: str, load_proto: Load) -> None:
    with pytest.raises(ModelLoadError, match=message):
        _single(load_proto, [text, 2], dims)


def test_a_dash_is_part_of_a_name_unless_both_sides_are_symbols(load_proto: Load) -> None:
    assert _single(load_proto, ["batch-size", "seq-len"], {"batch-size": 2, "seq-len": 3}).graph.tensors[
        "x0"
    ].shape == (2, 3)
    with pytest.raises(UnboundDimensionError) as caught:
        _single(load_proto, ["batch-size", "seq-len"], {})
    assert caught.value.symbols == ("batch-size", "seq-len")
    loaded = _single(load_proto, ["total-past", 1], {"total": 7, "past": 3}, ["total", "past"])
    assert loaded.graph.tensors["x0"].shape == (4, 1)
    loaded = _single(load_proto, ["max-len-past", 1], {"max-len": 7, "past": 3}, ["max-len", "past"])
    assert loaded.graph.tensors["x0"].shape == (4, 1)


def test_the_hint_names_what_an_expression_is_made_of(load_proto: Load) -> None:
    with pytest.raises(UnboundDimensionError) as caught:
        _single(load_proto, ["floor(s0/2)", "Max(s1, s0)"], {})
    assert caught.value.symbols == ("s0", "s1")


@pytest.mark.parametrize("mark", ["?", "None", "-1", "*"])
def test_a_placeholder_is_bound_axis_by_axis(mark: str, load_proto: Load) -> None:
    with pytest.raises(UnboundDimensionError, match="names no size, so each axis is bound alone") as caught:
        _single(load_proto, [mark, 3, mark], {})
    assert caught.value.symbols == ("x0.0", "x0.2")
    loaded = _single(load_proto, [mark, 3, mark], {"x0.0": 1, "x0.2": 16})
    assert loaded.graph.tensors["y"].shape == (1, 3, 16)
    assert _single(load_proto, [mark, 3, mark], {mark: 4}).graph.tensors["y"].shape == (4, 3, 4)


def test_one_axis_of_a_named_symbol_can_be_bound_alone(load_proto: Load) -> None:
    with pytest.raises(UnboundDimensionError, match=r"an axis can be bound alone, as x0\.0; bind each, for .* n=1$"):
        _single(load_proto, ["n", "n"], {})
    assert _single(load_proto, ["n", "n"], {"x0.0": 2, "n": 5}).graph.tensors["y"].shape == (2, 5)
    with pytest.raises(ModelLoadError, match=r"'x0\.1' is bound to 4, but the model fixes axis 1 of 'x0' at 3"):
        _single(load_proto, ["n", 3], {"n": 1, "x0.1": 4})


def test_numpy_integers_are_sizes(load_text: Load) -> None:
    loaded = load_text("g (float[N] x) => (float[N] y) { y = Relu(x) }", {"N": np.int64(3)})
    assert loaded.graph.tensors["y"].shape == (3,)
