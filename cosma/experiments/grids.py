"""The grids that plans are measured on, by name, written as an experiment would write them."""

from __future__ import annotations

from typing import Any

#: COSMA's setting: every operand resident, no result over an operand, weights past the scratchpad; capacities as
#: multiples of the largest operator working set.
R: dict[str, Any] = {
    "name": "R",
    "scratchpad": ["1.0x", "1.1x", "1.25x", "1.5x"],
    "operands": "resident",
    "in_place": False,
    "weights": "stream",
}

#: Grid R with weights as tensors like any other.
W: dict[str, Any] = {**R, "name": "W", "weights": "scratchpad"}

#: Practice: operands may stream, results may overwrite, one byte an element, capacities as chips have them.
S: dict[str, Any] = {
    "name": "S",
    "scratchpad": ["256KiB", "512KiB", "1MiB", "2MiB", "4MiB", "8MiB"],
    "operands": "streamable",
    "in_place": True,
    "dtype": "int8",
}

GRIDS: dict[str, dict[str, Any]] = {"R": R, "W": W, "S": S}
