"""The accelerator: capacity, rules of use, presets."""

from cosma.accelerator.accelerator import Accelerator, Fusion, Operands, Weights

__all__ = ["Accelerator", "Fusion", "Operands", "Weights"]
