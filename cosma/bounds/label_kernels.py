"""The step of the label search, compiled: run one more operator from every label of a layer.

On compiled copies of changed functions see :mod:`cosma.compiled`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.bounds.label_rules import dominates, future_cost, has, hash_of, lowest, may_run_at_once, read_later
from cosma.bounds.label_tables import (
    ALIVE,
    AWAY,
    BOUND,
    BY,
    CAPACITY,
    CHOSEN,
    CLEAN,
    COMPARED,
    CONSUMER,
    COST,
    COVERS,
    DEPTH,
    DONE,
    FREED,
    GAIN,
    HERE,
    KEY,
    LEFT,
    MADE,
    MOST_WAYS,
    MUST_STORE,
    NEXT,
    ONE,
    OPERAND,
    OPERATOR_WORDS,
    PAID,
    PAIR,
    PARENT,
    PREDECESSOR,
    PRICE,
    PRODUCER,
    PURE,
    REST,
    RESULT,
    SIZE,
    SPACE,
    STREAMABLE,
    SUCCESSOR,
    TENSOR_WORDS,
    TENSORS,
    USED,
    WHICH,
    WRITE,
    integer,
)
from cosma.compiled import helper, kernel

if TYPE_CHECKING:
    from cosma.arrays import Floats, Ints, Words



@helper
def add(table: Words, at: int, offset: int, index: int) -> None:
    """Put a member into a set of label ``at``."""
    table[at, offset + (index >> 6)] |= ONE << np.uint64(index & 63)


@helper
def remove(table: Words, at: int, offset: int, index: int) -> None:
    """Take a member out of a set of label ``at``."""
    table[at, offset + (index >> 6)] &= ~(ONE << np.uint64(index & 63))


@helper
def add_way(ways: Ints, count: int, gain: int, price: int, which: int) -> None:
    """Add a way to ``count`` others, in their order: larger gains first, then lower prices, then tensors."""
    at = count
    while at > 0:
        after = ways[at - 1, GAIN] - gain
        if after == 0:
            after = price - ways[at - 1, PRICE]
        if after == 0:
            after = which - ways[at - 1, WHICH]
        if after > 0:
            break
        for column in range(3):
            ways[at, column] = ways[at - 1, column]
        at -= 1
    ways[at, GAIN] = gain
    ways[at, PRICE] = price
    ways[at, WHICH] = which


@helper
def list_ways(
    shape: Ints, operators: Ints, tensors: Ints, links: Ints, table: Words, at: int, used: int, v: int, pair: int,
    ways: Ints,
) -> tuple[int, int, int]:  # fmt: skip
    """List ways to free space while ``v`` runs.

    Returns (bytes over the capacity, ways, extra cost of the takeover), with ``ways`` filled. ``pair`` is where in
    ``links`` a takeover is, or -1; its operand and result are no ways.
    """
    over = used - shape[CAPACITY]
    streamable, here, clean = shape[STREAMABLE], shape[HERE], shape[CLEAN]
    count = integer(0)
    extra = 0
    taking = links[pair] if pair >= 0 else -1
    taken = links[pair + 1] if pair >= 0 else -1
    first, end = operators[v, OPERAND], operators[v + 1, OPERAND]
    for i in range(first, end):
        u = links[i]
        space = tensors[u, SPACE]
        if space == 0:
            continue
        is_here = has(table, at, here, u)
        lives_on = read_later(tensors, links, table, at, u, v)
        price = tensors[u, SIZE] if lives_on else 0
        if is_here:
            if not has(table, at, clean, u):
                price += tensors[u, WRITE]
        elif streamable and not lives_on and u != taken:
            continue
        else:
            over += space
        if u == taken:
            over -= tensors[taking, SPACE]
            if lives_on:
                extra = price
        elif streamable and count < MOST_WAYS:
            add_way(ways, count, space, price + tensors[u, SIZE] if is_here else price, u)
            count += 1
    for i in range(operators[v, RESULT], operators[v + 1, RESULT]):
        r = links[i]
        space = tensors[r, SPACE]
        read = tensors[r, CONSUMER] < tensors[r + 1, CONSUMER]
        if space == 0 or (streamable and not read and tensors[r, MUST_STORE] and r != taking):
            continue
        over += space
        if streamable and r != taking and count < MOST_WAYS:
            price = tensors[r, SIZE] + tensors[r, WRITE] if read else tensors[r, SIZE]
            add_way(ways, count, space, price, r + shape[TENSORS])
            count += 1
    for k in range(shape[TENSOR_WORDS]):
        word = table[at, here + k]
        while word and count < MOST_WAYS:
            t = k * 64 + lowest(word)
            word &= word - ONE
            i = first
            while i < end and links[i] != t:
                i += 1
            if i == end:
                price = tensors[t, SIZE]
                if not has(table, at, clean, t):
                    price += tensors[t, WRITE]
                add_way(ways, count, tensors[t, SPACE], price, t)
                count += 1
    left = 0
    ways[count, LEFT] = 0
    for i in range(count - 1, -1, -1):
        left += ways[i, GAIN]
        ways[i, LEFT] = left
    return over, count, extra


@helper
def next_cover(ways: Ints, count: int, over: int, upper: float, tally: Ints) -> bool:
    """Find the next inclusion-minimal set of ways that frees ``over`` bytes and is paid with less than ``upper``.

    Depth first; ``tally`` holds where the last one was found: ``DEPTH`` ways chosen (-1: begin) that free ``FREED``
    bytes, and all that is ``PAID``.
    """
    depth, freed, paid = tally[DEPTH], tally[FREED], tally[PAID]
    following = integer(0)
    back = depth >= 0
    if not back:
        depth += 1
    while True:
        if back:
            if depth == 0:
                return False
            depth -= 1
            following = ways[depth, CHOSEN]
            freed -= ways[following, GAIN]
            paid -= ways[following, PRICE]
            following += 1
        back = paid >= upper
        if freed >= over:
            if not back:
                tally[DEPTH], tally[FREED], tally[PAID] = depth, freed, paid
                return True
            back = True
        elif not back and following < count and freed + ways[following, LEFT] >= over:
            ways[depth, CHOSEN] = following
            freed += ways[following, GAIN]
            paid += ways[following, PRICE]
            depth += 1
            following += 1
        else:
            back = True


@helper
def write_child(
    shape: Ints, operators: Ints, tensors: Ints, links: Ints, table: Words, at: int, used: int, v: int, pair: int,
    ways: Ints, chosen: int, new_table: Words, child: int,
) -> int:  # fmt: skip
    """Write the sets of the label after ``v``, with the ways chosen; return the space it holds."""
    here, away, clean, ready = shape[HERE], shape[AWAY], shape[CLEAN], shape[OPERATOR_WORDS]
    for k in range(table.shape[1]):
        new_table[child, k] = table[at, k]
    add(new_table, child, DONE, v)
    remove(new_table, child, ready, v)
    for i in range(operators[v, SUCCESSOR], operators[v + 1, SUCCESSOR]):
        w = links[i]
        j, end = operators[w, PREDECESSOR], operators[w + 1, PREDECESSOR]
        while j < end and has(new_table, child, DONE, links[j]):
            j += 1
        if j == end:
            add(new_table, child, ready, w)
    for i in range(operators[v, OPERAND], operators[v + 1, OPERAND]):
        u = links[i]
        space = tensors[u, SPACE]
        if space == 0:
            continue
        if has(new_table, child, here, u):
            used -= space
        elif tensors[u, PRODUCER] < 0 or tensors[u, WRITE] == 0:
            add(new_table, child, clean, u)
        if read_later(tensors, links, table, at, u, v):
            add(new_table, child, here, u)
            used += space
        else:
            remove(new_table, child, here, u)
            remove(new_table, child, clean, u)
        remove(new_table, child, away, u)
    for i in range(operators[v, RESULT], operators[v + 1, RESULT]):
        r = links[i]
        space = tensors[r, SPACE]
        if space and tensors[r, CONSUMER] < tensors[r + 1, CONSUMER]:
            add(new_table, child, here, r)
            used += space
            if tensors[r, WRITE] == 0:
                add(new_table, child, clean, r)
    for j in range(chosen + (pair >= 0)):
        t = ways[ways[j, CHOSEN], WHICH] if j < chosen else links[pair + 1]
        if t >= shape[TENSORS]:
            t -= shape[TENSORS]
        if has(new_table, child, here, t):
            remove(new_table, child, here, t)
            add(new_table, child, away, t)
            add(new_table, child, clean, t)
            used -= tensors[t, SPACE]
    return used


@helper
def insert(
    shape: Ints, tensors: Ints, table: Words, notes: Ints, bounds: Floats, heads: Ints, tally: Ints, bound: float,
    pure: int,
) -> bool:  # fmt: skip
    """Enter the label after the last unless one with the same down-set dominates it; False if there is no room.

    Its sets are written and its cost is ``PAID``; what else has to do with its place in the layer is noted here.
    """
    child, cost = tally[MADE], tally[PAID]
    words = shape[OPERATOR_WORDS]
    key = hash_of(table, child, words)
    slot = key & (heads.shape[0] - 1)
    full = child >= table.shape[0] - 1
    at = heads[slot]
    while at >= 0:
        if notes[at, ALIVE] and notes[at, KEY] == key:
            k = 0
            while k < words and table[at, k] == table[child, k]:
                k += 1
            if k == words:
                tally[COMPARED] += 1
                other = notes[at, COST]
                # A merged label promises for those it stands for; now it stands for one more.
                if dominates(shape, tensors, table, at, other, child, cost):
                    if not notes[at, PURE] and bound < bounds[at, BOUND]:
                        bounds[at, BOUND] = bound
                    return True
                if not full and dominates(shape, tensors, table, child, cost, at, other):
                    notes[at, ALIVE] = 0
                    if not pure and bounds[at, BOUND] < bound:
                        bound = bounds[at, BOUND]
        at = notes[at, NEXT]
    if full:
        return False
    notes[child, COST] = cost
    notes[child, ALIVE] = 1
    notes[child, PURE] = pure
    notes[child, KEY] = key
    notes[child, NEXT] = heads[slot]
    bounds[child, BOUND] = bound
    heads[slot] = child
    tally[MADE] = child + 1
    return True


@kernel
def expand(
    shape: Ints, operators: Ints, tensors: Ints, links: Ints, prices: Floats, table: Words, notes: Ints,
    bounds: Floats, chosen: Ints, first: int, last: int, upper: float, most: int, new_table: Words, new_notes: Ints,
    new_bounds: Floats, heads: Ints, tally: Ints, ways: Ints,
) -> float:  # fmt: skip
    """Run one more operator from the labels ``chosen[first:last]`` of a layer.

    Creates a child for every inclusion-minimal set of ways that frees enough space, at most ``most`` per operator
    and takeover, in the new layer's row after its last label; so a layer has room for one label less than it has
    rows. ``ways`` is working memory of ``MOST_WAYS + 1`` rows. Returns the least bound among children that were
    given up (too many ways, no room), or infinity.
    """
    words = shape[OPERATOR_WORDS]
    lost = np.inf
    for place in range(first, last):
        at = chosen[place]
        used, promised = notes[at, USED], bounds[at, BOUND]
        forced = -1
        for k in range(words):
            word = table[at, words + k]
            while word and forced < 0:
                v = k * 64 + lowest(word)
                word &= word - ONE
                if may_run_at_once(shape, operators, tensors, links, table, at, used, v):
                    forced = v
        for k in range(words):
            word = table[at, words + k]
            while word:
                v = k * 64 + lowest(word)
                word &= word - ONE
                if forced >= 0 and v != forced:
                    continue
                start = operators[v, PAIR]
                for number in range(start - 2, operators[v + 1, PAIR], 2):
                    pair = number if number >= start else -1
                    if pair >= 0 and shape[STREAMABLE] and not has(table, at, shape[HERE], links[pair + 1]):
                        # The result alone takes no more space than the operand it would take over.
                        continue
                    over, count, extra = list_ways(shape, operators, tensors, links, table, at, used, v, pair, ways)
                    if count >= MOST_WAYS:
                        # Whatever is left costs at least what the label itself promises.
                        lost = promised if promised < lost else lost
                        continue
                    tally[DEPTH], tally[FREED], tally[PAID] = -1, 0, notes[at, COST] + extra
                    rest = bounds[at, REST] - prices[v]
                    made = 0
                    while next_cover(ways, count, over, upper, tally):
                        tally[COVERS] += 1
                        made += 1
                        if made > most:
                            lost = promised if promised < lost else lost
                            break
                        child = tally[MADE]
                        new_notes[child, USED] = write_child(
                            shape, operators, tensors, links, table, at, used, v, pair, ways, tally[DEPTH], new_table,
                            child,
                        )  # fmt: skip
                        new_notes[child, PARENT], new_notes[child, BY] = place, v
                        new_bounds[child, REST] = rest
                        least = tally[PAID] + future_cost(shape, tensors, links, prices, new_table, child, rest)
                        least = promised if promised > least else least
                        if least < upper and not insert(
                            shape, tensors, new_table, new_notes, new_bounds, heads, tally, least, notes[at, PURE]
                        ):
                            lost = least if least < lost else lost
    return lost
