"""From decisions (order, residencies) to a plan's instructions: packing, repair, emission."""

from cosma.lowering.buffers import chains_of
from cosma.lowering.realise import Realised, realise, try_realise

__all__ = ["Realised", "chains_of", "realise", "try_realise"]
