"""Tuning parameters of the bounds."""

from __future__ import annotations

from cosma.parameters import Count, Factor, NominalSeconds, Parameters, Positive, Rate, Share


class PeakParameters(Parameters, frozen=True):
    """How least peaks over all orders are looked for.

    Attributes
    ----------
    most_operators
        Operators of a segment, at most: a state costs in proportion to their square. [guard]
    most_levels
        Distinct prices at which a segment is looked at, at most. [not measured]
    most_units
        Units in which absent bytes are counted, at most; rounding up keeps the bound true. [not measured]
    least_shares
        Tensors below these shares of the capacity are left out of the coarse question and of the fine one.
        [not measured]
    forwards
        Slices of a forward search for each slice of the backward search. [not measured]
    first_turn
        Work on one question before the others have their turn. [not measured]
    turn_growth
        Factor by which each later turn is longer. [not measured]
    work_per_look
        Work counted for one step of the inner loops. [unit]
    work_per_state
        Work counted for one state. [unit]
    looks_per_slice
        Steps of the inner loops in a slice. [guard]
    first_room
        States that a table has room for at first. [guard]
    table_bytes
        Memory of one search, at most. [guard]
    """

    most_operators: Count = 3_000
    most_levels: Positive = 6
    most_units: Positive = 4_096
    least_shares: tuple[Share, ...] = (1 / 24, 1 / 256)
    forwards: Positive = 3
    first_turn: NominalSeconds = 0.05
    turn_growth: Factor = 4.0
    work_per_look: NominalSeconds = 3e-9
    work_per_state: NominalSeconds = 2e-6
    looks_per_slice: Positive = 5_000_000
    first_room: Positive = 4_096
    table_bytes: Positive = 200 << 20


class RowParameters(Parameters, frozen=True):
    """How rows of forced liveness are built.

    Attributes
    ----------
    most_in_pairs
        Operators among which pairs are looked for, those of the largest results first. [not measured]
    most_pairs
        Pairs of operators, at most. [not measured]
    most_members
        Tensors listed over all rows together, at most: memory stays bounded. [guard]
    cells_per_second, members_per_second, arcs_per_second
        What a nominal second pays for: looks at (tensor, operator), members of rows, arcs of minimum cuts.
        [unit]
    """

    most_in_pairs: Count = 64
    most_pairs: Count = 64
    most_members: Count = 2_000_000
    cells_per_second: Rate = 4e8
    members_per_second: Rate = 2e6
    arcs_per_second: Rate = 8e5


class BoundParameters(Parameters, frozen=True):
    """How the methods of the bounds share their work.

    Attributes
    ----------
    first_width
        Labels per layer of the first label search; later ones are wider. [results/tuning]
    most_width
        Labels per layer, at most. [guard]
    label_bytes
        Memory of a label search, at most. [guard]
    most_priced_terms
        Terms of the price program, at most. [not measured]
    first_peak_work
        Work on least peaks where nothing else has proven anything. [results/tuning]
    later_peak_work
        Work on least peaks in their turn after other methods; each later turn has four times as much. [not measured]
    least_covering_work
        Work limit of a covering program where less was granted. [not measured]
    piece_sizes
        Operators of the pieces that a network is cut into; each size is a try of its own. [results/tuning]
    piece_slice
        Work of one turn with one try. [not measured]
    whole_work_before_pieces
        Work on the whole network before it is cut. [not measured]
    pieces_work_before_judgement
        Work on pieces before they are judged by their bound. [not measured]
    untried_share, leading_share, trailing_share
        Work on pieces for each second of the whole's: before they are judged, where they give the best bound, and
        elsewhere. [results/tuning for the second; the others not measured]
    wide_gap
        Gap to the known plan below which pieces get no trial. [not measured]
    first_work_per_piece
        Work on each piece at first; each later turn doubles it. [not measured]
    rows
        See :class:`RowParameters`. [see there]
    peaks
        See :class:`PeakParameters`. [see there]
    """

    first_width: Positive = 128
    most_width: Positive = 1 << 17
    label_bytes: Positive = 400 << 20
    most_priced_terms: Count = 25_000
    first_peak_work: NominalSeconds = 2.5
    later_peak_work: NominalSeconds = 1.0
    least_covering_work: NominalSeconds = 1.0
    piece_sizes: tuple[Positive, ...] = (200, 120)
    piece_slice: NominalSeconds = 0.1
    whole_work_before_pieces: NominalSeconds = 0.5
    pieces_work_before_judgement: NominalSeconds = 3.0
    untried_share: Factor = 2.0
    leading_share: Factor = 3.0
    trailing_share: Factor = 0.1
    wide_gap: Share = 0.15
    first_work_per_piece: NominalSeconds = 0.1
    rows: RowParameters = RowParameters()
    peaks: PeakParameters = PeakParameters()
