"""Traces in JSON: lines, one array, and the responses of serving systems, base64 included.

A bare list is one token, ``[layers]`` or ``[layers][k]``. A document that is one list holds all tokens,
``[tokens][layers]`` or ``[tokens][layers][k]``. An object carries one token, or several as ``[tokens][layers][k]``,
under one of ``JSON_KEYS``, at any depth: ``choices[].routed_experts``, ``meta_info.routed_experts`` and the like are
found. A base64 text is a NumPy file (vLLM), or bare int32 numbers (SGLang) whose shape somebody must give.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.errors import FormatError, InputError
from cosma.files import open_regular, read_bytes
from cosma.placement.trace_arrays import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

#: Keys under which routing is logged, in the order in which one object's arrays are read.
JSON_KEYS = ("prompt_routed_experts", "routed_experts", "experts", "expert_ids", "topk_ids", "topk_idx")
#: Keys under which counts per layer and expert are logged (``logical_count`` is SGLang's).
COUNT_KEYS = ("logical_count", "expert_load", "expert_counts", "load", "counts")
#: Keys of placements, which are no traces.
_MAP_KEYS = ("physical_to_logical_map", "layer_list", "placement")
#: Largest file that is read as one JSON document; lists of numbers take about ten times their text in memory.
_MOST_DOCUMENT_BYTES = 128 << 20
#: Objects inside objects that are searched for a key.
_DEEPEST = 12


@dataclass(frozen=True, slots=True)
class JsonReader:
    """A ``.json`` or ``.jsonl`` file."""

    #: The file.
    path: Path
    #: Layers and experts per token, for base64 texts that do not say; None where nobody said.
    shape: tuple[int, int] | None = None

    @property
    def kind(self) -> str | None:
        """``load`` or ``trace`` where a key says what the numbers are, else None."""
        document = self._document() if self.path.suffix.lower() == ".json" else None
        if document is None:
            with open_regular(self.path, "trace") as stream:
                return "trace" if stream.readline(CHUNK_BYTES).lstrip()[:1] == b"{" else None
        if isinstance(document, dict):
            return "trace" if _count_key(document) is None else "load"
        return "trace" if isinstance(document, list) and document and isinstance(document[0], dict) else None

    @property
    def layer_ids(self) -> tuple[int, ...] | None:
        """None: layers have no names but their order."""
        return None

    def rows(self, most: int) -> Iterator[NDArray[Any]]:
        """Yield tokens as ``[tokens, layers]`` or ``[tokens, layers, k]``; -1 where a token has fewer experts."""
        document = self._document() if self.path.suffix.lower() == ".json" else None
        if document is None:
            yield from self._gathered(self._lines(), most)
            return
        if isinstance(document, dict) and (key := _count_key(document)) is not None:
            yield _regular(document[key], f"trace {self.path}, {key}")
            return
        tokens = self._array(document) if isinstance(document, list) else self._record(document, f"trace {self.path}")
        yield from self._gathered(iter([(1, tokens)]), most)

    def _document(self) -> Any:
        """Return the file as one JSON document, or None where it is one document per line."""
        try:
            stamp = self.path.stat()
        except OSError as error:
            raise InputError(f"trace {self.path}: cannot be read ({error.strerror or error})") from error
        return None if stamp.st_size > _MOST_DOCUMENT_BYTES else _whole_document(self.path, stamp.st_mtime_ns)

    def _lines(self) -> Iterator[tuple[int, list[Any]]]:
        with open_regular(self.path, "trace") as stream:
            number = 0
            while line := stream.readline(CHUNK_BYTES):
                number += 1
                if len(line) == CHUNK_BYTES:
                    raise FormatError(f"trace {self.path}, line {number}: more than {CHUNK_BYTES >> 20} MiB")
                if not line.strip():
                    continue
                where = f"trace {self.path}, line {number}"
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise FormatError(f"{where}: not JSON ({error}); expected one record per line") from error
                yield number, self._record(record, where)

    def _array(self, document: list[Any]) -> list[Any]:
        """Return the tokens of a document that is one list: of tokens, or of responses."""
        where = f"trace {self.path}"
        if document and isinstance(document[0], dict):
            return [token for at, record in enumerate(document) for token in self._record(record, f"{where}, [{at}]")]
        depth = _depth(document)
        if depth not in {2, 3}:
            said = f"lists nested {depth} deep" if depth > 2 or any(document) else "no numbers"
            raise FormatError(
                f"{where}: {said}; expected [tokens][layers] or [tokens][layers][k] in one array"
            )
        return document

    def _record(self, record: Any, where: str) -> list[Any]:
        """Return the tokens of one record."""
        if isinstance(record, dict):
            found = list(_values(record, 0))
            if not found:
                if any(key in record for key in _MAP_KEYS):
                    raise FormatError(f"{where}: a placement, not a trace; it can be scored on a trace")
                if str(record.get("format")).startswith("cosma-"):
                    raise FormatError(f"{where}: is a {record['format']} file, not a trace")
                raise FormatError(f"{where}: none of the keys {', '.join(JSON_KEYS)}")
            return [token for holder, value in found for token in self._tokens(value, holder, where)]
        if isinstance(record, list) and _depth(record) in {1, 2}:
            return [record]
        if isinstance(record, list) and _depth(record) == 3:
            return list(record)
        depth = _depth(record) if isinstance(record, list) else 0
        raise FormatError(f"{where}: {depth} levels of lists; expected [layers] or [layers][k]")

    def _tokens(self, value: Any, holder: dict[str, Any], where: str) -> list[Any]:
        if value is None:
            return []
        if isinstance(value, dict) and isinstance(value.get("data"), str):
            return list(self._decoded(value["data"], value, where))
        if isinstance(value, str):
            return list(self._decoded(value, holder, where))
        if not isinstance(value, list):
            raise FormatError(f"{where}: routing is a {type(value).__name__}; expected lists or a base64 text")
        depth = _depth(value)
        if depth in {1, 2}:
            return [value] if value else []
        if depth == 3:
            return list(value)
        raise FormatError(f"{where}: {depth} levels of lists; expected [layers], [layers][k] or [tokens][layers][k]")

    def _decoded(self, text: str, holder: dict[str, Any], where: str) -> NDArray[Any]:
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise FormatError(f"{where}: routing is a text that is not base64 ({error})") from error
        if data[:6] == b"\x93NUMPY":
            try:
                array = np.load(io.BytesIO(data), allow_pickle=False)
            except Exception as error:
                raise FormatError(f"{where}: the base64 text is a damaged NumPy file ({error})") from error
        else:
            array = self._bare(data, holder, where)
        if array.ndim not in {2, 3} or array.dtype.kind not in "iu":
            raise FormatError(
                f"{where}: the base64 text holds {array.dtype} of shape {array.shape}; expected whole numbers "
                "[tokens, layers] or [tokens, layers, k]"
            )
        return signed(array)

    def _bare(self, data: bytes, holder: dict[str, Any], where: str) -> NDArray[Any]:
        """Return numbers without a header; their shape stands beside them or was given."""
        shape = holder.get("shape")
        try:
            dtype = np.dtype(str(holder.get("dtype", "int32")))
            given = tuple(int(size) for size in shape) if isinstance(shape, list) else self.shape
        except (TypeError, ValueError) as error:
            raise FormatError(f"{where}: shape or dtype beside the base64 text cannot be read ({error})") from error
        if given is None:
            raise InputError(
                f"{where}: the base64 text is {len(data) // 4} bare numbers (as SGLang returns them) without a shape; "
                "say how many layers and how many experts per token they have"
            )
        if len(given) == 2:
            given = (-1, *given)
        row = math.prod(given[1:]) * dtype.itemsize
        if dtype.kind not in "iu" or min(given[1:]) < 1 or row == 0 or len(data) % row:
            raise FormatError(f"{where}: {len(data)} bytes of {dtype} are no whole tokens of shape {given[1:]}")
        return np.frombuffer(data, dtype=dtype).reshape(-1, *given[1:])

    def _gathered(self, records: Iterator[tuple[int, list[Any]]], most: int) -> Iterator[NDArray[Any]]:
        waiting: list[Any] = []
        number, seen = 0, 0
        for number, tokens in records:
            waiting.extend(tokens)
            while len(waiting) >= most:
                yield _padded(waiting[:most], f"trace {self.path}, up to line {number}")
                seen += most
                waiting = waiting[most:]
        if waiting:
            yield _padded(waiting, f"trace {self.path}, up to line {number}")
        elif number and not seen:
            raise FormatError(f"trace {self.path}: no tokens; none of its {number} records carries routing (all null)")


@lru_cache(maxsize=1)
def _whole_document(path: Path, _changed: int) -> Any:
    """Return a file as one JSON document, or None where it holds several; passes over one trace share it."""
    try:
        return json.loads(read_bytes(path, "trace"))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return None
        raise FormatError(f"trace {path}: not JSON ({error})") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"trace {path}: not JSON ({error})") from error


def signed(array: NDArray[Any]) -> NDArray[Any]:
    """Return ids in which "no expert" is -1: the largest number of an unsigned type of 16 bits or more means it too."""
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        none = array == np.iinfo(array.dtype).max
        if none.any():
            return np.where(none, -1, array.astype(np.int64))
    return array


def _values(record: dict[str, Any], level: int) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield (object, value) for every key of routing in an object and the objects in it."""
    for key in JSON_KEYS:
        if key in record:
            yield record, record[key]
    if level == _DEEPEST:
        return
    for key, value in record.items():
        if key in JSON_KEYS:
            continue
        inner = value if isinstance(value, list) else [value]
        for item in inner:
            if isinstance(item, dict):
                yield from _values(item, level + 1)


