"""The instance as integer programs that know no solver: variables, named constraint families, objective."""

from cosma.formulation.joint import Joint, JointConflict, build_joint
from cosma.formulation.model import Family, Model, ModelBuilder, NoOverlap
from cosma.formulation.replacement import Conflict, Replacement, build_replacement
from cosma.formulation.symmetry import Symmetry, arrange, ordered_pairs, symmetries_of
from cosma.formulation.windows import Windows, windows_of

__all__ = [
    "Conflict",
    "Family",
    "Joint",
    "JointConflict",
    "Model",
    "ModelBuilder",
    "NoOverlap",
    "Replacement",
    "Symmetry",
    "Windows",
    "arrange",
    "build_joint",
    "build_replacement",
    "ordered_pairs",
    "symmetries_of",
    "windows_of",
]
