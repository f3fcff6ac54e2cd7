from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cosma.errors import InputError, SolverUnavailableError
from cosma.packing import Buffer, Forbidden, Gap
from cosma.packing.picture import draw

BUFFERS = [Buffer("a<b", 0, 4, 8, gaps=(Gap(2, 4, (0, 2)),)), Buffer("c", 1, 3, 4)]
OFFSETS = {"a<b": 0, "c": 8}


def test_svg_has_one_rectangle_per_part(tmp_path: Path) -> None:
    path = tmp_path / "packing.svg"
    draw(path, BUFFERS, OFFSETS, 16, forbidden=[Forbidden(14, 16)], title="x < y")
    root = ElementTree.fromstring(path.read_text())
    labels = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert labels == [
        "a<b: steps [0, 2), bytes [0, 8)",
        "a<b: steps [2, 4), bytes [0, 2)",
        "c: steps [1, 3), bytes [8, 12)",
        "forbidden",
    ]
    before = path.read_bytes()
    draw(path, BUFFERS, OFFSETS, 16, forbidden=[Forbidden(14, 16)], title="x < y")
    assert path.read_bytes() == before


def test_png(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "packing.png"
    draw(path, BUFFERS, OFFSETS, 16)
    assert path.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SolverUnavailableError, match=r"PNG pictures need matplotlib.*\.svg"):
        draw(path, BUFFERS, OFFSETS, 16)


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in \.svg or \.png"):
        draw(tmp_path / "packing.jpg", BUFFERS, OFFSETS, 16)
