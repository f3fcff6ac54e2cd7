"""HiGHS and SCIP, reached through OR-Tools MathOpt (``highspy`` and OR-Tools do not live in one process)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.solvers.model import INFINITE
from cosma.solvers.result import SolverResult, Status, Stop

if TYPE_CHECKING:
    from collections.abc import Callable

    from cosma.solvers.model import Model
    from cosma.solvers.request import Request


def run(model: Model, request: Request, stop: Callable[[], bool] | None) -> SolverResult:
    """Solve a linear model; see :func:`cosma.solvers.solve`. ``stop`` is served by the child process."""
    del stop
    import datetime

    from ortools.math_opt.python import mathopt

    from cosma.errors import InputError, SolverUnavailableError

    profile = request.profile
    program = mathopt.Model.from_model_proto(to_model_proto(model))
    highs = profile.back_end == "highs"
    parameters = mathopt.SolveParameters(
        time_limit=None if request.time_limit_s is None else datetime.timedelta(seconds=request.time_limit_s),
        node_limit=None if request.work_limit is None else max(1, int(request.work_limit)),
        relative_gap_tolerance=profile.gap,
        absolute_gap_tolerance=0.0,
        threads=profile.threads,
        random_seed=profile.seed,
        enable_output=request.log,
    )
    if highs:
        # HiGHS refuses limits it does not know, and keeps its scheduler's thread count for the whole process.
        parameters.threads = None
        _set_highs(parameters, profile.options, request)
    else:
        _set_scip(parameters, profile.options)
    hints = []
    if request.warm_start is not None:
        values = {program.get_variable(j): float(x) for j, x in enumerate(request.warm_start.tolist())}
        hints.append(mathopt.SolutionHint(variable_values=values))
    lines: list[str] = []
    try:
        outcome = mathopt.solve(
            program,
            mathopt.SolverType.HIGHS if highs else mathopt.SolverType.GSCIP,
            params=parameters,
            model_params=mathopt.ModelSolveParameters(solution_hints=hints),
            msg_cb=lines.extend if request.log else None,
        )
    except ValueError as error:
        raise InputError(f"solver profile {profile.name!r}: {error}") from error
    except (RuntimeError, NotImplementedError) as error:
        if "not registered" in str(error) or "not linked" in str(error):
            raise SolverUnavailableError(
                f"{profile.back_end} is not part of this OR-Tools build; use solver 'cp-sat' or 'cbc'"
            ) from error
        return SolverResult(Status.ERROR, Stop.FAILURE, log="\n".join(lines), message=str(error))
    return _read(model, request, program, outcome, "\n".join(lines))


def to_model_proto(model: Model) -> Any:
    """Translate a linear model; the objective is divided by its granule, the offset left out."""
    from ortools.math_opt import model_pb2

    proto = model_pb2.ModelProto(name=model.name)
    count = model.variable_count
    proto.variables.ids.extend(range(count))
    proto.variables.lower_bounds.extend(model.lower.astype(float).tolist())
    proto.variables.upper_bounds.extend(model.upper.astype(float).tolist())
    proto.variables.integers.extend([True] * count)
    rows = proto.linear_constraints
    rows.ids.extend(range(model.row_count))
    rows.lower_bounds.extend(np.where(model.row_lower <= -INFINITE, -np.inf, model.row_lower).tolist())
    rows.upper_bounds.extend(np.where(model.row_upper >= INFINITE, np.inf, model.row_upper).tolist())
    row, column, value = model.coordinates()
    matrix = proto.linear_constraint_matrix
    matrix.row_ids.extend(row.tolist())
    matrix.column_ids.extend(column.tolist())
    matrix.coefficients.extend(value.astype(float).tolist())
    used = np.flatnonzero(model.objective)
    proto.objective.linear_coefficients.ids.extend(used.tolist())
    scaled = model.objective[used] // model.objective_granule
    proto.objective.linear_coefficients.values.extend(scaled.astype(float).tolist())
    return proto


def _set_highs(parameters: Any, options: dict[str, Any], request: Request) -> None:
    highs = parameters.highs
    chosen: dict[str, Any] = {"mip_feasibility_tolerance": 1e-7, **options}
    if request.work_limit is not None:
        parameters.node_limit = None
        chosen["mip_max_nodes"] = max(1, int(request.work_limit))
    for name, value in chosen.items():
        kind = {bool: "bool", int: "int", float: "double"}.get(type(value), "string")
        getattr(highs, f"{kind}_options")[name] = value


def _set_scip(parameters: Any, options: dict[str, Any]) -> None:
    kinds = {bool: "bool_params", int: "int_params", float: "real_params"}
    for name, value in options.items():
        getattr(parameters.gscip, kinds.get(type(value), "string_params"))[name] = value


def _read(model: Model, request: Request, program: Any, outcome: Any, log: str) -> SolverResult:
    from ortools.math_opt.python import mathopt

    reason = outcome.termination.reason
    reasons = mathopt.TerminationReason
    if reason == reasons.INFEASIBLE:
        return SolverResult(Status.INFEASIBLE, Stop.PROOF, log=log)
    if reason not in (reasons.OPTIMAL, reasons.FEASIBLE, reasons.NO_SOLUTION_FOUND):
        return SolverResult(
            Status.ERROR, Stop.FAILURE, log=log, message=f"{reason.name}: {outcome.termination.detail}"
        )
    values = None
    if outcome.has_primal_feasible_solution():
        found = outcome.variable_values()
        values = np.array([round(found[v]) for v in program.variables()], dtype=np.int64)
    bound: int | None = None
    scaled = outcome.termination.objective_bounds.dual_bound
    if np.isfinite(scaled) and abs(scaled) < 2**53:
        bound = -int(-(scaled - 1e-6 * max(1.0, abs(scaled) * 1e-3)) // 1) * model.objective_granule + model.offset
    if reason == reasons.OPTIMAL:
        if request.profile.gap == 0 and values is not None:
            bound = model.value(values)
        stopped = Stop.PROOF if request.profile.gap == 0 else Stop.GAP
        return SolverResult(Status.OPTIMAL, stopped, values, bound=bound, log=log, work=_nodes(outcome))
    limit = outcome.termination.limit
    timed = limit == mathopt.Limit.TIME
    interrupted = limit == mathopt.Limit.INTERRUPTED
    stopped = Stop.TIME if timed else Stop.INTERRUPT if interrupted else Stop.WORK
    known = Status.FEASIBLE if values is not None else Status.UNKNOWN
    return SolverResult(known, stopped, values, bound=bound, log=log, work=_nodes(outcome))


def _nodes(outcome: Any) -> float:
    return float(outcome.solve_stats.node_count)
