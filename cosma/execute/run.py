"""The proof by execution: a plan gives the same bits as the same operators without a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.errors import InputError, PlanInvalidError
from cosma.execute.constants import Constants, index_bounds
from cosma.execute.elements import is_floating, numpy_dtype, random_array, to_array
from cosma.execute.kernels import KernelName, TakenOver, make_kernels
from cosma.execute.machine import Difference, PlainRun, PlannedRun, digest
from cosma.execute.model import Model, read_model
from cosma.execute.whole import SecondReading, read_again
from cosma.plan.plan import Traffic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.plan import Plan

    Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class OutputCheck:
    """One graph output of a planned run against the plain run.

    Attributes
    ----------
    name, size_bytes
        Which, and its real size.
    different_bytes
        How many bytes differ; 0 where the two are equal bit for bit.
    non_finite, distinct
        Share of elements that are infinite or no number, and how many distinct values there are among the first
        65,536: an output that is all one value proves little.
    """

    name: str
    size_bytes: int
    different_bytes: int
    non_finite: float
    distinct: int


@dataclass(frozen=True, slots=True)
class RunReport:
    """What executing a plan showed.

    Attributes
    ----------
    equal
        Whether every result of every operator, and every graph output in off-chip memory, is bit for bit that of
        the plain run.
    whole
        The same outputs against those of the untouched model, run as a whole by another reader.
    outputs
        Each graph output.
    difference
        The first operator whose result differs, if any.
    traffic
        Bytes counted from the copies made, in the plan's own bytes.
    copied_bytes
        Real bytes copied between the scratchpad, the operators and off-chip memory.
    traffic_as_planned
        Whether ``traffic`` is what the plan claims.
    scale
        Real bytes for each byte of the plan; above 1 where the plan counted narrower elements (``dtype``).
    highest_bytes
        End of the highest address used, in the plan's bytes.
    kernels
        Name and version of what ran the operators.
    taken_over
        Nodes that these kernels cannot run, and what ran them instead.
    operators, nodes
        How many operators were executed, and how many ONNX nodes they stand for.
    invented_weights, broken_views
        Weights made up; nodes that the importer took for views and that are none.
    """

    equal: bool
    whole: SecondReading
    outputs: tuple[OutputCheck, ...]
    difference: Difference | None
    traffic: Traffic
    copied_bytes: int
    traffic_as_planned: bool
    scale: int
    highest_bytes: int
    kernels: str
    taken_over: tuple[TakenOver, ...]
    operators: int
    nodes: int
    invented_weights: int
    broken_views: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against the plan: its bits, its traffic and the second reading."""
        return self.equal and self.traffic_as_planned and self.whole.verdict != "different"


def run_plan(
    plan: Plan,
    model: Path | str,
    *,
    inputs: Mapping[str, Array] | None = None,
    dims: Mapping[str, int] | None = None,
    kernels: KernelName | None = None,
    seed: int = 0,
    whole: bool = True,
) -> RunReport:
    """Execute a plan on real bytes and compare it with running the same operators without a plan.

    One byte array of exactly the scratchpad's size holds what the plan puts there; wherever it is free it is
    poisoned. Off-chip memory is a dictionary. Every operator runs on views at the plan's addresses, loads and
    stores are copies. The plan is executed as it stands: its validity is not looked at first, so that a wrong
    plan shows in the numbers.

    Both run node by node, as this project reads the model. To see whether it reads it rightly, the untouched model is
    run as a whole as well, with the same inputs and weights, and its outputs are compared within rounding.

    Parameters
    ----------
    plan
        A plan for an ONNX model.
    model
        The model's file. Weights are taken from it and from the files it names where they are there; others are
        random.
    inputs
        Arrays by name of the graph input; those left out are random.
    dims
        Sizes of dynamic dimensions that the plan does not name; it knows those that it was made for.
    kernels
        ``onnxruntime``, ``reference``, or the better one installed.
    seed
        Of random inputs and weights. The same seed gives the same report.
    whole
        Whether to run the untouched model as a whole too.

    Raises
    ------
    PlanInvalidError
        If an instruction cannot be carried out at all.
    InputError
        If model and plan do not belong together, an input does not fit, a size is not the plan's, or there is no
        kernel for a node.
    """
    ready = read_model(Path(model), plan.sizes(dims or {}))
    chosen = make_kernels(kernels, ready)
    steps = ready.steps_of(plan)
    constants = Constants(ready, chosen, seed)
    everything = make_inputs(ready, dict(inputs or {}), seed)
    feeds = {name: array for name, array in everything.items() if ready.inputs[name].used}
    scale = _scale(plan, ready)
    plain = PlainRun.of(ready, constants, feeds)
    planned = PlannedRun(plan, steps, constants, feeds, plain.digests, scale)
    planned.run(plan.instructions)
    checks = tuple(_compare(name, plain, planned, ready) for name in plain.outputs)
    off_chip = planned.off_chip
    counted = Traffic(off_chip.loaded, off_chip.stored, off_chip.streamed, plan.traffic.compulsory)
    if scale > 1 or plan.dtype is not None:
        counted = _in_plan_bytes(plan, planned)
    equal = planned.difference is None and all(check.different_bytes == 0 for check in checks)
    return RunReport(
        equal=equal,
        whole=_second_reading(planned, plain, everything, kernels, asked=whole, equal=equal),
        outputs=checks,
        difference=planned.difference,
        traffic=counted,
        copied_bytes=off_chip.loaded + off_chip.stored + off_chip.streamed,
        traffic_as_planned=counted == plan.traffic,
        scale=scale,
        highest_bytes=planned.highest // scale,
        kernels=chosen.name,
        taken_over=chosen.taken_over,
        operators=len(plan.graph.operators),
        nodes=sum(len(row) for row in steps.values()),
        invented_weights=len(constants.invented),
        broken_views=tuple(plain.broken_views),
    )


