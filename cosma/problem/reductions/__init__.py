"""Smaller or simpler problems, and what their schedules and bounds say of the whole."""

from cosma.problem.reductions.chains import contract_chains
from cosma.problem.reductions.oversized import WithoutOversized, without_oversized
from cosma.problem.reductions.part import Part, part_of
from cosma.problem.reductions.pieces import cut_into_pieces, lift_bounds
from cosma.problem.reductions.reduction import Exact, Relaxation, Restriction
from cosma.problem.reductions.section import Section, join_sections, section_of
from cosma.problem.reductions.takeovers import SingleTakeovers, single_takeovers
from cosma.problem.reductions.tightened import Tightened, tightened

__all__ = [
    "Exact",
    "Part",
    "Relaxation",
    "Restriction",
    "Section",
    "SingleTakeovers",
    "Tightened",
    "WithoutOversized",
    "contract_chains",
    "cut_into_pieces",
    "join_sections",
    "lift_bounds",
    "part_of",
    "section_of",
    "single_takeovers",
    "tightened",
    "without_oversized",
]
