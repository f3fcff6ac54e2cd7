"""The independent recount: what a placement costs on raw tokens, under each way servers route among copies.

Nothing of the optimisers is imported here. Costs are recounted from the trace itself and from the paths of the
devices, so that an error in the aggregation or the search cannot hide.

- ``nearest``: a token goes to the copy nearest to the device that served it last; among equally near copies they take
  turns by the token's position in the trace, and in the first layer all copies are equally near. With k > 1 each choice
  is served by the copy nearest to the token's first choice of the layer before (the last layer in which it had one).
- ``split``: every copy serves an equal share of its expert's visits, whatever came before. What is reported is the
  expectation, which needs no random numbers.
- ``least-loaded``: tokens come in batches. In every layer of a batch, visits to experts with one copy are served
  first; then, token by token, a visit goes to that copy whose device has least visits of this batch and layer, ties to
  the smaller device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

import cosma.door as door
from cosma.errors import InputError
from cosma.placement.document import Placement

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


ROUTINGS = ("nearest", "split", "least-loaded")
#: Tokens of a batch, where nobody says; about what a decoding step of a large deployment holds.
DEFAULT_BATCH_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Score:
    """What a placement costs on a trace.

    Attributes
    ----------
    mean_cost
        Mean cost of a transition (a pair of experts a token uses in consecutive layers).
    crossing_shares
        Share of transitions whose outermost crossing is at each level, outermost first; the rest stay on a device.
    imbalance
        Mean over layers of the fullest device's visits over the mean device's.
    worst_imbalance
        The same for the worst layer.
    tokens, transitions
        How much was counted.
    batch_imbalance
        The mean over batches and layers of the same ratio, where routing works by batches; else None.
    layer_imbalance
        The same ratio of every layer.
    """

    mean_cost: float
    crossing_shares: tuple[float, ...]
    imbalance: float
    worst_imbalance: float
    tokens: int
    transitions: int
    batch_imbalance: float | None = None
    layer_imbalance: tuple[float, ...] = ()


def score(
    placement: Placement,
    chunks: Iterable[NDArray[np.integer]],
    routing: str = "nearest",
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
) -> Score:
    """Recount a placement's cost from raw tokens.

    Parameters
    ----------
    placement
        The placement; without replicas all ways of routing are one.
    chunks
        The tokens, ``[tokens, layers]`` or ``[tokens, layers, k]``, -1 for no expert.
    routing
        One of ``ROUTINGS``.
    batch_tokens
        Tokens of a batch, for ``least-loaded``.

    Raises
    ------
    InputError
        If the trace does not fit the placement, or the routing is unknown.
    """
    door.instance(placement, Placement, "the placement")
    door.one_of(routing, ROUTINGS, "routing")
    batch_tokens = door.integer(batch_tokens, "batch of tokens")
    if batch_tokens < 1:
        raise InputError(f"a batch of {batch_tokens} tokens: give at least 1")
    counter: _Counter
    if placement.replicas is None or routing == "nearest":
        counter = _Nearest(placement)
    elif routing == "split":
        counter = _Split(placement)
    else:
        counter = _LeastLoaded(placement, batch_tokens)
    first = 0
    for chunk in door.items(chunks, "tokens"):
        array = door.array(chunk, "tokens: a chunk")
        if array.ndim == 2:
            array = array[:, :, None]
        if array.ndim != 3:
            raise InputError(f"tokens: {array.ndim} dimensions; expected [tokens, layers] or [tokens, layers, k]")
        if array.shape[1] != placement.layers or (array.size and int(array.max()) >= placement.experts):
            raise InputError(
                f"trace: {array.shape[1]} layers and experts up to {int(array.max())} against a placement of "
                f"{placement.layers} layers and {placement.experts} experts; give the trace of the same model"
            )
        counter.count(array.astype(np.int64), first)
        first += array.shape[0]
    if first == 0:
        raise InputError("trace: no tokens to score a placement on")
    return counter.score(first)


class _Counter:
    """Running counts of one scoring; the device after the last one stands for no device."""

    def __init__(self, placement: Placement) -> None:
        paths = placement.topology.paths
        self.devices = len(paths)
        self.levels = len(placement.topology.crossing_costs)
        self.crossing = np.full((self.devices + 1, self.devices + 1), self.levels + 1, dtype=np.int64)
        for i, one in enumerate(paths):
            for j, other in enumerate(paths):
                differing = [level for level in range(self.levels) if one[level] != other[level]]
                self.crossing[i, j] = min(differing, default=self.levels)
        self.costs = np.array([*placement.topology.crossing_costs, 0.0])
        self.placement = placement
        self.by_level = np.zeros(self.levels + 1)
        self.load = np.zeros((placement.layers, self.devices))

    def count(self, array: NDArray[np.int64], first: int) -> None:
        """Count a chunk whose first token is number ``first``."""
        raise NotImplementedError

    def crossings(self, before: NDArray[np.int64], at: NDArray[np.int64]) -> None:
        """Count the pairs of devices of two consecutive layers, each ``[tokens, k]``."""
        crossed = self.crossing[before[:, :, None], at[:, None, :]]
        self.by_level += np.bincount(crossed.ravel(), minlength=self.levels + 2)[: self.levels + 1]

    def score(self, tokens: int) -> Score:
        """Return the result."""
        total = float(self.by_level.sum())
        ratio = ratios(self.load)
        return Score(
            float((self.by_level * self.costs).sum() / max(total, 1.0)),
            tuple(float(count) / max(total, 1.0) for count in self.by_level[:-1]),
            float(ratio.mean()),
            float(ratio.max()),
            tokens,
            round(total),
            None,
            tuple(ratio.tolist()),
        )


def ratios(load: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the fullest device's load over the mean device's, per layer; 1 for a layer nobody visits.

    Rounded once where loads are whole, so that what keeps a limit does so here.
    """
    total = load.sum(axis=1)
    found: NDArray[np.float64] = np.where(total > 0, load.max(axis=1) * load.shape[1], 1.0)
    return found / np.where(total > 0, total, 1.0)


