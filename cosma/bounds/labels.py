"""The label search: dynamic programming over down-sets with dominance, exact unless it must give labels up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.bounds.label_kernels import LabelData, expand, hashes, merge, rehash

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from cosma.problem import Problem

_INFINITE = float(2**62)

#: Covers of one operator from one label, at most; the rest is given up.
MOST_COVERS = 4096

#: A layer has room for this many times its width while it is made.
_ROOM = 4


@dataclass(frozen=True, slots=True)
class Potential:
    """A dual solution of the covering program, as the label search reads it. All amounts in bytes.

    Attributes
    ----------
    total
        Value of the whole solution.
    operator
        What drops out of it once an operator has run. ``float64[operators]``.
    loads
        (tensor, operator, first stretch, last stretch, amount) by tensor: what is lost while the tensor is
        prepaid in one of these stretches and the operator has still to run.
    store_share
        What is lost once a tensor has been stored. ``float64[tensors]``.
    chains
        Chain of touches by tensor.
    """

    total: float
    operator: NDArray[np.float64]
    loads: list[tuple[int, int, int, int, float]]
    store_share: NDArray[np.float64]
    chains: dict[int, tuple[int, ...]]


def no_potential(problem: Problem) -> Potential:
    """Promise nothing of the future."""
    return Potential(
        0.0, np.zeros(problem.operator_count), [], np.zeros(problem.tensor_count), {}
    )


def label_data(problem: Problem, potential: Potential) -> LabelData:
    """Lay the instance out for the kernels."""
    load_start = np.zeros(problem.tensor_count + 1, dtype=np.int64)
    loads = sorted(potential.loads)
    for row in loads:
        load_start[row[0] + 1] += 1
    chain_start = np.zeros(problem.tensor_count + 1, dtype=np.int64)
    chain: list[int] = []
    for t in range(problem.tensor_count):
        chain.extend(potential.chains.get(t, ()))
        chain_start[t + 1] = len(chain)
    columns = list(zip(*loads, strict=True)) if loads else [(), (), (), (), ()]
    kept = problem.must_store | problem.starts_off_chip
    return LabelData(
        problem.operator_count,
        problem.tensor_count,
        (problem.operator_count + 63) // 64,
        (problem.tensor_count + 63) // 64,
        problem.streamable,
        problem.capacity_bytes,
        problem.size_bytes,
        problem.space_bytes,
        np.where(kept, 0, problem.size_bytes),
        problem.must_store,
        problem.producer,
        problem.operand_start,
        problem.operand,
        problem.result_start,
        problem.result,
        problem.consumer_start,
        problem.consumer,
        problem.predecessor_start,
        problem.predecessor,
        problem.successor_start,
        problem.successor,
        problem.pair_start,
        problem.pair_result,
        problem.pair_operand,
        potential.operator,
        np.cumsum(load_start),
        np.array(columns[1], dtype=np.int64),
        np.array(columns[2], dtype=np.int64),
        np.array(columns[3], dtype=np.int64),
        np.array(columns[4], dtype=np.float64),
        potential.store_share,
        chain_start,
        np.array(chain, dtype=np.int64),
    )


class LabelSearch:
    """Runs one operator after another from all labels at once, layer by layer.

    Labels that cannot lead to less than ``upper_bytes`` are discarded, and of a layer at most ``width`` are kept:
    those of least bound. What is given up that way limits the bound, never its truth. All amounts are those of the
    decisions: without the constant part of the traffic.

    Parameters
    ----------
    problem, potential
        The instance and a dual solution of its covering program.
    upper_bytes
        Traffic of a known plan, or None.
    width
        Most labels kept in a layer.

    Attributes
    ----------
    bound_bytes
        No plan costs less. Grows during :meth:`run`, up to ``upper_bytes``.
    order
        After :meth:`run`: an order that the bound takes, if it is below ``upper_bytes``; optimal if ``proven``.
    proven
        After :meth:`run`: whether ``bound_bytes`` is the optimum, or what ``upper_bytes`` was.
    """

    def __init__(self, problem: Problem, potential: Potential, upper_bytes: int | None, width: int) -> None:
        self.problem = problem
        self.potential = potential
        self.width = width
        self.upper = float(upper_bytes) if upper_bytes is not None else _INFINITE
        self.bound_bytes = 0.0
        self.order: tuple[int, ...] | None = None
        self.proven = False
        self._given_up = _INFINITE

    def run(self) -> Generator[float, None, None]:
        """Search, yielding the work done (nominal seconds) layer by layer."""
        problem = self.problem
        data = label_data(problem, self.potential)
        words = 2 * data.operator_words + 3 * data.tensor_words
        now, new = _Layer(1, words), _Layer(_ROOM * self.width, words)
        spare = _Layer(_ROOM * self.width, words)
        now.table[0] = 0
        for v in range(problem.operator_count):
            if len(problem.predecessors_of(v)) == 0:
                now.table[0, data.operator_words + (v >> 6)] |= np.uint64(1) << np.uint64(v & 63)
        now.cost[0], now.used[0], now.bound[0] = 0, 0, 0.0
        # A little less than the potential, so that rounding never discards what is as good as the bound.
        now.rest[0] = self.potential.total * (1 - 1e-11) - 1e-3
        chosen = np.zeros(1, dtype=np.int64)
        history: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []
        heads = np.empty(1 << (2 * _ROOM * self.width - 1).bit_length(), dtype=np.int64)
        sizes = np.zeros(4, dtype=np.int64)
        portion = max(1, self.width // 16)
        for _ in range(problem.operator_count):
            sizes[:] = 0
            heads.fill(-1)
            for first in range(0, len(chosen), portion):
                lost = expand(
                    data, now.table, now.cost, now.bound, now.used, now.rest, now.pure, chosen,
                    first, min(first + portion, len(chosen)), self.upper, MOST_COVERS,
                    new.table, new.cost, new.bound, new.used, new.rest, new.parent, new.by, new.alive, new.pure,
                    heads, new.nexts, sizes,
                )  # fmt: skip
                if lost >= 0:
                    self._given_up = min(self._given_up, float(lost))
                if sizes[0] > _ROOM * self.width // 2:
                    sizes[0] = new.compact(self._merged(data, new, int(sizes[0])))
                    rehash(data, new.table, sizes[0], heads, new.nexts)
            chosen = self._keep(data, new, int(sizes[0]))
            history.append((new.parent[chosen], new.by[chosen]))
            now, new, spare = new, spare, (now if len(now.cost) > 1 else _Layer(_ROOM * self.width, words))
            least = float(now.bound[chosen].min()) if len(chosen) else _INFINITE
            self.bound_bytes = max(self.bound_bytes, min(self.upper, self._given_up, least))
            yield 1e-6 * (6 + float(sizes[2]) * (1 + words / 16) + float(sizes[1]) * 0.1 + len(heads) / 4000)
            if self._given_up <= self.bound_bytes or len(chosen) == 0:
                self.proven = self.bound_bytes >= self.upper
                return
        best = int(np.argmin(now.cost[chosen]))
        self.order = _trace(history, best)
        self.proven = bool(now.pure[chosen[best]]) or self.bound_bytes >= self.upper

    def lower_upper(self, upper_bytes: int) -> None:
        """Say that a plan this good is known."""
        self.upper = min(self.upper, float(upper_bytes))

    def _merged(self, data: LabelData, layer: _Layer, made: int) -> NDArray[np.int64]:
        """Labels of a layer that are not dominated; if there are too many, those of equal down-set merged."""
        alive = np.flatnonzero(layer.alive[:made])
        if len(alive) <= self.width:
            return alive
        keys = hashes(data, layer.table, alive)
        by_key = np.lexsort((alive, layer.bound[alive], keys))
        kept = merge(
            data, layer.table, layer.cost, layer.bound, layer.used, layer.rest, layer.pure,
            alive[by_key], keys[by_key], self.width,
        )  # fmt: skip
        return np.sort(kept)

    def _keep(self, data: LabelData, layer: _Layer, made: int) -> NDArray[np.int64]:
        """Choose the labels to go on from; note the least bound of those given up."""
        alive = self._merged(data, layer, made)
        if len(alive) > self.width + self.width // 4:
            ranked = alive[np.argsort(layer.bound[alive], kind="stable")]
            self._given_up = min(self._given_up, float(layer.bound[ranked[self.width]]))
            alive = np.sort(ranked[: self.width])
        return alive


class _Layer:
    """Labels with equally many operators run, and room for more."""

    def __init__(self, room: int, words: int) -> None:
        self.table = np.empty((room, words), dtype=np.uint64)
        self.cost = np.empty(room, dtype=np.int64)
        self.bound = np.empty(room, dtype=np.float64)
        self.used = np.empty(room, dtype=np.int64)
        self.rest = np.empty(room, dtype=np.float64)
        self.parent = np.empty(room, dtype=np.int32)
        self.by = np.empty(room, dtype=np.int32)
        self.alive = np.empty(room, dtype=np.bool_)
        self.pure = np.ones(room, dtype=np.bool_)
        self.nexts = np.empty(room, dtype=np.int64)

    def compact(self, kept: NDArray[np.int64]) -> int:
        """Move the labels ``kept`` (ascending) to the front; return their number."""
        count = len(kept)
        for column in (self.table, self.cost, self.bound, self.used, self.rest, self.parent, self.by, self.pure):
            column[:count] = column[kept]
        self.alive[:count] = True
        return count


def _trace(history: list[tuple[NDArray[np.int32], NDArray[np.int32]]], at: int) -> tuple[int, ...]:
    """Follow a label of the last layer back to the first."""
    order = []
    for parents, by in reversed(history):
        order.append(int(by[at]))
        at = int(parents[at])
    return tuple(reversed(order))
