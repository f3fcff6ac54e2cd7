"""Back ends by the name that a profile uses; each imports its library only when it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cosma.solvers.profile import Profile
    from cosma.solvers.request import BackEnd


def back_end(profile: Profile) -> BackEnd:
    """Import the back end of a profile."""
    if profile.back_end == "cp-sat":
        from cosma.solvers.cp_sat import run

        return run
    if profile.back_end in ("highs", "scip"):
        from cosma.solvers.math_opt import run as run_math_opt

        return run_math_opt
    from cosma.solvers.pulp_ import run as run_pulp

    return run_pulp
