"""Whether a layer can keep a limit where devices have two places at most: every way to give out copies, tried.

For given numbers of copies the best pairs are known: the heaviest copy beside the lightest, the second heaviest beside
the second lightest, and so on. So it is enough to list numbers of copies, and no program is needed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Ways to give out copies up to which all are tried: 10 CPU seconds and 200 MB for 16 experts.
_MOST_WAYS = 6_000_000
#: Ways tried at a time.
_BLOCK = 50_000
#: Share by which limits and bounds are raised, so that rounding proves nothing.
ROUNDING = 1e-9


def fill_pairs(
    load: NDArray[np.float64], room: NDArray[np.int64], limit: float
) -> tuple[NDArray[np.bool_] | None, bool] | None:
    """Search for copies ``[experts, devices]`` of one layer within a limit on its max-over-mean load.

    Returns copies or None, and whether it is proven that there are none; None where there are too many ways to try, or
    a device has more than two places.

    Parameters
    ----------
    room
        Places of every device, 1 or 2.
    limit
        Limit on the fullest device's load over the mean device's.
    """
    devices, experts = len(room), len(load)
    if int(room.max()) > 2 or not load.any():
        return None
    full = limit * float(load.sum()) / devices
    least = np.maximum(1, np.ceil(load / (full * (1.0 + ROUNDING)))).astype(np.int64)
    spare = int(room.sum() - least.sum())
    if spare < 0 or (least > devices).any():
        return None, True
    if math.comb(experts + spare, spare) > _MOST_WAYS:
        return None
    # Bytes where they do: numbers of copies beyond the devices are only sorted out below.
    ways = _further(experts, spare, np.dtype(np.int8 if room.sum() < 128 else np.int32))
    ways += least.astype(ways.dtype)
    ways = ways[(ways <= devices).all(axis=1)]
    possible = False
    for first in range(0, len(ways), _BLOCK):
        peak, order, owner = _paired(load, ways[first : first + _BLOCK], devices)
        possible = possible or bool((peak <= full * (1.0 + ROUNDING)).any())
        for way in np.flatnonzero(peak <= full)[np.argsort(peak[peak <= full], kind="stable")]:
            pairs = owner[way][order[way]]
            heavy, light = pairs[:devices], pairs[::-1][:devices]
            if not ((heavy == light) & (heavy < experts)).any():
                return _placed(heavy, light, room, experts), False
    return None, not possible


def _further(experts: int, spare: int, kind: np.dtype[Any]) -> NDArray[Any]:
    """Return every way to give experts further copies, at most ``spare`` in all."""
    found: NDArray[Any] = np.zeros((1, 0), dtype=kind)
    left = np.array([spare])
    for _ in range(experts):
        again = np.repeat(np.arange(len(found)), left + 1)
        value = np.arange(len(again)) - np.repeat(np.cumsum(left + 1) - left - 1, left + 1)
        found = np.concatenate([found[again], value[:, None].astype(kind)], axis=1)
        left = left[again] - value
    return found


def _paired(
    load: NDArray[np.float64], ways: NDArray[Any], devices: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the fullest device of the best pairs, the order of the copies by load, and the expert of each copy."""
    ends = np.cumsum(ways, axis=1, dtype=np.int64)
    # Places that stay empty belong to an expert beyond the last, without load.
    owner = (np.arange(2 * devices)[None, :, None] >= ends[:, None, :]).sum(axis=2)
    shares = np.concatenate([load[None, :] / ways, np.zeros((len(ways), 1))], axis=1)
    copies = np.take_along_axis(shares, owner, axis=1)
    order = np.argsort(-copies, axis=1, kind="stable")
    ordered = np.take_along_axis(copies, order, axis=1)
    return (ordered[:, :devices] + ordered[:, ::-1][:, :devices]).max(axis=1), order, owner


def _placed(
    heavy: NDArray[np.int64], light: NDArray[np.int64], room: NDArray[np.int64], experts: int
) -> NDArray[np.bool_]:
    """Give every pair a device; those of one copy go where there is one place."""
    held = np.zeros((experts + 1, len(room)), dtype=bool)
    single = (heavy >= experts) | (light >= experts)
    for device, pair in zip(np.argsort(room, kind="stable"), np.argsort(~single, kind="stable"), strict=True):
        held[heavy[pair], device] = held[light[pair], device] = True
    return held[:experts]