def _count_key(record: dict[str, Any]) -> str | None:
    return next((key for key in COUNT_KEYS if isinstance(record.get(key), list)), None)


def _depth(value: Any) -> int:
    """Return how many lists lie in one another, by the first entry that is not empty."""
    depth = 0
    while isinstance(value, list):
        depth += 1
        value = next((item for item in value if item not in (None, [])), None)
    return depth


def _regular(value: list[Any], where: str) -> NDArray[Any]:
    try:
        array = np.array(value)
    except (ValueError, OverflowError) as error:
        raise FormatError(f"{where}: rows differ in length, or a number is too large") from error
    if array.dtype.kind not in "iuf" or array.ndim not in {2, 3}:
        raise FormatError(f"{where}: {array.dtype} of shape {array.shape}; expected [layers][experts] of counts")
    return array


def _padded(tokens: list[Any], where: str) -> NDArray[Any]:
    """Return tokens as one array; where they use different numbers of experts, -1 fills up."""
    try:
        array = np.array(tokens)
    except (ValueError, OverflowError):
        array = np.empty(0, dtype=object)
    if array.dtype.kind in "iu" and array.ndim in {2, 3} and array.size:
        return array
    return _ragged(tokens, where)


def _ragged(tokens: list[Any], where: str) -> NDArray[Any]:
    for token in tokens:
        if not isinstance(token, list | np.ndarray):
            raise FormatError(f"{where}: a token is {str(token)[:40]!r}; expected a list of layers")
    layers = len(tokens[0])
    most = 1
    for token in tokens:
        if len(token) != layers:
            raise FormatError(f"{where}: ragged (tokens have {layers} and {len(token)} layers)")
        most = max([most, *(len(chosen) for chosen in token if isinstance(chosen, (list, np.ndarray)))])
    if most * layers > CHUNK_BYTES // 8:
        raise FormatError(f"{where}: a token with {most} experts in one of {layers} layers")
    array = np.full((len(tokens), layers, most), -1, dtype=np.int64)
    for row, token in enumerate(tokens):
        for layer, chosen in enumerate(token):
            several = isinstance(chosen, (list, np.ndarray))
            for place, expert in enumerate(chosen if several else [chosen]):
                array[row, layer, place] = _whole(expert, where)
    return array


def _whole(expert: Any, where: str) -> int:
    if expert is None:
        return -1
    if isinstance(expert, (bool, np.bool_)) or not isinstance(expert, (int, np.integer)):
        raise FormatError(f"{where}: an entry is {str(expert)[:40]!r}; expected whole expert ids")
    if not -(2**62) < int(expert) < 2**62:
        raise FormatError(f"{where}: {expert} is no expert id")
    return int(expert)
