"""Minimum cuts of small networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_flow

if TYPE_CHECKING:
    from collections.abc import Sequence

#: SciPy's flows are 32-bit.
_LARGEST = 2**30


def minimum_cut(nodes: int, arcs: Sequence[tuple[int, int, int]]) -> int:
    """Value of a minimum cut between node 0 (source) and node 1 (sink).

    Parameters
    ----------
    nodes
        Number of nodes.
    arcs
        (tail, head, capacity); parallel arcs add up. Where the total is too large for 32 bits, finite capacities are
        rounded down together, so that the value is a lower bound on the minimum cut.
    """
    if not arcs:
        return 0
    table = np.array(arcs, dtype=np.int64)
    total = int(table[:, 2].max()) * 4
    scale = -(-total // _LARGEST)
    matrix = csr_matrix((table[:, 2] // scale, (table[:, 0], table[:, 1])), shape=(nodes, nodes), dtype=np.int64)
    matrix.data = np.minimum(matrix.data, _LARGEST)
    return int(maximum_flow(matrix.astype(np.int32), 0, 1).flow_value) * scale
