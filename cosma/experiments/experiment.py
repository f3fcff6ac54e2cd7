"""Experiment files: what to compile, onto what, how, and within which limits."""

from __future__ import annotations

import hashlib
import inspect
import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import msgspec

import cosma.door as door
from cosma.accelerator import PLANNING_FIELDS, Accelerator
from cosma.errors import AcceleratorError, CosmaError, InputError
from cosma.experiments.capacity import check_capacity, expand_range
from cosma.experiments.cell import Cell, is_fixed
from cosma.experiments.grids import GRIDS
from cosma.experiments.models import ModelFile, ModelSpec, find_models
from cosma.files import parse_toml, read_bytes
from cosma.text import did_you_mean
from cosma.units import parse_size

#: Fields that a cell states at their defaults too; the others are left out there, so that the cells of old tables are
#: those of today.
_STATED = ("alignment", "reserved", "operands", "weights", "in_place", "fusion")
_OF_GRID = {"name", "accelerator", "scratchpad", "dtype", *PLANNING_FIELDS}


class StrategySpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A strategy as an experiment lists it; what is left out is taken from the experiment."""

    strategy: str
    solver: str | None = None
    label: str | None = None
    solver_sha256: str | None = None
    effort: float | None = None
    gap: float | None = None
    time_limit_s: float | None = None


class LimitSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a cell is given up: wall-clock seconds, and bytes of address space of the process that runs it."""

    seconds: float = 600.0
    memory: str | int = "4GiB"


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str | None = None
    description: str = ""
    zoo: str | None = None
    models: list[str | ModelSpec]
    exclude: list[str] = []
    grids: list[str | dict[str, Any]]
    strategies: list[str | StrategySpec]
    seeds: tuple[int, ...] = (0,)
    repeats: int = 1
    effort: float = 10.0
    gap: float = 0.0
    time_limit_s: float | None = None
    limits: LimitSpec = LimitSpec()
    keep_plans: bool = False


