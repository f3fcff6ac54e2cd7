"""Tilings chosen: which operators take turns, and the stripes, strips, groups and partial sums they are cut into."""

from cosma.tiling.choose import choose_segments, tiling_of
from cosma.tiling.find import Searched, search_tilings
from cosma.tiling.grid import GridGraph, build_grid
from cosma.tiling.segments import Segment, Segmentation

__all__ = [
    "GridGraph", "Searched", "Segment", "Segmentation", "build_grid", "choose_segments",
    "search_tilings", "tiling_of",
]  # fmt: skip
