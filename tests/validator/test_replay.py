"""Good plans pass; each kind of damage is refused with its own verdict."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cosma.accelerator import Accelerator, Operands, Weights
from cosma.errors import InfeasibleError
from cosma.graph import Graph, Operator, Tensor, TensorKind
from cosma.plan import Allocate, Certificate, Execute, Free, Instruction, Load, Plan, Store, Traffic
from cosma.validator import Verdict, replay, replay_instructions
from tests.planning import diamond, plan_for
from tests.random_graphs import instances

RESIDENT = Accelerator(scratchpad=448, operands=Operands.RESIDENT, in_place=False)
GOOD: tuple[Instruction, ...] = (
    Load("x", 0),
    Allocate("a", 64),
    Execute("stem"),
    Free("x"),
    Allocate("b", 192),
    Execute("left"),
    Allocate("c", 0),
    Execute("right"),
    Free("a"),
    Allocate("d", 64),
    Execute("widen"),
    Free("c"),
    Allocate("y", 320),
    Execute("join"),
    Store("y"),
    Free("b"),
    Free("d"),
    Free("y"),
)


def verdicts(instructions: tuple[Instruction, ...], accelerator: Accelerator = RESIDENT) -> list[Verdict]:
    return [v.verdict for v in replay_instructions(diamond(), accelerator, instructions).violations]


def changed(old: Instruction, *new: Instruction) -> tuple[Instruction, ...]:
    i = GOOD.index(old)
    return GOOD[:i] + new + GOOD[i + 1 :]


def test_a_good_plan_is_counted() -> None:
    report = replay_instructions(diamond(), RESIDENT, GOOD)
    assert report.valid
    # x and w once are compulsory, y too; w streams twice.
    assert report.traffic == Traffic(loaded=64, stored=128, streamed=64, compulsory=224)
    assert report.traffic.noncompulsory == 32
    assert report.peak_bytes == 384
    assert report.transfers == 4


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        (changed(Allocate("d", 64), Allocate("d", 128)), [Verdict.OVERLAP]),
        (changed(Allocate("d", 64), Allocate("d", 65)), [Verdict.MISALIGNED, Verdict.OVERLAP]),
        (changed(Allocate("y", 320), Allocate("y", 384)), [Verdict.OUT_OF_BOUNDS]),
        (changed(Allocate("y", 320), Allocate("y", -64)), [Verdict.OUT_OF_BOUNDS]),
        (changed(Load("x", 0)), [Verdict.OPERAND_ABSENT, Verdict.NOT_RESIDENT]),
        (
            changed(Execute("left"), Execute("left"), Execute("left")),
            [Verdict.EXECUTED_TWICE, Verdict.RESULT_NOT_ALLOCATED],
        ),
        (
            changed(Allocate("y", 320)),
            [Verdict.RESULT_NOT_ALLOCATED, Verdict.NOT_RESIDENT, Verdict.NOT_RESIDENT, Verdict.OUTPUT_NOT_STORED],
        ),
        (changed(Store("y")), [Verdict.TENSOR_LOST, Verdict.OUTPUT_NOT_STORED]),
        (changed(Free("a"), Free("b"), Free("a")), [Verdict.TENSOR_LOST, Verdict.OPERAND_ABSENT, Verdict.NOT_RESIDENT]),
        (changed(Free("x"), Free("x"), Free("x")), [Verdict.NOT_RESIDENT]),
        (changed(Free("x"), Store("c")), [Verdict.NOT_RESIDENT, Verdict.OVERLAP]),
        (changed(Free("a"), Load("a", 320)), [Verdict.NO_OFF_CHIP_COPY, Verdict.ALREADY_RESIDENT, Verdict.OVERLAP]),
        (changed(Execute("right"), Execute("ghost")), None),
        (changed(Free("x"), Free("ghost"), Free("x")), [Verdict.UNKNOWN_NAME]),
        (changed(Allocate("b", 192), Allocate("b", 64, "a")), None),
        (changed(Execute("join"), Execute("join", ("d",))), [Verdict.STREAMING_FORBIDDEN, Verdict.NO_OFF_CHIP_COPY]),
        (changed(Execute("join"), Execute("join", ("x",))), [Verdict.STREAMING_UNRELATED]),
        ((*GOOD, Allocate("c", 0)), [Verdict.ALLOCATION_UNUSED]),
        (changed(Allocate("b", 192), Allocate("b", 192), Allocate("d", 320)), None),
    ],
)
def test_damage_gets_its_verdict(instructions: tuple[Instruction, ...], expected: list[Verdict] | None) -> None:
    found = verdicts(instructions)
    assert found
    if expected is not None:
        assert found == expected


def test_swapped_steps_break_the_order() -> None:
    i, j = GOOD.index(Execute("right")), GOOD.index(Execute("widen"))
    swapped = list(GOOD)
    swapped[i - 1 : i + 1], swapped[j - 1 : j + 1] = GOOD[j - 1 : j + 1], GOOD[i - 1 : i + 1]
    assert Verdict.WRONG_ORDER in verdicts(tuple(swapped))


def test_a_missing_operator_is_named() -> None:
    assert Verdict.NOT_EXECUTED in verdicts(GOOD[: GOOD.index(Allocate("y", 320))])


def test_in_place_takes_over_the_address() -> None:
    accelerator = RESIDENT.replace(scratchpad=320, in_place=True)
    plan = (
        Load("x", 0), Allocate("a", 64), Execute("stem"), Free("x"),
        Allocate("c", 0), Execute("right"), Allocate("b", 64, "a"), Execute("left"),
        Allocate("d", 192), Execute("widen"), Free("c"), Allocate("y", 192, "d"), Execute("join"), Store("y"),
    )  # fmt: skip
    report = replay_instructions(diamond(), accelerator, plan)
    assert report.valid
    assert report.peak_bytes == 320

    def damaged(old: Instruction, new: Instruction, where: Accelerator = accelerator) -> list[Verdict]:
        instructions = tuple(new if i == old else i for i in plan)
        return [v.verdict for v in replay_instructions(diamond(), where, instructions).violations]

    assert damaged(Allocate("b", 64, "a"), Allocate("b", 64, "a"), RESIDENT) == [Verdict.IN_PLACE_FORBIDDEN] * 2
    assert Verdict.IN_PLACE_MISPLACED in damaged(Allocate("b", 64, "a"), Allocate("b", 192, "a"))
    assert Verdict.IN_PLACE_FORBIDDEN in damaged(Allocate("d", 192), Allocate("d", 0, "c"))  # Conv, and larger
    swapped = (*plan[:4], *plan[6:8], *plan[4:6], *plan[8:])  # left overwrites a, which right still needs
    found = [v.verdict for v in replay_instructions(diamond(), accelerator, swapped).violations]
    assert found[:2] == [Verdict.TENSOR_LOST, Verdict.OPERAND_ABSENT]


def test_streaming_needs_a_copy_and_gives_one() -> None:
    accelerator = Accelerator(scratchpad=128, in_place=False)
    plan = (
        Execute("stem", ("x", "a")), Execute("left", ("a", "b")), Allocate("c", 0), Execute("right", ("a",)),
        Execute("widen", ("d",)), Free("c"), Execute("join", ("b", "d", "y")),
    )  # fmt: skip
    report = replay_instructions(diamond(), accelerator, plan)
    assert report.valid
    assert report.traffic.streamed == 64 + 3 * 128 + 2 * 128 + 2 * 128 + 128 + 2 * 32
    wrong = tuple(Execute("widen") if i == Execute("widen", ("d",)) else i for i in plan)
    found = [v.verdict for v in replay_instructions(diamond(), accelerator, wrong).violations]
    assert found == [Verdict.RESULT_NOT_ALLOCATED, Verdict.NO_OFF_CHIP_COPY]


def test_kept_weights_are_tensors_like_any_other() -> None:
    accelerator = RESIDENT.replace(weights=Weights.SCRATCHPAD, scratchpad=512)
    assert verdicts(GOOD, accelerator) == [Verdict.OPERAND_ABSENT, Verdict.OPERAND_ABSENT]
    with_weight = (Load("w", 448), *GOOD)
    report = replay_instructions(diamond(), accelerator, with_weight)
    assert report.valid
    assert report.traffic.noncompulsory == 0


def test_reserved_bytes_are_not_ours() -> None:
    assert verdicts(GOOD, RESIDENT.replace(reserved=64)) == [Verdict.OUT_OF_BOUNDS]


def test_zero_byte_tensors_take_no_space_but_keep_their_rules() -> None:
    graph = Graph(
        [Tensor("x", 64, TensorKind.INPUT), Tensor("z", 0), Tensor("y", 64, TensorKind.OUTPUT)],
        [Operator("p", "Shape", ("x",), ("z",)), Operator("q", "Expand", ("z",), ("y",))],
    )
    accelerator = Accelerator(scratchpad=64, operands=Operands.RESIDENT)
    plan = [Load("x", 0), Allocate("z", 0), Execute("p"), Free("x"), Allocate("y", 0), Execute("q"), Store("y")]
    assert replay_instructions(graph, accelerator, plan).valid
    del plan[1]
    assert not replay_instructions(graph, accelerator, plan).valid


def test_claims_are_checked() -> None:
    plan = plan_for(diamond(), RESIDENT)
    assert replay(plan).valid
    wrong_traffic = replace(plan, traffic=replace(plan.traffic, loaded=plan.traffic.loaded + 1))
    assert [v.verdict for v in replay(wrong_traffic).violations] == [Verdict.TRAFFIC_MISMATCH]
    assert [v.verdict for v in replay(replace(plan, peak_bytes=1)).violations] == [Verdict.PEAK_MISMATCH]
    lofty = Certificate(10**9, plan.traffic.noncompulsory, "hope")
    assert [v.verdict for v in replay(replace(plan, certificate=lofty)).violations] == [Verdict.CERTIFICATE_MISMATCH]


def test_coverage_of_a_model() -> None:
    plan = plan_for(diamond(), RESIDENT)
    assert replay(plan, diamond()).valid

    def against(graph: Graph) -> str:
        violations = replay(plan, graph).violations
        assert {v.verdict for v in violations} == {Verdict.MODEL_MISMATCH}
        return " ".join(v.message for v in violations)

    tensors, operators = list(diamond().tensors.values()), list(diamond().operators)
    assert "64 bytes in the model" in against(Graph([replace(tensors[0], size_bytes=64), *tensors[1:4],
        replace(tensors[4], size_bytes=64), replace(tensors[5], size_bytes=64), *tensors[6:]], operators))  # fmt: skip
    other_inputs = replace(operators[4], inputs=("b", "d", "c"))
    assert "reads other tensors" in against(Graph(tensors, [*operators[:4], other_inputs]))
    assert "is a Mul in the model" in against(Graph(tensors, [*operators[:4], replace(operators[4], type="Mul")]))
    fewer = Graph([*tensors[:5], replace(tensors[6], name="b2"), replace(tensors[6], name="d")],
        [*operators[:4], Operator("other", "Add", ("b", "c"), ("b2",))])  # fmt: skip
    assert "missing" in against(fewer)


MODES = ("e1", "e2", "e3")


@st.composite
def damaged_plans(draw: st.DrawFn) -> tuple[Plan, tuple[Instruction, ...], set[Verdict]]:
    """A valid plan, the same with one instruction damaged, and the verdicts of which one must appear."""
    graph, accelerator = draw(instances())
    try:
        plan = plan_for(graph, accelerator, draw(st.sampled_from(MODES)))
    except InfeasibleError:
        assume(False)
    code = list(plan.instructions)
    sized = {name for name, t in plan.graph.tensors.items() if t.size_bytes}
    kind = draw(st.sampled_from(["shift", "reload", "twice", "store", "free", "unstore", "skip"]))

    def pick(wanted: type) -> int:
        found = [
            i for i, x in enumerate(code)
            if isinstance(x, wanted) and (not hasattr(x, "tensor") or x.tensor in sized or kind in ("store", "reload"))
        ]  # fmt: skip
        assume(bool(found))
        return found[draw(st.integers(0, len(found) - 1))]

    if kind == "shift":
        i = pick(Allocate)
        moved = accelerator.capacity_bytes - accelerator.capacity_bytes % accelerator.alignment
        code[i] = replace(code[i], address=moved)  # type: ignore[arg-type]
        return plan, tuple(code), {Verdict.OUT_OF_BOUNDS, Verdict.IN_PLACE_MISPLACED}
    if kind == "reload":
        del code[pick(Load)]
        return plan, tuple(code), {Verdict.OPERAND_ABSENT}
    if kind == "twice":
        i = pick(Execute)
        code.insert(i, code[i])
        return plan, tuple(code), {Verdict.EXECUTED_TWICE}
    if kind == "store":
        code.insert(draw(st.integers(0, len(code))), Store("nobody"))
        return plan, tuple(code), {Verdict.UNKNOWN_NAME}
    if kind == "free":
        i = pick(Free)
        code.insert(i, code[i])
        return plan, tuple(code), {Verdict.NOT_RESIDENT}
    if kind == "unstore":
        del code[pick(Store)]
        return plan, tuple(code), {Verdict.TENSOR_LOST, Verdict.OUTPUT_NOT_STORED}
    del code[pick(Execute)]
    return plan, tuple(code), {Verdict.NOT_EXECUTED}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(damaged_plans())
def test_damaged_plans_are_refused(case: tuple[Plan, tuple[Instruction, ...], set[Verdict]]) -> None:
    plan, damaged, expected = case
    assert replay(plan).valid
    found = {v.verdict for v in replay_instructions(plan.graph, plan.accelerator, damaged).violations}
    assert found & expected
