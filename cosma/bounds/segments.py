"""Segments: operators between two that are comparable to all others, and the tensors that can be alive meanwhile.

Numbers are a topological order, so between two such operators they are consecutive; a segment ends with the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cosma.problem.rules import may_stream_anything

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.bounds.lifetimes import Lifetime
    from cosma.problem import Problem
    from cosma.problem.precedence import Reach


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive operators in every order, and the tensors that can be alive meanwhile."""

    #: Operators ``[first, end)``.
    first: int
    end: int
    #: By tensor: the operators of the segment that touch it.
    touched: dict[int, tuple[int, ...]]
    #: Tensors touched before the segment, and after it.
    before: frozenset[int]
    after: frozenset[int]
    #: By tensor: what the least gap within the segment costs, or None for a tensor that can have none: it is there
    #: whenever it is touched.
    price: dict[int, int | None]


def segments_of(problem: Problem, reach: Reach, lifetimes: dict[int, Lifetime]) -> list[Segment]:
    """Cut the operators after each that is comparable to all others; in order, without segments of one operator.

    No gap in the scratchpad is a gap of two segments: a tensor that could be given up in several is counted in the
    one with the most tensors in bytes, and left out of the others.
    """
    touches: list[list[int]] = [[] for _ in range(problem.tensor_count)]
    for v in range(problem.operator_count):
        for t in dict.fromkeys([*problem.operands_of(v).tolist(), *problem.results_of(v).tolist()]):
            touches[t].append(v)
    found: list[Segment] = []
    first = 0
    for end in [*(v + 1 for v in range(problem.operator_count) if not reach.unordered(v)), problem.operator_count]:
        if end - first > 1:
            found.append(_segment(problem, lifetimes, touches, first, end))
        first = end
    return _disjoint(problem, found)


def _segment(
    problem: Problem, lifetimes: dict[int, Lifetime], touches: Sequence[Sequence[int]], first: int, end: int
) -> Segment:
    touched: dict[int, tuple[int, ...]] = {}
    before, after = set(), set()
    price: dict[int, int | None] = {}
    for t, places in enumerate(touches):
        if problem.space_bytes[t] == 0 or not places or places[0] >= end or places[-1] < first:
            continue
        lifetime = lifetimes.get(t)
        if not may_stream_anything(problem) and (lifetime is None or lifetime.dead or places[0] == end - 1):
            price[t] = None
        elif lifetime is not None:
            price[t] = lifetime.read_bytes + lifetime.store_bytes
        else:
            # Touched once, and that may be without space.
            continue
        touched[t] = tuple(v for v in places if first <= v < end)
        if places[0] < first:
            before.add(t)
        if places[-1] >= end:
            after.add(t)
    return Segment(first, end, touched, frozenset(before), frozenset(after), price)


def _disjoint(problem: Problem, segments: Sequence[Segment]) -> list[Segment]:
    """Count every tensor that can be given up in one segment only."""
    weight = [sum(int(problem.space_bytes[t]) for t in segment.touched) for segment in segments]
    owner: dict[int, int] = {}
    for i, segment in enumerate(segments):
        for t, price in segment.price.items():
            if price is not None and (t not in owner or weight[i] > weight[owner[t]]):
                owner[t] = i
    return [_without(segment, {t for t, i in owner.items() if i != at}) for at, segment in enumerate(segments)]


def _without(segment: Segment, others: set[int]) -> Segment:
    """Leave out tensors that are counted elsewhere, unless they are sure to be there."""
    gone = {t for t in others if segment.price.get(t) is not None}
    return Segment(
        segment.first,
        segment.end,
        {t: touched for t, touched in segment.touched.items() if t not in gone},
        segment.before - gone,
        segment.after - gone,
        {t: price for t, price in segment.price.items() if t not in gone},
    )
