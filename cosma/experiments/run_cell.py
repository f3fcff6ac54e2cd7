"""One cell, run in this process: read the model, resolve the capacity, compile, describe what came out."""

from __future__ import annotations

import hashlib
import resource
import sys
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cosma.errors import CosmaError, InfeasibleError, InputError
from cosma.experiments.capacity import resolve_capacity
from cosma.experiments.cell import Cell
from cosma.experiments.environment import environment
from cosma.experiments.row import Row

if TYPE_CHECKING:
    from cosma.compiler import CompileResult, Progress
    from cosma.graph import Graph

#: Models kept in memory by a process that runs many cells.
CACHED_MODELS = 4


class Outcome(msgspec.Struct, frozen=True):
    """A row, and the plan file's text where the cell asks for it."""

    row: Row
    plan: str | None = None


class _Model(msgspec.Struct):
    name: str
    graph: Graph
    recounted: dict[str, Graph]
    #: Capacities worked out so far: of cells that differ in strategy or seed alone, the first does it.
    capacities: dict[str, int]


_models: OrderedDict[tuple[str, str, str], _Model] = OrderedDict()


def run_cell(cell: Cell) -> Outcome:
    """Run a cell; whatever cosma refuses becomes a row with the reason.

    Only errors that are no verdict on the cell (defects, memory) propagate: the process that runs cells turns
    them into rows too, see :mod:`cosma.experiments.worker`.
    """
    _reset_peak_memory()
    started = time.monotonic()
    try:
        model = _read(cell)
        load_seconds = time.monotonic() - started
        graph = _recounted(model, cell.dtype)
        scratchpad = _scratchpad(model, cell, graph)
    except CosmaError as error:
        return Outcome(failure(cell, "error", str(error)))
    facts: dict[str, Any] = {
        "scratchpad": scratchpad,
        "operators": len(graph.operators),
        "tensors": len(graph.tensors),
        "load_seconds": round(load_seconds, 4),
    }
    watch = _Watch()
    cpu_s, wall_s = time.process_time(), time.monotonic()
    try:
        result = _compile(cell, graph, scratchpad, watch)
    except InfeasibleError as error:
        return Outcome(failure(cell, "infeasible", str(error), **facts))
    except CosmaError as error:
        return Outcome(failure(cell, "error", f"{type(error).__name__}: {error}", **facts))
    facts["seconds"] = round(time.monotonic() - wall_s, 4)
    facts["cpu_seconds"] = round(time.process_time() - cpu_s, 4)
    facts["rss"] = _peak_memory()
    text = _plan_text(cell, model.name, result)
    return Outcome(_planned(cell, result, text, watch, facts), text if cell.keep_plan else None)


def failure(cell: Cell, status: str, reason: str, **facts: Any) -> Row:
    """Describe a cell that has no plan, and why."""
    return Row(**describe(cell), status=status, reason=reason, **facts)


def describe(cell: Cell) -> dict[str, Any]:
    """Columns of a row that are known before the cell runs."""
    here = environment()
    fields = {key: value for key, value in cell.accelerator.items() if key != "name"}
    return {
        "key": cell.key(here["cosma"]),
        "point": cell.point(),
        "instance": cell.instance(),
        "model": cell.model,
        "group": cell.group,
        "model_sha256": cell.model_sha256,
        "dims": " ".join(f"{name}={size}" for name, size in sorted(cell.dims.items())),
        "grid": cell.grid,
        "accelerator": cell.accelerator.get("name"),
        "capacity": cell.capacity,
        **fields,
        "dtype": cell.dtype,
        "label": cell.label,
        "strategy": cell.strategy,
        "solver": None if cell.solver is None else Path(cell.solver).stem,
        "effort": cell.effort,
        "gap_target": cell.gap,
        "time_limit_s": cell.time_limit_s,
        "seed": cell.seed,
        "repeat": cell.repeat,
        "limit_s": cell.limit_s,
        "memory_limit": cell.memory_bytes,
        **here,
    }


