"""Placing the experts of a Mixture-of-Experts model on devices, by affinity, load and memory.

Names are imported on first use, so that ``import cosma.placement`` pulls in neither numba nor a solver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.lazy import NamesFrom

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

__getattr__ = NamesFrom(__name__, {
    "affinity": "Affinity",
    "bounds": "Bound lower_bound",
    "check": "Score check_placement score violations",
    "difference": "diff",
    "document": "Placement dump_placement read_placement write_placement",
    "options": "PlaceOptions",
    "service": "place",
    "topology": "Topology",
    "traces": "open_trace read_affinity",
})  # fmt: skip
