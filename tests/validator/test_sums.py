"""Sums by steps: what the judge refuses of them, and that the rest is right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

import cosma
from cosma.execute import run_plan
from cosma.graph import Accumulation, Operator
from cosma.plan import Plan
from cosma.plan.file import plan_from_json, plan_to_json
from cosma.rewrite.tiling import REDUCED, Tiling
from tests.execute.networks import Maker
from tests.validator.test_tiles import changed, verdicts


def chain_network(path: Path) -> Path:
    m = Maker()
    m.add("Conv", ["x", m.weight("w", 6, 8, 3, 3), m.weight("b", 6)], "c", pads=[1, 1, 1, 1])
    m.add("Relu", ["c"], "r")
    m.add("Reshape", ["r", m.constant("shape", np.array([6, 36], np.int64))], "f")
    m.add("Gemm", ["f", m.weight("w2", 36, 10), m.weight("b2", 10)], "g", beta=0.5)
    m.add("MatMul", ["g", m.weight("w3", 10, 7)], "y")
    return m.save(path, {"x": (1, 8, 6, 6)}, ["y"])




@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    path = chain_network(tmp_path_factory.mktemp("sums") / "net.onnx")
    loaded = cosma.load_onnx(path)
    names = {o.type: o.name for o in loaded.graph.operators}
    tiling = Tiling(
        {names["Conv"]: ((), (3,), (2, 4), ()), names["Gemm"]: ((3,), (4,)), names["MatMul"]: ((), (5,))},
        sums={names["Conv"]: (3, 5), names["Gemm"]: (10, 20), names["MatMul"]: (4,)},
        loops={names["Gemm"]: (0, REDUCED, 1)},
    )
    accelerator = cosma.Accelerator(scratchpad="6KiB", weights="scratchpad", operands="resident")
    return path, cosma.compile(loaded, accelerator, tiling=tiling, effort=0.5)


def steps(plan: Plan) -> list[Operator]:
    return [o for o in plan.graph.operators if o.accumulation is not None]


def test_sums_by_steps_are_valid_and_right(case: tuple[Path, Plan]) -> None:
    pytest.importorskip("onnxruntime")
    path, plan = case
    assert len(steps(plan)) == 18 + 12 + 4
    assert verdicts(plan, path) == set()
    report = run_plan(plan, path)
    assert report.passed, (report.difference, report.untiled)
    assert sum(i.do == "allocate" and i.in_place_of is not None for i in plan.instructions) > 10


def test_plan_files_keep_the_steps(case: tuple[Path, Plan]) -> None:
    text = plan_to_json(case[1])
    again = plan_from_json(text)
    assert [o.accumulation for o in again.graph.operators] == [o.accumulation for o in case[1].graph.operators]
    assert plan_to_json(again) == text
    assert verdicts(again, case[0]) == set()


def test_graphs_as_json_keep_the_steps(case: tuple[Path, Plan]) -> None:
    from cosma.graph.json_format import graph_from_json, graph_to_json

    assert graph_from_json(graph_to_json(case[1].graph)) == case[1].graph


@pytest.mark.parametrize("kind", ["Conv", "Gemm", "MatMul"])
@pytest.mark.parametrize("change", ["shift", "twice", "short"])
def test_another_interval_is_refused(case: tuple[Path, Plan], kind: str, change: str) -> None:
    path, plan = case
    step = next(o for o in steps(plan) if o.type == kind and o.accumulation and o.accumulation.sums)
    assert step.accumulation is not None
    start, stop = step.accumulation.start, step.accumulation.stop
    span = {"shift": (start + 1, stop + 1), "twice": (0, stop), "short": (start, stop - 1)}[change]
    wrong = replace(step, accumulation=Accumulation(*span, step.accumulation.sums))
    assert verdicts(changed(plan, lambda o: wrong if o is step else o), path)


def test_sums_of_another_region_are_refused(case: tuple[Path, Plan]) -> None:
    """Two steps that swap what they add to: each still reads a partial sum of the right size, of the wrong region."""
    path, plan = case
    last = [o for o in steps(plan) if o.type == "Conv" and o.name.endswith("step 3 of 3")]
    one, other = (o for o in last if o.tile and o.tile.start[2] in (0, 2) and not o.tile.start[1])

    def swapped(operator: Operator) -> Operator:
        if operator not in (one, other):
            return operator
        source = other if operator is one else one
        assert source.accumulation is not None
        assert operator.accumulation is not None
        gone = operator.accumulation.sums
        inputs = (*(n for n in operator.inputs if n not in gone), *source.accumulation.sums)
        return replace(operator, inputs=inputs,
                       accumulation=replace(operator.accumulation, sums=source.accumulation.sums))  # fmt: skip

    assert "tiles-wrong" in verdicts(changed(plan, swapped), path)


@pytest.mark.parametrize("kind", ["Conv", "Gemm"])
def test_a_bias_left_out_is_refused(case: tuple[Path, Plan], kind: str) -> None:
    path, plan = case
    first = next(o for o in steps(plan) if o.type == kind and o.accumulation and not o.accumulation.sums)
    for weight in first.weights:
        less = replace(first, weights=tuple(w for w in first.weights if w != weight))
        found = verdicts(changed(plan, lambda o, less=less: less if o is first else o), path)
        assert found & {"region-unread", "model-mismatch"}, weight


def test_a_partial_sum_read_elsewhere_is_refused(case: tuple[Path, Plan]) -> None:
    path, plan = case
    step = next(o for o in steps(plan) if o.accumulation and o.accumulation.sums)
    assert step.accumulation is not None
    reader = plan.graph.operators[-1]
    more = replace(reader, inputs=(*reader.inputs, step.accumulation.sums[0]))
    assert verdicts(changed(plan, lambda o: more if o is reader else o), path) & {"tiles-wrong", "operand-absent"}


def test_partial_sums_narrower_than_their_result_are_refused(case: tuple[Path, Plan]) -> None:
    path, plan = case
    step = next(o for o in steps(plan) if o.accumulation and o.accumulation.sums)
    assert step.accumulation is not None
    name = step.accumulation.sums[0]
    wrong = changed(plan, tensor=lambda t: replace(t, size_bytes=t.size_bytes // 2) if t.name == name else t)
    assert "tiles-wrong" in verdicts(wrong, path)


def test_integer_sums_are_equal(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    m = Maker()
    m.add("MatMulInteger", ["x", m.constant("w", m.rng.integers(-128, 127, (24, 10)).astype(np.int8))], "y")
    path = m.save(tmp_path / "integers.onnx", {"x": (9, 24)}, ["y"])
    import onnx

    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    onnx.save(model, path)
    loaded = cosma.load_onnx(path)
    (operator,) = loaded.graph.operators
    tiling = Tiling({operator.name: ((4,), (5,))}, sums={operator.name: (7, 16)})
    accelerator = cosma.Accelerator(scratchpad="1KiB", weights="scratchpad", operands="resident")
    plan = cosma.compile(loaded, accelerator, tiling=tiling, effort=0)
    report = run_plan(plan, path)
    assert report.passed
    assert all(output.largest == 0 for output in report.untiled)
    assert verdicts(plan, path) == set()


def test_quantised_operators_have_no_partial_sums(tmp_path: Path) -> None:
    from tests.execute.networks import FAMILIES

    path = FAMILIES["quantised"](tmp_path / "net.onnx")
    loaded = cosma.load_onnx(path)
    joined = next(o for o in loaded.graph.operators if "Conv" in o.type and "QuantizeLinear" in o.type)
    with pytest.raises(cosma.InputError, match="chain of partial sums"):
        cosma.compile(loaded, cosma.Accelerator(scratchpad="64KiB"), tiling=Tiling(sums={joined.name: (1,)}), effort=0)


@pytest.mark.parametrize("kind", ["Cast", "Greater"])
def test_sums_before_another_element_type_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A partial sum as wide as what it becomes would hold a quarter of the numbers summed."""
    monkeypatch.setattr("cosma.access.operator._RETYPING", frozenset())  # as another tool might plan
    m = Maker()
    m.add("MatMul", ["x", m.weight("w", 16, 16)], "m")
    if kind == "Cast":
        m.add("Cast", ["m"], "y", to=TensorProto.INT8)
    else:
        m.add("Greater", ["m", m.constant("k", np.array(0.5, np.float32))], "y")
    path = m.save(tmp_path / "narrow.onnx", {"x": (8, 16)}, ["y"])
    loaded = cosma.load_onnx(path)
    tiling = Tiling({loaded.graph.operators[0].name: ((4,), ())}, sums={loaded.graph.operators[0].name: (8,)})
    accelerator = cosma.Accelerator(
        scratchpad=1100, alignment=1, weights="scratchpad", operands="resident", fusion="epilogue"
    )  # fmt: skip
    with pytest.raises(cosma.PlanInvalidError):
        cosma.compile(loaded, accelerator, tiling=tiling, effort=0)


