"""Plans executed for real: actual kernels on actual bytes at the plan's addresses."""

from cosma.execute.execution import Execution, execute_plan
from cosma.execute.run import OutputCheck, RunReport, run_plan

__all__ = ["Execution", "OutputCheck", "RunReport", "execute_plan", "run_plan"]
