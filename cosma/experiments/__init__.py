"""Batch experiments: models x accelerators x strategies as isolated cells, their results, and tables of them."""

from cosma.experiments.cell import Cell
from cosma.experiments.experiment import Experiment, load_experiment
from cosma.experiments.row import Row
from cosma.experiments.store import load_rows
from cosma.experiments.study import Choice, SizeRange, Study
from cosma.experiments.sweep import SweepResult, sweep

__all__ = [
    "Cell",
    "Choice",
    "Experiment",
    "Row",
    "SizeRange",
    "Study",
    "SweepResult",
    "load_experiment",
    "load_rows",
    "sweep",
]
