"""The compiled replay of policies against its plain twin: every event, and the seconds."""

from __future__ import annotations

import numpy as np
import pytest

from cosma.caching.replacement import AFFINITY, BELADY, FREQUENCY, LFU, LRU, play
from cosma.caching.requests import next_uses, requests_of
from tests.caching.plain import Machine, Plain, Prefetch, Scores

RULES = {"lru": LRU, "lfu": LFU, "frequency": FREQUENCY, "belady": BELADY, "affinity": AFFINITY}


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("policy", RULES)
def test_every_event_and_second_is_the_twins(policy: str, together: bool) -> None:
    kinds = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        layers, experts, tokens = (int(rng.integers(*span)) for span in ((1, 4), (2, 7), (2, 12)))
        chosen, batch = int(rng.integers(1, experts + 1)), int(rng.integers(1, 4))
        ids = np.stack([
            np.stack([rng.permutation(experts)[:chosen] for _ in range(layers)]) for _ in range(tokens)
        ])  # fmt: skip
        requests = requests_of(ids, experts, batch)
        layer = np.repeat(np.arange(layers), experts)
        group = np.zeros_like(layer) if rng.integers(2) else layer
        groups = int(group.max()) + 1
        slots = rng.integers(1, experts + 1, groups)
        if together:
            slots = slots + requests.widest_step(group)[0]
        devices = int(rng.integers(1, 3))
        device = rng.integers(0, devices, layers * experts)
        learnt = rng.integers(0, 9, layers * experts)
        depth, threshold = int(rng.integers(0, 4)), int(rng.choice([0, 900, 3000]))
        guess = rng.integers(0, 3000, (max(1, depth), layers, experts, experts)).astype(np.uint16)
        follow = rng.random((layers, experts, experts), dtype=np.float32)
        decay = float(rng.choice([0.5, 0.9, 1.0]))
        fetch_s, step_s = (float(rng.choice([0.25, 1.0, 3.0])) for _ in range(2))
        host_s = None if rng.integers(2) else float(rng.choice([0.125, 0.5, 2.0]))
        base = np.concatenate([[0], np.cumsum(np.bincount(group, minlength=groups))[:-1]]).astype(np.int64)
        log = np.empty((9999, 3), dtype=np.int64)
        seen, stalled_s, total_s = play(
            requests.start, requests.page, requests.visits, next_uses(requests), layers, experts, group, base,
            slots.astype(np.int64), device, devices, together, RULES[policy], learnt, guess, depth, threshold, follow,
            decay, np.array([fetch_s, step_s, -1.0 if host_s is None else host_s]), log,
        )  # fmt: skip
        events = [tuple(row) for row in log[:seen].tolist()]
        keys = {
            "lru": lambda page, step, uses, following: step,
            "lfu": lambda page, step, uses, following: (uses, step),
            "frequency": lambda page, step, uses, following, learnt=learnt: (learnt[page], step),
            "belady": lambda page, step, uses, following: -following,
            "affinity": None,
        }
        twin = Plain(
            requests,
            Machine(group.tolist(), slots.tolist(), device.tolist(), fetch_s, step_s, host_s, together),
            Prefetch(depth, threshold, guess),
            keys[policy],
            events,
            Scores(layers, experts, learnt.tolist(), follow, decay) if policy == "affinity" else None,
        )
        assert twin.play() == (events, pytest.approx(stalled_s), pytest.approx(total_s)), seed
        kinds |= {kind for _, kind, _ in events}
    assert kinds == {0, 1, 2, 3}
