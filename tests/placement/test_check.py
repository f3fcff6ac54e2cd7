from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cosma.placement.check as check_module
import cosma.placement.recount as recount_module
from cosma.errors import InputError, PlanInvalidError
from cosma.placement.affinity import Affinity
from cosma.placement.baselines import eplb, vanilla
from cosma.placement.check import check_placement, score, violations
from cosma.placement.document import Placement
from cosma.placement.metrics import imbalance, mean_cost
from cosma.placement.topology import Topology


def test_the_judge_imports_no_optimiser() -> None:
    for module in (check_module, recount_module):
        tree = ast.parse(Path(module.__file__).read_text())
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
        allowed = {
            "cosma.errors", "cosma.placement.document", "cosma.placement.recount", "cosma.placement.recount_kernels"
        }  # fmt: skip
        assert {name for name in imported if name.startswith("cosma")} <= allowed


def test_recount_by_hand() -> None:
    topology = Topology.grid(2, 2)
    placement = Placement(topology, np.array([[0, 1, 2, 3], [0, 1, 2, 3]]))
    found = score(placement, [np.array([[0, 0], [0, 1], [0, 2], [3, 2]])])
    assert found.mean_cost == (0 + 1 + 2 + 1) / 4
    assert found.crossing_shares == (0.25, 0.5)
    assert found.imbalance == ((3 / 1) + (2 / 1)) / 2


@pytest.mark.parametrize("top_k", [1, 2])
def test_raw_and_aggregated_costs_agree(top_k: int) -> None:
    random = np.random.default_rng(4)
    tokens = random.random((200, 5, 8)).argsort(axis=2)[:, :, :top_k]
    affinity, topology = Affinity.from_tokens(tokens, 8), Topology.tree((2, 2, 2), (4, 2, 1))
    for homes in (vanilla(affinity, topology), eplb(affinity, topology), eplb(affinity, topology, by_node=False)):
        found = score(Placement(topology, homes), [tokens[:90], tokens[90:]])
        assert found.mean_cost == pytest.approx(mean_cost(affinity, topology, homes))
        assert found.imbalance == pytest.approx(imbalance(affinity, topology, homes).mean())


def test_one_copy_each_scores_as_without_replicas(small_tokens: np.ndarray, small: Affinity) -> None:
    topology = Topology.grid(1, 3)
    plain = Placement(topology, vanilla(small, topology))
    copied = replace(plain, replicas=plain.copies())
    assert score(plain, [small_tokens]) == score(copied, [small_tokens])


def test_nearest_replica_rule() -> None:
    topology = Topology.grid(1, 2)
    homes = np.array([[0, 1], [0, 1]])
    placement = Placement(topology, homes, (((0,), (1,)), ((0, 1), (1,))))
    assert score(placement, [np.array([[0, 0], [1, 0]])]).mean_cost == 0.0
    # Without a device before, copies take turns.
    turns = Placement(topology, homes, (((0, 1), (1,)), ((0,), (1,))))
    assert score(turns, [np.array([[0, 0], [0, 0]])]).mean_cost == 0.5


@pytest.mark.parametrize(
    ("devices", "replicas", "message"),
    [
        ([[0, 0, 0, 1]], None, "layer 0, device 0: holds 3 experts, room for 2"),
        ([[0, 0, 1, 5]], None, "device 5, but there are 2"),
        ([[0, 0, 1, 1]], (((0,), (0,), (1,), ()),), "expert 3: on no device"),
        ([[0, 0, 1, 1]], (((1,), (0,), (1,), (1,)),), "home is device 0, but its first copy is on 1"),
        ([[0, 0, 1, 1]], (((0, 0), (0,), (1,), (1,)),), "two copies on one device"),
    ],
)
def test_each_fault_is_named(devices: list[list[int]], replicas: object, message: str) -> None:
    placement = Placement(Topology.grid(1, 2), np.array(devices), replicas)  # type: ignore[arg-type]
    assert any(message in fault for fault in violations(placement))
    with pytest.raises(PlanInvalidError, match="placement: "):
        check_placement(placement)


def test_score_refuses_another_models_trace() -> None:
    placement = Placement(Topology.grid(1, 2), np.array([[0, 1], [0, 1]]))
    with pytest.raises(InputError, match="same model"):
        score(placement, [np.zeros((3, 3), dtype=int)])
    with pytest.raises(InputError, match="no tokens"):
        score(placement, [])
