"""The request of a compile: read and checked, before anything is planned."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, SupportsIndex, TypedDict

import cosma.door as door
from cosma.accelerator.constraint_files import read_constraints
from cosma.accelerator.constraints import Constraints
from cosma.accelerator.files import as_accelerator
from cosma.compiler.limits import Limits
from cosma.compiler.starts import GivenPlan, load_starts
from cosma.compiler.strategies import WITH_SOLVER, WITH_STARTS, Strategy, find_strategy
from cosma.errors import InputError, warn
from cosma.parameters import read_parameters
from cosma.parameters.compiler import CompileParameters
from cosma.problem import build_problem
from cosma.rewrite import count_as
from cosma.rewrite.constraints import expand
from cosma.rewrite.state import with_states

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cosma.accelerator import Accelerator
    from cosma.accelerator.files import Preset
    from cosma.frontend import LoadedModel
    from cosma.graph import Graph
    from cosma.plan import Plan
    from cosma.rewrite.tiling import Tiling
    from cosma.solvers import Profile


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A network, a machine and how to plan the one on the other."""

    #: The model.
    source: LoadedModel
    #: Its graph, element type applied and states noted, before fusion.
    graph: Graph
    #: Graph outputs that are to be the next values of graph inputs, each with its input.
    states: Mapping[str, str]
    #: The machine, with constraints by exact names.
    accelerator: Accelerator
    #: How to look for a plan.
    strategy: Strategy
    limits: Limits
    seed: int
    profile: Profile | None
    parameters: CompileParameters
    #: Element type that floating-point tensors are counted in; None for their own.
    dtype: str | None
    #: Plans to start from.
    starts: tuple[GivenPlan, ...]
    #: How operators are to be cut.
    tiling: Tiling | Path | str | None

    @property
    def counts_effort(self) -> bool:
        """Whether the strategy does more with more effort."""
        return self.strategy.name in WITH_STARTS and self.strategy.name != "existing"

    @property
    def compares(self) -> bool:
        """Whether the result states the traffic of existing methods."""
        return self.counts_effort or self.strategy.name == "existing"


class RequestOptions(TypedDict, total=False):
    """Options of :func:`cosma.compile`, which explains them."""

    strategy: str
    seed: SupportsIndex
    dtype: str | None
    dims: Mapping[str, SupportsIndex] | None
    bounds: Mapping[str, SupportsIndex] | None
    solver: str | None
    starts: Sequence[Plan | Path | str]
    states: Mapping[str, str] | None
    parameters: CompileParameters | Path | str | None
    constraints: Constraints | Path | str | None
    tiling: Tiling | Path | str | None


def read_request(
    model: Graph | LoadedModel | Path | str,
    accelerator: Accelerator | Preset | Path | str,
    limits: Limits,
    *,
    strategy: str = "auto",
    seed: SupportsIndex = 0,
    dtype: str | None = None,
    dims: Mapping[str, SupportsIndex] | None = None,
    bounds: Mapping[str, SupportsIndex] | None = None,
    solver: str | None = None,
    starts: Sequence[Plan | Path | str] = (),
    tiling: Tiling | Path | str | None = None,
    states: Mapping[str, str] | None = None,
    parameters: CompileParameters | Path | str | None = None,
    constraints: Constraints | Path | str | None = None,
) -> Request:
    """Read and check the arguments; they and the errors are those of :func:`cosma.compile`."""
    seed = door.seed(seed)
    machine = as_accelerator(accelerator)
    chosen = find_strategy(door.text(strategy, "strategy"))
    tuned = _read_parameters(parameters)
    source = read_model(model, dims, bounds)
    graph = count_as(source.graph, dtype).graph
    forced = machine.constraints if constraints is None else read_constraints(constraints)
    machine = machine.replace(constraints=expand(forced, graph, machine))
    graph = with_states(graph, states or {})
    given = tuple(door.items(starts, "starts (a sequence of plans or paths, even of one)"))
    if given and strategy not in WITH_STARTS:
        raise InputError(f"starts are for the strategies {', '.join(WITH_STARTS)}; {strategy} takes none")
    profile = None if solver is None else _read_profile(solver, strategy)
    return Request(
        source, graph, dict(states or {}), machine, chosen, limits, seed, profile, tuned, dtype, load_starts(given),
        tiling,
    )


def read_model(
    model: Graph | LoadedModel | Path | str,
    dims: Mapping[str, SupportsIndex] | None = None,
    bounds: Mapping[str, SupportsIndex] | None = None,
) -> LoadedModel:
    """Resolve the given model; a graph that is no ONNX file has no hash and no dimensions."""
    from cosma.frontend import LoadedModel, load_onnx
    from cosma.graph import Graph

    if isinstance(model, str | os.PathLike):
        if not str(door.path(model, "model")).endswith(".json"):
            return load_onnx(model, dims=dims, bounds=bounds)
        from cosma.graph.json_format import load_graph

        model = load_graph(model)
    if isinstance(model, Graph):
        if dims or bounds:
            given = ", ".join(map(repr, (*(dims or {}), *(bounds or {}))))
            raise InputError(f"the sizes of a graph are numbers, so nothing can be bound: leave out {given}")
        return LoadedModel(model, model.name, None)
    return door.instance(model, LoadedModel, "the model (or a Graph, or a path)")


def _read_profile(solver: str, strategy: str) -> Profile:
    if strategy not in WITH_SOLVER:
        raise InputError(f"a solver is for the strategies {', '.join(WITH_SOLVER)}; {strategy} takes none")
    from cosma.solvers import load_profile

    return load_profile(door.text(solver, "solver"))


def _read_parameters(given: CompileParameters | Path | str | None) -> CompileParameters:
    if given is None:
        return CompileParameters()
    if isinstance(given, str | Path):
        return read_parameters(given, CompileParameters)
    return door.instance(given, CompileParameters, "parameters")


def warn_of_odd_fit(request: Request) -> None:
    """Warn where nothing can lie in the scratchpad: hardly anyone means that."""
    if request.tiling not in (None, "none"):
        return  # parts of tensors can
    # Tensors that constraints keep out by name are kept out on purpose.
    accelerator = request.accelerator
    entries = [entry for entry in accelerator.constraints.entries if entry.field != "never_on_chip"]
    problem = build_problem(request.graph, accelerator.replace(constraints=Constraints.of(entries)))
    spaces = [int(space) for space in problem.space_bytes if space]
    if not problem.streamable or not spaces or min(spaces) <= problem.capacity_bytes:
        return
    if accelerator.alignment > accelerator.scratchpad:
        why = f"the alignment of {accelerator.alignment} bytes exceeds the scratchpad of {accelerator.scratchpad}"
    elif problem.capacity_bytes == 0:
        why = (
            f"{accelerator.reserved} of {accelerator.scratchpad} bytes are reserved, and the rest holds no multiple of "
            f"the alignment of {accelerator.alignment}"
        )
    else:
        why = f"the smallest tensor takes {min(spaces)} bytes, {problem.capacity_bytes} are available"
    warn(f"everything is streamed: {why}")
