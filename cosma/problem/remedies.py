"""What helps where a network does not fit: every remedy is tried before it is named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cosma.accelerator import Fusion, Operands, Weights
from cosma.errors import Remedy
from cosma.rewrite.fuse import smallest_capacity

if TYPE_CHECKING:
    from cosma.accelerator import Accelerator
    from cosma.graph import Graph

def find_remedies(graph: Graph, accelerator: Accelerator) -> Iterator[Remedy]:
    """Settings that let a network fit which does not, each with the smallest scratchpad that works with it.

    Parameters
    ----------
    accelerator
        What it does not fit.
    """
    alignment, reserved = accelerator.alignment, accelerator.reserved
    least = smallest_capacity(graph, accelerator)
    yield Remedy("scratchpad", least + reserved, least + reserved, enough=True)
    changes: dict[str, Any] = {
        "operands": Operands.STREAMABLE, "in_place": True, "fusion": Fusion.EPILOGUE, "weights": Weights.STREAM,
    }  # fmt: skip
    for setting, value in changes.items():
        if getattr(accelerator, setting) == value:
            continue
        if setting == "weights" and accelerator.operands == Operands.STATIONARY:
            continue  # modes are made for weights as they are
        need = smallest_capacity(graph, accelerator.replace(**{setting: value}))
        if need < least:
            yield Remedy(setting, value, max(need, alignment) + reserved, enough=need <= accelerator.usable_bytes)
