"""Estimated communication time of a placement: an alpha-beta model of the links. Estimates, not measurements.

Per layer boundary, tokens that change device travel in an all-to-all. The time of a level is its latency per message
round plus the bytes of the busiest device over the bandwidth of one device at that level; levels overlap, so the
slowest counts. Expert parallelism as it is usually run needs two all-to-alls per layer: out to the experts and back
to the token's own device. ExFlow keeps the context of every token on every device, so a token goes straight from
expert to expert: one all-to-all per layer, which only tokens that change device take part in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.placement.affinity import Affinity
    from cosma.placement.topology import Topology

DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "float8": 1, "int8": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """The network and the tokens on it."""

    #: Elements of a token's activation.
    hidden: int = 4096
    #: One of ``DTYPE_BYTES``.
    dtype: str = "float16"
    #: Per level, outermost first: start-up of one all-to-all.
    latency_s: tuple[float, ...] = (20e-6, 5e-6)
    #: Per level, outermost first: what one device can send across it.
    bandwidth_bytes_per_s: tuple[float, ...] = (12.5e9, 150e9)
    #: Tokens in flight, over all devices.
    batch_tokens: int = 8192


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimated traffic and time of one way to communicate."""

    #: Bytes that cross each level in one layer step, mean over layers, outermost level first.
    bytes_per_layer: tuple[float, ...]
    #: Time of the all-to-alls of one layer step, mean over layers.
    seconds_per_layer: float
    #: All-to-alls per layer.
    all_to_alls: int

    def to_json(self) -> dict[str, Any]:
        """Return a record that says that these are estimates."""
        return {
            "estimate": "alpha-beta model",
            "all_to_alls": self.all_to_alls,
            "bytes_per_layer": list(self.bytes_per_layer),
            "seconds_per_layer": self.seconds_per_layer,
        }


def direct(affinity: Affinity, topology: Topology, devices: NDArray[np.integer], links: Links) -> Estimate:
    """Estimate ExFlow's one all-to-all per layer: tokens go from expert to expert."""
    matrices = []
    for layer in range(affinity.layers - 1):
        flow = np.zeros((topology.devices, topology.devices))
        np.add.at(flow, (devices[layer][:, None], devices[layer + 1][None, :]), affinity.transitions[layer])
        # With k choices a token is one activation per choice of the next layer; pairs count it k times.
        matrices.append(flow / affinity.top_k)
    return _estimate(matrices, affinity, topology, links, 1)


def two_sided(affinity: Affinity, topology: Topology, devices: NDArray[np.integer], links: Links) -> Estimate:
    """Estimate the usual two all-to-alls per layer, tokens spread evenly over the devices they belong to."""
    matrices = []
    for layer in range(1, affinity.layers):
        load = np.bincount(devices[layer], affinity.load[layer], minlength=topology.devices)
        out = np.tile(load / topology.devices, (topology.devices, 1))
        matrices += [out, out.T]
    return _estimate(matrices, affinity, topology, links, 2)


def _estimate(
    matrices: list[NDArray[np.float64]], affinity: Affinity, topology: Topology, links: Links, rounds: int
) -> Estimate:
    if links.dtype not in DTYPE_BYTES:
        raise InputError(f"dtype {links.dtype!r}: expected one of {', '.join(DTYPE_BYTES)}")
    if len(links.latency_s) != topology.levels or len(links.bandwidth_bytes_per_s) != topology.levels:
        raise InputError(
            f"links: {len(links.latency_s)} latencies and {len(links.bandwidth_bytes_per_s)} bandwidths for "
            f"{topology.levels} levels; give one of each per level, outermost first"
        )
    if links.hidden < 1 or links.batch_tokens < 1 or min(links.bandwidth_bytes_per_s) <= 0 or min(links.latency_s) < 0:
        raise InputError("links: hidden size, batch and bandwidths must be positive, latencies not negative")
    tokens = affinity.tokens or float(affinity.load[0].sum()) / affinity.top_k
    unit = links.hidden * DTYPE_BYTES[links.dtype] * links.batch_tokens / tokens
    levels = topology.crossing_levels()
    volume, seconds = np.zeros(topology.levels), 0.0
    for flow in matrices:
        times = []
        for level in range(topology.levels):
            crossing = np.where(levels == level, flow, 0.0) * unit
            volume[level] += crossing.sum()
            busiest = max(float(crossing.sum(axis=0).max()), float(crossing.sum(axis=1).max()))
            # An all-to-all starts up whether or not much crosses; a level nothing crosses costs nothing.
            times.append(links.latency_s[level] + busiest / links.bandwidth_bytes_per_s[level] if busiest > 0 else 0.0)
        seconds += max(times)
    steps = affinity.layers - 1
    return Estimate(tuple((volume / steps).tolist()), seconds / steps, rounds)
