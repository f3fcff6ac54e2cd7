"""From decisions (order, residencies) to a plan's instructions, and back: packing, repair, emission, lifting."""

from cosma.lowering.buffers import slots_of
from cosma.lowering.lift import lift, lift_order, lift_realised
from cosma.lowering.realise import PACKING_WORK, Realised, realise, try_realise
from cosma.lowering.sections import packing_loss, realise_in_sections

__all__ = [
    "PACKING_WORK",
    "Realised",
    "lift",
    "lift_order",
    "lift_realised",
    "packing_loss",
    "realise",
    "realise_in_sections",
    "slots_of",
    "try_realise",
]
