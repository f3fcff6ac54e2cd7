"""CP-SAT as a second engine: buffers of any shape, and an independent check of the search.

One integer per buffer (its address in units), one rectangle per part with fixed time and moving address; no two
rectangles overlap. With one worker, a seed and a deterministic limit the answer is reproducible.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import gcd, lcm
from typing import TYPE_CHECKING

from cosma.cp_sat import new_solver, solve, work_done
from cosma.errors import SolverUnavailableError
from cosma.packing.buffers import parts_of
from cosma.packing.sections import walls_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.packing.buffers import Buffer, Forbidden


@dataclass(frozen=True, slots=True)
class CpSatAnswer:
    """Addresses by buffer index (``None`` when none were found), what was proven, and the work in ms."""

    offsets: dict[int, int] | None
    infeasible: bool
    optimal: bool
    bound: int
    work_ms: int


def solve_cpsat(
    buffers: Sequence[Buffer],
    capacity: int,
    *,
    alignment: int = 1,
    forbidden: Sequence[Forbidden] = (),
    work_limit_ms: int | None = None,
    deadline: float | None = None,
    seed: int = 0,
    minimise: bool = False,
) -> CpSatAnswer:
    """Place the buffers with CP-SAT, or prove that they do not fit; with `minimise`, as low as possible.

    Parameters
    ----------
    work_limit_ms
        Limit in milliseconds of CP-SAT's deterministic time.
    deadline
        ``time.monotonic`` value to stop at; makes the answer depend on the clock.

    Raises
    ------
    SolverUnavailableError
        When OR-Tools is not installed.
    """
    try:
        from ortools.sat.python import cp_model
    except ImportError as error:
        raise SolverUnavailableError(
            "packing engine cp-sat: OR-Tools is not installed; install ortools or use engine 'search'"
        ) from error
    walls = walls_of(buffers, forbidden)
    unit = 0
    for buffer in buffers:
        unit = gcd(unit, buffer.size, lcm(alignment, buffer.alignment) if buffer.offset is None else 0)
        for part in parts_of(buffer):
            unit = gcd(unit, part.low, part.high)
    for wall in walls:
        unit = gcd(unit, wall.low, wall.high)
    unit = max(unit, 1)
    top = capacity // unit
    model = cp_model.CpModel()
    height = model.new_int_var(0, top, "height")
    addresses: dict[int, cp_model.LinearExprT] = {}
    times: list[cp_model.IntervalVar] = []
    spans: list[cp_model.IntervalVar] = []
    for k, buffer in enumerate(buffers):
        if buffer.offset is not None:
            continue
        parts = parts_of(buffer)
        size = buffer.size // unit
        step = max(1, lcm(alignment, buffer.alignment) // unit)
        if size > top:
            return CpSatAnswer(None, True, False, capacity + 1, 0)
        base = model.new_int_var(0, (top - size) // step, f"b{k}")
        addresses[k] = base * step
        model.add(base * step + size <= height)
        for part in parts:
            tall = (part.high - part.low) // unit
            times.append(model.new_fixed_size_interval_var(part.lower, part.upper - part.lower, ""))
            spans.append(model.new_fixed_size_interval_var(base * step + part.low // unit, tall, ""))
    for wall in walls:
        times.append(model.new_fixed_size_interval_var(wall.lower, wall.upper - wall.lower, ""))
        spans.append(model.new_fixed_size_interval_var(wall.low // unit, (wall.high - wall.low) // unit, ""))
    model.add_no_overlap_2d(times, spans)
    if minimise:
        model.minimize(height)
    solver = new_solver(
        seed=seed,
        work_limit=None if work_limit_ms is None else work_limit_ms / 1000,
        time_limit_s=None if deadline is None else max(0.01, deadline - time.monotonic()),
    )
    solver.parameters.use_timetabling_in_no_overlap_2d = True
    solver.parameters.use_energetic_reasoning_in_no_overlap_2d = True
    status, _ = solve(solver, model)
    work = int(work_done(solver) * 1000)
    if status == cp_model.INFEASIBLE:
        return CpSatAnswer(None, True, False, capacity + 1, work)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return CpSatAnswer(None, False, False, 0, work)
    offsets = {k: int(solver.value(address)) * unit for k, address in addresses.items()}
    bound = int(solver.best_objective_bound) * unit if minimise else 0
    return CpSatAnswer(offsets, False, minimise and status == cp_model.OPTIMAL, bound, work)