@dataclass(frozen=True, slots=True)
class Point:
    """One accelerator of a grid, the capacity as written."""

    #: Name of its grid.
    grid: str
    #: The fields plans depend on, and the name where it is a preset's.
    fields: dict[str, Any]
    #: See :func:`~cosma.experiments.capacity.check_capacity`.
    capacity: str
    #: Element type that floating-point tensors are counted as, where overridden.
    dtype: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A validated experiment; :meth:`cells` expands it."""

    #: What it is called and what it is for.
    name: str
    description: str
    #: What is crossed.
    models: tuple[ModelFile, ...]
    points: tuple[Point, ...]
    strategies: tuple[StrategySpec, ...]
    #: Every seed and every repeat of each; existing methods run with the first seed alone.
    seeds: tuple[int, ...]
    repeats: int
    #: Per cell.
    limit_s: float
    memory_bytes: int
    keep_plans: bool
    #: The file as it was read.
    text: str

    def cells(self) -> list[Cell]:
        """Expand into cells: by model, then accelerator, then strategy, seed and repeat.

        Cells of the same point are listed once. The order is that of the file, models sorted within a pattern.
        """
        cells: dict[str, Cell] = {}
        for model, point, strategy in product(self.models, self.points, self.strategies):
            seeds = self.seeds[:1] if is_fixed(strategy.strategy) else self.seeds
            for seed, repeat in product(seeds, range(self.repeats)):
                cell = self._cell(model, point, strategy, seed, repeat)
                cells.setdefault(cell.point(), cell)
        return list(cells.values())

    def _cell(self, model: ModelFile, point: Point, strategy: StrategySpec, seed: int, repeat: int) -> Cell:
        return Cell(
            model=model.name,
            group=model.group,
            path=str(model.path),
            model_sha256=model.sha256,
            dims=model.dims,
            grid=point.grid,
            accelerator=point.fields,
            capacity=point.capacity,
            dtype=point.dtype,
            strategy=strategy.strategy,
            solver=strategy.solver,
            solver_sha256=strategy.solver_sha256,
            label=strategy.label or strategy.strategy,
            effort=strategy.effort if strategy.effort is not None else 10.0,
            gap=strategy.gap if strategy.gap is not None else 0.0,
            time_limit_s=strategy.time_limit_s,
            seed=seed,
            repeat=repeat,
            limit_s=self.limit_s,
            memory_bytes=self.memory_bytes,
            keep_plan=self.keep_plans,
        )


_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*?)`(?: - at `\$\.((\w+).*)`)?")
#: The file itself, and its tables, whose fields an unknown one is told; of others nothing is offered.
_TABLES: dict[str | None, type[msgspec.Struct]] = {
    None: _File, "models": ModelSpec, "strategies": StrategySpec, "limits": LimitSpec,
}  # fmt: skip


def load_experiment(path: Path | str) -> Experiment:
    """Read an experiment file; paths in it are relative to its folder.

    Raises InputError if the file is not TOML, has an unknown or missing key or a value out of range, names a model,
    grid, preset or strategy that is not there, or two strategies or models would share a name.
    """
    data = read_bytes(path, "experiment file")
    try:
        file = msgspec.convert(parse_toml(data, str(path)), _File)
    except msgspec.ValidationError as error:
        said = f"{error}; the page on experiments in the documentation has the format"
        if unknown := _UNKNOWN_FIELD.fullmatch(str(error)):
            key, where, table = unknown.groups()
            said = f"{f'{where}: ' if where else ''}unknown field {key!r}"
            if table in _TABLES:
                known = _TABLES[table].__struct_fields__
                said += f"; known are {', '.join(known)}{did_you_mean(key, known)}"
        raise InputError(f"{path}: {said}") from error
    try:
        return _build(file, Path(path), data.decode("utf-8"))
    except InputError as error:
        raise type(error)(f"{path}: {error}") from error


def _build(file: _File, path: Path, text: str) -> Experiment:
    if file.repeats < 1:
        raise InputError(f"repeats must be at least 1, not {file.repeats}")
    if not file.seeds or len(set(file.seeds)) < len(file.seeds):
        raise InputError("seeds must list at least one seed, and each once")
    if not file.limits.seconds > 0:
        raise InputError(f"limits.seconds must be more than 0, not {file.limits.seconds}")
    return Experiment(
        name=file.name or path.stem,
        description=file.description,
        models=find_models(file.models, file.exclude, path.parent, file.zoo),
        points=tuple(point for grid in file.grids for point in expand_grid(grid, path.parent)),
        strategies=_strategies(file, path.parent),
        seeds=file.seeds,
        repeats=file.repeats,
        limit_s=file.limits.seconds,
        memory_bytes=parse_size(file.limits.memory, "limits.memory"),
        keep_plans=file.keep_plans,
        text=text,
    )


def _strategies(file: _File, folder: Path) -> tuple[StrategySpec, ...]:
    from cosma.compiler import Limits
    from cosma.compiler.strategies import find_strategy

    found: dict[str, StrategySpec] = {}
    for entry in file.strategies:
        spec = StrategySpec(strategy=entry) if isinstance(entry, str) else entry
        spec = StrategySpec(
            strategy=spec.strategy,
            **_solver(spec, folder),
            label=spec.label or spec.strategy + (f"/{Path(spec.solver).stem}" if spec.solver else ""),
            effort=spec.effort if spec.effort is not None else file.effort,
            gap=spec.gap if spec.gap is not None else file.gap,
            time_limit_s=spec.time_limit_s if spec.time_limit_s is not None else file.time_limit_s,
        )
        find_strategy(spec.strategy)
        Limits(effort=spec.effort or 0.0, time_limit_s=spec.time_limit_s, gap=spec.gap or 0.0)
        for seed in file.seeds:
            door.seed(seed)
        assert spec.label is not None
        if spec.label in found:
            raise InputError(f"two strategies are called {spec.label!r}; give one a label of its own")
        found[spec.label] = spec
    if not found:
        raise InputError("strategies lists nothing; name at least one, such as \"auto\"")
    return tuple(found.values())


def _solver(spec: StrategySpec, folder: Path) -> dict[str, str]:
    """Check a strategy's solver profile; a file's path is made absolute and its bytes are hashed."""
    if spec.solver_sha256 is not None:
        raise InputError("solver_sha256 is found, not given")
    if spec.solver is None:
        return {}
    from cosma.compiler import run_compile
    from cosma.solvers.profile import load_profile

    if "solver" not in inspect.signature(run_compile).parameters:
        raise InputError(f"solver {spec.solver!r}: the compiler of this version takes no solver profile")
    if not spec.solver.endswith(".toml"):
        load_profile(spec.solver)
        return {"solver": spec.solver}
    path = str((folder / spec.solver).resolve())
    load_profile(path)
    return {"solver": path, "solver_sha256": hashlib.sha256(read_bytes(path, "solver profile")).hexdigest()}


def expand_grid(grid: str | dict[str, Any], folder: Path) -> list[Point]:
    """Expand a grid, built-in or written out, into its points.

    Every field may be a value, a list, or a range (see :func:`~cosma.experiments.capacity.expand_range`); the
    points are all combinations, the capacity varying fastest. Raises InputError if the grid is unknown or a field is
    wrong.
    """
    if isinstance(grid, str):
        if grid not in GRIDS:
            raise InputError(f"grid {grid!r} is unknown; built in are {', '.join(GRIDS)}, or write a [[grids]] table")
        return expand_grid(GRIDS[grid], folder)
    name = grid.get("name")
    if not isinstance(name, str) or not name:
        raise InputError("every [[grids]] table needs a name")
    where = f"grid {name!r}"
    if unknown := set(grid) - _OF_GRID:
        raise InputError(f"{where}: unknown field {sorted(unknown)[0]!r}; known are {', '.join(sorted(_OF_GRID))}")
    base, capacities = _base(grid, folder, where)
    axes = [
        expand_range(grid[field], f"{where}: {field}") if field in grid else [base[field]] for field in PLANNING_FIELDS
    ]
    points = []
    for values in product(expand_range(grid.get("dtype"), f"{where}: dtype"), *axes, capacities):
        dtype, fields, capacity = values[0], dict(zip(PLANNING_FIELDS, values[1:-1], strict=True)), values[-1]
        _check_dtype(dtype, where)
        points.append(Point(name, _checked(fields, where) | {"name": base["name"]}, capacity, dtype))
    return points


def _base(grid: dict[str, Any], folder: Path, where: str) -> tuple[dict[str, Any], list[str]]:
    """Field values a grid starts from, and its capacities."""
    from cosma.accelerator.files import find_accelerator

    if "accelerator" in grid:
        named = str(grid["accelerator"])
        if named.endswith(".toml"):
            named = str(folder / named)
        accelerator = find_accelerator(named).accelerator
        if accelerator.reserved_ranges:
            raise InputError(f"{where}: accelerator {named!r} reserves ranges; a grid takes a size at the top alone")
    else:
        if "scratchpad" not in grid:
            raise InputError(f"{where}: give scratchpad (sizes, or multiples such as 1.1x) or accelerator")
        accelerator = Accelerator(scratchpad=door.UNLIMITED)
    written = expand_range(grid.get("scratchpad", accelerator.scratchpad), f"{where}: scratchpad")
    capacities = [check_capacity(value, where) for value in written]
    return {field: getattr(accelerator, field) for field in (*PLANNING_FIELDS, "name")}, capacities


def _checked(fields: dict[str, Any], where: str) -> dict[str, Any]:
    """Fields in canonical form, checked by the accelerator itself."""
    try:
        accelerator = Accelerator(scratchpad=door.UNLIMITED, **fields)
    except AcceleratorError as error:
        raise InputError(f"{where}: {error}") from error
    usual = Accelerator(scratchpad=door.UNLIMITED)
    return {
        field: msgspec.to_builtins(getattr(accelerator, field))
        for field in fields
        if field in _STATED or getattr(accelerator, field) != getattr(usual, field)
    }


def _check_dtype(dtype: Any, where: str) -> None:
    if dtype is None:
        return
    from cosma.graph.dtypes import width_bits

    try:
        width_bits(dtype)
    except CosmaError as error:
        raise InputError(f"{where}: dtype: {error}") from error
