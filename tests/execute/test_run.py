"""Plans executed for real give the bits of the run without a plan, and wrong plans do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import parser

import cosma
from cosma import Accelerator, Allocate, Execute, Free, InputError, Load, Plan, PlanInvalidError, Store, compile, replay
from cosma.execute import run_plan
from cosma.execute.whole import _first_difference
from cosma.problem import build_problem, smallest_feasible_capacity
from cosma.units import align_up

ZOO = Path(__file__).resolve().parents[2] / "models" / "zoo"

NETWORK = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[1,3,16,16] x) => (float[1,8,16,16] y, float[1,8] z)
<float[8,3,3,3] w1, float[8] b1, float[8,8,3,3] w2, float[8,8,1,1] w3, float[8] b3>
{
    c1 = Conv <pads = [1,1,1,1]> (x, w1, b1)
    r1 = Relu (c1)
    c2 = Conv <pads = [1,1,1,1]> (r1, w2)
    s2 = Sigmoid (c2)
    shape = Constant <value = int64[3] {1, 8, 256}> ()
    back = Constant <value = int64[4] {1, 8, 16, 16}> ()
    flat = Reshape (s2, shape)
    soft = Softmax <axis = -1> (flat)
    image = Reshape (soft, back)
    c3 = Conv (r1, w3, b3)
    sum = Add (image, c3)
    y = Mul (sum, r1)
    pooled = GlobalAveragePool (sum)
    last = Flatten (pooled)
    z = Tanh (last)
}
"""


def write_model(folder: Path, text: str = NETWORK) -> Path:
    """Parse a model; its weights carry no content, as in the files of the zoo."""
    model = parser.parse_model(text)
    for value in list(model.graph.value_info):
        if value.name[0] in "wb" and value.name != "back":
            dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
            tensor = onnx.TensorProto(name=value.name, data_type=1, dims=dims)
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="absent.weights")
            model.graph.initializer.append(tensor)
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("execute"))


