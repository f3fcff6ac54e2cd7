"""The step of the label search, compiled: run one more operator from every label of a layer.

On compiled copies of changed functions see :mod:`cosma.bounds.label_tables`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.bounds.label_rules import dominates, future_cost, has, lowest, may_run_at_once, read_later
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
    GAIN,
    HERE,
    KEY,
    LEFT,
    MADE,
    MOST_WAYS,
    MUST_STORE,
    NEXT,
    OPERAND,
    OPERATOR_WORDS,
    PAIR,
    PARENT,
    PLACE,
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
    helper,
    integer,
    kernel,
)

if TYPE_CHECKING:
    from cosma.bounds.label_tables import Floats, Ints, Words


@helper
def add(table: Words, at: int, offset: int, index: int) -> None:
    """Put a member into a set of label ``at``."""
    table[at, offset + (index >> 6)] |= np.uint64(1) << np.uint64(index & 63)


@helper
def remove(table: Words, at: int, offset: int, index: int) -> None:
    """Take a member out of a set of label ``at``."""
    table[at, offset + (index >> 6)] &= ~(np.uint64(1) << np.uint64(index & 63))


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
    streamable = shape[STREAMABLE]
    count = 0
    extra = 0
    taking = links[pair] if pair >= 0 else -1
    taken = links[pair + 1] if pair >= 0 else -1
    for i in range(operators[v, OPERAND], operators[v + 1, OPERAND]):
        u = links[i]
        if tensors[u, SPACE] == 0:
            continue
        is_here = has(table, at, shape[HERE], u)
        store = 0 if has(table, at, shape[CLEAN], u) else tensors[u, WRITE]
        lives_on = read_later(tensors, links, table, at, u, v)
        if not is_here:
            if streamable and not lives_on and u != taken:
                continue
            over += tensors[u, SPACE]
        if u == taken:
            over -= tensors[taking, SPACE]
            if lives_on:
                extra = tensors[u, SIZE] + (store if is_here else 0)
        elif streamable:
            ways[count, GAIN] = tensors[u, SPACE]
            ways[count, PRICE] = (tensors[u, SIZE] + store if is_here else 0) + (tensors[u, SIZE] if lives_on else 0)
            ways[count, WHICH] = u
            count += 1
    for i in range(operators[v, RESULT], operators[v + 1, RESULT]):
        r = links[i]
        if tensors[r, SPACE] == 0:
            continue
        read = tensors[r, CONSUMER] < tensors[r + 1, CONSUMER]
        if streamable and not read and tensors[r, MUST_STORE] and r != taking:
            continue
        over += tensors[r, SPACE]
        if streamable and r != taking:
            ways[count, GAIN] = tensors[r, SPACE]
            ways[count, PRICE] = tensors[r, SIZE] + (tensors[r, WRITE] if read else 0)
            ways[count, WHICH] = r + shape[TENSORS]
            count += 1
    for k in range(shape[TENSOR_WORDS]):
        word = table[at, shape[HERE] + k]
        while word:
            t = k * 64 + lowest(word)
            word &= word - np.uint64(1)
            touched = False
            for i in range(operators[v, OPERAND], operators[v + 1, OPERAND]):
                if links[i] == t:
                    touched = True
                    break
            if not touched and count < MOST_WAYS:
                ways[count, GAIN] = tensors[t, SPACE]
                ways[count, PRICE] = tensors[t, SIZE] + (0 if has(table, at, shape[CLEAN], t) else tensors[t, WRITE])
                ways[count, WHICH] = t
                count += 1
    return over, count, extra


@helper
def sort_ways(ways: Ints, count: int) -> None:
    """Sort by larger gains, then lower prices, then tensors; add up what each way and all later ones free."""
    for i in range(1, count):
        gain, price, which = ways[i, GAIN], ways[i, PRICE], ways[i, WHICH]
        j = i - 1
        while j >= 0 and (
            ways[j, GAIN] < gain
            or (
                ways[j, GAIN] == gain
                and (ways[j, PRICE] > price or (ways[j, PRICE] == price and ways[j, WHICH] > which))
            )
        ):
            ways[j + 1, GAIN], ways[j + 1, PRICE], ways[j + 1, WHICH] = ways[j, GAIN], ways[j, PRICE], ways[j, WHICH]
            j -= 1
        ways[j + 1, GAIN], ways[j + 1, PRICE], ways[j + 1, WHICH] = gain, price, which
    ways[count, LEFT] = 0
    for i in range(count - 1, -1, -1):
        ways[i, LEFT] = ways[i + 1, LEFT] + ways[i, GAIN]


@helper
def write_child(
    shape: Ints, operators: Ints, tensors: Ints, links: Ints, table: Words, at: int, used: int, v: int, pair: int,
    ways: Ints, chosen: int, new_table: Words, child: int,
) -> int:  # fmt: skip
    """Write the sets of the label after ``v``, with the ways chosen; return the space it holds."""
    here, away, clean = shape[HERE], shape[AWAY], shape[CLEAN]
    for k in range(table.shape[1]):
        new_table[child, k] = table[at, k]
    add(new_table, child, 0, v)
    remove(new_table, child, shape[OPERATOR_WORDS], v)
    for i in range(operators[v, SUCCESSOR], operators[v + 1, SUCCESSOR]):
        w = links[i]
        ready = True
        for j in range(operators[w, PREDECESSOR], operators[w + 1, PREDECESSOR]):
            if not has(new_table, child, 0, links[j]):
                ready = False
                break
        if ready:
            add(new_table, child, shape[OPERATOR_WORDS], w)
    for i in range(operators[v, OPERAND], operators[v + 1, OPERAND]):
        u = links[i]
        if tensors[u, SPACE] == 0:
            continue
        is_here = has(new_table, child, here, u)
        if read_later(tensors, links, table, at, u, v):
            if not is_here:
                add(new_table, child, here, u)
                remove(new_table, child, away, u)
                used += tensors[u, SPACE]
                if tensors[u, PRODUCER] < 0 or tensors[u, WRITE] == 0:
                    add(new_table, child, clean, u)
        else:
            if is_here:
                used -= tensors[u, SPACE]
            remove(new_table, child, here, u)
            remove(new_table, child, away, u)
            remove(new_table, child, clean, u)
    for i in range(operators[v, RESULT], operators[v + 1, RESULT]):
        r = links[i]
        if tensors[r, SPACE] and tensors[r, CONSUMER] < tensors[r + 1, CONSUMER]:
            add(new_table, child, here, r)
            used += tensors[r, SPACE]
            if tensors[r, WRITE] == 0:
                add(new_table, child, clean, r)
    for j in range(chosen + (1 if pair >= 0 else 0)):
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
    shape: Ints, tensors: Ints, table: Words, notes: Ints, bounds: Floats, heads: Ints, tally: Ints, cost: int,
    bound: float, pure: int,
) -> bool:  # fmt: skip
    """Enter the label after the last unless one with the same down-set dominates it; False if there is no room.

    Its sets are written; its cost, bound, hash, place in the hash table and whether it is pure are noted here.
    """
    child = tally[MADE]
    words = shape[OPERATOR_WORDS]
    value = np.uint64(1469598103934665603)
    for k in range(words):
        value ^= table[child, k]
        value *= np.uint64(1099511628211)
        value ^= value >> np.uint64(29)
    key = integer(value)
    slot = key & (heads.shape[0] - 1)
    full = child >= table.shape[0] - 1
    at = heads[slot]
    while at >= 0:
        if notes[at, ALIVE] and notes[at, KEY] == key:
            same = True
            for k in range(words):
                if table[at, k] != table[child, k]:
                    same = False
                    break
            if same:
                tally[COMPARED] += 1
                # A merged label promises for those it stands for; now it stands for one more.
                if dominates(shape, tensors, table, at, notes[at, COST], child, cost):
                    if not notes[at, PURE]:
                        bounds[at, BOUND] = min(bounds[at, BOUND], bound)
                    return True
                if not full and dominates(shape, tensors, table, child, cost, at, notes[at, COST]):
                    notes[at, ALIVE] = 0
                    if not pure:
                        bound = min(bound, bounds[at, BOUND])
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


@helper
def cover(
    shape: Ints, operators: Ints, tensors: Ints, links: Ints, prices: Floats, table: Words, notes: Ints,
    bounds: Floats, at: int, v: int, pair: int, upper: float, most: int, new_table: Words, new_notes: Ints,
    new_bounds: Floats, heads: Ints, tally: Ints, ways: Ints,
) -> float:  # fmt: skip
    """Create a child for every inclusion-minimal set of ways that frees enough for ``v`` to run.

    Returns the least bound among children that were given up (too many ways, or no room in the layer), or -1.
    """
    used = notes[at, USED]
    promised: float = bounds[at, BOUND]
    over, count, extra = list_ways(shape, operators, tensors, links, table, at, used, v, pair, ways)
    if count >= MOST_WAYS:
        return promised
    sort_ways(ways, count)
    lost = -1.0
    if over > ways[0, LEFT]:
        return lost
    rest = bounds[at, REST] - prices[v]
    paid = notes[at, COST] + extra
    made = depth = following = freed = integer(0)
    while True:
        complete = freed >= over
        if not complete and following < count and freed + ways[following, LEFT] >= over and paid < upper:
            ways[depth, CHOSEN] = following
            freed += ways[following, GAIN]
            paid += ways[following, PRICE]
            depth += 1
            following += 1
            continue
        if complete and paid < upper:
            tally[COVERS] += 1
            made += 1
            if made > most:
                # Whatever is left costs at least what the label itself promises.
                return promised if lost < 0 else min(lost, promised)
            child = tally[MADE]
            space = write_child(
                shape, operators, tensors, links, table, at, used, v, pair, ways, depth, new_table, child
            )
            least = max(promised, paid + future_cost(shape, tensors, links, prices, new_table, child, rest))
            if least < upper:
                if not insert(
                    shape, tensors, new_table, new_notes, new_bounds, heads, tally, paid, least, notes[at, PURE]
                ):
                    lost = least if lost < 0 else min(lost, least)
                elif tally[MADE] > child:
                    new_notes[child, USED] = space
                    new_notes[child, PARENT] = tally[PLACE]
                    new_notes[child, BY] = v
                    new_bounds[child, REST] = rest
        if depth == 0:
            return lost
        depth -= 1
        following = ways[depth, CHOSEN]
        freed -= ways[following, GAIN]
        paid -= ways[following, PRICE]
        following += 1


@kernel
def expand(
    shape: Ints, operators: Ints, tensors: Ints, links: Ints, prices: Floats, table: Words, notes: Ints,
    bounds: Floats, chosen: Ints, first: int, last: int, upper: float, most: int, new_table: Words, new_notes: Ints,
    new_bounds: Floats, heads: Ints, tally: Ints, ways: Ints,
) -> float:  # fmt: skip
    """Run one more operator from the labels ``chosen[first:last]`` of a layer.

    The next label is written to the new layer's row after the last, so a layer has room for one label less than it
    has rows. ``ways`` is working memory of ``MOST_WAYS + 1`` rows. Returns the least bound of what was given up, or
    -1.
    """
    words = shape[OPERATOR_WORDS]
    lost = -1.0
    for place in range(first, last):
        at = chosen[place]
        tally[PLACE] = place
        forced = -1
        for k in range(words):
            word = table[at, words + k]
            while word and forced < 0:
                v = k * 64 + lowest(word)
                word &= word - np.uint64(1)
                if may_run_at_once(shape, operators, tensors, links, table, at, notes[at, USED], v):
                    forced = v
        for k in range(words):
            word = table[at, words + k]
            while word:
                v = k * 64 + lowest(word)
                word &= word - np.uint64(1)
                if forced >= 0 and v != forced:
                    continue
                for pair in range(operators[v, PAIR] - 2, operators[v + 1, PAIR], 2):
                    takeover = pair if pair >= operators[v, PAIR] else -1
                    if takeover >= 0 and shape[STREAMABLE] and not has(table, at, shape[HERE], links[pair + 1]):
                        # The result alone takes no more space than the operand it would take over.
                        continue
                    gone = cover(
                        shape, operators, tensors, links, prices, table, notes, bounds, at, v, takeover, upper, most,
                        new_table, new_notes, new_bounds, heads, tally, ways,
                    )  # fmt: skip
                    if gone >= 0:
                        lost = gone if lost < 0 else min(lost, gone)
    return lost
