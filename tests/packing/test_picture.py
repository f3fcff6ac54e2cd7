from __future__ import annotations

import sys
from xml.etree import ElementTree

import pytest

from cosma.errors import InputError, SolverUnavailableError
from cosma.packing import Buffer, Forbidden, Gap
from cosma.packing.picture import picture

BUFFERS = [Buffer("a<b", 0, 4, 8, gaps=(Gap(2, 4, (0, 2)),)), Buffer("c", 1, 3, 4)]
OFFSETS = {"a<b": 0, "c": 8}


def test_svg_has_one_rectangle_per_part() -> None:
    drawn = [picture("svg", BUFFERS, OFFSETS, 16, forbidden=[Forbidden(14, 16)], title="x < y") for _ in range(2)]
    root = ElementTree.fromstring(drawn[0])
    labels = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert labels == [
        "a<b: steps [0, 2), bytes [0, 8)",
        "a<b: steps [2, 4), bytes [0, 2)",
        "c: steps [1, 3), bytes [8, 12)",
        "forbidden",
    ]
    assert drawn[0] == drawn[1]


def test_other_kinds_need_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    for kind, start in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        drawn = [picture(kind, BUFFERS, OFFSETS, 16) for _ in range(2)]
        assert drawn[0] == drawn[1]
        assert bytes(drawn[0][:4]) == start
    with pytest.raises(InputError, match="expected one of png, svg, pdf"):
        picture("jpg", BUFFERS, OFFSETS, 16)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SolverUnavailableError, match="figures need matplotlib"):
        picture("png", BUFFERS, OFFSETS, 16)
