"""Plans of Concats that copy nothing with one thing changed are refused, each by the rule it breaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cosma
from cosma.compiler import Limits, run_compile
from tests.zero_copy.models import dense_block, record_of, verdicts


def test_mutated_joins_are_refused(tmp_path: Path) -> None:
    model = dense_block(tmp_path)
    plan = run_compile(model, cosma.Accelerator(zero_copy=True, scratchpad=4096), limits=Limits(effort=0.02)).plan
    root = next(i for i, r in enumerate(record_of(plan)["roots"]) if r["name"] == "c2")

    def mutated(change: Any) -> set[str]:
        record = record_of(plan)
        change(record)
        return verdicts(record, model)

    assert mutated(lambda r: None) == set()

    def swap(r: dict[str, Any]) -> None:
        one, two = r["roots"][root]["pieces"][1:3]
        one["tensor"], two["tensor"] = two["tensor"], one["tensor"]

    assert mutated(swap) == {"join-wrong"}
    assert "zero-copy-forbidden" in mutated(lambda r: r["accelerator"].pop("zero_copy"))
    assert {"parts-missing", "join-wrong"} <= mutated(lambda r: r["roots"][root]["pieces"].pop())

    def shift(r: dict[str, Any]) -> None:
        r["roots"][root]["pieces"][1]["start"][1] -= 1

    assert "parts-overlap" in mutated(shift)

    def unread(r: dict[str, Any]) -> None:
        reader = next(o for o in r["operators"] if "c2" in o.get("joined", ()))
        reader["inputs"].remove("a1")

    assert "region-unread" in mutated(unread)

    def renamed(r: dict[str, Any]) -> None:
        reader = next(o for o in r["operators"] if "c2" in o.get("joined", ()))
        reader["joined"] = ["c3"]

    assert mutated(renamed)

    def not_stored(r: dict[str, Any]) -> None:
        next(t for t in r["tensors"] if t["name"] == "a2")["kind"] = "intermediate"

    assert "join-wrong" in mutated(not_stored)
