"""The judge of placements: is it complete, and does it fit? What it costs on a trace, ``recount`` says.

Nothing of the optimisers is imported here.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cosma.errors import PlanInvalidError
from cosma.placement.recount import Score, score

if TYPE_CHECKING:
    from cosma.placement.document import Placement

__all__ = ["Score", "check_placement", "copies_beyond_room", "score", "violations"]


def violations(placement: Placement, replicas_per_device: int = 0) -> list[str]:
    """List everything wrong with a placement: unknown devices, too many experts on one, copies that contradict.

    Parameters
    ----------
    placement
        The placement to judge.
    replicas_per_device
        Copies beyond its own experts that each device has room for in each layer.
    """
    found: list[str] = []
    devices = placement.topology.devices
    slots = _slots(placement)
    for layer, row in enumerate(placement.copies()):
        held: Counter[int] = Counter()
        for expert, copies in enumerate(row):
            if not copies:
                found.append(f"layer {layer}, expert {expert}: on no device")
            elif copies[0] != int(placement.devices[layer, expert]):
                found.append(
                    f"layer {layer}, expert {expert}: home is device {int(placement.devices[layer, expert])}, "
                    f"but its first copy is on {copies[0]}"
                )
            if len(set(copies)) != len(copies):
                found.append(f"layer {layer}, expert {expert}: two copies on one device {list(copies)}")
            for device in copies:
                if not 0 <= device < devices:
                    found.append(f"layer {layer}, expert {expert}: device {device}, but there are {devices} (from 0)")
                else:
                    held[device] += 1
        for device in range(devices):
            room = slots[device] + replicas_per_device
            if held[device] > room:
                found.append(f"layer {layer}, device {device}: holds {held[device]} experts, room for {room}")
    return found


def check_placement(placement: Placement, replicas_per_device: int = 0) -> None:
    """Refuse an invalid placement.

    Raises
    ------
    PlanInvalidError
        With the first violations and how many there are.
    """
    found = violations(placement, replicas_per_device)
    if found:
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        raise PlanInvalidError("placement: " + "; ".join(found[:3]) + more)


def copies_beyond_room(placement: Placement) -> int:
    """Return how many copies beyond its own places the fullest device of any layer holds (0 without replicas)."""
    if placement.replicas is None:
        return 0
    slots = _slots(placement)
    most = 0
    for row in placement.copies():
        held = Counter(device for copies in row for device in copies)
        most = max([most, *(held[device] - room for device, room in enumerate(slots))])
    return most


def _slots(placement: Placement) -> list[int]:
    held = placement.topology.capacities
    if held is not None:
        return [int(capacity) for capacity in held]
    return [-(-placement.experts // placement.topology.devices)] * placement.topology.devices
