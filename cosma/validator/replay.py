"""Replaying a plan: whether it is valid, and what it costs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cosma.door as door
from cosma.accelerator import Operands
from cosma.errors import GraphError, PlanInvalidError
from cosma.graph import Graph
from cosma.plan.plan import Plan
from cosma.validator.coverage import Coverage, compare
from cosma.validator.extents import check_extents
from cosma.validator.joins import check_joins, wrong_joins
from cosma.validator.machine import Machine
from cosma.validator.modes import check_modes
from cosma.validator.needs import Needs
from cosma.validator.off_chip import check_off_chip
from cosma.validator.parts import check_parts, check_tiles, unread_regions, whole_graph
from cosma.validator.states import check_states
from cosma.validator.tiles import unread_by_tiles
from cosma.validator.verdicts import ReplayReport, Verdict, Violation

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cosma.accelerator import Accelerator
    from cosma.plan.instructions import Instruction


def replay_instructions(graph: Graph, accelerator: Accelerator, instructions: Iterable[Instruction]) -> ReplayReport:
    """Run instructions against a graph and an accelerator; near-linear in their number."""
    machine = Machine(graph, accelerator)
    machine.run(instructions)
    return ReplayReport(machine.violations, machine.traffic, machine.peak_bytes, machine.transfers)


def replay(
    plan: Plan, graph: Graph | None = None, *, model: Path | str | None = None, model_sha256: str | None = None
) -> ReplayReport:
    """Check a plan, foreign ones as readily as our own.

    Besides the rules for instructions, what the plan claims is checked: its traffic, its peak, and a certificate
    that does not contradict itself. What it does not claim is counted all the same. Claims that an invalid list of
    instructions cannot keep follow from its first violation.

    Parameters
    ----------
    plan
        The plan to replay.
    graph
        The graph it must cover, where that is to be checked too, element type applied as the plan says: an operator
        for each node, or for groups of nodes that the plan's operators stand for as well. Its shapes and attributes
        then decide what may be overwritten.
    model
        The ONNX file that the graph was read from: what operators depend on of tensors that were cut is then found
        from its nodes, and what tiles depend on of anything.
    model_sha256
        Hash of the file that the graph was read from, to tell a plan for another model.
    """
    door.instance(plan, Plan, "the plan")
    if graph is not None:
        door.instance(graph, Graph, "the graph")
    coverage, senseless = _compared(plan.graph, graph)
    known = plan.graph if coverage is None else coverage.informed(plan.graph)
    report = replay_instructions(known, plan.accelerator, plan.instructions)
    impossible = check_extents(plan.graph)
    found = [
        *report.violations, *(impossible or (*check_parts(plan.graph), *check_tiles(plan.graph))),
        *check_joins(plan.graph, plan.accelerator), *senseless, *check_off_chip(plan),
        *check_states(plan),
    ]  # fmt: skip
    root = 0 if report.violations else None

    def note(verdict: Verdict, message: str) -> None:
        found.append(Violation(verdict, None, message, root))

    if "traffic" not in plan.not_claimed:
        for name in ("loaded", "stored", "streamed", "compulsory"):
            claimed, counted = getattr(plan.traffic, name), getattr(report.traffic, name)
            if claimed != counted:
                note(Verdict.TRAFFIC_MISMATCH, f"{name}: {claimed} bytes claimed, {counted} replayed")
    if "peak" not in plan.not_claimed and plan.peak_bytes != report.peak_bytes:
        note(Verdict.PEAK_MISMATCH, f"peak: {plan.peak_bytes} bytes claimed, {report.peak_bytes} replayed")
    bound, achieved = plan.certificate.lower_bound, report.traffic.noncompulsory
    for scoped in plan.certificate.bounds if "certificate" not in plan.not_claimed else ():
        if not 0 <= scoped.lower_bound <= achieved:
            note(
                Verdict.CERTIFICATE_MISMATCH,
                f"lower bound {scoped.lower_bound} ({scoped.scope}) is not within 0 and the plan's {achieved} bytes",
            )
    if "certificate" not in plan.not_claimed and not 0 <= bound <= achieved:
        note(
            Verdict.CERTIFICATE_MISMATCH, f"lower bound {bound} is not within 0 and the plan's own {achieved} bytes"
        )
    if graph is not None and coverage is not None:
        found.extend(_coverage(plan, graph, coverage, model_sha256, len(found)))
        if plan.accelerator.operands == Operands.STATIONARY:
            found.extend(check_modes(known, plan.accelerator))
        if (plan.graph.roots or plan.graph.is_tiled) and not impossible:
            shapes = {name: tensor.shape for name, tensor in graph.tensors.items() if tensor.shape is not None}
            needs = None if model is None else Needs.of_file(door.path(model, "model"), shapes)
            found.extend(unread_regions(plan.graph, graph, needs))
            found.extend(wrong_joins(plan.graph, graph, needs))
            if model is not None:
                found.extend(unread_by_tiles(plan.graph, needs))
    return ReplayReport(tuple(found), report.traffic, report.peak_bytes, report.transfers)


def _compared(planned: Graph, model: Graph | None) -> tuple[Coverage | None, tuple[Violation, ...]]:
    """Compare a plan's graph with the model's; a violation where it is no graph once roots stand for their parts."""
    if model is None:
        return None, ()
    try:
        return compare(whole_graph(planned, model), model), ()
    except GraphError as error:
        message = f"with roots in place of their parts, the plan's operators form no graph: {error}"
        return None, (Violation(Verdict.MODEL_MISMATCH, None, message),)


def counted(plan: Plan, report: ReplayReport) -> Plan:
    """Fill in what a plan does not claim with what its replay counted."""
    traffic = report.traffic if "traffic" in plan.not_claimed else plan.traffic
    peak = report.peak_bytes if "peak" in plan.not_claimed else plan.peak_bytes
    certificate = replace(plan.certificate, noncompulsory=traffic.noncompulsory)
    return replace(plan, traffic=traffic, peak_bytes=peak, certificate=certificate)


def examine(plan: Plan, name: str = "") -> tuple[Plan, ReplayReport]:
    """Replay a plan that is to be shown: the plan with what it does not claim counted, and what the replay found.

    ``name`` stands for the plan in messages; by default its model's. Raises PlanInvalidError if the plan speaks of
    tensors or operators that it does not have, so that there is nothing to show.
    """
    report = replay(plan)
    if any(v.verdict in (Verdict.UNKNOWN_NAME, Verdict.STREAMING_UNRELATED) for v in report.violations):
        raise invalid(name or plan.model_name, report)
    if not report.valid:
        # What an invalid plan says of itself is not repeated: the numbers shown are those that were counted.
        plan = replace(plan, not_claimed=plan.not_claimed | {"traffic", "peak"})
    return counted(plan, report), report


def invalid(name: str, report: ReplayReport) -> PlanInvalidError:
    """Make the error of a plan whose replay failed: a line, and the violations as details."""
    count, roots = len(report.violations), len(report.roots)
    plural = "s" if count != 1 else ""
    folded = f", {count - roots} of which follow from others" if count > roots else ""
    lines = [f"  {line}" for line in report.lines(20)]
    return PlanInvalidError(f"{name}: invalid, {count} violation{plural}{folded}").with_details(lines)


#: Differences between a plan and its model that are shown each; more of them are one line.
_MOST_DIFFERENCES = 3


def _coverage(
    plan: Plan, graph: Graph, coverage: Coverage, sha256: str | None, index: int
) -> list[Violation]:
    """Compare the plan's graph with the model's; a plan for another model is one root, whatever differs.

    ``index`` is where the first violation found here will stand.
    """
    wrong, matching = coverage.differences, coverage.matching
    other_file = sha256 is not None and plan.model_sha256 is not None and sha256 != plan.model_sha256
    if not wrong or (len(wrong) <= _MOST_DIFFERENCES and not other_file):
        return [Violation(Verdict.MODEL_MISMATCH, None, message) for message in wrong]
    hashes = "hash differs" if other_file else "no hash to compare" if plan.model_sha256 is None else "hash is the same"
    if sha256 is None:
        hashes = "no hash to compare"
    total = max(len(graph.operators), len(plan.graph.operators))
    what = "made for another model" if other_file or matching < total / 2 else "does not cover the model"
    root = f"{what}: {matching} of {total} operators match; {hashes}; first, {wrong[0]}"
    return [
        Violation(Verdict.MODEL_MISMATCH, None, root),
        *(Violation(Verdict.MODEL_MISMATCH, None, message, index) for message in wrong),
    ]
