"""What policies cost on a trace, beside the best possible."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyResult:
    """What one policy costs, counted by replay.

    Attributes
    ----------
    policy
        Its name.
    requests, hits, fetches, prefetches, hosted
        Requests, those met by a slot, fetches on demand and ahead, and requests computed on the host.
    moved_bytes
        Bytes over the links.
    above_optimum
        Fetches beyond the fewest, as a share of the fewest. Where the host may compute, seconds of links and hosts
        beyond the least, as a share of that; None where the least was not looked for.
    stalled_s, total_s
        Seconds in which a step waits for a link, and of the whole trace.
    """

    policy: str
    requests: int
    hits: int
    fetches: int
    prefetches: int
    hosted: int
    moved_bytes: int
    above_optimum: float | None
    stalled_s: float
    total_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheReport:
    """All policies on one trace.

    Attributes
    ----------
    tokens, layers, experts, steps, groups
        Shape of the instance.
    widest_step
        Most pages of one group that a single step needs.
    compulsory_fetches
        Pages used at all: each is fetched at least once.
    lower_bound_fetches
        Fetches that every schedule needs where the host computes nothing.
    proven
        Whether a schedule with that many fetches is at hand.
    least_mix_s, mix_proven
        Seconds of links and hosts, summed over requests, that every schedule takes, and whether one that takes no
        more is at hand; None where the host computes nothing or ``optimum`` was not asked for.
    results
        By policy, in the order asked for; without those that an interrupt left out.
    """

    tokens: int
    layers: int
    experts: int
    steps: int
    groups: int
    widest_step: int
    compulsory_fetches: int
    lower_bound_fetches: int
    proven: bool
    least_mix_s: float | None
    mix_proven: bool | None
    results: tuple[PolicyResult, ...]
