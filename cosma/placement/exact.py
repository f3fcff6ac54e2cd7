"""Exact placement for few experts: dynamic programming over the partitions of a layer.

Where all devices are alike, only *which experts are together* matters, not on which device: a layer's placement is an
equal partition of its experts, nested for nodes. For 8 experts there are 35 (2 devices) to 315 (2 nodes x 2 devices)
of them. The cheapest way to join two partitions of consecutive layers is a nested assignment problem, so the optimum
is a shortest path over (layer, partition). With one expert per device on one node there is a single partition, and
the optimum is one assignment problem per layer pair.
"""

from __future__ import annotations

from itertools import combinations
from math import factorial
from typing import TYPE_CHECKING

import numpy as np

from cosma.placement.recombine import chain_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from cosma.placement.instance import Instance
    from cosma.placement.topology import Topology

#: Pair evaluations (partitions squared times layer pairs) that take about five seconds.
WORK_LIMIT = 12_000_000


def class_count(topology: Topology, experts: int) -> int | None:
    """Return how many equal partitions a layer has up to renaming devices; None where devices are not alike."""
    if not topology.is_equal(experts):
        return None
    share = experts // topology.devices
    count: int = factorial(experts) // factorial(share) ** topology.devices
    groups = [int(topology.groups(level).max()) + 1 for level in range(topology.levels)]
    for outer, inner in zip([1, *groups[:-1]], groups, strict=True):
        count //= factorial(inner // outer) ** outer
    return count


def supports(topology: Topology, experts: int, layers: int, work_limit: int = WORK_LIMIT) -> str | None:
    """Say why exact dynamic programming cannot be used here; None where it can."""
    classes = class_count(topology, experts)
    if classes is None:
        return "devices hold different numbers of experts, or groups differ in size"
    if classes > 20_000 or classes * classes * (layers - 1) > work_limit:
        return f"{classes} partitions per layer over {layers} layers exceed {work_limit} pair evaluations"
    return None


def solve_exact(instance: Instance, topology: Topology) -> tuple[NDArray[np.int64], float]:
    """Return an optimal placement ``[layers, places]`` and its summed cost; call only where ``supports`` allows."""
    classes = np.array(list(partitions(topology, instance.experts)), dtype=np.int64)
    return chain_path(instance, [classes] * instance.layers)


def partitions(topology: Topology, experts: int) -> Iterator[tuple[int, ...]]:
    """Yield one placement of a layer for every equal partition up to renaming alike devices, in a fixed order."""
    branching: list[int] = []
    before = 1
    for level in range(topology.levels):
        count = int(topology.groups(level).max()) + 1
        branching.append(count // before)
        before = count
    home = [0] * experts
    for _ in _fill(home, tuple(range(experts)), branching, 0):
        yield tuple(home)


def _fill(home: list[int], members: tuple[int, ...], branching: list[int], prefix: int) -> Iterator[None]:
    """Place ``members`` on the group numbered ``prefix`` of the present level, in every distinct way."""
    if not branching:
        for expert in members:
            home[expert] = prefix
        yield
        return
    for split in _equal_splits(members, branching[0]):
        yield from _fill_all(home, split, branching, prefix * branching[0], 0)


def _fill_all(
    home: list[int], split: tuple[tuple[int, ...], ...], branching: list[int], first: int, index: int
) -> Iterator[None]:
    if index == len(split):
        yield
        return
    for _ in _fill(home, split[index], branching[1:], first + index):
        yield from _fill_all(home, split, branching, first, index + 1)


def _equal_splits(members: tuple[int, ...], parts: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Split into equal parts in every way; the part of the smallest member comes first, so no split repeats."""
    if parts == 1:
        yield (members,)
        return
    size = len(members) // parts
    head, rest = members[0], members[1:]
    for others in combinations(rest, size - 1):
        taken = (head, *others)
        left = tuple(member for member in rest if member not in others)
        for tail in _equal_splits(left, parts - 1):
            yield (taken, *tail)
