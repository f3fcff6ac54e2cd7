"""COSMA's program as one: order, residency, load and store, and addresses, solved together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.joint.build import build_joint, check_supported
from cosma.lowering import Realised
from cosma.lowering.emit import emit
from cosma.problem import check_feasible
from cosma.problem.symmetry import arrange, ordered_pairs, symmetries_of
from cosma.solvers import EXACT_PROFILE, solve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cosma.arrays import Ints
    from cosma.joint.program import Addresses, Joint
    from cosma.problem import Problem, Residency
    from cosma.problem.symmetry import Symmetry
    from cosma.solvers import Profile, SolverResult


def solve_monolith(
    problem: Problem,
    *,
    profile: Profile | None = None,
    start: Realised | None = None,
    work_limit: float | None = None,
    time_limit_s: float | None = None,
    stop: Callable[[], bool] | None = None,
) -> tuple[Realised | None, SolverResult]:
    """Solve the joint program with addresses on any back end.

    CP-SAT gets intervals, the others pairwise disjunctions. Sound but slow: for small graphs, for comparing
    back ends, and as a check on the layered method. Raises InputError if the program would have more than
    :data:`~cosma.joint.build.MOST_VARIABLES` variables even without addresses. Raises InfeasibleError if some operator
    cannot run at all.

    Parameters
    ----------
    profile
        Back end; CP-SAT by default.
    work_limit, time_limit_s, stop
        See :func:`cosma.solvers.solve`.
    """
    check_feasible(problem)
    check_supported(problem)
    chosen = profile if profile is not None else EXACT_PROFILE
    addresses: Addresses = "intervals" if chosen.back_end == "cp-sat" else "linear"
    symmetries = symmetries_of(problem)
    joint = build_joint(problem, addresses=addresses, ordered=ordered_pairs(problem, symmetries))
    result = solve(
        joint.model,
        chosen,
        warm_start=None if start is None else warm_start(joint, start, symmetries),
        work_limit=work_limit,
        time_limit_s=time_limit_s,
        stop=stop,
    )
    if result.values is None:
        return None, result
    decisions = joint.decisions(result.values)
    places = [
        int(result.values[joint.address[r.tensor, r.start]]) * joint.unit if problem.space_bytes[r.tensor] else 0
        for r in decisions.residencies
    ]
    return Realised(decisions, emit(problem, decisions, places), 0), result


def warm_start(joint: Joint, plan: Realised, symmetries: Sequence[Symmetry] = ()) -> Ints:
    """Assignment of a joint program with addresses that stands for a plan.

    Where the program orders symmetric branches, the plan's trade places until it has them in that order.
    """
    from cosma.plan.instructions import Allocate, Execute, Load

    problem = joint.problem
    number = {name: t for t, name in enumerate(problem.tensor_names)}
    operators = {name: v for v, name in enumerate(problem.operator_names)}
    step = 0
    found: dict[tuple[int, int], int] = {}
    for instruction in plan.instructions:
        if isinstance(instruction, Execute):
            v = operators[instruction.operator]
            if instruction.workspace is not None and v in problem.workspace:
                found[problem.workspace[v], step] = instruction.workspace
            step += 1
        elif isinstance(instruction, Load | Allocate):
            found[number[instruction.tensor], step] = instruction.address
    decisions, renamed = arrange(problem, plan.decisions, symmetries)
    found = {(renamed.get(t, t), i): address for (t, i), address in found.items()}
    by_residency: dict[Residency, int] = {
        r: found[r.tensor, r.start] for r in decisions.residencies if (r.tensor, r.start) in found
    }
    values = joint.values_of(decisions, by_residency)
    _derive(joint, values)
    return values


def _derive(joint: Joint, values: Ints) -> None:
    """Set what follows from addresses and presence: who lies below whom, who is carried, who lies apart."""
    model = joint.model
    families = {f.name for f in model.variables} & {"below", "carried", "apart", "side", "multiple"}
    if not families:
        return
    for family in model.rows:
        for i in range(family.begin, family.end):
            row = slice(int(model.row_start[i]), int(model.row_start[i + 1]))
            columns, weights = model.row_column[row], model.row_value[row]
            if family.name == "carried":
                values[columns[0]] = int(values[columns[1]] + values[columns[2]] - values[columns[3]] > 1)
            elif family.name == "apart":
                values[columns[0]] = -int(weights[1:] @ values[columns[1:]])
            elif family.name == "own alignment":
                values[columns[1]] = int(values[columns[0]]) // -int(weights[1])
            elif family.name == "below a range":
                values[columns[1]] = int(values[columns[0]] <= int(model.row_upper[i]) - 2 * int(weights[1]))
            elif family.name == "no overlap":
                room = int(weights[2])
                gap = int(model.row_upper[i]) - room
                values[columns[2]] = int(values[columns[0]] - values[columns[1]] <= gap)
