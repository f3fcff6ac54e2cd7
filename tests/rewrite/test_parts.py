"""Tensors cut where readers select with constant indices: what is cut, what is read, and that numbers stay the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper, parser

import cosma
from cosma import Accelerator
from cosma.execute import run_plan
from cosma.frontend import LoadedModel, load_onnx
from cosma.graph import Graph, Operator, Region, Tensor
from cosma.graph.dtypes import size_of
from cosma.rewrite import cut_selections
from cosma.rewrite.parts import MOST_PARTS
from cosma.validator.parts import check_parts, unread_regions, whole_graph

Load = Callable[..., tuple[LoadedModel, Path]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a graph in ONNX's text form."""

    def read(text: str, weights: dict[str, np.ndarray] | None = None, opset: int = 20) -> tuple[LoadedModel, Path]:
        model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]>' + text)
        for name, array in (weights or {}).items():
            model.graph.initializer.append(numpy_helper.from_array(array, name))
        path = tmp_path / "net.onnx"
        path.write_bytes(model.SerializeToString())
        return load_onnx(path), path

    return read


def boxes(loaded: LoadedModel, operator: int) -> list[tuple[list[int], list[int]]]:
    return [(list(region.start), list(region.stop)) for region in loaded.graph.operators[operator].reads]


def check(loaded: LoadedModel, path: Path, roots: set[str], capacity: int = 4096) -> Graph:
    """Cut, and hold the cut graph to the validator's rules and to the numbers of the model."""
    rewritten = cut_selections(loaded.graph, 1, least_unread=0)
    graph = rewritten.graph
    assert set(graph.roots) == roots == set(rewritten.lineage.parts)
    assert check_parts(graph) == []
    assert unread_regions(graph, loaded.graph) == []
    assert {(o.name, o.inputs, o.outputs) for o in whole_graph(graph).operators} == {
        (o.name, o.inputs, o.outputs) for o in loaded.graph.operators
    }
    for options in ({"scratchpad": capacity}, {"scratchpad": 1 << 20, "operands": "resident"}):
        plan = cosma.compile(graph, Accelerator(alignment=1, **options), effort=0.2)
        assert cosma.replay(plan, loaded.graph, model=path).violations == ()
        again = cosma.load_plan(_saved(plan, path.with_suffix(".json")))
        assert cosma.replay(again, loaded.graph, model=path).violations == ()
        report = run_plan(again, path)
        assert report.equal
        assert report.traffic_as_planned
        assert report.whole.verdict == "equal"
    return graph


def _saved(plan: cosma.Plan, path: Path) -> Path:
    cosma.save_plan(plan, path)
    return path


STEPS = "\n".join(f"g{i} = Gather<axis = 1>(e, i{i})" for i in range(4))
SUM = "a = Add(g0, g1)\n b = Add(a, g2)\n y = Add(b, g3)"


def indices(**given: object) -> dict[str, np.ndarray]:
    return {name: np.array(value, np.int64) for name, value in given.items()}


def test_steps_of_a_recurrence_read_a_step_each(load: Load) -> None:
    loaded, path = load(
        f"g (float[2,4,64] x) => (float[2,64] y) {{ e = Exp(x)\n {STEPS}\n {SUM} }}", indices(i0=0, i1=1, i2=2, i3=-1)
    )
    assert boxes(loaded, 4) == [([0, 3, 0], [2, 4, 64])]
    graph = check(loaded, path, {"e"}, 1024)
    assert graph.operators[0].outputs == ("e[:, 0, :]", "e[:, 1, :]", "e[:, 2, :]", "e[:, 3, :]")
    assert graph.operators[4].inputs == ("e[:, 3, :]",)
    assert {tensor.size_bytes for tensor in graph.parts_of("e")} == {512}


def test_a_reader_of_all_lists_all_parts(load: Load) -> None:
    loaded, path = load(
        """g (float[4,64] x) => (float[4,64] y, float[64] z)
        { e = Exp(x)
          y = Relu(e)
          z = Gather(e, i) }""",
        indices(i=2),
    )
    graph = check(loaded, path, {"e"})
    assert graph.operator("Relu_y").inputs == ("e[0:2, :]", "e[2, :]", "e[3, :]")
    assert graph.operator("Gather_z").inputs == ("e[2, :]",)


def test_parts_that_overlap_in_two_readers_are_cut_at_the_boundaries_of_both(load: Load) -> None:
    loaded, path = load(
        """g (float[8,8] x) => (float[5,8] y, float[4,4] z)
        <int64[1] s0 = {1}, int64[1] e0 = {6}, int64[2] s1 = {4,2}, int64[2] e1 = {8,6}>
        { e = Exp(x)
          y = Slice(e, s0, e0)
          z = Slice(e, s1, e1) }"""
    )
    graph = check(loaded, path, {"e"})
    rows, columns = [(0, 1), (1, 4), (4, 6), (6, 8)], [(0, 2), (2, 6), (6, 8)]
    assert [(p.region.start, p.region.stop) for p in graph.parts_of("e") if p.region is not None] == [
        ((a, c), (b, d)) for a, b in rows for c, d in columns
    ]
    assert len(graph.operator("Slice_z").inputs) == 2


def test_inputs_and_outputs_are_cut_too(load: Load) -> None:
    loaded, path = load(
        """g (float[4,64] x) => (float[4,64] e, float[64] y, float[64] z)
        { e = Exp(x)
          y = Gather(x, one)
          z = Gather(e, two) }""",
        indices(one=1, two=2),
    )
    graph = check(loaded, path, {"x", "e"})
    assert graph.compulsory_bytes() == loaded.graph.compulsory_bytes()
    assert sum(p.size_bytes for p in graph.parts_of("e") if p.kind == "output") == 1024


