"""Networks beyond the size that is planned as one: made small here by their parameters."""

from __future__ import annotations

import pytest

from cosma.accelerator import Accelerator
from cosma.compiler import CompileResult, Limits, long, run_compile
from cosma.compiler.run import CompileRun
from cosma.parameters.compiler import AutoParameters, CompileParameters, LongParameters
from cosma.parameters.search import SearchParameters
from cosma.plan.file import plan_to_json
from cosma.problem import Decisions, Problem, occupancy_bytes
from cosma.problem.reductions import Tightened
from tests.benchmarks.scale import cells

SHORT = CompileParameters(
    auto=AutoParameters(most_operators_as_one=100), search=SearchParameters(most_operators_for_whole_walks=100)
)
NO_LOSS = CompileParameters(auto=SHORT.auto, search=SHORT.search, long=LongParameters(tolerated_loss=-1.0))


def compiled(operands: str, parameters: CompileParameters = SHORT) -> CompileResult:
    accelerator = Accelerator(scratchpad=4300 * 1024 if operands == "resident" else 200 * 1024, operands=operands)
    return run_compile(cells(300), accelerator, limits=Limits(effort=1.0), parameters=parameters)


@pytest.mark.parametrize("operands", ["resident", "streamable"])
def test_it_beats_existing_methods_and_its_bound_holds(operands: str) -> None:
    result = compiled(operands)
    plan = result.plan
    existing = run_compile(plan.graph, plan.accelerator, strategy="existing").plan.traffic.noncompulsory
    assert plan.certificate.lower_bound <= plan.traffic.noncompulsory <= existing
    if operands == "streamable":
        assert plan.traffic.noncompulsory < existing
        assert plan.certificate.lower_bound > 0
        assert result.found_by == "search, packed in sections"
        assert plan.certificate.method.startswith("sum over 2 pieces")


def test_it_is_reproducible() -> None:
    first, second = compiled("streamable"), compiled("streamable")
    assert first.reproducible
    assert plan_to_json(first.plan) == plan_to_json(second.plan)


def test_where_packing_loses_too_much_it_tries_again_with_slack(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no loss allowed, decisions for less and less room are packed."""
    rooms: list[int] = []
    packed: list[tuple[str, int]] = []
    tightened, pack = long.tightened, long._pack

    def note_room(problem: Problem, share: float) -> Tightened | None:
        tighter = tightened(problem, share)
        if tighter is not None:
            rooms.append(tighter.problem.capacity_bytes)
        return tighter

    def note_peak(state: CompileRun, decisions: Decisions, by: str) -> None:
        packed.append((by, int(occupancy_bytes(state.problem, decisions).max())))
        pack(state, decisions, by)

    monkeypatch.setattr(long, "tightened", note_room)
    monkeypatch.setattr(long, "_pack", note_peak)
    compiled("streamable", NO_LOSS)
    assert [by for by, _ in packed] == ["search, packed in sections", *2 * ["search with slack, packed in sections"]]
    at_first, then, at_last = rooms[-3:]
    assert at_first > then > at_last
    assert all(peak <= room for (_, peak), room in zip(packed, (at_first, then, at_last), strict=True))
