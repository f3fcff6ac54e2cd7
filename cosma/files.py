"""Files written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from cosma.errors import InputError


def write_atomic(path: Path | str, content: str | bytes) -> None:
    """Write a file beside its target and rename it into place, so that no reader ever sees half of it.

    Parameters
    ----------
    path
        The file to write; its folder must exist.
    content
        Text (written as UTF-8) or bytes.

    Raises
    ------
    InputError
        If the folder is missing or cannot be written to.
    """
    target = Path(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
        handle, beside = tempfile.mkstemp(prefix=f".{target.name}.partial-", dir=target.parent)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}") from error
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(beside, mode)
        os.replace(beside, target)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        if os.path.exists(beside):
            os.unlink(beside)


def read_bytes(path: Path | str, what: str) -> bytes:
    """Read a whole file, or say plainly why it cannot be read.

    Raises
    ------
    InputError
        If the file is missing, is a folder or may not be read.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{what} {path}: no such file") from error
    except IsADirectoryError as error:
        raise InputError(f"{what} {path}: is a folder, not a file") from error
    except OSError as error:
        raise InputError(f"{what} {path}: cannot be read: {error.strerror or error}") from error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
