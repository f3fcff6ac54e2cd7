"""Anything at all handed to anything public either works or raises a CosmaError."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cosma
from cosma import packing, placement
from cosma.accelerator import files as accelerators
from cosma.compiler import Limits, run_compile
from cosma.export import c_header, instructions_csv, stays_csv, tflm_metadata
from cosma.graph.tensor import Part
from tests.planning import diamond

GRAPH = diamond()
PLAN = cosma.compile(GRAPH, cosma.Accelerator(scratchpad=384), effort=0, strategy="e1")
MODEL = cosma.LoadedModel(GRAPH, "diamond", None)
BUFFERS = [cosma.Buffer("a", 0, 2, 8), cosma.Buffer("b", 1, 3, 8)]


AFFINITY = placement.Affinity.from_tokens(np.array([[0, 1, 2], [1, 2, 3], [3, 0, 0]]))
TOPOLOGY = placement.Topology.grid(1, 2)


def _generator() -> Any:
    yield from ("x", "y")


#: Things that are right somewhere, so that checks behind the first are reached too.
RIGHT: list[Any] = [
    GRAPH, PLAN, MODEL, BUFFERS, PLAN.accelerator, PLAN.traffic, PLAN.certificate, PLAN.instructions,
    list(GRAPH.tensors.values()), GRAPH.operators, GRAPH.operators[0], GRAPH.tensors["x"], cosma.TensorKind.INPUT,
    "input", "resident", "16KiB", "ethos-u65-mid", "e1", "auto", "x", ["x"], ("x",), {"N": 1}, [2, 3], 64, 1, 0, 0.5,
    cosma.Verdict.OVERLAP, packing.Forbidden(0, 4), packing.Gap(0, 1), [packing.Gap(1, 2)], BUFFERS[0],
    {"a": 0, "b": 8},
    cosma.PlanVisitor(), Path("missing.json"), "missing.onnx", Part("Relu"), Limits(effort=0), cosma.replay(PLAN),
    AFFINITY, TOPOLOGY, placement.PlaceOptions(strategy="vanilla", bound="none"), np.array([[0, 1], [1, 0]]),
    {"alpha": 0.5}, packing.PackingStatus.PACKED, print,
]  # fmt: skip
WRONG: list[Any] = [
    None, True, np.True_, -1, 2**53, 2**64, 10**5000, 1.5, float("nan"), float("inf"), 1e308, 1j, "", "\ud800", "\0",
    b"x", [], [[]], {}, {1: 2}, {"x": None}, set(), object(), object, len, np.int64(3), np.float32(0.5),
    np.array([1, 2]), np.array(7), np.array("x"), np.datetime64("2020-01-01"),
    Path("."), iter([]), range(3), ["x", 5], [None], "lots",
    "-5KiB", "1e999999999", "\x1b[31m", [GRAPH], Exception, NotImplemented, ..., slice(3), memoryview(b"ab"),
]  # fmt: skip
JUNK = st.one_of(
    st.sampled_from(RIGHT),
    st.sampled_from(RIGHT),
    st.sampled_from(WRONG),
    st.builds(_generator),
    st.integers(),
    st.floats(),
    st.text(alphabet=st.characters(exclude_characters="/"), max_size=8),
    st.lists(st.integers(-9, 9) | st.text(alphabet="xyab", max_size=2), max_size=3),
    st.dictionaries(st.text(alphabet="xyN", max_size=2), st.integers(-3, 9), max_size=2),
)

CALLABLES: dict[str, Callable[..., Any]] = {
    name: value
    for name in cosma.__all__
    if callable(value := getattr(cosma, name))
    and not (inspect.isclass(value) and issubclass(value, BaseException | cosma.PlanVisitor))
    and name != "Instruction"
}
CALLABLES |= {name: getattr(packing, name) for name in ("Gap", "Forbidden", "minimise", "verify", "live_peak")}
CALLABLES |= {
    "run_compile": run_compile, "Limits": Limits, "Part": Part, "preset": accelerators.preset,
    "load_preset": accelerators.load_preset, "Accelerator.preset": cosma.Accelerator.preset,
    "Accelerator.replace": PLAN.accelerator.replace, "c_header": c_header, "instructions_csv": instructions_csv,
    "stays_csv": stays_csv, "tflm_metadata": tflm_metadata, "Graph.with_dtype": GRAPH.with_dtype,
    "Graph.operator": GRAPH.operator, "Graph.operator_index": GRAPH.operator_index, "Graph.consumers": GRAPH.consumers,
    "Graph.producer": GRAPH.producer, "Graph.predecessors": GRAPH.predecessors, "Graph.successors": GRAPH.successors,
}  # fmt: skip
CALLABLES |= {
    "PlaceOptions": placement.PlaceOptions, "place": placement.place, "Topology": placement.Topology,
    "Topology.grid": placement.Topology.grid, "Topology.tree": placement.Topology.tree,
    "Topology.uneven": placement.Topology.uneven, "Affinity.from_tokens": placement.Affinity.from_tokens,
    "Affinity.from_counts": placement.Affinity.from_counts, "score": placement.score,
    "read_placement": placement.read_placement,
    "lower_bound": placement.lower_bound, "write_placement": placement.write_placement,
}  # fmt: skip


@pytest.mark.parametrize("name", CALLABLES)
@settings(
    max_examples=40, deadline=10_000, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_it_works_or_raises_a_cosma_error(name: str, data: st.DataObject, tmp_path: Path) -> None:
    call = CALLABLES[name]
    positional, named = [], {}
    # A member of an enumeration is looked up by one value.
    enumeration = inspect.isclass(call) and issubclass(call, Enum)
    for parameter in inspect.signature((lambda value: None) if enumeration else call).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            if data.draw(st.booleans()):
                named[data.draw(st.sampled_from(["scratchpad", "alignment", "banks"]))] = data.draw(JUNK)
        elif parameter.default is parameter.empty:
            if parameter.kind is parameter.KEYWORD_ONLY:
                named[parameter.name] = data.draw(JUNK)
            else:
                junk = data.draw(JUNK)
                # Python's own look-up of a member compares arrays and writes integers before it asks the enumeration.
                beyond_us = enumeration and isinstance(junk, np.ndarray | int)
                positional.append(type(junk).__name__ if beyond_us else junk)
        elif data.draw(st.integers(0, 3)) == 0:
            named[parameter.name] = data.draw(JUNK)
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = call(*positional, **named)
        said = repr(result)
    except cosma.CosmaError as error:
        said = str(error)
    finally:
        os.chdir(here)
    assert len(said) < 5_000
