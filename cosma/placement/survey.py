"""What a file of routing is, decided once and before anything else reads it.

Expert ids and counts are both tables of whole numbers, and a table of one taken for the other gives a placement that
means nothing. The decision looks at shape, type, range of values, and at how ids repeat within a token:

- ``[tokens, layers, k]``: a token names an expert of a layer once, so ids that repeat are no ids. Counts by step,
  ``[steps, layers, experts]``, repeat freely, or have equal sums in all layers of a step.
- ``[tokens, layers]``: every layer of a model serves the same tokens, so rows of counts ``[layers, experts]`` have
  equal sums (layers without experts have zeros). Ids start near 0 and there are fewer of them than tokens.
- ``[layers - 1, experts, experts]``: transitions; what flows into an expert flows out of it.

What can be both is refused, unless the caller says what it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.errors import FormatError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

TRACE, LOAD, LOAD_BY_STEP, TRANSITIONS = "trace", "load", "load by step", "transitions"
KINDS = (TRACE, LOAD, TRANSITIONS)
#: More rows than this are tokens: no model has as many layers.
_MOST_LAYERS = 512
#: Experts per token beyond which a table is not tokens by its names alone.
_RARELY = 2
#: Share of (token, layer) rows with repeated ids from which on the table is no trace; below it is a damaged one.
_REPEATS = 0.5
#: Ids counted one by one to see how many different ones there are; larger ids are impossible anyway.
_MOST_IDS = 1 << 16
#: Experts per different expert seen beyond which a largest id is a mistake unless the caller declares it.
_SPARSE = 16
#: What -1 (no expert) becomes in an unsigned byte.
_WRAPPED = 255
#: Largest count of one expert: larger whole numbers are not exact in double precision.
_MOST_COUNT = 2.0**53


@dataclass(frozen=True, slots=True)
class Survey:
    """What a file holds."""

    #: ``trace``, ``load``, ``load by step`` or ``transitions``.
    kind: str
    #: Shape as stored; rows first.
    shape: tuple[int, ...]
    #: Layers that use experts.
    layers: int
    #: Layers (as logged, from 0) in which no token names an expert: dense ones.
    dense: tuple[int, ...]
    #: The file's own numbers of the layers that use experts.
    layer_ids: tuple[int, ...]
    #: One more than the largest id, or the columns of a table of counts.
    experts: int
    #: Most experts a token uses in a layer; 0 for counts.
    top_k: int
    #: Fewest, of tokens that use any; 0 for counts.
    least_k: int
    #: Tokens; 0 where the file holds counts.
    tokens: int
    #: Choices logged as -1 in layers that use experts.
    absent: int
    #: What was noticed and decided, for people.
    notes: tuple[str, ...]


def kind_of(sample: NDArray[Any], rows: int, name: str, where: str) -> str:
    """Decide what a table is; raises FormatError if the table is nothing that can be read, or can be two things.

    Parameters
    ----------
    sample
        The first rows of the table.
    rows
        How many rows it has (or has at least, where nobody counted).
    name
        Name of the array or file, which decides where numbers alone do not.
    where
        What messages call it.
    """
    if sample.dtype.kind == "f" and not np.isfinite(sample).all():
        raise FormatError(f"{where}: has entries that are not finite")
    fractions = sample.dtype.kind == "f" and bool((sample != np.floor(sample)).any())
    square = sample.ndim == 3 and sample.shape[1] == sample.shape[2]
    named = _named(name)
    if sample.ndim == 3:
        if square and (named == TRANSITIONS or _conserved(sample)):
            kind = TRANSITIONS
        else:
            kind = _three(sample, named, where)
    else:
        kind = LOAD if fractions else _two(sample, rows, named, where)
    if kind != TRACE and int(sample.min(initial=0)) < 0:
        raise FormatError(f"{where}: counts are not negative, but there is a {sample.min()}")
    if kind == TRACE and sample.dtype.kind == "f":
        raise FormatError(f"{where}: entries of type {sample.dtype}; expected whole numbers (expert ids)")
    return kind


def _named(name: str) -> str | None:
    """Return what a name says: transitions, load, or nothing."""
    lowered = name.lower()
    if "transition" in lowered:
        return TRANSITIONS
    return LOAD if any(word in lowered for word in ("count", "load")) else None


def _conserved(sample: NDArray[Any]) -> bool:
    """Say whether what flows into the experts of each layer flows out of them in proportion."""
    flows = sample.astype(np.float64)
    if flows.shape[0] < 2 or not flows.sum() > 0:
        return False
    inward, outward = flows[:-1].sum(axis=1), flows[1:].sum(axis=2)
    return bool((np.abs(inward - outward) <= 1e-9 * np.maximum(inward, 1.0)).all())


def _three(sample: NDArray[Any], named: str | None, where: str) -> str:
    repeats = repeated(sample)
    share = float(repeats.mean())
    wide = sample.shape[2] >= 2
    sums = sample.sum(axis=2, dtype=np.float64)
    used = sums.any(axis=0)
    even = wide and int(used.sum()) >= 2 and bool((sums[:, used] == sums[:, used][:, :1]).all())
    constant = (sample == sample[:1, :, :1]).all(axis=(0, 2))
    if share >= _REPEATS and not (repeats.all(axis=0) == constant).all():
        return LOAD_BY_STEP
    if wide and (even or (named == LOAD and share > 0)) and not bool((sample < 0).any()):
        return LOAD_BY_STEP
    if named == LOAD and sample.shape[2] > _RARELY:
        raise FormatError(
            f"{where}: is named like counts, but no token of {sample.shape[1]} layers repeats one of its "
            f"{sample.shape[2]} numbers, as expert ids do not; say whether it is a trace or a table of load"
        )
    return TRACE


def _two(sample: NDArray[Any], rows: int, named: str | None, where: str) -> str:
    sums = sample.sum(axis=1, dtype=np.float64)
    sums = sums[sums != 0]
    largest, smallest = int(sample.max()), int(sample.min())
    if rows > _MOST_LAYERS or smallest < 0:
        return TRACE
    if _is_map(sample):
        raise FormatError(
            f"{where}: every row holds all of {largest + 1} numbers, as a placement does (the expert in every place), "
            "not a trace; it can be scored on a trace"
        )
    if len(sums) >= 2 and sample.shape[1] >= 2 and bool((sums == sums[0]).all()) and len(np.unique(sample)) > 1:
        # Tokens that all name the same experts have equal sums as well, and so do permutations of few ids.
        if largest >= rows or named == LOAD:
            return LOAD
        if not (np.sort(sample, axis=1) == np.sort(sample[:1], axis=1)).all():
            return _unsure(sample, rows, where)
    if largest < rows:
        return TRACE
    if rows == 1 and named != LOAD and largest < _MOST_IDS:
        return _unsure(sample, rows, where)
    if named == LOAD or smallest > largest // 4:
        return LOAD
    # One damaged id does not make counts of a trace: most ids have to be beyond the number of rows.
    if largest >= _RARELY * rows and float(np.median(sample)) >= rows:
        return _unsure(sample, rows, where)
    return TRACE


def _is_map(sample: NDArray[Any]) -> bool:
    """Say whether every row holds every number up to the largest, most of them once: a placement's places."""
    largest = int(sample.max())
    if not sample.shape[1] // 2 <= largest < sample.shape[1] or largest < 3:
        return False
    return all(len(np.unique(row)) == largest + 1 for row in sample)