def test_a_part_of_an_input_that_nothing_reads_is_never_moved(load: Load) -> None:
    loaded, path = load("g (float[4,64] x) => (float[64] y) { y = Gather(x, i) }", indices(i=1))
    graph = check(loaded, path, {"x"})
    assert graph.compulsory_bytes() == 256 + 256 + 8


@pytest.mark.parametrize(
    ("node", "result", "found"),
    [
        ("y = Gather(e, i)", "2,8", [([0, 0], [1, 8]), ([3, 0], [4, 8])]),
        ("y = Gather(e, run)", "3,8", [([1, 0], [4, 8])]),
        ("y = GatherND(e, tuples)", "2", [([1, 2], [2, 3]), ([3, 7], [4, 8])]),
        ("y = GatherElements<axis = 0>(e, square)", "1,2", [([1, 0], [4, 2])]),
        ("y = Slice(e, start, stop, axes, steps)", "4,3", [([0, 2], [4, 7])]),
        ("y = Slice(e, last, first, axes, back)", "4,3", [([0, 5], [4, 8])]),
    ],
)
def test_what_each_selecting_operator_reads(load: Load, node: str, result: str, found: object) -> None:
    loaded, path = load(
        f"g (float[4,8] x) => (float[{result}] y) {{ e = Exp(x)\n {node} }}",
        indices(
            i=[3, 0], run=[2, 1, -1], tuples=[[1, 2], [-1, 7]], square=[[3, 1]], start=[2], stop=[8], axes=[1],
            steps=[2], last=[-1], first=[4], back=[-1],
        ),
    )  # fmt: skip
    assert boxes(loaded, 1) == found
    check(loaded, path, {"e"})


def test_a_view_is_read_in_the_coordinates_of_what_holds_it(load: Load) -> None:
    loaded, path = load(
        """g (float[4,6] x) => (float[2,3] y, float[4,2,1] z)
        <int64[3] shape = {4,2,3}, int64[1] three = {3}>
        { e = Exp(x)
          v = Reshape(e, shape)
          y = Gather(v, one)
          last = Gather<axis = 2>(v, zero)
          z = Unsqueeze(last, two) }""",
        indices(one=1, zero=0, two=[2]),
    )
    assert boxes(loaded, 1) == [([1, 0], [2, 6])]
    assert boxes(loaded, 2) == []  # a column of the view is no box of the tensor
    check(loaded, path, {"e"})


def test_what_is_computed_or_read_twice_reads_all(load: Load) -> None:
    loaded, _ = load(
        """g (float[4,8] x, int64[1] j) => (float[1,8] y, int64[4,8] z)
        { e = Exp(x)
          y = Gather(e, j)
          k = Cast<to = 7>(e)
          z = Gather(k, i) }""",
        indices(i=[0, 1, 2, 3]),
    )
    assert all(operator.reads == () for operator in loaded.graph.operators)
    assert cut_selections(loaded.graph).graph is loaded.graph


def _graph(rows: int, width: int, dtype: str = "int8") -> Graph:
    size, row = size_of((rows, width), dtype), size_of((width,), dtype)
    readers = [
        Operator(f"g{i}", "Gather", ("e",), (f"y{i}",), reads=[Region("e", (i, 0), (i + 1, width))])
        for i in range(rows)
    ]
    tensors = [
        Tensor("x", size, "input", dtype, (rows, width)),
        Tensor("e", size, dtype=dtype, shape=(rows, width)),
        *(Tensor(f"y{i}", row, "output", dtype, (width,)) for i in range(rows)),
    ]
    return Graph(tensors, [Operator("exp", "Exp", ("x",), ("e",)), *readers])


def test_slices_that_leave_little_out_are_not_worth_a_cut() -> None:
    reader = Operator("s", "Slice", ("x",), ("y",), reads=[Region("x", (1, 0), (8, 16))])
    graph = Graph(
        [Tensor("x", 128, "input", "int8", (8, 16)), Tensor("y", 112, "output", "int8", (7, 16))], [reader]
    )
    assert cut_selections(graph).graph is graph
    assert len(cut_selections(graph, least_unread=0.1).graph.roots) == 1


def test_small_parts_that_alignment_blows_up_are_not_cut() -> None:
    graph = _graph(8, 16)
    assert len(cut_selections(graph, 16).graph.roots) == 1
    assert cut_selections(graph, 64).graph is graph
    assert len(cut_selections(_graph(8, 52), 64).graph.roots) == 1


def test_no_tensor_has_more_than_the_most_parts() -> None:
    assert len(cut_selections(_graph(MOST_PARTS, 4)).graph.roots) == 1
    assert cut_selections(_graph(MOST_PARTS + 1, 4)).graph.roots == {}


def test_packed_elements_are_not_cut() -> None:
    assert cut_selections(_graph(8, 16, "int4")).graph.roots == {}


def test_a_cut_graph_is_cut_once_and_counted_in_other_elements() -> None:
    once = cut_selections(_graph(8, 16)).graph
    assert cut_selections(once).graph is once
    wider = cut_selections(_graph(8, 16, "float32")).graph.with_dtype("float16")
    assert {part.size_bytes for part in wider.parts_of("e")} == {32}
    assert wider.roots["e"].size_bytes == 256
