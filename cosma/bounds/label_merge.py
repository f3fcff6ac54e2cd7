"""Thinning out a layer of labels, compiled: merging those of equal down-set, and hashing what is left.

On compiled copies of changed functions see :mod:`cosma.bounds.label_tables`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.bounds.label_rules import future_cost, lowest
from cosma.bounds.label_tables import (
    AWAY,
    BOUND,
    CLEAN,
    COST,
    HERE,
    KEY,
    NEXT,
    OPERATOR_WORDS,
    PURE,
    REST,
    SPACE,
    TENSOR_WORDS,
    USED,
    kernel,
)

if TYPE_CHECKING:
    from cosma.bounds.label_tables import Floats, Ints, Words


@kernel
def rehash(notes: Ints, count: int, heads: Ints) -> None:
    """Enter the first ``count`` labels of a layer into an emptied hash table."""
    for slot in range(heads.shape[0]):
        heads[slot] = -1
    for at in range(count):
        slot = notes[at, KEY] & (heads.shape[0] - 1)
        notes[at, NEXT] = heads[slot]
        heads[slot] = at


@kernel
def merge(
    shape: Ints, tensors: Ints, links: Ints, prices: Floats, table: Words, notes: Ints, bounds: Floats, ranked: Ints,
    kept: Ints, width: int,
) -> int:  # fmt: skip
    """Merge labels of equal down-set until about ``width`` are left.

    ``ranked`` lists labels by (hash, bound). Each down-set keeps its best labels in proportion to its share; the
    others become one that holds what all of them hold, is clean where any of them is, and has paid the least: at
    least as good as each. Returns how many labels are kept, with ``kept`` filled.
    """
    here, away, clean = shape[HERE], shape[AWAY], shape[CLEAN]
    words, total = shape[TENSOR_WORDS], ranked.shape[0]
    count = 0
    begin = 0
    while begin < total:
        best = ranked[begin]
        end = begin + 1
        while end < total and notes[ranked[end], KEY] == notes[best, KEY]:
            k = 0
            while k < shape[OPERATOR_WORDS] and table[ranked[end], k] == table[best, k]:
                k += 1
            if k < shape[OPERATOR_WORDS]:
                break
            end += 1
        spare = begin + (end - begin) * width // total
        if spare == begin:
            spare += 1
        to = best
        for i in range(begin, end):
            at = ranked[i]
            if i < spare:
                kept[count] = to = at
                count += 1
                continue
            if notes[at, COST] < notes[to, COST]:
                notes[to, COST] = notes[at, COST]
            if bounds[at, BOUND] < bounds[to, BOUND]:
                bounds[to, BOUND] = bounds[at, BOUND]
            for k in range(words):
                left = table[to, here + k] & table[at, here + k]
                gone = (table[to, here + k] ^ left) | table[to, away + k]
                table[to, here + k], table[to, away + k] = left, gone
                table[to, clean + k] |= table[at, clean + k] | gone
        if spare < end:
            notes[to, PURE] = 0
            notes[to, USED] = 0
            for k in range(words):
                word = table[to, here + k]
                while word:
                    notes[to, USED] += tensors[k * 64 + lowest(word), SPACE]
                    word &= word - np.uint64(1)
            promise = notes[to, COST] + future_cost(shape, tensors, links, prices, table, to, bounds[to, REST])
            if promise > bounds[to, BOUND]:
                bounds[to, BOUND] = promise
        begin = end
    return count
