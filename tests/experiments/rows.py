"""Rows made up for tests, with only what matters spelled out."""

from __future__ import annotations

from typing import Any

from cosma.experiments import Row


def row(model: str, label: str, noncompulsory: int | None, bound: int = 0, **changes: Any) -> Row:
    """Make a row; without traffic it is a timeout."""
    capacity = str(changes.pop("capacity", "1x"))
    grid = changes.pop("grid", "R")
    instance = f"{model} {grid} {capacity}"
    point = f"{instance} {label} {changes.get('seed', 0)} {changes.get('repeat', 0)}"
    values: dict[str, Any] = {
        "key": point, "point": point, "instance": instance, "model": model, "group": "g", "model_sha256": "0" * 64,
        "grid": grid, "capacity": capacity, "scratchpad": 1024, "alignment": 64, "reserved": 0, "operands": "resident",
        "weights": "stream", "in_place": False, "fusion": "none", "label": label, "strategy": label, "effort": 1.0,
        "gap_target": 0.0, "seed": 0, "repeat": 0, "cosma": "1", "seconds": 1.0,
    }  # fmt: skip
    if noncompulsory is None:
        values |= {"status": "timeout", "reason": "more than the limit of 1 seconds"}
    else:
        optimal = bound >= noncompulsory
        gap = 0.0 if optimal else 1 - bound / noncompulsory
        values |= {"status": "optimal" if optimal else "feasible", "noncompulsory": noncompulsory}
        values |= {"lower_bound": bound, "gap": gap, "compulsory": 10, "total": 10 + noncompulsory}
    return Row(**{**values, **changes})
