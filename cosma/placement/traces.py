"""Routing traces in: arrays, archives, JSON lines and ready-made counts, read in chunks.

A trace is ``[tokens, layers]`` or ``[tokens, layers, k]`` of expert ids. ``open_trace`` finds out its shape without
reading it whole; ``read_affinity`` aggregates it chunk by chunk. Rows can be limited to a range of tokens, so that one
part is optimised on and another reported on.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from cosma.errors import FormatError, InputError
from cosma.files import open_regular
from cosma.placement.affinity import Affinity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

CHUNK_TOKENS = 8192
DEFAULT_ARRAY = "profile"
JSON_KEYS = ("routed_experts", "experts", "expert_ids", "topk_ids", "topk_idx")


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace on disk, not yet read.

    Attributes
    ----------
    path
        The file.
    array
        Name of the array inside an archive; None for other files.
    first, last
        Tokens used, half-open; None for open ends.
    """

    path: Path
    array: str | None = None
    first: int | None = None
    last: int | None = None

    def chunks(self, chunk_tokens: int = CHUNK_TOKENS) -> Iterator[NDArray[np.integer]]:
        """Yield the chosen tokens, at most ``chunk_tokens`` at a time, as ``[tokens, layers, k]``."""
        first, last = self.first or 0, self.last
        position = 0
        for chunk in self._all_chunks(chunk_tokens):
            begin = max(first - position, 0)
            end = chunk.shape[0] if last is None else min(last - position, chunk.shape[0])
            position += chunk.shape[0]
            if begin < end:
                part = chunk[begin:end]
                yield part[:, :, None] if part.ndim == 2 else part
            if last is not None and position >= last:
                return

    def tokens(self) -> int:
        """Return how many tokens the chosen range holds."""
        return sum(chunk.shape[0] for chunk in self.chunks())

    def split(self, holdout: float) -> tuple[Trace, Trace]:
        """Split into the first ``1 - holdout`` of the tokens, to optimise on, and the rest, to report on.

        Raises
        ------
        InputError
            If either part would be empty.
        """
        total = self.tokens()
        cut = round(total * (1.0 - holdout))
        if not 0.0 < holdout < 1.0 or cut < 1 or cut >= total:
            raise InputError(
                f"trace {self.path}: holding out {holdout} of {total} tokens leaves one part empty; "
                "choose a share between 0 and 1"
            )
        start = self.first or 0
        return (
            Trace(self.path, self.array, start, start + cut),
            Trace(self.path, self.array, start + cut, start + total),
        )

    def _all_chunks(self, chunk_tokens: int) -> Iterator[NDArray[np.integer]]:
        suffix = self.path.suffix.lower()
        if suffix == ".npy":
            with _opened(self.path) as stream:
                yield from _npy_rows(stream, str(self.path), chunk_tokens)
        elif suffix == ".npz":
            with _archive(self.path) as archive, archive.open(f"{self.array}.npy") as member:
                yield from _npy_rows(member, f"{self.path} [{self.array}]", chunk_tokens)
        else:
            yield from _json_rows(self.path, chunk_tokens)


def open_trace(path: Path | str, array: str | None = None) -> Trace:
    """Find a trace on disk.

    Parameters
    ----------
    path
        ``.npy``, ``.npz``, or JSON lines (``.jsonl``, ``.ndjson``, ``.json``).
    array
        Array of an archive; without it ``profile`` where it exists, or the only array that has the shape of a trace.

    Raises
    ------
    InputError
        If the file, or the array in it, does not exist or the kind of file is not known.
    """
    target = Path(path)
    open_regular(target, "trace").close()
    suffix = target.suffix.lower()
    if suffix == ".npz":
        return Trace(target, _choose_array(target, array))
    if array is not None:
        raise InputError(f"trace {target}: only .npz archives hold named arrays; drop --array {array}")
    if suffix not in {".npy", ".jsonl", ".ndjson", ".json"}:
        raise InputError(f"trace {target}: unknown kind {suffix!r}; expected .npy, .npz, .jsonl or .json")
    return Trace(target)


def read_affinity(trace: Trace, experts: int | None = None) -> Affinity:
    """Aggregate a trace; floating or whole-number counts ``[layers - 1, experts, experts]`` are taken as they are.

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
        If the trace is empty, ragged or names an impossible expert.
    """
    if is_counts(trace):
        if trace.first is not None or trace.last is not None:
            raise InputError(f"trace {trace.path}: counts hold no single tokens; a part of them cannot be held out")
        return Affinity.from_counts(np.concatenate(list(trace.chunks(1 << 20))))
    count = experts if experts is not None else _declared_experts(trace)
    if count is None:
        count = 1 + max((_largest(chunk) for chunk in trace.chunks()), default=-1)
        if count < 1:
            count = 1
    return Affinity.from_chunks(trace.chunks(), count)


def is_counts(trace: Trace) -> bool:
    """Say whether a file holds counts: an array named ``counts`` or ``transitions``, or a file ``*counts.npy``."""
    if trace.path.suffix.lower() == ".npz":
        return trace.array == "counts" or trace.array == "transitions"
    return trace.path.suffix.lower() == ".npy" and trace.path.stem.endswith("counts")


