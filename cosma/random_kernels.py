"""Random numbers inside compiled loops: splitmix64, whose state is one number that the caller keeps."""

from __future__ import annotations

from typing import Any

import numpy as np

from cosma.arrays import Words
from cosma.compiled import helper


@helper
def next_random(state: Words) -> Any:
    """Advance a splitmix64 state (``uint64[1]``) and return 64 fresh bits."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@helper
def random_unit(state: Words) -> Any:
    """Return a number in ``[0, 1)`` with 53 random bits."""
    return np.float64(next_random(state) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@helper
def random_below(state: Words, bound: int) -> Any:
    """Return a number in ``[0, bound)``."""
    return np.int64(random_unit(state) * bound)
