from __future__ import annotations

import pytest

from cosma.accelerator import Accelerator
from cosma.compiler import run_compile
from cosma.errors import InfeasibleError, InputError
from cosma.experiments.capacity import check_capacity, expand_range, resolve_capacity
from tests.planning import diamond


@pytest.mark.parametrize(
    ("written", "canonical"),
    [("1.0x", "1x"), ("1.10x", "1.1x"), ("10x", "10x"), ("512KiB", "524288"), (4096, "4096"), ("100x", "100x")],
)
def test_capacities_have_one_canonical_text(written: str | int, canonical: str) -> None:
    assert check_capacity(written, "grid") == canonical


@pytest.mark.parametrize("written", ["0x", "0", "-1x", "1.1 y", "x", "1e3x"])
def test_a_capacity_that_is_none_is_refused(written: str) -> None:
    with pytest.raises(InputError, match="grid"):
        check_capacity(written, "grid")


@pytest.mark.parametrize("weights", ["stream", "scratchpad"])
@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("alignment", [1, 48, 64])
def test_one_times_the_smallest_is_the_smallest(weights: str, in_place: bool, alignment: int) -> None:
    fields = {"operands": "resident", "weights": weights, "in_place": in_place, "alignment": alignment, "reserved": 100}
    capacity = resolve_capacity("1x", diamond(), fields)
    run_compile(diamond(), Accelerator(scratchpad=capacity, **fields), strategy="e1")
    with pytest.raises(InfeasibleError):
        run_compile(diamond(), Accelerator(scratchpad=capacity - 1, **fields), strategy="e1")


def test_multiples_round_up_to_the_alignment_and_leave_out_what_is_reserved() -> None:
    # Largest working set of the diamond, weights aside: the join's 3 x 128 bytes.
    fields = {"operands": "streamable", "in_place": False, "alignment": 64, "reserved": 10}
    assert resolve_capacity("1.1x", diamond(), fields) == 448 + 10
    assert resolve_capacity("1.5x", diamond(), fields) == 576 + 10
    assert resolve_capacity("2048", diamond(), fields) == 2048


def test_ranges_include_both_ends() -> None:
    assert expand_range({"from": "64KiB", "to": "1MiB", "factor": 2}, "g") == [2**k for k in range(16, 21)]
    assert expand_range({"from": 16, "to": 64, "step": 16}, "g") == [16, 32, 48, 64]
    assert expand_range({"from": "1x", "to": "1.3x", "step": "0.1x"}, "g") == ["1x", "1.1x", "1.2x", "1.3x"]
    assert expand_range({"from": "1x", "to": "4x", "factor": 2}, "g") == ["1x", "2x", "4x"]
    assert expand_range("resident", "g") == ["resident"]


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"from": 1, "to": 2},
        {"from": 2, "to": 1, "step": 1},
        {"from": 1, "to": 2, "factor": 1},
        {"from": 1, "to": 2, "step": 0},
        {"from": "1x", "to": "1MiB", "step": 1},
        {"from": 1, "to": 2**40, "step": 1},
        {"from": 0, "to": 10, "factor": 2},
        {"from": 1, "to": 2, "step": 1, "factor": 2},
    ],
)
def test_ranges_that_mean_nothing_are_refused(value: object) -> None:
    with pytest.raises(InputError, match="grid X"):
        expand_range(value, "grid X")
