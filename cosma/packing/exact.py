"""Runs of the complete search: restarts over several branching orders that learn from where they failed.

Short runs with different orders solve far more problems than one long run, and where runs fail is worth
knowing: each run's failures per section raise the priority of the buffers alive there in the next (the idea of
weighted constraints, Boussemart et al., ECAI 2004). Limits grow geometrically, so every problem is decided in
the end; what was proven infeasible on the way is remembered across runs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.packing.arrays import sections_of
from cosma.packing.result import Decision
from cosma.packing.sections import layout, shape_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.arrays import Floats, Ints
    from cosma.packing.buffers import Buffer, Forbidden
    from cosma.packing.sections import Component, Layout
    from cosma.packing.tables import Shape

GROWTH = 1.1
"""Factor on the node limit after each round of all orders."""

FORGET = 0.8
"""What is left of older blame after each run."""

BLAME_WEIGHTS = (1.0, 4.0, 2.0)
"""How much blame counts against an order's rank (both at most one), one weight per round of all orders."""

LARGEST_COMPONENT = 6000
"""Buffers in one component beyond which the states of the search would not fit in memory."""

THROUGHOUT = 0.5
"""Share of a component's life from which a buffer may come to lie at its bottom: sections without it may go.

Not measured."""

LARGEST_TABLES = 5_000_000
"""Entries, one per buffer and section of its life, beyond which the search is not begun: 100 bytes each."""

LARGEST_CAPACITY = 1 << 30
"""Capacity, in units, the kernel's 32-bit states can hold."""


STEPS_PER_UNIT = 1000
"""Buffers and sections the kernel looks at in one unit of work: 5 to 10 microseconds."""

UNITS_PER_BUFFER = 3
"""Units of work it takes to lay one buffer out for the kernel."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one component: the kernel's answer, addresses, what was spent, and blame per section."""

    answer: int
    found: Ints
    nodes: int
    units: int
    blame: Floats


def decide(
    buffers: Sequence[Buffer],
    capacity: int,
    *,
    alignment: int = 1,
    forbidden: Sequence[Forbidden] = (),
    work_limit: int,
    deadline: float | None = None,
    seed: int = 0,
) -> Decision:
    """Decide by complete search whether the buffers fit; see `cosma.packing.sections.supports` first.

    Fixed buffers keep their addresses and are not in the answer. `work_limit` is in units of `STEPS_PER_UNIT`
    buffers and sections looked at; it is overrun by less than what one node takes. Deterministic unless `deadline`
    (a ``time.monotonic`` value) is given.
    """
    units = UNITS_PER_BUFFER * len(buffers)
    if beyond_search(buffers):
        return Decision(None, False, _work(0, units), reason="more buffers alive together than the search can lay out")
    problem = layout(buffers, capacity, alignment, forbidden)
    if problem.capacity >= LARGEST_CAPACITY:
        reason = f"capacity is {problem.capacity} units, beyond the search"
        return Decision(None, False, _work(0, units), reason=reason)
    offsets = {k: 0 for k, buffer in enumerate(buffers) if buffer.offset is None}
    nodes = 0
    stuck = ""
    for component in sorted(problem.components, key=lambda component: -len(component.members)):
        for k, base in component.bottom:
            offsets[k] = base * problem.unit
        if not component.members:
            continue
        if len(component.members) > LARGEST_COMPONENT:
            stuck = f"a component of {len(component.members)} buffers is beyond the search"
            continue
        outcome = _solve(problem, component, work_limit - units, deadline, seed)
        nodes += outcome.nodes
        units += outcome.units
        if outcome.answer < 0:
            return Decision(None, True, _work(nodes, units), *_culprits(component, outcome.blame))
        if outcome.answer == 0:
            stuck = "the work limit" if deadline is None or time.monotonic() < deadline else "the time limit"
            continue
        for k, offset in zip(component.members, outcome.found, strict=True):
            offsets[k] = (int(offset) + component.base) * problem.unit
    return Decision(None if stuck else offsets, False, _work(nodes, units), reason=stuck)


def _work(nodes: int, units: int) -> dict[str, int]:
    return {"nodes": nodes, "units": units}


def beyond_search(buffers: Sequence[Buffer]) -> bool:
    """Whether the tables of the search, one entry per buffer and section of its life, would not fit in memory."""
    if len(buffers) ** 2 <= LARGEST_TABLES:
        return False
    lower = np.array([buffer.lower for buffer in buffers], np.int64)
    upper = np.array([buffer.upper for buffer in buffers], np.int64)
    begin, end, _ = sections_of(lower, upper)
    return int(np.sum(end - begin)) > LARGEST_TABLES


