"""Minimum cuts of small networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ortools.graph.python import max_flow

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Flows are 64-bit; capacities together stay below this.
_LARGEST = 2**60


def minimum_cut(nodes: int, arcs: Sequence[tuple[int, int, int]]) -> int:
    """Value of a minimum cut between node 0 (source) and node 1 (sink), of arcs (tail, head, capacity).

    Parallel arcs add up. Where the total is too large for 64 bits, capacities are rounded down together, so that the
    value is a lower bound on the minimum cut.
    """
    arcs = [arc for arc in arcs if arc[0] != arc[1]]
    if not arcs:
        return 0
    scale = -(-sum(capacity for _, _, capacity in arcs) // _LARGEST) or 1
    table = np.array([(tail, head, capacity // scale) for tail, head, capacity in arcs], dtype=np.int64)
    flow = max_flow.SimpleMaxFlow()
    flow.add_arcs_with_capacity(table[:, 0].astype(np.int32), table[:, 1].astype(np.int32), table[:, 2])
    # Without arcs at the source or the sink there is no such node, and no flow.
    if min(nodes, flow.num_nodes()) < 2:
        return 0
    status = flow.solve(0, 1)
    assert status == flow.OPTIMAL, status
    return int(flow.optimal_flow()) * scale
