"""Back ends behind one small interface: :func:`solve`. Each imports its library only when it runs."""

from cosma.solvers.export import export_model
from cosma.solvers.interface import solve, supports
from cosma.solvers.profile import BACK_ENDS, EXACT_PROFILE, Profile, list_profiles, load_profile, work_units
from cosma.solvers.result import SolverResult, Status, Stop

__all__ = [
    "BACK_ENDS",
    "EXACT_PROFILE",
    "Profile",
    "SolverResult",
    "Status",
    "Stop",
    "export_model",
    "list_profiles",
    "load_profile",
    "solve",
    "supports",
    "work_units",
]
