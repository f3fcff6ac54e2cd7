"""The proof by execution: a plan gives the same bits as the same operators without a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cosma.errors import PlanInvalidError
from cosma.execute.compare import Comparison, compare
from cosma.execute.elements import is_floating
from cosma.execute.execution import Execution, execute_plan
from cosma.execute.kernels import KernelName, TakenOver
from cosma.execute.machine import Difference, PlannedRun
from cosma.execute.model import Model
from cosma.execute.plain import digest
from cosma.execute.whole import SecondReading, read_again
from cosma.plan.plan import Traffic

if TYPE_CHECKING:

    from cosma.arrays import Array, Bytes
    from cosma.plan import Plan


@dataclass(frozen=True, slots=True)
class OutputCheck:
    """One graph output of a planned run against the plain run."""

    #: Which, and its real size.
    name: str
    size_bytes: int
    #: How many bytes differ; 0 where the two are equal bit for bit.
    different_bytes: int
    #: Share of elements that are infinite or no number, and how many distinct values there are among the first 65,536:
    #: an output that is all one value proves little.
    non_finite: float
    distinct: int


@dataclass(frozen=True, slots=True)
class RunReport:
    """What executing a plan showed."""

    #: Whether every result of every operator, and every graph output in off-chip memory, is bit for bit that of the
    #: plain run.
    equal: bool
    #: The same outputs against those of the untouched model, run as a whole by another reader.
    whole: SecondReading
    #: Each graph output.
    outputs: tuple[OutputCheck, ...]
    #: The first operator whose result differs, if any.
    difference: Difference | None
    #: Bytes counted from the copies made, in the plan's own bytes.
    traffic: Traffic
    #: Real bytes copied between the scratchpad, the operators and off-chip memory.
    copied_bytes: int
    #: Whether ``traffic`` is what the plan claims.
    traffic_as_planned: bool
    #: Real bytes for each byte of the plan; above 1 where the plan counted narrower elements (``dtype``).
    scale: int
    #: End of the highest address used, in the plan's bytes.
    highest_bytes: int
    #: Name and version of what ran the operators.
    kernels: str
    #: Nodes that these kernels cannot run, and what ran them instead.
    taken_over: tuple[TakenOver, ...]
    #: How many operators were executed, and how many ONNX nodes they stand for.
    operators: int
    nodes: int
    #: Weights made up; nodes that the importer took for views and that are none.
    invented_weights: int
    broken_views: tuple[str, ...]
    #: For a plan of tiles, what its operators yield and its outputs, against those of the same nodes run whole; empty
    #: for any other. ``equal`` is against the same tiles without a plan then.
    untiled: tuple[Comparison, ...] = ()
    #: Those of ``untiled`` that were compared on the operands of the run uncut: what follows from rounding, as where a
    #: value is quantised or ordered, moved them by more than rounding.
    moved: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against the plan: its bits, its traffic, its tiles and the second reading."""
        return (
            self.equal
            and self.traffic_as_planned
            and all(output.is_equal for output in self.untiled)
            and self.whole.verdict != "different"
        )


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
    run as a whole as well, with the same inputs and weights, and its outputs are compared within rounding. Raises
    PlanInvalidError if an instruction cannot be carried out at all. Raises InputError if model and plan do not belong
    together, an input does not fit, a size is not the plan's, or there is no kernel for a node.

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
    """
    done = execute_plan(plan, model, inputs=inputs, dims=dims, kernels=kernels, seed=seed)
    plain, planned, constants = done.plain, done.planned, done.planned.constants
    expected = plain.outputs if done.tiled is None else done.tiled.outputs
    checks = tuple(_compare(name, data, planned, constants.model) for name, data in expected.items())
    off_chip = planned.off_chip
    counted = Traffic(off_chip.loaded, off_chip.stored, off_chip.streamed, plan.traffic.compulsory)
    if done.scale > 1 or plan.dtype is not None:
        counted = _in_plan_bytes(plan, planned)
    equal = planned.difference is None and all(check.different_bytes == 0 for check in checks)
    if not whole:
        reading = SecondReading("not compared", "", "it was not asked for")
    elif not equal:
        reading = SecondReading("not compared", "", "the plan's numbers differ from those of the run without a plan")
    else:
        reading = second_reading(done, kernels)
    return RunReport(
        equal=equal,
        whole=reading,
        outputs=checks,
        difference=planned.difference,
        traffic=counted,
        copied_bytes=off_chip.loaded + off_chip.stored + off_chip.streamed,
        traffic_as_planned=counted == plan.traffic,
        scale=done.scale,
        highest_bytes=planned.highest // done.scale,
        kernels=constants.kernels.name,
        taken_over=planned.taken_over,
        operators=len(plan.graph.operators),
        nodes=len({step.node.first_output for row in planned.steps.values() for step in row}),
        invented_weights=len(constants.invented),
        broken_views=tuple(plain.broken_views),
        untiled=_against_untiled(done),
        moved=() if done.tiled is None else tuple(sorted(done.tiled.moved)),
    )


def second_reading(done: Execution, kernels: KernelName | None = None) -> SecondReading:
    """What the untouched model, run as a whole, says of the outputs that an execution left.

    Outputs that tiles moved by more than rounding, though each of them rounds rightly, are those of the run without.
    """
    constants = done.planned.constants
    model, outputs, plain = constants.model, done.outputs, done.plain.outputs
    moved = [name for name in outputs if done.tiled is not None and model.values[name].root in done.tiled.moved]
    outputs.update((name, model.read(model.values[name], plain[model.values[name].root])) for name in moved)
    return read_again(model.data, constants, done.inputs, outputs, done.plain.digests, digest, kernels)


def _in_plan_bytes(plan: Plan, planned: PlannedRun) -> Traffic:
    """Traffic of the copies made, each copy at the size the plan counts its tensor with."""
    counts = planned.off_chip.counts
    size = plan.graph.tensors
    by_kind = {
        kind: sum(size[name].size_bytes * count for (what, name), count in counts.items() if what == kind)
        for kind in ("loaded", "stored", "streamed")
    }
    return Traffic(by_kind["loaded"], by_kind["stored"], by_kind["streamed"], plan.traffic.compulsory)


def _against_untiled(done: Execution) -> tuple[Comparison, ...]:
    """What tiles yield against the same nodes run whole."""
    if done.tiled is None:
        return ()
    model, results = done.planned.constants.model, done.tiled.results
    compared = {result.name for result in results}
    return (*results, *(
        compare(name, model.read(model.values[name], found), model.read(model.values[name], done.plain.outputs[name]))
        for name, found in done.tiled.outputs.items() if name not in compared
    ))  # fmt: skip


def _compare(name: str, expected: Bytes, planned: PlannedRun, model: Model) -> OutputCheck:
    value = model.values[name]
    try:
        found = planned.off_chip_bytes(name)
    except PlanInvalidError as error:
        raise PlanInvalidError(f"graph output {name!r} never reached off-chip memory") from error
    found = model.bytes_of(value, found)
    different = int(np.count_nonzero(expected != found)) if len(found) == len(expected) else len(expected)
    array = model.read(value, found)
    floating = is_floating(array.dtype)
    non_finite = float(np.mean(~np.isfinite(array))) if floating and array.size else 0.0
    distinct = len(np.unique(array.reshape(-1)[:65_536].view(f"V{array.dtype.itemsize}"))) if array.size else 0
    return OutputCheck(name, len(expected), different, non_finite, distinct)
