"""Whether one layer can keep a limit at all, and a way to fill it that does. Crossings do not appear in it.

- Where devices have two places at most, all numbers of copies are tried (``copy_pairs``).
- Where few sets of copies can lie on one device together, an integer program (CP-SAT) says how many devices hold each
  set. Devices are alike in it, so that no renaming of devices is tried twice.
- Else a binary says that an expert has a copy on a device and ``c`` copies in all.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from cosma.placement.copies import split_ratios
from cosma.placement.copy_pairs import ROUNDING, fill_pairs
from cosma.placement.load_only import least_imbalance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.placement.copies import CopyProblem

#: Experts x devices x numbers of copies up to which a layer is worth a program.
_MOST_BINARIES = 5000
#: Sets of copies up to which their program is taken: with 800 to 1500 sets it fills layers of 8 experts on 8 devices
#: with 3 places that the other leaves open; with 5000 both leave layers open.
_MOST_SETS = 3000
#: Largest sum of the loads of all copies in units of a common share: the solver counts in 64 bits.
_LARGEST_SUM = 1 << 62
#: Work limits (CP-SAT's unit): one layer that proves impossible is enough, and among several one is soon decided.
FILL_WORK = (0.5, 5.0)
#: Shares of a layer's imbalance: an interval that is short, and less than any two ways to fill a layer differ by.
_SHORT, _EVEN = 1e-3, 1e-7
#: Devices up to which loads of all shares have a common unit that leaves sums exact.
_MOST_DEVICES = 16


def fill_layer(
    problem: CopyProblem, layer: int, limit: float, work: float
) -> tuple[NDArray[np.bool_] | None, bool]:
    """Search for copies ``[experts, devices]`` of one layer within a limit on its max-over-mean load.

    Returns copies or None, and whether it is proven that there are none.
    """
    devices = problem.topology.devices
    room = np.bincount(problem.device_of, minlength=devices)
    tried = fill_pairs(problem.load[layer], room, limit)
    if tried is not None and (tried[1] or tried[0] is not None):
        return tried
    load = np.rint(problem.load[layer]).astype(np.int64)
    if devices > _MOST_DEVICES or (load != problem.load[layer]).any() or not load.any():
        return None, False
    found = fill_by_sets(load, room, limit, work)
    return fill_by_places(load, room, limit, work) if found is None else found


def even_layers(problem: CopyProblem, held: NDArray[np.bool_], limit: float) -> NDArray[np.bool_]:
    """Return copies whose layers are filled more evenly, where programs find ways, until their mean keeps a limit.

    The interval in which the least of a layer lies is halved until it is short; then anything better will do.
    """
    held = held.copy()
    even = split_ratios(problem.load, held)
    lowest = np.maximum(1.0, least_imbalance(problem.affinity, problem.topology, problem.replicas_per_device))
    while even.mean() > limit * (1.0 + 1e-15):
        layer = int((even - lowest).argmax())
        if lowest[layer] >= even[layer] * (1.0 - _EVEN):
            break
        asked = (lowest[layer] + even[layer]) / 2.0
        if asked >= even[layer] * (1.0 - _SHORT):
            asked = even[layer] * (1.0 - _EVEN)
        copies, _ = fill_layer(problem, layer, float(asked), FILL_WORK[0])
        reached = np.inf if copies is None else float(split_ratios(problem.load[layer][None], copies[None])[0])
        if copies is not None and reached < even[layer]:
            held[layer], even[layer] = copies, reached
        else:
            lowest[layer] = asked
    return held


def loadings(
    load: NDArray[np.int64], room: NDArray[np.int64], limit: float
) -> list[tuple[tuple[int, int], ...]] | None:
    """Return the sets of copies, (expert, number of its copies) each, that a device may hold; None if too many.

    What the other devices cannot carry within the limit has to lie on a device: sets have a least load too.
    """
    devices, places = len(room), int(room.sum())
    full = limit * float(load.sum()) / devices * (1.0 + ROUNDING)
    lowest = float(load.sum()) - (devices - 1) * full - 1e-9
    least = np.maximum(1, np.ceil(load / full - ROUNDING)).astype(int)
    spare = places - int(least.sum())
    copies = sorted(
        (-float(load[expert]) / number, expert, number)
        for expert, first in enumerate(least.tolist())
        for number in range(first, min(devices, first + spare) + 1)
    )
    found: list[tuple[tuple[int, int], ...]] = []
    # Depth first, heaviest copies first: first copy to try, chosen copies, their load, their copies beyond the least.
    stack: list[tuple[int, tuple[tuple[int, int], ...], float, int]] = [(0, (), 0.0, 0)]
    while stack:
        first, chosen, carried, beyond = stack.pop()
        if chosen and carried >= lowest:
            found.append(chosen)
            if len(found) > _MOST_SETS:
                return None
        left = int(room.max()) - len(chosen)
        for index in range(first, len(copies) if left else first):
            share, expert, number = -copies[index][0], copies[index][1], copies[index][2]
            if carried + share * left < lowest:
                break
            further = beyond + number - int(least[expert])
            if carried + share > full or further > spare or any(expert == other for other, _ in chosen):
                continue
            stack.append((index + 1, (*chosen, (expert, number)), carried + share, further))
    return found


def fill_by_sets(
    load: NDArray[np.int64], room: NDArray[np.int64], limit: float, work: float
) -> tuple[NDArray[np.bool_] | None, bool] | None:
    """Solve the program of how many devices hold each set; None if there are too many sets."""
    from cosma.solvers import Profile, Status, solve
    from cosma.solvers.model import ModelBuilder

    sets = loadings(load, room, limit)
    if sets is None:
        return None
    devices = len(room)
    builder = ModelBuilder("fill a layer by sets")
    copies = sorted({copy for held in sets for copy in held})
    chosen = {copy: builder.variable("number of copies") for copy in copies}
    for expert in range(len(load)):
        own = [chosen[copy] for copy in copies if copy[0] == expert]
        if not own:
            return None, True
        builder.row("one number", own, [1] * len(own), lower=1, upper=1)
    builder.row("all places", list(chosen.values()), [number for _, number in copies], upper=int(room.sum()))
    count = [builder.variable("devices", 0, min(number for _, number in held)) for held in sets]
    builder.row("devices", count, [1] * len(count), lower=devices, upper=devices)
    of_copy: dict[tuple[int, int], list[int]] = {copy: [] for copy in copies}
    for variable, held in zip(count, sets, strict=True):
        for copy in held:
            of_copy[copy].append(variable)
    for copy, columns in of_copy.items():
        builder.row("copies", [*columns, chosen[copy]], [1] * len(columns) + [-copy[1]], lower=0, upper=0)
    for places in range(int(room.min()), int(room.max())):
        large = [variable for variable, held in zip(count, sets, strict=True) if len(held) > places]
        builder.row("places", large, [1] * len(large), upper=int((room > places).sum()))
    profile = Profile(name="fill a layer", back_end="cp-sat", threads=1, seed=0)
    result = solve(builder.build(), profile, work_limit=work)
    if result.values is None:
        return None, result.status is Status.INFEASIBLE
    taken = [held for variable, held in zip(count, sets, strict=True) for _ in range(int(result.values[variable]))]
    taken.sort(key=len)
    placed = np.zeros((len(load), devices), dtype=bool)
    for device, held in zip(np.argsort(room, kind="stable"), taken, strict=True):
        placed[[expert for expert, _ in held], device] = True
    return placed, False


def fill_by_places(
    load: NDArray[np.int64], room: NDArray[np.int64], limit: float, work: float
) -> tuple[NDArray[np.bool_] | None, bool]:
    """Solve the program of what lies on every device."""
    from cosma.solvers import Profile, Status, solve
    from cosma.solvers.model import ModelBuilder

    experts, devices = len(load), len(room)
    most = int(min(devices, 1 + room.sum() - experts))
    if experts * devices * most > _MOST_BINARIES:
        return None, False
    unit = math.lcm(*range(1, most + 1))
    if unit * most * int(load.sum()) > _LARGEST_SUM:
        return None, False
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
    full = math.floor(limit * float(load.sum()) / devices * unit * (1 + ROUNDING))
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
