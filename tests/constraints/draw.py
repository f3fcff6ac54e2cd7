"""Random constraints on random small instances."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from cosma.accelerator import Accelerator
from cosma.accelerator.constraints import Constraints
from cosma.graph import Graph
from tests.random_graphs import Shape, build_instance

#: Few and coarse sizes: brute force enumerates addresses.
TINY = Shape(operators=4, inputs=2, weights=1, unit=16, most_units=2, ragged=False, alignments=(16,))
KINDS = (
    "before", "excluded", "addresses", "alignments", "resident", "never_on_chip", "workspaces", "in_place_permitted",
    "in_place_forbidden", "in_place_permitted_types", "in_place_forbidden_types",
)  # fmt: skip


def instances(kinds: tuple[str, ...], seed: int, count: int) -> Iterator[tuple[Graph, Accelerator, Constraints]]:
    """Instances with one or two constraints of some kinds, and little room."""
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        graph, drawn = build_instance(lambda low, high, rng=rng: int(rng.integers(low, high + 1)), TINY)  # type: ignore[misc]
        capacity = min(drawn.capacity_bytes // 16 * 16 + 16 * int(rng.integers(0, 3)), 160)
        accelerator = drawn.replace(scratchpad=max(16, capacity), reserved=0, fusion="none")
        found: dict[str, Any] = {}
        for _ in range(int(rng.integers(1, 3))):
            kind = kinds[int(rng.integers(len(kinds)))]
            value = _draw(kind, graph, accelerator, rng)
            if value is not None:
                found.setdefault(kind, []).append(value)
        for kind in ("addresses", "alignments", "workspaces"):
            if kind in found:
                found[kind] = dict(found[kind])
        if found:
            yield graph, accelerator, Constraints(**found)


def _draw(kind: str, graph: Graph, accelerator: Accelerator, rng: np.random.Generator) -> Any:
    operators = graph.operators
    names = list(dict.fromkeys(name for o in operators for name in (*o.inputs, *o.outputs)))
    name = names[int(rng.integers(len(names)))]
    operator = operators[int(rng.integers(len(operators)))]
    units = accelerator.scratchpad // 16
    match kind:
        case "before":
            a, b = rng.integers(len(operators), size=2).tolist()
            return (operators[a].name, operators[b].name) if a != b else None
        case "excluded":
            start = int(rng.integers(units)) * 16
            return (start, start + int(rng.integers(1, 33)))
        case "addresses":
            return name, int(rng.integers(max(1, units - 1))) * 16
        case "alignments":
            return name, int(rng.choice([32, 48]))
        case "resident" | "never_on_chip":
            return name
        case "workspaces":
            return operator.name, int(rng.integers(1, 33))
        case "in_place_permitted" | "in_place_forbidden":
            if len(operator.outputs) > 1 or not operator.inputs:
                return None
            result, operand = operator.outputs[0], operator.inputs[int(rng.integers(len(operator.inputs)))]
            fits = graph.tensors[result].size_bytes <= graph.tensors[operand].size_bytes
            return (result, operand) if fits or kind == "in_place_forbidden" else None
        case _:
            return operator.type
