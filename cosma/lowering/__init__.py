"""From decisions (order, residencies) to a plan's instructions: packing, repair, emission."""

from cosma.lowering.buffers import chains_of
from cosma.lowering.realise import Realised, realise, try_realise
from cosma.lowering.sections import packing_loss, realise_in_sections

__all__ = ["Realised", "chains_of", "packing_loss", "realise", "realise_in_sections", "try_realise"]
