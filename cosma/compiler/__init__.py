"""The compiler: strategies, the run they share, and the plan that comes out."""

from cosma.compiler.compile import CompileResult, compile, run_compile
from cosma.compiler.run import CompileRun, Limits, Progress

__all__ = ["CompileResult", "CompileRun", "Limits", "Progress", "compile", "run_compile"]
