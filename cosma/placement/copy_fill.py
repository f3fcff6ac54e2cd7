"""Whether one layer can keep a limit at all, and a way to fill it that does: an integer program (CP-SAT).

A binary says that an expert has a copy on a device and ``c`` copies in all. Crossings do not appear in it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.placement.copies import CopyProblem

#: Experts x devices x numbers of copies up to which a layer is worth a program.
_MOST_BINARIES = 5000
#: Work limits (CP-SAT's unit): one layer that proves impossible is enough, and among several one is soon decided.
FILL_WORK = (0.5, 5.0)
#: Devices up to which loads of all shares have a common unit that leaves sums exact.
_MOST_DEVICES = 16


def fill_layer(
    problem: CopyProblem, layer: int, limit: float, work: float
) -> tuple[NDArray[np.bool_] | None, bool]:
    """Search for copies ``[experts, devices]`` of one layer within a limit on its max-over-mean load.

    Returns
    -------
    tuple
        Copies or None, and whether it is proven that there are none.
    """
    from cosma.solvers import Profile, Status, solve
    from cosma.solvers.model import ModelBuilder

    experts, devices = problem.fresh.shape[1:]
    load = np.rint(problem.load[layer]).astype(np.int64)
    room = np.bincount(problem.device_of, minlength=devices)
    most = int(min(devices, 1 + room.sum() - experts))
    sizable = devices <= _MOST_DEVICES and experts * devices * most <= _MOST_BINARIES
    if not sizable or (load != problem.load[layer]).any() or not load.any():
        return None, False
    unit = math.lcm(*range(1, most + 1))
    builder = ModelBuilder("fill a layer")
    held = [
        [[builder.variable("copy") for _ in range(devices)] for _ in range(most)] for _ in range(experts)
    ]  # fmt: skip
    for expert in range(experts):
        number = [builder.variable("number of copies") for _ in range(most)]
        builder.row("one number", number, [1] * most, lower=1, upper=1)
        for index, chosen in enumerate(number):
            columns = [*held[expert][index], chosen]
            builder.row("copies", columns, [1] * devices + [-index - 1], lower=0, upper=0)
    full = math.floor(limit * float(load.sum()) / devices * unit * (1 + 1e-9))
    for device in range(devices):
        columns = [held[expert][index][device] for expert in range(experts) for index in range(most)]
        builder.row("places", columns, [1] * len(columns), upper=int(room[device]))
        served = [int(load[expert]) * unit // (index + 1) for expert in range(experts) for index in range(most)]
        builder.row("load", columns, served, upper=full)
    profile = Profile(name="fill a layer", back_end="cp-sat", threads=1, seed=0)
    result = solve(builder.build(), profile, work_limit=work)
    if result.values is None:
        return None, result.status is Status.INFEASIBLE
    copies = [
        [any(result.values[held[expert][index][device]] for index in range(most)) for device in range(devices)]
        for expert in range(experts)
    ]
    return np.array(copies, dtype=bool), False
