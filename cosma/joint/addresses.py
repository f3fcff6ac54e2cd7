"""Addresses in the joint program: by pairwise disjunctions, or by intervals."""

from __future__ import annotations

from math import lcm
from typing import TYPE_CHECKING

from cosma.solvers.model import NoOverlap

if TYPE_CHECKING:
    from cosma.joint.builder import JointBuilder


def _add_variables(b: JointBuilder) -> None:
    places = b.problem.places
    for t, i in b.inside:
        if b.space(t) > b.room:
            continue
        fixed = None if places is None else places.address.get(t)
        if fixed is not None:
            b.address[t, i] = b.out.variable("address", fixed // b.unit, fixed // b.unit)
            continue
        b.address[t, i] = b.out.variable("address", 0, b.limit - b.space(t))
        if places is not None and t in places.alignment:
            step = lcm(b.problem.alignment, places.alignment[t]) // b.unit
            multiple = b.out.variable("multiple", 0, b.limit // step)
            b.out.row("own alignment", (b.address[t, i], multiple), (1, -step), lower=0, upper=0)
    if places is not None and places.excluded:
        _add_walls(b, [(low // b.unit, high // b.unit) for low, high in places.excluded])


def _add_walls(b: JointBuilder, walls: list[tuple[int, int]]) -> None:
    """What is inside lies below or above each excluded range."""
    out, limit = b.out, b.limit
    for (t, i), here in b.address.items():
        space, inside = b.space(t), b.inside[t, i]
        for low, high in walls:
            side = out.variable("side")
            # address + space <= low where ``side``, address >= high elsewhere; nothing is asked of what is not inside
            out.row("below a range", (here, side, inside), (1, limit, limit), upper=low - space + 2 * limit)
            out.row("above a range", (here, side, inside), (1, high, -high), lower=0)


def add_linear_addresses(b: JointBuilder) -> None:
    """Add addresses as pairwise disjunctions, for any back end."""
    out, room = b.out, b.limit
    _add_variables(b)
    for (t, i), here in b.address.items():
        before = b.address.get((t, i - 1))
        if before is None:
            continue
        switches = (b.inside[t, i], b.inside[t, i - 1], b.read[t, i])
        for sign in (1, -1):
            # |here - before| <= room * (2 - inside - inside before + read)
            out.row("address stays", (here, before, *switches), (sign, -sign, room, room, -room), upper=2 * room)
    for (r, u, i), z in b.takeover.items():
        for sign in (1, -1) if (u, i) in b.address else ():
            columns = (b.address[r, i], b.address[u, i], z)
            out.row("takeover address", columns, (sign, -sign, room), upper=room)
    by_step: dict[int, list[int]] = {}
    for t, i in b.address:
        by_step.setdefault(i, []).append(t)
    shared: dict[tuple[int, int, int], int] = {}
    for (r, u, i), z in b.takeover.items():
        shared[min(r, u), max(r, u), i] = z
    for i, row in by_step.items():
        for k, t in enumerate(row):
            for u in row[k + 1 :]:
                _add_disjunction(b, t, u, i, shared.get((min(t, u), max(t, u), i)))


def _add_disjunction(b: JointBuilder, t: int, u: int, i: int, shared: int | None) -> None:
    out, room = b.out, b.limit
    below, above = out.variable("below"), out.variable("below")
    for low, high, side in ((t, u, below), (u, t, above)):
        space = b.space(low)
        # address(low) + space <= address(high) where ``side``; no address exceeds the room
        columns = (b.address[low, i], b.address[high, i], side)
        out.row("no overlap", columns, (1, -1, room), upper=room - space)
    either = [below, above, b.inside[t, i], b.inside[u, i]]
    coefficients = [1, 1, -1, -1]
    if shared is not None:
        either.append(shared)
        coefficients.append(1)
    out.row("one below the other", either, coefficients, lower=-1)


def add_interval_addresses(b: JointBuilder) -> None:
    """Add addresses as intervals that may not overlap, for CP-SAT."""
    out = b.out
    _add_variables(b)
    for (t, i), here in b.address.items():
        before = b.address.get((t, i - 1))
        if before is None:
            continue
        carried = out.variable("carried")
        switches = (carried, b.inside[t, i], b.inside[t, i - 1], b.read[t, i])
        out.row("carried", switches, (1, -1, -1, 1), lower=-1)
        out.row("address stays", (here, before), (1, -1), lower=0, upper=0, enforced_by=carried)
    overlaid: dict[tuple[int, int], list[int]] = {}
    for (r, u, i), z in b.takeover.items():
        if (u, i) not in b.address:
            continue
        columns = (b.address[r, i], b.address[u, i])
        out.row("takeover address", columns, (1, -1), lower=0, upper=0, enforced_by=z)
        overlaid.setdefault((r, i), []).append(z)
    groups: dict[int, list[tuple[int, int, int]]] = {}
    for t, i in b.address:
        inside = present = b.inside[t, i]
        if (t, i) in overlaid:
            # While an operator runs, its result lies within the operand that it takes over.
            present = out.variable("apart")
            zs = overlaid[t, i]
            out.row("apart", [present, inside, *zs], [1, -1, *[1] * len(zs)], lower=0, upper=0)
        groups.setdefault(i, []).append((b.address[t, i], b.space(t), present))
    for i in sorted(groups):
        starts, sizes, presents = zip(*groups[i], strict=True)
        out.forbid_overlap(NoOverlap(starts, sizes, presents))
