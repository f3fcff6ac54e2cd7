"""Access: which region of each operand a region of an operator's result depends on.

One rule for each kind of operator, in a table. What no rule covers is a barrier: every region of the result depends on
all of every operand.
"""

from cosma.access.boxes import Box, box_shape, intersection, whole
from cosma.access.site import Argument, NodeSite, Site
from cosma.access.table import access_of

__all__ = ["Argument", "Box", "NodeSite", "Site", "access_of", "box_shape", "intersection", "whole"]