MODES = [
    {"scratchpad": "33KiB"},
    {"scratchpad": "33KiB", "in_place": False},
    {"scratchpad": "17KiB", "alignment": 1},
    {"scratchpad": "24KiB", "operands": "resident"},
    {"scratchpad": "24KiB", "weights": "scratchpad", "fusion": "epilogue"},
    {"scratchpad": "20KiB", "reserved": "2KiB", "fusion": "epilogue", "alignment": 16},
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kernels", ["onnxruntime", "reference"])
def test_every_mode_gives_the_same_bits(network: Path, mode: dict[str, object], kernels: str) -> None:
    if kernels == "onnxruntime":
        pytest.importorskip("onnxruntime")
    plan = compile(network, Accelerator(**mode), strategy="e2")
    report = run_plan(plan, network, kernels=kernels)
    assert report.equal
    assert report.traffic_as_planned
    assert report.traffic == replay(plan).traffic
    assert report.copied_bytes == plan.traffic.total
    assert report.highest_bytes <= plan.accelerator.capacity_bytes
    assert all(check.distinct > 4 and check.non_finite == 0 for check in report.outputs)
    assert report.invented_weights == 5
    assert not report.broken_views


def test_narrower_what_if_plan_runs_at_full_width(network: Path) -> None:
    plan = compile(network, Accelerator(scratchpad="5KiB"), strategy="e2", dtype="int8")
    report = run_plan(plan, network)
    assert report.equal
    assert report.scale == 4
    assert report.traffic_as_planned
    assert report.copied_bytes == 4 * plan.traffic.total


def test_same_seed_same_report_and_given_inputs_are_used(network: Path) -> None:
    plan = compile(network, Accelerator(scratchpad="24KiB"), strategy="e2")
    assert run_plan(plan, network, seed=3) == run_plan(plan, network, seed=3)
    zeros = run_plan(plan, network, inputs={"x": np.zeros((1, 3, 16, 16), np.float32)})
    assert zeros.equal
    assert zeros.outputs[1].distinct <= 8
    with pytest.raises(InputError, match=r"float32\[1, 3, 16, 16\]"):
        run_plan(plan, network, inputs={"x": np.zeros((1, 3, 16, 8), np.float32)})
    with pytest.raises(InputError, match="nonsense"):
        run_plan(plan, network, inputs={"nonsense": np.zeros(1)})


def _outcome(plan: Plan, model: Path) -> str:
    try:
        report = run_plan(plan, model)
    except PlanInvalidError:
        return "refused"
    return "equal" if report.equal else "different"


def _changed(plan: Plan, index: int, *new: object) -> Plan:
    instructions = list(plan.instructions)
    instructions[index : index + 1] = new  # type: ignore[assignment]
    return replace(plan, instructions=tuple(instructions))


def test_wrong_addresses_change_the_numbers(network: Path) -> None:
    """Every shifted address that overlaps something still needed shows; every harmless one does not."""
    plan = compile(network, Accelerator(scratchpad="33KiB", in_place=False), strategy="e2")
    seen = {"equal": 0, "different": 0, "refused": 0}
    for index, instruction in enumerate(plan.instructions):
        if not isinstance(instruction, Load | Allocate):
            continue
        for address in (0, 2048, 8192, 16384, 33 * 1024 - 64):
            if address == instruction.address:
                continue
            mutant = _changed(plan, index, replace(instruction, address=address))
            outcome = _outcome(mutant, network)
            seen[outcome] += 1
            if replay(mutant).valid:
                assert outcome == "equal", (index, address)
            elif outcome == "equal":
                # Only tensors nobody reads again may be run over without a trace.
                assert _runs_over_the_dead(mutant), (index, address)
    assert seen["different"] > 5
    assert seen["refused"] > 5  # outside the scratchpad


def _runs_over_the_dead(plan: Plan) -> bool:
    found = replay(plan).violations
    later = {
        (index, name)
        for index, i in enumerate(plan.instructions)
        if isinstance(i, Execute)
        for name in plan.graph.operator(i.operator).operands
    }
    for violation in found:
        assert violation.instruction is not None
        assert violation.verdict == "overlap", violation
        victim = violation.message.split("overlaps '")[1].split("'")[0]
        if any(index >= violation.instruction and name == victim for index, name in later):
            return False
    return True


def test_early_frees_lost_loads_and_lost_stores_show(network: Path) -> None:
    plan = compile(network, Accelerator(scratchpad="17KiB", operands="resident", in_place=True), strategy="e2")
    assert any(isinstance(i, Load) for i in plan.instructions)
    for index, instruction in enumerate(plan.instructions):
        if isinstance(instruction, Free):
            use = max(
                (
                    j
                    for j in range(index)
                    if isinstance(e := plan.instructions[j], Execute)
                    and instruction.tensor in plan.graph.operator(e.operator).operands
                    and instruction.tensor not in e.streamed
                ),
                default=None,
            )
            if use is None:
                continue
            moved = [i for j, i in enumerate(plan.instructions) if j != index]
            moved.insert(use, instruction)
            assert _outcome(replace(plan, instructions=tuple(moved)), network) != "equal"
        elif isinstance(instruction, Load | Store):
            assert _outcome(_changed(plan, index), network) != "equal"


def test_free_bytes_are_poisoned(network: Path) -> None:
    """A tensor freed too early and read again from where it was, is not there any more."""
    plan = compile(network, Accelerator(scratchpad="64KiB"), strategy="e2")
    index, made = next(
        (i, x) for i, x in enumerate(plan.instructions) if isinstance(x, Allocate) and x.in_place_of is None
    )
    executed = next(i for i in range(index, len(plan.instructions)) if isinstance(plan.instructions[i], Execute))
    # Free it and claim the very same place again, without a load: only poison can tell.
    mutant = list(plan.instructions)
    mutant[executed + 1 : executed + 1] = [Free(made.tensor), replace(made)]
    assert _outcome(replace(plan, instructions=tuple(mutant)), network) == "different"


def test_wrong_takeovers_change_the_numbers(network: Path) -> None:
    plan = compile(network, Accelerator(scratchpad="64KiB", in_place=False), strategy="e1")
    wrong = 0
    address: dict[str, int] = {}
    for index, instruction in enumerate(plan.instructions):
        if isinstance(instruction, Load):
            address[instruction.tensor] = instruction.address
        if not isinstance(instruction, Allocate):
            continue
        address[instruction.tensor] = instruction.address
        execute = next(i for i in plan.instructions[index:] if isinstance(i, Execute))
        operator = plan.graph.operator(execute.operator)
        for operand in operator.inputs:
            if operand in execute.streamed or operand not in address:
                continue
            mutant = _changed(plan, index, Allocate(instruction.tensor, address[operand], operand))
            mutant = replace(mutant, accelerator=mutant.accelerator.replace(in_place=True))
            verdicts = {v.verdict for v in replay(mutant).violations}
            if verdicts & {"in-place-forbidden", "tensor-lost"}:
                wrong += 1
                assert _outcome(mutant, network) != "equal", (operator.type, operand, verdicts)
    assert wrong >= 5


def test_swapped_operators_show(network: Path) -> None:
    plan = compile(network, Accelerator(scratchpad="64KiB"), strategy="e1")
    executes = [i for i, x in enumerate(plan.instructions) if isinstance(x, Execute)]
    first, second = executes[0], executes[1]
    mutant = list(plan.instructions)
    mutant[first], mutant[second] = mutant[second], mutant[first]
    assert _outcome(replace(plan, instructions=tuple(mutant)), network) != "equal"


def test_plan_of_another_model_is_refused(network: Path, tmp_path: Path) -> None:
    plan = compile(network, Accelerator(scratchpad="64KiB"), strategy="e1")
    other = write_model(tmp_path, NETWORK.replace("s2 = Sigmoid (c2)", "s1 = Sigmoid (c2)\n    s2 = Exp (s1)"))
    with pytest.raises(InputError, match="covers"):
        run_plan(plan, other)


#: Capacities as a multiple of the largest working set with everything resident.
MODES_OF_THE_ZOO: list[tuple[float, dict[str, object], str | None]] = [
    (0.3, {}, "int8"),
    (1.1, {"operands": "resident", "in_place": False}, None),
    (1.05, {"operands": "resident", "weights": "scratchpad", "fusion": "epilogue"}, None),
]
NAMES = [
    "darts_v2_imagenet",
    "llama_4l_512_decode_p255",
    "lstm_bi2_s64",
    "mobilenet_v2_224",
    "mobilenet_v2_int8_qdq",
    "nasnet_a_imagenet",
    "pnasnet5_imagenet",
    "randwire_small_ba_1",
    "train_resnet20_b8",
    "vit_6l_224_fp16",
    "zoo_squeezenet",
]


@pytest.mark.parametrize("name", NAMES)
def test_models_of_the_zoo(name: str) -> None:
    """Real networks with real kernels; the modes take turns, so that all are met and the time stays short."""
    pytest.importorskip("onnxruntime")
    path = ZOO / f"{name}.onnx"
    graph = cosma.load_onnx(path).graph
    factor, mode, dtype = MODES_OF_THE_ZOO[NAMES.index(name) % len(MODES_OF_THE_ZOO)]
    counted = graph if dtype is None else graph.with_dtype(dtype)
    everything = Accelerator(scratchpad=2**50, **{**mode, "operands": "resident"})
    capacity = align_up(int(factor * smallest_feasible_capacity(build_problem(counted, everything))), 64)
    plan = compile(path, Accelerator(scratchpad=capacity, **mode), strategy="e2", dtype=dtype, effort=0.1)
    report = run_plan(plan, path)
    assert report.equal, report.difference
    assert report.traffic_as_planned
    assert not report.broken_views
    assert all(check.non_finite == 0 for check in report.outputs)
    assert report.operators == len(plan.graph.operators) > 2


@pytest.mark.parametrize(("factor", "mode", "dtype"), MODES_OF_THE_ZOO)
def test_every_mode_on_one_model(factor: float, mode: dict[str, object], dtype: str | None) -> None:
    pytest.importorskip("onnxruntime")
    path = ZOO / "mobilenet_v2_224.onnx"
    plan = compile(path, Accelerator(scratchpad=int(factor * 9.7e6), **mode), strategy="e2", dtype=dtype)
    report = run_plan(plan, path)
    assert report.equal
    assert report.traffic_as_planned
    assert report.scale == (4 if dtype else 1)


def test_broken_zoo_plan_is_found_and_placed() -> None:
    """In a network of a hundred operators, one wrong address is found, and the operator that suffers is named."""
    pytest.importorskip("onnxruntime")
    path = ZOO / "mobilenet_v2_224.onnx"
    plan = compile(path, Accelerator(scratchpad="12MiB", in_place=False, operands="resident"), strategy="e2")
    index = next(i for i, x in enumerate(plan.instructions) if i > 100 and isinstance(x, Allocate))
    operator = next(x.operator for x in plan.instructions[index:] if isinstance(x, Execute))
    operand = plan.graph.operator(operator).inputs[0]
    at = next(
        x.address for x in reversed(plan.instructions[:index])
        if isinstance(x, Allocate | Load) and x.tensor == operand
    )  # fmt: skip
    report = run_plan(_changed(plan, index, replace(plan.instructions[index], address=at)), path)
    assert not report.equal
    assert report.difference is not None
    assert report.difference.operator == operator


def test_optional_tensors_are_run_by_the_second_reading(tmp_path: Path) -> None:
    path = tmp_path / "optional.onnx"
    path.write_bytes(parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 18]>
        net (float[2] x) => (float[2] y) { o = Optional(x)
        t = OptionalGetElement(o)
        y = Relu(t) }""").SerializeToString())
    report = run_plan(compile(path, Accelerator(scratchpad=4096), effort=0.01), path)
    assert report.passed
    assert report.whole.verdict == "equal"


def test_no_tensor_is_asked_for_where_none_can_be_told_apart(network: Path) -> None:
    model = SimpleNamespace(loaded=cosma.load_onnx(network))
    reader = SimpleNamespace(proto=onnx.load(network, load_external_data=False))  # asked to run, it fails
    nothing = {"tensor of another model": b""}
    constants = SimpleNamespace(model=model)
    assert _first_difference(reader, constants, {}, nothing, lambda array: b"") is None  # type: ignore[arg-type]
