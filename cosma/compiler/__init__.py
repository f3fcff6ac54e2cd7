"""The compiler: strategies, the run they share, and the plan that comes out."""

from cosma.compiler.compile import compile, run_compile
from cosma.compiler.limits import Limits, Progress
from cosma.compiler.outcome import Cancellation, compile_outcome
from cosma.compiler.result import CompileResult
from cosma.compiler.run import CompileRun

__all__ = [
    "Cancellation",
    "CompileResult",
    "CompileRun",
    "Limits",
    "Progress",
    "compile",
    "compile_outcome",
    "run_compile",
]