def _second_reading(
    planned: PlannedRun,
    plain: PlainRun,
    inputs: Mapping[str, Array],
    kernels: KernelName | None,
    *,
    asked: bool,
    equal: bool,
) -> SecondReading:
    if not asked:
        return SecondReading("not compared", "", "it was not asked for")
    if not equal:
        return SecondReading("not compared", "", "the plan's numbers differ from those of the run without a plan")
    constants = planned.constants
    model = constants.model
    outputs = {name: planned.read(model.values[name]) for name in model.outputs}
    return read_again(model.data, constants, inputs, outputs, plain.digests, digest, kernels)


def make_inputs(model: Model, given: Mapping[str, Array], seed: int) -> dict[str, Array]:
    """Arrays for all graph inputs, unused ones included: those given, checked, and random ones for the rest.

    Raises
    ------
    InputError
        If a given array has no input of its name, or another shape or element type.
    """
    unknown = sorted(set(given) - set(model.inputs))
    if unknown:
        raise InputError(f"inputs {', '.join(unknown)} were given; the model's are {', '.join(model.inputs)}")
    below = index_bounds(model)
    found: dict[str, Array] = {}
    for name, wanted in model.inputs.items():
        dtype = numpy_dtype(wanted.element, name)
        if name not in given:
            found[name] = random_array(name, dtype, wanted.shape, seed, below=below.get(name, 2))
            continue
        array = np.asarray(given[name])
        if array.dtype != dtype or (wanted.used and array.shape != wanted.shape):
            raise InputError(
                f"input {name!r} is {array.dtype}{list(array.shape)}, the model wants {dtype}{list(wanted.shape)}"
            )
        found[name] = np.ascontiguousarray(array)
    return found


def _scale(plan: Plan, model: Model) -> int:
    """Real bytes per planned byte: how much wider elements are than the plan counted them."""
    scale = 1
    truth = model.loaded.finest_graph.tensors
    for tensor in plan.graph.tensors.values():
        region = tensor.region
        known = truth.get(tensor.name if region is None else region.root)
        if known is None:
            raise InputError(f"tensor {tensor.name!r} of the plan is not in this model")
        true_size = known.size_bytes
        if region is not None:
            true_size = true_size * region.count // max(1, prod(plan.graph.roots[region.root].shape or ()))
        if tensor.size_bytes == true_size:
            continue
        if plan.dtype is None:
            raise InputError(
                f"tensor {tensor.name!r} has {true_size} bytes in this model and {tensor.size_bytes} in the plan; "
                "read the model with the sizes that the plan was made for"
            )
        if true_size:
            scale = max(scale, -(-true_size // max(1, tensor.size_bytes)))
    return scale


def _in_plan_bytes(plan: Plan, planned: PlannedRun) -> Traffic:
    """Traffic of the copies made, each copy at the size the plan counts its tensor with."""
    counts = planned.off_chip.counts
    size = plan.graph.tensors
    by_kind = {
        kind: sum(size[name].size_bytes * count for (what, name), count in counts.items() if what == kind)
        for kind in ("loaded", "stored", "streamed")
    }
    return Traffic(by_kind["loaded"], by_kind["stored"], by_kind["streamed"], plan.traffic.compulsory)


def _compare(name: str, plain: PlainRun, planned: PlannedRun, model: Model) -> OutputCheck:
    value = model.values[name]
    expected = plain.outputs[name]
    try:
        found = planned.off_chip_bytes(name)
    except PlanInvalidError as error:
        raise PlanInvalidError(f"graph output {name!r} never reached off-chip memory") from error
    different = int(np.count_nonzero(expected != found)) if len(found) == len(expected) else len(expected)
    array = to_array(found, value.element, value.shape, name)
    floating = is_floating(array.dtype)
    non_finite = float(np.mean(~np.isfinite(array))) if floating and array.size else 0.0
    distinct = len(np.unique(array.reshape(-1)[:65_536].view(f"V{array.dtype.itemsize}"))) if array.size else 0
    return OutputCheck(name, len(expected), different, non_finite, distinct)
