"""What is known at each capacity, and where more capacity stops paying."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from cosma import door
from cosma.text import counted, short_repr, shortened
from cosma.units import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.accelerator import Accelerator

#: What a row of a curve with tiles has beside the others.
TILE_COLUMNS = ("tiles", "operators", "transfers", "tiling_lower_bound", "whole_noncompulsory", "whole_lower_bound")

#: Share of the height of a curve by which a knee lies below the chord, at the least; not measured.
KNEE = 0.08


@dataclass(frozen=True, slots=True)
class Whole:
    """What is known at one capacity of plans without tiles."""

    #: Least traffic beyond the compulsory known to be possible; None where whole operators do not fit.
    noncompulsory_bytes: int | None
    #: No plan of whole operators moves less.
    bound_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Tiles:
    """The tiles of the plan of one capacity."""

    #: Tiles, operators that run whole among them, and the operators that they were cut from.
    count: int
    operator_count: int
    #: Loads, stores and streamed tensors of the plan.
    transfers: int
    #: No plan of these tiles moves less.
    bound_bytes: int


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What is known at one capacity."""

    #: Of the scratchpad, reserved bytes included.
    capacity_bytes: int
    #: Least traffic beyond the compulsory known to be possible: by a plan for this capacity or a smaller one.
    noncompulsory_bytes: int
    #: No plan for this capacity moves less: by a bound for this capacity or a larger one. With tiles, whatever is cut
    #: or fused.
    bound_bytes: int
    #: Whether more capacity brings clearly less per byte from here on.
    knee: bool = False
    #: With a tiling, what whole operators cost here, and the tiles of the plan.
    whole: Whole | None = None
    tiles: Tiles | None = None
    #: Least capacity at which that traffic is known to be possible: what the plan takes; by default the capacity.
    suffices_bytes: int | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        if self.suffices_bytes is None:
            put(self, "suffices_bytes", self.capacity_bytes)
        for name in ("capacity_bytes", "noncompulsory_bytes", "bound_bytes", "suffices_bytes"):
            put(self, name, door.size(getattr(self, name), f"point: {name}"))
        put(self, "knee", door.flag(self.knee, "point: knee"))
        if self.whole is not None:
            door.instance(self.whole, Whole, "point: whole")
        if self.tiles is not None:
            door.instance(self.tiles, Tiles, "point: tiles")

    __repr__ = short_repr


@dataclass(frozen=True, slots=True)
class Curve:
    """Traffic against capacity."""

    #: What for; the accelerator's capacity is the largest looked at.
    model: str
    accelerator: Accelerator
    #: Traffic no plan does without, the same at every capacity.
    compulsory_bytes: int
    #: By capacity, ascending. Traffic and bound never rise from one to the next.
    points: tuple[CurvePoint, ...]
    #: Smallest feasible capacity of whole operators, and one at which some known order of them spills nothing.
    smallest_bytes: int
    enough_bytes: int
    #: How operators are cut; ``none`` where they are not.
    tiling: str = "none"
    #: Smallest capacity at which a plan, and one of whole operators, is known to move nothing twice; None where none
    #: is.
    once_bytes: int | None = None
    once_whole_bytes: int | None = None
    #: Largest capacity looked at for which it is proven that something moves twice; None where that is proven of none.
    never_once_bytes: int | None = None
    #: Whether an interrupt ended the work before all points were planned.
    partial: bool = False

    def __post_init__(self) -> None:
        from cosma.accelerator import Accelerator

        put = object.__setattr__
        put(self, "model", door.text(self.model, "curve: model"))
        door.instance(self.accelerator, Accelerator, "curve: accelerator")
        put(self, "points", door.sequence(self.points, CurvePoint, "curve: points"))
        for name in ("compulsory_bytes", "smallest_bytes", "enough_bytes"):
            put(self, name, door.size(getattr(self, name), f"curve: {name}"))
        put(self, "tiling", door.text(self.tiling, "curve: tiling"))
        for name in ("once_bytes", "once_whole_bytes", "never_once_bytes"):
            if getattr(self, name) is not None:
                put(self, name, door.size(getattr(self, name), f"curve: {name}"))
        put(self, "partial", door.flag(self.partial, "curve: partial"))

    def __repr__(self) -> str:
        ends = sorted({self.points[0].capacity_bytes, self.points[-1].capacity_bytes}) if self.points else []
        shown = "".join(f", {format_size(end)}" for end in ends)
        return f"Curve({shortened(repr(self.model))}, {counted(len(self.points), 'point')}{shown})"

    def to_records(self) -> list[dict[str, Any]]:
        """One row a point, as ``pandas.DataFrame`` takes them; sizes in bytes, None where nothing is known."""
        rows = []
        for p in self.points:
            gap = (p.noncompulsory_bytes - p.bound_bytes) / p.noncompulsory_bytes if p.noncompulsory_bytes else 0.0
            row: dict[str, Any] = {
                "capacity": p.capacity_bytes, "noncompulsory": p.noncompulsory_bytes, "lower_bound": p.bound_bytes,
                "total": self.compulsory_bytes + p.noncompulsory_bytes, "gap": gap, "knee": p.knee,
                "suffices": p.suffices_bytes,
            }  # fmt: skip
            if self.tiling != "none":
                row |= dict.fromkeys(TILE_COLUMNS)
                if p.tiles is not None:
                    known = (p.tiles.count, p.tiles.operator_count, p.tiles.transfers, p.tiles.bound_bytes)
                    row |= dict(zip(TILE_COLUMNS, known, strict=False))
                if p.whole is not None and p.whole.noncompulsory_bytes is not None:
                    row["whole_noncompulsory"] = p.whole.noncompulsory_bytes
                    row["whole_lower_bound"] = p.whole.bound_bytes
            rows.append(row)
        return rows


