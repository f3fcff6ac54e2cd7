"""Plans and graphs as tables and in notebooks."""

from __future__ import annotations

import pytest

import cosma
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


def test_stays_lie_in_the_scratchpad(plan: cosma.Plan) -> None:
    stays = cosma.to_records(plan, "stays")
    assert max(row["address"] + row["space_bytes"] for row in stays) <= plan.accelerator.capacity_bytes
    assert {type(row["origin"]) for row in stays} == {str}


@pytest.mark.parametrize("table", ["steps", "tensors", "stays", "transfers"])
def test_a_data_frame_takes_them(plan: cosma.Plan, table: str) -> None:
    pandas = pytest.importorskip("pandas")
    rows = cosma.to_records(plan, table)  # type: ignore[arg-type]  # a name of a table
    frame = pandas.DataFrame(rows)
    assert len(frame) == len(rows)
    assert list(frame.columns) == list(rows[0])


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


def test_reprs_are_short(plan: cosma.Plan) -> None:
    for value in (plan, plan.graph, cosma.replay(plan), cosma.pack([cosma.Buffer("b", 0, 1, 64)] * 1, 64)):
        assert len(repr(value)) < 300, type(value)
