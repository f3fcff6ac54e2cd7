"""The models of an experiment: files, patterns, and names from the zoo."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from cosma.errors import InputError
from cosma.files import read_bytes

#: What a folder of models is known by.
MANIFEST = "manifest.toml"
_ENDINGS = (".onnx", ".json")


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model as an experiment lists it, where a path is not enough."""

    path: str
    name: str | None = None
    group: str | None = None
    dims: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file that is there, and its hash."""

    #: What tables call it, and what they group it under.
    name: str
    group: str
    #: The file (absolute) and the SHA-256 of its bytes.
    path: Path
    sha256: str
    #: Values for its symbolic dimensions.
    dims: dict[str, int]


def find_models(
    entries: list[str | ModelSpec], exclude: list[str], folder: Path, zoo: str | None = None
) -> tuple[ModelFile, ...]:
    """Resolve what an experiment lists under ``models``.

    Entries are paths and patterns (``nets/*.onnx``, ``**`` for any depth) relative to ``folder``, where the experiment
    file lies; ``zoo`` for the whole zoo and ``zoo:PATTERN`` for its models of that name. The zoo's folder is relative
    to ``folder``, too; by default the nearest ``models`` folder above that has a manifest. Raises InputError if an
    entry matches nothing, or two files would have the same name.
    """
    found: dict[str, ModelFile] = {}
    for entry in entries:
        spec = ModelSpec(path=entry) if isinstance(entry, str) else entry
        matches = _zoo_files(spec.path, folder, zoo) if _is_zoo(spec.path) else _files(spec.path, folder)
        if not matches:
            raise InputError(f"models: {spec.path!r} matches no .onnx or .json file under {folder}")
        if len(matches) > 1 and spec.name is not None:
            raise InputError(f"models: {spec.path!r} matches {len(matches)} files; a name is for one")
        for path, group in matches:
            name = spec.name or path.stem
            if any(fnmatchcase(name, pattern) for pattern in exclude):
                continue
            model = ModelFile(name, spec.group or group, path, _sha256(path), dict(spec.dims))
            known = found.setdefault(name, model)
            if known.path != model.path or known.dims != model.dims:
                raise InputError(
                    f"models: {known.path} and {model.path} are both called {name!r}; "
                    "give one of them a name: models = [{ path = ..., name = ... }]"
                )
    if not found:
        raise InputError("models: nothing is left after exclude")
    return tuple(found.values())


def zoo_folder(folder: Path, zoo: str | None) -> Path:
    """Find the zoo: the folder named, or the nearest ``models`` with a manifest above ``folder``.

    Raises InputError if there is none.
    """
    if zoo is not None:
        if not (folder / zoo / MANIFEST).is_file():
            raise InputError(f"zoo: {folder / zoo} has no {MANIFEST}")
        return (folder / zoo).resolve()
    for above in (folder.resolve(), *folder.resolve().parents):
        if (above / "models" / MANIFEST).is_file():
            return above / "models"
    raise InputError(f"models: no zoo: no models/{MANIFEST} in {folder.resolve()} or above; say where with zoo = PATH")


def _is_zoo(pattern: str) -> bool:
    return pattern == "zoo" or pattern.startswith("zoo:")


def _zoo_files(pattern: str, folder: Path, zoo: str | None) -> list[tuple[Path, str]]:
    root = zoo_folder(folder, zoo)
    wanted = pattern.partition(":")[2] or "*"
    try:
        listed = tomllib.loads(read_bytes(root / MANIFEST, "zoo manifest").decode("utf-8"))["model"]
        paths = [root / "zoo" / entry["file"] for entry in listed]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{root / MANIFEST}: not a manifest of [[model]] tables with a file each: {error}") from error
    return sorted((path, "zoo") for path in paths if fnmatchcase(path.stem, wanted))


def _files(pattern: str, folder: Path) -> list[tuple[Path, str]]:
    path = Path(pattern)
    if not any(mark in pattern for mark in "*?["):
        path = folder / path
        return [(path.resolve(), path.resolve().parent.name)]
    root, relative = folder, pattern
    if path.is_absolute():
        root, relative = Path(path.anchor), str(path.relative_to(path.anchor))
    # Path.glob takes no "..", so climb first.
    while relative.startswith("../"):
        root, relative = root / "..", relative[3:]
    hits = (hit.resolve() for hit in root.glob(relative))
    return sorted((hit, hit.parent.name) for hit in hits if hit.suffix in _ENDINGS and hit.is_file())


def _sha256(path: Path) -> str:
    return hashlib.sha256(read_bytes(path, "model")).hexdigest()
