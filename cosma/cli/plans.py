"""Plans as commands take them: replayed before anything is said of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cosma.frontend import LoadedModel
    from cosma.graph import Graph
    from cosma.plan import Plan


def graph_of(model: Path, plan: Plan, sizes: Mapping[str, int]) -> tuple[Graph, str | None]:
    """The graph of a plan's model for the sizes that the plan was made for, and the hash of the file."""
    from cosma.compiler.request import read_model

    source = read_model(model, plan.sizes(sizes))
    graph = source.finest_graph if plan.dtype is None else source.finest_graph.with_dtype(plan.dtype)
    return graph, source.sha256


def model_of(plan: Plan, model: Path, sizes: Mapping[str, int]) -> LoadedModel:
    """Read a plan's model for the sizes that the plan was made for.

    Raises InputError if it is another model.
    """
    from cosma.compiler.request import read_model
    from cosma.errors import InputError

    source = read_model(model, plan.sizes(sizes))
    if plan.model_sha256 is not None and source.sha256 != plan.model_sha256:
        raise InputError(f"{model} is not the model that the plan was made from: its SHA-256 differs")
    return source


def load_valid_plan(path: Path, model: Path | None = None, sizes: Mapping[str, int] | None = None) -> Plan:
    """Read a plan and replay it, against its model where that is given; what the file does not claim is counted.

    Raises PlanInvalidError if the replay fails; its details say how.
    """
    from cosma.plan.file import load_plan
    from cosma.validator import counted, invalid, replay

    plan = load_plan(path)
    report = replay(plan)
    if model is not None and report.valid:
        graph, sha256 = graph_of(model, plan, sizes or {})
        report = replay(plan, graph, model=model, model_sha256=sha256)
    if not report.valid:
        raise invalid(str(path), report)
    return counted(plan, report)


def reservations(plan: Plan) -> list[str]:
    """What must be said of a valid plan wherever it is shown: a clock cut it short, a bound is only claimed."""
    from cosma.report.facts import CUT_SHORT
    from cosma.units import format_size

    said = []
    if plan.stopped_by is not None:
        said.append(f"{CUT_SHORT[plan.stopped_by]}, so this plan is not reproducible")
    if plan.certificate.claimed and plan.traffic.noncompulsory:
        if "certificate" in plan.not_claimed:
            said.append("the file claims no lower bound; `cosma check --prove` computes one")
        else:
            bound = format_size(plan.certificate.lower_bound)
            said.append(f"the lower bound of {bound} is the file's claim; `cosma check --prove` computes one")
    return said
