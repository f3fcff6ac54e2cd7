"""Moves of the search for an order of low peak, compiled: which there are, whether one fits, and which are safe.

On compiled copies of changed functions see :mod:`cosma.compiled`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.bounds.label_rules import lowest, population
from cosma.bounds.label_tables import ONE, integer
from cosma.compiled import helper

if TYPE_CHECKING:
    from cosma.arrays import Ints, Words

SPACE, ALIVE, ENDLESS, ENDED_BY = (integer(i) for i in range(4))
"""Columns of ``tensors``: bytes, whether touched before the segment, whether touched after it, and the kind of move
that ends it whichever operator is last."""

TOUCHED, PAIRED, FOLLOWED = (integer(i) for i in range(3))
"""Columns of ``operators``: where in ``links`` its lists of tensors touched, of pairs (result, operand) and of
successors begin."""

ENDING, ONLY = (integer(i) for i in range(2))
"""Columns of ``kinds`` of moves: the tensor that ends, the operator that must be the last to run (-1: any)."""

MADE, WAITING, LOOKS, STAMP, GOAL = (integer(i) for i in range(5))
"""Entries of ``tally``: states made, states on the stack, steps of inner loops, moves weighed, the state in which all
has run."""

KIND, FITS, AFTER = (integer(i) for i in range(3))
"""Columns of ``moves``: the kind, whether it fits, bytes held afterwards."""

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
