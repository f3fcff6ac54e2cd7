"""Rules of the label search, compiled: what a label is, which of two is better, what it costs at least from here.

A *label* stands for a partial plan: which operators have run (a down-set), which live tensors lie in the
scratchpad ("here") and which do not ("away"), which have an off-chip copy ("clean"), and what it has paid. Costs
are paid when a tensor is given up: the store it needs and the read that must follow. So an away tensor is
prepaid, a label that has paid no more and holds less is at least as good, and giving up can wait until the next
operator needs the space.

A label's sets are one row of 64-bit words, ``done | ready | here | away | clean``; what it has paid and the like
are in its row of ``notes`` and ``bounds``. On compiled copies of changed functions see
:mod:`cosma.compiled`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.bounds.label_tables import (
    AWAY,
    CAPACITY,
    CHAIN,
    CLEAN,
    CONSUMER,
    DONE,
    HERE,
    LOAD,
    MUST_STORE,
    ONE,
    OPERAND,
    OPERATORS,
    PAIR,
    PREDECESSOR,
    PRODUCER,
    RESULT,
    SIZE,
    SPACE,
    STREAMABLE,
    TENSOR_WORDS,
    WRITE,
    integer,
)
from cosma.compiled import helper

if TYPE_CHECKING:
    from cosma.arrays import Floats, Ints, Words

#: Operators in a chain that may run at once, at most.
LONGEST_RUN = 16

#: More than any price.
_DEAR = 1 << 62

#: Offset and prime of FNV-1a, and the shift that mixes its high bits into the low ones.
_BASIS, _PRIME, _SHIFT = np.uint64(1469598103934665603), np.uint64(1099511628211), np.uint64(29)
_ZERO, _TWO, _FOUR, _TOP_BYTE = np.uint64(0), np.uint64(2), np.uint64(4), np.uint64(56)
#: Masks that count bits in parallel: every other bit, pair and nibble, and a one in every byte.
_PAIRS, _NIBBLES, _BYTES, _ONES = (np.uint64((1 << 64) // n) for n in (3, 5, 17, 255))


@helper
def has(table: Words, at: int, offset: int, index: int) -> bool:
    """Whether a set of label ``at`` has a member; the set begins at word ``offset``."""
    found: bool = (table[at, offset + (index >> 6)] >> np.uint64(index & 63)) & ONE != _ZERO
    return found


@helper
def hash_of(table: Words, at: int, words: int) -> int:
    """Hash the first words of a row."""
    value = _BASIS
    for k in range(words):
        value ^= table[at, k]
        value *= _PRIME
        value ^= value >> _SHIFT
    return integer(value)


@helper
def population(word: np.uint64) -> int:
    """Count the bits set in a word: in pairs, nibbles and bytes."""
    word -= (word >> ONE) & _PAIRS
    word = (word & _NIBBLES) + ((word >> _TWO) & _NIBBLES)
    word = (word + (word >> _FOUR)) & _BYTES
    return integer((word * _ONES) >> _TOP_BYTE)


@helper
def lowest(word: np.uint64) -> int:
    """Position of the lowest set bit of a word that is not zero."""
    return population((word & (~word + ONE)) - ONE)


@helper
def read_later(tensors: Ints, links: Ints, table: Words, at: int, t: int, v: int) -> bool:
    """Whether a consumer of ``t`` other than ``v`` has still to run."""
    for i in range(tensors[t, CONSUMER], tensors[t + 1, CONSUMER]):
        c = links[i]
        if c != v and not has(table, at, DONE, c):
            return True
    return False


@helper
def dominates(shape: Ints, tensors: Ints, table: Words, a: int, cost_a: int, b: int, cost_b: int) -> bool:
    """Whether label ``a`` can become as good as ``b`` (same down-set) without paying more than ``b`` has paid."""
    paid = cost_a
    here, clean = shape[HERE], shape[CLEAN]
    for k in range(shape[TENSOR_WORDS]):
        if paid > cost_b:
            return False
        here_a, here_b = table[a, here + k], table[b, here + k]
        give_up = here_a & ~here_b
        store = (give_up | (here_a & table[b, clean + k])) & ~table[a, clean + k]
        word = give_up | store
        while word:
            bit = word & (~word + ONE)
            word ^= bit
            t = k * 64 + lowest(bit)
            if give_up & bit:
                paid += tensors[t, SIZE]
            if store & bit:
                paid += tensors[t, WRITE]
    return paid <= cost_b


@helper
def future_cost(shape: Ints, tensors: Ints, links: Ints, prices: Floats, table: Words, at: int, rest: float) -> float:
    """Least cost still to pay, by the dual solution: what the rows to come need, less what is prepaid for them."""
    if rest <= 0.0:
        return 0.0
    for k in range(shape[TENSOR_WORDS]):
        word = table[at, shape[AWAY] + k]
        while word:
            t = k * 64 + lowest(word)
            word &= word - ONE
            first, end = tensors[t, LOAD], tensors[t + 1, LOAD]
            if first == end:
                continue
            stretch = 0
            for i in range(tensors[t, CHAIN], tensors[t + 1, CHAIN]):
                stretch += has(table, at, DONE, links[i])
            for i in range(first, end, 4):
                if links[i + 1] <= stretch <= links[i + 2] and not has(table, at, DONE, links[i]):
                    rest -= prices[links[i + 3]]
        word = table[at, shape[CLEAN] + k]
        while word:
            t = k * 64 + lowest(word)
            word &= word - ONE
            if tensors[t, WRITE]:
                rest -= prices[shape[OPERATORS] + t]
    return rest if rest > 0.0 else 0.0


@helper
def run_ends(
    shape: Ints, operators: Ints, tensors: Ints, links: Ints, table: Words, at: int, level: int, before: int, v: int
) -> tuple[int, int, int]:
    """Account for running ``v`` right after a chain that ended with tensor ``before`` (-1: at the start).

    Returns (space held afterwards, price of giving up all results, least price among what is freed), or -1 as the
    first if ``v`` cannot run now without giving anything up or without changing a tensor that lives on.
    """
    at_once = level
    cheapest = _DEAR
    for i in range(operators[v, PREDECESSOR], operators[v + 1, PREDECESSOR]):
        u = links[i]
        if not has(table, at, DONE, u) and (before < 0 or u != tensors[before, PRODUCER]):
            return -1, 0, cheapest
    for i in range(operators[v, OPERAND], operators[v + 1, OPERAND]):
        u = links[i]
        space = tensors[u, SPACE]
        if space == 0:
            continue
        lives_on = u != before and read_later(tensors, links, table, at, u, v)
        if u == before or has(table, at, shape[HERE], u):
            if not lives_on:
                level -= space
                price = tensors[u, SIZE]
                if u == before or not has(table, at, shape[CLEAN], u):
                    price += tensors[u, WRITE]
                if price < cheapest:
                    cheapest = price
        elif lives_on:
            return -1, 0, cheapest
        elif not shape[STREAMABLE]:
            at_once += space
    price = 0
    for i in range(operators[v, RESULT], operators[v + 1, RESULT]):
        r = links[i]
        space = tensors[r, SPACE]
        read = tensors[r, CONSUMER] < tensors[r + 1, CONSUMER]
        if read or not shape[STREAMABLE] or not tensors[r, MUST_STORE]:
            at_once += space
        if read and space:
            level += space
            price += tensors[r, SIZE] + tensors[r, WRITE]
    shared = 0
    for i in range(operators[v, PAIR], operators[v + 1, PAIR], 2):
        u = links[i + 1]
        space = tensors[links[i], SPACE]
        if space > shared and (
            u == before or (has(table, at, shape[HERE], u) and not read_later(tensors, links, table, at, u, v))
        ):
            shared = space
    if at_once - shared > shape[CAPACITY]:
        return -1, 0, cheapest
    return level, price, cheapest


@helper
def may_run_at_once(
    shape: Ints, operators: Ints, tensors: Ints, links: Ints, table: Words, at: int, used: int, v: int
) -> bool:
    """Whether running ``v`` next is at least as good as any continuation.

    So it is if ``v``, or a chain of operators that begins with ``v``, fits beside all that is here, ends holding no
    more space than there was at its start and after each of its members, and its last results are no dearer to
    give up than anything it frees on the way. Take any plan, and move the chain to the front: whenever the plan
    gives up one of the tensors the chain frees, give up the last results instead; until then they take no more.
    """
    level = lowest_level = used
    least_price = _DEAR
    before = integer(-1)
    for _ in range(LONGEST_RUN):
        level, price, cheapest = run_ends(shape, operators, tensors, links, table, at, level, before, v)
        if level < 0:
            return False
        if cheapest < least_price:
            least_price = cheapest
        if level <= lowest_level:
            if price <= least_price:
                return True
            lowest_level = level
        result = operators[v, RESULT]
        if operators[v + 1, RESULT] != result + 1:
            return False
        before = links[result]
        consumer = tensors[before, CONSUMER]
        if tensors[before + 1, CONSUMER] != consumer + 1 or tensors[before, SPACE] == 0:
            return False
        price = tensors[before, SIZE] + tensors[before, WRITE]
        if price < least_price:
            least_price = price
        v = links[consumer]
    return False
