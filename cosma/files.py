"""Files written whole or not at all, and read only where they are files.

Every output of every command goes through :func:`write_atomic`, every input through :func:`open_regular`.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from cosma.errors import InputError
from cosma.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection

#: Largest file that is read whole, in bytes. A plan of 100,000 operators has about 100 MB.
READ_LIMIT = 2**30
#: Bytes read at a time: a file that lies about its size reserves no more.
_PIECE_BYTES = 2**20
#: Names of files are like each other where three letters of four agree; endings alone make half of them.
_LIKE = 0.75
#: Bytes looked at to tell what a file is.
_HEAD = 400
_OURS = re.compile(rb'\s*\{\s*"format"\s*:\s*"(cosma-[a-z-]+)"')
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self|proc/[0-9]+)/fd/([0-9]+)")
_STANDARD = {"-": 1, "/dev/stdout": 1, "/dev/stderr": 2}
#: Links followed before a path is taken for a loop, as in Linux.
_MOST_LINKS = 40
_partial: set[str] = set()


def write_atomic(path: Path | str, content: str | bytes) -> None:
    """Write text (as UTF-8) or bytes where a name says: a file whole or not at all, anything else through.

    ``-`` and ``/dev/stdout`` are standard output. Devices and pipes are written to and stay what they are. Links are
    followed. A file is written beside its target and renamed into place, so that no reader ever sees half of it; an
    existing file keeps its permissions. Raises InputError if it cannot be written: its folder is missing, or may not be
    written to, or is full. Raises BrokenPipeError if it is standard output, and nobody reads it.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    target, descriptor = _resolve(path)
    if descriptor is not None:
        _write_descriptor(descriptor, data, path)
        return
    try:
        status = target.stat() if target.exists() else None
        if status is not None and not stat.S_ISREG(status.st_mode):
            _write_through(target, status.st_mode, data)
        else:
            _replace(target, status, data)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def check_output(path: Path | str, what: str, suffixes: Collection[str] = ()) -> None:
    """Refuse an output that cannot be written, before any work is done for it; messages call it ``what``.

    ``suffixes`` are the endings a file may have, in lower case with their dot; any where there is none. Standard
    output, devices and pipes may be called anything, and a file may have no ending. Raises InputError if the folder is
    missing or read-only, the target is a folder or read-only, or the ending is unknown.
    """
    target, descriptor = _resolve(path)
    try:
        if descriptor is not None:
            os.fstat(descriptor)
            return
        status = target.stat() if target.exists() else None
    except OSError as error:
        raise InputError(f"{what}: cannot write {path}: {error.strerror or error}") from error
    if status is not None and stat.S_ISDIR(status.st_mode):
        raise InputError(f"{what}: cannot write {path}: is a folder; name a file in it")
    if status is not None and not os.access(target, os.W_OK):
        raise InputError(f"{what}: cannot write {path}: it may not be written to")
    if status is not None and not stat.S_ISREG(status.st_mode):
        return
    suffix = Path(path).suffix.lower()
    if suffixes and suffix and suffix not in suffixes:
        raise InputError(f"{what}: cannot write {path}: unknown ending {suffix!r}; use {' or '.join(suffixes)}")
    check_folder(target.parent, f"{what}: cannot write {path}")


def check_folder(folder: Path, what: str) -> None:
    """Refuse a folder that is not there or cannot be written to; raises :class:`InputError`."""
    if not folder.is_dir():
        raise InputError(f"{what}: the folder {folder} does not exist")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{what}: the folder {folder} is read-only")


def make_folder(folder: Path | str, what: str) -> None:
    """Make a folder for outputs, with those it lies in, or say why there is none; raises :class:`InputError`."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{what}: the folder {folder} cannot be made: {error.strerror or error}") from error
    check_folder(Path(folder), what)


def is_standard_output(path: Path | str) -> bool:
    """Whether an output goes to this process's standard output."""
    return _resolve(path)[1] == 1


def open_regular(path: Path | str, what: str, error: type[InputError] = InputError) -> IO[bytes]:
    """Open a file for reading; pipes, devices and folders are refused at once, never waited for.

    Raises InputError if the file is missing, is no regular file, or may not be read; messages call it ``what``.
    """
    try:
        _check_regular(os.stat(path).st_mode, path, what, error)
        # Between the two calls the file may have become a pipe: without O_NONBLOCK, opening it would wait.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as missing:
        raise error(f"{what} {path}: no such file{_like(Path(path))}") from missing
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise error(f"{what} {path}: cannot be read: {reason}") from problem
    try:
        _check_regular(os.fstat(handle).st_mode, path, what, error)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: Path | str, what: str) -> bytes:
    """Read a whole file, or say plainly why it cannot be read.

    Raises InputError if the file is missing, is no regular file, is too large or may not be read; messages call it
    ``what``.
    """
    with open_regular(path, what) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > READ_LIMIT:
            raise InputError(f"{what} {path}: has {size} bytes; files of more than {READ_LIMIT} are not read")
        try:
            # In pieces: asking for the limit at once would reserve that much memory for the smallest file.
            pieces = []
            left = READ_LIMIT
            while piece := stream.read(min(_PIECE_BYTES, left)):
                pieces.append(piece)
                left -= len(piece)
            return b"".join(pieces)
        except OSError as error:
            raise InputError(f"{what} {path}: cannot be read: {error.strerror or error}") from error


