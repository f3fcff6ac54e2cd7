"""Compiled replay of an order: what to keep, what to give up (numba). `cosma.search.annealing` builds on it.

The replacement rule, the same in `cosma.search.plain` word for word: run the operators in order, keep whatever
will be read again, and where a step lacks room give up the *victim* whose bytes saved, per byte of room gained
and per power of the time until its next use, are least. What is given up is paid for at once (a store where no
off-chip copy exists yet, and the read that must follow), so reading it again is free.

Victims at a step: tensors that wait, and, under ``streamable``, what the step itself would bring in (``WAITS``);
operands in use now that could make room for the step's result if they were not kept afterwards (``PAIR``);
under ``streamable`` operands in use now, which are then read off-chip (``IN_USE``), and the result of a chain, whose
head then writes off-chip for the next member to read (``LATE``); it enters once the head has run, if it fits then.
"""

# Inside compiled code an int is an int64; the type checker sees numpy scalars instead.
# mypy: disable-error-code="arg-type,return-value,assignment,untyped-decorator,operator,no-any-return"

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cosma.compiled import helper, kernel
from cosma.search.network import Network


class Tape(NamedTuple):
    """Working memory of one simulation, and what is known before each step of the current order.

    ``row[i // stride]`` holds the tensors in the scratchpad before step ``i`` (twice the number, plus 1 where an
    off-chip copy exists), for ``i`` a multiple of ``stride``; ``step_cost[i]`` and ``step_excess[i]`` are the
    bytes paid at step ``i`` and the live bytes above the capacity there; ``key[i]`` hashes the state before it.
    ``trial_*`` is the same for the order under trial. ``pin[tensors]`` counts the steps simulated so far.
    ``offer*`` lists what could be given up at the step at hand.
    """

    order: NDArray[np.int32]
    position: NDArray[np.int32]
    stride: NDArray[np.int64]
    row: NDArray[np.int32]
    count: NDArray[np.int32]
    step_cost: NDArray[np.int64]
    step_excess: NDArray[np.int64]
    live: NDArray[np.int64]
    key: NDArray[np.uint64]
    trial_row: NDArray[np.int32]
    trial_count: NDArray[np.int32]
    trial_cost: NDArray[np.int64]
    trial_excess: NDArray[np.int64]
    trial_live: NDArray[np.int64]
    trial_key: NDArray[np.uint64]
    held: NDArray[np.int32]
    slot: NDArray[np.int32]
    stored: NDArray[np.uint8]
    next_use: NDArray[np.int32]
    pin: NDArray[np.int64]
    victim: NDArray[np.int32]
    victim_price: NDArray[np.int64]
    weight: NDArray[np.float64]
    tensor_key: NDArray[np.uint64]
    dropped: NDArray[np.uint8]
    born: NDArray[np.uint8]
    offer: NDArray[np.int32]
    offer_kind: NDArray[np.int32]
    offer_price: NDArray[np.int64]
    offer_space: NDArray[np.int64]
    offer_score: NDArray[np.float64]


WAITS, PAIR, IN_USE, LATE = 0, 1, 2, 3


@helper
def next_use_after(
    start: NDArray[np.int32], consumer: NDArray[np.int32], position: NDArray[np.int32], n: int, tensor: int, step: int
) -> tuple[int, bool]:
    """First step after ``step`` that reads a tensor (number of steps if none), and whether one before it does."""
    found = np.int64(n)
    earlier = False
    for k in range(start[tensor], start[tensor + 1]):
        at = np.int64(position[consumer[k]])
        if at > step:
            found = min(found, at)
        elif at < step:
            earlier = True
    return found, earlier


@helper
def note_gap(net: Network, tape: Tape, tensor: int, end: int, value: int) -> None:
    """Note that a tensor is (1) or is not (0) given up on the way to the step that reads it at ``end``."""
    for k in range(net.consumer_start[tensor], net.consumer_start[tensor + 1]):
        if tape.position[net.consumer[k]] == end:
            tape.dropped[k] = value


@helper
def add_held(held: NDArray[np.int32], slot: NDArray[np.int32], count: int, tensor: int) -> int:
    """Put a tensor into the scratchpad; returns the new number held."""
    held[count] = tensor
    slot[tensor] = count
    return count + 1


@helper
def remove_held(held: NDArray[np.int32], slot: NDArray[np.int32], count: int, tensor: int) -> int:
    """Take a tensor out of the scratchpad; returns the new number held."""
    last = held[count - 1]
    held[slot[tensor]] = last
    slot[last] = slot[tensor]
    slot[tensor] = -1
    return count - 1


