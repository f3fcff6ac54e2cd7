"""A little more traffic for fewer transfers, where that is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import helper

import cosma
from cosma.plan.overheads import transfer_sizes
from tests.onnx_files import save_network
from tests.random_graphs import random_instance

MACHINE = cosma.Accelerator(scratchpad="3KiB", operands="resident", weights="scratchpad")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four convolutions over maps of 4 KiB (int8): whole maps do not fit, stripes do; with fewer of them some leave."""
    nodes = [
        helper.make_node("Conv", [f"t{i}", f"w{i}"], [f"t{i + 1}"], name=f"c{i}", pads=[1, 1, 1, 1]) for i in range(4)
    ]
    weights = {f"w{i}": (4, 4, 3, 3) for i in range(4)}
    return save_network(tmp_path_factory.mktemp("trade") / "chain.onnx", nodes, {"t0": [1, 4, 32, 32]}, weights, ["t4"])


def transfers(plan: cosma.Plan) -> int:
    return sum(1 for _ in transfer_sizes(plan))


def test_fewer_transfers_within_the_share(chain: Path) -> None:
    least = cosma.compile(chain, MACHINE, dtype="int8", tiling="auto", effort=0.3)
    found = {}
    for share in (0.01, 0.5, 0.99):
        plan = cosma.compile(chain, MACHINE, dtype="int8", tiling="auto", effort=0.3, trade_off=share)
        best = plan.solver["least_traffic"]
        assert best <= plan.traffic.total <= best * (1 + share)
        assert transfers(plan) <= plan.solver["transfers_of_least"]
        assert cosma.replay(plan).valid
        assert plan.certificate.noncompulsory == plan.traffic.noncompulsory
        found[share] = transfers(plan)
    assert found[0.99] <= found[0.5] <= found[0.01]
    assert found[0.99] < transfers(least)
    assert "trade_off" not in least.solver


def test_whole_operators_trade_too() -> None:
    for seed in range(4):
        graph, machine = random_instance(seed)
        plan = cosma.compile(graph, machine, effort=0.1, trade_off=0.2, seed=seed)
        assert plan.traffic.total <= plan.solver["least_traffic"] * 1.2
        assert transfers(plan) <= plan.solver["transfers_of_least"]


def test_wrong_shares_are_refused(chain: Path) -> None:
    for share in (-0.1, 1.0, "much"):
        with pytest.raises(cosma.InputError, match="trade-off"):
            cosma.compile(chain, MACHINE, trade_off=share)  # type: ignore[arg-type]


def test_the_command_says_what_was_traded(chain: Path) -> None:
    from cosma.cli.compile_ import traded_line

    plan = cosma.compile(chain, MACHINE, dtype="int8", tiling="auto", effort=0.3, trade_off=0.99)
    assert f"for {transfers(plan):,} transfers instead of" in traded_line(plan)
