"""Two readings of a tensor compared within rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.execute.elements import is_integer, is_numpy_type

if TYPE_CHECKING:

    from cosma.arrays import Array


@dataclass(frozen=True, slots=True)
class Comparison:
    """One graph output of a plan against that of the model run as a whole."""

    #: Which output.
    name: str
    #: How many elements it has, and how many differ by more than rounding.
    elements: int
    beyond: int
    #: Largest difference found, infinite where one reading is no number or the shapes differ.
    largest: float
    #: Largest difference that counts as rounding.
    allowed: float
    #: What is wrong where it is no number: shapes or types that differ.
    remark: str = ""

    @property
    def is_equal(self) -> bool:
        """Whether all elements agree within rounding."""
        return self.beyond == 0 and not self.remark


def compare(name: str, ours: Array | Sequence[Array], theirs: Any, step: float = 0.0) -> Comparison:
    """Compare a tensor, or a sequence of tensors, with what another reader yields.

    Floating-point results may differ by the square root of the type's precision relative to the largest value of the
    tensor: half the digits. Integers of at most eight bits may differ by one, for they may come from rounding;
    others must be equal. So may dequantised numbers that lie ``step`` apart.
    """
    if isinstance(ours, np.ndarray) != (not isinstance(theirs, list)):
        return Comparison(name, 0, 0, float("inf"), 0.0, "one reading has a sequence where the other has a tensor")
    if isinstance(ours, np.ndarray):
        return _compare_arrays(name, ours, np.asarray(theirs), step)
    if len(ours) != len(theirs):
        return Comparison(name, 0, 0, float("inf"), 0.0, f"{len(theirs)} tensors, {len(ours)} by the plan")
    found = [_compare_arrays(name, a, np.asarray(b)) for a, b in zip(ours, theirs, strict=True)]
    return Comparison(
        name,
        sum(part.elements for part in found),
        sum(part.beyond for part in found),
        max((part.largest for part in found), default=0.0),
        max((part.allowed for part in found), default=0.0),
        next((part.remark for part in found if part.remark), ""),
    )


def _compare_arrays(name: str, ours: Array, theirs: Array, step: float = 0.0) -> Comparison:
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        types = [f"{array.dtype.name}{list(array.shape)}" for array in (theirs, ours)]
        return Comparison(name, theirs.size, theirs.size, float("inf"), 0.0, f"{types[0]}, {types[1]} by the plan")
    if not ours.size:
        return Comparison(name, 0, 0, 0.0, 0.0)
    allowed_share = rounding(ours.dtype)
    exact = ours.dtype.kind in "biu" and ours.dtype.itemsize == 8
    wide = np.complex128 if ours.dtype.kind == "c" else (ours.dtype if exact else np.float64)
    if ours.dtype == np.bool_ or exact:
        different = ours != theirs
        return Comparison(name, ours.size, int(np.count_nonzero(different)), float(different.any()), 0.0)
    a, b = ours.astype(wide), theirs.astype(wide)
    with np.errstate(all="ignore"):
        finite = np.abs(b[np.isfinite(b)])
        scale = float(finite.max()) if finite.size else 0.0
        allowed = 1.0 if is_integer(ours.dtype) and ours.dtype.itemsize == 1 else allowed_share * scale + step
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        difference = np.where(same, 0.0, np.abs(a - b))
    difference = np.where(np.isnan(difference), np.inf, difference)
    return Comparison(
        name, ours.size, int(np.count_nonzero(difference > allowed)), float(difference.max()), float(allowed)
    )


def rounding(dtype: np.dtype[Any]) -> float:
    """Share of a tensor's largest value that counts as rounding: 0 for integers."""
    if is_integer(dtype) or dtype == np.bool_:
        return 0.0
    if is_numpy_type(dtype):
        return math.sqrt(float(np.finfo(dtype).eps))
    import ml_dtypes

    return math.sqrt(float(ml_dtypes.finfo(dtype).eps))  # type: ignore[no-untyped-call]  # the library states none
