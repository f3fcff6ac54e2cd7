"""What a lower bound is: a value, how it was found, and what it assumed."""

from __future__ import annotations

from dataclasses import dataclass

#: What every bound here takes for granted; a plan outside this may need less traffic.
ASSUMPTIONS = "no on-chip moves, no recomputation, no tiling, alignment {alignment} B"


@dataclass(frozen=True, slots=True)
class Bound:
    """A number of bytes of non-compulsory traffic that no valid plan goes below.

    Attributes
    ----------
    value_bytes
        The bound, the constant part of the problem included.
    method
        Which argument gave it.
    assumptions
        What it takes for granted, in words.
    exhausted
        True if more work cannot raise it: it meets the upper bound, or every method has finished.
    """

    value_bytes: int
    method: str
    assumptions: str
    exhausted: bool
