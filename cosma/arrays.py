"""Arrays by the type of their elements, for annotations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Int32s = NDArray[np.int32]
Ints = NDArray[np.int64]
Uint16s = NDArray[np.uint16]
Words = NDArray[np.uint64]
Float32s = NDArray[np.float32]
Floats = NDArray[np.float64]
