"""Tuning parameters of search."""

from __future__ import annotations

from cosma.parameters import Count, Factor, NominalSeconds, Parameters, Positive


class SearchParameters(Parameters, frozen=True):
    """How annealing, replacement and exact subproblems take turns.

    Attributes
    ----------
    steps_per_second
        Steps simulated in a nominal second, on two cores of the reference machine. [unit]
    slice_steps
        Steps that an annealer simulates between two looks at whether to stop. [not measured]
    first_round_steps_per_operator
        Steps per operator that each annealer simulates in the first round; later rounds double them. [results/tuning]
    most_slices
        Slices of an annealer in one round, at most. [results/tuning]
    refined_per_round
        Orders that get their best replacement after each round. [docs/tuning.md]
    refining_work
        Work limit of one replacement. [not measured]
    refining_work_per_term
        Work counted per term of a replacement program. [unit]
    subproblems_per_round
        Subproblems solved exactly after each round. [docs/tuning.md]
    subproblem_work
        Work limit of one subproblem. [not measured]
    subproblem_operators
        Operators in a subproblem; a contracted chain counts once. [not measured]
    most_operators_for_subproblems
        Operators above which no subproblem is solved: one is too small a part to matter. [guard]
    operators_per_collected_slice
        Decisions are made of the best order after every slice, and less often in proportion to so many operators.
        [not measured]
    most_operators_for_whole_walks
        Search operators above which annealers share one order out among themselves. [not measured]
    shared_round_steps_per_operator
        Steps per operator of one round then, all annealers together. [not measured]
    shared_heat_start, shared_heat_end
        Temperatures of the rounds after the first then, in units of the typical tensor. [not measured]
    """

    steps_per_second: Positive = 14_000_000
    slice_steps: Positive = 100_000
    first_round_steps_per_operator: Positive = 1_000
    most_slices: Positive = 160
    refined_per_round: Count = 2
    refining_work: NominalSeconds = 0.4
    refining_work_per_term: NominalSeconds = 5e-6
    subproblems_per_round: Count = 3
    subproblem_work: NominalSeconds = 0.1
    subproblem_operators: Positive = 14
    most_operators_for_subproblems: Count = 5_000
    operators_per_collected_slice: Positive = 500
    most_operators_for_whole_walks: Count = 3_000
    shared_round_steps_per_operator: Positive = 400
    shared_heat_start: Factor = 0.1
    shared_heat_end: Factor = 0.005


class DivideParameters(Parameters, frozen=True):
    """How divide and conquer cuts an order up.

    Attributes
    ----------
    most_operators
        Operators in a part; a contracted chain counts once. [not measured]
    most_crossing
        Tensors that may cross a cut at which all states are tried. [not measured]
    most_part_work
        Work limit of one part and one pair of states. [not measured]
    """

    most_operators: Positive = 14
    most_crossing: Count = 2
    most_part_work: NominalSeconds = 4.0
