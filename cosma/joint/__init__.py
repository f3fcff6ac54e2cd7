"""Order and residency in one program, with addresses or without: COSMA's formulation."""

from cosma.joint.build import build_joint
from cosma.joint.monolith import solve_monolith
from cosma.joint.program import Joint, JointConflict
from cosma.joint.size import check_supported, joint_size, supports

__all__ = [
    "Joint",
    "JointConflict",
    "build_joint",
    "check_supported",
    "joint_size",
    "solve_monolith",
    "supports",
]
