"""Balance, replication, re-placement, ExFlow's program, exchange formats, estimates, differences, figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cosma.errors import FormatError, InfeasibleError, InputError
from cosma.placement import diff
from cosma.placement.affinity import Affinity
from cosma.placement.baselines import eplb, eplb_replicated, vanilla
from cosma.placement.bounds import pair_budget_bound
from cosma.placement.check import check_placement, copies_beyond_room, score
from cosma.placement.document import Placement, dump_placement, read_placement, write_placement
from cosma.placement.exchange import export, read_any
from cosma.placement.exflow import (
    bipartition,
    build_split,
    crossings,
    incremental_counts,
    one_shot,
    weighted_steps,
)
from cosma.placement.metrics import imbalance, mean_cost
from cosma.placement.moves import moved
from cosma.placement.options import PlaceOptions
from cosma.placement.plots import heat_map
from cosma.placement.replication import replicate
from cosma.placement.service import place
from cosma.placement.simulate import Links, direct, two_sided
from cosma.placement.synthetic import SyntheticOptions, synthetic_trace
from cosma.placement.topology import Topology
from cosma.solvers import Profile, Status, solve

WORK = 60_000


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    return synthetic_trace(SyntheticOptions(tokens=1500, layers=5, experts=16, clusters=4, skew=2.0, seed=8))


@pytest.fixture(scope="module")
def affinity(tokens: np.ndarray) -> Affinity:
    return Affinity.from_tokens(tokens, 16)


@pytest.fixture(scope="module")
def plain(affinity: Affinity) -> Placement:
    return place(affinity, Topology.grid(2, 2), PlaceOptions(strategy="search", proposals=WORK, bound="none"))


def test_balance_limits_hold(affinity: Affinity, plain: Placement) -> None:
    topology = Topology.grid(2, 2)
    free = imbalance(affinity, topology, plain.devices)
    for scope, reached in (("each", np.max), ("mean", np.mean)):
        limit = 0.4 + 0.6 * float(reached(free))
        options = PlaceOptions(
            strategy="search", proposals=WORK, balance=limit, balance_scope=scope,
            bound="quick" if scope == "mean" else "none",
        )  # fmt: skip
        ours = place(affinity, topology, options)
        assert float(reached(imbalance(affinity, topology, ours.devices))) <= limit + 1e-9
        assert ours.metrics["mean_cost"] < mean_cost(affinity, topology, vanilla(affinity, topology))
        assert ours.certificate["lower_bound"] <= plain.metrics["mean_cost"] + 1e-9


def test_impossible_balance_names_the_expert() -> None:
    tokens = np.array([[0, 0]] * 8 + [[1, 1], [2, 2], [3, 3]])
    with pytest.raises(InfeasibleError, match="layer 0 expert 0 alone"):
        place(Affinity.from_tokens(tokens, 4), Topology.grid(1, 2), PlaceOptions(balance=1.05, proposals=1000))
    with pytest.raises(InputError, match="balance must be at least 1"):
        place(Affinity.from_tokens(tokens, 4), Topology.grid(1, 2), PlaceOptions(balance=0.9, proposals=1000))


def test_replicas_help_within_memory(affinity: Affinity, plain: Placement, tokens: np.ndarray) -> None:
    topology = Topology.grid(2, 2)
    ours = place(affinity, topology, PlaceOptions(strategy="search", proposals=WORK, replicas_per_device=1))
    check_placement(ours, 1)
    assert copies_beyond_room(ours) == 1
    found = score(ours, [tokens])
    assert found.mean_cost < score(plain, [tokens]).mean_cost
    by_load = eplb_replicated(affinity, topology, 1)
    other = Placement.of_copies(topology, by_load)
    check_placement(other, 1)
    assert found.mean_cost < score(other, [tokens]).mean_cost
    assert found.mean_cost >= pair_budget_bound(affinity, topology, 1).mean_cost
    with pytest.raises(InputError, match="at most"):
        replicate(affinity, topology, plain.devices, 20)


def test_everything_everywhere_costs_nothing(affinity: Affinity, tokens: np.ndarray) -> None:
    topology = Topology.grid(1, 2)
    full = replicate(affinity, topology, vanilla(affinity, topology), 8)
    homes = np.array([[copies[0] for copies in row] for row in full])
    assert score(Placement(topology, homes, full), [tokens]).mean_cost == 0.0


def test_move_budget_is_kept(affinity: Affinity) -> None:
    topology = Topology.grid(2, 2)
    current = vanilla(affinity, topology)
    costs = []
    for budget in (0, 4, 16):
        options = PlaceOptions(current=current, max_moves=budget, proposals=WORK, bound="none")
        ours = place(affinity, topology, options)
        assert ours.metrics["moved"] == moved(current, ours.devices) <= budget
        costs.append(ours.metrics["mean_cost"])
    assert costs[0] == mean_cost(affinity, topology, current)
    assert costs[0] > costs[1] > costs[2]
    with pytest.raises(InputError, match="belong together"):
        place(affinity, topology, PlaceOptions(max_moves=3))
    with pytest.raises(InputError, match="0 or more"):
        place(affinity, topology, PlaceOptions(current=current, max_moves=-1))
    with pytest.raises(InputError, match="room for"):
        place(affinity, topology, PlaceOptions(current=np.zeros_like(current), max_moves=1))


def test_aggregated_program_equals_the_per_token_one() -> None:
    tokens = synthetic_trace(SyntheticOptions(tokens=25, layers=3, experts=4, clusters=2, seed=1)).astype(int)
    affinity = Affinity.from_tokens(tokens, 4)
    members = [np.arange(4)] * 3
    programs = [
        build_split([(i, int(t[i]), int(t[i + 1]), 1) for t in tokens for i in (0, 1)], members, 2, 2),
        build_split(weighted_steps(affinity.transitions), members, 2, 2),
    ]
    assert programs[0].model.variable_count > programs[1].model.variable_count
    random = np.random.default_rng(0)
    for _ in range(10):
        part = np.stack([random.permutation([0, 0, 1, 1]) for _ in range(3)])
        values = [split.model.value(split.assignment(part)) for split in programs]
        assert values[0] == values[1] == crossings(affinity.transitions, part)
    for back_end in ("cp-sat", "highs"):
        results = [solve(split.model, Profile(name="test", back_end=back_end)) for split in programs]
        assert results[0].status is results[1].status is Status.OPTIMAL
        optimum = place(affinity, Topology.grid(1, 2)).metrics["mean_cost"] * affinity.steps
        assert results[0].objective == results[1].objective == round(optimum)


def test_exflow_schemes_are_valid(affinity: Affinity, tokens: np.ndarray, plain: Placement) -> None:
    topology = Topology.grid(2, 2)
    batches = incremental_counts(tokens, 16, 1000)
    assert (batches[-1] == affinity.transitions).all()
    for result in (one_shot(affinity, topology, work=0.6), bipartition(affinity, topology, batches=batches, work=0.6)):
        check_placement(Placement(topology, result.devices))
        assert plain.metrics["mean_cost"] <= mean_cost(affinity, topology, result.devices) + 1e-9
    with pytest.raises(InputError, match="equal shares"):
        bipartition(affinity, Topology.grid(1, 3))


@pytest.mark.parametrize("form", ["cosma", "exflow", "eplb", "sglang", "vllm"])
@pytest.mark.parametrize("replicated", [False, True])
def test_formats_round_trip(tmp_path: Path, affinity: Affinity, plain: Placement, form: str, replicated: bool) -> None:
    topology = plain.topology
    placement = plain
    if replicated:
        copies = replicate(affinity, topology, plain.devices, 1)
        placement = Placement(topology, np.array([[held[0] for held in row] for row in copies]), copies)
    if replicated and form == "exflow":
        with pytest.raises(InputError, match="one device per expert"):
            export(placement, form)
        return
    path = tmp_path / "placement"
    path.write_text(export(placement, form))
    again = read_any(path, topology, 16)
    check_placement(again, int(replicated))
    assert [[sorted(held) for held in row] for row in again.copies()] == [
        [sorted(held) for held in row] for row in placement.copies()
    ]


def test_formats_look_as_their_readers_expect(plain: Placement) -> None:
    lines = export(plain, "exflow").splitlines()
    assert lines[0] == "Expert,Node"
    assert lines[1 + 16] == f"16,{plain.devices[1, 0]}"
    physical = json.loads(export(plain, "sglang"))["physical_to_logical_map"]
    assert all(sorted(row) == list(range(16)) for row in physical)
    assert sorted(physical[2][4:8]) == np.flatnonzero(plain.devices[2] == 1).tolist()
    layers = json.loads(export(plain, "vllm"))
    assert layers["moe_layer_count"] == 5
    assert layers["layer_list"][3]["device_list"][2]["device_expert"] == np.flatnonzero(plain.devices[3] == 2).tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Expert,Node\n0,0\n0,1\n", "appears twice"),
        ("Expert,Node\n0,x\n", "two whole numbers"),
        ("Expert,Node\n0,0\n", "whole layers"),
        ("something else", "neither JSON nor ExFlow"),
        ("{}", "neither a cosma placement"),
        ('{"format": "cosma-placement", "version": 9}', "version 9"),
        ("[[0, 1, 2]]", "do not divide"),
        ("[[0, 0, 0, 3]]", "is on no device"),
        ('{"layer_list": [{}]}', "not a vLLM expert map"),
    ],
)
def test_bad_placements_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "p"
    path.write_text(text)
    with pytest.raises(FormatError, match=message):
        read_any(path, Topology.grid(1, 2), 4)


def test_file_round_trip(tmp_path: Path, plain: Placement) -> None:
    write_placement(tmp_path / "p.json", plain)
    again = read_placement(tmp_path / "p.json")
    assert dump_placement(again) == dump_placement(plain) == (tmp_path / "p.json").read_text()
    record = json.loads((tmp_path / "p.json").read_text())
    assert record["topology"]["nodes"] == 2
    assert record["replicas"] is None


def test_diff_counts_moves(affinity: Affinity, plain: Placement) -> None:
    devices = plain.devices.copy()
    a, b = int(np.flatnonzero(devices[2] == 0)[0]), int(np.flatnonzero(devices[2] == 3)[0])
    devices[2, a], devices[2, b] = 3, 0
    found = diff(plain, replace(plain, devices=devices), affinity)
    assert (found["moved"], found["across_nodes"], found["copies_added"]) == (2, 2, 2)
    assert {move["expert"] for move in found["moves"]} == {a, b}
    assert found["metrics"]["after"]["mean_cost"] == mean_cost(affinity, plain.topology, devices)
    with pytest.raises(InputError, match="of one model"):
        diff(plain, replace(plain, devices=devices[:3]))


def test_estimates_by_hand() -> None:
    affinity = Affinity.from_tokens(np.array([[0, 1]] * 3 + [[1, 1]]), 2)
    links = Links(hidden=10, dtype="float16", latency_s=(2.0,), bandwidth_bytes_per_s=(30.0,), batch_tokens=8)
    topology = Topology.tree((2,), (1,))
    found = direct(affinity, topology, np.array([[0, 1], [0, 1]]), links)
    # 3 of 4 tokens cross: 6 of a batch of 8, 20 bytes each.
    assert found.bytes_per_layer == (120.0,)
    assert found.seconds_per_layer == pytest.approx(2.0 + 120 / 30)
    assert two_sided(affinity, topology, np.array([[0, 1], [0, 1]]), links).all_to_alls == 2
    assert direct(affinity, topology, np.array([[0, 1], [1, 0]]), links).bytes_per_layer == (40.0,)
    with pytest.raises(InputError, match="expected one of"):
        direct(affinity, topology, np.array([[0, 1], [0, 1]]), replace(links, dtype="int3"))


def test_affinity_of_generated_traces_is_tunable() -> None:
    reductions = []
    for strength in (0.0, 0.5, 0.95):
        trace = synthetic_trace(SyntheticOptions(tokens=1500, layers=4, experts=8, affinity=strength, seed=2))
        affinity, topology = Affinity.from_tokens(trace, 8), Topology.grid(1, 4)
        ours = place(affinity, topology).metrics["mean_cost"]
        reductions.append(1 - ours / mean_cost(affinity, topology, vanilla(affinity, topology)))
    assert reductions[0] < reductions[1] < reductions[2]
    assert reductions[2] > 0.45
    options = SyntheticOptions(tokens=50, layers=3, experts=6, top_k=3, seed=4)
    assert (synthetic_trace(options) == synthetic_trace(options)).all()
    with pytest.raises(InputError, match="a probability"):
        SyntheticOptions(affinity=1.5)


def test_eplb_balances_and_ignores_affinity(affinity: Affinity) -> None:
    topology = Topology.grid(2, 2)
    for homes in (eplb(affinity, topology), eplb(affinity, topology, by_node=False)):
        check_placement(Placement(topology, homes))
        in_order = imbalance(affinity, topology, vanilla(affinity, topology)).mean()
        assert imbalance(affinity, topology, homes).mean() < in_order


def test_heat_map_is_drawn(affinity: Affinity, plain: Placement) -> None:
    pytest.importorskip("matplotlib")
    before = vanilla(affinity, plain.topology)
    assert heat_map("png", affinity, plain.topology, before, plain.devices)[:4] == b"\x89PNG"
    with pytest.raises(InputError, match="no next layer"):
        heat_map("png", affinity, plain.topology, before, plain.devices, layer=4)
