"""cosma: plans neural networks onto accelerators with a small software-managed scratchpad.

The names listed here are the public library; each is imported when it is first used, so that ``import cosma``
costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cosma.version import __version__ as __version__

if TYPE_CHECKING:
    from cosma.accelerator import Accelerator, Fusion, Operands, Weights
    from cosma.accelerator.constraint_files import read_constraints
    from cosma.accelerator.constraints import Constraints
    from cosma.accelerator.files import find_accelerator
    from cosma.compiler.compile import compile
    from cosma.compiler.limits import Progress
    from cosma.compiler.outcome import Cancellation, compile_outcome
    from cosma.compiler.result import CompileResult
    from cosma.errors import (
        AcceleratorError,
        CancelledError,
        ConstraintError,
        CosmaError,
        CosmaWarning,
        FormatError,
        GraphError,
        InfeasibleError,
        InputError,
        ModelLoadError,
        PlanInvalidError,
        SolverUnavailableError,
    )
    from cosma.export import PlanVisitor, visit
    from cosma.frontend import LoadedModel, load_onnx
    from cosma.graph import Graph, Mode, Operator, Tensor, TensorKind
    from cosma.graph.json_format import load_graph, save_graph
    from cosma.packing import Buffer, PackingResult, pack
    from cosma.plan import Allocate, Certificate, Execute, Free, Instruction, Load, Plan, ScopedBound, Store, Traffic
    from cosma.plan.file import load_plan, save_plan
    from cosma.plan.records import to_records
    from cosma.report.figure import render_figure
    from cosma.report.html import render_html
    from cosma.rewrite.tiling import Tiling
    from cosma.studies.curve import make_curve
    from cosma.studies.curve_views import render_curve
    from cosma.studies.points import Curve, CurvePoint
    from cosma.validator import ReplayReport, Verdict, Violation
    from cosma.validator.replay import replay

_HOME = {
    # the problem
    "Graph": "cosma.graph",
    "Operator": "cosma.graph",
    "Mode": "cosma.graph",
    "Tensor": "cosma.graph",
    "TensorKind": "cosma.graph",
    "load_graph": "cosma.graph.json_format",
    "save_graph": "cosma.graph.json_format",
    "load_onnx": "cosma.frontend",
    "LoadedModel": "cosma.frontend",
    "Accelerator": "cosma.accelerator",
    "Operands": "cosma.accelerator",
    "Weights": "cosma.accelerator",
    "Fusion": "cosma.accelerator",
    "find_accelerator": "cosma.accelerator.files",
    "Constraints": "cosma.accelerator.constraints",
    "read_constraints": "cosma.accelerator.constraint_files",
    # planning
    "compile": "cosma.compiler",
    "compile_outcome": "cosma.compiler",
    "CompileResult": "cosma.compiler",
    "Progress": "cosma.compiler",
    "Cancellation": "cosma.compiler",
    "Tiling": "cosma.rewrite.tiling",
    # traffic against capacity
    "make_curve": "cosma.studies.curve",
    "Curve": "cosma.studies.points",
    "CurvePoint": "cosma.studies.points",
    "render_curve": "cosma.studies.curve_views",
    # plans
    "Plan": "cosma.plan",
    "Traffic": "cosma.plan",
    "Certificate": "cosma.plan",
    "ScopedBound": "cosma.plan",
    "Instruction": "cosma.plan",
    "Load": "cosma.plan",
    "Allocate": "cosma.plan",
    "Execute": "cosma.plan",
    "Store": "cosma.plan",
    "Free": "cosma.plan",
    "load_plan": "cosma.plan.file",
    "save_plan": "cosma.plan.file",
    "visit": "cosma.export",
    "PlanVisitor": "cosma.export",
    "to_records": "cosma.plan.records",
    "render_html": "cosma.report.html",
    "render_figure": "cosma.report.figure",
    # trust
    "replay": "cosma.validator",
    "ReplayReport": "cosma.validator",
    "Verdict": "cosma.validator",
    "Violation": "cosma.validator",
    # packing on its own
    "Buffer": "cosma.packing",
    "PackingResult": "cosma.packing",
    "pack": "cosma.packing",
    # errors
    "CosmaError": "cosma.errors",
    "CosmaWarning": "cosma.errors",
    "InputError": "cosma.errors",
    "ModelLoadError": "cosma.errors",
    "GraphError": "cosma.errors",
    "AcceleratorError": "cosma.errors",
    "ConstraintError": "cosma.errors",
    "FormatError": "cosma.errors",
    "SolverUnavailableError": "cosma.errors",
    "CancelledError": "cosma.errors",
    "InfeasibleError": "cosma.errors",
    "PlanInvalidError": "cosma.errors",
}

__all__ = [  # noqa: RUF022  # grouped as above, not sorted
    "Graph",
    "Operator",
    "Mode",
    "Tensor",
    "TensorKind",
    "load_graph",
    "save_graph",
    "load_onnx",
    "LoadedModel",
    "Accelerator",
    "Operands",
    "Weights",
    "Fusion",
    "find_accelerator",
    "Constraints",
    "read_constraints",
    "compile",
    "compile_outcome",
    "CompileResult",
    "Progress",
    "Cancellation",
    "Tiling",
    "make_curve",
    "Curve",
    "CurvePoint",
    "render_curve",
    "Plan",
    "Traffic",
    "Certificate",
    "ScopedBound",
    "Instruction",
    "Load",
    "Allocate",
    "Execute",
    "Store",
    "Free",
    "load_plan",
    "save_plan",
    "visit",
    "PlanVisitor",
    "to_records",
    "render_html",
    "render_figure",
    "replay",
    "ReplayReport",
    "Verdict",
    "Violation",
    "Buffer",
    "PackingResult",
    "pack",
    "CosmaError",
    "CosmaWarning",
    "InputError",
    "ModelLoadError",
    "GraphError",
    "AcceleratorError",
    "ConstraintError",
    "FormatError",
    "SolverUnavailableError",
    "CancelledError",
    "InfeasibleError",
    "PlanInvalidError",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cosma' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__"})
