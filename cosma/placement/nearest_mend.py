"""Bringing layers within a limit on load, where the nearest copy serves, by few exchanges.

What a layer's devices serve depends on the layers before it alone. So one pass from the first layer to the last is
enough: a layer that has been mended stays so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.placement.replication import set_outcomes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from cosma.placement.replication import Flow

#: Steps for each device and layer before a layer is given up.
_STEPS = 6


@dataclass(frozen=True, slots=True, eq=False)
class _Moves:
    """Changes of one expert each: who, its devices after it, and the changes of loads and of cost."""

    who: NDArray[np.int64]
    devices: NDArray[np.bool_]
    load: NDArray[np.float64]
    cost: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """A layer as it is: what every expert costs, and its visits on each device."""

    flow: Flow
    number: int
    cost: NDArray[np.float64]
    load: NDArray[np.float64]

    @classmethod
    def build(cls, flow: Flow, number: int) -> _Layer:
        """Judge every expert where it is."""
        held = flow.held[number]
        return cls(flow, number, *set_outcomes(flow, number, held, np.arange(len(held))))

    def changed(self, who: NDArray[np.int64], source: int, target: int) -> _Moves:
        """Return what experts would have if a copy of each moved; -1 is from or to nowhere."""
        after = self.flow.held[self.number][who].copy()
        if source >= 0:
            after[:, source] = False
        if target >= 0:
            after[:, target] = True
        cost, load = set_outcomes(self.flow, self.number, after, who)
        return _Moves(who, after, load - self.load[who], cost - self.cost[who])


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Every move of ``one``, each with every move of ``other`` where there is one."""

    one: _Moves
    other: _Moves | None

    def outcome(self, load: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the largest load after each change, and its change of cost."""
        if self.other is None:
            return (load + self.one.load).max(axis=1), self.one.cost
        then = load + self.one.load[:, None] + self.other.load[None]
        return then.max(axis=2).ravel(), (self.one.cost[:, None] + self.other.cost[None]).ravel()

    def make(self, held: NDArray[np.bool_], index: int) -> None:
        """Make the change of that number."""
        one = index
        if self.other is not None:
            one, other = divmod(index, len(self.other.who))
            held[self.other.who[other]] = self.other.devices[other]
        held[self.one.who[one]] = self.one.devices[one]


def mend(flow: Flow, slots: NDArray[np.int64], limit: float | NDArray[np.float64]) -> bool:
    """Exchange copies until every layer's modelled max-over-mean load is within its limit; say whether it is.

    ``flow`` is changed in place; ``slots`` are the places of each device.
    """
    kept = True
    for layer, most in enumerate(np.broadcast_to(limit, flow.held.shape[0]).tolist()):
        flow.push(layer)
        kept &= _mend_layer(flow, layer, slots, most)
    for layer in reversed(range(flow.held.shape[0])):
        flow.pull(layer)
    return kept


def _mend_layer(flow: Flow, layer: int, slots: NDArray[np.int64], limit: float) -> bool:
    held = flow.held[layer]
    for _ in range(_STEPS * held.shape[1]):
        load = flow.load[layer]
        most = limit * float(load.mean())
        if float(load.max()) <= most:
            return True
        fullest = int(load.argmax())
        best: tuple[float, float, int, _Group] | None = None
        for group in _exchanges(flow, layer, fullest, slots):
            peak, cost = group.outcome(load)
            if not len(peak):
                continue
            # Whatever keeps the limit is as good as anything; of the rest, the lowest peak.
            over = np.maximum(peak, most)
            first = int(np.lexsort((cost, over))[0])
            rank = float(over[first]), float(cost[first])
            if rank[0] < float(load.max()) - 1e-9 and (best is None or rank < best[:2]):
                best = *rank, first, group
        if best is None:
            return False
        best[3].make(held, best[2])
        flow.push(layer)
    return float(flow.load[layer].max()) <= limit * float(flow.load[layer].mean())


def _exchanges(flow: Flow, layer: int, fullest: int, slots: NDArray[np.int64]) -> Iterator[_Group]:
    """Yield what may relieve the fullest device: exchanges, moves, further copies elsewhere, and other copies there."""
    held = flow.held[layer]
    now = _Layer.build(flow, layer)
    mine = np.flatnonzero(held[:, fullest])
    for device in range(held.shape[1]):
        if device == fullest:
            continue
        going = now.changed(mine[~held[mine, device]], fullest, device)
        coming = now.changed(np.flatnonzero(held[:, device] & ~held[:, fullest]), device, fullest)
        yield _Group(going, coming)
        further = now.changed(mine[~held[mine, device]], -1, device)
        if held[:, device].sum() < slots[device]:
            yield _Group(going, None)
            yield _Group(further, None)
        else:
            spare = np.flatnonzero(held[:, device] & (held.sum(axis=1) > 1))
            yield _Group(further, now.changed(spare, device, -1))
    gone = now.changed(mine[held[mine].sum(axis=1) > 1], fullest, -1)
    yield _Group(gone, None)
    yield _Group(gone, now.changed(np.flatnonzero(~held[:, fullest]), -1, fullest))
