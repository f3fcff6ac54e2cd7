"""The search kernel against itself in plain Python, where every index is checked."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from cosma.packing import Buffer, skyline_kernels, tree, workspace
from cosma.packing.exact import decide
from cosma.packing.sections import layout, shape_of
from cosma.packing.tables import Shape
from tests.packing.test_search import cut_rectangles, random_problem

KERNELS = [(m, name) for m in (skyline_kernels, tree) for name, value in vars(m).items() if hasattr(value, "py_func")]


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run the functions behind the kernels; unsigned numbers wrap around without a word."""
    for module, name in KERNELS:
        monkeypatch.setattr(module, name, getattr(module, name).py_func)
    monkeypatch.setattr(workspace, "run", tree.run)
    with np.errstate(over="ignore"):
        yield


def runs(buffers: list[Buffer], capacity: int, alignment: int = 1, nodes: int = 300) -> list[object]:
    """What one run of the kernel answers on every component, with all it counted and blamed."""
    problem = layout(buffers, capacity, alignment)
    found: list[object] = []
    for component in problem.components:
        if component.members:
            shape = shape_of(problem, component)
            blame = np.zeros(component.sections)
            space = workspace.Workspace(shape)
            priority = np.arange(shape.buffer_count) * 1.0
            height = problem.capacity - component.base
            answer, offsets, tally = workspace.search(shape, height, priority, space, nodes, 10**9, blame)
            found.append((answer, offsets.tolist() if answer > 0 else None, tally.tolist(), blame.tolist()))
    return found


PROBLEMS = [random_problem(seed, kind)[:3] for kind in ("plain", "aligned", "staircase") for seed in range(25)]
PROBLEMS += [(cut_rectangles(seed, 24, 20, 60), 60 - seed % 2, 1) for seed in range(4)]
COMPILED = [runs(*problem) for problem in PROBLEMS]


def test_compiled_and_plain_kernels_are_one(plain: None) -> None:
    assert len(KERNELS) > 10
    answers = [runs(*problem) for problem in PROBLEMS]
    assert answers == COMPILED
    kinds = [row[0] for answer in answers for row in answer]  # type: ignore[attr-defined, index]
    assert {tree.FOUND, tree.EXHAUSTED} <= set(kinds)


def test_paths_longer_than_the_tables_enlarge_them(monkeypatch: pytest.MonkeyPatch) -> None:
    buffers = cut_rectangles(3, 40, 40, 1000)
    expected = decide(buffers, 999, work_limit=200)
    begin = workspace.Workspace.__init__

    def small(self: workspace.Workspace, shape: Shape) -> None:
        begin(self, shape)
        self.part, self.keys = self.part[:1].copy(), self.keys[:1].copy()

    monkeypatch.setattr(workspace.Workspace, "__init__", small)
    assert decide(buffers, 999, work_limit=200) == expected
    assert expected.work["nodes"] > 0


def test_work_ends_the_search() -> None:
    buffers = cut_rectangles(11, 120, 60, 100_003)
    for limit in (500, 2000):
        decision = decide(buffers, 100_003, work_limit=limit)
        if decision.offsets is None:
            assert decision.reason == "the work limit"
            assert decision.work["units"] <= limit + 50
