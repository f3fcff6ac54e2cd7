"""How often the relaxed optimum has no addresses: ``python -m tests.exact.packing OPERATORS UNITS FIRST LAST``.

For the random graph of each seed the search over states finds an order without regard to addresses; its best
replacement is packed. Where that fails, conflicts are learnt within the order, and the line printed says whether
traffic rose. The two scans that ``docs/formulations.md`` reports are ``7 8 0 2000`` and ``12 20 0 4000``.
"""

from __future__ import annotations

import sys
from collections import Counter

from cosma.errors import InfeasibleError
from cosma.lowering import try_realise
from cosma.problem import Problem, check_feasible
from cosma.replacement import ReplacementParameters, optimal_replacement, pack_order
from cosma.states import search_states
from tests.random_graphs import Shape, random_problem

#: States after which a graph is passed over.
MOST_STATES = 3_000


def shape_of(operators: int, units: int) -> Shape:
    """Graphs of up to ``operators`` operators, with tensors of up to ``units`` times 16 bytes."""
    return Shape(operators=operators, most_units=units, inputs=4, ragged=False, alignments=(16,))


def outcome(problem: Problem) -> str:
    """What became of one instance."""
    try:
        check_feasible(problem)
    except InfeasibleError:
        return "infeasible"
    found = search_states(problem, most_states=MOST_STATES)
    if found.cost_bytes is None:
        return "cut short"
    decisions, bound, _ = optimal_replacement(problem, found.order)
    if try_realise(problem, decisions, work_limit=ReplacementParameters().packing_units) is not None:
        return "packs"
    packed = pack_order(problem, found.order, first=decisions)
    if packed.realised is None:
        return "no addresses found"
    return "conflict, same traffic" if packed.bound_bytes == bound else "conflict, more traffic in this order"


def main() -> None:
    """Scan a range of seeds."""
    operators, units, first, last = map(int, sys.argv[1:5])
    seen: Counter[str] = Counter()
    for seed in range(first, last):
        result = outcome(random_problem(seed, shape_of(operators, units)))
        seen[result] += 1
        if result not in ("packs", "infeasible", "cut short"):
            print(f"seed {seed}: {result}", flush=True)
    print(dict(seen))


if __name__ == "__main__":
    main()
