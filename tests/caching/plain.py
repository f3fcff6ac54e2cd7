"""Replacement with prefetch on a clock in plain Python: sets and the least of them, no heaps and no compiled code.

Where several pages may give way alike, the twin takes the one that the log at hand names next, if it is one of them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cosma.caching import Requests

FETCH, PREFETCH, EVICT, HOST = 0, 1, 2, 3
Event = tuple[int, int, int]


@dataclass
class Machine:
    """Slots by group, a link and a host by device, and what each costs in seconds."""

    group: list[int]
    slots: list[int]
    device: list[int]
    fetch_s: float
    step_s: float
    host_s: float | None
    together: bool


@dataclass
class Prefetch:
    """How many steps to look ahead, the least evidence, and ``evidence[ahead][layer][seen][expected]``."""

    depth: int
    threshold: int
    evidence: Any


@dataclass
class Plain:
    """One policy on one trace; ``key`` ranks a page that is used at a step, the least gives way first."""

    requests: Requests
    machine: Machine
    prefetch: Prefetch
    key: Callable[[int, int, int, int], Any]  # page, step, uses so far, step of the next use
    log: list[Event]
    scores: Scores | None = None
    events: list[Event] = field(default_factory=list)

    def play(self) -> tuple[list[Event], float, float]:
        """Return the events, the seconds stalled and the seconds in all."""
        requests, machine = self.requests, self.machine
        self.rank: dict[int, Any] = defaultdict(int)  # of pages in slots, and last known of others
        self.held: set[int] = set()
        self.ready: dict[int, float] = {}
        self.until: dict[int, int] = {}  # the step that a page was fetched ahead for
        self.link: dict[int, float] = defaultdict(float)
        host: dict[int, float] = defaultdict(float)
        rented: dict[int, float] = defaultdict(float)
        uses: dict[int, int] = defaultdict(int)
        self.uses = uses
        now = stalled = 0.0
        steps = [requests.page[a:b].tolist() for a, b in zip(requests.start[:-1], requests.start[1:], strict=True)]
        visits = [requests.visits[a:b].tolist() for a, b in zip(requests.start[:-1], requests.start[1:], strict=True)]
        for step, pages in enumerate(steps):
            if self.scores is not None:
                self.rank |= self.scores.after(step, pages)
            there = [p for p in pages if p in self.held]
            begin, host_end = now, now
            wait = max([now, *(self.ready[p] for p in there)])
            for p in pages:
                uses[p] += 1
            hosted, running = set(), set(there) if machine.together else set()
            self.held -= running
            if not machine.together:
                for p in there:
                    self._use(p, step, self._next(steps, step, p))
            for p, count in zip(pages, visits[step], strict=True):
                if p in there:
                    continue
                d, g = machine.device[p], machine.group[p]
                arrival = max(self.link[d], begin) + machine.fetch_s
                if machine.host_s is not None:
                    rent = machine.host_s * count
                    if max(host[d], begin) + rent < arrival and rented[p] + rent <= machine.fetch_s:
                        host[d] = max(host[d], begin) + rent
                        rented[p] += rent
                        host_end = max(host_end, host[d])
                        hosted.add(p)
                        self._note(step, HOST, p)
                        continue
                if machine.together and len(self._of(g)) + len(self._of(g, running)) >= machine.slots[g]:
                    self._evict(step, self._victim(g))
                rented[p] = 0.0
                self.link[d] = self.ready[p] = arrival
                wait = max(wait, arrival)
                self._note(step, FETCH, p)
                if machine.together:
                    running.add(p)
                    continue
                self._use(p, step, self._next(steps, step, p))
                if len(self._of(g)) > machine.slots[g] - 1:
                    self._evict(step, self._victim(g))
            for p in pages if machine.together else ():
                if p not in hosted:
                    self._use(p, step, self._next(steps, step, p))
            stalled += wait - begin
            now = max(wait + machine.step_s, host_end)
            for ahead in range(min(self.prefetch.depth, len(steps) - 1 - step)):
                self._look_ahead(step, pages, ahead, wait, now)
        return self.events, stalled, now

    def _look_ahead(self, step: int, pages: list[int], ahead: int, begin: float, end: float) -> None:
        layers, experts, machine = self.requests.layers, self.requests.experts, self.machine
        layer, target = step % layers, (step + 1 + ahead) % layers
        share = {}
        for e in range(experts):
            share[target * experts + e] = sum(
                int(self.prefetch.evidence[ahead][layer][p % experts][e]) for p in pages
            )
        for p in sorted(share, key=lambda p: -share[p]):
            d, g = machine.device[p], machine.group[p]
            if share[p] < self.prefetch.threshold:
                return
            room = machine.slots[g] - (0 if machine.together else 1)
            issue = max(self.link[d], begin)
            if p in self.held or issue >= end or room <= 0:
                continue
            if len(self._of(g)) >= room:
                # What is expected at least as much stays, what was fetched for a later step, what a step computes with.
                spared = {v for v in share if share[v] >= share[p]} | set(pages if machine.together else ())
                spared |= {v for v, until in self.until.items() if until > step}
                victim = self._victim(g, spared, unless=(step, PREFETCH, p))
                if victim is None:
                    continue
                self._evict(step, victim)
            self.link[d] = self.ready[p] = issue + machine.fetch_s
            self._use(p, step + 1 + ahead, step + 1 + ahead)
            self.until[p] = step + 1 + ahead
            self._note(step, PREFETCH, p)

    def _of(self, group: int, pages: set[int] | None = None) -> list[int]:
        return [p for p in (self.held if pages is None else pages) if self.machine.group[p] == group]

    def _next(self, steps: list[list[int]], step: int, page: int) -> int:
        return next((s for s in range(step + 1, len(steps)) if page in steps[s]), len(steps))

    def _use(self, page: int, step: int, next_use: int) -> None:
        if self.scores is None:
            self.rank[page] = self.key(page, step, self.uses[page], next_use)
        self.held.add(page)

    def _victim(self, group: int, spared: AbstractSet[int] = frozenset(), unless: Event | None = None) -> int | None:
        """The page that gives way, of those that are not spared; None where all are."""
        candidates = [p for p in self._of(group) if p not in spared]
        if not candidates:
            return None
        least = min(self.rank[p] for p in candidates)
        alike = [p for p in candidates if self.rank[p] == least]
        at = len(self.events)
        named = self.log[at][2] if at < len(self.log) and self.log[at][1] == EVICT else None
        if unless is not None and self.log[at + 1 : at + 2] != [unless]:
            named = None
        return named if named in alike else min(alike)

    def _evict(self, step: int, victim: int | None) -> None:
        assert victim is not None
        self.held.discard(victim)
        self._note(step, EVICT, victim)

    def _note(self, step: int, kind: int, page: int) -> None:
        self.events.append((step, kind, page))


@dataclass
class Scores:
    """What the policy ``affinity`` expects of each page, as logarithms that compare across layers."""

    layers: int
    experts: int
    learnt: list[int]
    follow: Any
    decay: float

    def __post_init__(self) -> None:
        batches = max(1.0, sum(self.learnt) / self.layers)
        self.score = [count / batches for count in self.learnt]

    def after(self, step: int, pages: list[int]) -> dict[int, int]:
        """Ranks of all pages of a step's layer."""
        layer, batch = step % self.layers, step // self.layers
        own = range(layer * self.experts, (layer + 1) * self.experts)
        for q in own:
            self.score[q] *= self.decay
        for p in pages:
            for q in own:
                self.score[q] += (1.0 - self.decay) * float(self.follow[layer][p % self.experts][q % self.experts])
        fade = float(np.log(self.decay))
        return {q: math.trunc(1e6 * (float(np.log(self.score[q] + 1e-9)) - batch * fade)) for q in own}
