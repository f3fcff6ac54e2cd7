"""Existing methods, composed of an order, a replacement policy and an address policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cosma.errors import InputError
from cosma.heuristics.addresses import ADDRESS_POLICIES
from cosma.heuristics.orders import ORDERS
from cosma.heuristics.replacement import REPLACEMENTS
from cosma.heuristics.simulate import simulate
from cosma.lowering import Realised, realise
from cosma.lowering.emit import emit

if TYPE_CHECKING:
    from cosma.heuristics.orders import Order
    from cosma.problem import Problem


@dataclass(frozen=True, slots=True)
class Method:
    """A method as a compiler would have it today: three independent choices."""

    #: Names from ``ORDERS``, ``REPLACEMENTS`` and ``ADDRESS_POLICIES``.
    order: str
    replacement: str
    addresses: str

    def __str__(self) -> str:
        return f"{self.order}+{self.replacement}+{self.addresses}"


#: The methods that plans are compared with.
EXISTING: dict[str, Method] = {
    "e1": Method("given", "lru", "first-fit"),
    "e2": Method("depth-first", "belady", "best-fit"),
    "e3": Method("peak-minimising", "belady", "best-fit"),
}


def parse_method(text: str) -> Method | None:
    """Read ``ORDER+REPLACEMENT+ADDRESSES``; None if the text is not of that form.

    Raises InputError if it is of that form but names something unknown.
    """
    parts = text.split("+")
    if len(parts) != 3:
        return None
    known_parts = {"order": tuple(ORDERS), "replacement": tuple(REPLACEMENTS), "address policy": ADDRESS_POLICIES}
    for part, (what, known) in zip(parts, known_parts.items(), strict=True):
        if part not in known:
            raise InputError(f"{what} {part!r} is unknown; choose one of {', '.join(known)}")
    return Method(*parts)


def run_method(problem: Problem, method: Method, order: Order | None = None) -> Realised:
    """Plan by an existing method: valid at every capacity at which the accelerator's mode is feasible.

    Where constraints say what may lie where, addresses are given after the fact, whatever the method says. A method
    may bring in twice what must stay; its plan is then not valid. Raises NoAddressesError if constraints on addresses
    leave some step without any.

    Parameters
    ----------
    problem
        A feasible instance.
    order
        The method's order, where the caller has computed it already.
    """
    order = order if order is not None else ORDERS[method.order](problem)
    policy = method.addresses if problem.places is None else "greedy-by-size"
    decisions, addresses = simulate(problem, order, method.replacement, policy)
    if policy == "greedy-by-size":
        return realise(problem, decisions)
    return Realised(decisions, emit(problem, decisions, addresses), 0)
