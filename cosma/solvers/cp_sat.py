"""CP-SAT: the default. Reproducible with one worker, a seed and a deterministic work limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.cp_sat import new_solver, next_integer, solve, work_done
from cosma.solvers.model import INFINITE
from cosma.solvers.result import SolverResult, Status, Stop

if TYPE_CHECKING:
    from collections.abc import Callable

    from cosma.solvers.model import Model
    from cosma.solvers.request import Request

#: Ends of a domain that has none: CP-SAT takes numbers of 64 bits with a sign.
_LIMIT = 1 << 62


def run(model: Model, request: Request, stop: Callable[[], bool] | None) -> SolverResult:
    """Solve a model with CP-SAT; see :func:`cosma.solvers.solve`."""
    program = to_cp_model(model)
    if request.warm_start is not None:
        hint = program.proto.solution_hint
        hint.vars.extend(range(model.variable_count))
        hint.values.extend(request.warm_start.tolist())
    solver = new_solver(
        threads=request.profile.threads,
        seed=request.profile.seed,
        work_limit=request.work_limit,
        time_limit_s=request.time_limit_s,
    )
    lines: list[str] = []
    _set_parameters(solver, request, lines)
    status, interrupted = solve(solver, program, stop)
    return _read(model, request, solver, status, "\n".join(lines), interrupted)


def to_cp_model(model: Model) -> Any:
    """Translate a model; its objective is divided by its granule, the offset left out."""
    from ortools.sat.python import cp_model

    program = cp_model.CpModel()
    program.name = model.name
    proto = program.proto
    for low, high in zip(model.lower.tolist(), model.upper.tolist(), strict=True):
        proto.variables.add().domain.extend((low, high))
    start = model.row_start.tolist()
    columns, values = model.row_column.tolist(), model.row_value.tolist()
    bounds = zip(model.row_lower.tolist(), model.row_upper.tolist(), model.row_enforced_by.tolist(), strict=True)
    for i, (low, high, literal) in enumerate(bounds):
        constraint = proto.constraints.add()
        if literal >= 0:
            constraint.enforcement_literal.append(literal)
        linear = constraint.linear
        linear.vars.extend(columns[start[i] : start[i + 1]])
        linear.coeffs.extend(values[start[i] : start[i + 1]])
        linear.domain.extend((-_LIMIT if low <= -INFINITE else low, _LIMIT if high >= INFINITE else high))
    for group in model.no_overlap:
        members = []
        for begin, size, present in zip(group.start, group.size, group.present, strict=True):
            members.append(len(proto.constraints))
            constraint = proto.constraints.add()
            constraint.enforcement_literal.append(present)
            interval = constraint.interval
            interval.start.vars.append(begin)
            interval.start.coeffs.append(1)
            interval.size.offset = size
            interval.end.vars.append(begin)
            interval.end.coeffs.append(1)
            interval.end.offset = size
        proto.constraints.add().no_overlap.intervals.extend(members)
    used = np.flatnonzero(model.objective)
    proto.objective.vars.extend(used.tolist())
    proto.objective.coeffs.extend((model.objective[used] // model.objective_granule).tolist())
    return program


def _set_parameters(solver: Any, request: Request, lines: list[str]) -> None:
    from cosma.errors import InputError

    parameters = solver.parameters
    parameters.relative_gap_limit = request.profile.gap
    if request.log:
        parameters.log_search_progress = True
        parameters.log_to_stdout = False
        solver.log_callback = lines.append
    for name, value in request.profile.options.items():
        try:
            setattr(parameters, name, value)
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(f"solver profile {request.profile.name!r}: CP-SAT option {name!r}: {error}") from error


def _read(model: Model, request: Request, solver: Any, status: Any, log: str, interrupted: bool) -> SolverResult:
    from ortools.sat.python import cp_model

    response = solver.response_proto
    work = work_done(solver)
    if status == cp_model.INFEASIBLE:
        return SolverResult(Status.INFEASIBLE, Stop.PROOF, work=work, log=log)
    if status == cp_model.MODEL_INVALID:
        return SolverResult(Status.ERROR, Stop.FAILURE, log=log, message="CP-SAT calls the model invalid")
    values = None
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        values = np.array(list(response.solution), dtype=np.int64)
    granule, has_objective = model.objective_granule, bool(model.objective.any())
    bound: int | None = None
    if not has_objective:
        bound = model.offset
    elif values is not None and status == cp_model.OPTIMAL and request.profile.gap == 0:
        bound = model.value(values)
    else:
        # The scaled objective is a sum of integers: the next integer above the bound bounds it too.
        scaled = float(response.best_objective_bound)
        if abs(scaled) < 2**53:
            bound = next_integer(scaled) * granule + model.offset
    if status == cp_model.OPTIMAL:
        stopped = Stop.PROOF if bound is None or values is None or bound >= model.value(values) else Stop.GAP
    elif interrupted:
        stopped = Stop.INTERRUPT
    elif request.work_limit is not None and work >= 0.99 * request.work_limit:
        stopped = Stop.WORK
    elif request.time_limit_s is not None:
        stopped = Stop.TIME
    else:
        stopped = Stop.WORK
    known = Status.FEASIBLE if values is not None else Status.UNKNOWN
    if status == cp_model.OPTIMAL:
        known = Status.OPTIMAL
    return SolverResult(known, stopped, values, bound=bound, work=work, log=log)
