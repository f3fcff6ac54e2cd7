"""Models as files for other solvers: .mps and .lp (linear models), .pb and .pbtxt (CP-SAT, any model)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cosma.errors import InputError
from cosma.files import write_atomic

if TYPE_CHECKING:
    from cosma.solvers.model import Model

_LINEAR = (".mps", ".lp")
_CP_SAT = (".pb", ".pbtxt")


def export_model(model: Model, path: Path | str) -> None:
    """Write a model; its ending says in which format.

    The objective in the file is in units of ``model.objective_granule`` bytes and lacks ``model.offset``.
    Variables and rows are named after their families. Raises InputError if the ending is unknown, the format cannot
    hold the model, or the file cannot be written.
    """
    target = Path(path)
    ending = target.suffix.lower()
    if ending not in _LINEAR + _CP_SAT:
        raise InputError(f"cannot export a model as {target.name!r}; use {', '.join(_LINEAR + _CP_SAT)}")
    if not model.linear and ending in _LINEAR:
        raise InputError(f"model {model.name!r} has conditional rows or intervals, which {ending} cannot hold; use .pb")
    with tempfile.TemporaryDirectory(prefix="cosma-export-") as folder:
        beside = Path(folder) / f"model{ending}"
        if ending in _LINEAR:
            from cosma.solvers.pulp_ import to_pulp

            problem, _ = to_pulp(model)
            if ending == ".mps":
                problem.writeMPS(str(beside))
            else:
                problem.writeLP(str(beside))
        else:
            from cosma.solvers.cp_sat import to_cp_model

            # OR-Tools writes text for every ending but .pb.
            if not to_cp_model(model).export_to_file(str(beside)):
                raise InputError(f"OR-Tools could not write {target}")
        write_atomic(target, beside.read_bytes())