def _unsure(sample: NDArray[Any], rows: int, where: str) -> str:
    raise FormatError(
        f"{where}: shape {(rows, sample.shape[1])} of numbers up to {int(sample.max())} can be [tokens, layers], or "
        "counts [layers, experts]; say whether it is a trace or a table of load"
    )


def repeated(ids: NDArray[Any]) -> NDArray[np.bool_]:
    """Return, per token and layer, whether one expert is named twice (-1, which is no expert, may repeat)."""
    ordered = np.sort(ids, axis=2)
    twice: NDArray[np.bool_] = ((ordered[:, :, 1:] == ordered[:, :, :-1]) & (ordered[:, :, 1:] >= 0)).any(axis=2)
    return twice


class Gatherer:
    """Running facts of a trace, chunk by chunk."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.tokens = 0
        self.top_k, self.least_k = 0, 1 << 30
        self.seen = np.zeros(_MOST_IDS, dtype=bool)
        self.largest = -1
        self.first_large: tuple[int, int, int] | None = None
        self.used: NDArray[np.bool_] | None = None
        self.filler: NDArray[np.bool_] | None = None
        self.single: NDArray[np.bool_] | None = None
        self.first: NDArray[np.int64] | None = None
        self.absent: NDArray[np.int64] | None = None

    def add(self, ids: NDArray[np.int64]) -> None:
        """Add a chunk ``[tokens, layers, k]``, -1 where there is no expert."""
        if self.used is None:
            self.used = np.zeros(ids.shape[1], dtype=bool)
            self.filler = np.ones(ids.shape[1], dtype=bool)
            self.single = np.ones(ids.shape[1], dtype=bool)
            self.first = ids[0, :, 0].copy()
            self.absent = np.zeros(ids.shape[1], dtype=np.int64)
        assert self.filler is not None
        assert self.single is not None
        assert self.first is not None
        assert self.absent is not None
        if ids.shape[1] != len(self.used):
            raise InputError(
                f"{self.where}: ragged: token {self.tokens} has {ids.shape[1]} layers, "
                f"the tokens before it {len(self.used)}"
            )
        if int(ids.min()) < -1:
            token, layer, place = (int(i) for i in np.argwhere(ids < -1)[0])
            raise InputError(
                f"{self.where}: token {self.tokens + token}, layer {layer} names expert "
                f"{int(ids[token, layer, place])}; ids are not negative (-1 means no expert)"
            )
        valid = ids >= 0
        count = valid.sum(axis=2)
        self.used |= valid.any(axis=(0, 2))
        self.absent += (~valid).sum(axis=(0, 2))
        # A layer in which every token names expert 0 in all places: nothing was written there.
        self.filler &= (ids == 0).all(axis=(0, 2)) & (ids.shape[2] > 1)
        self.single &= (ids == self.first[None, :, None]).all(axis=(0, 2))
        self.top_k = max(self.top_k, int(count.max()))
        if count.any():
            self.least_k = min(self.least_k, int(count[count > 0].min()))
        largest = int(ids.max())
        if largest >= _MOST_IDS and self.first_large is None:
            token, layer, place = (int(i) for i in np.argwhere(ids >= _MOST_IDS)[0])
            self.first_large = (self.tokens + token, layer, int(ids[token, layer, place]))
        self.largest = max(self.largest, largest)
        small = ids[valid & (ids < _MOST_IDS)]
        self.seen |= np.bincount(small, minlength=_MOST_IDS)[:_MOST_IDS] > 0
        self.tokens += ids.shape[0]

    def survey(
        self, shape: tuple[int, ...], declared_dense: Iterable[int], names: tuple[int, ...] | None,
        experts: int | None,
    ) -> Survey:  # fmt: skip
        """Return the facts, with dense layers left out of the count of layers."""
        if self.used is None or self.filler is None or self.absent is None or self.single is None:
            raise InputError(f"{self.where}: no tokens; a trace needs at least one token to place experts by")
        notes: list[str] = []
        logged = len(self.used)
        dense = ~self.used | self.filler
        if self.filler.any():
            notes.append(
                f"layers {_listed(np.flatnonzero(self.filler))} log expert 0 in every place of every token, as servers "
                "do for dense layers; taken for dense ones"
            )
        outside = [layer for layer in declared_dense if not 0 <= layer < logged]
        chosen = [layer for layer in declared_dense if 0 <= layer < logged]
        carrying = [layer for layer in chosen if not (dense[layer] or self.single[layer])]
        if carrying and len(carrying) == len(chosen):
            notes.append(
                f"layers {_listed(chosen)} are declared dense, but the trace routes there: it logs only layers with "
                "experts, and the numbers are the model's"
            )
        elif carrying or outside:
            wrong = (carrying or outside)[0]
            raise InputError(
                f"{self.where}: layer {wrong} is declared dense, but "
                + (f"tokens use different experts in it, and not in layer {chosen[0]}" if carrying else
                   f"the trace has layers 0 to {logged - 1}")
            )  # fmt: skip
        else:
            dense[chosen] = True
        for layer in np.flatnonzero(self.single & ~dense):
            if self.tokens > 1:
                notes.append(f"layer {layer}: every token uses the same expert; if the layer is dense, declare it so")
        if dense.all():
            raise InputError(f"{self.where}: no token names an expert in any layer")
        ids = names if names is not None else tuple(range(logged))
        kept = np.flatnonzero(~dense)
        absent = int(self.absent[kept].sum())
        if absent:
            notes.append(f"{absent} choices are -1 (padding, or fewer experts); they count for nothing")
        self._check_ids(experts)
        return Survey(
            TRACE, shape, len(kept), tuple(int(i) for i in np.flatnonzero(dense)), tuple(ids[i] for i in kept),
            self.largest + 1, self.top_k, self.least_k, self.tokens, absent, tuple(notes),
        )  # fmt: skip

    def _check_ids(self, experts: int | None) -> None:
        if self.first_large is not None:
            token, layer, expert = self.first_large
            possible = experts if experts is not None else _MOST_IDS
            raise InputError(
                f"{self.where}: token {token}, layer {layer} names expert {expert}; "
                f"at most {possible} experts per layer are possible (ids 0 to {possible - 1})"
            )
        others = np.flatnonzero(self.seen[: self.largest])
        if experts is None and self.largest == _WRAPPED and len(others) and others[-1] <= _WRAPPED // 2:
            raise InputError(
                f"{self.where}: names expert {_WRAPPED} and no other above {others[-1]}: -1 becomes {_WRAPPED} in "
                "unsigned bytes; write signed numbers, or declare the number of experts if there are that many"
            )
        different = int(self.seen.sum())
        if experts is None and self.largest + 1 > max(_SPARSE * different, 64):
            raise InputError(
                f"{self.where}: names expert {self.largest}, but only {different} different experts; "
                "if the model has that many per layer, declare their number"
            )


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(str(int(number)) for number in numbers)


def of_table(table: NDArray[Any], kind: str, names: tuple[int, ...] | None) -> Survey:
    """Return what a table of counts holds."""
    notes: list[str] = []
    if not np.isfinite(table).all() or (table < 0).any():
        raise InputError("counts: every count must be finite and not negative")
    if kind == TRANSITIONS:
        layers = table.shape[0] + 1
        return Survey(kind, table.shape, layers, (), tuple(range(layers)), table.shape[1], 0, 0, 0, 0, ())
    load = table.sum(axis=0, dtype=np.float64) if kind == LOAD_BY_STEP else table.astype(np.float64)
    if load.max() > _MOST_COUNT:
        raise InputError(f"counts: up to {load.max():.3g} for one expert; at most 2**53 are counted")
    if load.sum() <= 0:
        raise InputError("counts: all zero; there is nothing to place by")
    used = load.sum(axis=1) > 0
    if not used.all():
        notes.append(f"layers {_listed(np.flatnonzero(~used))} count nothing; taken for dense ones")
    ids = names if names is not None else tuple(range(len(used)))
    kept = np.flatnonzero(used)
    return Survey(
        kind, table.shape, len(kept), tuple(int(i) for i in np.flatnonzero(~used)), tuple(ids[i] for i in kept),
        table.shape[-1], 0, 0, 0, 0, tuple(notes),
    )  # fmt: skip