def read_toml(path: Path | str, what: str, error: type[InputError] = InputError) -> dict[str, Any]:
    """Read a file of settings; raises InputError if it cannot be read, and ``error`` if it is not TOML."""
    return parse_toml(read_bytes(path, what), f"{what} {path}", error)


def parse_toml(data: bytes, where: str, error: type[InputError] = InputError) -> dict[str, Any]:
    """Read the text of a file of settings; raises ``error`` if it is not TOML."""
    import tomllib

    try:
        return tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise error(f"{where}: {other_than('a TOML file', data) or f'not a TOML file: {problem}'}") from problem


def other_than(wanted: str, data: bytes | str) -> str:
    """Say that a file is of another kind than wanted (with its article); empty where its first bytes tell nothing."""
    head = data[:_HEAD] if isinstance(data, bytes) else data[:_HEAD].encode("utf-8", "replace")
    ours = _OURS.match(head)
    # Field 1 of a model, which writers put first, is its version, a small number.
    model = head[:1] == b"\x08" and len(head) > 2 and head[1] < 32
    kind = f"a {ours[1].decode()} file" if ours else "an ONNX model" if model else "" if head.strip() else "empty"
    return f"is {kind}, not {wanted}" if kind and kind != wanted else ""


def remove_partial() -> None:
    """Remove what is half-written; for a process that is about to end without unwinding."""
    for name in list(_partial):
        with contextlib.suppress(OSError):
            os.unlink(name)


def _like(path: Path) -> str:
    """Names like one that is missing, in its folder; or that the folder is missing."""
    if not path.parent.is_dir():
        return f", nor a folder {path.parent}"
    try:
        return did_you_mean(path.name, os.listdir(path.parent), _LIKE)
    except OSError:  # a folder that may be entered and not listed
        return ""


def _check_regular(mode: int, path: Path | str, what: str, error: type[InputError]) -> None:
    if stat.S_ISDIR(mode):
        raise error(f"{what} {path}: is a folder, not a file")
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}
        raise error(f"{what} {path}: is {kinds.get(stat.S_IFMT(mode), 'special')}, not a regular file")


def _resolve(path: Path | str) -> tuple[Path, int | None]:
    """Follow links: the file behind a name, or the open descriptor that it stands for."""
    text = os.fspath(path)
    for _ in range(_MOST_LINKS):
        if text in _STANDARD:
            return Path(text), _STANDARD[text]
        match = _DESCRIPTOR.fullmatch(text)
        if match:
            return Path(text), int(match.group(1))
        try:
            text = os.path.join(os.path.dirname(text), os.readlink(text))
        except (OSError, ValueError):
            return Path(text), None
    raise InputError(f"cannot write {path}: too many links")


def _write_descriptor(descriptor: int, data: bytes, path: Path | str) -> None:
    try:
        if descriptor == 1 and sys.stdout is not None:
            sys.stdout.flush()
            if hasattr(sys.stdout, "buffer"):
                sys.stdout.buffer.write(data)
            else:
                sys.stdout.write(data.decode("utf-8", "replace"))
            sys.stdout.flush()
            return
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        name = "standard output" if descriptor == 1 else path
        raise InputError(f"cannot write {name}: {error.strerror or error}") from error


def _write_through(target: Path, mode: int, data: bytes) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(21, "is a folder; name a file in it")
    # No O_CREAT and no O_TRUNC: what is there is written to, nothing takes its place.
    handle = os.open(target, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(handle, left) :]
    finally:
        os.close(handle)


def _replace(target: Path, status: os.stat_result | None, data: bytes) -> None:
    mode = 0o666 & ~_umask() if status is None else stat.S_IMODE(status.st_mode)
    handle, beside = tempfile.mkstemp(prefix=f".{target.name[:40]}.partial-", dir=target.parent)
    _partial.add(beside)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if status is not None:
            with contextlib.suppress(OSError):
                os.chown(beside, status.st_uid, status.st_gid)
        os.chmod(beside, mode)
        os.replace(beside, target)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        _partial.discard(beside)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