def _largest(chunk: NDArray[np.integer]) -> int:
    if not np.issubdtype(chunk.dtype, np.integer):
        raise InputError(f"trace: entries of type {chunk.dtype}; expected whole numbers (expert ids)")
    return int(chunk.max())


def _choose_array(path: Path, array: str | None) -> str:
    with _archive(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        if array is not None:
            if array not in names:
                raise InputError(f"trace {path}: no array {array!r}; it holds {', '.join(sorted(names))}")
            return array
        if DEFAULT_ARRAY in names:
            return DEFAULT_ARRAY
        fitting = []
        for name in names:
            with archive.open(f"{name}.npy") as member:
                shape, _, _ = _npy_header(member, f"{path} [{name}]")
            if len(shape) in {2, 3}:
                fitting.append(name)
    if len(fitting) != 1:
        raise InputError(
            f"trace {path}: holds {', '.join(sorted(names)) or 'no arrays'}; "
            "choose one with --array (none is called profile)"
        )
    return fitting[0]


def _declared_experts(trace: Trace) -> int | None:
    if trace.path.suffix.lower() != ".npz":
        return None
    with _archive(trace.path) as archive:
        if "meta.npy" not in archive.namelist():
            return None
    try:
        with np.load(trace.path, allow_pickle=False) as opened:
            meta = json.loads(str(opened["meta"]))
    except (ValueError, OSError) as error:
        raise FormatError(f"trace {trace.path}: its meta entry is not JSON text ({error})") from error
    experts = meta.get("experts") if isinstance(meta, dict) else None
    return int(experts) if isinstance(experts, int) and experts > 0 else None


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        open_regular(path, "trace").close()
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise FormatError(f"trace {path}: cannot be read as a .npz archive ({error})") from error


def _opened(path: Path) -> IO[bytes]:
    return open_regular(path, "trace")


def _npy_header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(stream)
        return np.lib.format.read_array_header_2_0(stream)
    except (ValueError, EOFError) as error:
        raise FormatError(f"trace {where}: not a NumPy array file ({error})") from error


def _npy_rows(stream: IO[bytes], where: str, chunk_tokens: int) -> Iterator[NDArray[np.integer]]:
    shape, column_major, dtype = _npy_header(stream, where)
    if dtype.hasobject:
        raise FormatError(f"trace {where}: holds Python objects, which are never unpacked; save it as whole numbers")
    if len(shape) not in {2, 3}:
        raise FormatError(f"trace {where}: shape {shape}; expected [tokens, layers] or [tokens, layers, k]")
    if column_major:
        data = stream.read()
        yield np.frombuffer(data, dtype=dtype).reshape(shape[::-1]).T
        return
    row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
    done = 0
    while done < shape[0]:
        count = min(chunk_tokens, shape[0] - done)
        data = stream.read(count * row_bytes)
        if len(data) != count * row_bytes:
            raise FormatError(f"trace {where}: ends after {done} of {shape[0]} tokens; the file is cut short")
        yield np.frombuffer(data, dtype=dtype).reshape(count, *shape[1:])
        done += count


def _json_rows(path: Path, chunk_tokens: int) -> Iterator[NDArray[np.integer]]:
    rows: list[Any] = []
    for number, record in _json_records(path):
        for token in _tokens_of(record, path, number):
            rows.append(token)
            if len(rows) == chunk_tokens:
                yield _as_array(rows, path, number)
                rows = []
    if rows:
        yield _as_array(rows, path, number)


def _json_records(path: Path) -> Iterator[tuple[int, Any]]:
    with _opened(path) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line)
            except (ValueError, UnicodeDecodeError) as error:
                raise FormatError(
                    f"trace {path}, line {number}: not JSON ({error}); expected one record per line"
                ) from error


def _tokens_of(record: Any, path: Path, number: int) -> list[Any]:
    """Return the tokens of one line.

    A bare list is one token: ``[layers]`` or ``[layers][k]``. An object carries the same under one of ``JSON_KEYS``;
    there three levels of lists are several tokens, ``[tokens][layers][k]``, as serving systems return per request.
    """
    value = record
    if isinstance(record, dict):
        key = next((key for key in JSON_KEYS if key in record), None)
        if key is None:
            raise FormatError(f"trace {path}, line {number}: none of the keys {', '.join(JSON_KEYS)}")
        value = record[key]
    depth, probe = 0, value
    while isinstance(probe, list):
        depth += 1
        probe = probe[0] if probe else None
    if depth in {1, 2}:
        return [value]
    if depth == 3 and isinstance(record, dict):
        return list(value)
    raise FormatError(f"trace {path}, line {number}: {depth} levels of lists; expected [layers] or [layers][k]")


def _as_array(rows: list[Any], path: Path, number: int) -> NDArray[np.integer]:
    try:
        array = np.array(rows)
    except ValueError as error:
        raise FormatError(
            f"trace {path}, up to line {number}: ragged (tokens differ in layers or k); "
            "every token needs the same shape"
        ) from error
    if not np.issubdtype(array.dtype, np.integer):
        raise FormatError(f"trace {path}, up to line {number}: entries are {array.dtype}; expected whole expert ids")
    return array
