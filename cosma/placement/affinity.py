"""What a trace says about experts: who follows whom, and how much each is used.

**What is counted.** For every token and every two consecutive layers, each pair (expert chosen in the first layer,
expert chosen in the second) counts once: with top-k routing that is k x k pairs per step, with top-1 exactly one.
The load of an expert is the number of (token, choice) visits it gets. With k > 1 the pairs of experts that one
token uses *within* a layer are counted as well (each unordered pair once, kept symmetric, diagonal zero).
An id of -1 is no expert and counts nowhere, so tokens may use different numbers of experts.
Nothing else of the trace enters the optimisers, so aggregation is exact for every cost here that is a sum over steps.
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


#: Largest tables of counts, all layers together; the optimisers hold several copies of them.
MOST_COUNT_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, eq=False)
class Affinity:
    """Transition counts between consecutive layers and load per expert.

    Attributes
    ----------
    transitions
        ``[layers - 1, experts, experts]``: how often row expert in layer l and column expert in layer l + 1 meet
        in a token.
    load
        ``[layers, experts]``: visits.
    coactivation
        ``[layers, experts, experts]``, symmetric, zero diagonal: tokens that use both experts in the layer; None
        for top-1 traces and for counts given directly.
    tokens
        Tokens aggregated; 0 where counts were given directly.
    top_k
        Most experts a token uses per layer.
    """

    transitions: NDArray[np.int64]
    load: NDArray[np.int64]
    coactivation: NDArray[np.int64] | None
    tokens: int
    top_k: int

    @property
    def layers(self) -> int:
        """Number of Mixture-of-Experts layers."""
        return int(self.load.shape[0])

    @property
    def experts(self) -> int:
        """Experts per layer."""
        return int(self.load.shape[1])

    @property
    def steps(self) -> int:
        """All transitions counted: the denominator of every mean cost."""
        return int(self.transitions.sum())

    @classmethod
    def from_tokens(cls, tokens: NDArray[np.integer], experts: int | None = None) -> Affinity:
        """Aggregate one array of expert ids, ``[tokens, layers]`` or ``[tokens, layers, k]``."""
        array = door.array(tokens, "trace: tokens")
        if array.ndim not in (2, 3):
            raise InputError(f"trace: {array.ndim} dimensions; expected [tokens, layers] or [tokens, layers, k]")
        count = _checked_max(array, 0) + 1 if experts is None else experts
        return cls.from_chunks([array], count)

    @classmethod
    def from_chunks(cls, chunks: Iterable[NDArray[np.integer]], experts: int) -> Affinity:
        """Aggregate chunks of a trace, each ``[tokens, layers]`` or ``[tokens, layers, k]``, one at a time.

        Memory stays at the size of the counts plus one chunk.

        Raises
        ------
        InputError
            If the trace is empty, has one layer, changes shape, names an expert outside ``[0, experts)`` or names
            one expert twice for a token.
        """
        experts = door.integer(experts, "trace: experts")
        if experts < 1:
            raise InputError(f"trace: {experts} experts per layer; at least 1 is needed")
        counter: _Counter | None = None
        first = 0
        for chunk in chunks:
            array = np.asarray(chunk)
            if array.ndim == 2:
                array = array[:, :, None]
            if counter is None:
                _check_shape(array)
                counter = _Counter(array.shape[1], experts, array.shape[2])
            counter.add(array, first)
            first += array.shape[0]
        if counter is None or first == 0:
            raise InputError("trace: no tokens; a trace needs at least one token to place experts by")
        return counter.affinity(first)

    @classmethod
    def from_counts(cls, transitions: NDArray[np.number]) -> Affinity:
        """Take counts ``[layers - 1, experts, experts]`` as they are.

        The load of a layer is what flows out of it; of the last layer, what flows in.

        Raises
        ------
        InputError
            If the counts are not square per layer pair, negative, fractional or all zero.
        """
        counts = door.array(transitions, "counts: transitions", kinds="iuf")
        if counts.ndim != 3 or counts.shape[1] != counts.shape[2] or counts.shape[0] < 1 or counts.shape[1] < 1:
            raise InputError(f"counts: shape {counts.shape}; expected [layers - 1, experts, experts]")
        if not np.all(np.isfinite(counts)) or counts.min() < 0 or np.any(counts != np.floor(counts)):
            raise InputError("counts: every entry must be a whole number and not negative")
        if counts.max() > 2.0**53:
            raise InputError(f"counts: up to {counts.max():.3g} in one entry; at most 2**53 are counted")
        if counts.max() == 0:
            raise InputError("counts: all zero; there is nothing to place by")
        whole = counts.astype(np.int64)
        load = np.concatenate([whole.sum(axis=2), whole[-1:].sum(axis=1)])
        return cls(whole, load, None, 0, 1)

    @classmethod
    def from_load(cls, load: NDArray[np.number], experts: int | None = None) -> Affinity:
        """Take visits ``[layers, experts]`` alone; nothing is known of who follows whom, so no transition counts.

        Fractions (means over many steps) are kept to a thousandth of the smallest layer's share.

        Raises
        ------
        InputError
            If the table is of another shape, negative, not finite or all zero, or has more experts than declared.
        """
        table = np.asarray(load)
        if table.ndim != 2 or 0 in table.shape or table.dtype.kind not in "iuf":
            raise InputError(f"load: {table.dtype} of shape {table.shape}; expected [layers, experts] of counts")
        values = table.astype(np.float64)
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 2.0**53:
            raise InputError("load: every count must be finite, not negative and at most 2**53")
        if values.sum() <= 0:
            raise InputError("load: all zero; there is nothing to place by")
        if (values != np.floor(values)).any():
            values = np.round(values * max(1.0, 1000.0 * table.shape[1] / values.sum(axis=1).max()) * 1000.0)
        count = table.shape[1] if experts is None else experts
        if count < table.shape[1]:
            raise InputError(f"load: counts of {table.shape[1]} experts, but {count} per layer are declared")
        _check_size(table.shape[0] - 1, count, "load")
        whole = np.zeros((table.shape[0], count), dtype=np.int64)
        whole[:, : table.shape[1]] = values.astype(np.int64)
        return cls(np.zeros((table.shape[0] - 1, count, count), dtype=np.int64), whole, None, 0, 1)

    @property
    def has_affinity(self) -> bool:
        """Whether anything is known of which expert follows which; where not, load alone can be balanced."""
        return self.steps > 0

    def merged(self, other: Affinity) -> Affinity:
        """Add the counts of another trace of the same model."""
        if self.load.shape != other.load.shape or self.top_k != other.top_k:
            raise InputError(
                f"affinity: cannot add {other.load.shape} top-{other.top_k} to {self.load.shape} top-{self.top_k}"
            )
        both = self.coactivation is not None and other.coactivation is not None
        co = self.coactivation + other.coactivation if both else None  # type: ignore[operator]
        return Affinity(
            self.transitions + other.transitions, self.load + other.load, co, self.tokens + other.tokens, self.top_k
        )


def _check_shape(array: NDArray[np.integer]) -> None:
    if array.ndim != 3:
        raise InputError(f"trace: {array.ndim} dimensions; expected [tokens, layers] or [tokens, layers, k]")
    if array.shape[1] < 2:
        raise InputError(
            f"trace: {array.shape[1]} layer with experts; affinity is between layers, so at least 2 are needed; give "
            "its load as a table of counts [1, experts] to balance it alone"
        )
    if array.shape[2] < 1:
        raise InputError("trace: no expert per token and layer (k = 0)")


def _check_size(matrices: int, experts: int, what: str) -> None:
    """Refuse counts that no memory should be spent on."""
    if matrices * experts * experts * 8 > MOST_COUNT_BYTES:
        possible = int((MOST_COUNT_BYTES / (8 * matrices)) ** 0.5)
        raise InputError(
            f"{what}: {experts} experts per layer; at most {possible} are possible, since counts of pairs of experts "
            f"may take {MOST_COUNT_BYTES >> 30} GiB"
        )


def _checked_max(array: NDArray[np.integer], first_token: int) -> int:
    if array.size == 0:
        raise InputError("trace: no tokens; a trace needs at least one token to place experts by")
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"trace: entries of type {array.dtype}; expected whole numbers (expert ids)")
    if int(array.min()) < -1:
        where = np.argwhere(array < -1)[0]
        raise InputError(
            f"trace: token {first_token + int(where[0])}, layer {int(where[1])} names expert "
            f"{int(array[tuple(where)])}; "
            "ids are not negative (-1 means no expert)"
        )
    return int(array.max())


class _Counter:
    """Running counts of one trace."""

    def __init__(self, layers: int, experts: int, top_k: int) -> None:
        _check_size(layers - 1 + (layers if top_k > 1 else 0), experts, "trace")
        self.shape = (layers, top_k)
        self.experts = experts
        self.transitions = np.zeros((layers - 1, experts * experts), dtype=np.int64)
        self.load = np.zeros((layers, experts), dtype=np.int64)
        self.pairs = np.zeros((layers, experts * experts), dtype=np.int64) if top_k > 1 else None

    def add(self, array: NDArray[np.integer], first_token: int) -> None:
        if array.ndim != 3 or (array.shape[1], array.shape[2]) != self.shape:
            raise InputError(
                f"trace: token {first_token} has shape {array.shape[1:]}, the tokens before it {self.shape}; "
                "every token needs the same layers and k"
            )
        if array.shape[0] == 0:
            return
        if _checked_max(array, first_token) >= self.experts:
            where = np.argwhere(array >= self.experts)[0]
            raise InputError(
                f"trace: token {first_token + int(where[0])}, layer {int(where[1])} names expert "
                f"{int(array[tuple(where)])}, but there are {self.experts} per layer (ids from 0)"
            )
        layers, top_k = self.shape
        ids = array.astype(np.int64)
        if top_k > 1:
            self._check_distinct(ids, first_token)
        for layer in range(layers):
            now = ids[:, layer]
            self.load[layer] += np.bincount(now[now >= 0], minlength=self.experts)
            if self.pairs is not None:
                self.pairs[layer] += self._pairs(now, now)
            if layer + 1 < layers:
                self.transitions[layer] += self._pairs(now, ids[:, layer + 1])

    def _pairs(self, ones: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count the pairs of two choices of each token, ``[experts * experts]``."""
        both = ones[:, :, None] * self.experts + others[:, None, :]
        if int(ones.min()) < 0 or int(others.min()) < 0:
            both = both[(ones[:, :, None] >= 0) & (others[:, None, :] >= 0)]
        return np.bincount(both.ravel(), minlength=self.experts * self.experts)

    def _check_distinct(self, ids: NDArray[np.int64], first_token: int) -> None:
        ordered = np.sort(ids, axis=2)
        twice = np.argwhere((ordered[:, :, 1:] == ordered[:, :, :-1]) & (ordered[:, :, 1:] >= 0))
        if len(twice):
            token, layer, _ = (int(i) for i in twice[0])
            raise InputError(
                f"trace: token {first_token + token}, layer {layer} names one expert twice "
                f"({ids[token, layer].tolist()})"
            )

    def affinity(self, tokens: int) -> Affinity:
        experts = self.experts
        pairs = None
        if self.pairs is not None:
            pairs = self.pairs.reshape(-1, experts, experts)
            pairs[:, np.arange(experts), np.arange(experts)] = 0
        return Affinity(self.transitions.reshape(-1, experts, experts), self.load, pairs, tokens, self.shape[1])
