"""CP-SAT as a second engine: buffers of any shape, and an independent check of the search.

One integer per buffer (its address in units), one rectangle per part with fixed time and moving address; no two
rectangles overlap. With one worker, a seed and a deterministic limit the answer is reproducible.
"""

from __future__ import annotations

import time
from math import gcd, lcm
from typing import TYPE_CHECKING

from cosma.cp_sat import new_solver, solve, work_done
from cosma.errors import SolverUnavailableError
from cosma.packing.buffers import parts_of
from cosma.packing.result import Decision
from cosma.packing.sections import walls_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.packing.buffers import Buffer, Forbidden


UNITS_PER_MS = 100
"""Units of work that a millisecond of CP-SAT's deterministic time counts."""


def solve_cpsat(
    buffers: Sequence[Buffer],
    capacity: int,
    *,
    alignment: int = 1,
    forbidden: Sequence[Forbidden] = (),
    work_limit: int | None = None,
    deadline: float | None = None,
    seed: int = 0,
) -> Decision:
    """Decide with CP-SAT whether the buffers fit; parameters are those of :func:`cosma.packing.exact.decide`.

    Raises SolverUnavailableError when OR-Tools is not installed.
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
            return _infeasible(buffers, 0)
        base = model.new_int_var(0, (top - size) // step, f"b{k}")
        addresses[k] = base * step
        for part in parts:
            tall = (part.high - part.low) // unit
            times.append(model.new_fixed_size_interval_var(part.lower, part.upper - part.lower, ""))
            spans.append(model.new_fixed_size_interval_var(base * step + part.low // unit, tall, ""))
    for wall in walls:
        times.append(model.new_fixed_size_interval_var(wall.lower, wall.upper - wall.lower, ""))
        spans.append(model.new_fixed_size_interval_var(wall.low // unit, (wall.high - wall.low) // unit, ""))
    model.add_no_overlap_2d(times, spans)
    solver = new_solver(
        seed=seed,
        work_limit=None if work_limit is None else max(1, work_limit // UNITS_PER_MS) / 1000,
        time_limit_s=None if deadline is None else max(0.01, deadline - time.monotonic()),
    )
    solver.parameters.use_timetabling_in_no_overlap_2d = True
    solver.parameters.use_energetic_reasoning_in_no_overlap_2d = True
    status, _ = solve(solver, model)
    work_ms = int(work_done(solver) * 1000)
    if status == cp_model.INFEASIBLE:
        return _infeasible(buffers, work_ms)
    found = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    offsets = {k: int(solver.value(address)) * unit for k, address in addresses.items()} if found else None
    return Decision(offsets, False, _work(work_ms), reason="" if found else "the limit")


def _infeasible(buffers: Sequence[Buffer], work_ms: int) -> Decision:
    everything = tuple(range(len(buffers)))
    return Decision(None, True, _work(work_ms), everything, (0,) * len(buffers))


def _work(ms: int) -> dict[str, int]:
    return {"cp-sat ms": ms, "units": ms * UNITS_PER_MS}
