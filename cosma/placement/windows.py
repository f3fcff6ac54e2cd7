"""Load that changes: a trace in windows, and what re-placing on a schedule gains against what moving experts costs.

Before every window but the first a strategy may place anew by what the window before it showed, and is then judged on
the window's own tokens. Weights of every copy that comes to a device that did not hold it have to be sent.

- ``static``: placed by the first window, never changed;
- ``near``: re-placed from what is in force, under a budget of moves, or at a price per move;
- ``scratch``: placed anew, whatever that moves;
- ``eplb``: EPLB anew, whatever that moves.

The first window is where all have learnt; it is not judged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

import cosma.door as door
from cosma.errors import InfeasibleError, InputError
from cosma.patience import until_interrupted
from cosma.placement.copies import CopyProblem, as_replicas
from cosma.placement.copy_moves import copies_moved, place_near, place_priced
from cosma.placement.copy_search import CopyOptions
from cosma.placement.document import Placement
from cosma.placement.eplb import eplb_placement
from cosma.placement.options import PlaceOptions
from cosma.placement.recount import score
from cosma.placement.replication import as_held
from cosma.placement.service import place
from cosma.placement.traces import read_affinity, survey

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from cosma.placement.affinity import Affinity
    from cosma.placement.topology import Topology
    from cosma.placement.traces import Trace

STRATEGIES = ("static", "near", "scratch", "eplb")


@dataclass(frozen=True, slots=True, kw_only=True)
class MovePrice:
    """What moving costs."""

    #: Weights of one expert; 0 where nobody said, so that only numbers of moves are reported.
    expert_bytes: int = 0
    #: What one token sends when it crosses; a crossing of cost c counts c times as much.
    activation_bytes: int = 0
    #: Copies that ``near`` may move before each window; None to weigh moves by bytes.
    max_moves: int | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name in ("expert_bytes", "activation_bytes", "max_moves"):
            if getattr(self, name) is not None:
                put(self, name, door.integer(getattr(self, name), f"windows: {name}", least=0))

    @property
    def crossings_per_move(self) -> float:
        """Crossings of cost 1 that send as many bytes as moving one expert."""
        return self.expert_bytes / self.activation_bytes if self.activation_bytes else 0.0


@dataclass(frozen=True, slots=True)
class WindowScore:
    """One strategy in one window."""

    #: Which.
    window: int
    strategy: str
    #: On the window's own tokens.
    mean_cost: float
    imbalance: float
    worst_imbalance: float
    #: Copies sent before the window.
    moved: int
    #: Bytes sent by crossing tokens and by moves; 0 where sizes are not known.
    crossing_bytes: float
    moved_bytes: int
    #: Whether a placement within the limit was found; where not, the one in force stayed.
    kept_limit: bool = True

    def row(self) -> dict[str, Any]:
        """Return the figures, for a table."""
        return {
            "window": self.window, "strategy": self.strategy, "mean_cost": round(self.mean_cost, 6),
            "imbalance": round(self.imbalance, 6), "worst_imbalance": round(self.worst_imbalance, 6),
            "moved": self.moved, "crossing_bytes": round(self.crossing_bytes), "moved_bytes": self.moved_bytes,
            "kept_limit": self.kept_limit,
        }  # fmt: skip


def compare(
    trace: Trace,
    topology: Topology,
    windows: int,
    price: MovePrice,
    options: PlaceOptions | None = None,
    experts: int | None = None,
    strategies: Sequence[str] = STRATEGIES,
) -> list[WindowScore]:
    """Compare strategies over the windows of a trace.

    An interrupt ends it with the windows judged so far. Raises InputError if there are fewer than two windows, or an
    unknown strategy, and KeyboardInterrupt if an interrupt came before a window was judged.

    Parameters
    ----------
    trace
        The trace, or a range of it.
    windows
        Windows of equal length, at least 2.
    price
        What moving costs, or how much may be moved.
    options
        Replicas, limit on balance, routing (``split`` or ``least-loaded``), seed and work of every placement.
    experts
        Experts per layer, where the trace may miss some.
    """
    if windows < 2:
        raise InputError(f"{windows} windows: give at least 2; the first is learnt from, the others are judged")
    unknown = [name for name in strategies if name not in STRATEGIES]
    if unknown:
        raise InputError(f"strategy {unknown[0]!r}: expected one of {', '.join(STRATEGIES)}")
    if price.max_moves is None and not price.crossings_per_move:
        raise InputError("re-placing needs a budget of moves, or the size of an expert and of an activation")
    base = replace(options or PlaceOptions(), bound="none", current=None, max_moves=None)
    base = base if base.routing != "nearest" else replace(base, routing="split")
    parts = trace.windows(windows)
    count = experts if experts is not None else survey(trace).experts
    counts = [read_affinity(part, count) for part in parts]
    found: list[WindowScore] = []
    with until_interrupted(base.interrupted):
        for strategy in strategies:
            for one in _judged(parts, counts, topology, strategy, price, base):
                if base.interrupted():  # what is in force may come from half a search
                    raise KeyboardInterrupt
                found.append(one)
    if base.interrupted() and not found:
        raise KeyboardInterrupt
    return found


def _judged(
    parts: Sequence[Trace],
    counts: Sequence[Affinity],
    topology: Topology,
    strategy: str,
    price: MovePrice,
    options: PlaceOptions,
) -> Iterator[WindowScore]:
    """Judge a strategy on every window but the first."""
    held = _placed(counts[0], topology, "eplb" if strategy == "eplb" else "scratch", options)
    for number in range(1, len(parts)):
        before = held
        kept = True
        if strategy != "static" and number > 1:
            try:
                held = _again(counts[number - 1], topology, strategy, held, price, options)
            except InfeasibleError:
                kept = False
        counted = score(Placement.of_copies(topology, as_replicas(held)), parts[number].chunks(), options.routing)
        moved = copies_moved(before, held)
        yield WindowScore(
            number, strategy, counted.mean_cost, counted.imbalance, counted.worst_imbalance, moved,
            counted.mean_cost * counted.transitions * price.activation_bytes, moved * price.expert_bytes, kept,
        )  # fmt: skip


def _placed(affinity: Affinity, topology: Topology, strategy: str, options: PlaceOptions) -> NDArray[np.bool_]:
    if strategy == "eplb":
        return as_held(eplb_placement(affinity, topology, options.replicas_per_device).copies(), topology.devices)
    return as_held(place(affinity, topology, options).copies(), topology.devices)


def _again(
    affinity: Affinity,
    topology: Topology,
    strategy: str,
    held: NDArray[np.bool_],
    price: MovePrice,
    options: PlaceOptions,
) -> NDArray[np.bool_]:
    """Return what a strategy puts in force after a window."""
    if strategy != "near":
        return _placed(affinity, topology, strategy, options)
    problem = CopyProblem.build(affinity, topology, options.replicas_per_device)
    how = CopyOptions(
        seed=options.seed, proposals=options.proposals or 4_000_000, interrupted=options.interrupted,
        progress=options.progress,
    )  # fmt: skip
    if price.max_moves is not None:
        return place_near(problem, held, price.max_moves, options.balance, how)
    return place_priced(problem, held, price.crossings_per_move, options.balance, how)


def totals(scores: Sequence[WindowScore]) -> list[dict[str, Any]]:
    """Return, per strategy, means over windows and sums of moves and bytes, in order of first appearance.

    ``limit_missed`` counts the windows before which nothing within the limit was found and all stayed in place.
    """
    rows = []
    for strategy in dict.fromkeys(one.strategy for one in scores):
        own = [one for one in scores if one.strategy == strategy]
        crossing, moved = sum(one.crossing_bytes for one in own), sum(one.moved_bytes for one in own)
        rows.append(
            {
                "strategy": strategy, "windows": len(own),
                "mean_cost": float(np.mean([one.mean_cost for one in own])),
                "imbalance": float(np.mean([one.imbalance for one in own])),
                "worst_imbalance": max(one.worst_imbalance for one in own),
                "limit_missed": sum(not one.kept_limit for one in own),
                "moved": sum(one.moved for one in own), "crossing_bytes": round(crossing), "moved_bytes": moved,
                "bytes": round(crossing + moved),
            }
        )  # fmt: skip
    return rows
