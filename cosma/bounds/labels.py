"""The label search: dynamic programming over down-sets with dominance, exact unless it must give labels up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.bounds.label_kernels import expand
from cosma.bounds.label_merge import merge
from cosma.bounds.label_tables import (
    ALIVE,
    BOUND,
    BY,
    COMPARED,
    COST,
    COVERS,
    KEY,
    MADE,
    MOST_WAYS,
    NEXT,
    OPERATOR_WORDS,
    PARENT,
    PURE,
    REST,
    LabelTables,
    label_tables,
    linked,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from cosma.arrays import Int32s, Ints
    from cosma.bounds.dual import Potential
    from cosma.problem import Problem

#: More than any traffic.
_INFINITE = float(2**62)
#: Covers of one operator from one label, at most. Giving up the others limits the bound, never its truth.
MOST_COVERS = 4096

#: Room of a layer under construction, as a multiple of its width.
_ROOM = 4


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
        tables = label_tables(problem, self.potential)
        words = tables.words
        now, new = _first_layer(problem, self.potential, words), _Layer(_ROOM * self.width, words)
        chosen = np.zeros(1, dtype=np.int64)
        history: list[tuple[Int32s, Int32s]] = []
        heads = np.empty(1 << (2 * _ROOM * self.width - 1).bit_length(), dtype=np.int64)
        ways = np.empty((MOST_WAYS + 1, 5), dtype=np.int64)
        tally = np.zeros(6, dtype=np.int64)
        portion = max(1, self.width // 16)
        for _ in range(problem.operator_count):
            tally[:] = 0
            heads.fill(-1)
            for first in range(0, len(chosen), portion):
                lost = expand(
                    *tables, now.table, now.notes, now.bounds, chosen, first, min(first + portion, len(chosen)),
                    self.upper, MOST_COVERS, new.table, new.notes, new.bounds, heads, tally, ways,
                )  # fmt: skip
                self._given_up = min(self._given_up, lost)
                if tally[MADE] > _ROOM * self.width // 2:
                    tally[MADE] = new.compact(self._merged(tables, new, int(tally[MADE])))
                    made = int(tally[MADE])
                    new.notes[:made, NEXT] = linked(new.notes[:made, KEY], heads, first=0, none=-1)
            chosen = self._keep(tables, new, int(tally[MADE]))
            history.append((new.notes[chosen, PARENT].astype(np.int32), new.notes[chosen, BY].astype(np.int32)))
            now, new = new, now if len(history) > 1 else _Layer(_ROOM * self.width, words)
            least = float(now.bounds[chosen, BOUND].min()) if len(chosen) else _INFINITE
            self.bound_bytes = max(self.bound_bytes, min(self.upper, self._given_up, least))
            covers, compared = float(tally[COVERS]), float(tally[COMPARED])
            yield 2e-7 * (30 + covers * (1 + words / 16) + compared * 0.1 + len(heads) / 800)
            if self._given_up <= self.bound_bytes or len(chosen) == 0:
                self.proven = self.bound_bytes >= self.upper
                return
        best = int(np.argmin(now.notes[chosen, COST]))
        self.order = _trace(history, best)
        self.proven = bool(now.notes[chosen[best], PURE]) or self.bound_bytes >= self.upper

    def lower_upper(self, upper_bytes: int) -> None:
        """Say that a plan this good is known."""
        self.upper = min(self.upper, float(upper_bytes))

    def _merged(self, tables: LabelTables, layer: _Layer, made: int) -> Ints:
        """Labels of a layer that are not dominated; if there are too many, those of equal down-set merged."""
        alive = np.flatnonzero(layer.notes[:made, ALIVE])
        if len(alive) <= self.width:
            return alive
        # Each down-set keeps its best labels in proportion to its share, and the last of them stands for the others.
        ranked, first, size = layer.by_down_set(alive, int(tables.shape[OPERATOR_WORDS]))
        last = np.maximum(1, size * self.width // len(alive)) - 1
        place = np.arange(len(ranked)) - np.repeat(first, size)
        gone = place > np.repeat(last, size)
        into = np.repeat(ranked[first + last], size)
        shape, _, tensors, links, prices = tables
        merge(shape, tensors, links, prices, layer.table, layer.notes, layer.bounds, ranked[gone], into[gone])
        return np.sort(ranked[~gone])

    def _keep(self, tables: LabelTables, layer: _Layer, made: int) -> Ints:
        """Choose the labels to go on from; note the least bound of those given up."""
        alive = self._merged(tables, layer, made)
        if len(alive) > self.width + self.width // 4:
            ranked = alive[np.argsort(layer.bounds[alive, BOUND], kind="stable")]
            self._given_up = min(self._given_up, float(layer.bounds[ranked[self.width], BOUND]))
            alive = np.sort(ranked[: self.width])
        return alive


class _Layer:
    """Labels with equally many operators run: their sets, and what :mod:`cosma.bounds.label_tables` has of them.

    One row more than there is room for labels: the next one is written there before it is known to fit.
    """

    def __init__(self, room: int, words: int) -> None:
        self.table = np.empty((room + 1, words), dtype=np.uint64)
        self.notes = np.empty((room + 1, 8), dtype=np.int64)
        self.bounds = np.empty((room + 1, 2), dtype=np.float64)

    def compact(self, kept: Ints) -> int:
        """Move the labels ``kept`` (ascending) to the front; return their number."""
        count = len(kept)
        self.table[:count] = self.table[kept]
        self.notes[:count] = self.notes[kept]
        self.bounds[:count] = self.bounds[kept]
        return count

    def by_down_set(self, labels: Ints, words: int) -> tuple[Ints, Ints, Ints]:
        """Sort labels by (hash, bound); return them, and where each run of equal down-sets begins and its length."""
        keys = self.notes[labels, KEY].view(np.uint64)
        ranked = labels[np.lexsort((labels, self.bounds[labels, BOUND], keys))]
        begins = np.ones(len(ranked), dtype=np.bool_)
        begins[1:] = False
        for k in range(words):
            word = self.table[ranked, k]
            begins[1:] |= word[1:] != word[:-1]
        first = np.flatnonzero(begins)
        return ranked, first, np.diff(first, append=len(ranked))


def _first_layer(problem: Problem, potential: Potential, words: int) -> _Layer:
    """Return the one label of which no operator has run."""
    layer = _Layer(1, words)
    layer.table[0] = 0
    offset = (problem.operator_count + 63) // 64
    for v in range(problem.operator_count):
        if len(problem.predecessors_of(v)) == 0:
            layer.table[0, offset + (v >> 6)] |= np.uint64(1) << np.uint64(v & 63)
    layer.notes[0] = 0
    layer.notes[0, PURE] = 1
    layer.bounds[0, BOUND] = 0.0
    # A little less than the potential, so that rounding never discards what is as good as the bound.
    layer.bounds[0, REST] = potential.total * (1 - 1e-11) - 1e-3
    return layer


def _trace(history: list[tuple[Int32s, Int32s]], at: int) -> tuple[int, ...]:
    """Follow a label of the last layer back to the first."""
    order = []
    for parents, by in reversed(history):
        order.append(int(by[at]))
        at = int(parents[at])
    return tuple(reversed(order))
