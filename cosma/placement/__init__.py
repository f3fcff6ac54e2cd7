"""Placing the experts of a Mixture-of-Experts model on devices, by affinity, load and memory.

Names are imported on first use, so that ``import cosma.placement`` pulls in neither numba nor a solver.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cosma.placement.affinity import Affinity
    from cosma.placement.bounds import Bound, lower_bound
    from cosma.placement.check import Score, check_placement, score, violations
    from cosma.placement.difference import diff
    from cosma.placement.document import Placement, dump_placement, read_placement, write_placement
    from cosma.placement.options import PlaceOptions
    from cosma.placement.service import place
    from cosma.placement.topology import Topology
    from cosma.placement.traces import open_trace, read_affinity

__all__ = [
    "Affinity",
    "Bound",
    "PlaceOptions",
    "Placement",
    "Score",
    "Topology",
    "check_placement",
    "diff",
    "dump_placement",
    "lower_bound",
    "open_trace",
    "place",
    "read_affinity",
    "read_placement",
    "score",
    "violations",
    "write_placement",
]

_HOME = {
    "Affinity": "affinity", "Bound": "bounds", "lower_bound": "bounds", "Score": "check", "check_placement": "check",
    "score": "check", "violations": "check", "diff": "difference", "Placement": "document",
    "dump_placement": "document", "read_placement": "document", "write_placement": "document",
    "PlaceOptions": "options", "place": "service", "Topology": "topology", "open_trace": "traces",
    "read_affinity": "traces",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
