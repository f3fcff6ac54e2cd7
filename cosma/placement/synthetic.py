"""Synthetic routing traces with tunable affinity and skew.

Each layer has its own hidden grouping of experts into ``clusters``. A token belongs to a cluster in every layer and
keeps it to the next with probability ``affinity``; otherwise it draws a cluster anew, from the same popularity. Within
a cluster it draws its experts from fixed preferences: Dirichlet with concentration ``1 / sharpness``, so a larger
``sharpness`` concentrates a cluster on few experts. Popularity of clusters falls as ``rank ** -(skew / 4)``. With
``affinity = 0`` consecutive layers are independent given popularity; with 1 a token never leaves its cluster.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticOptions:
    """Size and character of a synthetic trace; see the module for what each number does."""

    tokens: int = 4000
    layers: int = 12
    experts: int = 16
    top_k: int = 1
    affinity: float = 0.6
    skew: float = 1.0
    clusters: int = 4
    sharpness: float = 3.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.layers < 2 or self.experts < 1:
            raise InputError(
                f"synthetic trace: {self.tokens} tokens, {self.layers} layers, {self.experts} experts; need 1, 2, 1"
            )
        if not 1 <= self.top_k <= self.experts:
            raise InputError(f"synthetic trace: top-{self.top_k} of {self.experts} experts")
        if not 0.0 <= self.affinity <= 1.0:
            raise InputError(f"synthetic trace: affinity {self.affinity}; expected a probability")
        if not 1 <= self.clusters <= self.experts:
            raise InputError(
                f"synthetic trace: {self.clusters} clusters of {self.experts} experts; expected 1 to {self.experts}"
            )
        if self.skew < 0 or self.sharpness <= 0:
            raise InputError(
                f"synthetic trace: skew {self.skew} must not be negative, sharpness {self.sharpness} positive"
            )


def synthetic_trace(options: SyntheticOptions) -> NDArray[np.uint16]:
    """Draw a trace ``[tokens, layers]`` (``[tokens, layers, k]`` for k > 1); equal options give equal traces."""
    random = np.random.default_rng(options.seed)
    popularity = np.arange(1, options.clusters + 1, dtype=np.float64) ** -(options.skew / 4.0)
    popularity /= popularity.sum()
    cluster = random.choice(options.clusters, size=options.tokens, p=popularity)
    trace = np.empty((options.tokens, options.layers, options.top_k), dtype=np.uint16)
    for layer in range(options.layers):
        if layer:
            stray = random.random(options.tokens) >= options.affinity
            cluster = np.where(stray, random.choice(options.clusters, size=options.tokens, p=popularity), cluster)
        owner = random.permutation(np.arange(options.experts) % options.clusters)
        weight = random.gamma(1.0 / options.sharpness, size=(options.clusters, options.experts)) + 1e-12
        weight *= np.where(owner[None, :] == np.arange(options.clusters)[:, None], 1.0, 0.05)
        # Adding Gumbel noise to log-weights and keeping the k largest draws k experts without replacement.
        scores = np.log(weight)[cluster] + random.gumbel(size=(options.tokens, options.experts))
        trace[:, layer] = np.argsort(-scores, axis=1, kind="stable")[:, : options.top_k]
    return trace[:, :, 0] if options.top_k == 1 else trace


def describe(options: SyntheticOptions) -> dict[str, Any]:
    """Return the ``meta`` record to store beside a trace."""
    return {"synthetic": True, **asdict(options)}
