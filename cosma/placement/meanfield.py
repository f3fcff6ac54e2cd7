"""Starting placements by mean-field annealing with crystal growth.

Every expert holds shares of all devices instead of one device; a sweep sets the shares of each layer to
``exp(-field / temperature)``, scaled so that devices are exactly full (Sinkhorn), given its neighbours' shares, even
and odd layers in turn. Cooling orders the shares all at once, which single swaps cannot do. Three things decide how
good the order is:

- *What is annealed first.* Raw counts order by popularity: the busiest experts gather, whatever follows what. So
  the counts above those of independent layers are used, scaled down for busy experts (modularity, degree-corrected).
- *Where it orders.* Order appears suddenly, well below the temperature at which it melts, in many places of the
  chain at once, and where two stretches meet that grouped experts differently a fault stays for good. So the best
  stretch alone is kept, everything else made even again and the temperature held between freezing and melting: the
  seed grows through the whole chain without a fault, as single crystals are grown from the melt.
- *Which distances.* With all devices equally far apart groups form by themselves and find their nodes afterwards;
  with the true distances nodes form first. Either may win; both are offered.

At the end the true counts and distances take over. Mean-field annealing: Peterson and Anderson 1987; modularity:
Newman and Girvan 2004. Deterministic for equal inputs and seed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.placement.layerwise import assign_layer, polish

if TYPE_CHECKING:
    from cosma.arrays import Float32s, Floats, Ints
    from cosma.placement.instance import Instance


#: Exponent by which the traffic of either side scales a count down, and what is added to it in mean traffic.
_EXPONENT, _EXTRA = 0.35, 0.4
#: Relative noise of every sweep; without any the even state is never left.
_NOISE = 0.05
#: Share of full order at which the shares count as ordered.
_ORDERED = 0.3
#: Cooling per sweep on the way to order, if that may take 200 of them.
_COOLING = 0.985
#: Exponent and share below which a share is none: numbers that small make every product many times slower.
_NEVER, _NOTHING = np.float32(-80.0), np.float32(1e-30)
#: Layers of a seed.
_SEED_LAYERS = 7
#: Temperatures of growth over the one of ordering: below melting, above spontaneous order.
_GROWTH = 1.45


class MeanField:
    """Shares ``[layers, places, devices]`` under given weights between layers and distances between devices.

    Parameters
    ----------
    instance
        The problem; gives sizes and places per device.
    weights
        ``[layers - 1, experts, experts]``, in counts; negative ones push apart.
    distance
        ``[devices, devices]``.
    seed
        Start of the noise.
    """

    def __init__(self, instance: Instance, weights: Floats, distance: Floats, seed: int) -> None:
        layers, places, devices = instance.layers, instance.places, instance.devices
        self.instance = instance
        self.random = np.random.default_rng([seed, 5])
        # Temperatures are in mean traffic of an expert, so that they mean the same for every trace.
        unit = max(1e-9, instance.steps / ((layers - 1) * instance.experts))
        self.weights = (weights / unit).astype(np.float32)
        self.backward = np.ascontiguousarray(self.weights.transpose(0, 2, 1))
        self.distance = distance.astype(np.float32)
        self.even = np.broadcast_to((instance.slots / places).astype(np.float32), (places, devices))
        self.shares: Float32s = np.repeat(self.even[None], layers, axis=0)
        self.scales: Float32s = np.ones((layers, 1, devices), dtype=np.float32)

    def sweep(self, temperature: float) -> None:
        """Renew the shares of the even layers, then of the odd ones."""
        for parity in (0, 1):
            self._renew(parity, np.float32(1.0 / temperature))

    def _renew(self, parity: int, inverse: np.float32) -> None:
        instance, experts = self.instance, self.instance.experts
        chosen = slice(parity, None, 2)
        current = self.shares[chosen]
        if not len(current):
            return
        field = np.zeros_like(current)
        # Pair p joins layers p and p + 1: pairs of this parity go onwards from its layers, the others arrive.
        onward = self.weights[parity::2]
        field[: len(onward), :experts] += onward @ self.shares[parity + 1 :: 2, :experts][: len(onward)]
        arriving = self.backward[1 - parity :: 2]
        first = 1 - parity
        field[first : first + len(arriving), :experts] += (
            arriving @ self.shares[1 - parity :: 2, :experts][: len(arriving)]
        )
        field = field @ self.distance
        field *= -inverse
        field -= field.max(axis=2, keepdims=True)
        field[field < _NEVER] = -np.inf
        np.exp(field, out=field)
        scale = self.scales[chosen]
        slots = instance.slots.astype(np.float32)
        for _ in range(2):
            rows = 1.0 / np.maximum(field @ scale.transpose(0, 2, 1), 1e-30)
            columns = rows.transpose(0, 2, 1) @ field
            scale = slots / np.maximum(columns, 1e-30)
            scale /= scale.max(axis=2, keepdims=True)
        self.scales[chosen] = scale
        field *= scale
        field /= np.maximum(field.sum(axis=2, keepdims=True), 1e-30)
        field[field < _NOTHING] = 0.0
        noise = self.random.standard_normal(field.shape, dtype=np.float32)
        noise *= _NOISE
        noise += 1.0
        np.maximum(noise, 0.0, out=noise)
        field *= noise
        self.shares[chosen] = field

    def order(self) -> Float32s:
        """Return per layer how far its shares are from even (0) towards decided (1)."""
        even = float((self.even[0] ** 2).sum())
        squares = np.einsum("lpd,lpd->l", self.shares, self.shares) / self.instance.places
        order: Float32s = (squares - even) / max(1e-9, 1.0 - even)
        return order

    def cool(self, hot: float, cold: float, sweeps: int) -> None:
        """Sweep while the temperature falls geometrically."""
        for temperature in np.geomspace(hot, cold, max(1, sweeps)):
            self.sweep(float(temperature))

    def find_order(self, sweeps: int) -> float:
        """Cool from just above the temperature at which evenness becomes unstable until order; return where."""
        temperature = 1.1 * self._instability()
        cooling = _COOLING ** (200.0 / sweeps)
        for _ in range(sweeps):
            self.sweep(temperature)
            if float(self.order().mean()) >= _ORDERED:
                break
            temperature *= cooling
        return temperature

    def _instability(self) -> float:
        """Return the temperature below which a small unevenness grows: an eigenvalue, by power iteration."""
        layers, experts = self.instance.layers, self.instance.experts
        vector = self.random.standard_normal((layers, experts, 1), dtype=np.float32)
        size = 1.0
        for _ in range(30):
            grown = np.zeros_like(vector)
            grown[:-1] += self.weights @ vector[1:]
            grown[1:] += self.backward @ vector[:-1]
            # Half of the vector itself keeps the two eigenvalues of opposite sign from taking turns.
            size = float(np.linalg.norm(grown)) / max(1e-30, float(np.linalg.norm(vector)))
            vector = grown + np.float32(0.5 * size) * vector
            vector /= max(1e-30, float(np.linalg.norm(vector)))
        devices = self.instance.devices
        centre = np.eye(devices) - 1.0 / devices
        spread = float(np.linalg.eigvalsh(-centre @ self.distance @ centre).max())
        return max(1e-6, size * spread * float(self.even[0].max()))

    def keep_only(self, first: int, end: int) -> None:
        """Make all layers outside ``[first, end)`` even again."""
        for part in (slice(0, first), slice(end, None)):
            self.shares[part] = self.even
            self.scales[part] = 1.0

    def lean(self, home: Ints, share: float = 0.8) -> None:
        """Start over from a placement: ``share`` on its device, the rest even."""
        self.shares = np.repeat((1.0 - share) * self.even[None], len(home), axis=0).astype(np.float32)
        at = np.take_along_axis(self.shares, home[:, :, None], axis=2)
        np.put_along_axis(self.shares, home[:, :, None], at + np.float32(share), axis=2)
        self.scales[:] = 1.0

    def homes(self) -> Ints:
        """Decide: the most likely placement of each layer, by assignment."""
        reluctance = -np.log(np.maximum(self.shares, 1e-12).astype(np.float64))
        return np.stack([assign_layer(self.instance, layer) for layer in reluctance])


def excess(instance: Instance) -> Floats:
    """Return the counts above those of independent layers, scaled down for busy experts, of equal total size."""
    counts = instance.dense
    out, into = counts.sum(axis=2, keepdims=True), counts.sum(axis=1, keepdims=True)
    total = np.maximum(counts.sum(axis=(1, 2), keepdims=True), 1e-300)
    above = counts - out * into / total
    extra = _EXTRA * total / instance.experts
    # Nothing passes between two layers of which one is dense: no counts, and no scale of them.
    scaled = above / np.maximum((out + extra) * (into + extra), 1e-300) ** _EXPONENT
    size = float(np.abs(scaled).sum())
    result: Floats = scaled * (float(np.abs(above).sum()) / size if size > 0 else 1.0)
    return result


def grown_starts(
    instance: Instance, seed: int, flat: bool, sweeps: int = 100, seeds: int = 1, finish: bool = True
) -> list[Ints]:
    """Return placements ``[layers, places]`` grown from the ``seeds`` most ordered stretches, each polished.

    Parameters
    ----------
    seed
        Start of the noise; equal seeds give equal placements.
    flat
        Whether all devices count as equally far apart until the groups have formed.
    sweeps
        Sweeps of growth: the work limit; everything else takes about three times as many.
    seeds
        Stretches to grow from, one placement each.
    finish
        Whether the true counts take over at the end. Without, busy experts stay spread: a start for balanced search.
    """
    devices = instance.devices
    distance = instance.cost
    if flat:
        mean = float(instance.cost.sum()) / max(1, devices * (devices - 1))
        distance = mean * (1.0 - np.eye(devices))
    field = MeanField(instance, excess(instance), distance, seed)
    ordering = field.find_order(2 * sweeps)
    for _ in range(sweeps // 8):
        field.sweep(ordering)
    for _ in range(sweeps // 3):
        field.sweep(_GROWTH * ordering)
    shares, scales, order = field.shares.copy(), field.scales.copy(), field.order()
    starts = []
    for first, end in _stretches(order, seeds):
        field.shares, field.scales = shares.copy(), scales.copy()
        field.keep_only(first, end)
        field.cool(_GROWTH * ordering, ordering, sweeps)
        field.cool(ordering, 0.2 * ordering, sweeps // 2)
        home = _settled(instance, field.homes()) if flat else field.homes()
        home = polish(instance, home) if finish else home
        if not finish:
            starts.append(home)
            continue
        true = MeanField(instance, instance.dense, instance.cost, seed)
        true.lean(home)
        true.cool(0.85 * ordering, 0.2 * ordering, sweeps // 2)
        starts.append(min(home, polish(instance, true.homes()), key=instance.crossing))
    return starts


def _stretches(order: Float32s, count: int) -> list[tuple[int, int]]:
    """Return the ``count`` most ordered stretches of layers, none overlapping, half-open."""
    length = min(_SEED_LAYERS, len(order))
    sums = np.convolve(order, np.ones(length), "valid")
    found: list[tuple[int, int]] = []
    for first in np.argsort(-sums, kind="stable").tolist():
        if len(found) < count and all(abs(first - other) >= length for other, _ in found):
            found.append((first, first + length))
    return found


def _settled(instance: Instance, home: Ints) -> Ints:
    """Exchange whole devices of equal size, in all layers at once, while that brings groups that talk closer."""
    devices, experts = instance.devices, instance.experts
    flow = np.zeros((devices, devices))
    for layer in range(instance.layers - 1):
        np.add.at(flow, (home[layer, :experts, None], home[layer + 1, None, :experts]), instance.dense[layer])
    flow = flow + flow.T
    np.fill_diagonal(flow, 0.0)
    place = np.arange(devices)
    pairs = [(a, b) for a in range(devices) for b in range(a) if instance.slots[a] == instance.slots[b]]
    for _ in range(100):
        best, swap = -1e-9, None
        at = instance.cost[np.ix_(place, place)]
        for a, b in pairs:
            # Moving a to b's place and b to a's changes only their distances to the others.
            gain = (flow[a] - flow[b]) * (at[b] - at[a])
            change = float(gain.sum() - gain[a] - gain[b])
            if change < best:
                best, swap = change, (a, b)
        if swap is None:
            break
        a, b = swap
        place[[a, b]] = place[[b, a]]
    settled: Ints = place[home]
    return settled
