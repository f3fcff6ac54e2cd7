"""Dynamic dimensions are bound by name, or refused with every name and how to bind it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from onnx import TensorProto, helper

from cosma.errors import ModelLoadError
from cosma.frontend import LoadedModel

Load = Callable[..., LoadedModel]
TWO = "g (float[batch,seq] x, float[seq,?] w) => (float[batch,m] y) { y = MatMul(x, w) }"


def test_an_unbound_model_names_every_symbol_and_the_flags(load_text: Load) -> None:
    with pytest.raises(ModelLoadError) as caught:
        load_text(TWO)
    message = str(caught.value)
    assert "batch ('x' axis 0), seq ('x' axis 1), w.1 ('w' axis 1)" in message
    assert "--dim batch=1 --dim seq=1 --dim w.1=1" in message


def test_what_is_still_open_after_some_are_bound_is_named_alone(load_text: Load) -> None:
    with pytest.raises(ModelLoadError, match=r"dimensions: seq \('x' axis 1\); bind each, for example --dim seq=1$"):
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
    with pytest.raises(ModelLoadError, match=r"called 'N'; its dynamic dimensions are: none: every shape is fixed"):
        load_text("g (float[2] x) => (float[2] y) { y = Relu(x) }", {"N": 1})


@pytest.mark.parametrize("size", [-1, True, 1.5, "3"])
def test_a_size_is_a_whole_number(size: object, load_text: Load) -> None:
    with pytest.raises(ModelLoadError, match="give a whole number"):
        load_text(TWO, {"batch": size, "seq": 1, "w.1": 1})


def test_a_symbol_that_is_a_sum_of_bound_ones_follows(load_proto: Load) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["past"])
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["past + 2*now"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    concat = helper.make_node("Concat", ["x", "z"], ["y"], axis=0)
    model = helper.make_model(helper.make_graph([concat], "g", [x, z], [y]))
    assert load_proto(model, {"past": 7, "now": 2}).graph.tensors["y"].shape == (18,)
    assert load_proto(model, {"past": 7, "past + 2*now": 1}).graph.tensors["y"].shape == (8,)
    with pytest.raises(ModelLoadError, match=r"past \+ 2\*now \('z' axis 0\).*--dim past=1 --dim now=1$"):
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


def test_stated_shapes_are_checked_with_their_symbols_bound(load_text: Load) -> None:
    with pytest.raises(ModelLoadError, match=r"'y' is float32\[2,3\], but node 'y' \(Relu\) yields float32\[3,2\]"):
        load_text("g (float[n,m] x) => (float[m,n] y) { y = Relu(x) }", {"n": 3, "m": 2})
