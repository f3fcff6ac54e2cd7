"""Plans executed for real: actual kernels on actual bytes at the plan's addresses."""

from cosma.execute.run import OutputCheck, RunReport, run_plan

__all__ = ["OutputCheck", "RunReport", "run_plan"]
