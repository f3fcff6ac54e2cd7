"""Tuning parameters of the best replacement of an order."""

from __future__ import annotations

from cosma.parameters import Count, NominalSeconds, PackingUnits, Parameters


class ReplacementParameters(Parameters, frozen=True):
    """When a replacement program is worth building, and how long it may take.

    Attributes
    ----------
    most_terms
        Terms (see :func:`replacement_terms`) above which no program is built. [guard]
    work
        Work limit of one program where the caller sets none. [not measured]
    packing_units
        Packing limit of one attempt to find addresses. [not measured]
    """

    most_terms: Count = 400_000
    work: NominalSeconds = 5.0
    packing_units: PackingUnits = 200_000
