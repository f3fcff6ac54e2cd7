"""Exact assignment of rows to columns; SciPy, which solves it, is installed with the extra ``place``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def linear_sum_assignment(
    cost: NDArray[np.float64], *, maximize: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Assign each row a column of its own so that the sum of the costs is least.

    Raises SolverUnavailableError if SciPy is not installed. Returns rows in ascending order, and the column of each.

    Parameters
    ----------
    cost
        Cost of each row in each column; no more rows than columns.
    maximize
        Take the costs for gains.
    """
    try:
        from scipy.optimize import linear_sum_assignment as solve
    except ImportError as error:
        from cosma.errors import SolverUnavailableError

        raise SolverUnavailableError("placing experts needs SciPy; install the extra `cosma[place]`") from error
    rows, columns = solve(cost, maximize=maximize)
    return rows, columns
