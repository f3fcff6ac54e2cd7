"""Which constraints cannot hold together: the smallest set, by taking them away one by one and trying again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.accelerator.constraints import Constraints, Entry
from cosma.compiler.choices import choices_of
from cosma.compiler.fusion import run_choices
from cosma.compiler.limits import Limits
from cosma.compiler.run import CompileRun
from cosma.compiler.strategies import run_existing
from cosma.errors import ConstraintError, InfeasibleError
from cosma.problem import build_problem
from cosma.problem.feasibility import NOT_PLANNED

if TYPE_CHECKING:
    from cosma.accelerator import Accelerator
    from cosma.compiler.request import Request

#: Most attempts to plan with fewer constraints; each may take about a second where only search can tell. Not measured.
MOST_ATTEMPTS = 200


def _attempt(request: Request, accelerator: Accelerator) -> None:
    """Find some plan with little work; raises :class:`InfeasibleError` where that fails."""
    limits = Limits(effort=0.0)
    problems = [build_problem(choice.graph, accelerator) for choice in choices_of(request, accelerator)]
    states = [CompileRun(problem=one, limits=limits, parameters=request.parameters) for one in problems]
    run_choices(states, run_existing, limits, counts_effort=False)


def explained(error: InfeasibleError, request: Request) -> InfeasibleError:
    """Say which constraints cannot hold together; the error itself where none is to blame.

    The request is tried with fewer constraints. ``conflict`` of the error returned holds constraints that cannot hold
    together as far as attempts tell, and of which all but any one can. Where there was no time to try each, the message
    says so.
    """
    accelerator = request.accelerator
    left = MOST_ATTEMPTS

    def fails(entries: list[Entry]) -> InfeasibleError | None:
        nonlocal left
        left -= 1
        try:
            _attempt(request, accelerator.replace(constraints=Constraints.of(entries)))
        except InfeasibleError as found:
            return found
        except ConstraintError:
            return None  # some entry makes sense beside another one alone
        return None

    entries = list(accelerator.constraints.entries)
    if not entries:
        return error
    alone = fails([])
    if alone is not None:
        return alone.with_details([*alone.details, "  that is so without any constraint"])
    # Whole kinds go first: most of them have no part in it.
    for field in dict.fromkeys(entry.field for entry in entries):
        rest = [entry for entry in entries if entry.field != field]
        found = fails(rest) if rest and len(entries) - len(rest) > 1 else None
        if found is not None:
            entries, error = rest, found
    for entry in tuple(entries):
        if left <= 0:
            break
        rest = [one for one in entries if one is not entry]
        found = fails(rest) if rest else None
        if found is not None:
            entries, error = rest, found
    names = tuple(map(str, entries))
    what = "this constraint cannot hold" if len(names) == 1 else f"these {len(names)} constraints cannot hold together"
    if error.message.startswith(NOT_PLANNED):
        what = "not planned under this constraint" if len(names) == 1 else "not planned under these constraints"
    if left <= 0:
        what += ", or some of them"
    reason = error.message.removeprefix("constraints cannot hold: ").removeprefix(NOT_PLANNED)
    return InfeasibleError(
        f"{what}: {'; '.join(names)} ({reason})",
        operator=error.operator,
        operator_type=error.operator_type,
        needed_bytes=error.needed_bytes,
        available_bytes=error.available_bytes,
        conflict=names,
    )
