from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cosma.placement.affinity import Affinity
from cosma.placement.synthetic import SyntheticOptions, synthetic_trace

SHARED = Path(__file__).resolve().parents[3] / "shared" / "traces"


@pytest.fixture
def shared_traces() -> Path:
    if not SHARED.is_dir():
        pytest.skip("no shared traces beside the project")
    return SHARED


@pytest.fixture(scope="session")
def small_tokens() -> np.ndarray:
    return synthetic_trace(SyntheticOptions(tokens=400, layers=4, experts=6, clusters=3, seed=3))


@pytest.fixture(scope="session")
def small(small_tokens: np.ndarray) -> Affinity:
    return Affinity.from_tokens(small_tokens, 6)