class _Nearest(_Counter):
    """The nearest copy serves; with one copy of each expert, that copy."""

    def __init__(self, placement: Placement) -> None:
        super().__init__(placement)
        self.replicated = placement.replicas is not None
        self.nearest = [self._nearest(row) for row in placement.copies()] if self.replicated else []

    def _nearest(self, row: tuple[tuple[int, ...], ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Per (device, expert): the nearest copies, and how many there are; the last row is for no device."""
        held = np.zeros((len(row), self.devices), dtype=bool)
        for expert, copies in enumerate(row):
            held[expert, list(copies)] = True
        cost = np.concatenate([self.costs[self.crossing[:-1, :-1]], np.zeros((1, self.devices))])
        away = np.where(held[None], cost[:, None, :], np.inf)
        near = held[None] & (away == away.min(axis=2, keepdims=True))
        counts = near.sum(axis=2)
        options = np.zeros((*counts.shape, counts.max()), dtype=np.int64)
        origins, experts, copies_near = np.nonzero(near)
        # Their places among those of the same origin and expert, which come one after the other.
        place = np.arange(len(copies_near)) - np.repeat(np.cumsum(counts) - counts.ravel(), counts.ravel())
        options[origins, experts, place] = copies_near
        return options, counts

    def count(self, array: NDArray[np.int64], first: int) -> None:
        turn = first + np.arange(array.shape[0])
        origin = np.full(array.shape[0], self.devices)
        before: NDArray[np.int64] | None = None
        for layer in range(array.shape[1]):
            chosen = array[:, layer]
            if self.replicated:
                options, counts = self.nearest[layer]
                near = counts[origin[:, None], chosen]
                at = options[origin[:, None], chosen, turn[:, None] % np.maximum(near, 1)]
            else:
                at = self.placement.devices[layer][chosen]
            at = np.where(chosen >= 0, at, self.devices)
            self.load[layer] += np.bincount(at.ravel(), minlength=self.devices + 1)[: self.devices]
            if before is not None:
                self.crossings(before, at)
            before = at
            for place in reversed(range(at.shape[1])):
                origin = np.where(at[:, place] < self.devices, at[:, place], origin)


class _Split(_Counter):
    """Equal shares: the expectation follows from how often experts are used and follow each other."""

    def __init__(self, placement: Placement) -> None:
        super().__init__(placement)
        experts = placement.experts
        self.visits = np.zeros((placement.layers, experts))
        self.pairs = np.zeros((max(0, placement.layers - 1), experts, experts))

    def count(self, array: NDArray[np.int64], first: int) -> None:
        experts = self.visits.shape[1]
        # The expert after the last one stands for no expert.
        ids = np.where(array >= 0, array, experts)
        for layer in range(ids.shape[1]):
            now = ids[:, layer]
            self.visits[layer] += np.bincount(now.ravel(), minlength=experts + 1)[:experts]
            if layer:
                flat = ids[:, layer - 1][:, :, None] * (experts + 1) + now[:, None, :]
                table = np.bincount(flat.ravel(), minlength=(experts + 1) ** 2).reshape(experts + 1, experts + 1)
                self.pairs[layer - 1] += table[:experts, :experts]

    def score(self, tokens: int) -> Score:
        shares = np.zeros((self.placement.layers, self.placement.experts, self.devices))
        for layer, row in enumerate(self.placement.copies()):
            for expert, copies in enumerate(row):
                for device in copies:
                    shares[layer, expert, device] += 1.0 / len(copies)
            # In units of a part that all numbers of copies divide into, loads are whole and their ratios exact.
            unit = math.lcm(*(len(copies) for copies in row))
            # Whole numbers have no upper limit, and a unit for some hundred numbers of copies is beyond every float.
            exact = unit * max(1, int(self.visits[layer].sum())) * self.devices < 2**53
            parts = np.rint(unit * shares[layer]) if exact else shares[layer]
            self.load[layer] = self.visits[layer] @ parts
        for layer, counts in enumerate(self.pairs):
            meeting = shares[layer].T @ counts @ shares[layer + 1]
            for level in range(self.levels + 1):
                self.by_level[level] += meeting[self.crossing[:-1, :-1] == level].sum()
        return super().score(tokens)


class _LeastLoaded(_Counter):
    """Batch after batch, the copy on the device with least visits serves."""

    def __init__(self, placement: Placement, batch_tokens: int) -> None:
        super().__init__(placement)
        self.batch_tokens = batch_tokens
        self.waiting: list[NDArray[np.int64]] = []
        self.held = 0
        self.batch_ratios: list[float] = []

    def count(self, array: NDArray[np.int64], first: int) -> None:
        begin = 0
        while begin < array.shape[0]:
            end = min(array.shape[0], begin + self.batch_tokens - self.held)
            self.waiting.append(array[begin:end])
            self.held += end - begin
            begin = end
            if self.held == self.batch_tokens:
                self._serve()

    def _serve(self) -> None:
        batch = np.concatenate(self.waiting)
        self.waiting, self.held = [], 0
        before: NDArray[np.int64] | None = None
        for layer, row in enumerate(self.placement.copies()):
            at, served = self._layer(batch[:, layer], row)
            self.load[layer] += served
            if served.sum() > 0:
                self.batch_ratios.append(float(served.max() / served.mean()))
            if before is not None:
                self.crossings(before, at)
            before = at

    def _layer(
        self, chosen: NDArray[np.int64], row: tuple[tuple[int, ...], ...]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the device of every choice of a batch in one layer, and the visits of every device."""
        from cosma.placement.recount_kernels import serve_least_loaded

        only = np.array([copies[0] if len(copies) == 1 else -1 for copies in row] + [self.devices])
        at = only[chosen]
        served = np.bincount(at[(at >= 0) & (at < self.devices)], minlength=self.devices)
        start = np.cumsum([0, *(len(copies) for copies in row)])
        devices = np.array([device for copies in row for device in sorted(copies)], dtype=np.int64)
        flat = at.ravel()
        serve_least_loaded(flat, chosen.ravel(), start, devices, served)
        return flat.reshape(chosen.shape), served.astype(np.float64)

    def score(self, tokens: int) -> Score:
        if self.held:
            self._serve()
        found = super().score(tokens)
        return replace(found, batch_imbalance=float(np.mean(self.batch_ratios)) if self.batch_ratios else 1.0)
