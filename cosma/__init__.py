"""cosma: plans neural networks onto accelerators with a small software-managed scratchpad.

The names listed here are the public library; each is imported when it is first used, so that ``import cosma``
costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.lazy import NamesFrom
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
        TimeLimitError,
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
    "TimeLimitError",
    "InfeasibleError",
    "PlanInvalidError",
]

__getattr__ = NamesFrom(__name__, {
    "graph": "Graph Operator Mode Tensor TensorKind",
    "graph.json_format": "load_graph save_graph",
    "frontend": "load_onnx LoadedModel",
    "accelerator": "Accelerator Operands Weights Fusion",
    "accelerator.files": "find_accelerator",
    "accelerator.constraints": "Constraints",
    "accelerator.constraint_files": "read_constraints",
    "compiler": "compile compile_outcome CompileResult Progress Cancellation",
    "rewrite.tiling": "Tiling",
    "studies.curve": "make_curve",
    "studies.points": "Curve CurvePoint",
    "studies.curve_views": "render_curve",
    "plan": "Plan Traffic Certificate ScopedBound Instruction Load Allocate Execute Store Free",
    "plan.file": "load_plan save_plan",
    "export": "visit PlanVisitor",
    "plan.records": "to_records",
    "report.html": "render_html",
    "report.figure": "render_figure",
    "validator": "replay ReplayReport Verdict Violation",
    "packing": "Buffer PackingResult pack",
    "errors": (
        "CosmaError CosmaWarning InputError ModelLoadError GraphError AcceleratorError ConstraintError "
        "FormatError SolverUnavailableError CancelledError TimeLimitError InfeasibleError PlanInvalidError"
    ),
})  # fmt: skip


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__"})
