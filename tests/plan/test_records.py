"""Plans and graphs as tables and in notebooks."""

from __future__ import annotations

from dataclasses import is_dataclass, replace
from itertools import pairwise

import pytest

import cosma
from cosma.studies.points import Tiles, Whole
from tests.planning import diamond


@pytest.fixture(scope="module")
def plan() -> cosma.Plan:
    return cosma.compile(diamond(), cosma.Accelerator(scratchpad=384, operands="resident"), effort=0.2)


def test_steps_add_up_to_the_traffic(plan: cosma.Plan) -> None:
    rows = cosma.to_records(plan)
    assert [row["operator"] for row in rows] == list(plan.schedule)
    assert sum(row["noncompulsory"] for row in rows) == plan.traffic.noncompulsory
    assert sum(row["noncompulsory"] + row["compulsory"] for row in rows) == plan.traffic.total


def test_transfers_and_tensors_add_up_to_the_traffic(plan: cosma.Plan) -> None:
    assert sum(row["size_bytes"] for row in cosma.to_records(plan, "transfers")) == plan.traffic.total
    tensors = cosma.to_records(plan, "tensors")
    assert [row["name"] for row in tensors] == list(plan.graph.tensors)
    assert sum(row["moved_bytes"] for row in tensors) == plan.traffic.total
    assert sum(row["noncompulsory_bytes"] for row in tensors) == plan.traffic.noncompulsory


def test_bounds_are_those_of_the_certificate(plan: cosma.Plan) -> None:
    (row,) = cosma.to_records(plan, "bounds")
    assert (row["scope"], row["lower_bound"]) == ("graph", plan.certificate.lower_bound)
    assert row["gap"] == plan.certificate.gap
    scopes = tuple(cosma.ScopedBound(scope, bound, "by hand") for scope, bound in (("tiling", 5), ("rows", 0)))
    tiled = replace(plan, certificate=cosma.Certificate(5, 10, "by hand", bounds=scopes))
    assert [(row["scope"], row["gap"]) for row in cosma.to_records(tiled, "bounds")] == [("tiling", 0.5), ("rows", 1.0)]


def test_stays_lie_in_the_scratchpad(plan: cosma.Plan) -> None:
    stays = cosma.to_records(plan, "stays")
    assert max(row["address"] + row["space_bytes"] for row in stays) <= plan.accelerator.capacity_bytes
    assert {type(row["origin"]) for row in stays} == {str}


@pytest.mark.parametrize("table", ["steps", "tensors", "stays", "transfers", "bounds", "summary"])
def test_a_data_frame_takes_them(plan: cosma.Plan, table: str) -> None:
    pandas = pytest.importorskip("pandas")
    rows = cosma.to_records(plan, table)  # type: ignore[arg-type]  # a name of a table
    frame = pandas.DataFrame(rows)
    assert len(frame) == len(rows)
    assert list(frame.columns) == list(rows[0])


def test_rows_of_many_plans_make_a_table(plan: cosma.Plan) -> None:
    roomy = cosma.compile(diamond(), cosma.Accelerator(scratchpad="4KiB"), effort=0.2)
    rows = [row for one in (plan, roomy) for row in cosma.to_records(one, "summary")]
    assert [row["scratchpad_bytes"] for row in rows] == [384, 4096]
    assert [row["traffic_bytes"] for row in rows] == [plan.traffic.total, roomy.traffic.total]
    assert rows[0].keys() == rows[1].keys()


def test_graphs_as_tables() -> None:
    graph = diamond()
    assert [row["name"] for row in graph.to_records()] == [o.name for o in graph.operators]
    for row in graph.to_records("tensors"):
        assert row["size_bytes"] == graph.tensors[row["name"]].size_bytes
        assert row["consumers"] == graph.consumers(row["name"])


def test_an_unknown_table_is_named(plan: cosma.Plan) -> None:
    with pytest.raises(cosma.InputError, match="no table 'rows'; choose one of steps"):
        cosma.to_records(plan, "rows")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(cosma.GraphError, match="no table 'rows'"):
        plan.graph.to_records("rows")  # type: ignore[arg-type]  # wrong on purpose


