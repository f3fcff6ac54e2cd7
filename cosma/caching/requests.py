"""What a trace asks of a cache of experts: for every step, the experts that must be at hand.

A *step* is one layer of one batch of tokens, in the order of execution: all layers of the first batch, then all layers
of the second. An expert of a layer is a *page*, numbered ``layer * experts + expert``. Pages belong to *groups* that
share slots: the pages of a device, or of a layer on a device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import cosma.door as door
from cosma.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from cosma.arrays import Ints


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """Pages needed, step by step (CSR).

    Attributes
    ----------
    layers, experts
        Shape of the model: pages are numbered below ``layers * experts``.
    start
        ``int64[steps + 1]``: requests of step i are ``[start[i], start[i + 1])``.
    page
        ``int64[requests]``: pages of each step, ascending, each once.
    visits
        ``int64[requests]``: tokens of the batch that visit the page.
    tokens
        Tokens of the trace.
    """

    layers: int
    experts: int
    start: Ints
    page: Ints
    visits: Ints
    tokens: int

    @property
    def steps(self) -> int:
        """Number of steps: batches times layers."""
        return len(self.start) - 1

    @property
    def pages(self) -> int:
        """Number of pages, used or not."""
        return self.layers * self.experts

    @property
    def batch_count(self) -> int:
        """Number of batches."""
        return self.steps // self.layers

    def batches(self, first: int, last: int) -> Requests:
        """Return the batches ``[first, last)`` alone; ``tokens`` counts those of the whole trace in proportion."""
        first, last = max(first, 0), min(last, self.batch_count)
        begin, end = first * self.layers, last * self.layers
        low, high = int(self.start[begin]), int(self.start[end])
        tokens = round(self.tokens * (last - first) / max(1, self.batch_count))
        return Requests(
            self.layers, self.experts, self.start[begin : end + 1] - low, self.page[low:high], self.visits[low:high],
            tokens,
        )  # fmt: skip

    def layer_of(self, step: int) -> int:
        """Layer that a step runs."""
        return step % self.layers

    def step_of_request(self) -> Ints:
        """Return the step of each request, ``int64[requests]``."""
        return np.repeat(np.arange(self.steps, dtype=np.int64), np.diff(self.start))

    def widest_step(self, group: Ints) -> tuple[int, int]:
        """Return the most pages of one group that a single step needs, and the first such step.

        Parameters
        ----------
        group
            ``int64[pages]``: group of each page.
        """
        if len(self.page) == 0:
            return 0, 0
        keys = self.step_of_request() * (int(group.max()) + 1) + group[self.page]
        values, counts = np.unique(keys, return_counts=True)
        widest = int(counts.argmax())
        return int(counts[widest]), int(values[widest] // (int(group.max()) + 1))


def requests_of(tokens: NDArray[np.integer], experts: int, batch: int = 1) -> Requests:
    """Turn expert ids into requests.

    Raises InputError if the array is no trace, holds an id of ``experts`` or more, or ``batch`` is not positive.

    Parameters
    ----------
    tokens
        ``[tokens, layers]`` or ``[tokens, layers, k]`` of ids below ``experts``; negative ids are no expert.
    batch
        Tokens that run together; the last batch may be smaller.
    """
    array = np.asarray(tokens)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or 0 in array.shape or not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            f"a trace is integers [tokens, layers] or [tokens, layers, k], not {array.dtype} {tokens.shape}"
        )
    batch = min(door.integer(batch, "cache: batch", least=1), len(array))
    experts = door.integer(experts, "cache: experts", least=1)
    highest = int(array.max())
    if highest >= experts:
        raise InputError(f"the trace names expert {highest}; with {experts} experts ids end at {experts - 1}")
    count, layers, _ = array.shape
    token, layer, _ = np.nonzero(array >= 0)
    step = (token // batch) * layers + layer
    keys, visits = np.unique(
        step.astype(np.int64) * experts + array[array >= 0].astype(np.int64), return_counts=True
    )
    of_step, expert = np.divmod(keys, experts)
    steps = -(-count // batch) * layers
    start = np.zeros(steps + 1, dtype=np.int64)
    np.cumsum(np.bincount(of_step, minlength=steps), out=start[1:])
    page = (of_step % layers) * experts + expert
    return Requests(layers, experts, start, page, visits.astype(np.int64), count)


def read_requests(chunks: Iterable[NDArray[np.integer]], experts: int | None = None, batch: int = 1) -> Requests:
    """Read a trace chunk by chunk; see :func:`requests_of`. Without ``experts`` ids end at the highest one seen."""
    parts = [np.asarray(chunk) for chunk in chunks]
    if not parts:
        raise InputError("the trace holds no token")
    tokens = np.concatenate(parts)
    if experts is None:
        experts = int(tokens.max()) + 1 if tokens.size else 0
    if experts < 1:
        raise InputError("the trace names no expert")
    return requests_of(tokens, experts, batch)


def next_uses(requests: Requests) -> Ints:
    """Return the step at which each request's page is requested again, ``steps`` where it is not."""
    step_of = requests.step_of_request()
    order = np.lexsort((step_of, requests.page))
    after = np.full(len(order), requests.steps, dtype=np.int64)
    same = requests.page[order[1:]] == requests.page[order[:-1]]
    after[order[:-1][same]] = step_of[order[1:][same]]
    return after
