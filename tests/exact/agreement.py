"""The long form of the agreement tests: ``python -m tests.exact.agreement [FIRST [LAST]]`` over seeds.

For every seed the machine search, dynamic programming over states, the joint program on CP-SAT, HiGHS and CBC, and
the exact method's replayed plan must agree. Prints what does not, and how many of each kind were seen.
"""

from __future__ import annotations

import sys
from collections import Counter

from cosma.errors import InfeasibleError
from cosma.exact import search_states, solve_exact
from cosma.formulation import build_joint
from cosma.problem import decisions_from_gaps
from cosma.solvers import load_profile, solve
from cosma.validator import replay_instructions
from tests.brute_force import TooLargeError, brute_force
from tests.random_graphs import random_problem

BACK_ENDS = ("cp-sat", "highs", "cbc")


def outcomes(seed: int) -> dict[str, int | None] | None:
    """Optimum of one seed by every method (None: infeasible); None altogether if it is too large to search."""
    problem = random_problem(seed)
    try:
        found: dict[str, int | None] = {"machine search": brute_force(problem).noncompulsory_bytes}
    except TooLargeError:
        return None
    model = build_joint(problem).model
    for back_end in BACK_ENDS:
        found[back_end] = solve(model, load_profile(back_end)).objective
    try:
        problem.check_feasible()
    except InfeasibleError:
        return found | {"states": None, "replayed plan": None}
    start = decisions_from_gaps(problem, range(problem.operator_count), lambda _: False)
    plan = solve_exact(problem, start, effort=2).realised
    report = replay_instructions(problem.graph, problem.accelerator, plan.instructions)
    found["states"] = search_states(problem).cost_bytes
    found["replayed plan"] = -1 if report.violations else report.traffic.noncompulsory
    return found


def main() -> int:
    """Check a range of seeds; the exit status is 1 if any disagree."""
    numbers = [int(text) for text in sys.argv[1:3]]
    first, last = (0, 2000) if not numbers else (0, numbers[0]) if len(numbers) == 1 else numbers
    seen: Counter[str] = Counter()
    for seed in range(first, last):
        found = outcomes(seed)
        if found is None:
            seen["too large"] += 1
        elif len(set(found.values())) > 1:
            seen["DISAGREE"] += 1
            print(f"seed {seed}: {found}", flush=True)
        else:
            value = found["machine search"]
            seen["infeasible" if value is None else "positive" if value else "zero"] += 1
    print(dict(seen))
    return 1 if seen["DISAGREE"] else 0


if __name__ == "__main__":
    sys.exit(main())
