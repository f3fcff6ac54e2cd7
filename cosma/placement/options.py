"""What a placement is asked for, checked, and what its file says of how it was made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cosma.door as door
from cosma.errors import InputError
from cosma.placement import bounds
from cosma.placement.recount import ROUTINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

STRATEGIES = ("auto", "search", "exact", "exflow", "vanilla", "eplb")
BOUNDS = {"none": 0, "quick": bounds.QUICK_WORK, "thorough": bounds.THOROUGH_WORK}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceOptions:
    """What to place for and how hard to try.

    Attributes
    ----------
    strategy
        ``auto`` (exact where that is quick, else search), ``search``, ``exact``, ``exflow`` (its integer program by
        bipartition), ``vanilla`` or ``eplb``.
    seed
        Equal seeds give equal placements.
    proposals
        Work limit of the search in swap proposals; None for 20 million up to 600 experts in all, else 1000 per
        expert and at least 10 million; at most 100 per expert where there are very many experts and
        devices.
    balance
        Limit on max-over-mean load, or None; ``balance_scope`` says of ``each`` layer or of the ``mean``.
    replicas_per_device
        Places for copies on each device and layer, beside its own experts.
    current, max_moves
        Placement ``[layers, experts]`` in force, or its copies ``[layers, experts, devices]``, and how many experts
        (or copies) may lie where they do not now.
    bound
        ``none`` (degree bound only), ``quick`` or ``thorough``.
    routing
        How servers choose among copies: ``nearest``, ``split`` or ``least-loaded``; see ``recount``.
    interrupted
        Polled while searching; once true, the best so far is returned.
    progress
        Told what is being done, and the share of it that is done.
    seconds
        Clock limit; makes runs unrepeatable.
    """

    strategy: str = "auto"
    seed: int = 0
    proposals: int | None = None
    balance: float | None = None
    balance_scope: str = "each"
    replicas_per_device: int = 0
    current: NDArray[np.integer] | None = None
    max_moves: int | None = None
    bound: str = "quick"
    seconds: float | None = None
    routing: str = "nearest"
    interrupted: Callable[[], bool] = bool
    progress: Callable[[str, float], None] | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "seed", door.seed(self.seed))
        for name, least in (("proposals", None), ("replicas_per_device", 0), ("max_moves", None)):
            if name == "replicas_per_device" or getattr(self, name) is not None:
                put(self, name, door.integer(getattr(self, name), f"place: {name}", least=least))
        for name in ("strategy", "balance_scope", "bound", "routing"):
            door.text(getattr(self, name), f"place: {name}")
        if self.balance is not None:
            put(self, "balance", door.number(self.balance, "place: balance", least=1.0))
        if self.seconds is not None:
            put(self, "seconds", door.number(self.seconds, "place: seconds"))
        if self.current is not None:
            put(self, "current", door.array(self.current, "place: current", kinds="biu"))
        for name in ("interrupted", "progress"):
            hook = getattr(self, name)
            if not callable(hook) and (hook is not None or name == "interrupted"):
                raise InputError(f"place: {name} must be callable, not {door.shown(hook)}")


def check_options(options: PlaceOptions) -> None:
    """Refuse options that are unknown or contradict each other; raises InputError if they do."""
    if options.strategy not in STRATEGIES:
        raise InputError(f"strategy {options.strategy!r}: expected one of {', '.join(STRATEGIES)}")
    if options.bound not in BOUNDS:
        raise InputError(f"bound {options.bound!r}: expected one of {', '.join(BOUNDS)}")
    if options.proposals is not None and options.proposals < 1:
        raise InputError(f"work of {options.proposals}: give at least 1 swap proposal")
    if (options.max_moves is None) != (options.current is None):
        raise InputError("a placement in force and a budget of moves belong together: give both, or none")
    if options.max_moves is not None and options.max_moves < 0:
        raise InputError(f"re-placement: a budget of {options.max_moves} moves; give 0 or more")
    if options.max_moves is not None and options.replicas_per_device and options.routing == "nearest":
        raise InputError("a budget of moves with replicas needs copies that share load: routing split or least-loaded")
    if options.routing not in ROUTINGS:
        raise InputError(f"routing {options.routing!r}: expected one of {', '.join(ROUTINGS)}")
    if options.replicas_per_device < 0:
        raise InputError(f"replicas per device: {options.replicas_per_device}; give 0 or more")
    limited = options.balance is not None or options.max_moves is not None
    copies = bool(options.replicas_per_device) and options.strategy != "eplb"
    if (limited or copies) and options.strategy not in {"auto", "search"}:
        raise InputError(
            f"strategy {options.strategy} knows no balance, replicas or budget of moves; use auto or search"
        )


def solver_record(options: PlaceOptions, method: str, searched_s: float = 0.0) -> dict[str, Any]:
    """Return what a placement's file says of its making: method, seed, limits kept, and what cut the search short.

    A search that took as long as the clock limit was ended by it.
    """
    found: dict[str, Any] = {"strategy": options.strategy, "method": method, "seed": options.seed}
    found |= {name: getattr(options, name) for name in ("balance", "max_moves") if getattr(options, name) is not None}
    if options.balance is not None:
        found["balance_scope"] = options.balance_scope
    if options.replicas_per_device:
        found |= {"replicas_per_device": options.replicas_per_device, "routing": options.routing}
    if options.interrupted():
        found["stopped_by"] = "interrupt"
    elif options.seconds is not None and searched_s >= options.seconds:
        found["stopped_by"] = "time"
    return found
