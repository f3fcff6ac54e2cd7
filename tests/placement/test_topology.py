from __future__ import annotations

import pytest

from cosma.errors import FormatError, InfeasibleError, InputError
from cosma.placement.topology import Topology


def test_default_costs_are_exflows() -> None:
    cost = Topology.grid(2, 2).cost_matrix()
    assert cost.tolist() == [[0, 1, 2, 2], [1, 0, 2, 2], [2, 2, 0, 1], [2, 2, 1, 0]]


def test_more_levels_and_uneven_nodes() -> None:
    tree = Topology.tree((2, 2, 2), (5, 2, 1))
    assert tree.cost_matrix()[0].tolist() == [0, 1, 2, 2, 5, 5, 5, 5]
    assert (tree.nodes, tree.devices_per_node) == (4, 2)
    uneven = Topology.uneven([1, 3], capacities=[1, 2, 2, 3])
    assert uneven.slots(8).tolist() == [1, 2, 2, 3]
    assert not uneven.is_equal(8)
    assert uneven.cost_matrix()[0].tolist() == [0, 2, 2, 2]


def test_bandwidths_and_memory() -> None:
    topology = Topology.grid(2, 2).with_bandwidths([10e9, 40e9])
    assert topology.crossing_costs == (4.0, 1.0)
    assert topology.with_memory([100, 100, 100, 250], 10, 5).slots(8).tolist() == [2, 2, 2, 5]


@pytest.mark.parametrize(
    "topology", [Topology.grid(2, 4), Topology.tree((2, 2, 2), (3, 2, 1)), Topology.uneven([1, 2])]
)
def test_json_round_trip(topology: Topology) -> None:
    assert Topology.from_json(topology.to_json()) == topology


def test_file_needs_two_keys_only() -> None:
    assert Topology.from_json({"nodes": 2, "devices_per_node": 4}) == Topology.grid(2, 4)
    with pytest.raises(FormatError, match="whole numbers"):
        Topology.from_json({"nodes": 2})


def test_bad_topologies_are_refused() -> None:
    with pytest.raises(InputError, match="grow inwards"):
        Topology.grid(2, 2, (1, 2))
    with pytest.raises(InputError, match="level without members"):
        Topology.grid(0, 2)
    with pytest.raises(InputError, match="same path"):
        Topology(((0, 0), (0, 0)))
    with pytest.raises(InputError, match="increasing order"):
        Topology(((1, 0), (0, 0)))
    with pytest.raises(InputError, match="3 capacities for 4 devices"):
        Topology.grid(2, 2, capacities=[1, 2, 3])
    with pytest.raises(InfeasibleError, match="hold 4"):
        Topology.grid(2, 2, capacities=[1, 1, 1, 1]).slots(8)
