"""A plan executed: what goes in, the run without a plan, the run of the plan, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cosma import door
from cosma.errors import InputError
from cosma.execute.chosen import make_kernels
from cosma.execute.constants import Constants, index_bounds
from cosma.execute.elements import numpy_dtype, random_array
from cosma.execute.kernels import KernelName
from cosma.execute.machine import PlannedRun
from cosma.execute.model import Model, read_model
from cosma.execute.operators import Operators
from cosma.execute.plain import PlainRun
from cosma.execute.tiled import TiledRun
from cosma.execute.whole import KEPT_LIMIT

if TYPE_CHECKING:

    from cosma.arrays import Array
    from cosma.plan import Plan


@dataclass(frozen=True, slots=True)
class Execution:
    """A plan and its model, both run on the same inputs and weights."""

    #: Every graph input, those that nothing reads included.
    inputs: Mapping[str, Array]
    #: The run without a plan.
    plain: PlainRun
    #: The run of the plan; its off-chip memory holds the graph outputs.
    planned: PlannedRun
    #: Real bytes for each byte of the plan.
    scale: int
    #: The plan's tiles run without its memory, where it has tiles.
    tiled: TiledRun | None = None

    @property
    def outputs(self) -> dict[str, Array | list[Array]]:
        """Graph outputs by their names in the model, as the plan left them; a sequence as a list.

        Outputs that nothing has to be moved for (constants, views of graph inputs) are among them.
        """
        model = self.planned.constants.model
        return {name: self.planned.read(model.values[name]) for name in model.outputs}


def execute_plan(
    plan: Plan,
    model: Path | str,
    *,
    inputs: Mapping[str, Array] | None = None,
    dims: Mapping[str, int] | None = None,
    kernels: KernelName | None = None,
    seed: int = 0,
) -> Execution:
    """Execute a plan on real bytes; :func:`cosma.execute.run_plan` takes the same and reports what it showed."""
    seed = door.seed(seed)
    ready = read_model(Path(model), plan.sizes(dims or {}))
    chosen = make_kernels(kernels, ready)
    steps = ready.steps_of(plan)
    constants = Constants(ready, chosen, seed)
    everything = make_inputs(ready, dict(inputs or {}), seed)
    feeds = {name: array for name, array in everything.items() if ready.inputs[name].used}
    scale = _scale(plan, ready)
    operators = Operators(plan, steps, constants, feeds, lambda tiles: make_kernels(kernels, tiles))
    plain = PlainRun.of(ready, constants, feeds, _compared(plan, ready) if operators.has_tiles else ())
    tiled = TiledRun.of(operators, plain.kept) if operators.has_tiles else None
    if tiled is not None and tiled.apart:
        tiled.look_again(operators, PlainRun.of(ready, constants, feeds, tiled.read_from(operators)).kept)
    planned = PlannedRun(plan, operators, plain.digests if tiled is None else tiled.digests, scale)
    planned.run(plan.instructions)
    return Execution(everything, plain, planned, scale, tiled)


def _compared(plan: Plan, model: Model) -> set[str]:
    """Tensors of the untiled network that the plan's operators yield, of as many bytes as may be kept."""
    truth = model.loaded.finest_graph.tensors
    made = [plan.graph.tensors[name] for operator in plan.graph.operators for name in operator.outputs]
    names = dict.fromkeys(tensor.name if tensor.region is None else tensor.region.root for tensor in made)
    ends = accumulate(truth[name].size_bytes if name in truth else 0 for name in names)
    return {name for name, end in zip(names, ends, strict=True) if name in truth and end <= KEPT_LIMIT}


def make_inputs(model: Model, given: Mapping[str, Array], seed: int) -> dict[str, Array]:
    """Arrays for all graph inputs, unused ones included: those given, checked, and random ones for the rest.

    Raises InputError if a given array has no input of its name, or another shape or element type.
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
        found[name] = np.ascontiguousarray(array).reshape(array.shape)  # a scalar would come out with one axis
    return found


def _scale(plan: Plan, model: Model) -> int:
    """Real bytes per planned byte: how much wider elements are than the plan counted them."""
    scale = 1
    truth = model.loaded.finest_graph.tensors
    sums = {name for o in plan.graph.operators if o.accumulation is not None for name in o.accumulation.sums}
    for tensor in plan.graph.tensors.values():
        if tensor.name in sums:
            continue  # no tensor of the model; it is as wide as its result, or as the sum really is
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
