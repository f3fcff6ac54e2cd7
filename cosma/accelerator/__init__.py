"""The accelerator: capacity, rules of use, presets."""

from cosma.accelerator.accelerator import PLANNING_FIELDS, Accelerator, Fusion, Operands, Weights

__all__ = ["PLANNING_FIELDS", "Accelerator", "Fusion", "Operands", "Weights"]
