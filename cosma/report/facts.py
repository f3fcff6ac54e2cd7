"""What a report says in words and tables, whatever it is drawn with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cosma.plan.overheads import overhead_rows, overheads_of
from cosma.plan.tiles import root_name
from cosma.units import format_size

if TYPE_CHECKING:
    from cosma.graph import Tensor
    from cosma.plan import Plan
    from cosma.plan.timeline import Timeline
    from cosma.validator import ReplayReport

#: Rows of the table of costly tensors.
COSTLIEST = 25


@dataclass(frozen=True, slots=True)
class ExistingPlan:
    """What an existing method makes of a plan's graph."""

    #: Which method, and what it does.
    name: str
    summary: str
    #: Traffic and peak use of its plan; None where it finds none.
    total_bytes: int | None
    noncompulsory_bytes: int | None
    peak_bytes: int | None
    #: Whether it planned operators whole that the plan cuts into tiles.
    uncut: bool = False


def summary_rows(plan: Plan) -> list[tuple[str, str, str]]:
    """The plan in numbers: label, value, remark."""
    traffic, capacity = plan.traffic, plan.accelerator.capacity_bytes
    found = overheads_of(plan)
    rows = [
        ("operators", f"{found.operators:,}", f"{len(plan.instructions):,} instructions"),
        ("capacity", format_size(capacity), f"{capacity:,} B"),
        ("peak use", format_size(plan.peak_bytes), _share(plan.peak_bytes, capacity) + " of the capacity"),
        ("traffic", format_size(traffic.total), f"{traffic.total:,} B"),
        ("compulsory", format_size(traffic.compulsory), "inputs, weights, outputs once each: the least there is"),
        (
            "non-compulsory",
            format_size(traffic.noncompulsory),
            f"{traffic.noncompulsory:,} B, {_share(traffic.noncompulsory, traffic.total)} of the traffic",
        ),
        (
            "loaded / stored / streamed",
            " / ".join(format_size(x) for x in (traffic.loaded, traffic.stored, traffic.streamed)),
            "compulsory bytes included",
        ),
        *overhead_rows(found, plan.accelerator),
    ]
    if plan.stopped_by is not None:
        rows.append(("cut short", plan.stopped_by, f"{CUT_SHORT[plan.stopped_by]}; the plan is not reproducible"))
    if plan.dtype is not None:
        rows.insert(0, ("counted as", plan.dtype, "every floating-point tensor"))
    return rows


def warnings_of(report: ReplayReport, shown: int = 5) -> list[str]:
    """What a reader must know before anything else: that the plan is invalid, and why. Empty for a valid plan."""
    if report.valid:
        return []
    return [
        f"INVALID PLAN: violations of its rules, found by replay: {len(report.violations)}. It cannot be taken at its "
        "word, and nothing is proven about it; the numbers here are what the replay counted.",
        *report.lines(shown),
    ]


def status_of(plan: Plan, report: ReplayReport) -> str:
    """One word for what is known of a plan: ``invalid``, ``claimed`` (by its file), ``optimal`` or ``feasible``."""
    if not report.valid:
        return "invalid"
    return "claimed" if plan.certificate.claimed and plan.traffic.noncompulsory else plan.certificate.status


def certificate_sentence(plan: Plan, report: ReplayReport) -> str:
    """What is proven about the plan, in one sentence; a bound read from a file is a claim."""
    certificate = plan.certificate
    achieved, bound = plan.traffic.noncompulsory, certificate.lower_bound
    if not report.valid:
        return "Invalid: the replay of this plan fails, so nothing is proven about it."
    if achieved and not bound and "certificate" not in plan.not_claimed:
        return (
            f"Not proven optimal: this plan moves {format_size(achieved)} beyond the compulsory traffic, and none of "
            "that is proven to be needed."
        )
    if status_of(plan, report) == "claimed":
        return _claim(plan)
    if not achieved:
        return "Proven optimal: nothing is moved beyond the compulsory traffic."
    if certificate.status == "optimal":
        return (
            f"Proven optimal among {among_which(plan)}: none of them moves less than {format_size(bound)} beyond the "
            "compulsory traffic."
        )
    return (
        f"Not proven optimal: this plan moves {format_size(achieved)} beyond the compulsory traffic; of "
        f"{among_which(plan)}, all move at least {format_size(bound)}. The gap is {100 * certificate.gap:.1f} %."
    )


def among_which(plan: Plan) -> str:
    """What a plan's lower bound holds for."""
    scopes = {scoped.scope: scoped.lower_bound for scoped in plan.certificate.bounds}
    if scopes.get("tilings", -1) >= plan.certificate.lower_bound:
        return "plans of any tiling"
    return f"plans of {'these tiles' if 'tiling' in scopes else 'whole operators'}"


def _claim(plan: Plan) -> str:
    """What a file claims of its plan, which was replayed; nobody has verified the bound here."""
    certificate, achieved = plan.certificate, format_size(plan.traffic.noncompulsory)
    if "certificate" in plan.not_claimed:
        return f"Not proven optimal: this plan moves {achieved} beyond the compulsory traffic; no bound is claimed."
    if certificate.status == "optimal":
        return (
            f"Claimed optimal, not verified here: this plan moves {achieved} beyond the compulsory traffic, and its "
            f"file claims that none of the {among_which(plan)} moves less."
        )
    return (
        f"Not proven optimal: this plan moves {achieved} beyond the compulsory traffic; its file claims, not verified "
        f"here, that any valid plan moves at least {format_size(certificate.lower_bound)}. The gap to that is "
        f"{100 * certificate.gap:.1f} %."
    )


#: How a run was cut short, in words.
CUT_SHORT = {"time": "a time limit ended the run", "interrupt": "the run was interrupted"}


def assumptions(plan: Plan) -> list[str]:
    """What was assumed: the accelerator, the bound, the model."""
    rows = [
        f"Accelerator: {plan.accelerator.describe()}.",
        f"Lower bound{' (claimed by the file)' if plan.certificate.claimed else ''}: {plan.certificate.method}.",
        "Model: " + plan.model_name + (f", SHA-256 {plan.model_sha256}." if plan.model_sha256 else ", no ONNX file."),
    ]
    if plan.solver:
        named = (f"{key.replace('_', ' ')} {value}" for key, value in plan.solver.items())
        rows.append(f"Solver: {', '.join(named)}.")
    if plan.dtype is not None:
        rows.append(f"Every floating-point tensor is counted as {plan.dtype}, whatever the model holds.")
    return rows


def costliest(plan: Plan, timeline: Timeline, count: int = COSTLIEST) -> list[tuple[Tensor, int]]:
    """Tensors with the most non-compulsory bytes, largest first; what parts cost counts for their tensor."""
    costs: dict[str, int] = {}
    for name, cost in timeline.cost.items():
        root = root_name(plan.graph.tensors[name])
        costs[root] = costs.get(root, 0) + cost
    most = sorted(costs.items(), key=lambda item: (-item[1], item[0]))[:count]
    return [(plan.graph.tensors.get(name) or plan.graph.roots[name], cost) for name, cost in most]


def cost_rows(plan: Plan, timeline: Timeline, count: int = COSTLIEST) -> list[tuple[str, str, str, str, str]]:
    """Tensors that cost most: name, kind, size, non-compulsory bytes, share of all of them."""
    return [
        (tensor.name, str(tensor.kind), format_size(tensor.size_bytes), format_size(cost),
         _share(cost, plan.traffic.noncompulsory))
        for tensor, cost in costliest(plan, timeline, count)
    ]  # fmt: skip


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"
