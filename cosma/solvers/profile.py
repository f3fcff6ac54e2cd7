"""Profiles: which back end, with which settings. One commented TOML file each, in ``solvers/``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cosma.errors import FormatError, InputError
from cosma.files import read_toml
from cosma.text import did_you_mean

#: Back ends by the name a profile uses, with their modules.
BACK_ENDS: dict[str, str] = {
    "cp-sat": "cosma.solvers.cp_sat",
    "highs": "cosma.solvers.math_opt",
    "scip": "cosma.solvers.math_opt",
    "cbc": "cosma.solvers.pulp_",
    "gurobi": "cosma.solvers.pulp_",
    "cplex": "cosma.solvers.pulp_",
    "xpress": "cosma.solvers.pulp_",
}

_KEYS = {"back_end", "threads", "seed", "gap", "time_limit_s", "work_limit", "memory_limit_bytes", "options", "about"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A back end and its settings."""

    #: Its name in reports.
    name: str
    #: A key of :data:`BACK_ENDS`.
    back_end: str
    #: Workers, start of pseudo-random choices, relative gap at which to stop.
    threads: int = 1
    seed: int = 0
    gap: float = 0.0
    #: Limits where the caller sets none; None for no limit. Work is deterministic seconds for CP-SAT and nodes for the
    #: others.
    time_limit_s: float | None = None
    work_limit: float | None = None
    memory_limit_bytes: int | None = None
    #: Parameters of the back end itself, by its own names.
    options: dict[str, Any] = field(default_factory=dict)
    #: One sentence for lists.
    about: str = ""

    def __post_init__(self) -> None:
        if self.back_end not in BACK_ENDS:
            raise InputError(
                f"solver profile {self.name!r}: back_end {self.back_end!r} is unknown; "
                f"choose one of {', '.join(BACK_ENDS)}"
            )
        if not isinstance(self.threads, int) or self.threads < 1:
            raise InputError(f"solver profile {self.name!r}: threads must be at least 1, not {self.threads!r}")
        if not 0 <= self.gap < 1:
            raise InputError(f"solver profile {self.name!r}: gap must be within [0, 1), not {self.gap!r}")
        for name in ("time_limit_s", "work_limit", "memory_limit_bytes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"solver profile {self.name!r}: {name} must be more than 0, not {value!r}")


#: CP-SAT with one worker, so that the same input gives the same decisions.
EXACT_PROFILE = Profile(
    name="exact", back_end="cp-sat", options={"linearization_level": 2, "cp_model_probing_level": 0}
)

#: Branch-and-bound nodes that back ends other than CP-SAT get for each nominal second of work.
NODES_PER_SECOND = 1_000.0


def work_units(profile: Profile, seconds: float | None) -> float | None:
    """Turn nominal seconds into the work of a back end: deterministic seconds for CP-SAT, nodes for the others."""
    if seconds is None or profile.back_end == "cp-sat":
        return seconds
    return max(1.0, seconds * NODES_PER_SECOND)


def profile_folder() -> Path | None:
    """Folder of the shipped profiles: inside an installed package, at the root of a checkout; None if there is none."""
    room = Path(__file__).resolve().parent
    return next((folder for folder in (room / "profiles", room.parents[1] / "solvers") if folder.is_dir()), None)


def list_profiles() -> list[str]:
    """Names that :func:`load_profile` knows: back ends, and shipped files."""
    folder = profile_folder()
    files = sorted(path.stem for path in folder.glob("*.toml")) if folder else []
    return sorted({*BACK_ENDS, *files})


def load_profile(name: str) -> Profile:
    """Find a profile by name, or read one from a file; raises InputError if there is no such profile, or it is wrong.

    Parameters
    ----------
    name
        A back end, a file of ``solvers/`` without its ending, or the path of a ``.toml`` file.
    """
    if name.endswith(".toml"):
        return _read(Path(name))
    folder = profile_folder()
    if folder is not None and (folder / f"{name}.toml").is_file() and "/" not in name:
        return _read(folder / f"{name}.toml")
    if name in BACK_ENDS:
        return Profile(name=name, back_end=name)
    raise InputError(f"solver {name!r} is unknown; choose one of {', '.join(list_profiles())}, or give FILE.toml")


def _read(path: Path) -> Profile:
    content = read_toml(path, "solver profile", FormatError)
    unknown = sorted(set(content) - _KEYS)
    if unknown:
        raise FormatError(
            f"solver profile {path}: unknown key {unknown[0]!r}; known: {', '.join(sorted(_KEYS))}"
            f"{did_you_mean(unknown[0], _KEYS)}"
        )
    if not isinstance(content.get("back_end"), str):
        raise FormatError(f"solver profile {path}: back_end is missing; choose one of {', '.join(BACK_ENDS)}")
    try:
        return Profile(name=path.stem, **content)
    except TypeError as error:
        raise FormatError(f"solver profile {path}: {error}") from error
