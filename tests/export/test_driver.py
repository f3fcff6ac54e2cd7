"""The C header carried out by a C program with real copies, against a replay of the same plan on NumPy arrays."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

import cosma
from cosma.export import c_header
from cosma.plan.instructions import Allocate, Execute, Load, Store
from tests.onnx_files import save_network

HERE = Path(__file__).parent
Ints = NDArray[np.int32]

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here")

ONE = {
    "Neg": lambda a: -a, "Abs": np.abs, "Add": lambda a, b: a + b, "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b, "Max": np.maximum,
}  # fmt: skip


def network() -> cosma.Graph:
    """Long skips over a chain: what waits must leave, and elementwise results write over what dies."""
    tensors = [cosma.Tensor("x", 1024, "input"), cosma.Tensor("z", 1024, "input"), cosma.Tensor("w", 1024, "weight")]
    operators = []
    last = "x"

    def put(kind: str, *inputs: str, weights: tuple[str, ...] = (), output: bool = False) -> str:
        name = f"t{len(operators)}"
        tensors.append(cosma.Tensor(name, 1024, "output" if output else "intermediate"))
        operators.append(cosma.Operator(f"{kind}_{name}", kind, inputs, (name,), weights))
        return name

    skips = []
    for i in range(4):
        last = put("Neg" if i % 2 else "Abs", last)
        skips.append(last)
        last = put("Mul", last, weights=("w",))
    last = put("Max", last, "z")
    for skip in reversed(skips):
        last = put("Sub", last, skip)
    put("Add", last, "z", output=True)
    put("Neg", skips[0], output=True)
    return cosma.Graph(tensors, operators, "skips")


def _evaluate(graph: cosma.Graph, given: dict[str, Ints]) -> dict[str, Ints]:
    """The network without a plan."""
    held = dict(given)
    for operator in graph.operators:
        held[operator.outputs[0]] = ONE[operator.type](*(held[name] for name in operator.operands)).astype(np.int32)
    return held


def _replay(plan: cosma.Plan, given: dict[str, Ints]) -> dict[str, Ints]:
    """The plan on one NumPy array for the scratchpad, and one for each tensor off-chip."""
    memory = np.full(plan.accelerator.scratchpad // 4, -1, np.int32)
    outside, place = dict(given), dict[str, slice]()
    streams_weights = plan.accelerator.weights == "stream"

    def at(name: str, address: int) -> slice:
        return slice(address // 4, address // 4 + plan.graph.tensors[name].size_bytes // 4)

    for now in plan.instructions:
        match now:
            case Load(name, address):
                place[name] = at(name, address)
                memory[place[name]] = outside[name]
            case Allocate(name, address, _):
                place[name] = at(name, address)
            case Store(name):
                outside[name] = memory[place[name]].copy()
            case Execute(name, through, _):
                operator = plan.graph.operator(name)
                past = {*through, *(operator.weights if streams_weights else ())}
                read = [outside[t] if t in past else memory[place[t]] for t in operator.operands]
                (result,) = operator.outputs
                found = ONE[operator.type](*read).astype(np.int32)
                if result in past:
                    outside[result] = found
                else:
                    memory[place[result]] = found
    return outside


def _driven(plan: cosma.Plan, given: dict[str, Ints], folder: Path) -> tuple[list[Ints], list[int]]:
    """Outputs as tensors of the plan, then those that lie whole as roots; and bytes loaded, stored and streamed."""
    (folder / "plan.h").write_text(c_header(plan))
    program = folder / "driver"
    command = ["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsanitize=undefined,address"]
    subprocess.run([*command, "-I", str(folder), str(HERE / "driver.c"), "-o", str(program)], check=True)
    table = list(plan.graph.tensors.values())
    data = b"".join(given[t.name].tobytes() for t in table if t.kind in ("input", "weight"))
    quiet = {"ASAN_OPTIONS": "detect_leaks=0"}
    said = subprocess.run([program], input=data, check=True, capture_output=True, env=quiet)
    outputs = [t for t in (*table, *plan.graph.roots.values()) if t.kind == "output"]
    found, at = [], 0
    for tensor in outputs:
        found.append(np.frombuffer(said.stdout, np.int32, tensor.size_bytes // 4, at))
        at += tensor.size_bytes
    return found, np.frombuffer(said.stdout, np.uint64, 3, at).tolist()


def _kinds(plan: cosma.Plan) -> dict[str, bool]:
    """What a plan makes use of."""
    made = {name for operator in plan.graph.operators for name in operator.outputs}
    executes = [i for i in plan.instructions if isinstance(i, Execute)]
    return {
        "spills": any(isinstance(i, Load) and i.tensor in made for i in plan.instructions),
        "streams": any(set(i.streamed) & made for i in executes),
        "in place": any(isinstance(i, Allocate) and i.in_place_of for i in plan.instructions),
    }


@pytest.mark.parametrize("weights", ["stream", "scratchpad"])
def test_c_computes_what_numpy_does(weights: str, tmp_path: Path) -> None:
    graph = network()
    rng = np.random.default_rng(5)
    given = {
        t.name: rng.integers(-(2**31), 2**31, t.size_bytes // 4).astype(np.int32)
        for t in graph.tensors.values() if t.kind in ("input", "weight")
    }  # fmt: skip
    used: dict[str, bool] = {}
    for capacity in (2048, 3072, 4096):
        for strategy in ("auto", "e1"):
            accelerator = cosma.Accelerator(scratchpad=capacity, weights=weights)
            plan = cosma.compile(graph, accelerator, strategy=strategy, effort=0.1)
            used = {what: used.get(what, False) or so for what, so in _kinds(plan).items()}
            folder = tmp_path / f"{capacity}-{strategy}"
            folder.mkdir()
            outputs, traffic = _driven(plan, given, folder)
            replayed, plain = _replay(plan, given), _evaluate(graph, given)
            names = [t.name for t in graph.of_kind(cosma.TensorKind.OUTPUT)]
            for name, output in zip(names, outputs, strict=True):
                assert np.array_equal(output, replayed[name]), name
                assert np.array_equal(output, plain[name]), name
            assert traffic == [plan.traffic.loaded, plan.traffic.stored, plan.traffic.streamed]
    assert used == {"spills": True, "streams": True, "in place": True}


def test_a_plan_with_a_wrong_address_computes_something_else(tmp_path: Path) -> None:
    """The comparison can fail: two tensors at one address."""
    graph = network()
    given: dict[str, Any] = {
        t.name: np.arange(t.size_bytes // 4, dtype=np.int32) + 3
        for t in graph.tensors.values() if t.kind in ("input", "weight")
    }  # fmt: skip
    plan = cosma.compile(graph, cosma.Accelerator(scratchpad=8192, in_place=False), strategy="e1")
    broken = [
        Allocate(i.tensor, 0) if isinstance(i, Allocate) else Load(i.tensor, 0) if isinstance(i, Load) else i
        for i in plan.instructions
    ]
    from dataclasses import replace

    outputs, _ = _driven(replace(plan, instructions=tuple(broken)), given, tmp_path)
    plain = _evaluate(graph, given)
    names = [t.name for t in graph.of_kind(cosma.TensorKind.OUTPUT)]
    assert not all(np.array_equal(o, plain[n]) for n, o in zip(names, outputs, strict=True))


def _joins_and_states(folder: Path) -> Path:
    """Outputs that consist of others, along outer and inner axes; a cache that grows, and a state that is updated."""
    nodes = [
        helper.make_node("Neg", ["n"], ["new"]),
        helper.make_node("Concat", ["past", "new"], ["present"], axis=1),
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node("Neg", ["a"], ["b"]),
        helper.make_node("Add", ["b", "x"], ["c"]),
        helper.make_node("Concat", ["a", "c"], ["z"], axis=2),
        helper.make_node("Concat", ["b", "b2"], ["v"], axis=0),
        helper.make_node("Mul", ["a", "x"], ["b2"]),
        helper.make_node("Add", ["state", "c"], ["next"]),
    ]
    nodes[6], nodes[7] = nodes[7], nodes[6]
    shapes = {"past": [2, 3, 4], "n": [2, 1, 4], "x": [2, 4, 8], "state": [2, 4, 8]}
    outputs = ["present", "z", "v", "next"]
    return save_network(folder / "joins.onnx", nodes, shapes, outputs=outputs, element=TensorProto.INT32)


@pytest.mark.parametrize("scratchpad", [64, 512, 2048])
def test_joins_and_states_lie_off_chip_where_the_plan_says(scratchpad: int, tmp_path: Path) -> None:
    """Outputs that nobody writes are whole in their place off-chip, and states lie where their next values do."""
    model = _joins_and_states(tmp_path)
    rng = np.random.default_rng(3)
    shapes = {t.name: t.shape for t in cosma.load_onnx(model).graph.tensors.values() if t.kind == "input"}
    given = {name: rng.integers(-99, 99, shape).astype(np.int32) for name, shape in shapes.items()}
    accelerator = cosma.Accelerator(scratchpad=scratchpad, zero_copy=True, alignment=16)
    states = {"present": "past", "next": "state"}
    plan = cosma.compile(model, accelerator, effort=0.1, states=states, off_chip=True)
    assert cosma.replay(plan, model=model).valid
    assert {"present", "z"} <= set(plan.graph.joins)
    assert plan.off_chip is not None
    places = plan.off_chip.areas["outputs"].offsets
    assert places["state"] == places["next"]
    assert not {"new", "past", "a"} & {name for area in plan.off_chip.areas.values() for name in area.offsets}
    outputs, traffic = _driven(plan, {name: value.reshape(-1) for name, value in given.items()}, tmp_path)
    x = given["x"]
    a, c = np.abs(x), x - np.abs(x)
    expected = {
        "new": -given["n"], "present": np.concatenate([given["past"], -given["n"]], axis=1), "a": a, "b": -a, "c": c,
        "b2": a * x, "z": np.concatenate([a, c], axis=2), "v": np.concatenate([-a, a * x]), "next": given["state"] + c,
    }  # fmt: skip
    names = [t.name for t in (*plan.graph.tensors.values(), *plan.graph.roots.values()) if t.kind == "output"]
    assert {"present", "z", "v", "next"} <= set(names)
    for name, output in zip(names, outputs, strict=True):
        assert np.array_equal(output, expected[name].reshape(-1)), name
    assert traffic == [plan.traffic.loaded, plan.traffic.stored, plan.traffic.streamed]