def test_what_is_added_behind_views_is_no_part_of_the_sum(tmp_path: Path) -> None:
    """A skip connection that is a view, and views and a transposition that leave the elements of the sum in order."""
    m = Maker()
    m.add("Relu", ["x"], "a")
    m.add("Transpose", ["a"], "t", perm=[0, 2, 1, 3])
    m.add("Reshape", ["t", m.constant("rows", np.array([1, 6, 32], np.int64))], "v")
    m.add("MatMul", ["v", m.weight("w", 32, 32)], "p")
    m.add("Add", ["p", m.weight("b", 32)], "s")
    m.add("Reshape", ["s", m.constant("windows", np.array([1, 1, 6, 32], np.int64))], "s4")
    m.add("Transpose", ["s4"], "s5", perm=[1, 0, 2, 3])
    m.add("Reshape", ["s5", m.constant("back", np.array([1, 6, 32], np.int64))], "s6")
    m.add("Add", ["v", "s6"], "y")
    path = m.save(tmp_path / "net.onnx", {"x": (1, 4, 6, 8)}, ["y"])
    loaded = cosma.load_onnx(path)
    accelerator = cosma.Accelerator(scratchpad="8KiB", weights="scratchpad", operands="resident", fusion="epilogue")
    product = next(o.name for o in loaded.graph.operators if o.type == "MatMul")
    plan = cosma.compile(loaded, accelerator, tiling=Tiling({}, sums={product: (8, 20)}), effort=0.5)
    assert len(steps(plan)) == 3
    assert any(len(o.parts) > 1 for o in steps(plan))
    assert verdicts(plan, path) == set()
    assert run_plan(plan, path).passed


def test_a_partial_sum_of_another_shape_is_refused(case: tuple[Path, Plan]) -> None:
    path, plan = case
    step = next(o for o in steps(plan) if o.accumulation and o.accumulation.sums)
    assert step.accumulation is not None
    name = step.accumulation.sums[0]
    flat = changed(plan, tensor=lambda t: replace(t, shape=(t.size_bytes // 4,)) if t.name == name else t)
    assert "tiles-wrong" in verdicts(flat, path)


@pytest.mark.parametrize("other", [None, "Gemm"])
def test_tiles_that_list_what_they_do_not_compute_are_refused(case: tuple[Path, Plan], other: str | None) -> None:
    path, plan = case
    covers = {o.type: o.covers for o in plan.graph.operators}
    more = "nowhere" if other is None else covers[other][0]
    wrong = changed(plan, lambda o: replace(o, covers=(*o.covers, more)) if o.type == "Conv" else o)
    assert "model-mismatch" in verdicts(wrong, path)
