"""Compiled replay of an order: what to keep, what to give up (numba). `cosma.search.annealing` builds on it.

The replacement rule (`tests.evaluation.plain_replay` has it in plain Python): run the operators in order, keep whatever
will be read again, and where a step lacks room give up the *victim* whose bytes saved, per byte of room gained
and per power of the time until its next use, are least. What is given up is paid for at once (a store where no
off-chip copy exists yet, and the read that must follow), so reading it again is free.
Which victims there are at a step, `cosma.evaluation.victims` says. A step is one long function: numba copies a tuple of
arrays, reference counts and all, at every call that takes one, and cut into functions a move takes seven times as long.
"""

# Inside compiled code an int is an int64; the type checker sees numpy scalars instead.
# mypy: disable-error-code="arg-type,return-value,assignment,untyped-decorator,operator,no-any-return"

from __future__ import annotations

import numpy as np

from cosma.compiled import helper, kernel
from cosma.evaluation.network import Network
from cosma.evaluation.tape import Tape, add_held, adopt, next_use_after, note_gap, remove_held
from cosma.evaluation.victims import IN_USE, LATE, PAIR, choose_offer, list_offers, withdraw_offers


@helper
def simulate(net: Network, tape: Tape, begin: int, settled: int, slack: float, note: bool) -> tuple[int, int, int, int]:
    """Replay the order from a checkpoint, writing what is found to the trial half of the tape.

    Parameters
    ----------
    net, tape
        Instance and working memory; the order under trial is ``tape.order``.
    begin
        First step, a multiple of the stride.
    settled
        From this step on the order is the one the tape knows: the replay ends where it meets the known state.
    slack
        The replay gives up where, at a checkpoint past ``settled``, it is dearer than the known order by more than
        this and by more than what the known order may still have to pay for holding more.
    note
        Whether to write ``dropped`` and ``born`` (then ``begin`` should be 0).

    Returns
    -------
    end, cost, excess, scanned
        The replay covered ``[begin, end)``; from ``end`` on the known tape holds. ``cost`` and ``excess`` are
        how much more than the known order it pays. ``end`` is -1 if it gave up. ``scanned`` counts looks at offers.
    """
    n = tape.order.shape[0]
    stride = tape.stride[0]
    width = tape.row.shape[1]
    capacity = net.capacity[0]
    steps_at = net.size.shape[0]
    stored, next_use, pin, slot, held = tape.stored, tape.next_use, tape.pin, tape.slot, tape.held
    fixed = tape.fixed
    consumer_start, consumer, position = net.consumer_start, net.consumer, tape.position
    space, tensor_key = net.space, tape.tensor_key
    count = np.int64(tape.count[begin // stride])
    occupied = np.int64(0)
    for k in range(count):
        code = tape.row[begin // stride, k]
        t = np.int64(code >> 1)
        held[k] = t
        slot[t] = k
        stored[t] = code & 1
        occupied += space[t]
        next_use[t], _ = next_use_after(consumer_start, consumer, position, n, t, begin - 1)
    live = tape.live[begin]
    key = tape.key[begin]
    more_cost = np.int64(0)
    more_excess = np.int64(0)
    scanned = np.int64(0)
    end = np.int64(n)
    for i in range(begin, n):
        if i % stride == 0:
            r = i // stride
            if count > width:
                end = np.int64(-1)
                break
            tape.trial_count[r] = count
            for k in range(count):
                t = np.int64(held[k])
                tape.trial_row[r, k] = (t << 1) | stored[t]
            if i >= settled and more_cost > slack and key != tape.key[i]:
                owed = np.int64(0)
                for k in range(tape.count[r]):
                    code = tape.row[r, k]
                    t = np.int64(code >> 1)
                    if slot[t] < 0:
                        owed += net.size[t] if code & 1 else net.size[t] + net.store[t]
                if more_cost - owed > slack:
                    end = np.int64(-1)
                    break
        if i >= settled and key == tape.key[i]:
            end = np.int64(i)
            break
        tape.trial_live[i] = live
        tape.trial_key[i] = key
        v = np.int64(tape.order[i])
        pin[steps_at] += 1
        mark = pin[steps_at]
        dying = np.int64(0)
        for k in range(net.operand_start[v], net.operand_start[v + 1]):
            t = np.int64(net.operand[k])
            following, earlier = next_use_after(consumer_start, consumer, position, n, t, i)
            next_use[t] = following
            if net.clean[t] == 1 and not earlier:
                live += space[t]
            if following == n:
                dying += space[t]
            streams = net.operand_streams[k] == 1
            fixed[t] = 0 if streams else mark
            if slot[t] >= 0:
                pin[t] = mark
            elif not streams or following < n:
                count = add_held(held, slot, count, t)
                stored[t] = 1
                key ^= tensor_key[2 * t + 1]
                occupied += space[t]
                pin[t] = 0 if streams else mark
        for k in range(net.result_start[v], net.result_start[v + 1]):
            t = np.int64(net.result[k])
            following, _ = next_use_after(consumer_start, consumer, position, n, t, i)
            next_use[t] = following
            live += space[t]
            if following == n:
                dying += space[t]
            streams = net.result_streams[k] == 1
            fixed[t] = 0 if streams else mark
            if not streams or following < n or net.store[t] > 0 or net.chain_cost[v] > 0:
                count = add_held(held, slot, count, t)
                stored[t] = 0
                key ^= tensor_key[2 * t]
                occupied += space[t]
                pin[t] = -mark if streams else mark
        pair = np.int64(net.pair_result[v])
        saved = np.int64(0)
        live_saved = np.int64(0)
        if pair >= 0:
            for k in range(net.pair_start[v], net.pair_start[v + 1]):
                t = np.int64(net.pair_operand[k])
                if next_use[t] == n:
                    live_saved = space[pair]
                    if pin[t] == mark and slot[pair] >= 0:
                        saved = space[pair]
        paid = np.int64(0)
        victims = 0
        late = np.int64(-1)
        over = occupied - saved - capacity
        offers = np.int64(0)
        if over > 0:
            offers = list_offers(net, tape, v, i, count, mark)
            scanned += 4 * offers
        while over > 0:
            scanned += offers
            chosen = choose_offer(tape, offers, over, saved == 0 and pair >= 0 and slot[pair] >= 0)
            if chosen < 0:
                end = np.int64(-1)
                break
            t, kind, price = np.int64(tape.offer[chosen]), tape.offer_kind[chosen], tape.offer_price[chosen]
            offers = withdraw_offers(tape, offers, t)
            paid += price
            if note and 0 <= next_use[t] < n and kind != LATE:
                note_gap(net, tape, t, np.int64(next_use[t]), np.int64(1))
            if kind == PAIR:
                # It stays through this step and leaves with it: a next use of -1 says so.
                saved = space[pair]
                next_use[t] = -1
            else:
                count = remove_held(held, slot, count, t)
                key ^= tensor_key[2 * t + stored[t]]
                occupied -= space[t]
                if kind != IN_USE:
                    tape.victim[victims] = t
                    tape.victim_price[victims] = price
                    victims += 1
                    if kind == LATE:
                        late = t
                    if note and pin[t] == -mark:
                        tape.born[t] = 0
                elif note:
                    note_gap(net, tape, t, np.int64(i), np.int64(1))
                if saved > 0:
                    saved = np.int64(0)
                    if slot[pair] >= 0:
                        for k in range(net.pair_start[v], net.pair_start[v + 1]):
                            u = np.int64(net.pair_operand[k])
                            if slot[u] >= 0 and pin[u] == mark and (next_use[u] == n or next_use[u] == -1):
                                saved = space[pair]
            over = occupied - saved - capacity
        if end < 0:
            break
        # What was given up before a larger victim made room may stay after all.
        for j in range(victims - 1):
            t = np.int64(tape.victim[j])
            if occupied - saved + space[t] <= capacity and t != pair:
                count = add_held(held, slot, count, t)
                key ^= tensor_key[2 * t + stored[t]]
                occupied += space[t]
                paid -= tape.victim_price[j]
                if t == late:
                    late = np.int64(-1)
                if note:
                    if pin[t] == -mark:
                        tape.born[t] = 1
                    if next_use[t] < n:
                        note_gap(net, tape, t, np.int64(next_use[t]), np.int64(0))
        over_live = max(live - live_saved - capacity, np.int64(0))
        live -= dying
        # Whatever is not read again leaves with the step.
        for k in range(net.operand_start[v], net.operand_start[v + 1]):
            t = np.int64(net.operand[k])
            if slot[t] >= 0 and (next_use[t] == n or next_use[t] == -1):
                count = remove_held(held, slot, count, t)
                key ^= tensor_key[2 * t + stored[t]]
                occupied -= space[t]
        for k in range(net.result_start[v], net.result_start[v + 1]):
            t = np.int64(net.result[k])
            if slot[t] >= 0 and next_use[t] == n:
                count = remove_held(held, slot, count, t)
                key ^= tensor_key[2 * t + stored[t]]
                occupied -= space[t]
        if late >= 0:
            if occupied + space[late] > capacity:
                paid += net.chain_cost[v] - 2 * net.size[late]
                if next_use[late] < n:
                    paid += net.size[late] + net.store[late]
                    if note:
                        note_gap(net, tape, late, np.int64(next_use[late]), np.int64(1))
            else:
                if note:
                    tape.born[late] = 2
                if next_use[late] < n:
                    count = add_held(held, slot, count, late)
                    key ^= tensor_key[2 * late]
                    occupied += space[late]
        tape.trial_cost[i] = paid
        tape.trial_excess[i] = over_live
        more_cost += paid - tape.step_cost[i]
        more_excess += over_live - tape.step_excess[i]
    for k in range(count):
        slot[held[k]] = -1
    return end, more_cost, more_excess, scanned


@kernel
def replay_all(net: Network, tape: Tape, note: bool) -> tuple[int, int]:
    """Replay the whole order and make it the known one; returns cost and excess, or (-1, -1) if rows are too short."""
    n = tape.order.shape[0]
    for i in range(n):
        tape.position[tape.order[i]] = i
    if note:
        for k in range(tape.dropped.shape[0]):
            tape.dropped[k] = 0
        for k in range(tape.born.shape[0]):
            tape.born[k] = 1
    begin, cost, excess = np.int64(0), np.int64(0), np.int64(0)
    end, _, _, _ = simulate(net, tape, begin, n + 1, np.inf, note)
    if end < 0:
        return -1, -1
    adopt(tape, begin, n)
    for i in range(n):
        cost += tape.step_cost[i]
        excess += tape.step_excess[i]
    return cost, excess
