"""The search for an order of low peak, compiled: see :mod:`cosma.bounds.peak_search`.

On compiled copies of changed functions see :mod:`cosma.compiled`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.bounds.label_rules import hash_of, lowest, population
from cosma.bounds.label_tables import ONE, integer
from cosma.compiled import helper, kernel

if TYPE_CHECKING:
    from cosma.bounds.label_tables import Ints, Words

SPACE, ALIVE, ENDLESS, ENDED_BY = (integer(i) for i in range(4))
"""Columns of ``tensors``: bytes, whether touched before the segment, whether touched after it, and the kind of move
that ends it whichever operator is last."""

TOUCHED, PAIRED, FOLLOWED = (integer(i) for i in range(3))
"""Columns of ``operators``: where in ``links`` its lists of tensors touched, of pairs (result, operand) and of
successors begin."""

HELD, PARENT, NEXT, KEY, MOVE = (integer(i) for i in range(5))
"""Columns of ``notes``: bytes held, state it came from, next state in the hash table (0: none), hash, and the kind of
the first move on the way from there (-1: all that was left); the others were safe to make at once."""

ENDING, ONLY = (integer(i) for i in range(2))
"""Columns of ``kinds`` of moves: the tensor that ends, the operator that must be the last to run (-1: any)."""

MADE, WAITING, LOOKS, STAMP, GOAL = (integer(i) for i in range(5))
"""Entries of ``tally``: states made, states on the stack, steps of inner loops, moves weighed, the state in which all
has run."""

KIND, FITS, AFTER = (integer(i) for i in range(3))
"""Columns of ``moves``: the kind, whether it fits, bytes held afterwards."""

FOUND, EXHAUSTED, CUT_SHORT = 1, 0, -1
"""What a search ends with."""

MOST_FOLLOWING = integer(3)
"""Operators of a move that is looked for right after another one, at most: longer ones are found later."""

_ZERO = np.uint64(0)


@helper
def member(sets: Words, row: int, index: int) -> bool:
    """Whether a set has a member."""
    found: bool = (sets[row, index >> 6] >> np.uint64(index & 63)) & ONE != _ZERO
    return found


@helper
def within(sets: Words, row: int, other: int) -> bool:
    """Whether one set is a subset of another."""
    outside = _ZERO
    k = integer(0)
    while k < sets.shape[1] and outside == _ZERO:
        outside = sets[row, k] & ~sets[other, k]
        k += 1
    return bool(outside == _ZERO)


@helper
def list_moves(
    masks: Words, kinds: Ints, blocked: Words, tensors: Ints, states: Words, at: int, ended: Words, rest: Words,
    moves: Ints, tally: Ints,
) -> int:  # fmt: skip
    """List the moves from state ``at``: ``rest[row]`` becomes the set of operators that the move of a row runs."""
    words, many, known = states.shape[1], tensors.shape[0], kinds.shape[0]
    for k in range(ended.shape[1]):
        ended[0, k] = _ZERO
    for t in range(many):
        if not tensors[t, ENDLESS]:
            left = _ZERO
            k = integer(0)
            while k < words and left == _ZERO:
                left = masks[known + t, k] & ~states[at, k]
                k += 1
            if left == _ZERO:
                ended[0, t >> 6] |= ONE << np.uint64(t & 63)
    count = integer(0)
    for kind in range(known):
        t = kinds[kind, ENDING]
        if member(ended, 0, t):
            continue
        left = _ZERO
        k = integer(0)
        while k < ended.shape[1] and left == _ZERO:
            left = blocked[kind, k] & ~ended[0, k]
            k += 1
        if left != _ZERO or (kinds[kind, ONLY] >= 0 and count and kinds[moves[count - 1, KIND], ENDING] == t):
            continue
        for k in range(words):
            rest[count, k] = masks[kind, k] & ~states[at, k]
        moves[count, KIND] = kind
        count += 1
    tally[LOOKS] += 2 * (many + known)
    return count


@helper
def ends_with(tensors: Ints, touching: Words, states: Words, at: int, rest: Words, row: int, t: int) -> bool:
    """Whether a tensor has ended once the operators of ``rest[row]`` have run in state ``at``."""
    if tensors[t, ENDLESS]:
        return False
    left = _ZERO
    k = integer(0)
    while k < states.shape[1] and left == _ZERO:
        left = touching[t, k] & ~states[at, k] & ~rest[row, k]
        k += 1
    return bool(left == _ZERO)


@helper
def begins_with(tensors: Ints, touching: Words, states: Words, at: int, rest: Words, row: int, t: int, v: int) -> bool:
    """Whether ``v`` is the only one to touch a tensor in state ``at`` and among ``rest[row]``."""
    others = integer(0)
    for k in range(states.shape[1]):
        others += population(touching[t, k] & (states[at, k] | rest[row, k]))
    return not tensors[t, ALIVE] and others == 1


@helper
def take_over(
    tensors: Ints, operators: Ints, links: Ints, touching: Words, states: Words, at: int, rest: Words, row: int, v: int,
) -> int:  # fmt: skip
    """Most bytes that a result of ``v`` takes over, if ``v`` is the last of ``rest[row]`` to run; -1 if it cannot."""
    for i in range(operators[v, FOLLOWED], operators[v + 1, FOLLOWED]):
        if member(rest, row, links[i]):
            return integer(-1)
    most = integer(0)
    for i in range(operators[v, PAIRED], operators[v + 1, PAIRED], 2):
        # The result lies where the operand was, which may be larger.
        space = min(tensors[links[i], SPACE], tensors[links[i + 1], SPACE])
        if (
            space > most
            and ends_with(tensors, touching, states, at, rest, row, links[i + 1])
            and begins_with(tensors, touching, states, at, rest, row, links[i], v)
        ):
            most = space
    return most


@helper
def weigh(
    tensors: Ints, operators: Ints, links: Ints, touching: Words, states: Words, at: int, rest: Words, row: int,
    capacity: int, held: int, moves: Ints, seen: Ints, only: int, tally: Ints,
) -> None:  # fmt: skip
    """Note whether the operators of ``rest[row]`` fit, the last of them being ``only`` (-1: any), and what they leave.

    ``seen`` is working memory, one stamp per tensor. What is left is not known of operators that do not fit.
    """
    most, after = held, held
    paired = operators[operators.shape[0] - 1, PAIRED] > operators[0, PAIRED]
    words = states.shape[1]
    tally[STAMP] += 1
    stamp = tally[STAMP]
    best = integer(-1)
    for k in range(words):
        word = rest[row, k]
        while word:
            v = k * 64 + lowest(word)
            word &= word - ONE
            for i in range(operators[v, TOUCHED], operators[v + 1, TOUCHED]):
                t = links[i]
                if seen[t] == stamp:
                    continue
                seen[t] = stamp
                known = tensors[t, ALIVE] != 0
                for j in range(words):
                    known = known or (touching[t, j] & states[at, j]) != _ZERO
                tally[LOOKS] += words
                if not known:
                    most += tensors[t, SPACE]
                    after += tensors[t, SPACE]
                    if most > capacity and not paired:
                        moves[row, FITS] = False
                        return
                if ends_with(tensors, touching, states, at, rest, row, t):
                    after -= tensors[t, SPACE]
            if only < 0 or only == v:
                taken = take_over(tensors, operators, links, touching, states, at, rest, row, v)
                best = taken if taken > best else best
    moves[row, AFTER] = after
    moves[row, FITS] = best >= 0 and most - best <= capacity


@helper
def ends_inside(
    masks: Words, tensors: Ints, operators: Ints, links: Ints, states: Words, at: int, rest: Words, row: int
) -> bool:
    """Whether a tensor ends before all operators of ``rest[row]`` have run in state ``at``."""
    for k in range(states.shape[1]):
        word = rest[row, k]
        while word:
            v = k * 64 + lowest(word)
            word &= word - ONE
            for i in range(operators[v, TOUCHED], operators[v + 1, TOUCHED]):
                kind = tensors[links[i], ENDED_BY]
                if kind < 0:
                    continue
                some, all_, inside = False, True, True
                for j in range(states.shape[1]):
                    left = masks[kind, j] & ~states[at, j]
                    some = some or left != _ZERO
                    inside = inside and (left & ~rest[row, j]) == _ZERO
                    all_ = all_ and left == rest[row, j]
                if some and inside and not all_:
                    return True
    return False


@helper
def is_safe(
    masks: Words, tensors: Ints, operators: Ints, links: Ints, states: Words, at: int, rest: Words, row: int, held: int,
    moves: Ints,
) -> bool:  # fmt: skip
    """Whether a move that was weighed, whichever operator is last, may be made at once."""
    if not moves[row, FITS] or moves[row, AFTER] > held:
        return False
    # One within which something else ends is not known to hold no less before its end.
    return not ends_inside(masks, tensors, operators, links, states, at, rest, row)


@helper
def weigh_all(
    masks: Words, kinds: Ints, tensors: Ints, operators: Ints, links: Ints, touching: Words, states: Words, at: int,
    rest: Words, count: int, capacity: int, held: int, moves: Ints, seen: Ints, tally: Ints,
) -> int:  # fmt: skip
    """Note which of the moves listed fit; return one that may be made at once, or -1."""
    for row in range(count):
        only = kinds[moves[row, KIND], ONLY]
        weigh(tensors, operators, links, touching, states, at, rest, row, capacity, held, moves, seen, only, tally)
        if only < 0 and is_safe(masks, tensors, operators, links, states, at, rest, row, held, moves):
            return integer(row)
    return integer(-1)


@helper
def safe_after(
    masks: Words, tensors: Ints, operators: Ints, links: Ints, touching: Words, states: Words, at: int, rest: Words,
    last: int, capacity: int, held: int, moves: Ints, seen: Ints, tally: Ints,
) -> bool:  # fmt: skip
    """Find a move that goes on from ``rest[last]``, just run, and may be made at once: put it into the row after."""
    words, row = states.shape[1], last + 1
    for k in range(words):
        word = rest[last, k]
        while word:
            u = k * 64 + lowest(word)
            word &= word - ONE
            for i in range(operators[u, FOLLOWED], operators[u + 1, FOLLOWED]):
                v = links[i]
                if member(states, at, v):
                    continue
                for j in range(operators[v, TOUCHED], operators[v + 1, TOUCHED]):
                    kind = tensors[links[j], ENDED_BY]
                    if kind < 0:
                        continue
                    many = integer(0)
                    for n in range(words):
                        rest[row, n] = masks[kind, n] & ~states[at, n]
                        many += population(rest[row, n])
                    tally[LOOKS] += words
                    if many > MOST_FOLLOWING:
                        continue
                    weigh(
                        tensors, operators, links, touching, states, at, rest, row, capacity, held, moves, seen,
                        integer(-1), tally,
                    )  # fmt: skip
                    if is_safe(masks, tensors, operators, links, states, at, rest, row, held, moves):
                        return True
    return False


@helper
def make_safe_moves(
    masks: Words, tensors: Ints, operators: Ints, links: Ints, touching: Words, states: Words, at: int, rest: Words,
    last: int, capacity: int, held: int, moves: Ints, seen: Ints, tally: Ints,
) -> int:  # fmt: skip
    """Make moves that go on from ``rest[last]`` while that is safe; return what is held in the end.

    ``rest`` has the moves made in the rows after ``last``, in turn, while there is room for them.
    """
    while safe_after(
        masks, tensors, operators, links, touching, states, at, rest, last, capacity, held, moves, seen, tally
    ):  # fmt: skip
        row = last + 1
        held = moves[row, AFTER]
        for k in range(states.shape[1]):
            states[at, k] |= rest[row, k]
        if row + 2 < rest.shape[0]:
            last = row
        else:
            for k in range(states.shape[1]):
                rest[last, k] = rest[row, k]
    return integer(held)


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
