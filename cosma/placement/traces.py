"""Routing traces in: arrays, archives, JSON, CSV, responses of serving systems, and tables of counts.

A trace is ``[tokens, layers]`` or ``[tokens, layers, k]`` of expert ids; -1 means no expert (a dense layer, a dropped
or padding token, a token that uses fewer experts than others). ``open_trace`` finds a file, ``survey`` says what it is
(``cosma.placement.survey`` decides), ``Trace.chunks`` reads its tokens, and ``read_affinity`` aggregates it. Rows can
be limited to a range of tokens, so that one part is optimised on and another reported on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.errors import FormatError, InputError
from cosma.files import open_regular
from cosma.placement import survey as surveys
from cosma.placement.affinity import MOST_COUNT_BYTES, Affinity
from cosma.placement.survey import Survey
from cosma.placement.trace_arrays import ArrayReader, array_names, read_text_array
from cosma.placement.trace_csv import CsvReader
from cosma.placement.trace_json import JsonReader, signed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

#: Tokens read at a time. Not measured.
CHUNK_TOKENS = 8192
DEFAULT_ARRAY = "profile"
SUFFIXES = (".npy", ".npz", ".json", ".jsonl", ".ndjson", ".csv", ".tsv")


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace, or a table of counts, on disk, not yet read."""

    #: The file.
    path: Path
    #: Name of the array inside an archive; None for other files.
    array: str | None = None
    #: Tokens used, half-open; None for open ends.
    first: int | None = None
    last: int | None = None
    #: What the caller says the file is (one of ``survey.KINDS``), or None to decide by content.
    kind: str | None = None
    #: Layers, as logged or as the model counts them, that the caller says have no experts.
    dense: tuple[int, ...] = ()
    #: Layers and experts per token of base64 texts that do not say.
    shape: tuple[int, int] | None = None

    def chunks(self, chunk_tokens: int = CHUNK_TOKENS) -> Iterator[NDArray[np.int64]]:
        """Yield the chosen tokens, at most ``chunk_tokens`` at a time, as ``[tokens, layers, k]``.

        Layers are those that use experts, in order; k is the most that any token uses; -1 fills up. Raises InputError
        if the file holds counts, which have no tokens.
        """
        found = survey(self)
        if found.kind != surveys.TRACE:
            raise InputError(f"{self.where}: holds counts ({found.kind}), which have no single tokens")
        first, last = self.first or 0, self.last
        keep = np.setdiff1d(np.arange(found.layers + len(found.dense)), found.dense)
        position = 0
        for chunk in self._ids(chunk_tokens):
            begin = max(first - position, 0)
            end = chunk.shape[0] if last is None else min(last - position, chunk.shape[0])
            position += chunk.shape[0]
            if begin < end:
                yield _fitted(chunk[begin:end], keep, found.top_k)
            if last is not None and position >= last:
                return

    def tokens(self) -> int:
        """Return how many tokens the chosen range holds."""
        total = survey(self).tokens
        first = min(self.first or 0, total)
        return max(0, min(total, self.last if self.last is not None else total) - first)

    def split(self, holdout: float) -> tuple[Trace, Trace]:
        """Split into the first ``1 - holdout`` of the tokens, to optimise on, and the rest, to report on.

        Raises InputError if either part would be empty, or the file holds counts.
        """
        if is_counts(self):
            raise InputError(f"{self.where}: counts hold no single tokens; a part of them cannot be held out")
        total = self.tokens()
        cut = round(total * (1.0 - holdout)) if 0.0 < holdout < 1.0 else 0
        if cut < 1 or cut >= total:
            raise InputError(
                f"{self.where}: holding out {holdout} of {total} tokens leaves one part empty; "
                "choose a share between 0 and 1"
            )
        start = self.first or 0
        return (
            replace(self, first=start, last=start + cut),
            replace(self, first=start + cut, last=start + total),
        )

    def windows(self, count: int) -> list[Trace]:
        """Cut the chosen tokens into ``count`` windows of equal length (but for one token), in order.

        Raises InputError if there are fewer tokens than windows.
        """
        total, start = self.tokens(), self.first or 0
        if not 1 <= count <= total:
            raise InputError(f"{self.where}: {count} windows of {total} tokens; give 1 to {total}")
        edges = [start + total * index // count for index in range(count + 1)]
        return [replace(self, first=a, last=b) for a, b in pairwise(edges)]

    def table(self) -> NDArray[Any]:
        """Return a table of counts whole; raises FormatError if it is larger than any real one."""
        rows: list[NDArray[Any]] = []
        size = 0
        for part in self._reader().rows(1 << 20):
            size += part.nbytes
            if size > MOST_COUNT_BYTES:
                raise FormatError(f"{self.where}: counts of more than {MOST_COUNT_BYTES >> 20} MiB")
            rows.append(part)
        return np.concatenate(rows)

    @property
    def where(self) -> str:
        """What messages call it."""
        return f"trace {self.path}" if self.array is None else f"trace {self.path} [{self.array}]"

    def _reader(self) -> ArrayReader | JsonReader | CsvReader:
        suffix = self.path.suffix.lower()
        if suffix in {".npy", ".npz"}:
            return ArrayReader(self.path, self.array)
        return CsvReader(self.path) if suffix in {".csv", ".tsv"} else JsonReader(self.path, self.shape)

    def _ids(self, chunk_tokens: int) -> Iterator[NDArray[np.int64]]:
        """Yield all tokens as logged, ``[tokens, layers, k]``."""
        for chunk in self._reader().rows(chunk_tokens):
            if chunk.dtype.kind not in "iu":
                raise FormatError(f"{self.where}: entries of type {chunk.dtype}; expected whole numbers (expert ids)")
            ids = signed(chunk)
            if ids.dtype.kind == "u" and ids.dtype.itemsize == 8 and int(ids.max()) >= 2**63:
                raise InputError(f"{self.where}: names expert {int(ids.max())}, which is no expert id")
            yield (ids[:, :, None] if ids.ndim == 2 else ids).astype(np.int64)


def open_trace(
    path: Path | str,
    array: str | None = None,
    *,
    kind: str | None = None,
    dense: Sequence[int] = (),
    shape: tuple[int, int] | None = None,
) -> Trace:
    """Find a trace on disk.

    Parameters
    ----------
    path
        ``.npy``, ``.npz``, JSON (``.json``, ``.jsonl``, ``.ndjson``), or ``.csv``.
    array
        Array of an archive; without it ``profile`` where it exists, or the only array that has the shape of a trace.
    kind
        What the file is (``trace``, ``load``, ``transitions``), where its content can be two things.
    dense
        Layers that have no experts, where the trace logs something there, or leaves them out.
    shape
        Layers and experts per token, for base64 texts that do not say.

    Raises
    ------
    InputError
        If the file, or the array in it, does not exist or the kind of file is not known.
    """
    target = Path(path)
    if kind is not None and kind not in surveys.KINDS:
        raise InputError(f"trace {target}: kind {kind!r}; expected one of {', '.join(surveys.KINDS)}")
    open_regular(target, "trace").close()
    suffix = target.suffix.lower()
    declared = tuple(sorted(set(dense)))
    if shape is not None and suffix in SUFFIXES and not suffix.startswith((".json", ".nd")):
        raise InputError(f"trace {target}: layers and experts per token are for base64 texts; {suffix} has a shape")
    if suffix == ".npz":
        return Trace(target, _choose_array(target, array), kind=kind, dense=declared, shape=shape)
    if array is not None:
        raise InputError(f"trace {target}: only .npz archives hold named arrays; name none (not {array})")
    if suffix in {".pt", ".pth"}:
        raise InputError(
            f"trace {target}: a PyTorch file, which cosma does not unpack; save what it holds with numpy.save, for "
            "SGLang's recorder torch.load(...)['logical_count'].numpy()"
        )
    if suffix not in SUFFIXES:
        raise InputError(f"trace {target}: unknown kind {suffix!r}; expected {', '.join(SUFFIXES)}")
    return Trace(target, kind=kind, dense=declared, shape=shape)


def survey(trace: Trace, experts: int | None = None) -> Survey:
    """Find out what a file holds, reading it once; the range of tokens does not matter.

    Raises InputError if it is empty, can be two things, or names an impossible expert.

    Parameters
    ----------
    experts
        Experts per layer, where the caller knows.
    """
    try:
        stamp = trace.path.stat()
    except OSError as error:
        raise InputError(f"{trace.where}: cannot be read ({error.strerror or error})") from error
    declared = experts if experts is not None else _declared_experts(trace)
    return _surveyed(replace(trace, first=None, last=None), declared, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=16)
def _surveyed(trace: Trace, experts: int | None, _changed: int, _size: int) -> Survey:
    reader = trace._reader()
    names = reader.layer_ids
    kind = trace.kind or reader.kind
    chunks = reader.rows(CHUNK_TOKENS)
    first = next(chunks, None)
    if first is None:
        raise InputError(f"{trace.where}: no tokens; a trace needs at least one token to place experts by")
    shape = reader.header()[0] if isinstance(reader, ArrayReader) else None
    rows = shape[0] if shape is not None else first.shape[0]
    name = trace.array or trace.path.stem
    if kind is None:
        kind = surveys.kind_of(signed(first), rows, name, trace.where)
    elif kind == surveys.LOAD and first.ndim == 3:
        kind = surveys.LOAD_BY_STEP
    if kind != surveys.TRACE:
        return surveys.of_table(trace.table(), kind, names)
    gathered = surveys.Gatherer(trace.where)
    for chunk in trace._ids(CHUNK_TOKENS):
        gathered.add(chunk)
    whole = shape if shape is not None else (gathered.tokens, *first.shape[1:])
    return gathered.survey(whole, trace.dense, names, experts)


def read_affinity(trace: Trace, experts: int | None = None) -> Affinity:
    """Aggregate a trace; counts are taken as they are.

    Transitions ``[layers - 1, experts, experts]`` give affinity and load; a table of load, by step or not, gives load
    alone.

    Parameters
    ----------
    trace
        The trace, whole or a range of its tokens.
    experts
        Experts per layer; None takes it from the archive's ``meta``, or one more than the largest id seen.
        Give it when the last experts of the model may never occur.

    Raises
    ------
    InputError
        If the trace is empty or names an impossible expert, or a part of counts is asked for.
    """
    found = survey(trace, experts)
    if found.kind != surveys.TRACE:
        if trace.first is not None or trace.last is not None:
            raise InputError(f"{trace.where}: counts hold no single tokens; a part of them cannot be held out")
        table = trace.table()
        if found.kind == surveys.TRANSITIONS:
            return Affinity.from_counts(table)
        load = table.sum(axis=0) if found.kind == surveys.LOAD_BY_STEP else table
        return Affinity.from_load(load[[layer for layer in range(len(load)) if layer not in found.dense]], experts)
    return Affinity.from_chunks(trace.chunks(), experts_of(trace, experts))


def experts_of(trace: Trace, experts: int | None = None) -> int:
    """Return the experts per layer: those given, else those an archive's ``meta`` declares, else one past the largest.

    Raises InputError if the file holds counts, or names an impossible expert.
    """
    found = survey(trace, experts)
    if found.kind != surveys.TRACE:
        raise InputError(f"{trace.where}: holds counts ({found.kind}), which have no single tokens")
    declared = experts if experts is not None else _declared_experts(trace)
    return declared if declared is not None else found.experts


def is_counts(trace: Trace) -> bool:
    """Say whether a file holds counts, not tokens."""
    return survey(trace).kind != surveys.TRACE


def _fitted(ids: NDArray[np.int64], keep: NDArray[np.int64], top_k: int) -> NDArray[np.int64]:
    """Leave dense layers out and bring all chunks to one k; experts come before -1."""
    if len(keep) != ids.shape[1]:
        ids = ids[:, keep]
    if ids.shape[2] > top_k:
        # Wider than any token needs: move the experts to the front, in order.
        order = np.argsort(ids < 0, axis=2, kind="stable")
        ids = np.take_along_axis(ids, order, axis=2)[:, :, :top_k]
    elif ids.shape[2] < top_k:
        fill = np.full((*ids.shape[:2], top_k - ids.shape[2]), -1, dtype=np.int64)
        ids = np.concatenate([ids, fill], axis=2)
    return ids


def _choose_array(path: Path, array: str | None) -> str:
    names = array_names(path)
    if array is not None:
        if array not in names:
            raise InputError(f"trace {path}: no array {array!r}; it holds {', '.join(sorted(names))}")
        return array
    if DEFAULT_ARRAY in names:
        return DEFAULT_ARRAY
    fitting = []
    for name in names:
        try:
            ArrayReader(path, name).header()
        except FormatError:
            continue
        fitting.append(name)
    if len(fitting) != 1:
        raise InputError(
            f"trace {path}: holds {', '.join(sorted(names)) or 'no arrays'}; choose the array (none is called profile)"
        )
    return fitting[0]


def _declared_experts(trace: Trace) -> int | None:
    if trace.path.suffix.lower() != ".npz":
        return None
    text = read_text_array(trace.path, "meta")
    if text is None:
        return None
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"trace {trace.path}: its meta entry is not JSON text ({error})") from error
    experts = meta.get("experts") if isinstance(meta, dict) else None
    return experts if isinstance(experts, int) and not isinstance(experts, bool) and experts > 0 else None
