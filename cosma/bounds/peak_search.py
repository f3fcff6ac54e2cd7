"""Is there an order whose peak is at most so much? An exhaustive search over down-sets of one segment.

Only moments at which a tensor *ends* (its last touch has run) need be told apart: an operator after which nothing ends
can wait until something that ends needs it. So a move picks the tensor that ends next and runs all it still takes; a
move that leaves no more behind than there was may be made at once. Proofs are in ``docs/bounds.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.bounds.label_tables import linked
from cosma.parameters.bounds import PeakParameters
from cosma.problem.precedence import members

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from cosma.arrays import Ints, Words
    from cosma.bounds.segments import Segment
    from cosma.problem import Problem
    from cosma.problem.precedence import Reach

    #: What the kernel reads: masks, kinds, blocked, tensors, operators, links.
    _Tables = tuple[Words, Ints, Words, Ints, Ints, Ints]

DEFAULTS = PeakParameters()


class PeakSearch:
    """Looks for an order of a segment's operators under which some tensors take at most ``most_bytes`` at any time.

    Parameters
    ----------
    tensors
        Those that count; others take no space.
    most_bytes
        The peak allowed.
    backwards
        Go from the segment's end to its beginning, which is as good, and sometimes quicker.

    Attributes
    ----------
    impossible
        After :meth:`run`: whether there is no such order.
    order
        After :meth:`run`: operators of the segment in such an order, if one was found.
    """

    def __init__(
        self, problem: Problem, reach: Reach, segment: Segment, tensors: Sequence[int], most_bytes: int, *,
        backwards: bool = False, parameters: PeakParameters = DEFAULTS,
    ) -> None:  # fmt: skip
        self.parameters = parameters
        self.problem = problem
        self.segment = segment
        self.most_bytes = most_bytes
        self.backwards = backwards
        self.impossible = False
        self.order: tuple[int, ...] | None = None
        self._tensors = tensors
        self._before = reach.after if backwards else reach.before
        self._alive, self._endless = segment.before, segment.after
        if backwards:
            self._alive, self._endless = segment.after, segment.before

    def run(self) -> Generator[float, None, None]:
        """Search until there is an answer or no memory left, yielding the work done (nominal seconds)."""
        from cosma.bounds.peak_kernels import CUT_SHORT, EXHAUSTED, FOUND, explore
        from cosma.bounds.peak_moves_kernels import LOOKS, MADE

        tables = self._tables()
        masks, kinds, _, tensors, _, _ = tables
        words, children = masks.shape[1], len(kinds) + 2
        states = _States(max(self.parameters.first_room, 2 * children), words, self.parameters.table_bytes)
        states.notes[0, 0] = tensors[tensors[:, 1] != 0, 0].sum()
        rest = np.zeros((children, words), dtype=np.uint64)
        moves = np.zeros((children, 3), dtype=np.int64)
        seen, tally = np.zeros(len(tensors), dtype=np.int64), np.array([1, 1, 0, 0, 0], dtype=np.int64)
        outcome = CUT_SHORT
        while outcome == CUT_SHORT:
            looks, made = int(tally[LOOKS]), int(tally[MADE])
            outcome = explore(
                self.most_bytes, *tables, states.sets, states.notes, states.heads, states.stack, rest, moves, seen,
                tally, self.parameters.looks_per_slice,
            )  # fmt: skip
            looked, made = int(tally[LOOKS]) - looks, int(tally[MADE]) - made
            yield self.parameters.work_per_look * looked + self.parameters.work_per_state * made
            full = int(tally[MADE]) + children >= len(states.sets)
            if outcome == CUT_SHORT and full and not states.grow(int(tally[MADE])):
                return
        self.impossible = outcome == EXHAUSTED
        if outcome == FOUND:
            self.order = self._traced(tables, states, tally)

    def _tables(self) -> _Tables:
        """Lay the segment out for the kernel, operators and tensors numbered from 0."""
        problem, first = self.problem, self.segment.first
        count = self.segment.end - first
        number = {t: i for i, t in enumerate(self._tensors)}
        inside = (1 << count) - 1
        ends, touches = [], []
        touched: list[list[int]] = [[] for _ in range(count)]
        for t, i in number.items():
            mask = end = 0
            for v in self.segment.touched[t]:
                touched[v - first].append(i)
                mask |= 1 << v - first
                end |= self._before[v] >> first & inside
            touches.append(mask)
            ends.append(end | mask)
        tensors = np.zeros((len(number), 4), dtype=np.int64)
        for t, i in number.items():
            tensors[i] = problem.space_bytes[t], t in self._alive, t in self._endless, -1
        kinds, blockers = self._kinds(ends, tensors)
        for kind, (i, only) in enumerate(kinds):
            if only < 0:
                tensors[i, 3] = kind
        paired: list[list[int]] = []
        followed: list[list[int]] = []
        for v in range(first, self.segment.end):
            pairs = [pair[::-1] if self.backwards else pair for pair in problem.pairs_of(v)]
            paired.append([number[t] for pair in pairs if pair[0] in number and pair[1] in number for t in pair])
            others = problem.predecessors_of(v) if self.backwards else problem.successors_of(v)
            followed.append([w - first for w in others.tolist() if first <= w < self.segment.end])
        operators = np.zeros((count + 1, 3), dtype=np.int64)
        links: list[int] = []
        for column, lists in enumerate((touched, paired, followed)):
            for v, row in enumerate(lists):
                operators[v, column] = len(links)
                links += row
            operators[count, column] = len(links)
        masks = _packed([*(ends[t] for t, _ in kinds), *touches, inside], count)
        return (
            masks, np.array(kinds, dtype=np.int64).reshape(-1, 2), _packed([*blockers, 0], len(number)), tensors,
            operators, np.array(links, dtype=np.int64),
        )  # fmt: skip

    def _kinds(self, ends: Sequence[int], tensors: Ints) -> tuple[list[tuple[int, int]], list[int]]:
        """Kinds of moves, (tensor that ends, operator that must be last or -1), and the tensors each is blocked by.

        One that ends with fewer operators goes first: until it has ended, others need not be tried. A takeover may
        be worth more than that if its operator ends them all.
        """
        first = self.segment.first
        number = {t: i for i, t in enumerate(self._tensors)}
        mortal = [i for i in range(len(ends)) if not tensors[i, 2]]
        takers: dict[int, list[int]] = {}
        for v in range(first, self.segment.end):
            for pair in self.problem.pairs_of(v):
                taken, other = pair if self.backwards else pair[::-1]
                if taken in number and other in number:
                    takers.setdefault(number[taken], []).append(v - first)
        kinds, blockers = [], []
        for i in mortal:
            inside = [j for j in mortal if ends[j] != ends[i] and not ends[j] & ~ends[i]]
            kinds.append((i, -1))
            blockers.append(sum(1 << j for j in inside))
            for v in dict.fromkeys(takers.get(i, ())):
                if any(ends[j] >> v & 1 for j in inside):
                    kinds.append((i, v))
                    blockers.append(sum(1 << j for j in inside if not ends[j] >> v & 1))
        return kinds, blockers

    def _traced(self, tables: _Tables, states: _States, tally: Ints) -> tuple[int, ...]:
        """Follow the state in which all has run back to the first."""
        from cosma.bounds.peak_kernels import PARENT, retrace
        from cosma.bounds.peak_moves_kernels import GOAL, MADE

        count = self.segment.end - self.segment.first
        rest = np.zeros((count + 3, states.sets.shape[1]), dtype=np.uint64)
        moves = np.zeros((count + 3, 3), dtype=np.int64)
        seen = np.full(len(tables[3]), -1, dtype=np.int64)
        at, parts = int(tally[GOAL]), []
        while at > 0:
            retrace(
                self.most_bytes, *tables, states.sets, states.notes, at, int(tally[MADE]), rest, moves, seen, tally
            )
            here, ran = (_set_of(states.sets[state]) for state in (at, int(states.notes[at, PARENT])))
            way = []
            for move in rest:
                if ran == here:
                    break
                way.append(members(_set_of(move), count) + self.segment.first)
                ran |= _set_of(move)
            parts.append(np.concatenate(way[::-1] if self.backwards else way))
            at = int(states.notes[at, PARENT])
        if not self.backwards:
            parts.reverse()
        return tuple(np.concatenate(parts).tolist())


class _States:
    """Tables of the states reached, and the stack of those to go on from."""

    def __init__(self, room: int, words: int, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self.sets = np.zeros((room, words), dtype=np.uint64)
        self.notes = np.zeros((room, 5), dtype=np.int64)
        self.stack = np.zeros(room, dtype=np.int64)
        self.heads = np.zeros(1 << (room - 1).bit_length(), dtype=np.int64)

    def grow(self, made: int) -> bool:
        """Make room for twice as many; False if that is more memory than a search may have."""
        from cosma.bounds.peak_kernels import KEY, NEXT

        room, words = self.sets.shape
        if 2 * room * 8 * (words + 8) > self._most_bytes:
            return False
        larger = _States(2 * room, words, self._most_bytes)
        larger.sets[:room], larger.notes[:room], larger.stack[:room] = self.sets, self.notes, self.stack
        # The first state is never looked up, and 0 stands for none.
        larger.notes[1:made, NEXT] = linked(larger.notes[1:made, KEY], larger.heads, first=1, none=0)
        self.sets, self.notes, self.stack, self.heads = larger.sets, larger.notes, larger.stack, larger.heads
        return True


def _set_of(words: Words) -> int:
    """A row of words as one bit set."""
    return int.from_bytes(words.tobytes(), "little")


def _packed(masks: Sequence[int], count: int) -> Words:
    """Bit sets over ``count`` operators as rows of 64-bit words."""
    words = (count + 63) // 64
    raw = b"".join(mask.to_bytes(8 * words, "little") for mask in masks)
    return np.frombuffer(raw, dtype="<u8").astype(np.uint64).reshape(len(masks), words)
