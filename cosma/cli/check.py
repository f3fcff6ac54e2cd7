"""``cosma check``: replay anyone's plan, and bound it anew where asked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cosma.cli import options
from cosma.errors import InputError
from cosma.text import counted

if TYPE_CHECKING:
    from cosma.graph import Graph
    from cosma.plan import Plan
    from cosma.validator import ReplayReport


def check(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.json", help="A plan file, ours or a foreign one.")],
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL", help="Also check that the plan covers this model.")
    ] = None,
    constraints: options.ConstraintsFile = None,
    dim: options.Dim = None,
    bound: options.Bound = None,
    prove: Annotated[
        bool, typer.Option("--prove", help="Compute a lower bound here, instead of repeating the file's claim.")
    ] = False,
    effort: Annotated[
        float | None,
        typer.Option("--effort", metavar="N", help="For --prove: work to spend, as for compile.", show_default="10"),
    ] = None,
    json: options.Json = False,
) -> None:
    """Replay a plan: is it valid, and does it cost what it says?

    A lower bound in the file is a claim; --prove computes one from the plan's own network and accelerator. Exit code
    0 if the plan is valid, proven optimal or not; 4 if it is invalid, or claims a bound that is shown to be false.
    """
    from cosma.cli.output import print_json, print_lines
    from cosma.cli.plans import graph_of
    from cosma.plan.file import load_plan
    from cosma.validator import counted, invalid, replay

    if model is None:
        options.only_with("MODEL", {"--dim": dim, "--bound": bound})
    if not prove:
        options.only_with("--prove", {"--effort": effort})
    loaded = load_plan(plan)
    sizes = options.parse_sizes(dim, bound)
    graph, sha256 = (None, None) if model is None else graph_of(model, loaded, sizes)
    if constraints is not None:
        loaded = _forced(loaded, graph, constraints)
    report = replay(loaded, graph, model=model, model_sha256=sha256)
    valid = counted(loaded, report)
    proof = _prove(valid, graph, 10.0 if effort is None else effort, model, sizes) if prove and report.valid else None
    if json:
        print_json(_record(loaded, report, proof))
    elif report.valid:
        print_lines("\n".join(_lines(valid, report, model, proof)))
    if not report.valid:
        raise invalid(str(plan), report)
    if proof is not None and proof.refuted:
        from cosma.errors import PlanInvalidError

        raise PlanInvalidError(
            f"{plan}: its certificate is false: it claims that no valid plan moves less than "
            f"{loaded.certificate.lower_bound} bytes beyond the compulsory traffic, and one that moves "
            f"{proof.best} was found"
        )


def _forced(plan: Plan, graph: Graph | None, path: Path) -> Plan:
    """The plan as if it had been made under the constraints of a file, beside those that it says it keeps to."""
    from cosma.accelerator.constraint_files import read_constraints
    from cosma.accelerator.constraints import Constraints
    from cosma.rewrite.constraints import expand, resolve

    network = plan.graph if graph is None else graph
    asked = resolve(expand(read_constraints(path), network, plan.accelerator), plan.graph)
    entries = dict.fromkeys((*plan.accelerator.constraints.entries, *asked.entries))
    return replace(plan, accelerator=plan.accelerator.replace(constraints=Constraints.of(entries)))


@dataclass(frozen=True, slots=True)
class _Proof:
    """A bound computed here for a plan that was replayed valid."""

    #: The bound, and how it was found.
    lower_bound: int
    method: str
    #: What the plan moves, and the bound its file claims, if any.
    achieved: int
    claimed: int | None
    #: What the best plan known now moves: the plan's own figure, or less.
    best: int
    #: Whether the computation was cut short.
    interrupted: bool

    @property
    def optimal(self) -> bool:
        """Whether the plan is proven optimal."""
        return self.lower_bound >= self.achieved

    @property
    def refuted(self) -> bool:
        """Whether a plan below the claimed bound is known."""
        return self.claimed is not None and self.best < self.claimed


def _prove(
    plan: Plan, graph: Graph | None, effort: float, model: Path | None, dims: dict[str, int]
) -> _Proof:
    """Bound the plan's traffic, and look for a plan that moves less: it would refute a bound that is too high."""
    from cosma.accelerator import Fusion, Operands
    from cosma.cli.interrupts import Interruption
    from cosma.compiler import Limits, run_compile
    from cosma.validator.coverage import compare

    achieved = plan.traffic.noncompulsory
    claimed = None if "certificate" in plan.not_claimed else plan.certificate.lower_bound
    # The plan's operators are fused already.
    accelerator = plan.accelerator.replace(fusion=Fusion.NONE)
    # A plan of tiles is bounded among the plans of its tiles.
    network = plan.graph if graph is None or plan.graph.roots else compare(plan.graph, graph).informed(plan.graph)
    if plan.accelerator.operands == Operands.STATIONARY:
        network = _with_all_modes(network, plan, graph, model, dims)
    try:
        with Interruption() as interruption:
            found = run_compile(
                network, accelerator, limits=Limits(effort=effort), starts=[plan],
                interrupted=interruption.happened, on_interrupt="best",
            )  # fmt: skip
    except KeyboardInterrupt:
        return _Proof(0, "interrupted", achieved, claimed, achieved, True)
    certificate, best = found.plan.certificate, found.plan.traffic.noncompulsory
    interrupted = found.stopped_by == "interrupt"
    return _Proof(certificate.lower_bound, certificate.method, achieved, claimed, min(best, achieved), interrupted)


