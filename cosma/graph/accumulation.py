"""Steps of a sum: tiles that compute one region of a result from one interval after another of the axis summed over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, SupportsIndex

import cosma.door as door
from cosma.errors import GraphError


@dataclass(frozen=True, slots=True)
class Accumulation:
    """One step of a sum: the interval that it adds up, and the partial sums that it adds to.

    The first step adds the bias, the last applies what is fused behind the sum. Raises GraphError if the interval is
    empty or negative.
    """

    #: Half-open interval of the axis summed over: the columns of a matrix product's first operand, the input channels
    #: of a convolution.
    start: int
    stop: int
    #: Partial sums that the step adds to, one for each result in the order of the results; none for the first step. A
    #: result may take the place of its partial sum.
    sums: tuple[str, ...] = ()

    if TYPE_CHECKING:  # what callers may write; dataclass makes the constructor, and __post_init__ converts

        def __init__(self, start: SupportsIndex, stop: SupportsIndex, sums: Iterable[str] = ...) -> None: ...

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "start", door.integer(self.start, "accumulation: start", least=0, error=GraphError))
        put(self, "stop", door.integer(self.stop, "accumulation: stop", least=0, error=GraphError))
        put(self, "sums", door.texts(self.sums, "accumulation: sums", error=GraphError))
        if self.start >= self.stop:
            raise GraphError(f"accumulation: {self.start} to {self.stop} is no interval")
