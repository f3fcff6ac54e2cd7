"""Compiled loop of the recount (numba): visits of a batch, one after the other, to the least loaded copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.compiled import kernel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@kernel
def serve_least_loaded(
    at: NDArray[np.int64], experts: NDArray[np.int64], start: NDArray[np.int64], devices: NDArray[np.int64],
    served: NDArray[np.int64],
) -> None:  # fmt: skip
    """Give every choice without a device (-1 in ``at``) that copy whose device has least visits, ties to the smaller.

    ``devices[start[e] : start[e + 1]]`` are the devices with copies of expert ``e``, in ascending order. ``at`` and
    ``served``, the visits of each device, are changed.
    """
    for place in range(len(at)):
        if at[place] >= 0:
            continue
        expert = experts[place]
        best = devices[start[expert]]
        for i in range(start[expert] + 1, start[expert + 1]):
            if served[devices[i]] < served[best]:
                best = devices[i]
        at[place] = best
        served[best] += 1
