"""Which operators are cut, along which axes of their result, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product

from cosma.access.boxes import Box
from cosma.errors import InputError

#: Positions along one axis, ascending and inside it, at which a result is cut.
Cuts = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tiling:
    """Cuts of some operators; those not named stay whole.

    Attributes
    ----------
    cuts
        For each operator that is cut, the positions along each axis of its first result.
    segments
        Operators whose tiles are interleaved, segment by segment in the order they run; empty for one segment of all.
        An operator that no segment names is one by itself, in the place that the graph gives it.
    """

    cuts: Mapping[str, tuple[Cuts, ...]] = field(default_factory=dict)
    segments: tuple[tuple[str, ...], ...] = ()

    def boxes(self, operator: str, shape: Sequence[int]) -> list[Box]:
        """Tiles of an operator in row-major order; its whole result where it is not cut.

        Raises
        ------
        InputError
            If the cuts do not fit the result.
        """
        given = self.cuts.get(operator, ((),) * len(shape))
        if len(given) != len(shape):
            raise InputError(f"tiling: operator {operator!r} has {len(shape)} axes, and cuts for {len(given)}")
        spans = []
        for axis, (positions, size) in enumerate(zip(given, shape, strict=True)):
            edges = (0, *positions, size)
            if any(a >= b for a, b in pairwise(edges)) and size > 0:
                raise InputError(
                    f"tiling: operator {operator!r}, axis {axis} of {size}: cuts at {list(positions)} do not ascend "
                    "inside it"
                )
            spans.append(list(pairwise(edges)))
        return [tuple(box) for box in product(*spans)]


def even_cuts(size: int, count: int) -> Cuts:
    """Positions that cut an axis into ``count`` intervals whose lengths differ by one at most."""
    count = max(1, min(count, size))
    return tuple(size * i // count for i in range(1, count))


def step_cuts(size: int, step: int) -> Cuts:
    """Positions that cut an axis every ``step`` elements."""
    return tuple(range(step, size, step))
