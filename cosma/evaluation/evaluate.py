"""Working memory for the kernels, and decisions out of a replay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.evaluation.kernels import replay_all
from cosma.evaluation.tape import Tape
from cosma.intervals import sums_over
from cosma.problem import Decisions, decisions_from_gaps, touches_of
from cosma.problem.rules import store_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.arrays import Int32s, Ints
    from cosma.evaluation.network import Contraction, Network
    from cosma.problem import Problem

#: Power of the waiting time in the score of an eviction candidate. 1 follows Belady's rule, 0 looks at cost alone.
DEFAULT_PATIENCE = 1.0

#: Memory that the rows of a tape may take; larger tapes keep a row every few steps. Not measured.
_ROW_BYTES = 32 << 20


def new_tape(net: Network, order: Sequence[int] | Int32s, *, patience: float = DEFAULT_PATIENCE) -> Tape:
    """Allocate working memory for an order of search operators, and replay it.

    Checkpoints are as dense as about 32 MiB allow. Rows are twice as long as the most tensors that are ever live
    under ``order``, so that other orders fit too; one that does not fit is never adopted.
    """
    n, m = len(order), len(net.size)
    live = int(sums_over(*lives(net, order)[1:], 1, len(order)).max(initial=0))
    width = min(m, 2 * live + 16)
    stride = max(1, (2 * 4 * n * width + _ROW_BYTES - 1) // _ROW_BYTES)
    rows = n // stride + 1
    keys = np.random.default_rng(0x5EED).integers(1, 2**63, size=2 * m + 2, dtype=np.int64).astype(np.uint64)
    steps = np.arange(n + 2, dtype=np.float64)
    spread = 1.0 if net.streamable[0] else 0.0
    tape = Tape(
        np.array(order, dtype=np.int32),
        np.zeros(n, dtype=np.int32),
        np.array([stride], dtype=np.int64),
        np.zeros((rows, width), dtype=np.int32),
        np.zeros(rows, dtype=np.int32),
        np.zeros(n, dtype=np.int64),
        np.zeros(n, dtype=np.int64),
        np.zeros(n + 1, dtype=np.int64),
        np.zeros(n + 1, dtype=np.uint64),
        np.zeros((rows, width), dtype=np.int32),
        np.zeros(rows, dtype=np.int32),
        np.zeros(n, dtype=np.int64),
        np.zeros(n, dtype=np.int64),
        np.zeros(n + 1, dtype=np.int64),
        np.zeros(n + 1, dtype=np.uint64),
        np.zeros(m + 1, dtype=np.int32),
        np.full(m, -1, dtype=np.int32),
        np.zeros(m, dtype=np.uint8),
        np.zeros(m, dtype=np.int32),
        np.zeros(m + 1, dtype=np.int64),
        np.zeros(m, dtype=np.int64),
        np.zeros(m + 1, dtype=np.int32),
        np.zeros(m + 1, dtype=np.int64),
        np.maximum(steps + spread, 1.0) ** -patience,
        keys,
        np.zeros(len(net.consumer), dtype=np.uint8),
        np.ones(m, dtype=np.uint8),
        np.zeros(2 * m + 1, dtype=np.int32),
        np.zeros(2 * m + 1, dtype=np.int32),
        np.zeros(2 * m + 1, dtype=np.int64),
        np.zeros(2 * m + 1, dtype=np.int64),
        np.zeros(2 * m + 1, dtype=np.float64),
    )
    replay_all(net, tape, False)
    return tape


def greedy_decisions(problem: Problem, contraction: Contraction, tape: Tape) -> Decisions:
    """Decisions of the replay of ``tape.order``, in terms of the problem.

    Their traffic is the cost of the replay, and they fit the capacity at every step.
    """
    net = contraction.network
    replay_all(net, tape, True)
    order = contraction.expand(tape.order.tolist())
    touches = touches_of(problem, order)
    keep = np.ones(len(touches.step), dtype=np.bool_)
    position = {v: i for i, v in enumerate(order)}
    resident: list[int] = []
    store = store_bytes(problem)
    for s, t in enumerate(contraction.tensor_of.tolist()):
        first, last = int(touches.start[t]), int(touches.start[t + 1])
        for k in range(int(net.consumer_start[s]), int(net.consumer_start[s + 1])):
            if tape.dropped[k]:
                step = position[contraction.members[int(net.consumer[k])][0]]
                keep[first + int(np.searchsorted(touches.step[first:last], step)) - 1] = False
        if last - first == 1 and tape.born[s] and store[t]:
            resident.append(first)
    for v, row in enumerate(contraction.members):
        born = int(tape.born[int(net.result[net.result_start[v]])]) if len(row) > 1 else 1
        if born != 1:
            for u in row[:-1] if born == 0 else row[:1]:
                keep[int(touches.start[int(problem.results_of(u)[0])])] = False
    return decisions_from_gaps(problem, order, keep, touches=touches, resident_touches=resident)


def greedy_bytes(problem: Problem, order: Sequence[int]) -> int:
    """Non-compulsory bytes of an order of operators under the greedy rule, addresses aside: some schedule has them."""
    from cosma.evaluation.network import build_network

    contraction = build_network(problem)
    tape = new_tape(contraction.network, contraction.contract(order))
    return cost_bytes(tape) + problem.constant_noncompulsory_bytes


def cost_bytes(tape: Tape) -> int:
    """Non-compulsory bytes of the known order, without the problem's constant."""
    return int(tape.step_cost.sum())


def lives(net: Network, order: Sequence[int] | Int32s) -> tuple[Ints, Ints, Ints]:
    """Tensors that an order touches, the first step of each that does, and the one after the last."""
    n = len(order)
    position = np.empty(n, dtype=np.int64)
    position[np.asarray(order, dtype=np.int64)] = np.arange(n)
    begin = np.full(len(net.size), n, dtype=np.int64)
    end = np.zeros(len(net.size), dtype=np.int64)
    for start, touched in ((net.operand_start, net.operand), (net.result_start, net.result)):
        at = np.repeat(position, np.diff(start))
        np.minimum.at(begin, touched, at)
        np.maximum.at(end, touched, at + 1)
    tensors = np.flatnonzero(begin < end)
    return tensors, begin[tensors], end[tensors]