def test_notebooks_show_numbers_and_names_cannot_break_them(plan: cosma.Plan) -> None:
    html = plan._repr_html_()
    assert "beyond the compulsory" in html
    assert f": {plan.certificate.status}" in html
    bad = "<script>alert(1)</script>\x1b"
    graph = cosma.Graph(
        [cosma.Tensor("x", 64, "input"), cosma.Tensor("y", 64, "output")],
        [cosma.Operator("o", "Relu", ["x"], ["y"])],
        bad,
    )
    shown = cosma.compile(graph, cosma.Accelerator(scratchpad=256), effort=0)
    for page in (graph._repr_html_(), shown._repr_html_()):
        assert "<script>" not in page
        assert "\x1b" not in page
        assert "&lt;script&gt;" in page


#: Names as exporters write them, and what a name may be at worst.
LONG = ("model/encoder/layer.0/attention/self/MatMul_1_output_0", "x" * 3000)


def _shown() -> list[object]:
    """An object of every public data class, with everything in it that it can hold."""
    found: list[object] = []
    for name in LONG:
        many = [f"{name}_{i}" for i in range(30)]
        tensors = [cosma.Tensor(one, 64, "intermediate", "int8", (1, 8, 8)) for one in (name, *many)]
        given = cosma.Tensor("in", 64, "input")
        chain = [cosma.Operator(f"{b}/op", "Conv", (a,), (b,)) for a, b in pairwise(["in", name, *many])]
        wide = cosma.Operator(name, "Concat", many, (name,), many, covers=many)
        graph = cosma.Graph([given, *tensors], chain, name)
        result = cosma.compile_outcome(graph, cosma.Accelerator(scratchpad=256), effort=0, off_chip=True)
        entries = tuple((one, i * 64) for i, one in enumerate(many))
        constraints = cosma.Constraints(addresses=entries, resident=tuple(many))
        found += [
            given, *tensors, wide, *graph.operators, graph, result, result.plan, result.plan.off_chip,
            result.plan.traffic, *result.plan.instructions, cosma.Execute(name, many), cosma.Load(name, 0),
            cosma.Store(name),
            cosma.Certificate(0, 9, name), cosma.ScopedBound("rows", 0, name), constraints,
            cosma.Tiling(dict.fromkeys(many, ((4, 8),)), (tuple(many),)), cosma.Buffer(name, 0, 1, 64),
            cosma.pack([cosma.Buffer(one, 0, 1, 64) for one in many], 4096),
            cosma.Mode(name, tuple(many)), cosma.Progress("search", 1, 0, 1.0, 1.0, 10.0),
            cosma.Accelerator.preset("ethos-u65-mid").replace(constraints=constraints),
            cosma.Curve(name, cosma.Accelerator(scratchpad=256), 9, (cosma.CurvePoint(256, 9, 9, True),), 64, 256),
            cosma.CurvePoint(2**40, 2**40, 2**40, True, Whole(2**40, 2**40), Tiles(3000, 300, 10**6, 2**40)),
        ]  # fmt: skip
        broken = cosma.replay(replace(result.plan, instructions=result.plan.instructions[1:]))
        found += [broken, *broken.violations]
    return found


def test_reprs_of_all_public_data_classes_are_short() -> None:
    values = _shown()
    public = {value for value in (getattr(cosma, name) for name in cosma.__all__) if is_dataclass(value)}
    assert public - {type(value) for value in values} <= {cosma.LoadedModel, cosma.Cancellation}
    for value in values:
        assert len(repr(value)) < 200, type(value)
        assert "\n" not in repr(value)


def test_reprs_leave_out_what_is_by_default() -> None:
    assert repr(cosma.Accelerator(scratchpad="1KiB")) == "Accelerator(scratchpad=1024)"
    assert repr(cosma.Tensor("x", 64)) == "Tensor(name='x', size_bytes=64)"
    assert repr(cosma.Execute("o", ["x"])) == "Execute(operator='o', streamed=('x',))"