class _Watch:
    """Notes when the first and the best plan appeared."""

    def __init__(self) -> None:
        self.first_s: float | None = None
        self.best_s: float | None = None
        self._best_bytes: int | None = None

    def __call__(self, progress: Progress) -> None:
        if self.first_s is None:
            self.first_s = progress.seconds
        if self._best_bytes is None or progress.noncompulsory_bytes < self._best_bytes:
            self._best_bytes, self.best_s = progress.noncompulsory_bytes, progress.seconds


def _read(cell: Cell) -> _Model:
    """Read a model, or take it from the few read last; the file must still be the one that was listed."""
    key = (cell.path, cell.model_sha256, repr(sorted(cell.dims.items())))
    if key in _models:
        _models.move_to_end(key)
        return _models[key]
    from cosma.compiler.request import read_model

    try:
        found = hashlib.sha256(Path(cell.path).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"model {cell.path}: cannot be read: {error.strerror or error}") from error
    if found != cell.model_sha256:
        raise InputError(f"model {cell.path} has changed since the sweep began; run the sweep again")
    source = read_model(cell.path, cell.dims)
    while len(_models) >= CACHED_MODELS:
        _models.popitem(last=False)
    return _models.setdefault(key, _Model(source.name, source.graph, {}, {}))


def _recounted(model: _Model, dtype: str | None) -> Graph:
    if dtype is None:
        return model.graph
    if dtype not in model.recounted:
        model.recounted[dtype] = model.graph.with_dtype(dtype)
    return model.recounted[dtype]


def _scratchpad(model: _Model, cell: Cell, graph: Graph) -> int:
    key = repr((cell.dtype, cell.capacity, sorted(cell.accelerator.items())))
    if key not in model.capacities:
        model.capacities[key] = resolve_capacity(cell.capacity, graph, cell.accelerator)
    return model.capacities[key]


def _compile(cell: Cell, graph: Graph, scratchpad: int, watch: _Watch) -> CompileResult:
    from cosma.accelerator import Accelerator
    from cosma.compiler import Limits, run_compile

    options: dict[str, Any] = {} if cell.solver is None else {"solver": cell.solver}
    return run_compile(
        graph,
        Accelerator(scratchpad=scratchpad, **cell.accelerator),
        strategy=cell.strategy,
        limits=Limits(effort=cell.effort, time_limit_s=cell.time_limit_s, gap=cell.gap),
        seed=cell.seed,
        sink=watch,
        **options,
    )


def _plan_text(cell: Cell, name: str, result: CompileResult) -> str:
    """Write the plan as `cosma compile` would, model hash, sizes of dimensions and element type included."""
    import dataclasses

    from cosma.plan.file import plan_to_json

    # The compile was given a graph already read and recounted, so it could not know these.
    known: dict[str, Any] = {"model_name": name, "dtype": cell.dtype}
    if cell.path.endswith(".onnx"):
        known |= {"model_sha256": cell.model_sha256, "dims": cell.dims}
    return plan_to_json(dataclasses.replace(result.plan, **known))


def _planned(cell: Cell, result: CompileResult, text: str, watch: _Watch, facts: dict[str, Any]) -> Row:
    plan = result.plan
    traffic, certificate = plan.traffic, plan.certificate
    return Row(
        **describe(cell),
        status=certificate.status,
        total=traffic.total,
        compulsory=traffic.compulsory,
        noncompulsory=traffic.noncompulsory,
        loaded=traffic.loaded,
        stored=traffic.stored,
        streamed=traffic.streamed,
        peak=plan.peak_bytes,
        lower_bound=certificate.lower_bound,
        gap=certificate.gap,
        bound_method=certificate.method,
        found_by=result.found_by,
        stopped_by=result.stopped_by,
        reproducible=result.reproducible,
        plan_sha256=hashlib.sha256(text.encode("utf-8")).hexdigest(),
        seconds_first=_rounded(watch.first_s),
        seconds_best=_rounded(watch.best_s),
        **facts,
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)


def _reset_peak_memory() -> None:
    """Start counting peak resident memory anew, where the system can (Linux)."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as control:
            control.write("5")
    except OSError:
        # Not Linux, or not allowed: the peak is then that of the process so far.
        return


def _peak_memory() -> int:
    """Peak resident memory in bytes since the last reset."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