def largest_component(buffers: Sequence[Buffer]) -> int:
    """Buffers of the largest component, without those alive throughout: an estimate from their lives alone."""
    lower = np.array([buffer.lower for buffer in buffers], np.int64)
    upper = np.array([buffer.upper for buffer in buffers], np.int64)
    order = np.argsort(lower, kind="stable")
    lower, upper = lower[order], upper[order]
    while lower.size:
        label = np.concatenate(([0], np.cumsum(lower[1:] >= np.maximum.accumulate(upper)[:-1])))
        first = np.flatnonzero(np.diff(label, prepend=-1))
        throughout = upper - lower >= (THROUGHOUT * (np.maximum.reduceat(upper, first) - lower[first]))[label]
        most = int(np.bincount(label).max())
        if most <= LARGEST_COMPONENT or not throughout.any():
            return most
        lower, upper = lower[~throughout], upper[~throughout]
    return 0


def _culprits(component: Component, blame: Floats) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sort the members of a component by their distance from the section where most branches failed."""
    worst = int(np.argmax(blame))
    away = [(0, k) for k, _ in component.bottom]
    for k, cells in zip(component.members, component.cells, strict=True):
        away.append((min(abs(s - worst) for s in cells), k))
    away.sort()
    return tuple(k for _, k in away), tuple(distance for distance, _ in away)


def _solve(problem: Layout, component: Component, work_limit: int, deadline: float | None, seed: int) -> _Outcome:
    """Run the kernel on one component until it is decided or a limit is met."""
    from cosma.packing.tables import NODES, STEPS
    from cosma.packing.workspace import Workspace, search

    shape = shape_of(problem, component)
    count = len(component.members)
    capacity = problem.capacity - component.base
    found = np.zeros(count, np.int64)
    blame = np.zeros(component.sections)
    space = Workspace(shape)
    orders = _orders(shape)
    generator = np.random.default_rng(seed)
    limit = 2.0 * count + 100
    nodes = steps = run = answer = 0
    most_steps = work_limit * STEPS_PER_UNIT
    started = time.monotonic()
    while answer == 0 and steps < most_steps:
        trust = BLAME_WEIGHTS[run // len(orders) % len(BLAME_WEIGHTS)]
        order = orders[run % len(orders)] / count + trust * _weight(shape, blame)
        if run >= 2 * len(orders):
            order = order + 0.1 * generator.random(count)
        budget = int(limit)
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            budget = min(budget, int(left * nodes / max(time.monotonic() - started, 1e-3)) + 200)
        fresh = np.zeros(component.sections)
        answer, found, tally = search(shape, capacity, order, space, budget, most_steps - steps, fresh)
        nodes += int(tally[NODES])
        steps += int(tally[STEPS])
        blame = FORGET * blame + fresh / max(1.0, float(fresh.max()))
        run += 1
        if run % len(orders) == 0:
            limit *= GROWTH
    return _Outcome(answer, found, nodes, -(-steps // STEPS_PER_UNIT), blame)


def _orders(shape: Shape) -> list[Floats]:
    """Rank the buffers in several ways; the highest rank is branched on first among equally low addresses."""
    from cosma.packing.tables import CELL, FIRST, HEIGHT, SECTION

    begins = shape.buffers[CELL]
    height = np.maximum.reduceat(shape.cells[HEIGHT], begins[:-1]).astype(np.float64)
    width = np.diff(begins).astype(np.float64)
    load = np.zeros(shape.section_count)
    np.add.at(load, shape.cells[SECTION], shape.cells[HEIGHT])
    crowd = np.maximum.reduceat(load[shape.cells[SECTION]], begins[:-1])
    early = -shape.buffers[FIRST, :-1].astype(np.float64)
    area = width * height
    return [
        _rank(width, height),
        _rank(crowd, width, area),
        _rank(early, width),
        _rank(area, height),
        _rank(crowd, area, width),
    ]


def _rank(*keys: Floats) -> Floats:
    order = np.lexsort(keys[::-1])
    rank = np.empty(order.size)
    rank[order] = np.arange(order.size)
    return rank


def _weight(shape: Shape, blame: Floats) -> Floats:
    """Most blame on any section of each buffer, scaled to at most one."""
    from cosma.packing.tables import CELL, SECTION

    if not blame.any():
        return np.zeros(shape.buffer_count)
    begins = shape.buffers[CELL, :-1]
    weight: Floats = np.maximum.reduceat(blame[shape.cells[SECTION]], begins) / blame.max()
    return weight
