"""Kernels of the label search: partial orders with what they left in the scratchpad.

A *label* stands for a partial plan: which operators have run (a down-set), which live tensors lie in the
scratchpad ("here") and which do not ("away"), which have an off-chip copy ("clean"), and what it has paid. Costs
are paid when a tensor is given up: the store it needs and the read that must follow. So an away tensor is
prepaid, a label that has paid no more and holds less is at least as good, and giving up can wait until the next
operator needs the space.

A label is one row of 64-bit words: ``done | ready | here | away | clean``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

#: Ways to free space at one operator, at most.
MOST_OPTIONS = 256

#: Operators in a chain that may run at once, at most.
LONGEST_RUN = 16


class LabelData(NamedTuple):
    """The instance as the kernels read it; CSR tables as in :class:`cosma.problem.Problem`.

    ``write_bytes`` is the store that giving a tensor up needs while it has no off-chip copy (0: none ever).
    ``potential`` and the ``load`` table (per tensor: operator, first and last stretch, amount) are a dual solution
    of the covering program: what operators still to run will cost at least; ``chain`` are the tensors' touches.
    """

    operators: int
    tensors: int
    operator_words: int
    tensor_words: int
    streamable: bool
    capacity: int
    size: Array
    space: Array
    write: Array
    must_store: Array
    producer: Array
    operand_start: Array
    operand: Array
    result_start: Array
    result: Array
    consumer_start: Array
    consumer: Array
    predecessor_start: Array
    predecessor: Array
    successor_start: Array
    successor: Array
    pair_start: Array
    pair_result: Array
    pair_operand: Array
    potential: Array
    load_start: Array
    load_operator: Array
    load_first: Array
    load_last: Array
    load: Array
    store_share: Array
    chain_start: Array
    chain: Array


@nb.njit(cache=True, inline="always")
def _has(row, offset, index):  # type: ignore[no-untyped-def]
    return (row[offset + (index >> 6)] >> np.uint64(index & 63)) & np.uint64(1) != np.uint64(0)


@nb.njit(cache=True, inline="always")
def _set(row, offset, index):  # type: ignore[no-untyped-def]
    row[offset + (index >> 6)] |= np.uint64(1) << np.uint64(index & 63)


@nb.njit(cache=True, inline="always")
def _clear(row, offset, index):  # type: ignore[no-untyped-def]
    row[offset + (index >> 6)] &= ~(np.uint64(1) << np.uint64(index & 63))


@nb.njit(cache=True, inline="always")
def _lowest(word):  # type: ignore[no-untyped-def]
    """Position of the lowest set bit of a word that is not zero."""
    at = 0
    if word & np.uint64(0xFFFFFFFF) == np.uint64(0):
        at += 32
        word >>= np.uint64(32)
    if word & np.uint64(0xFFFF) == np.uint64(0):
        at += 16
        word >>= np.uint64(16)
    if word & np.uint64(0xFF) == np.uint64(0):
        at += 8
        word >>= np.uint64(8)
    if word & np.uint64(0xF) == np.uint64(0):
        at += 4
        word >>= np.uint64(4)
    if word & np.uint64(0x3) == np.uint64(0):
        at += 2
        word >>= np.uint64(2)
    if word & np.uint64(0x1) == np.uint64(0):
        at += 1
    return at


@nb.njit(cache=True)
def _read_later(d, row, t, v):  # type: ignore[no-untyped-def]
    """Whether a consumer of ``t`` other than ``v`` has still to run."""
    for i in range(d.consumer_start[t], d.consumer_start[t + 1]):
        c = d.consumer[i]
        if c != v and not _has(row, 0, c):
            return True
    return False


@nb.njit(cache=True)
def _dominates(d, a, cost_a, b, cost_b):  # type: ignore[no-untyped-def]
    """Whether label ``a`` can become as good as ``b`` (same down-set) without paying more than ``b`` has paid."""
    paid = cost_a
    if paid > cost_b:
        return False
    here = 2 * d.operator_words
    clean = here + 2 * d.tensor_words
    for k in range(d.tensor_words):
        word = a[here + k] & ~b[here + k]
        while word:
            low = _lowest(word)
            word &= word - np.uint64(1)
            t = k * 64 + low
            paid += d.size[t]
            if not _has(a, clean, t):
                paid += d.write[t]
            if paid > cost_b:
                return False
        word = a[here + k] & b[here + k] & b[clean + k] & ~a[clean + k]
        while word:
            low = _lowest(word)
            word &= word - np.uint64(1)
            paid += d.write[k * 64 + low]
            if paid > cost_b:
                return False
    return True


@nb.njit(cache=True)
def future_cost(d, row, rest):  # type: ignore[no-untyped-def]
    """Least cost still to pay, by the dual solution: what the rows to come need, less what is prepaid for them."""
    least = rest
    if least <= 0.0:
        return 0.0
    here = 2 * d.operator_words
    away = here + d.tensor_words
    clean = away + d.tensor_words
    for k in range(d.tensor_words):
        word = row[away + k]
        while word:
            t = k * 64 + _lowest(word)
            word &= word - np.uint64(1)
            if d.load_start[t] == d.load_start[t + 1]:
                continue
            stretch = 0
            for i in range(d.chain_start[t], d.chain_start[t + 1]):
                if _has(row, 0, d.chain[i]):
                    stretch += 1
            for i in range(d.load_start[t], d.load_start[t + 1]):
                if d.load_first[i] <= stretch <= d.load_last[i] and not _has(row, 0, d.load_operator[i]):
                    least -= d.load[i]
        word = row[clean + k]
        while word:
            t = k * 64 + _lowest(word)
            word &= word - np.uint64(1)
            if d.write[t]:
                least -= d.store_share[t]
    return max(0.0, least)


@nb.njit(cache=True)
def _run_ends(d, row, level, before, v):  # type: ignore[no-untyped-def]
    """Account for running ``v`` right after a chain that ended with tensor ``before`` (-1: at the start).

    Returns (space held afterwards, price of giving up all results, least price among what is freed), or -1 as the
    first if ``v`` cannot run now without giving anything up or without changing a tensor that lives on.
    """
    here = 2 * d.operator_words
    clean = here + 2 * d.tensor_words
    at_once = level
    cheapest = np.int64(1) << np.int64(62)
    freed = 0
    for i in range(d.predecessor_start[v], d.predecessor_start[v + 1]):
        u = d.predecessor[i]
        if not _has(row, 0, u) and (before < 0 or u != d.producer[before]):
            return -1, 0, cheapest
    for i in range(d.operand_start[v], d.operand_start[v + 1]):
        u = d.operand[i]
        if d.space[u] == 0:
            continue
        if u == before:
            freed += d.space[u]
            cheapest = min(cheapest, d.size[u] + d.write[u])
        elif _has(row, here, u):
            if not _read_later(d, row, u, v):
                freed += d.space[u]
                cheapest = min(cheapest, d.size[u] + (np.int64(0) if _has(row, clean, u) else d.write[u]))
        else:
            if _read_later(d, row, u, v):
                return -1, 0, cheapest
            if not d.streamable:
                at_once += d.space[u]
    left = 0
    price = np.int64(0)
    for i in range(d.result_start[v], d.result_start[v + 1]):
        r = d.result[i]
        read = d.consumer_start[r] < d.consumer_start[r + 1]
        if read or not d.streamable or not d.must_store[r]:
            at_once += d.space[r]
        if read and d.space[r]:
            left += d.space[r]
            price += d.size[r] + d.write[r]
    shared = 0
    for i in range(d.pair_start[v], d.pair_start[v + 1]):
        u = d.pair_operand[i]
        if u == before or (_has(row, here, u) and not _read_later(d, row, u, v)):
            shared = max(shared, d.space[d.pair_result[i]])
    if at_once - shared > d.capacity:
        return -1, 0, cheapest
    return level - freed + left, price, cheapest


@nb.njit(cache=True)
def _may_run_at_once(d, row, used, v):  # type: ignore[no-untyped-def]
    """Whether running ``v`` next is at least as good as any continuation.

    So it is if ``v``, or a chain of operators that begins with ``v``, fits beside all that is here, ends holding no
    more space than there was at its start and after each of its members, and its last results are no dearer to
    give up than anything it frees on the way. Take any plan, and move the chain to the front: whenever the plan
    gives up one of the tensors the chain frees, give up the last results instead; until then they take no more.
    """
    level = used
    lowest = used
    least_price = np.int64(1) << np.int64(62)
    before = -1
    for _ in range(LONGEST_RUN):
        level, price, cheapest = _run_ends(d, row, level, before, v)
        if level < 0:
            return False
        least_price = min(least_price, cheapest)
        if level <= lowest and (price == 0 or price <= least_price):
            return True
        lowest = min(lowest, level)
        if d.result_start[v + 1] != d.result_start[v] + 1:
            return False
        before = d.result[d.result_start[v]]
        if d.consumer_start[before + 1] != d.consumer_start[before] + 1 or d.space[before] == 0:
            return False
        least_price = min(least_price, d.size[before] + d.write[before])
        v = d.consumer[d.consumer_start[before]]
    return False


@nb.njit(cache=True)
def _options(d, row, used, v, credit, gain, price, which):  # type: ignore[no-untyped-def]
    """List ways to free space while ``v`` runs.

    Returns (bytes over the capacity, ways, extra cost of the takeover), with ``gain`` and ``price`` filled and
    ``which`` naming the tensor: ``t`` as an operand or bystander, ``t + tensors`` as a result. ``credit`` is the
    number of a takeover in the pair table, or -1; its operand and result are no options.
    """
    here = 2 * d.operator_words
    away = here + d.tensor_words
    clean = away + d.tensor_words
    over = used - d.capacity
    count = 0
    extra = 0
    taken = d.pair_operand[credit] if credit >= 0 else -1
    taking = d.pair_result[credit] if credit >= 0 else -1
    for i in range(d.operand_start[v], d.operand_start[v + 1]):
        u = d.operand[i]
        if d.space[u] == 0:
            continue
        is_here = _has(row, here, u)
        lives_on = _read_later(d, row, u, v)
        if not is_here:
            if d.streamable and not lives_on and u != taken:
                continue
            over += d.space[u]
        if u == taken:
            over -= d.space[taking]
            if lives_on:
                extra = d.size[u]
                if is_here and not _has(row, clean, u):
                    extra += d.write[u]
        elif d.streamable:
            paid = 0
            if is_here:
                paid += d.size[u] + (0 if _has(row, clean, u) else d.write[u])
            if lives_on:
                paid += d.size[u]
            gain[count], price[count], which[count] = d.space[u], paid, u
            count += 1
    for i in range(d.result_start[v], d.result_start[v + 1]):
        r = d.result[i]
        if d.space[r] == 0:
            continue
        read = d.consumer_start[r] < d.consumer_start[r + 1]
        if d.streamable and not read and d.must_store[r] and r != taking:
            continue
        over += d.space[r]
        if d.streamable and r != taking:
            gain[count] = d.space[r]
            price[count] = d.size[r] + (d.write[r] if read else 0)
            which[count] = r + d.tensors
            count += 1
    for k in range(d.tensor_words):
        word = row[here + k]
        while word:
            t = k * 64 + _lowest(word)
            word &= word - np.uint64(1)
            touched = False
            for i in range(d.operand_start[v], d.operand_start[v + 1]):
                if d.operand[i] == t:
                    touched = True
                    break
            if not touched and count < gain.shape[0]:
                gain[count] = d.space[t]
                price[count] = d.size[t] + (0 if _has(row, clean, t) else d.write[t])
                which[count] = t
                count += 1
    return over, count, extra


@nb.njit(cache=True)
def _child(d, row, child, used, v, credit, chosen, chosen_count, which):  # type: ignore[no-untyped-def]
    """Write the label after ``v`` with the chosen ways of freeing space; return the space it holds."""
    here = 2 * d.operator_words
    away = here + d.tensor_words
    clean = away + d.tensor_words
    child[:] = row
    _set(child, 0, v)
    _clear(child, d.operator_words, v)
    for i in range(d.successor_start[v], d.successor_start[v + 1]):
        w = d.successor[i]
        ready = True
        for j in range(d.predecessor_start[w], d.predecessor_start[w + 1]):
            if not _has(child, 0, d.predecessor[j]):
                ready = False
                break
        if ready:
            _set(child, d.operator_words, w)
    for i in range(d.operand_start[v], d.operand_start[v + 1]):
        u = d.operand[i]
        if d.space[u] == 0:
            continue
        if _read_later(d, row, u, v):
            if not _has(child, here, u):
                _set(child, here, u)
                _clear(child, away, u)
                used += d.space[u]
                if d.producer[u] < 0 or d.write[u] == 0:
                    _set(child, clean, u)
        else:
            if _has(child, here, u):
                used -= d.space[u]
            _clear(child, here, u)
            _clear(child, away, u)
            _clear(child, clean, u)
    for i in range(d.result_start[v], d.result_start[v + 1]):
        r = d.result[i]
        if d.space[r] and d.consumer_start[r] < d.consumer_start[r + 1]:
            _set(child, here, r)
            used += d.space[r]
            if d.write[r] == 0:
                _set(child, clean, r)
    for j in range(chosen_count + 1):
        if j < chosen_count:
            t = which[chosen[j]]
            if t >= d.tensors:
                t -= d.tensors
        elif credit >= 0:
            t = d.pair_operand[credit]
        else:
            continue
        if _has(child, here, t):
            _clear(child, here, t)
            _set(child, away, t)
            _set(child, clean, t)
            used -= d.space[t]
    return used


@nb.njit(cache=True)
def _hash(row, words):  # type: ignore[no-untyped-def]
    value = np.uint64(1469598103934665603)
    for k in range(words):
        value ^= row[k]
        value *= np.uint64(1099511628211)
        value ^= value >> np.uint64(29)
    return value


@nb.njit(cache=True)
def _insert(d, table, cost, bound, used, rest, parent, by, alive, pure, heads, nexts, sizes,  # type: ignore[no-untyped-def]
            child, c, f, u, r, p, v, real):
    """Add a label unless one with the same down-set dominates it; returns False if the table is full."""
    slot = np.int64(_hash(child, d.operator_words) & np.uint64(heads.shape[0] - 1))
    at = heads[slot]
    full = sizes[0] >= table.shape[0]
    while at >= 0:
        if alive[at]:
            same = True
            for k in range(d.operator_words):
                if table[at, k] != child[k]:
                    same = False
                    break
            if same:
                sizes[1] += 1
                # A merged label promises for those it stands for; now it stands for one more.
                if _dominates(d, table[at], cost[at], child, c):
                    if not pure[at]:
                        bound[at] = min(bound[at], f)
                    return True
                if not full and _dominates(d, child, c, table[at], cost[at]):
                    alive[at] = False
                    if not real:
                        f = min(f, bound[at])
        at = nexts[at]
    if full:
        return False
    at = sizes[0]
    table[at] = child
    cost[at] = c
    bound[at] = f
    used[at] = u
    rest[at] = r
    parent[at] = p
    by[at] = v
    alive[at] = True
    pure[at] = real
    nexts[at] = heads[slot]
    heads[slot] = at
    sizes[0] = at + 1
    return True


@nb.njit(cache=True)
def _covers(d, row, used, v, credit, over, options, extra, gain, price, which,  # type: ignore[no-untyped-def]
            base, rest, promised, real, upper, most, table, cost, bound, held, rests, parent, by, alive, pure, heads,
            nexts, sizes, child, index, order, chosen, suffix):
    """Create a child for every inclusion-minimal set of ways that frees enough.

    Returns the least bound among children that were given up (too many ways, or no room in the table), or -1.
    """
    lost = -1.0
    for i in range(options):
        order[i] = i
    for i in range(1, options):  # insertion sort: larger gains first, then cheaper, then by tensor
        x = order[i]
        j = i - 1
        while j >= 0 and (
            gain[order[j]] < gain[x]
            or (gain[order[j]] == gain[x] and (price[order[j]], which[order[j]]) > (price[x], which[x]))
        ):
            order[j + 1] = order[j]
            j -= 1
        order[j + 1] = x
    suffix[options] = 0
    for i in range(options - 1, -1, -1):
        suffix[i] = suffix[i + 1] + gain[order[i]]
    if over > suffix[0]:
        return lost
    made = 0
    depth = 0
    at = 0
    freed = np.int64(0)
    paid = np.int64(base + extra)
    while True:
        complete = freed >= over
        if not complete and at < options and freed + suffix[at] >= over and paid + 0.0 < upper:
            chosen[depth] = order[at]
            freed += gain[order[at]]
            paid += price[order[at]]
            index[depth] = at
            depth += 1
            at += 1
            continue
        if complete and paid < upper:
            sizes[2] += 1
            made += 1
            if made > most:
                # Whatever is left costs at least what the label itself promises.
                return promised if lost < 0 else min(lost, promised)
            space = _child(d, row, child, used, v, credit, chosen, depth, which)
            least = max(promised, paid + future_cost(d, child, rest))
            if least < upper and not _insert(d, table, cost, bound, held, rests, parent, by, alive, pure, heads, nexts,
                                             sizes, child, paid, least, space, rest, sizes[3], v, real):
                lost = least if lost < 0 else min(lost, least)
        if depth == 0:
            return lost
        depth -= 1
        at = index[depth] + 1
        freed -= gain[chosen[depth]]
        paid -= price[chosen[depth]]


@nb.njit(cache=True)
def expand(d, table, cost, bound, used, rest, pure, chosen_labels, first, last, upper, most,  # type: ignore[no-untyped-def]
           out_table, out_cost, out_bound, out_used, out_rest, out_parent, out_by, out_alive, out_pure, heads, nexts,
           sizes):
    """Run one more operator from the labels ``chosen_labels[first:last]`` of a layer.

    ``sizes`` counts labels made, comparisons and covers (and holds the label at work). Returns the least bound of
    what was given up, or -1.
    """
    gain = np.empty(MOST_OPTIONS, dtype=np.int64)
    price = np.empty(MOST_OPTIONS, dtype=np.int64)
    which = np.empty(MOST_OPTIONS, dtype=np.int64)
    order = np.empty(MOST_OPTIONS, dtype=np.int64)
    chosen = np.empty(MOST_OPTIONS, dtype=np.int64)
    index = np.empty(MOST_OPTIONS, dtype=np.int64)
    suffix = np.empty(MOST_OPTIONS + 1, dtype=np.int64)
    child = np.empty(table.shape[1], dtype=np.uint64)
    lost = -1.0
    for place in range(first, last):
        at = chosen_labels[place]
        row = table[at]
        sizes[3] = place
        forced = -1
        for k in range(d.operator_words):
            word = row[d.operator_words + k]
            while word and forced < 0:
                v = k * 64 + _lowest(word)
                word &= word - np.uint64(1)
                if _may_run_at_once(d, row, used[at], v):
                    forced = v
        for k in range(d.operator_words):
            word = row[d.operator_words + k]
            while word:
                v = k * 64 + _lowest(word)
                word &= word - np.uint64(1)
                if forced >= 0 and v != forced:
                    continue
                for credit in range(d.pair_start[v] - 1, d.pair_start[v + 1]):
                    pair = credit if credit >= d.pair_start[v] else -1
                    if pair >= 0 and d.streamable and not _has(row, 2 * d.operator_words, d.pair_operand[pair]):
                        # The result alone takes no more space than the operand it would take over.
                        continue
                    over, options, extra = _options(d, row, used[at], v, pair, gain, price, which)
                    if options >= MOST_OPTIONS:
                        gone = bound[at]
                    else:
                        gone = _covers(
                            d, row, used[at], v, pair, over, options, extra, gain, price, which, cost[at],
                            rest[at] - d.potential[v], bound[at], pure[at], upper, most, out_table, out_cost,
                            out_bound, out_used, out_rest, out_parent, out_by, out_alive, out_pure, heads, nexts,
                            sizes, child, index, order, chosen, suffix,
                        )
                    if gone >= 0:
                        lost = gone if lost < 0 else min(lost, gone)
    return lost


@nb.njit(cache=True)
def rehash(d, table, count, heads, nexts):  # type: ignore[no-untyped-def]
    """Enter the first ``count`` labels of a table into an emptied hash table."""
    heads[:] = -1
    for at in range(count):
        slot = np.int64(_hash(table[at], d.operator_words) & np.uint64(heads.shape[0] - 1))
        nexts[at] = heads[slot]
        heads[slot] = at


@nb.njit(cache=True)
def hashes(d, table, labels):  # type: ignore[no-untyped-def]
    """Hash the down-sets of some labels. ``uint64[labels]``."""
    found = np.empty(len(labels), dtype=np.uint64)
    for i in range(len(labels)):
        found[i] = _hash(table[labels[i]], d.operator_words)
    return found


@nb.njit(cache=True)
def merge(d, table, cost, bound, used, rest, pure, ranked, keys, width):  # type: ignore[no-untyped-def]
    """Merge labels of equal down-set until about ``width`` are left.

    ``ranked`` lists labels by (hash, bound), ``keys`` their hashes. Each down-set keeps its best labels in
    proportion to its share; the others become one that holds what all of them hold, is clean where any of them
    is, and has paid the least: at least as good as each. Returns the labels kept.
    """
    kept = np.empty(len(ranked), dtype=np.int64)
    count = 0
    here = 2 * d.operator_words
    away = here + d.tensor_words
    clean = away + d.tensor_words
    begin = 0
    while begin < len(ranked):
        end = begin + 1
        while end < len(ranked) and keys[end] == keys[begin]:
            same = True
            for k in range(d.operator_words):
                if table[ranked[end], k] != table[ranked[begin], k]:
                    same = False
            if not same:
                break
            end += 1
        allotted = max(1, (end - begin) * width // len(ranked))
        for i in range(begin, min(end, begin + allotted)):
            kept[count] = ranked[i]
            count += 1
        if end - begin > allotted:
            to = kept[count - 1]
            for i in range(begin + allotted, end):
                at = ranked[i]
                cost[to] = min(cost[to], cost[at])
                bound[to] = min(bound[to], bound[at])
                for k in range(d.tensor_words):
                    alive = table[to, here + k] | table[to, away + k]
                    table[to, here + k] &= table[at, here + k]
                    table[to, away + k] = alive & ~table[to, here + k]
                    table[to, clean + k] |= table[at, clean + k] | table[to, away + k]
            pure[to] = False
            held = np.int64(0)
            for k in range(d.tensor_words):
                word = table[to, here + k]
                while word:
                    held += d.space[k * 64 + _lowest(word)]
                    word &= word - np.uint64(1)
            used[to] = held
            bound[to] = max(bound[to], cost[to] + future_cost(d, table[to], rest[to]))
        begin = end
    return kept[:count]