@helper
def list_offers(net: Network, tape: Tape, operator: int, step: int, count: int, mark: int) -> int:
    """List what could be given up at a step, with price and price times weight; returns how many there are.

    A tensor may be listed twice: as ``PAIR`` and as ``IN_USE``.
    """
    n = tape.order.shape[0]
    streamable = net.streamable[0] == 1
    offers = np.int64(0)
    for k in range(count):
        t = np.int64(tape.held[k])
        following = np.int64(tape.next_use[t])
        store = np.int64(0) if tape.stored[t] == 1 or net.stored_free[t] == 1 else net.size[t]
        price = net.size[t] + store
        kind, space = WAITS, net.space[t]
        if tape.pin[t] == mark:
            if following < n:
                for j in range(net.pair_start[operator], net.pair_start[operator + 1]):
                    if net.pair_operand[j] == t:
                        tape.offer[offers] = t
                        tape.offer_kind[offers] = PAIR
                        tape.offer_price[offers] = price
                        tape.offer_space[offers] = net.space[net.pair_result[operator]]
                        tape.offer_score[offers] = price * tape.weight[following - step]
                        offers += 1
            if not streamable:
                continue
            if following < n:
                price += net.size[t]
            kind = IN_USE
            following = np.int64(step)
        elif tape.pin[t] == -mark and net.chain_cost[operator] > 0:
            price = 2 * net.size[t]
            kind = LATE
            following = np.int64(step)
        elif following == n:
            # A result nobody reads only needs room while its operator runs.
            price -= net.size[t]
            following = np.int64(step)
        tape.offer[offers] = t
        tape.offer_kind[offers] = kind
        tape.offer_price[offers] = price
        tape.offer_space[offers] = space
        tape.offer_score[offers] = price * tape.weight[following - step]
        offers += 1
    return offers


@helper
def choose_offer(tape: Tape, offers: int, over: int, may_pair: bool) -> int:
    """The offer of least score per byte of room gained, -1 if there is none. Ties: least tensor, then kind first."""
    best, best_tensor, best_score = np.int64(-1), np.int64(-1), np.inf
    for k in range(offers):
        score = tape.offer_score[k] / min(tape.offer_space[k], over)
        if score <= best_score and (may_pair or tape.offer_kind[k] != PAIR):
            t = np.int64(tape.offer[k])
            if (
                score < best_score
                or t < best_tensor
                or (t == best_tensor and tape.offer_kind[k] < tape.offer_kind[best])
            ):
                best, best_tensor, best_score = np.int64(k), t, score
    return best


@helper
def withdraw_offers(tape: Tape, offers: int, tensor: int) -> int:
    """Strike the offers of a tensor; returns how many are left."""
    k = np.int64(0)
    while k < offers:
        if tape.offer[k] == tensor:
            offers -= 1
            tape.offer[k] = tape.offer[offers]
            tape.offer_kind[k] = tape.offer_kind[offers]
            tape.offer_price[k] = tape.offer_price[offers]
            tape.offer_space[k] = tape.offer_space[offers]
            tape.offer_score[k] = tape.offer_score[offers]
        else:
            k += 1
    return offers


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
    streamable = net.streamable[0] == 1
    steps_at = net.size.shape[0]
    stored, next_use, pin, slot, held = tape.stored, tape.next_use, tape.pin, tape.slot, tape.held
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
                        owed += net.size[t] if code & 1 or net.stored_free[t] else 2 * net.size[t]
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
            if slot[t] >= 0:
                pin[t] = mark
            elif not streamable or following < n:
                count = add_held(held, slot, count, t)
                stored[t] = 1
                key ^= tensor_key[2 * t + 1]
                occupied += space[t]
                pin[t] = 0 if streamable else mark
        for k in range(net.result_start[v], net.result_start[v + 1]):
            t = np.int64(net.result[k])
            following, _ = next_use_after(consumer_start, consumer, position, n, t, i)
            next_use[t] = following
            live += space[t]
            if following == n:
                dying += space[t]
            if not streamable or following < n or net.stored_free[t] == 0 or net.chain_cost[v] > 0:
                count = add_held(held, slot, count, t)
                stored[t] = 0
                key ^= tensor_key[2 * t]
                occupied += space[t]
                pin[t] = -mark if streamable else mark
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
                    paid += net.size[late] if net.stored_free[late] == 1 else 2 * net.size[late]
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


@helper
def copy_order(source: NDArray[np.int32], target: NDArray[np.int32], first: int, beyond: int) -> None:
    """Copy ``[first, beyond)`` of an order (a loop compiles in a tenth of the time a slice's assignment takes)."""
    for i in range(first, beyond):
        target[i] = source[i]


@helper
def adopt(tape: Tape, begin: int, end: int) -> None:
    """Make what the last trial found over ``[begin, end)`` the known state."""
    stride = tape.stride[0]
    for i in range(begin, end):
        tape.step_cost[i] = tape.trial_cost[i]
        tape.step_excess[i] = tape.trial_excess[i]
        tape.live[i] = tape.trial_live[i]
        tape.key[i] = tape.trial_key[i]
        if i % stride == 0:
            r = i // stride
            tape.count[r] = tape.trial_count[r]
            for k in range(tape.count[r]):
                tape.row[r, k] = tape.trial_row[r, k]


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
