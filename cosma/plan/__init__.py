"""Plans: instructions, traffic, certificate, file format."""

from cosma.plan.instructions import Allocate, Execute, Free, Instruction, Load, Store
from cosma.plan.plan import Certificate, Plan, ScopedBound, Traffic

__all__ = [
    "Allocate",
    "Certificate",
    "Execute",
    "Free",
    "Instruction",
    "Load",
    "Plan",
    "ScopedBound",
    "Store",
    "Traffic",
]
