"""Merging labels of equal down-set, compiled.

On compiled copies of changed functions see :mod:`cosma.compiled`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.bounds.label_rules import future_cost, lowest
from cosma.bounds.label_tables import (
    AWAY,
    BOUND,
    CLEAN,
    COST,
    HERE,
    ONE,
    PURE,
    REST,
    SPACE,
    TENSOR_WORDS,
    USED,
)
from cosma.compiled import kernel

if TYPE_CHECKING:
    from cosma.arrays import Floats, Ints, Words


@kernel
def merge(
    shape: Ints, tensors: Ints, links: Ints, prices: Floats, table: Words, notes: Ints, bounds: Floats, gone: Ints,
    into: Ints,
) -> None:  # fmt: skip
    """Merge labels ``gone[i]`` into ``into[i]``, of the same down-set; equal ones of ``into`` are neighbours.

    A merged label holds what all it stands for hold, is clean where any of them is, and has paid the least: at least
    as good as each.
    """
    here, away, clean, words = shape[HERE], shape[AWAY], shape[CLEAN], shape[TENSOR_WORDS]
    for i in range(gone.shape[0]):
        at, to = gone[i], into[i]
        if notes[at, COST] < notes[to, COST]:
            notes[to, COST] = notes[at, COST]
        if bounds[at, BOUND] < bounds[to, BOUND]:
            bounds[to, BOUND] = bounds[at, BOUND]
        notes[to, PURE] = 0
        held = 0
        for k in range(words):
            left = table[to, here + k] & table[at, here + k]
            absent = (table[to, here + k] ^ left) | table[to, away + k]
            table[to, here + k] = left
            table[to, away + k] = absent
            table[to, clean + k] |= table[at, clean + k] | absent
            while left:
                held += tensors[k * 64 + lowest(left), SPACE]
                left &= left - ONE
        notes[to, USED] = held
        if i + 1 == gone.shape[0] or into[i + 1] != to:
            least = notes[to, COST] + future_cost(shape, tensors, links, prices, table, to, bounds[to, REST])
            if least > bounds[to, BOUND]:
                bounds[to, BOUND] = least
