"""Arrows point one way: the rooms of the library in layers, and what still breaks the rule, by name."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import networkx as nx
import pytest

from tests.imports import imports, room

#: Layers from the ground up. A room imports rooms of lower layers only; the base is one room of single modules.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "arrays", "clock", "compiled", "cp_sat", "csr", "door", "errors", "figures", "files", "intervals", "lazy",
        "parallel", "parameters", "patience", "process", "random_kernels", "terminal", "text", "topological", "units",
        "version",
    ),
    ("graph", "accelerator"),
    ("access",),
    ("rewrite",),
    ("frontend", "plan", "packing", "solvers"),
    ("validator", "placement", "problem", "caching"),
    ("report", "export", "execute"),
    ("lowering", "evaluation"),
    ("tiling",),
    ("heuristics", "replacement", "states", "joint"),
    ("bounds",),
    ("search",),
    ("compiler",),
    ("studies", "experiments"),
    ("cosma",),
    ("cli",),
    ("__main__",),
)
BASE = frozenset(LAYERS[0])

#: Imports that still go up or sideways. None may be added; one that is gone must leave the list.
UPWARD: frozenset[tuple[str, str]] = frozenset()

#: Files that import each other in a circle, likewise.
CIRCLES: frozenset[frozenset[str]] = frozenset()


def _layer(module: str) -> int:
    for level, rooms in enumerate(LAYERS):
        if room(module) in rooms:
            return level
    raise AssertionError(f"the room {room(module)!r} of {module} is in no layer: say in LAYERS where it belongs")


def _upward() -> set[tuple[str, str]]:
    found = set()
    for module, targets in imports().items():
        for target in targets:
            inside = room(module) == room(target) or {room(module), room(target)} <= BASE
            if not inside and _layer(target) >= _layer(module):
                found.add((module, target))
    return found


def _circles(arrows: dict[str, set[str]]) -> set[frozenset[str]]:
    graph = nx.DiGraph([(module, target) for module, targets in arrows.items() for target in targets])
    return {frozenset(part) for part in nx.strongly_connected_components(graph) if len(part) > 1}


def test_rooms_import_lower_rooms_only() -> None:
    found = _upward()
    assert found - UPWARD == set(), "imports that go up or sideways"
    assert UPWARD - found == set(), "no longer there: take them off the list"


def test_no_files_import_each_other_in_a_circle() -> None:
    found = _circles(imports())
    assert found - CIRCLES == set(), "circles of files"
    assert CIRCLES - found == set(), "no longer there: take them off the list"


#: Rooms that know little: all that each of them imports, the base aside.
APART: dict[str, set[str]] = {
    **{name: set() for name in ("graph", "accelerator", "packing", "solvers", "caching")}, "placement": {"solvers"},
    "plan": {"accelerator", "graph"}, "validator": {"accelerator", "frontend", "graph", "plan"},
}  # fmt: skip


def test_rooms_that_stand_apart_touch_no_others() -> None:
    found: dict[str, set[str]] = {name: set() for name in APART}
    for module, targets in imports().items():
        if room(module) in APART:
            found[room(module)] |= {room(target) for target in targets} - BASE - {room(module)}
    assert found == APART


@pytest.mark.skipif(bool(UPWARD), reason="follows from the layers once nothing goes up")
def test_no_rooms_import_each_other_in_a_circle() -> None:
    arrows: dict[str, set[str]] = {}
    for module, targets in imports().items():
        arrows.setdefault(room(module), set()).update({room(target) for target in targets} - {room(module)})
    assert _circles(arrows) == set()


def test_lazy_and_type_imports_are_read() -> None:
    arrows = imports()
    assert "cosma.compiler.exact" in arrows["cosma.compiler.strategies"], "inside a function"
    assert "cosma.compiler.run" in arrows["cosma.compiler.strategies"], "for types only"
    assert "cosma.packing.engine" in arrows["cosma.packing"], "at the top"


PAGE = Path(__file__).parents[1] / "docs" / "where_things_live.md"


def test_the_page_shows_the_layers_as_they_are() -> None:
    picture = PAGE.read_text(encoding="utf-8").split("```text\n")[1].split("```")[0]
    shown = [set(re.findall(r"[a-z_]+", re.sub(r"\([^)]*\)", "", line))) for line in picture.splitlines()]
    layers = [set(rooms) - {"cosma", "__main__"} for rooms in reversed(LAYERS)]
    assert shown == [rooms for rooms in layers if rooms]


def test_the_guide_names_what_everything_may_use() -> None:
    guide = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    base = guide.split(": what everything may use")[0].rsplit("\n    placement", 1)[1].split("\n", 1)[1]
    assert set(re.findall(r"[a-z_]+", base)) == BASE


def test_the_page_names_what_there_is() -> None:
    page = PAGE.read_text(encoding="utf-8")
    names = set(re.findall(r"`(cosma(?:\.[a-z_]+)+)`", page)) - {"cosma.compile"}
    assert len(names) > 25
    assert {name for name in names if importlib.util.find_spec(name) is None} == set()
