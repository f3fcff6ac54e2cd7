"""What a dual solution of the covering program promises of the future."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:

    from cosma.arrays import Floats
    from cosma.problem import Problem


@dataclass(frozen=True, slots=True)
class Potential:
    """A dual solution of the covering program, as the label search reads it. All amounts in bytes."""

    #: Value of the whole solution.
    total: float
    #: What drops out of it once an operator has run. ``float64[operators]``.
    operator: Floats
    #: (tensor, operator, first stretch, last stretch, amount) by tensor: what is lost while the tensor is prepaid in
    #: one of these stretches and the operator has still to run.
    loads: list[tuple[int, int, int, int, float]]
    #: What is lost once a tensor has been stored. ``float64[tensors]``.
    store_share: Floats
    #: Chain of touches by tensor.
    chains: dict[int, tuple[int, ...]]


def no_potential(problem: Problem) -> Potential:
    """Promise nothing of the future."""
    return Potential(
        0.0, np.zeros(problem.operator_count), [], np.zeros(problem.tensor_count), {}
    )
