"""Traces in NumPy files: ``.npy``, and arrays of ``.npz`` archives, read in chunks that stay small."""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np

import cosma.door as door
from cosma.errors import FormatError
from cosma.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

#: Most bytes read at once; a row larger than this is no row of a trace.
CHUNK_BYTES = 64 << 20
#: What a damaged file can raise inside numpy's and zipfile's readers.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, TypeError, KeyError, SyntaxError,
    OverflowError, RecursionError, MemoryError, AttributeError, RuntimeError, NotImplementedError,
    tokenize.TokenError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ArrayReader:
    """A ``.npy`` file, or one array of a ``.npz`` archive."""

    #: The file.
    path: Path
    #: Name of the array in an archive; None for a ``.npy`` file.
    member: str | None = None

    @property
    def kind(self) -> str | None:
        """None: the form does not say what the numbers are."""
        return None

    @property
    def layer_ids(self) -> tuple[int, ...] | None:
        """None: layers have no names but their order."""
        return None

    def header(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return shape and type of the array, checked.

        Raises
        ------
        FormatError
            If the file is no array, or the array cannot be a table of whole numbers.
        """
        with self._stream() as stream:
            shape, _, dtype = self._header(stream)
        return shape, dtype

    def rows(self, most: int) -> Iterator[NDArray[Any]]:
        """Yield the array, at most ``most`` rows and ``CHUNK_BYTES`` bytes at a time."""
        with self._stream() as stream:
            shape, column_major, dtype = self._header(stream)
            row_bytes = math.prod(shape[1:]) * dtype.itemsize
            if column_major and len(shape) > 1:
                yield from self._column_major(stream, shape, dtype, most)
                return
            step = max(1, min(most, CHUNK_BYTES // row_bytes))
            done = 0
            while done < shape[0]:
                count = min(step, shape[0] - done)
                data = self._read(stream, count * row_bytes)
                if len(data) != count * row_bytes:
                    raise FormatError(
                        f"{self.where}: ends after {done + len(data) // row_bytes} of {shape[0]} rows; "
                        "the file is cut short"
                    )
                yield np.frombuffer(data, dtype=dtype).reshape(count, *shape[1:])
                done += count

    @property
    def where(self) -> str:
        """What messages call it."""
        return f"trace {self.path}" if self.member is None else f"trace {self.path} [{self.member}]"

    def _column_major(
        self, stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], most: int
    ) -> Iterator[NDArray[Any]]:
        """Yield an array stored by columns, which has to be read whole."""
        wanted = math.prod(shape) * dtype.itemsize
        parts: list[bytes] = []
        have = 0
        while have < wanted:
            part = self._read(stream, min(CHUNK_BYTES, wanted - have))
            if not part:
                raise FormatError(f"{self.where}: ends after {have} of {wanted} bytes; the file is cut short")
            parts.append(part)
            have += len(part)
        whole = np.frombuffer(b"".join(parts), dtype=dtype).reshape(shape[::-1]).T
        for first in range(0, shape[0], most):
            yield whole[first : first + most]

    def _read(self, stream: IO[bytes], count: int) -> bytes:
        try:
            return stream.read(count)
        except (*_DAMAGE, OSError) as error:
            raise FormatError(f"{self.where}: the data are damaged ({error}); write or copy the file again") from error

    @contextmanager
    def _stream(self) -> Iterator[IO[bytes]]:
        if self.member is None:
            with open_regular(self.path, "trace") as stream:
                yield stream
            return
        with open_archive(self.path) as archive:
            try:
                inner = archive.open(f"{self.member}.npy")
            except (*_DAMAGE, OSError) as error:
                raise FormatError(f"{self.where}: the archive is damaged ({error})") from error
            with inner:
                yield inner

    def _header(self, stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        try:
            version = np.lib.format.read_magic(stream)
            # Version 3 differs from 2 only in the names of fields, which no trace has.
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, column_major, dtype = read(stream)
        except (*_DAMAGE, OSError) as error:
            raise FormatError(f"{self.where}: not a NumPy array file ({door.shown(error)})") from error
        if dtype.hasobject:
            raise FormatError(f"{self.where}: holds Python objects, which are never unpacked; save whole numbers")
        if dtype.kind not in "iuf":
            raise FormatError(f"{self.where}: entries of type {dtype}; expected whole numbers (expert ids, or counts)")
        if len(shape) not in {2, 3}:
            raise FormatError(
                f"{self.where}: shape {shape}; expected [tokens, layers] or [tokens, layers, k] of expert ids, or "
                "[layers, experts] of counts"
            )
        if min(shape) == 0:
            names = ("tokens", "layers", "experts per token and layer (k = 0)")
            raise FormatError(f"{self.where}: shape {shape} has no {names[shape.index(0)]}; there is nothing to read")
        if math.prod(shape[1:]) * dtype.itemsize > CHUNK_BYTES:
            raise FormatError(f"{self.where}: shape {shape}: a row has more than {CHUNK_BYTES >> 20} MiB")
        return shape, column_major, dtype


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open a ``.npz`` archive; raises FormatError if it is none."""
    open_regular(path, "trace").close()
    try:
        return zipfile.ZipFile(path)
    except (*_DAMAGE, OSError) as error:
        raise FormatError(f"trace {path}: cannot be read as a .npz archive ({error})") from error


def array_names(path: Path) -> list[str]:
    """Return the names of an archive's arrays."""
    with open_archive(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def read_text_array(path: Path, name: str) -> str | None:
    """Return an array of an archive that holds a text, or None where it has no such array.

    Raises FormatError if the array is damaged.
    """
    if name not in array_names(path):
        return None
    try:
        with np.load(path, allow_pickle=False) as opened:
            return str(opened[name])
    except (*_DAMAGE, OSError) as error:
        raise FormatError(f"trace {path} [{name}]: cannot be read ({error})") from error
