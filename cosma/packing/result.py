"""What the packing engine answers."""

from __future__ import annotations

from dataclasses import dataclass, field

import cosma.door as door
from cosma.text import counted, shortened


class PackingStatus(door.Choice):
    """What is known after a run."""

    PACKED = "packed"
    INFEASIBLE = "infeasible"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Decision:
    """What one engine found: addresses by buffer index, or that there are none, or neither."""

    #: Addresses of buffers that are not fixed; None where none were found, be it because there are none.
    offsets: dict[int, int] | None
    infeasible: bool
    #: What was done, as in :attr:`PackingResult.work`.
    work: dict[str, int]
    #: Where there are none: buffers proven not to fit together, those alive where most branches failed first, and of
    #: each how many sections it lies away from there.
    culprits: tuple[int, ...] = ()
    distances: tuple[int, ...] = ()
    #: What ended an engine that found neither.
    reason: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class PackingResult:
    """Addresses, or a proof that none exist, or neither.

    Parameters
    ----------
    status
        ``packed``: `offsets` is a valid packing within `capacity`; ``infeasible``: none exists;
        ``unknown``: a limit came first.
    capacity
        Bytes that were available; for `minimise`, the height that was reached.
    offsets
        Address of every buffer by id; empty unless packed.
    height
        Highest byte used plus one; ``None`` unless packed.
    lower_bound
        No packing of these buffers is lower than this.
    conflict
        When infeasible: ids of buffers that cannot be placed together (fixed ones and forbidden ranges are
        given). Irreducible when `irreducible`: without any one of them the rest fits.
    distances
        Until `conflict` is reduced: how far each of its buffers is from where the search failed most, in sections.
    suspects
        When infeasible or unknown: the buffers that found no place in the lowest packing met.
    placed
        Then too: addresses of all others in that packing; they lie within `capacity` and overlap nowhere.
    irreducible
        Whether `conflict` was proven irreducible within the limits.
    reason
        One sentence for people.
    engine
        What answered: ``first-fit``, ``improve``, ``search``, ``cp-sat`` or ``bound``.
    work
        What was done per engine (placements, search nodes, milliseconds of deterministic time, tests of conflicts)
        and, as ``units``, all of it in the units of the work limit.
    """

    status: PackingStatus
    capacity: int
    offsets: dict[str, int] = field(default_factory=dict)
    height: int | None = None
    lower_bound: int = 0
    conflict: tuple[str, ...] = ()
    distances: tuple[int, ...] = ()
    suspects: tuple[str, ...] = ()
    placed: dict[str, int] = field(default_factory=dict)
    irreducible: bool = False
    reason: str = ""
    engine: str = ""
    work: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "status", door.choice(PackingStatus, self.status, "packing result: status"))
        for name in ("capacity", "lower_bound"):
            put(self, name, door.integer(getattr(self, name), f"packing result: {name}", most=2 * door.UNLIMITED))
        if self.height is not None:
            put(self, "height", door.integer(self.height, "packing result: height", most=door.UNLIMITED))
        for name in ("offsets", "placed", "work"):
            door.instance(getattr(self, name), dict, f"packing result: {name}")

    def __repr__(self) -> str:
        found = f"height {self.height}, " if self.height is not None else ""
        why = f", {shortened(self.reason)}" if self.reason else ""
        return (
            f"PackingResult({self.status}: {counted(len(self.offsets), 'buffer')}, {found}"
            f"lower bound {self.lower_bound}, capacity {self.capacity}, by {self.engine or 'nobody'}{why})"
        )

    @property
    def packed(self) -> bool:
        """Whether there are addresses."""
        return self.status is PackingStatus.PACKED

    @property
    def optimal(self) -> bool:
        """Whether the packing is proven to be the lowest possible."""
        return self.height is not None and self.height == self.lower_bound
