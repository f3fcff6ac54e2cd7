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
    total = ranked.shape[0]
    count = 0
    begin = 0
    while begin < total:
        end = begin + 1
        while end < total and notes[ranked[end], KEY] == notes[ranked[begin], KEY]:
            same = True
            for k in range(shape[OPERATOR_WORDS]):
                if table[ranked[end], k] != table[ranked[begin], k]:
                    same = False
            if not same:
                break
            end += 1
        allotted = max(1, (end - begin) * width // total)
        for i in range(begin, min(end, begin + allotted)):
            kept[count] = ranked[i]
            count += 1
        if end - begin > allotted:
            to = kept[count - 1]
            for i in range(begin + allotted, end):
                at = ranked[i]
                notes[to, COST] = min(notes[to, COST], notes[at, COST])
                bounds[to, BOUND] = min(bounds[to, BOUND], bounds[at, BOUND])
                for k in range(shape[TENSOR_WORDS]):
                    alive = table[to, here + k] | table[to, away + k]
                    table[to, here + k] &= table[at, here + k]
                    table[to, away + k] = alive & ~table[to, here + k]
                    table[to, clean + k] |= table[at, clean + k] | table[to, away + k]
            notes[to, PURE] = 0
            held = 0
            for k in range(shape[TENSOR_WORDS]):
                word = table[to, here + k]
                while word:
                    held += tensors[k * 64 + lowest(word), SPACE]
                    word &= word - np.uint64(1)
            notes[to, USED] = held
            future = future_cost(shape, tensors, links, prices, table, to, bounds[to, REST])
            bounds[to, BOUND] = max(bounds[to, BOUND], notes[to, COST] + future)
        begin = end
    return count
