"""Buffers that are hard to pack as low as a lower bound says."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def save_hard_buffers(path: Path) -> None:
    """Write 120 random buffers whose smallest capacity is found in no moment."""
    random = np.random.default_rng(5)
    rows = ["id,lower,upper,size"]
    for i in range(120):
        start = int(random.integers(0, 60))
        rows.append(f"b{i},{start},{start + int(random.integers(1, 25))},{int(random.integers(1, 97))}")
    path.write_text("\n".join(rows) + "\n")
