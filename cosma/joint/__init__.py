"""Order and residency in one program, with addresses or without: COSMA's formulation."""

from cosma.joint.build import build_joint, check_supported, joint_size, supports
from cosma.joint.monolith import solve_monolith
from cosma.joint.program import Joint, JointConflict

__all__ = [
    "Joint",
    "JointConflict",
    "build_joint",
    "check_supported",
    "joint_size",
    "solve_monolith",
    "supports",
]
