"""Tilings chosen: into how many stripes which operators are cut, before the graph of tiles is planned."""

from cosma.tiling.choose import Segment, Segmentation, choose_segments, tiling_of
from cosma.tiling.rows import RowGraph, build_rows
from cosma.tiling.search import improve

__all__ = ["RowGraph", "Segment", "Segmentation", "build_rows", "choose_segments", "improve", "tiling_of"]
