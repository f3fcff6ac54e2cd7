"""Tuning parameters of lowering: packing decisions, and repairing them where they do not pack."""

from __future__ import annotations

from cosma.parameters import PackingUnits, Parameters, Positive, Share


class LoweringParameters(Parameters, frozen=True):
    """How much packing is tried, and which residencies give way where it fails.

    Attributes
    ----------
    packing_units
        Packing limit of one realisation where the caller sets none; a unit takes 5 to 10 microseconds.
        [not measured]
    as_is_share
        Share of the limit for packing decisions as they are where repair can follow. [not measured]
    tries
        Choices tried one by one before the cheapest is undone for good. [not measured]
    least_fit_units, most_fit_units
        Least and most packing limit for packing a neighbourhood again. [not measured]
    most_fitted
        Slots alive together above which a neighbourhood is not packed again. [not measured]
    long_lived
        A slot that lives so many times as long as the stuck one stays where it is. [not measured]
    units_per_slot_examined
        Packing units counted for looking at one slot that is in the way. [unit]
    units_per_buffer
        Packing units counted for shaping one buffer anew. [unit]
    small_divisor
        Once the limit is spent, choices cheaper than the capacity divided by this leave at once. [not measured]
    section_steps
        Steps of a section that is repaired rather than cut. [not measured]
    as_is_units_per_step
        Packing limit per step for a section as it is. [not measured]
    units_per_step
        Packing limit per step for packing and repairing a short section. [not measured]
    """

    packing_units: PackingUnits = 100_000
    as_is_share: Share = 1 / 4
    tries: Positive = 8
    least_fit_units: PackingUnits = 400
    most_fit_units: PackingUnits = 2_000
    most_fitted: Positive = 64
    long_lived: Positive = 8
    units_per_slot_examined: PackingUnits = 4
    units_per_buffer: PackingUnits = 4
    small_divisor: Positive = 64
    section_steps: Positive = 300
    as_is_units_per_step: PackingUnits = 5
    units_per_step: PackingUnits = 50
