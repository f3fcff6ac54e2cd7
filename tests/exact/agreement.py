"""The long form of the agreement tests: ``python -m tests.exact.agreement FIRST LAST [--rows FILE]`` over seeds.

For every seed the machine search, dynamic programming over states, the joint program on CP-SAT, HiGHS and CBC, and
the exact method's replayed plan must agree; ``--symmetric`` draws graphs with planted interchangeable branches, and
gives the programs rows that order these. Prints what does not agree, and how many of each kind were seen.
``--rows FILE`` appends a line of CSV a seed and skips seeds that are there; ``--summary FILE...`` counts such lines
by mode and prints the table that ``results/exact/agreement.csv`` keeps.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cosma.errors import InfeasibleError
from cosma.joint import build_joint
from cosma.problem import check_feasible, decisions_from_gaps
from cosma.problem.symmetry import ordered_pairs
from cosma.solvers import load_profile, solve
from cosma.states import search_states
from cosma.validator import replay_instructions
from tests.brute_force import TooLargeError, brute_force
from tests.planning import exact_run
from tests.random_graphs import random_problem
from tests.symmetric_graphs import random_symmetric_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cosma.problem import Problem

BACK_ENDS = ("cp-sat", "highs", "cbc")
METHODS = ("machine search", *BACK_ENDS, "states", "replayed plan")
MODES = ("graphs", "operands", "weights", "in_place")
FIELDS = ("seed", *MODES, "operators", "tensors", "fusion", "reserved", "capacity", "outcome", "optimum", *METHODS)
T = TypeVar("T")


class Stopwatch:
    """CPU seconds by method, those of child processes (CBC is one) included."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def run(self, name: str, work: Callable[[], T]) -> T:
        """Do some work and add up what it took."""
        before = sum(os.times()[:4])
        try:
            return work()
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + sum(os.times()[:4]) - before


def outcomes(problem: Problem, watch: Stopwatch, *, ordered: bool) -> dict[str, int | None] | None:
    """Optimum by every method (None: infeasible); None altogether if it is too large for the machine search."""
    try:
        truth = watch.run("machine search", lambda: brute_force(problem).noncompulsory_bytes)
    except TooLargeError:
        return None
    found: dict[str, int | None] = {"machine search": truth}
    model = build_joint(problem, ordered=ordered_pairs(problem) if ordered else ()).model
    for back_end in BACK_ENDS:
        result = watch.run(back_end, lambda back_end=back_end: solve(model, load_profile(back_end)))
        # Infeasible is an answer, no answer is not: -2 agrees with nothing.
        found[back_end] = result.objective if result.status in ("optimal", "infeasible") else -2
    try:
        check_feasible(problem)
    except InfeasibleError:
        return found | {"states": None, "replayed plan": None}
    start = decisions_from_gaps(problem, range(problem.operator_count), lambda _: False)
    found["states"] = watch.run("states", lambda: search_states(problem).cost_bytes)
    plan = watch.run("replayed plan", lambda: exact_run(problem, start, effort=2).best)
    assert plan is not None
    report = replay_instructions(problem.graph, problem.accelerator, plan.instructions)
    found["replayed plan"] = -1 if report.violations else report.traffic.noncompulsory
    return found


def check(seed: int, *, symmetric: bool) -> dict[str, object]:
    """One line of the table: what the instance is, what came out, and seconds by method."""
    problem = random_symmetric_problem(seed) if symmetric else random_problem(seed)
    accelerator, watch = problem.accelerator, Stopwatch()
    found = outcomes(problem, watch, ordered=symmetric)
    if found is None:
        outcome, optimum = "too large", None
    else:
        optimum = found["machine search"]
        outcome = "infeasible" if optimum is None else "positive" if optimum else "zero"
        if len(set(found.values())) > 1:
            outcome = "DISAGREE"
            print(f"seed {seed}: {found}", flush=True)
    row: dict[str, object] = {
        "seed": seed,
        "graphs": "symmetric" if symmetric else "random",
        "operands": str(accelerator.operands),
        "weights": str(accelerator.weights),
        "in_place": accelerator.in_place,
        "operators": problem.operator_count,
        "tensors": problem.tensor_count,
        "fusion": str(accelerator.fusion),
        "reserved": accelerator.reserved,
        "capacity": problem.capacity_bytes,
        "outcome": outcome,
        "optimum": optimum,
    }
    return row | {name: f"{watch.seconds.get(name, 0.0):.2f}" for name in METHODS}


def check_range(first: int, last: int, rows: Path | None, *, symmetric: bool) -> Iterator[dict[str, object]]:
    """Check seeds one by one, skipping and appending to a file of rows where one is given."""
    known = {int(row["seed"]) for row in read(rows)} if rows is not None and rows.exists() else set()
    for seed in range(first, last):
        if seed in known:
            continue
        row = check(seed, symmetric=symmetric)
        if rows is not None:
            fresh = not rows.exists()
            with rows.open("a", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
                if fresh:
                    writer.writeheader()
                writer.writerow(row)
        yield row


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a file."""
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def summarise(paths: list[Path]) -> list[dict[str, object]]:
    """One line for each mode: seeds, what came out, disagreements, CPU seconds by method."""
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for path in paths:
        for row in read(path):
            groups.setdefault(tuple(row[mode] for mode in MODES), []).append(row)
    table = []
    for key, rows in sorted(groups.items()):
        seen = Counter(row["outcome"] for row in rows)
        line: dict[str, object] = dict(zip(MODES, key, strict=True))
        line["seeds"] = len(rows)
        for outcome in ("infeasible", "zero", "positive", "too large", "DISAGREE"):
            line["disagreements" if outcome == "DISAGREE" else outcome] = seen[outcome]
        for name in METHODS:
            line[f"{name} s"] = f"{sum(float(row[name]) for row in rows):.1f}"
        table.append(line)
    return table


def main() -> int:
    """Check a range of seeds or sum up rows; the exit status is 1 if any disagree."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("first", type=int, nargs="?", default=0)
    parser.add_argument("last", type=int, nargs="?", default=2000)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--symmetric", action="store_true")
    parser.add_argument("--summary", type=Path, nargs="+")
    arguments = parser.parse_args()
    if arguments.summary:
        table = summarise(arguments.summary)
        writer = csv.DictWriter(sys.stdout, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
        return 1 if any(line["disagreements"] for line in table) else 0
    checked = check_range(arguments.first, arguments.last, arguments.rows, symmetric=arguments.symmetric)
    seen = Counter(str(row["outcome"]) for row in checked)
    print(dict(seen))
    return 1 if seen["DISAGREE"] else 0


if __name__ == "__main__":
    sys.exit(main())
