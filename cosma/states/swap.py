"""Symmetric branches as renamings of bit sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cosma.problem.symmetry import Symmetry


class Swap:
    """A symmetry in bit sets."""

    def __init__(self, symmetry: Symmetry) -> None:
        self.operators = symmetry.operators
        self._rows = [
            (sum(1 << x for x in moved), [(1 << x, 1 << y) for x, y in moved.items()])
            for moved in (symmetry.operators, symmetry.tensors)
        ]

    def _renamed(self, mask: int, row: int) -> int:
        moved, pairs = self._rows[row]
        part = mask & moved
        if part in (0, moved):
            return mask
        return (mask ^ part) | sum(y for x, y in pairs if part & x)

    def of_operators(self, done: int) -> int:
        """Rename a set of operators."""
        return self._renamed(done, 0)

    def of_tensors(self, tensors: int) -> int:
        """Rename a set of tensors."""
        return self._renamed(tensors, 1)
