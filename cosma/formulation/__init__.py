"""The instance as integer programs that know no solver: variables, named constraint families, objective."""

from cosma.formulation.model import Family, Model, ModelBuilder, NoOverlap
from cosma.formulation.replacement import Replacement, build_replacement

__all__ = ["Family", "Model", "ModelBuilder", "NoOverlap", "Replacement", "build_replacement"]
