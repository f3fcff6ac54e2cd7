"""Fuzz cosma: ``python -m tests.fuzz`` runs the full numbers, ``python -m tests.fuzz plans --seed 17`` one case."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from time import monotonic

from tests.fuzz.runner import handle, run_cases

#: Kind -> cases of a full run, and what to call once before the workers are forked.
KINDS = {"models": 3000, "plans": 2000, "tables": 3000}


def main() -> int:
    """Run what the arguments ask for; return 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="models, plans, tables; all of them by default")
    parser.add_argument("--count", type=int, help="cases of each kind")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="run this seed alone, in this process")
    parser.add_argument("--jobs", type=int, default=1)
    chosen = parser.parse_args()
    found = 0
    for kind in chosen.kinds or KINDS:
        module = import_module(f"tests.fuzz.{kind}")
        if chosen.seed is not None:
            fine, how = handle(module.case, chosen.seed)
            print(f"{kind} {chosen.seed}: {how}")
            found += not fine
            continue
        begin = monotonic()
        module.bases()
        count = chosen.count or KINDS[kind]
        outcome = run_cases(module.case, range(chosen.first, chosen.first + count), chosen.jobs)
        print(f"{kind}: seeds {chosen.first} to {chosen.first + count - 1}, {monotonic() - begin:.0f} s")
        for how, number in sorted(outcome.counts.items(), key=lambda pair: -pair[1]):
            print(f"  {number:6} {how}")
        for seed, how in outcome.findings:
            print(f"  seed {seed}: {how}")
        found += len(outcome.findings)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
