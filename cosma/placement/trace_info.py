"""What a trace or a table of counts says before anything is placed: sizes, load, affinity."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.placement import survey as surveys
from cosma.placement.trace_arrays import array_names
from cosma.placement.traces import read_affinity, survey

if TYPE_CHECKING:
    from cosma.placement.affinity import Affinity
    from cosma.placement.traces import Trace

_USED_FOR = {
    surveys.TRACE: "affinity between layers and load; costs are recounted token by token",
    surveys.LOAD: "load alone: placements can be balanced, crossings are unknown",
    surveys.LOAD_BY_STEP: "load alone, summed over steps: placements can be balanced, crossings are unknown",
    surveys.TRANSITIONS: "affinity between layers and load; there are no tokens to hold out",
}


@dataclass(frozen=True, slots=True)
class TraceInfo:
    """What a file holds."""

    #: The file, the array read, and all arrays of an archive.
    file: str
    array: str | None
    arrays: tuple[str, ...]
    #: What it is, and its shape as stored.
    kind: str
    shape: tuple[int, ...]
    #: Layers with experts, their numbers, and layers without.
    layers: int
    layer_ids: tuple[int, ...]
    dense_layers: tuple[int, ...]
    #: Experts per layer, and how many of them any layer uses at least once.
    experts: int
    experts_seen: int
    #: See ``survey.Survey``.
    top_k: int
    least_k: int
    tokens: int
    absent: int
    #: Uses of an expert by a token, all layers together.
    visits: int
    #: Busiest expert over the mean expert: mean over layers, and of the worst layer.
    expert_imbalance: float
    worst_expert: float
    #: How much an expert tells of the next layer's: the mutual information of both over the entropy of the second, mean
    #: over layers; None where only load is known. Few tokens per pair of experts make it too large.
    affinity: float | None
    #: What would be read from the file.
    used_for: str
    #: What was noticed.
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a record for programs."""
        return asdict(self)


def describe(trace: Trace, experts: int | None = None) -> TraceInfo:
    """Read a trace or a table of counts and say what it holds.

    Raises InputError if the file cannot be read, as any command would say.

    Parameters
    ----------
    experts
        Experts per layer, where the caller knows.
    """
    found = survey(trace, experts)
    counts = read_affinity(trace, experts)
    mean = np.maximum(counts.load.mean(axis=1), 1e-300)
    ratio = counts.load.max(axis=1) / mean
    names = tuple(array_names(trace.path)) if trace.array is not None else ()
    return TraceInfo(
        str(trace.path), trace.array, names, found.kind, found.shape, found.layers, found.layer_ids, found.dense,
        counts.experts, int((counts.load > 0).any(axis=0).sum()), found.top_k, found.least_k, found.tokens,
        found.absent, int(counts.load.sum()), float(ratio.mean()), float(ratio.max()),
        affinity_of(counts) if counts.has_affinity else None, _USED_FOR[found.kind], found.notes,
    )  # fmt: skip


def affinity_of(counts: Affinity) -> float:
    """Return the mean over layers of mutual information over the entropy of the later layer, 0 to 1."""
    shares = []
    for pairs in counts.transitions:
        total = float(pairs.sum())
        if total == 0:
            continue
        joint = pairs / total
        before, after = joint.sum(axis=1), joint.sum(axis=0)
        entropy = -float((after[after > 0] * np.log(after[after > 0])).sum())
        used = joint > 0
        information = float((joint[used] * np.log(joint[used] / np.outer(before, after)[used])).sum())
        shares.append(information / entropy if entropy > 1e-12 else 0.0)
    return float(np.clip(np.mean(shares), 0.0, 1.0)) if shares else 0.0
