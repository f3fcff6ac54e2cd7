"""Cost of reading a model against its size; ``python tests/frontend/test_scaling.py`` prints the table."""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from cosma.frontend import load_onnx

MAKER = Path(__file__).parents[2] / "models" / "make" / "synthetic.py"
ZOO = Path(__file__).parents[2] / "models" / "zoo"


def import_seconds(path: Path, repeats: int = 2) -> float:
    """CPU seconds to read a model, the least of some repeats."""
    seconds = []
    for _ in range(repeats):
        gc.collect()
        start = time.process_time()
        load_onnx(path)
        seconds.append(time.process_time() - start)
    return min(seconds)


def measure(sizes: Sequence[int], folder: Path) -> dict[int, float]:
    """CPU seconds to read a synthetic network, by its number of operators."""
    found = {}
    for size in sizes:
        path = folder / f"synthetic_{size}.onnx"
        subprocess.run([sys.executable, MAKER, str(size), path], check=True, capture_output=True)
        found[size] = import_seconds(path)
    return found


def test_cost_grows_near_linearly(tmp_path: Path) -> None:
    seconds = measure((1_500, 9_000), tmp_path)
    assert seconds[9_000] < 6 * 1.8 * seconds[1_500]


@pytest.mark.parametrize("name", ["nasnet_mobile_cl", "randwire_small_ba_3", "gpt2_s128"])
def test_large_networks_are_read_in_well_under_a_second_and_a_half(name: str) -> None:
    assert import_seconds(ZOO / f"{name}.onnx") < 1.5


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        print("operators  CPU s   us/operator")
        for size, seconds in measure((1_000, 2_000, 5_000, 10_000, 20_000, 50_000), Path(folder)).items():
            print(f"{size:9} {seconds:6.2f} {1e6 * seconds / size:10.0f}")


if __name__ == "__main__":
    main()
