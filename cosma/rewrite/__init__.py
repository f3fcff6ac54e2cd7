"""Rewrites: from a graph to another one that computes the same, with what each part stands for."""

from cosma.rewrite.dtype import count_as
from cosma.rewrite.fuse import Link, fuse, links, smallest_capacity
from cosma.rewrite.lineage import Lineage, Rewritten
from cosma.rewrite.parts import cut_selections
from cosma.rewrite.quantise import quantise

__all__ = [
    "Lineage", "Link", "Rewritten", "count_as", "cut_selections", "fuse", "links", "quantise", "smallest_capacity",
]  # fmt: skip
