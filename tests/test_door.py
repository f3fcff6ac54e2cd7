"""What callers hand in is converted or refused by name, everywhere alike."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cosma
from cosma.accelerator.files import preset
from cosma.compiler import Limits, run_compile
from cosma.packing import Forbidden, Gap
from tests.planning import diamond


def chain(kind: Any = "input", size: Any = 64, **operator: Any) -> cosma.Graph:
    return cosma.Graph(
        [cosma.Tensor("x", size, kind), cosma.Tensor("a", size), cosma.Tensor("y", size, "output")],
        [
            cosma.Operator("first", "Relu", **({"inputs": ["x"], "outputs": ["a"]} | operator)),
            cosma.Operator("second", "Relu", ["a"], ["y"]),
        ],
    )


def test_text_stands_for_members_of_enumerations() -> None:
    graph = chain()
    assert graph == chain(cosma.TensorKind.INPUT)
    assert all(isinstance(tensor.kind, cosma.TensorKind) for tensor in graph.tensors.values())
    # A kind kept as text was no member: outputs were not stored and inputs not compulsory.
    assert graph.compulsory_bytes() == 128
    plan = cosma.compile(graph, cosma.Accelerator(scratchpad=1024), effort=0)
    assert (plan.traffic.total, plan.traffic.noncompulsory) == (128, 0)
    assert cosma.Violation("overlap", 3, "x").verdict is cosma.Verdict.OVERLAP  # type: ignore[arg-type]


def test_numbers_may_be_numpys_and_sizes_text() -> None:
    tensor = cosma.Tensor("x", np.int64(64), "input", "int8", np.array([8, 8]))
    assert (tensor.size_bytes, tensor.shape) == (64, (8, 8))
    assert all(type(n) is int for n in (tensor.size_bytes, *(tensor.shape or ())))
    assert cosma.Tensor("x", "16KiB").size_bytes == 16384
    assert cosma.Buffer("a", np.int32(0), np.int32(2), "1KiB", offset=np.uint8(64)).offset == 64
    assert cosma.Accelerator(scratchpad=np.int64(4096), alignment="16").alignment == 16
    packed = cosma.pack([cosma.Buffer("a", 0, 1, 8)], "1KiB", alignment=np.int64(16), seed=np.int16(3))
    assert packed.capacity == 1024
    plan = cosma.compile(chain(), cosma.Accelerator(scratchpad=1024), effort=np.float64(0), seed=np.int64(5))
    assert type(plan.solver["seed"]) is int
    assert type(plan.solver["effort"]) is float


def test_lists_and_generators_are_sequences() -> None:
    operator = cosma.Operator("o", "Add", (name for name in "xw"), ["y"], weights=iter(["k"]))
    assert (operator.inputs, operator.outputs, operator.weights) == (("x", "w"), ("y",), ("k",))
    assert cosma.Execute("o", ["x"]) == cosma.Execute("o", ("x",))
    plan = cosma.compile(chain(), cosma.Accelerator(scratchpad=1024), effort=0)
    again = dataclasses.replace(plan, instructions=list(plan.instructions))  # type: ignore[arg-type]
    assert again == plan


def test_presets_and_their_names_are_accelerators(tmp_path: Path) -> None:
    expected = preset("ethos-u65-mid").accelerator
    (tmp_path / "mine.toml").write_text("scratchpad = 4096\n")
    for given in ("ethos-u65-mid", preset("ethos-u65-mid"), cosma.Accelerator.preset("ethos-u65-mid")):
        assert cosma.compile(chain(), given, effort=0).accelerator == expected
    assert cosma.compile(chain(), tmp_path / "mine.toml", effort=0).accelerator.scratchpad == 4096
    assert cosma.Accelerator.preset("ethos-u65-mid", scratchpad="1MiB").scratchpad == 2**20
    assert cosma.find_accelerator(tmp_path / "mine.toml").accelerator.name == "mine"


X, Y = cosma.Tensor("x", 8, "input"), cosma.Tensor("y", 8, "output")
PLAN = cosma.compile(chain(), cosma.Accelerator(scratchpad=1024), effort=0)
SURROGATE = "\ud800"

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "kind": (lambda: cosma.Tensor("x", 1, "inputs"), "tensor 'x': kind must be one of input.*not 'inputs'"),
    "kind unhashable": (lambda: cosma.Tensor("x", 1, []), "tensor 'x': kind must be one of"),  # type: ignore[arg-type]
    "enumeration": (lambda: cosma.TensorKind("inputs"), "TensorKind is one of input"),
    "bool size": (lambda: cosma.Tensor("x", True), "tensor 'x': size_bytes must be a whole number, not True"),
    "numpy bool": (lambda: cosma.Tensor("x", np.True_), "size_bytes must be a"),  # type: ignore[arg-type]
    "float size": (lambda: cosma.Tensor("x", 1.0), "size_bytes must be a number of bytes"),  # type: ignore[arg-type]
    "NaN": (lambda: cosma.Tensor("x", float("nan")), "size_bytes must be a number"),  # type: ignore[arg-type]
    "no size": (lambda: cosma.Tensor("x", None), "size_bytes must be a number"),  # type: ignore[arg-type]
    "bad text": (lambda: cosma.Tensor("x", "lots"), "tensor 'x': size_bytes: cannot read 'lots'"),
    "negative": (lambda: cosma.Tensor("x", -1), "size_bytes: -1 is negative"),
    "huge": (lambda: cosma.Tensor("x", 2**54), "larger than is counted here .2.53"),
    "very huge": (lambda: cosma.Tensor("x", 10**6000), "an integer of 19932 bits"),
    "name": (lambda: cosma.Tensor(5, 1), "a tensor has the name 5"),  # type: ignore[arg-type]
    "surrogate": (lambda: cosma.Tensor(SURROGATE, 1), "half a surrogate pair"),
    "shape": (lambda: cosma.Tensor("x", 1, shape=(2, -1)), r"tensor 'x': shape\[1\]: -1 is negative"),
    "shape text": (lambda: cosma.Tensor("x", 1, shape="23"), "shape must be a sequence"),  # type: ignore[arg-type]
    "inputs text": (lambda: cosma.Operator("o", "Relu", "x", ["y"]), r"inputs must be a sequence of names.*\['x'\]"),
    "tensor as name": (lambda: cosma.Operator("o", "Relu", [X], ["y"]), r"inputs\[0\] must be text"),  # type: ignore[list-item]
    "macs": (lambda: cosma.Operator("o", "Relu", ["x"], ["y"], macs=1.5), "macs must be a whole"),  # type: ignore[arg-type]
    "operator as tensor": (
        lambda: cosma.Graph([X, cosma.Operator("o", "Relu", ["x"], ["y"])], []),  # type: ignore[list-item]
        r"graph: tensors\[1\] must be a Tensor, not Operator",
    ),
    "names for tensors": (lambda: cosma.Graph("xy", []), "tensors must be a sequence"),  # type: ignore[arg-type]
    "graph of None": (lambda: cosma.Graph(None, None), "tensors must be a sequence, not None"),  # type: ignore[arg-type]
    "graph name": (lambda: cosma.Graph([], [], 5), "graph: name must be text"),  # type: ignore[arg-type]
    "unknown tensor": (lambda: chain(inputs=["z"]), "reads 'z', not a tensor"),
    "look up": (lambda: chain().operator("z"), "has no operator 'z'"),
    "look up tensor": (lambda: chain().consumers("z"), "has no tensor 'z'"),
    "dtype": (lambda: chain().with_dtype("int7"), "element type 'int7' is unknown"),
    "sum": (lambda: chain(size=2**52), "more than cosma counts .* the largest is 'x' with 4503599627370496"),
    "scratchpad": (lambda: cosma.Accelerator(scratchpad=1.5), "scratchpad must be a number"),  # type: ignore[arg-type]
    "alignment": (lambda: cosma.Accelerator(scratchpad=64, alignment=2**31), "alignment is 2147483648, larger"),
    "reserved": (lambda: cosma.Accelerator(scratchpad=64, reserved="64"), "reserved leave nothing"),
    "flag": (lambda: cosma.Accelerator(scratchpad=64, in_place="no"), "true or false, not 'no'"),  # type: ignore[arg-type]
    "unknown field": (lambda: cosma.Accelerator(scratchpad=64).replace(banks=3), "unknown field 'banks'"),
    "preset": (lambda: cosma.Accelerator.preset("tpu"), "'tpu' is neither a preset"),
    "accelerator": (lambda: cosma.compile(chain(), 4096), "must be an Accelerator.*not 4096"),  # type: ignore[arg-type]
    "size as accelerator": (lambda: cosma.compile(chain(), "4KiB"), r"write Accelerator\(scratchpad='4KiB'\)"),
    "model": (lambda: cosma.compile(5, "nvdla-small"), "the model .* must be a LoadedModel, not 5"),  # type: ignore[arg-type]
    "path": (lambda: cosma.load_plan("a\0b"), "names no file"),
    "descriptor": (lambda: cosma.load_graph(0), "must be a path, not 0"),  # type: ignore[arg-type]
    "bytes": (lambda: cosma.load_onnx(b"m.onnx"), "must be a path"),  # type: ignore[arg-type]
    "dims": (lambda: cosma.load_onnx("m.onnx", dims={"N": 1.5}), r"dims\['N'\] must be a whole"),  # type: ignore[dict-item]
    "dims list": (lambda: cosma.load_onnx("m.onnx", dims=[1]), "dims must be a mapping"),  # type: ignore[arg-type]
    "effort": (lambda: cosma.compile(chain(), "nvdla-small", effort=float("nan")), "effort.*must be at least 0"),
    "effort text": (lambda: Limits(effort="9"), "effort.* must be a number"),  # type: ignore[arg-type]
    "gap": (lambda: Limits(gap=1), "gap.*less than 1"),
    "time": (lambda: Limits(time_limit_s=0), "more than 0"),
    "seed": (lambda: cosma.compile(chain(), "nvdla-small", seed=-1), "seed: -1 is negative"),
    "strategy": (lambda: cosma.compile(chain(), "nvdla-small", strategy=3), "strategy must be text"),  # type: ignore[arg-type]
    "starts": (lambda: cosma.compile(chain(), "nvdla-small", starts=PLAN), "starts .* must be a sequence"),  # type: ignore[arg-type]
    "start": (lambda: cosma.compile(chain(), "nvdla-small", starts=[3]), "start 1 .* must be a path"),  # type: ignore[list-item]
    "sink": (lambda: run_compile(chain(), "nvdla-small", sink=3), "sink must be callable"),  # type: ignore[arg-type]
    "address": (lambda: cosma.Load("x", "0x10"), "load: address must be a whole"),  # type: ignore[arg-type]
    "streamed": (lambda: cosma.Execute("o", "x"), "streamed must be a sequence of names"),
    "traffic": (lambda: cosma.Traffic(loaded=1.0), "traffic: loaded must be a whole"),  # type: ignore[arg-type]
    "instructions": (
        lambda: dataclasses.replace(PLAN, instructions=["load"]),  # type: ignore[arg-type]
        r"instructions\[0\] must be an instruction",
    ),
    "replayed": (lambda: cosma.replay("plan.json"), "the plan must be a Plan"),  # type: ignore[arg-type]
    "saved": (lambda: cosma.save_plan(chain(), "p.json"), "the plan must be a Plan"),  # type: ignore[arg-type]
    "visitor": (lambda: cosma.visit(PLAN, 3), "the visitor 3 has no method 'begin'"),  # type: ignore[arg-type]
    "buffer": (lambda: cosma.Buffer("a", 0, 1.5, 8), "buffer 'a': upper must be a whole"),  # type: ignore[arg-type]
    "gap of buffer": (lambda: Gap(0, 1, (1, 2, 3)), "window must be two numbers"),  # type: ignore[arg-type]
    "forbidden": (lambda: Forbidden(None, 3), "forbidden range: low must be"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_is_refused_by_name(case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises(cosma.CosmaError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"scratchpad": 32, "alignment": 64}, "the alignment of 64 bytes exceeds the scratchpad of 32"),
        ({"scratchpad": 1024, "reserved": 1000}, "1000 of 1024 bytes are reserved"),
        ({"scratchpad": 64}, "the smallest tensor takes 128 bytes, 64 are available"),
    ],
)
def test_streaming_everything_is_warned_of(fields: dict[str, Any], reason: str, tmp_path: Path) -> None:
    graph = chain(size=100)
    with pytest.warns(cosma.CosmaWarning, match=reason) as caught:
        cosma.compile(graph, cosma.Accelerator(**fields), effort=0)
    assert caught[0].filename == __file__
    cosma.save_graph(graph, tmp_path / "g.json")
    options = [text for name, value in fields.items() for text in (f"--{name}", str(value))]
    done = subprocess.run(
        [sys.executable, "-m", "cosma", "compile", str(tmp_path / "g.json"), *options, "--effort", "0"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0
    assert f"note: everything is streamed: {reason}" in done.stderr


def test_nothing_is_warned_of_where_a_tensor_fits() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cosma.compile(chain(), cosma.Accelerator(scratchpad=128), effort=0)


def test_reprs_are_short() -> None:
    report = cosma.replay(PLAN)
    result = run_compile(diamond(), cosma.Accelerator(scratchpad=4096), strategy="e1")
    packed = cosma.pack([cosma.Buffer(f"b{i}", 0, 1, 8) for i in range(200)], 4096)
    for record in (PLAN, PLAN.graph, report, result, packed):
        assert len(repr(record)) < 300
    assert repr(PLAN) == "Plan('graph', 2 operators, 4 instructions, 0 non-compulsory bytes, optimal)"


def test_networkx_sees_operators_and_tensors() -> None:
    nx = pytest.importorskip("networkx")
    graph = diamond()
    found = graph.to_networkx()
    assert list(found.nodes) == [o.name for o in graph.operators]
    assert nx.is_directed_acyclic_graph(found)
    edges = {(u, v, key): facts["size_bytes"] for u, v, key, facts in found.edges(keys=True, data=True)}
    assert edges == {
        (graph.producer(t.name), consumer, t.name): t.size_bytes
        for t in graph.tensors.values()
        if graph.producer(t.name)
        for consumer in graph.consumers(t.name)
    }
    assert set(found.graph["tensors"]) == set(graph.tensors)
    assert found.graph["tensors"]["x"]["kind"] == "input"
    first = graph.operators[0]
    assert found.nodes[first.name]["type"] == first.type
    assert found.nodes[first.name]["inputs"] == first.inputs
