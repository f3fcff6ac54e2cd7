"""Tilings chosen: into how many stripes which operators are cut, before the graph of tiles is planned."""

from cosma.tiling.choose import choose_tilings

__all__ = ["choose_tilings"]
