"""Decisions in which what an operator touches as one address range is all in the scratchpad, or all streamed."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from typing import TYPE_CHECKING

from cosma.problem.decisions import Decisions, Residency, occupancy_bytes
from cosma.problem.rules import may_stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.problem import Problem


def settle_runs(problem: Problem, decisions: Decisions) -> Decisions:
    """Make decisions hold every run whole or not at all; the decisions themselves where they do.

    What is streamed of a run while the rest is there is loaded for that step where there is room, which moves no byte
    more. Else the rest leaves for that step, which may. No step holds more than the capacity that did not before.
    Deterministic. Raises ValueError if there is no room and some of a run may not be streamed.
    """
    if not problem.runs:
        return decisions
    settling = _Settling(problem, decisions)
    for step, operator in enumerate(decisions.order):
        settling.settle(step, operator, problem.runs.get(operator, ()))
    return settling.decisions() if settling.changed else decisions


class _Settling:
    def __init__(self, problem: Problem, decisions: Decisions) -> None:
        self.problem = problem
        self.order = decisions.order
        self.changed = False
        self._space = problem.space_bytes.tolist()
        self._occupied = occupancy_bytes(problem, decisions)
        homes = problem.homes
        self._others = [r for r in decisions.residencies if r.tensor not in homes]
        self._stays: dict[int, list[Residency]] = {t: [] for t in homes}
        for r in decisions.residencies:
            if r.tensor in homes:
                self._stays[r.tensor].append(r)
        self._position = {v: i for i, v in enumerate(decisions.order)}

    def settle(self, step: int, operator: int, rows: Sequence[Sequence[int]]) -> None:
        """Settle the runs of one operator."""
        may_load = True
        while True:
            mixed = next((row for row in rows if self._is_mixed(row, step)), None)
            if mixed is None:
                return
            self.changed = True
            absent = [t for t in mixed if self._at(t, step) is None]
            room = sum(self._space[t] for t in absent)
            streams = all(may_stream(self.problem, operator, t) for t in mixed)
            if may_load and int(self._occupied[step]) + room <= self.problem.capacity_bytes:
                for t in absent:
                    made = int(self.problem.producer[t]) == operator
                    self._put(Residency(t, step, step + 1, not made))
            elif streams:
                may_load = False
                for t in mixed:
                    self._leave(t, step)
            else:
                name = self.problem.operator_names[operator]
                raise ValueError(f"{name!r} must hold a run of {room} more bytes at step {step}")

    def decisions(self) -> Decisions:
        """What was settled."""
        rows = [*self._others, *(r for row in self._stays.values() for r in row)]
        return Decisions(self.order, tuple(sorted(rows, key=lambda r: (r.start, r.tensor))))

    def _is_mixed(self, row: Sequence[int], step: int) -> bool:
        there = sum(self._at(t, step) is not None for t in row)
        return 0 < there < len(row)

    def _at(self, tensor: int, step: int) -> int | None:
        """Which stay of a tensor covers a step."""
        return next((i for i, r in enumerate(self._stays[tensor]) if r.start <= step < r.end), None)

    def _put(self, stay: Residency) -> None:
        self._stays[stay.tensor].append(stay)
        begin = stay.start + 1 if stay.in_place_of is not None else stay.start
        self._occupied[begin : stay.end] += self._space[stay.tensor]

    def _leave(self, tensor: int, step: int) -> None:
        """A tensor is not there at a step; what stays before and behind ends and begins where it is touched."""
        index = self._at(tensor, step)
        if index is None:
            return
        stay = self._stays[tensor].pop(index)
        begin = stay.start + 1 if stay.in_place_of is not None else stay.start
        self._occupied[begin : stay.end] -= self._space[tensor]
        touched = sorted(self._position[int(v)] for v in self.problem.consumers_of(tensor))
        maker = int(self.problem.producer[tensor])
        if maker >= 0:
            touched.insert(0, self._position[maker])
        at = bisect_left(touched, step)
        before, behind = touched[:at], touched[at + 1 :]
        if stay.start < step and before and before[-1] >= stay.start:
            self._put(replace(stay, end=before[-1] + 1))
        if behind and behind[0] < stay.end:
            self._put(Residency(tensor, behind[0], stay.end, True))
