"""Plans that break one constraint are refused with its verdict, and files keep what a plan keeps to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from cosma import Accelerator, Allocate, Constraints, Execute, Free, Load, Plan, Store, compile, replay
from cosma.plan.file import plan_from_json, plan_to_json
from cosma.plan.instructions import Instruction
from cosma.validator import Verdict
from tests.planning import diamond

ROOMY = Accelerator(scratchpad=1024, alignment=32)
Change = Callable[[Instruction], Instruction]


def judged(forced: Constraints, plan: Plan) -> set[str]:
    """Verdicts on a plan of the diamond as if it had been made under constraints."""
    other = replace(plan, accelerator=plan.accelerator.replace(constraints=forced))
    return {v.verdict for v in replay(other).violations}


def planned(**options: object) -> Plan:
    return compile(diamond(), ROOMY, strategy="e1", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("forced", "verdict"),
    [
        (Constraints(addresses={"a": 512}), Verdict.ADDRESS_BROKEN),
        (Constraints(alignments={"b": 512}), Verdict.ALIGNMENT_BROKEN),
        (Constraints(never_on_chip=["a"]), Verdict.NEVER_ON_CHIP),
        (Constraints(excluded=[(0, 512)]), Verdict.EXCLUDED_RANGE),
        (Constraints(before=[("right", "left")]), Verdict.ORDER_BROKEN),
        (Constraints(workspaces={"left": 16}), Verdict.WORKSPACE_ABSENT),
        (Constraints(in_place_forbidden=[("y", "b"), ("y", "d")]), Verdict.IN_PLACE_FORBIDDEN),
        (Constraints(in_place_forbidden_types=["Add"]), Verdict.IN_PLACE_FORBIDDEN),
        (Constraints(addresses={"nothing": 0}), Verdict.UNKNOWN_NAME),
        (Constraints(before=[("stem", "nothing")]), Verdict.UNKNOWN_NAME),
    ],
)
def test_a_plan_made_without_a_constraint_breaks_it_with_its_own_verdict(forced: Constraints, verdict: str) -> None:
    plan = compile(diamond(), ROOMY.replace(operands="resident"), strategy="e1")
    assert replay(plan).valid
    assert judged(forced, plan) == {verdict}


def test_what_must_stay_may_neither_leave_early_nor_stream() -> None:
    plan = planned()
    at = next(i for i, one in enumerate(plan.instructions) if one == Execute("left"))
    gone = (*plan.instructions[:at], Store("a"), Free("a"), Load("a", 512), *plan.instructions[at:])
    assert judged(Constraints(resident=["a"]), plan) == set()
    assert Verdict.NOT_KEPT in judged(Constraints(resident=["a"]), replace(plan, instructions=gone))
    streamed = compile(diamond(), ROOMY, strategy="e1", constraints=Constraints(never_on_chip=["a"]))
    assert judged(Constraints(resident=["a"]), streamed) == {Verdict.NOT_KEPT}


def test_an_operand_that_must_stay_is_not_overwritten_before_its_last_use() -> None:
    plan = planned()
    forced = Constraints(resident=["a"])
    moved: list[Instruction] = []
    for one in plan.instructions:
        if one == Execute("left"):
            moved.append(Store("a"))
        if isinstance(one, Allocate) and one.tensor == "b":
            where = next(i.address for i in plan.instructions if isinstance(i, Allocate) and i.tensor == "a")
            one = Allocate("b", where, "a")
        moved.append(one)
    assert Verdict.NOT_KEPT in judged(forced, replace(plan, instructions=tuple(moved)))


def test_scratch_space_is_judged_where_a_constraint_asks_for_it() -> None:
    forced = Constraints(workspaces={"left": 100}, excluded=[(896, 1024)])
    plan = planned(constraints=forced)
    assert replay(plan).valid

    def with_workspace(at: int | None) -> set[str]:
        changed = tuple(
            replace(i, workspace=at) if isinstance(i, Execute) and i.operator == "left" else i
            for i in plan.instructions
        )
        return {v.verdict for v in replay(replace(plan, instructions=changed)).violations}

    first = next(i.address for i in plan.instructions if isinstance(i, Allocate) and i.tensor == "a")
    assert with_workspace(None) == {Verdict.WORKSPACE_ABSENT, Verdict.PEAK_MISMATCH}
    assert with_workspace(first) == {Verdict.WORKSPACE_OVERLAP}
    assert with_workspace(896) == {Verdict.EXCLUDED_RANGE}
    assert with_workspace(8) >= {Verdict.WORKSPACE_MISALIGNED}
    assert with_workspace(2048) == {Verdict.WORKSPACE_OUT_OF_BOUNDS}


def test_permission_goes_beyond_the_table_and_a_ban_before_it() -> None:
    tight = Accelerator(scratchpad=256, alignment=32, operands="resident", in_place=False)
    forced = Constraints(in_place_permitted=[("y", "b"), ("c", "a")])
    plan = compile(diamond(), tight.replace(scratchpad=320), strategy="exact", effort=0.2, constraints=forced)
    taken = {(i.tensor, i.in_place_of) for i in plan.instructions if isinstance(i, Allocate) and i.in_place_of}
    assert taken
    assert taken <= {("y", "b"), ("c", "a")}
    assert replay(plan).valid
    assert judged(Constraints(), plan) == {Verdict.IN_PLACE_FORBIDDEN}
    banned = Constraints(in_place_permitted=[("y", "b"), ("c", "a")], in_place_forbidden=list(taken))
    assert judged(banned, plan) == {Verdict.IN_PLACE_FORBIDDEN}


def test_files_keep_constraints_and_reserved_ranges() -> None:
    forced = Constraints(
        addresses={"a": 256}, alignments={"b": 64}, resident=["a"], never_on_chip=["x"], excluded=[(0, 100)],
        workspaces={"left": 16}, in_place_permitted=[("c", "a")], in_place_forbidden=[("b", "a")],
        in_place_permitted_types=["Pool"], in_place_forbidden_types=["Relu"], before=[("right", "left")],
    )  # fmt: skip
    accelerator = ROOMY.replace(reserved=[(128, 160)])
    plan = compile(diamond(), accelerator, strategy="e2", constraints=forced)
    assert replay(plan).valid
    text = plan_to_json(plan)
    record = json.loads(text)
    assert record["version"] == 2
    assert record["accelerator"]["reserved_ranges"] == [[128, 160]]
    assert record["constraints"] == forced.to_record()
    again = plan_from_json(text)
    assert again.accelerator.constraints == forced
    assert plan_to_json(again) == text
    assert replay(again).valid


def test_a_plan_without_constraints_is_written_as_before() -> None:
    record = json.loads(plan_to_json(planned()))
    assert record["version"] == 1
    assert "constraints" not in record
    assert "reserved_ranges" not in record["accelerator"]


@pytest.mark.parametrize("reserved", [[(0, 64)], [(64, 96), (480, 512)]])
def test_reserved_ranges_are_kept_clear(reserved: list[tuple[int, int]]) -> None:
    accelerator = Accelerator(scratchpad=512, alignment=32, operands="resident", reserved=reserved)
    plan = compile(diamond(), accelerator, strategy="exact", effort=0.2)
    assert replay(plan).valid
    spoiled = replace(plan, accelerator=accelerator.replace(reserved=[(0, 512)]))
    assert Verdict.EXCLUDED_RANGE in {v.verdict for v in replay(spoiled).violations}
