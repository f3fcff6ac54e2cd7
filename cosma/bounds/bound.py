"""What a lower bound is: a value, and how it was found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bound:
    """A number of bytes of non-compulsory traffic that no valid plan goes below.

    Plans with on-chip moves, recomputation, tiles or another alignment may need less.

    Attributes
    ----------
    value_bytes
        The bound, the constant part of the problem included.
    method
        Which argument gave it.
    exhausted
        True if more work cannot raise it: it meets the upper bound, or every method has finished.
    """

    value_bytes: int
    method: str
    exhausted: bool
