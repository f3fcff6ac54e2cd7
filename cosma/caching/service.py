"""One call from requests to a table: the proven optimum beside every policy, each replayed by independent code."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

import cosma.door as door
from cosma.caching.check import check_schedule
from cosma.caching.results import CacheReport, PolicyResult
from cosma.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cosma.arrays import Bools, Float32s, Floats, Ints, Uint16s
    from cosma.caching.check import ScheduleCount
    from cosma.caching.hosting import HostedSchedule
    from cosma.caching.requests import Requests

#: Policies by name, best known future first. ``optimum`` and ``belady`` know the whole trace; the others do not.
POLICIES = ("optimum", "belady", "affinity", "frequency", "lfu", "lru")

#: Factors tried for the fading of ``affinity``, from nearly recency alone to what was learnt alone.
DECAYS = (0.5, 0.8, 0.95, 1.0)

#: Least shares tried at which an expert is fetched ahead: 1 fetches what was never absent, 0.3 also long shots.
PREFETCH_SHARES = (0.3, 0.5, 0.7, 0.9, 1.0)

#: Batches of the trace learnt from, behind its first half, on which each policy chooses among the values above, and the
#: requests up to which there are that many: a thousand tokens of 58 layers of eight experts.
PRACTICE_BATCHES, PRACTICE_REQUESTS = 1000, 1 << 19

#: Most memory of the tables of affinity: 61 layers of 384 experts take 18 MB for each step looked ahead.
MOST_TABLE_BYTES = 4 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """What a device can hold and how fast it is.

    Attributes
    ----------
    slots
        Experts each group of pages can hold.
    shared
        Whether a device's slots serve all layers; otherwise each layer has ``slots`` of its own.
    together
        Whether all experts of a step are in slots at once. Otherwise they run one by one through one slot set aside.
    policies
        Names from :data:`POLICIES`.
    prefetch
        Steps to look ahead; 0 fetches on demand alone.
    expert_bytes
        Size of one expert; 0 counts fetches alone.
    fetch_s
        Seconds to fetch one expert.
    step_s
        Seconds of arithmetic of one step.
    host_s
        Seconds to compute one visit on the host; None: the host computes nothing.
    """

    slots: int
    shared: bool = False
    together: bool = True
    policies: Sequence[str] = POLICIES
    prefetch: int = 0
    expert_bytes: int = 0
    fetch_s: float = 1.0
    step_s: float = 0.0
    host_s: float | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "slots", door.integer(self.slots, "cache: slots", least=1))
        put(self, "prefetch", door.integer(self.prefetch, "cache: prefetch", least=0))
        put(self, "expert_bytes", door.integer(self.expert_bytes, "cache: expert_bytes", least=0))
        for name in ("shared", "together"):
            door.flag(getattr(self, name), f"cache: {name}")
        for name in ("fetch_s", "step_s"):
            put(self, name, float(door.number(getattr(self, name), f"cache: {name}")))
        if self.host_s is not None:
            put(self, "host_s", float(door.number(self.host_s, "cache: host_s")))
        unknown = [name for name in self.policies if name not in POLICIES]
        if unknown or not self.policies:
            said = f"policy {unknown[0]!r} is not known" if unknown else "no policy"
            raise InputError(f"cache: {said}; choose from {', '.join(POLICIES)}")


def plan_cache(
    requests: Requests,
    options: CacheOptions,
    *,
    learnt_from: Requests | None = None,
    device: Ints | None = None,
    progress: Callable[[str, float], None] | None = None,
    interrupted: Callable[[], bool] = bool,
) -> CacheReport:
    """Run every policy asked for on a trace; deterministic unless interrupted.

    Parameters
    ----------
    requests
        The trace to run.
    options
        Slots, times and policies.
    learnt_from
        The trace that frequencies and affinity are learnt from; of the same shape. Without one, the trace itself.
    device
        ``int64[layers, experts]``: device of each expert; each device has slots and a link of its own. Default: one.
    progress
        Told what is being done, and the share of it that is done.
    interrupted
        Polled between policies: once it says so, those that have run are reported. With none, KeyboardInterrupt.

    Raises
    ------
    InputError
        If an option makes no sense, or a step needs more experts at once than there are slots.
    """
    from cosma.caching.optimum import best_schedule
    from cosma.caching.predict import learn_affinity, learn_evidence, visits_by_page
    from cosma.patience import patiently

    learnt_from = requests if learnt_from is None else learnt_from
    _check(requests, options, learnt_from)
    devices, group = _groups(requests, device, options.shared)
    slots = _slots(options, np.bincount(group))
    widest, step = requests.widest_step(group)
    if options.together and widest > options.slots:
        raise InputError(
            f"{options.slots} slots, but layer {requests.layer_of(step)} of batch {step // requests.layers} needs "
            f"{widest} experts at once; give {widest} slots or more, smaller batches, or let experts run one by one"
        )
    told = progress if progress is not None else _silent
    told("fewest fetches", 0.0)
    best = best_schedule(requests, group, slots, together=options.together)
    mix = None
    if options.host_s is not None and "optimum" in options.policies:
        from cosma.caching.hosting import best_mix

        mix = best_mix(
            requests, group, slots, options.fetch_s, options.host_s, together=options.together, progress=told
        )
    bench = _Bench(
        requests, group, slots, devices, options, learnt_from, visits_by_page(learnt_from),
        learn_evidence(learnt_from, options.prefetch),
        learn_affinity(learnt_from, [requests.layers])[0], best.kept, best.fetches, mix,
    )  # fmt: skip
    results = []
    for number, policy in enumerate(options.policies):
        told(policy, number / len(options.policies))
        result = patiently(partial(bench.run, policy), _nothing, interrupted)
        if result is None:
            break
        results.append(result)
    if not results:
        raise KeyboardInterrupt
    return CacheReport(
        tokens=requests.tokens,
        layers=requests.layers,
        experts=requests.experts,
        steps=requests.steps,
        groups=len(slots),
        widest_step=widest,
        compulsory_fetches=len(np.unique(requests.page)),
        lower_bound_fetches=best.lower_bound,
        proven=best.proven,
        least_mix_s=None if mix is None else mix.lower_bound,
        mix_proven=None if mix is None else mix.proven,
        results=tuple(results),
    )


def _check(requests: Requests, options: CacheOptions, learnt_from: Requests) -> None:
    """Refuse what is no instance, and instances whose tables would not fit."""
    from cosma.caching.requests import Requests

    door.instance(options, CacheOptions, "cache: options")
    for one, name in ((requests, "requests"), (learnt_from, "learnt_from")):
        door.instance(one, Requests, f"cache: {name}")
    if options.prefetch > requests.layers:
        raise InputError(
            f"cache: prefetch: looks at most one batch ahead, {requests.layers} layers here, not {options.prefetch}"
        )
    if (learnt_from.layers, learnt_from.experts) != (requests.layers, requests.experts):
        raise InputError(
            f"learnt from {learnt_from.layers} layers of {learnt_from.experts} experts, to be run on "
            f"{requests.layers} of {requests.experts}; give parts of traces of one model"
        )
    tables = (2 * options.prefetch + 4) * requests.layers * requests.experts**2
    if tables > MOST_TABLE_BYTES:
        raise InputError(
            f"cache: tables of which expert follows which in {requests.layers} layers of {requests.experts} experts, "
            f"{options.prefetch} steps ahead, take {tables >> 20} MiB, of {MOST_TABLE_BYTES >> 20} MiB possible"
        )


def _slots(options: CacheOptions, pages: Ints) -> Ints:
    """Slots of each group. Those for all its pages are as good as any more.

    One by one, pages pass through a slot set aside. Where all have slots of their own none needs to, and the one that
    rules set aside is a further one.
    """
    all_fit = options.slots >= pages
    return np.where(all_fit, pages + (0 if options.together else 1), options.slots).astype(np.int64)


def _nothing() -> None:
    """Return what a policy that was interrupted costs: nobody knows."""


def _silent(what: str, share: float) -> None:
    """Tell nobody."""


def _groups(requests: Requests, device: Ints | None, shared: bool) -> tuple[Ints, Ints]:
    """Return device and group of each page."""
    shape = (requests.layers, requests.experts)
    home = np.zeros(shape, dtype=np.int64) if device is None else door.array(device, "cache: device")
    if home.shape != shape:
        raise InputError(f"the placement is for {home.shape} layers and experts, the trace has {shape}")
    if (home < 0).any():
        raise InputError(f"the placement names device {home.min()}; devices are numbered from 0")
    layer = np.repeat(np.arange(requests.layers, dtype=np.int64), requests.experts)
    devices = np.unique(home.reshape(-1), return_inverse=True)[1].astype(np.int64)
    wanted = devices if shared else devices * requests.layers + layer
    return devices, np.unique(wanted, return_inverse=True)[1].astype(np.int64)


def _practice(learnt_from: Requests) -> Requests:
    """Return the batches that policies practise on."""
    half = learnt_from.batch_count // 2
    begins = learnt_from.start[half * learnt_from.layers :: learnt_from.layers]
    within = int(np.searchsorted(begins, begins[0] + PRACTICE_REQUESTS, side="right")) - 1
    return learnt_from.batches(half, half + min(PRACTICE_BATCHES, max(1, within)))


@dataclass(frozen=True, slots=True, eq=False)
class _Bench:
    """One trace on one machine, ready to run policies."""

    requests: Requests
    group: Ints
    slots: Ints
    devices: Ints
    options: CacheOptions
    learnt_from: Requests
    learnt: Ints
    ahead: Uint16s
    follow: Float32s
    kept: Bools
    fewest: int
    mix: HostedSchedule | None

    def run(self, policy: str) -> PolicyResult:
        """Run one policy, check what it did, and count."""
        events, stalled_s, total_s = self._optimum() if policy == "optimum" else self._online(policy)
        count = check_schedule(self.requests, self.group, self.slots, events, together=self.options.together)
        return self._result(policy, count, stalled_s, total_s)

    def _optimum(self) -> tuple[Ints, float, float]:
        from cosma.caching.planned import play_plan, schedule_events

        options = self.options
        fetched, hosted = ~self.kept, np.zeros(len(self.kept), dtype=np.bool_)
        if self.mix is not None:
            fetched, hosted = self.mix.fetched, self.mix.hosted
        plan = schedule_events(
            self.requests, self.group, self.slots, fetched, hosted, options.prefetch, together=options.together
        )
        stalled_s, total_s = play_plan(
            self.requests.start, self.requests.page, fetched, plan.issue_step, hosted, self.requests.visits,
            self.devices, int(self.devices.max()) + 1, self._clock(),
        )  # fmt: skip
        return plan.events, stalled_s, total_s

    def _online(self, policy: str) -> tuple[Ints, float, float]:
        # Belady knows the future and needs no guess; a page it fetched ahead would only give way again.
        depth = 0 if policy == "belady" else self.options.prefetch
        decay, share = self._practise(policy, depth)
        # A fetch and an eviction a request are all but the boldest prefetch; memory that is not written costs nothing.
        limit = 2 * len(self.requests.page) + 1
        while True:
            events = np.empty((limit, 3), dtype=np.int64)
            seen, stalled_s, total_s = self.play(self.requests, policy, depth, decay, share, events)
            if seen <= limit:
                return events[:seen], stalled_s, total_s
            limit = seen

    def _practise(self, policy: str, depth: int) -> tuple[float, float]:
        """Choose fading by fetches, then the share for prefetch by waiting, on the trace that is learnt from."""
        practice = _practice(self.learnt_from)
        fits = not self.options.together or practice.widest_step(self.group)[0] <= self.options.slots
        none = np.empty((0, 3), dtype=np.int64)
        decay, share = DECAYS[-1], PREFETCH_SHARES[-1]
        if policy == "affinity" and fits:
            decay = min(DECAYS, key=lambda one: self.play(practice, policy, 0, one, share, none)[0])
        if depth and fits:
            share = min(PREFETCH_SHARES, key=lambda one: self.play(practice, policy, depth, decay, one, none)[1])
        return decay, share

    def play(
        self, requests: Requests, policy: str, depth: int, decay: float, share: float, events: Ints
    ) -> tuple[int, float, float]:
        """Replay one policy that decides as it goes; returns events seen, seconds stalled and seconds in all."""
        from cosma.caching.predict import evidence
        from cosma.caching.replacement import AFFINITY, BELADY, FREQUENCY, LFU, LRU, play
        from cosma.caching.requests import next_uses

        rule = {"lru": LRU, "lfu": LFU, "frequency": FREQUENCY, "belady": BELADY, "affinity": AFFINITY}[policy]
        width = np.bincount(self.group, minlength=len(self.slots))
        base = np.concatenate([[0], np.cumsum(width)[:-1]]).astype(np.int64)
        future = next_uses(requests) if policy == "belady" else np.zeros(len(requests.page), dtype=np.int64)
        seen, stalled_s, total_s = play(
            requests.start, requests.page, requests.visits, future, requests.layers, requests.experts,
            self.group, base, self.slots, self.devices, int(self.devices.max()) + 1, self.options.together, rule,
            self.learnt, self.ahead, depth, int(evidence(np.array(share))), self.follow, decay, self._clock(), events,
        )  # fmt: skip
        return int(seen), float(stalled_s), float(total_s)

    def _clock(self) -> Floats:
        host_s = -1.0 if self.options.host_s is None else self.options.host_s
        return np.array([self.options.fetch_s, self.options.step_s, host_s])

    def _above(self, moved: int, hosted_visits: int) -> float | None:
        """What a policy takes beyond the least, as a share of it."""
        if self.options.host_s is None:
            return moved / self.fewest - 1.0 if self.fewest else 0.0
        if self.mix is None:
            return None
        taken_s, least_s = moved * self.options.fetch_s + hosted_visits * self.options.host_s, self.mix.lower_bound
        return taken_s / least_s - 1.0 if least_s else 0.0

    def _result(self, policy: str, count: ScheduleCount, stalled_s: float, total_s: float) -> PolicyResult:
        moved = count.fetches + count.prefetches
        return PolicyResult(
            policy=policy,
            requests=len(self.requests.page),
            hits=count.hits,
            fetches=count.fetches,
            prefetches=count.prefetches,
            hosted=count.hosted,
            moved_bytes=moved * self.options.expert_bytes,
            above_optimum=self._above(moved, count.hosted_visits),
            stalled_s=stalled_s,
            total_s=total_s,
        )
