"""CBC and the commercial solvers, reached through PuLP."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.solvers.model import INFINITE
from cosma.solvers.result import SolverResult, Status, Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cosma.solvers.model import Family, Model
    from cosma.solvers.request import Request

#: PuLP's names, the one that needs no Python package of the vendor first.
_NAMES = {
    "cbc": ("PULP_CBC_CMD", "COIN_CMD"),
    "gurobi": ("GUROBI", "GUROBI_CMD"),
    "cplex": ("CPLEX_PY", "CPLEX_CMD"),
    "xpress": ("XPRESS_PY", "XPRESS"),
}
_CBC_BOUND = re.compile(r"^(?:Lower bound|lower bound):\s+(-?[0-9.eE+]+)", re.MULTILINE)


def run(model: Model, request: Request, stop: Callable[[], bool] | None) -> SolverResult:
    """Solve a linear model; see :func:`cosma.solvers.solve`. ``stop`` is served by the child process."""
    del stop
    pulp = import_pulp()
    problem, variables = to_pulp(model)
    if request.warm_start is not None:
        for variable, value in zip(variables, request.warm_start.tolist(), strict=True):
            variable.setInitialValue(value)
    with tempfile.TemporaryDirectory(prefix="cosma-solver-") as folder:
        log_path = Path(folder) / "log"
        solver = _solver(pulp, request, str(log_path), folder)
        try:
            problem.solve(solver)
        except pulp.PulpSolverError as error:
            return SolverResult(Status.ERROR, Stop.FAILURE, log=_text(log_path), message=str(error))
        log = _text(log_path)
    return _read(pulp, model, request, problem, variables, log)


def import_pulp() -> Any:
    """Import PuLP after OR-Tools: it imports an installed ``highspy``, which breaks OR-Tools when it is first."""
    import contextlib

    with contextlib.suppress(ImportError):
        from ortools.sat.python import cp_model  # noqa: F401
    try:
        import pulp
    except ImportError as error:
        from cosma.errors import SolverUnavailableError

        raise SolverUnavailableError(
            "PuLP is not installed; install the extra `cosma[solvers]`, or use solver 'cp-sat'"
        ) from error
    return pulp


def to_pulp(model: Model) -> tuple[Any, list[Any]]:
    """Translate a linear model; the objective is divided by its granule, the offset left out."""
    pulp = import_pulp()
    problem = pulp.LpProblem(model.name.replace(" ", "_"), pulp.LpMinimize)
    names = names_of(model.variables)
    bounds = zip(names, model.lower.tolist(), model.upper.tolist(), strict=True)
    variables = [pulp.LpVariable(name, low, high, pulp.LpInteger) for name, low, high in bounds]
    used = np.flatnonzero(model.objective).tolist()
    granule = model.objective_granule
    problem += pulp.LpAffineExpression([(variables[j], int(model.objective[j]) // granule) for j in used])
    row, column, value = model.coordinates()
    start = np.searchsorted(row, np.arange(model.row_count + 1)).tolist()
    columns, values = column.tolist(), value.tolist()
    labels = names_of(model.rows)
    for i, (low, high) in enumerate(zip(model.row_lower.tolist(), model.row_upper.tolist(), strict=True)):
        part = slice(start[i], start[i + 1])
        terms = [(variables[j], x) for j, x in zip(columns[part], values[part], strict=True)]
        if not terms:
            if low <= 0 <= high:
                continue  # CBC cannot read an empty row
            terms, low, high = [(variables[0], 1)], int(model.upper[0]) + 1, INFINITE
        expression = pulp.LpAffineExpression(terms)
        if low == high:
            problem += pulp.LpConstraint(expression, pulp.LpConstraintEQ, labels[i], low)
            continue
        if low > -INFINITE:
            problem += pulp.LpConstraint(expression, pulp.LpConstraintGE, f"{labels[i]}_low", low)
        if high < INFINITE:
            problem += pulp.LpConstraint(expression, pulp.LpConstraintLE, f"{labels[i]}_high", high)
    if used == []:
        problem.setObjective(pulp.LpAffineExpression())
    return problem, variables


def names_of(families: Iterable[Family]) -> list[str]:
    """One name for each variable, or each row: its family and its number."""
    return [f"{family.name.replace(' ', '_')}_{i}" for family in families for i in range(family.begin, family.end)]


def _solver(pulp: Any, request: Request, log_path: str, folder: str) -> Any:
    from cosma.errors import SolverUnavailableError

    profile = request.profile
    options: dict[str, Any] = {
        "msg": False,
        "timeLimit": request.time_limit_s,
        "gapRel": profile.gap,
        "threads": profile.threads,
        "warmStart": request.warm_start is not None,
        "logPath": log_path,
    }
    available = pulp.listSolvers(onlyAvailable=True)
    name = next((candidate for candidate in _NAMES[profile.back_end] if candidate in available), None)
    if name is None:
        raise SolverUnavailableError(
            f"{profile.back_end} is not installed (PuLP finds none of {', '.join(_NAMES[profile.back_end])}); "
            f"install it, or use solver 'cp-sat'. PuLP finds: {', '.join(available) or 'nothing'}"
        )
    if name in ("PULP_CBC_CMD", "COIN_CMD"):
        extra = [f"{key} {value}" for key, value in profile.options.items()]
        if request.work_limit is not None:
            options["maxNodes"] = max(1, int(request.work_limit))
        options["options"] = [f"randomCbcSeed {profile.seed + 1}", "allow 0", *extra]
        options["keepFiles"] = False
    else:
        options["options"] = list(profile.options.items())
    solver = pulp.getSolver(name, **{key: value for key, value in options.items() if value is not None})
    if hasattr(solver, "tmpDir"):
        solver.tmpDir = folder
    return solver


def _read(
    pulp: Any, model: Model, request: Request, problem: Any, variables: list[Any], log: str
) -> SolverResult:
    status = problem.status
    kept = log if request.log else ""
    if status == pulp.LpStatusInfeasible and problem.sol_status != pulp.LpSolutionIntegerFeasible:
        return SolverResult(Status.INFEASIBLE, Stop.PROOF, log=kept)
    values = None
    if problem.sol_status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible):
        # Variables that no row mentions stay out of the file, and keep their lower bound.
        found = [variable.varValue for variable in variables]
        low = model.lower.tolist()
        values = np.array([round(x) if x is not None else low[j] for j, x in enumerate(found)], dtype=np.int64)
    limited = any(word in log for word in ("Stopped on time", "Stopped on node", "Maximum time", "maximum nodes"))
    if problem.sol_status == pulp.LpSolutionOptimal and values is not None and not limited:
        bound = model.value(values) if request.profile.gap == 0 else _bound(model, log)
        stopped = Stop.PROOF if request.profile.gap == 0 else Stop.GAP
        return SolverResult(Status.OPTIMAL, stopped, values, bound=bound, log=kept)
    stopped = Stop.TIME if request.time_limit_s is not None and "node" not in log[-2000:].lower() else Stop.WORK
    if "Stopped on time" in log:
        stopped = Stop.TIME
    known = Status.FEASIBLE if values is not None else Status.UNKNOWN
    return SolverResult(known, stopped, values, bound=_bound(model, log), log=kept)


def _bound(model: Model, log: str) -> int | None:
    """Lower bound from CBC's log; None where it gives none."""
    found = _CBC_BOUND.findall(log)
    if not found:
        return None
    scaled = float(found[-1])
    if not abs(scaled) < 2**53:
        return None
    # CBC prints three decimals.
    return -int(-(scaled - 2e-3) // 1) * model.objective_granule + model.offset


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
