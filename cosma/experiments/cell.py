"""A cell: one model on one accelerator by one strategy, and the identity its result is stored under."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

#: Strategies whose plan depends on neither effort, gap nor seed.
_FIXED = ("e1", "e2", "e3", "existing")


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One task of an experiment, complete in itself: a worker needs nothing else to run it."""

    #: What tables call the model.
    model: str
    #: What tables group the model under: the folder or family it comes from.
    group: str
    #: The file, and the SHA-256 of its bytes when the experiment was expanded.
    path: str
    model_sha256: str
    #: Values for the model's symbolic dimensions.
    dims: dict[str, int] = {}
    #: The accelerators of an experiment come in named grids; this one's name.
    grid: str
    #: Fields of an :class:`~cosma.accelerator.Accelerator`, ``scratchpad`` excepted.
    accelerator: dict[str, Any] = {}
    #: The scratchpad as written: bytes (``"524288"``, ``"512KiB"``) or a multiple of the smallest feasible capacity
    #: (``"1.1x"``).
    capacity: str
    #: Element type that floating-point tensors are counted as, where overridden.
    dtype: str | None = None
    #: How to plan; ``solver`` is the name or the file of a solver profile where the strategy takes one, and
    #: ``solver_sha256`` the SHA-256 of the file.
    strategy: str
    solver: str | None = None
    solver_sha256: str | None = None
    #: What tables call strategy and settings.
    label: str
    #: As in :class:`~cosma.compiler.Limits`; ``time_limit_s`` is a clock within which the compile ends by itself.
    effort: float = 10.0
    gap: float = 0.0
    time_limit_s: float | None = None
    seed: int = 0
    #: Number of this run among equal ones.
    repeat: int = 0
    #: Wall-clock seconds and address space after which the cell is given up as a failure.
    limit_s: float = 600.0
    memory_bytes: int = 4 * 2**30
    #: Whether the plan file is kept.
    keep_plan: bool = False

    def instance(self) -> str:
        """Identify model and accelerator, whatever the strategy: cells with the same instance can be compared."""
        model = [self.model, self.model_sha256, self.dims]
        return _digest([*model, self.grid, self.accelerator, self.capacity, self.dtype])

    def point(self) -> str:
        """Identify the cell whatever the version of cosma: what two versions are compared at."""
        solver = self.solver if self.solver_sha256 is None else self.solver_sha256
        how: list[Any] = [self.instance(), self.strategy, solver, self.label, self.repeat]
        if not is_fixed(self.strategy):
            how += [self.effort, self.gap, self.time_limit_s, self.seed]
        return _digest(how)

    def key(self, version: str) -> str:
        """Identify the cell's result: its point and the version of cosma that computes it.

        Limits on seconds and memory are no part of it: they decide whether there is a result, not which.
        """
        return _digest([self.point(), version])


def is_fixed(strategy: str) -> bool:
    """Whether a strategy is one of the existing methods, on which effort, gap and seed have no influence."""
    return strategy in _FIXED or strategy.count("+") == 2


def _digest(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()[:20]
