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

from cosma.packing.sections import layout, shape_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cosma.packing.buffers import Buffer, Forbidden
    from cosma.packing.sections import Component, Layout
    from cosma.packing.tree import Shape

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

GROWTH = 1.1
"""Factor on the node limit after each round of all orders."""

FORGET = 0.8
"""What is left of older blame after each run."""

BLAME_WEIGHTS = (1.0, 4.0, 2.0)
"""How much blame counts against an order's rank (both at most one), one weight per round of all orders."""

LARGEST_COMPONENT = 6000
"""Buffers in one component beyond which the states of the search would not fit in memory."""

LARGEST_CAPACITY = 1 << 30
"""Capacity, in units, the kernel's 32-bit states can hold."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the search found: addresses by buffer index, or infeasible members, or neither.

    `culprits` are the indices of the component proven not to fit.
    """

    offsets: dict[int, int] | None
    infeasible: bool
    nodes: int
    culprits: tuple[int, ...] = ()
    reason: str = ""


def decide(
    buffers: Sequence[Buffer],
    capacity: int,
    *,
    alignment: int = 1,
    forbidden: Sequence[Forbidden] = (),
    node_limit: int,
    deadline: float | None = None,
    seed: int = 0,
) -> Decision:
    """Decide by complete search whether the buffers fit; see `cosma.packing.sections.supports` first.

    Fixed buffers keep their addresses and are not in the answer. Deterministic unless `deadline` (a
    ``time.monotonic`` value) is given.
    """
    problem = layout(buffers, capacity, alignment, forbidden)
    if problem.capacity >= LARGEST_CAPACITY:
        return Decision(None, False, 0, reason=f"capacity is {problem.capacity} units, beyond the search")
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
        answer, found, spent = _solve(problem, component, node_limit - nodes, deadline, seed)
        nodes += spent
        if answer < 0:
            culprits = (*component.members, *(k for k, _ in component.bottom))
            return Decision(None, True, nodes, culprits=culprits)
        if answer == 0:
            stuck = "the work limit" if deadline is None or time.monotonic() < deadline else "the time limit"
            continue
        for k, offset in zip(component.members, found, strict=True):
            offsets[k] = (int(offset) + component.base) * problem.unit
    if stuck:
        return Decision(None, False, nodes, reason=stuck)
    return Decision(offsets, False, nodes)


def _solve(
    problem: Layout, component: Component, node_limit: int, deadline: float | None, seed: int
) -> tuple[int, Ints, int]:
    """Run the kernel on one component until it is decided or a limit is met."""
    from cosma.packing.tree import search

    shape = shape_of(problem, component)
    count = len(component.members)
    capacity = problem.capacity - component.base
    found = np.zeros(count, np.int64)
    blame = np.zeros(component.sections)
    memory = np.zeros((2, 1 << (15 if count < 64 else 17)), np.uint64)
    orders = _orders(shape)
    generator = np.random.default_rng(seed)
    limit = 2.0 * count + 100
    nodes = 0
    run = 0
    started = time.monotonic()
    while True:
        trust = BLAME_WEIGHTS[run // len(orders) % len(BLAME_WEIGHTS)]
        order = orders[run % len(orders)] / count + trust * _weight(shape, blame)
        if run >= 2 * len(orders):
            order = order + 0.1 * generator.random(count)
        budget = min(int(limit), node_limit - nodes)
        if deadline is not None:
            left = deadline - time.monotonic()
            rate = nodes / max(time.monotonic() - started, 1e-3)
            budget = min(budget, int(rate * left) + 200) if left > 0 else 0
        if budget <= 0:
            return 0, found, nodes
        fresh = np.zeros(component.sections)
        answer, spent, _ = search(shape, capacity, order, memory, budget, found, fresh)
        nodes += int(spent)
        if answer != 0:
            return int(answer), found, nodes
        blame = FORGET * blame + fresh / max(1.0, float(fresh.max()))
        run += 1
        if run % len(orders) == 0:
            limit *= GROWTH


def _orders(shape: Shape) -> list[Floats]:
    """Rank the buffers in several ways; the highest rank is branched on first among equally low addresses."""
    height = np.maximum.reduceat(shape.cell_height, shape.cell_ptr[:-1]).astype(np.float64)
    width = np.diff(shape.cell_ptr).astype(np.float64)
    load = np.zeros(shape.item_ptr.size - 1)
    np.add.at(load, shape.cell_section, shape.cell_height)
    crowd = np.maximum.reduceat(load[shape.cell_section], shape.cell_ptr[:-1])
    early = -shape.first.astype(np.float64)
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
    if not blame.any():
        return np.zeros(shape.first.size)
    weight: Floats = np.maximum.reduceat(blame[shape.cell_section], shape.cell_ptr[:-1]) / blame.max()
    return weight
