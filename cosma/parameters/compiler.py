"""Tuning parameters of a compile: those of the portfolio, and those of the engines it runs."""

from __future__ import annotations

from cosma.parameters import Count, Factor, NominalSeconds, PackingUnits, Parameters, Positive, Rate, Share
from cosma.parameters.bounds import BoundParameters
from cosma.parameters.lowering import LoweringParameters
from cosma.parameters.replacement import ReplacementParameters
from cosma.parameters.search import DivideParameters, SearchParameters
from cosma.parameters.states import StatesParameters


class AutoParameters(Parameters, frozen=True):
    """How ``auto`` shares the effort among its engines.

    Attributes
    ----------
    opening_work
        Work of one turn of bounds, and of dynamic programming, before the first search. [not measured]
    settle_share
        Share of the effort within which every cheap bound has its turn before the first search. [results/tuning]
    first_orders
        Orders, those of given plans among them, that get their best replacement before the first search. [not measured]
    first_round_work
        Work of the first round of search; each round doubles it. [results/tuning]
    replacement_work_per_term
        Work counted per term of a replacement program. [unit]
    replacement_work
        Solver limit of one replacement at first. [not measured]
    replacement_share
        Solver limit of one replacement later, as a share of the effort spent so far. [not measured]
    replacement_rate
        Work counted for one second of the solver. [unit]
    typical_operators
        Operators of the networks on which the rate of dynamic programming holds; larger states cost in proportion.
        [unit]
    most_operators_as_one
        Operators above which a network is long; see :class:`LongParameters`. On annealed orders of 10,000 operators
        the best replacement gains under 0.5 %. [measured once, on no page]
    most_tiles
        Tiles above which the plan that came with a tiling stands as it is: on the graph of 1,994 tiles of U-Net 256 at
        512 KiB, 50 CPU seconds of annealing took 0.01 MB of 13.37 MB. [measured once, on no page]
    proof_factor
        Work of bounds for each second of search while bounds rise and search finds nothing. [results/tuning]
    unproven_factor
        The same while nothing is proven yet. [results/tuning]
    idle_proof_factor
        The same while bounds do not rise. [results/tuning]
    cores
        Cores of the reference machine: search keeps all of them busy, bounds one. [unit]
    immediate_packing
        Packing limit of an immediate attempt to pack decisions as they are. [not measured]
    least_repair
        Minimum repair limit, at the end. [not measured]
    repair_per_operator
        Repair limit per operator, at the end. [not measured]
    packing_work_per_unit
        Work counted for one unit of packing. [unit]
    packing_share
        Share of the effort that packing may take before the end. [not measured]
    tolerated_loss
        Share of the traffic that packing may lose before effort is kept for search with slack. [not measured]
    slack_share
        Share of the effort that is kept then. [not measured]
    least_slack_share
        Share of the effort for search with slack where packing loses traffic at the end only. [not measured]
    most_conflicts
        Address conflicts to learn for one order. [not measured]
    conflict_packing
        Packing limit of each attempt meanwhile. [not measured]
    """

    opening_work: NominalSeconds = 0.4
    settle_share: Share = 0.12
    first_orders: Count = 1_000
    first_round_work: NominalSeconds = 0.5
    replacement_work_per_term: NominalSeconds = 5e-6
    replacement_work: NominalSeconds = 0.5
    replacement_share: Share = 0.08
    replacement_rate: Factor = 1.5
    typical_operators: Positive = 400
    most_operators_as_one: Count = 3_000
    most_tiles: Count = 300
    proof_factor: Factor = 1.5
    unproven_factor: Factor = 1.0
    idle_proof_factor: Factor = 0.5
    cores: Positive = 2
    immediate_packing: PackingUnits = 5_000
    least_repair: PackingUnits = 20_000
    repair_per_operator: PackingUnits = 200
    packing_work_per_unit: NominalSeconds = 7e-6
    packing_share: Share = 0.1
    tolerated_loss: Share = 0.005
    slack_share: Share = 0.25
    least_slack_share: Share = 0.1
    most_conflicts: Count = 12
    conflict_packing: PackingUnits = 100_000


class SlackParameters(Parameters, frozen=True):
    """How search with less than the capacity goes.

    Attributes
    ----------
    first_slack
        Share of the capacity that is left free at first. [not measured]
    least_slack
        Share below which no operator is made room for. [not measured]
    most_turns
        Shares tried, at most. [docs/tuning.md]
    turn_work
        Work of search that makes another share worth while. [not measured]
    as_is_packing
        Packing limit for decisions as they are. [not measured]
    repair_packing
        Packing limit for their repair. [not measured]
    most_repaired_operators
        Operators above which they are not repaired. [not measured]
    """

    first_slack: Share = 1 / 64
    least_slack: Share = 1 / 1024
    most_turns: Positive = 3
    turn_work: NominalSeconds = 0.3
    as_is_packing: PackingUnits = 50_000
    repair_packing: PackingUnits = 20_000
    most_repaired_operators: Count = 1_000


class LongParameters(Parameters, frozen=True):
    """How ``auto`` plans networks of many thousand operators.

    Attributes
    ----------
    search_share
        Share of the effort for each of two turns of search. [not measured]
    bound_share
        Share of the effort for the bounds of pieces. [not measured]
    bound_rate
        Work counted for one second on pieces. [unit]
    bound_slice
        Work on pieces between two looks at whether to stop. [not measured]
    capacity_shares
        Shares of the capacity to search with, tried in turn. [not measured]
    sample_steps
        Steps of the sample that is packed to choose among them. [not measured]
    tolerated_loss
        Share of the traffic that packing may lose. [not measured]
    slack_capacity_shares
        Where packing the whole loses more: shares of the capacity searched with, tried in turn. [not measured]
    slack_effort_share
        Share of the effort for each of them. [not measured]
    """

    search_share: Share = 0.35
    bound_share: Share = 0.3
    bound_rate: Rate = 0.3
    bound_slice: NominalSeconds = 0.1
    capacity_shares: tuple[Share, ...] = (1.0, 15 / 16, 7 / 8, 13 / 16, 3 / 4)
    sample_steps: Positive = 600
    tolerated_loss: float = 0.2
    slack_capacity_shares: tuple[Share, ...] = (31 / 32, 15 / 16)
    slack_effort_share: Share = 0.1


class ExactParameters(Parameters, frozen=True):
    """How the layered exact method goes.

    Attributes
    ----------
    first_states
        States looked at before the bounds are asked. [not measured]
    first_bound_share
        Share of the effort for the bounds before dynamic programming goes on to its limit. [not measured]
    most_orders
        Orders of equal traffic that are tried where addresses do not fit the first. [not measured]
    most_operators_for_conflicts
        Operators above which address conflicts are not learnt across orders. [guard]
    """

    first_states: Count = 6_000
    first_bound_share: Share = 0.5
    most_orders: Positive = 8
    most_operators_for_conflicts: Count = 40


class CompileParameters(Parameters, frozen=True):
    """All of them; a section of a TOML file each."""

    auto: AutoParameters = AutoParameters()
    slack: SlackParameters = SlackParameters()
    long: LongParameters = LongParameters()
    exact: ExactParameters = ExactParameters()
    states: StatesParameters = StatesParameters()
    replacement: ReplacementParameters = ReplacementParameters()
    search: SearchParameters = SearchParameters()
    divide: DivideParameters = DivideParameters()
    bounds: BoundParameters = BoundParameters()
    lowering: LoweringParameters = LoweringParameters()