def _with_all_modes(
    network: Graph, plan: Plan, graph: Graph | None, model: Path | None, dims: dict[str, int]
) -> Graph:
    """The plan's network with every mode of its operators: a bound among the modes it chose would say too much."""
    from cosma.access.modes import with_modes
    from cosma.compiler.request import read_model
    from cosma.rewrite.tile_modes import with_tile_modes
    from cosma.validator.coverage import compare
    from cosma.validator.parts import whole_graph

    if model is None:
        raise InputError(
            "--prove of a plan with operands = stationary needs the model: it says in which ways operators can run"
        )
    bare = network.replace(operators=(replace(o, modes=()) for o in network.operators))
    sites = read_model(model, plan.sizes(dims)).sites
    keep = plan.accelerator.weights == "scratchpad"
    if not bare.roots or graph is None:
        return with_modes(bare, sites, keep_weights=keep)
    # Of what was cut, the model says how it runs whole.
    whole = compare(whole_graph(bare, graph), graph).graph
    return with_tile_modes(bare, with_modes(whole, sites, keep_weights=keep))


def _lines(plan: Plan, report: ReplayReport, model: Path | None, proof: _Proof | None) -> list[str]:
    from cosma.cli.plans import reservations
    from cosma.plan.tiles import untiled_name
    from cosma.text import plain
    from cosma.units import format_size

    covers = f", covers {plain(str(model))}" if model is not None else ""
    traffic = report.traffic
    steps = counted(len({untiled_name(operator) for operator in plan.graph.operators}), "operator")
    if plan.graph.is_tiled:
        steps = f"{counted(len(plan.graph.operators), 'tile')} of {steps}"
    lines = [
        f"valid: {counted(len(plan.instructions), 'instruction')}, "
        f"{steps}{covers}; "
        f"non-compulsory {format_size(traffic.noncompulsory)} of {format_size(traffic.total)} traffic, "
        f"peak {format_size(report.peak_bytes)}"
    ]
    missing = [key for key in ("traffic", "peak", "certificate") if key in plan.not_claimed]
    if missing:
        lines.append(f"not claimed by the file: {', '.join(missing)}")
    if proof is None:
        return [*lines, *map(plain, reservations(plan))]
    lines += [plain(said) for said in reservations(plan) if "--prove" not in said]
    bound = f"the lower bound computed here is {format_size(proof.lower_bound)} ({plain(proof.method)})"
    if proof.interrupted:
        bound += "; interrupted, so it may be weaker than it could be"
    if proof.optimal:
        lines.append(f"proven optimal: {bound}")
    else:
        gap = 100 * (proof.achieved - proof.lower_bound) / proof.achieved
        lines.append(f"not proven optimal: {bound}, a gap of {gap:.1f} %")
    if proof.best < proof.achieved:
        lines.append(f"a plan that moves {format_size(proof.best)} was found, so this one is not optimal")
    if proof.claimed is not None and not proof.refuted and proof.claimed > proof.lower_bound:
        lines.append(f"the file's claim of {format_size(proof.claimed)} is neither proven nor refuted")
    return lines


def _record(plan: Plan, report: ReplayReport, proof: _Proof | None) -> dict[str, Any]:
    traffic, certificate = report.traffic, plan.certificate
    record: dict[str, Any] = {
        "valid": report.valid,
        "violations": [
            {"verdict": v.verdict, "instruction": v.instruction, "message": v.message, "follows": v.follows}
            for v in report.violations
        ],
        "roots": len(report.roots),
        "traffic": {
            "total": traffic.total,
            "compulsory": traffic.compulsory,
            "noncompulsory": traffic.noncompulsory,
            "loaded": traffic.loaded,
            "stored": traffic.stored,
            "streamed": traffic.streamed,
        },
        "peak": report.peak_bytes,
        "transfers": report.transfers,
        "not_claimed": sorted(plan.not_claimed),
        "claimed": None
        if "certificate" in plan.not_claimed
        else {"status": certificate.status, "lower_bound": certificate.lower_bound, "method": certificate.method},
        "stopped_by": plan.stopped_by,
        "reproducible": plan.reproducible,
    }
    if proof is not None:
        record["proof"] = {
            "status": "optimal" if proof.optimal else "feasible",
            "lower_bound": proof.lower_bound,
            "method": proof.method,
            "best_known": proof.best,
            "claim_refuted": proof.refuted,
            "interrupted": proof.interrupted,
        }
    return record
