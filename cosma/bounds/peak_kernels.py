"""The search for an order of low peak, compiled: see :mod:`cosma.bounds.peak_search`.

On compiled copies of changed functions see :mod:`cosma.compiled`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.bounds.label_rules import hash_of
from cosma.bounds.label_tables import integer
from cosma.bounds.peak_moves_kernels import (
    AFTER,
    FITS,
    GOAL,
    KIND,
    LOOKS,
    MADE,
    ONLY,
    WAITING,
    list_moves,
    make_safe_moves,
    weigh,
    weigh_all,
    within,
)
from cosma.compiled import helper, kernel

if TYPE_CHECKING:
    from cosma.arrays import Ints, Words

HELD, PARENT, NEXT, KEY, MOVE = (integer(i) for i in range(5))
"""Columns of ``notes``: bytes held, state it came from, next state in the hash table (0: none), hash, and the kind of
the first move on the way from there (-1: all that was left); the others were safe to make at once."""

FOUND, EXHAUSTED, CUT_SHORT = 1, 0, -1
"""What a search ends with."""

_ZERO = np.uint64(0)


@helper
def enter(states: Words, notes: Ints, heads: Ints, tally: Ints) -> bool:
    """Enter the state after the last into the table; False if it is there already."""
    child = tally[MADE]
    key = hash_of(states, child, states.shape[1])
    slot = key & (heads.shape[0] - 1)
    other = heads[slot]
    while other > 0:
        if notes[other, KEY] == key and within(states, child, other) and within(states, other, child):
            return False
        other = notes[other, NEXT]
    notes[child, KEY] = key
    notes[child, NEXT] = heads[slot]
    heads[slot] = child
    tally[MADE] = child + 1
    return True


@kernel
def explore(
    capacity: int, masks: Words, kinds: Ints, blocked: Words, tensors: Ints, operators: Ints, links: Ints,
    states: Words, notes: Ints, heads: Ints, stack: Ints, rest: Words, moves: Ints, seen: Ints, tally: Ints,
    most_looks: int,
) -> int:  # fmt: skip
    """Go on with a depth-first search over down-sets until an order is found, none is left, or the work is done.

    ``masks`` has for every kind of move the operators to run before its tensor has ended, then, for every tensor,
    those that touch it, and last all operators. A kind can be used once the tensors it is ``blocked`` by have ended;
    the last row of ``blocked`` is working memory. Returns ``FOUND``, ``EXHAUSTED``, or ``CUT_SHORT``: in the last
    case another call goes on, with larger tables if fewer rows are left than a state can have children.
    """
    words, known = states.shape[1], kinds.shape[0]
    everything = masks.shape[0] - 1
    touching, ended = masks[known:everything], blocked[known:]
    limit = tally[LOOKS] + most_looks
    while tally[WAITING] > 0:
        if tally[LOOKS] >= limit or tally[MADE] + known + 1 >= states.shape[0]:
            return CUT_SHORT
        tally[WAITING] -= 1
        at = stack[tally[WAITING]]
        held = notes[at, HELD]
        count = list_moves(masks, kinds, blocked, tensors, states, at, ended, rest, moves, tally)
        more = count > 0
        forced = integer(-1)
        if more:
            forced = weigh_all(
                masks, kinds, tensors, operators, links, touching, states, at, rest, count, capacity, held, moves, seen,
                tally,
            )  # fmt: skip
        else:
            # Nothing ends any more: the rest runs in any order.
            left = _ZERO
            for k in range(words):
                rest[0, k] = masks[everything, k] & ~states[at, k]
                left |= rest[0, k]
            if left == _ZERO:
                tally[GOAL] = at
                return FOUND
            count = integer(1)
            weigh(
                tensors, operators, links, touching, states, at, rest, integer(0), capacity, held, moves, seen, forced,
                tally,
            )  # fmt: skip
        first = tally[WAITING]
        for row in range(count):
            if not moves[row, FITS] or (forced >= 0 and row != forced):
                continue
            child = tally[MADE]
            for k in range(words):
                states[child, k] = states[at, k] | rest[row, k]
                rest[known, k] = rest[row, k]
            notes[child, HELD] = make_safe_moves(
                masks, tensors, operators, links, touching, states, child, rest, known, capacity, moves[row, AFTER],
                moves, seen, tally,
            )  # fmt: skip
            notes[child, PARENT] = at
            notes[child, MOVE] = moves[row, KIND] if more else -1
            if enter(states, notes, heads, tally):
                # The least held, then the first listed, is taken first: it lies on top of the stack.
                top = tally[WAITING]
                while top > first and notes[stack[top - 1], HELD] <= notes[child, HELD]:
                    stack[top] = stack[top - 1]
                    top -= 1
                stack[top] = child
                tally[WAITING] += 1
    return EXHAUSTED


@kernel
def retrace(
    capacity: int, masks: Words, kinds: Ints, blocked: Words, tensors: Ints, operators: Ints, links: Ints,
    states: Words, notes: Ints, child: int, scratch: int, rest: Words, moves: Ints, seen: Ints, tally: Ints,
) -> None:  # fmt: skip
    """List in the rows of ``rest`` the moves on the way to a state from the one it came from.

    ``scratch`` is a row of ``states`` that may be overwritten; ``blocked`` is not looked at.
    """
    words, known = states.shape[1], kinds.shape[0]
    at, kind = notes[child, PARENT], notes[child, MOVE]
    only = kinds[kind, ONLY] if kind >= 0 else integer(-1)
    masks_of = kind if kind >= 0 else masks.shape[0] - 1
    touching = masks[known : masks.shape[0] - 1]
    for k in range(words):
        rest[0, k] = masks[masks_of, k] & ~states[at, k]
        states[scratch, k] = states[at, k] | rest[0, k]
    weigh(
        tensors, operators, links, touching, states, at, rest, integer(0), capacity, notes[at, HELD], moves, seen, only,
        tally,
    )  # fmt: skip
    make_safe_moves(
        masks, tensors, operators, links, touching, states, scratch, rest, integer(0), capacity, moves[0, AFTER], moves,
        seen, tally,
    )  # fmt: skip