def monotone(points: Sequence[CurvePoint]) -> list[CurvePoint]:
    """Carry traffic to larger capacities and bounds to smaller ones, where they hold too."""
    found = list(points)
    for i, point in enumerate(points):
        least, enough = min((p.noncompulsory_bytes, suffices(p)) for p in points if suffices(p) <= point.capacity_bytes)
        whole = _least(point.whole, found[i - 1].whole) if i else point.whole
        found[i] = replace(point, noncompulsory_bytes=least, suffices_bytes=enough, whole=whole)
    for i in range(len(found) - 2, -1, -1):
        bound, whole, above = max(found[i].bound_bytes, found[i + 1].bound_bytes), found[i].whole, found[i + 1].whole
        if whole is not None and above is not None:
            whole = replace(whole, bound_bytes=max(whole.bound_bytes, above.bound_bytes))
        found[i] = replace(found[i], bound_bytes=bound, whole=whole)
    return found


def suffices(point: CurvePoint) -> int:
    """Least capacity at which a point's traffic is known to be possible."""
    return point.capacity_bytes if point.suffices_bytes is None else point.suffices_bytes


def corners(points: Sequence[CurvePoint]) -> list[int]:
    """Where the traffic of each point begins: what its plan takes, or its capacity where traffic does not fall."""
    return [
        suffices(b) if b.noncompulsory_bytes < a.noncompulsory_bytes else b.capacity_bytes
        for a, b in pairwise((points[0], *points))
    ] if points else []


def _least(here: Whole | None, below: Whole | None) -> Whole | None:
    if here is None or below is None or below.noncompulsory_bytes is None:
        return here
    known = below.noncompulsory_bytes if here.noncompulsory_bytes is None else here.noncompulsory_bytes
    return replace(here, noncompulsory_bytes=min(known, below.noncompulsory_bytes))


def mark_knees(points: Sequence[CurvePoint]) -> tuple[CurvePoint, ...]:
    """Mark the capacities worth having: corners of the curve, where a further byte starts to save less.

    The point farthest below the chord between two ends is a knee if it lies more than :data:`KNEE` of the whole height
    below it; the two halves are then looked at in the same way (Satopaa et al., "Finding a Kneedle in a
    Haystack", 2011, for the criterion; Ramer, Douglas and Peucker for the recursion). Where traffic reaches
    its least is a knee too.
    """
    if not points:
        return ()
    x = [float(c) for c in corners(points)]
    y = [float(p.noncompulsory_bytes) for p in points]
    height = y[0] - y[-1]
    knees: set[int] = set()
    if height > 0:
        stack = [(0, len(points) - 1)]
        while stack:
            a, b = stack.pop()
            if b - a < 2:
                continue
            sag = [y[a] + (y[b] - y[a]) * (x[i] - x[a]) / (x[b] - x[a]) - y[i] for i in range(a + 1, b)]
            most = max(sag)
            if most > KNEE * height:
                at = a + 1 + sag.index(most)
                knees.add(at)
                stack += [(a, at), (at, b)]
        knees.add(next(i for i, value in enumerate(y) if value == y[-1]))
    return tuple(replace(p, knee=i in knees) for i, p in enumerate(points))
