from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cosma.experiments import Experiment, load_experiment
from cosma.graph.json_format import save_graph
from tests.planning import diamond

FAULTY = "faulty_cells:run_cell"
GRID = '[[grids]]\nname = "T"\nscratchpad = ["1x", "1.5x", 2048]\noperands = "resident"\nin_place = false\n'


@pytest.fixture
def experiment(tmp_path: Path) -> Callable[..., Experiment]:
    """Make an experiment over copies of a small graph, one model a name."""

    def make(*names: str, head: str = "", strategies: str = '["e1", "existing"]', grids: str = GRID) -> Experiment:
        (tmp_path / "nets").mkdir(exist_ok=True)
        for name in names:
            save_graph(diamond(), tmp_path / "nets" / f"{name}.json")
        models = ", ".join(f'"nets/{name}.json"' for name in names)
        path = tmp_path / "experiment.toml"
        path.write_text(f"models = [{models}]\nstrategies = {strategies}\n{head}\n{grids}", encoding="utf-8")
        return load_experiment(path)

    return make


@pytest.fixture
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Let worker processes find the misbehaving runner and count the cells they run."""
    folder = tmp_path / "traces"
    folder.mkdir()
    monkeypatch.setenv("COSMA_TEST_TRACES", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    return lambda: sum(path.stat().st_size for path in folder.iterdir())
