"""Plans with parts: what a mutation breaks is named, with the file of the model and without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper, parser

import cosma
from cosma import Accelerator, Plan
from cosma.errors import FormatError
from cosma.frontend import LoadedModel, load_onnx
from cosma.graph import Graph, Operator, Region, Tensor
from cosma.rewrite import cut_selections
from cosma.validator.needs import Needs
from cosma.validator.parts import check_parts

TEXT = """<ir_version: 10, opset_import: ["" : 20]>
g (float[4,64] x) => (float[64] y, float[2,32] z, float[4,64] w) <int64[2] s = {1,0}, int64[2] e = {3,32}>
{ h = Exp(x)
  three = Neg(minus)
  y = Gather(h, three)
  z = Slice(h, s, e)
  w = Relu(h) }"""


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[LoadedModel, Path, Plan]:
    path = tmp_path_factory.mktemp("parts") / "net.onnx"
    model = parser.parse_model(TEXT)
    model.graph.initializer.append(numpy_helper.from_array(np.array(-3, np.int64), "minus"))
    path.write_bytes(model.SerializeToString())
    loaded = load_onnx(path)
    plan = cosma.compile(cut_selections(loaded.graph).graph, Accelerator(scratchpad=8192, alignment=1), effort=0.2)
    return loaded, path, plan


def with_graph(
    plan: Plan,
    tensor: Callable[[Tensor], Tensor] = lambda t: t,
    operator: Callable[[Operator], Operator] = lambda o: o,
    roots: Callable[[Tensor], Tensor] = lambda t: t,
) -> Plan:
    graph = plan.graph
    changed = Graph(
        map(tensor, graph.tensors.values()),
        map(operator, graph.operators),
        graph.name,
        map(roots, graph.roots.values()),
    )
    return replace(plan, graph=changed)


def verdicts(plan: Plan, loaded: LoadedModel | None = None, path: Path | None = None) -> set[str]:
    report = cosma.replay(plan, None if loaded is None else loaded.graph, model=path)
    return {violation.verdict.value for violation in report.violations}


def test_the_plan_is_valid(case: tuple[LoadedModel, Path, Plan]) -> None:
    loaded, path, plan = case
    assert verdicts(plan) == verdicts(plan, loaded) == verdicts(plan, loaded, path) == set()
    assert len(plan.graph.parts_of("h")) == 6


def moved(part: Tensor, start: tuple[int, ...], stop: tuple[int, ...]) -> Tensor:
    return replace(part, region=Region("h", start, stop))


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        ((0, 0), (1, 33), {"part-size", "parts-overlap"}),
        ((0, 0), (1, 31), {"part-size", "parts-missing"}),
        ((1, 0), (2, 32), {"parts-overlap"}),
        ((4, 0), (5, 32), {"part-outside", "parts-missing"}),
        ((0,), (32,), {"part-outside", "parts-missing"}),
    ],
)
def test_a_part_in_another_place_is_refused(
    case: tuple[LoadedModel, Path, Plan], start: tuple[int, ...], stop: tuple[int, ...], expected: set[str]
) -> None:
    _, _, plan = case
    first = plan.graph.parts_of("h")[0].name
    wrong = with_graph(plan, lambda t: moved(t, start, stop) if t.name == first else t)
    assert verdicts(wrong) == expected


def test_two_parts_that_trade_places_are_refused_by_who_reads_them(case: tuple[LoadedModel, Path, Plan]) -> None:
    loaded, path, plan = case
    names = [part.name for part in plan.graph.parts_of("h")]
    region = {part.name: part.region for part in plan.graph.parts_of("h")}
    swap = {names[0]: names[2], names[2]: names[0]}  # the first halves of rows 0 and 1 to 2
    sizes = {name: plan.graph.tensors[name].size_bytes for name in names}
    wrong = with_graph(
        plan,
        lambda t: replace(t, region=region[swap[t.name]], size_bytes=sizes[swap[t.name]]) if t.name in swap else t,
    )
    found = {v.verdict.value for v in cosma.replay(wrong, loaded.graph, model=path).violations}
    assert "region-unread" in found
    assert "region-unread" in {v.verdict.value for v in cosma.replay(wrong, loaded.graph).violations}


def test_a_reader_without_a_part_it_needs_is_refused(case: tuple[LoadedModel, Path, Plan]) -> None:
    loaded, path, plan = case
    for reader in ("Slice_z", "Relu_w", "Gather_y"):
        last = plan.graph.operator(reader).inputs[-1]
        wrong = with_graph(
            plan,
            operator=lambda o, who=reader, name=last: replace(
                o, inputs=tuple(i for i in o.inputs if o.name != who or i != name)
            ),
        )
        assert "region-unread" in verdicts(wrong, loaded, path) or "model-mismatch" in verdicts(wrong, loaded, path)


def test_a_wrong_statement_of_what_is_read_is_seen_with_the_file(case: tuple[LoadedModel, Path, Plan]) -> None:
    """The reading of the importer is not trusted where the nodes themselves can be asked."""
    loaded, path, plan = case
    needless = replace(
        loaded.graph.operator("Slice_z"), reads=(Region("h", (1, 0), (2, 32)),)
    )
    graph = Graph(
        loaded.graph.tensors.values(),
        [needless if o.name == "Slice_z" else o for o in loaded.graph.operators],
        loaded.graph.name,
    )
    cut = cut_selections(graph).graph
    wrong = cosma.compile(cut, Accelerator(scratchpad=8192, alignment=1), effort=0.2)
    assert verdicts(wrong, loaded, path) == {"region-unread"}
    assert verdicts(wrong, loaded) == {"region-unread"}
    liar = replace(loaded, graph=graph)
    assert verdicts(wrong, liar) == set()
    assert verdicts(wrong, liar, path) == {"region-unread"}
    assert verdicts(plan, liar, path) == set()


def test_parts_written_by_two_operators_are_refused() -> None:
    root = Tensor("h", 8, dtype="int8", shape=(8,))
    parts = [Tensor(f"h{i}", 4, dtype="int8", shape=(4,), region=Region("h", [4 * i], [4 * i + 4])) for i in (0, 1)]
    operators = [
        Operator("a", "Relu", ("x",), ("h0",)),
        Operator("b", "Relu", ("x",), ("h1",)),
        Operator("c", "Neg", ("h0", "h1"), ("y",)),
    ]
    ends = [Tensor("x", 8, "input", "int8", (8,)), Tensor("y", 8, "output", "int8", (8,))]
    assert [v.verdict.value for v in check_parts(Graph([*ends, *parts], operators, "g", [root]))] == ["parts-missing"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda r: replace(r, size_bytes=r.size_bytes * 2), {"part-size"}),
        (lambda r: replace(r, shape=(5, 64)), {"part-size", "parts-missing"}),
        (lambda r: replace(r, kind="output"), {"part-size"}),
    ],
)
def test_a_wrong_root_is_refused(
    case: tuple[LoadedModel, Path, Plan], change: Callable[[Tensor], Tensor], expected: set[str]
) -> None:
    loaded, _, plan = case
    wrong = with_graph(plan, roots=change)
    assert verdicts(wrong) == expected
    assert "part-size" in verdicts(wrong, loaded)


def test_many_parts_are_checked_fast() -> None:
    count = 20_000
    root = Tensor("h", count, "input", "int8", (count,))
    parts = [Tensor(f"h{i}", 1, "input", "int8", (1,), region=Region("h", [i], [i + 1])) for i in range(count)]
    reader = Operator("c", "Neg", [part.name for part in parts], ("y",))
    result = Tensor("y", count, "output", "int8", (count,))
    assert check_parts(Graph([*parts, result], [reader], "g", [root])) == []


def test_the_file_keeps_parts_and_version_1_has_none(case: tuple[LoadedModel, Path, Plan], tmp_path: Path) -> None:
    loaded, _, plan = case
    cosma.save_plan(plan, tmp_path / "plan.json")
    text = (tmp_path / "plan.json").read_text()
    assert '"version": 2' in text
    again = cosma.load_plan(tmp_path / "plan.json")
    assert again.graph.tensors.keys() == plan.graph.tensors.keys()
    assert [t.region for t in again.graph.tensors.values()] == [t.region for t in plan.graph.tensors.values()]
    assert verdicts(again, loaded) == set()
    older = tmp_path / "older.json"
    older.write_text(text.replace('"version": 2', '"version": 1'))
    assert cosma.load_plan(older).graph.roots == {}
    older.write_text(text.replace('"version": 2', '"version": 3'))
    with pytest.raises(FormatError, match="versions 1 and 2"):
        cosma.load_plan(older)
    whole = cosma.compile(loaded, Accelerator(scratchpad=1 << 20), effort=0.2)
    cosma.save_plan(whole, older)
    assert '"version": 1' in older.read_text()


def test_constants_that_are_computed_are_followed(case: tuple[LoadedModel, Path, Plan]) -> None:
    _, path, _ = case
    needs = Needs.of_file(path)
    assert needs is not None
    row = needs.of("h", (4, 64), ["y"])
    assert row is not None
    assert row.sum() == 64
    assert row[3].all()
    every = needs.of("h", (4, 64), ["w"])
    assert every is not None
    assert every.all()
    assert needs.of("nothing", (4, 64), ["y"]) is None
