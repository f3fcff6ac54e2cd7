"""Replaying a plan: whether it is valid, and what it costs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cosma.door as door
from cosma.graph import Graph
from cosma.plan.plan import Plan
from cosma.validator.machine import Machine
from cosma.validator.needs import Needs
from cosma.validator.parts import check_parts, unread_regions, whole_graph
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
    return ReplayReport(tuple(machine.violations), machine.traffic, machine.peak_bytes, machine.transfers)


def replay(plan: Plan, graph: Graph | None = None, *, model: Path | str | None = None) -> ReplayReport:
    """Check a plan, foreign ones as readily as our own.

    Besides the rules for instructions, what the plan claims is checked: its traffic, its peak, and a
    certificate that does not contradict itself.

    Parameters
    ----------
    plan
        The plan to replay.
    graph
        The graph it must cover, where that is to be checked too: the same operators over the same tensors,
        with fusion and element type applied as the plan says.
    model
        The ONNX file that the graph was read from: what operators depend on of tensors that were cut is then found
        from its nodes.
    """
    door.instance(plan, Plan, "the plan")
    if graph is not None:
        door.instance(graph, Graph, "the graph")
    report = replay_instructions(plan.graph, plan.accelerator, plan.instructions)
    found = [*report.violations, *check_parts(plan.graph)]
    for name in ("loaded", "stored", "streamed", "compulsory"):
        claimed, counted = getattr(plan.traffic, name), getattr(report.traffic, name)
        if claimed != counted:
            found.append(
                Violation(Verdict.TRAFFIC_MISMATCH, None, f"{name}: {claimed} bytes claimed, {counted} replayed")
            )
    if plan.peak_bytes != report.peak_bytes:
        found.append(
            Violation(
                Verdict.PEAK_MISMATCH, None, f"peak: {plan.peak_bytes} bytes claimed, {report.peak_bytes} replayed"
            )
        )
    bound = plan.certificate.lower_bound
    if bound > report.traffic.noncompulsory or bound < 0:
        found.append(
            Violation(
                Verdict.CERTIFICATE_MISMATCH,
                None,
                f"lower bound {bound} is not within 0 and the plan's own {report.traffic.noncompulsory} bytes",
            )
        )
    if graph is not None:
        found.extend(_coverage(replace(plan, graph=whole_graph(plan.graph)), graph))
        if plan.graph.roots:
            needs = None if model is None else Needs.of_file(door.path(model, "model"))
            found.extend(unread_regions(plan.graph, graph, needs))
    return ReplayReport(tuple(found), report.traffic, report.peak_bytes, report.transfers)


def _coverage(plan: Plan, graph: Graph) -> list[Violation]:
    """Compare the plan's graph with the model's, operators matched by the ONNX nodes they cover or by name."""
    wrong: list[str] = []
    theirs = plan.graph.tensors
    needed = {name for operator in graph.operators for name in (*operator.operands, *operator.outputs)}
    for name in sorted(needed):
        tensor = graph.tensors[name]
        claimed = theirs.get(name)
        if claimed is None:
            wrong.append(f"tensor {name!r} of the model is missing")
        elif (claimed.size_bytes, claimed.kind) != (tensor.size_bytes, tensor.kind):
            wrong.append(
                f"tensor {name!r} is a {tensor.kind} of {tensor.size_bytes} bytes in the model, a {claimed.kind} of "
                f"{claimed.size_bytes} in the plan"
            )
        elif claimed.rows != tensor.rows:
            table = "no row set" if tensor.rows is None else f"rows of {tensor.rows.table!r} by {tensor.rows.indices}"
            wrong.append(f"tensor {name!r} is {table} in the model; the plan says otherwise")
    planned = {operator.outputs: operator for operator in plan.graph.operators}
    for operator in graph.operators:
        match = planned.pop(operator.outputs, None)
        if match is None:
            wrong.append(f"operator {operator.name!r} ({operator.type}) of the model is missing")
        elif (set(match.inputs), set(match.weights)) != (set(operator.inputs), set(operator.weights)):
            wrong.append(f"operator {operator.name!r} reads other tensors in the model than in the plan")
        elif match.type != operator.type:
            wrong.append(f"operator {operator.name!r} is a {operator.type} in the model, a {match.type} in the plan")
    wrong.extend(f"operator {operator.name!r} is not in the model" for operator in planned.values())
    return [Violation(Verdict.MODEL_MISMATCH, None, message) for message in wrong]
