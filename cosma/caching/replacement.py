"""Compiled replay of a replacement policy with prefetch on a clock (numba; imported only by the optimisers).

One heap per group holds the pages in its slots by key, least first: the next to give way. Heaps lie end to end in flat
arrays; ``place[page]`` is a page's position in its heap, -1 where it is in none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.caching.predict import sum_evidence
from cosma.compiled import helper, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.arrays import Float32s, Floats, Ints, Uint16s

# Rules for keys.
LRU, LFU, FREQUENCY, BELADY, AFFINITY = 0, 1, 2, 3, 4

# Kinds of event.
FETCH, PREFETCH, EVICT, HOST = 0, 1, 2, 3

#: Sums of evidence that are made at once: 16 MB of them.
_SUMS = 1 << 22


@helper
def _swap(heap: Ints, place: Ints, base: int, i: int, j: int) -> None:
    heap[base + i], heap[base + j] = heap[base + j], heap[base + i]
    place[heap[base + i]] = i
    place[heap[base + j]] = j


@helper
def _rise(heap: Ints, place: Ints, key: Ints, base: int, i: int) -> int:
    while i > 0:
        parent = (i - 1) >> 1
        if key[heap[base + parent]] <= key[heap[base + i]]:
            break
        _swap(heap, place, base, i, parent)
        i = parent
    return i


@helper
def _sink(heap: Ints, place: Ints, key: Ints, base: int, count: int, i: int) -> None:
    while True:
        child = 2 * i + 1
        if child >= count:
            return
        if child + 1 < count and key[heap[base + child + 1]] < key[heap[base + child]]:
            child += 1
        if key[heap[base + i]] <= key[heap[base + child]]:
            return
        _swap(heap, place, base, i, child)
        i = child


@helper
def _push(heap: Ints, place: Ints, key: Ints, base: int, held: Ints, group: int, page: int) -> None:
    i = held[group]
    heap[base + i] = page
    place[page] = i
    held[group] += 1
    _rise(heap, place, key, base, i)


@helper
def _remove(heap: Ints, place: Ints, key: Ints, base: int, held: Ints, group: int, page: int) -> None:
    i = place[page]
    held[group] -= 1
    last = held[group]
    if i != last:
        _swap(heap, place, base, i, last)
        i = _rise(heap, place, key, base, i)
        _sink(heap, place, key, base, last, i)
    place[page] = -1


@helper
def _victim(heap: Ints, score: Floats, base: int, count: int, by_key: bool) -> int:
    """Return the page to give way: by key the root, else the one of least score."""
    best = base
    if not by_key:
        for i in range(base + 1, base + count):
            if score[heap[i]] < score[heap[best]]:
                best = i
    return int(heap[best])


@helper
def _giving_way(
    heap: Ints, key: Ints, score: Floats, base: int, count: int, by_key: bool, target: int, share: NDArray[np.int32],
    needed: int, until: Ints, free: int,
) -> int:  # fmt: skip
    """Return the first page to give way for one that layer ``target`` needs so much; -1 where none may.

    Pages stay that the layer needs as much, and those whose ``until`` is ``free`` or more.
    """
    experts = len(share)
    best = -1
    for i in range(base, base + count):
        p = heap[i]
        if until[p] >= free or (p // experts == target and share[p - target * experts] >= needed):
            continue
        if by_key and i == base:
            return int(p)
        if best < 0 or (key[p] < key[best] if by_key else score[p] < score[best]):
            best = p
    return best


@helper
def _key(rule: int, page: int, key: Ints, step: int, steps: int, uses: Ints, learnt: Ints, next_use: int) -> Any:
    if rule == AFFINITY:
        return key[page]  # Scores set it.
    if rule == LRU:
        return step
    if rule == LFU:
        return uses[page] * (steps + 1) + step
    if rule == FREQUENCY:
        return learnt[page] * (steps + 1) + step
    return -next_use


@helper
def _update_scores(
    step: int, first: int, last: int, page: Ints, layers: int, experts: int, follow: Float32s, decay: float,
    score: Floats, heap: Ints, place: Ints, held: Ints, base: Ints, group: Ints, key: Ints, by_key: bool,
) -> None:  # fmt: skip
    """Let what a step used say what the same layer will use next, and put the pages in slots in that order.

    A score starts as the share of batches that visit the page, and moves towards what the experts just used are
    followed by, by ``1 - decay`` a batch. Keys, where pages give way by key, are logarithms with the fading taken out,
    so that they stay comparable while no step of their layer runs.
    """
    layer = step % layers
    batch = step // layers
    if decay == 1.0 and batch > 0:
        return  # Nothing fades and nothing is added: keys stand.
    mine = score[layer * experts : (layer + 1) * experts]
    mine *= decay
    for r in range(first, last):
        row = follow[layer, page[r] - layer * experts]
        for e in range(experts):
            mine[e] += (1.0 - decay) * row[e]
    if not by_key:
        return
    fade = np.log(decay)
    for e in range(experts):
        p = layer * experts + e
        key[p] = np.int64(1e6 * (np.log(mine[e] + 1e-9) - batch * fade))
        if place[p] >= 0:
            g = group[p]
            i = _rise(heap, place, key, base[g], place[p])
            _sink(heap, place, key, base[g], held[g], i)


@helper
def _note(events: Ints, count: Ints, step: int, kind: int, page: int) -> None:
    i = count[0]
    if i < events.shape[0]:
        events[i, 0] = step
        events[i, 1] = kind
        events[i, 2] = page
    count[0] = i + 1


@kernel
def play(
    start: Ints,
    page: Ints,
    visits: Ints,
    next_use: Ints,
    layers: int,
    experts: int,
    group: Ints,
    base: Ints,
    slots: Ints,
    device: Ints,
    devices: int,
    together: bool,
    rule: int,
    learnt: Ints,
    guess: Uint16s,
    depth: int,
    threshold: int,
    follow: Float32s,
    decay: float,
    clock: Floats,
    events: Ints,
) -> Any:
    """Replay requests under one policy.

    Parameters
    ----------
    start, page, visits
        The requests; see :class:`cosma.caching.requests.Requests`.
    next_use
        ``int64[requests]``: step of the page's next request, ``steps`` where there is none (for ``BELADY`` alone).
    group, base, slots
        Group of each page; offset of each group's heap; slots of each group.
    device, devices
        Device of each page, whose link its fetches take.
    together
        Whether all pages of a step hold slots at once; otherwise one slot is set aside through which pages pass.
    rule
        ``LRU``, ``LFU``, ``FREQUENCY`` or ``BELADY``.
    learnt
        ``int64[pages]``: visits in the trace that was learnt from.
    guess
        ``uint16[depth, layers, experts, experts]``: how much a visit to the row's expert in layer l says for one to the
        column's expert ``1 + d`` steps later; see :func:`cosma.caching.predict.evidence`.
    depth, threshold
        Steps to look ahead (0: no prefetch), and the least evidence on which a page is fetched ahead.
    follow, decay
        For ``AFFINITY``: ``float32[layers, experts, experts]``, share of the batches with a visit to the row's expert
        that are followed by one to the column's in the same layer of the next batch, and the factor by which a score
        fades from batch to batch; 1 keeps to what was learnt.
    clock
        Seconds: of one fetch, of one step's arithmetic, of one visit computed on the host (below 0: never).
    events
        ``int64[limit, 3]``: step, kind and page of every event, in order, as far as there is room.

    Returns
    -------
    (events seen, stalled seconds, seconds in all)
    """
    steps = len(start) - 1
    pages = layers * experts
    fetch_s, step_s, host_s = clock[0], clock[1], clock[2]
    heap = np.empty(pages, dtype=np.int64)
    place = np.full(pages, -1, dtype=np.int64)
    held = np.zeros(len(slots), dtype=np.int64)
    key = np.zeros(pages, dtype=np.int64)
    uses = np.zeros(pages, dtype=np.int64)
    # Twice the last step that a page was fetched ahead for; one more for a step that it is used at.
    until = np.full(pages, -1, dtype=np.int64)
    ready = np.zeros(pages, dtype=np.float64)
    link = np.zeros(devices, dtype=np.float64)
    host = np.zeros(devices, dtype=np.float64)
    pinned = np.zeros(len(slots), dtype=np.int64)
    hosted = np.zeros(pages, dtype=np.bool_)
    # Seconds of the host on each page since it last had a slot: once they would exceed a fetch, it is fetched.
    rented = np.zeros(pages, dtype=np.float64)
    absent = np.zeros(pages, dtype=np.bool_)
    score = learnt / max(1.0, learnt.sum() / layers)
    seen = np.zeros(1, dtype=np.int64)
    # Affinity changes all scores of a layer in every step. Where a group holds no other layer, one look at each page
    # when one has to give way is cheaper than a heap in order.
    by_key = rule != AFFINITY
    layer_of = np.full(len(slots), -1, dtype=np.int64)
    for p in range(pages):
        by_key = by_key or (layer_of[group[p]] >= 0 and layer_of[group[p]] != p // experts)
        layer_of[group[p]] = p // experts
    block = layers * max(1, _SUMS // max(1, depth * layers * experts))
    sums = np.empty((depth, min(block, steps), experts), dtype=np.int32)
    now = 0.0
    stalled = 0.0
    for step in range(steps):
        first, last = start[step], start[step + 1]
        begin = now
        wait = now
        end_host = now
        if rule == AFFINITY:
            _update_scores(
                step, first, last, page, layers, experts, follow, decay, score, heap, place, held, base, group, key,
                by_key,
            )  # fmt: skip
        # Pages at hand come first: they hold their slots, or have run before another page can take theirs.
        for r in range(first, last):
            p = page[r]
            g = group[p]
            uses[p] += 1
            until[p] = max(until[p], 2 * step + 1)
            hosted[p] = False
            absent[p] = place[p] < 0
            if absent[p]:
                continue
            wait = max(wait, ready[p])
            _remove(heap, place, key, base[g], held, g, p)
            if together:
                pinned[g] += 1
            else:
                key[p] = _key(rule, p, key, step, steps, uses, learnt, next_use[r])
                _push(heap, place, key, base[g], held, g, p)
        for r in range(first, last):
            p = page[r]
            if not absent[p]:
                continue
            d = device[p]
            g = group[p]
            arrival = max(link[d], begin) + fetch_s
            rent = host_s * visits[r]
            if host_s >= 0.0 and max(host[d], begin) + rent < arrival and rented[p] + rent <= fetch_s:
                host[d] = max(host[d], begin) + rent
                rented[p] += rent
                end_host = max(end_host, host[d])
                hosted[p] = True
                _note(events, seen, step, HOST, p)
                continue
            if together:
                if held[g] + pinned[g] >= slots[g]:
                    victim = _victim(heap, score, base[g], held[g], by_key)
                    _remove(heap, place, key, base[g], held, g, victim)
                    _note(events, seen, step, EVICT, victim)
                pinned[g] += 1
            rented[p] = 0.0
            link[d] = arrival
            ready[p] = arrival
            wait = max(wait, arrival)
            _note(events, seen, step, FETCH, p)
            if not together:
                key[p] = _key(rule, p, key, step, steps, uses, learnt, next_use[r])
                _push(heap, place, key, base[g], held, g, p)
                if held[g] > slots[g] - 1:
                    victim = _victim(heap, score, base[g], held[g], by_key)
                    _remove(heap, place, key, base[g], held, g, victim)
                    _note(events, seen, step, EVICT, victim)
        if together:
            for r in range(first, last):
                p = page[r]
                if not hosted[p]:
                    g = group[p]
                    key[p] = _key(rule, p, key, step, steps, uses, learnt, next_use[r])
                    _push(heap, place, key, base[g], held, g, p)
                    pinned[g] = 0
        stalled += wait - begin
        end = max(wait + step_s, end_host)
        if depth > 0:
            if step % block == 0:
                sum_evidence(start, page, step, min(step + block, steps), layers, experts, guess, sums)
            _prefetch(
                step, steps, layers, experts, group, base, slots, device, together, sums[:, step % block], threshold,
                fetch_s, wait, end, heap, place, held, key, ready, link, events, seen, uses, learnt, rule, score,
                by_key, until,
            )  # fmt: skip
        now = end
    return seen[0], stalled, now


@helper
def _prefetch(
    step: int, steps: int, layers: int, experts: int, group: Ints, base: Ints, slots: Ints, device: Ints,
    together: bool, shares: NDArray[np.int32], threshold: int, fetch_s: float, begin: float, end: float, heap: Ints,
    place: Ints, held: Ints, key: Ints, ready: Floats, link: Floats, events: Ints, seen: Ints, uses: Ints,
    learnt: Ints, rule: int, score: Floats, by_key: bool, until: Ints,
) -> None:  # fmt: skip
    """Fetch what the next steps probably need, while the link has nothing better to do and the step computes."""
    layer = step % layers
    aside = 0 if together else 1
    wanted = np.empty(experts, dtype=np.int32)
    for ahead in range(min(len(shares), steps - 1 - step)):
        if max(link.min(), begin) >= end:
            return
        target = (layer + 1 + ahead) % layers
        share = shares[ahead]
        # Experts wait that are likely, absent, and can still get a slot and a link; the likeliest is next.
        for e in range(experts):
            p = target * experts + e
            open_ = place[p] < 0 and link[device[p]] < end and slots[group[p]] > aside
            wanted[e] = share[e] if open_ else -1
        while True:
            e = int(wanted.argmax())
            if wanted[e] < threshold:
                break
            wanted[e] = -1
            p = target * experts + e
            d = device[p]
            g = group[p]
            victim = -1
            full = held[g] >= slots[g] - aside
            if full:
                free = 2 * step + 1 + aside  # one by one, what the step computed with may go
                victim = _giving_way(heap, key, score, base[g], held[g], by_key, target, share, share[e], until, free)
            if victim >= 0:
                _remove(heap, place, key, base[g], held, g, victim)
                _note(events, seen, step, EVICT, victim)
                if victim // experts == target:
                    wanted[victim % experts] = share[victim % experts]
            if victim >= 0 or not full:
                link[d] = max(link[d], begin) + fetch_s
                ready[p] = link[d]
                # As if it had been used when it will be: it must not give way before.
                until[p] = max(until[p], 2 * (step + 1 + ahead))
                key[p] = _key(rule, p, key, step + 1 + ahead, steps, uses, learnt, step + 1 + ahead)
                _push(heap, place, key, base[g], held, g, p)
                _note(events, seen, step, PREFETCH, p)
            for other in range(experts):
                # What is needed less gets no slot there either, nor a link that is busy.
                q = target * experts + other
                if (full and victim < 0 and group[q] == g) or link[device[q]] >= end:
                    wanted[other] = -1
