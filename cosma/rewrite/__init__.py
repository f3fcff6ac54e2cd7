"""Rewrites: from a graph to another one that computes the same, with what each part stands for."""

from cosma.rewrite.dtype import count_as
from cosma.rewrite.lineage import Lineage, Rewritten
from cosma.rewrite.parts import cut_selections
from cosma.rewrite.quantise import quantise

__all__ = ["Lineage", "Rewritten", "count_as", "cut_selections", "quantise"]
