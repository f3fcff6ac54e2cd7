"""MiniMalloc's eleven hard instances, at their full capacity."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosma.packing import live_peak, pack, verify
from cosma.packing.csvfile import read_buffers

CAPACITY = 1048576
INSTANCES = sorted((Path(__file__).resolve().parents[3] / "shared" / "packing").glob("*.csv"))


@pytest.mark.skipif(not INSTANCES, reason="the instances are not here")
@pytest.mark.parametrize("path", INSTANCES, ids=lambda path: path.name[0])
def test_instance(path: Path) -> None:
    buffers = read_buffers(path, capacity=CAPACITY)
    result = pack(buffers, CAPACITY, work_limit=400_000)
    assert result.packed
    assert verify(buffers, result.offsets, CAPACITY) == []
    peak = live_peak(buffers)
    refused = pack(buffers, peak - 1)
    assert refused.engine == "bound"
    assert sum(buffer.size for buffer in buffers if buffer.id in refused.conflict) >= peak
