"""Axes of sizes: units and ticks are powers of two."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from cosma.packing import Buffer
from cosma.packing.picture import picture
from cosma.units import tick_step, unit_for


@pytest.mark.parametrize(
    ("most", "count", "step"), [(512, 8, 64), (512, 4, 128), (513, 4, 256), (3.5, 4, 1), (0, 8, 0.0625), (96, 8, 16)]
)
def test_steps_are_powers_of_two(most: float, count: int, step: float) -> None:
    assert tick_step(most, count) == step
    assert most / step <= count


def test_units() -> None:
    assert unit_for(4096) == (1024, "KiB")
    assert unit_for(4095) == (1, "B")
    assert unit_for(2**32) == (2**30, "GiB")


def test_a_packing_is_drawn_with_names_and_ticks() -> None:
    buffers = [Buffer("wide", 0, 10, 4096), Buffer("a&b", 0, 5, 4096), Buffer("a name that has no room", 9, 10, 64)]
    drawn = picture("svg", buffers, {"wide": 0, "a&b": 4096, "a name that has no room": 8128}, 8192)
    root = ElementTree.fromstring(drawn)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"wide", "a&b", "KiB", "0", "4", "8"} <= set(texts)
    assert "a name that has no room" not in texts
