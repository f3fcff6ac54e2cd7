"""From decisions (order, residencies) to a plan's instructions, and back: packing, repair, emission, lifting."""

from cosma.lowering.buffers import apart, excluded_from, slots_of
from cosma.lowering.lift import lift, lift_order, lift_realised, lift_with_addresses
from cosma.lowering.realise import Realised, realise, try_realise
from cosma.lowering.repair import NoAddressesError
from cosma.lowering.sections import packing_loss, realise_in_sections
from cosma.parameters.lowering import LoweringParameters

__all__ = [
    "LoweringParameters",
    "NoAddressesError",
    "Realised",
    "apart",
    "excluded_from",
    "lift",
    "lift_order",
    "lift_realised",
    "lift_with_addresses",
    "packing_loss",
    "realise",
    "realise_in_sections",
    "slots_of",
    "try_realise",
]
