"""Tuning parameters of the bounds."""

from __future__ import annotations

from cosma.parameters import Count, Factor, NominalSeconds, Parameters, Positive, Share


class BoundParameters(Parameters, frozen=True):
    """How the methods of the bounds share their work.

    Attributes
    ----------
    first_width
        Labels per layer of the first label search; later ones are wider. [not measured]
    most_width
        Labels per layer, at most. [not measured]
    label_bytes
        Memory of a label search, at most. [not measured]
    most_priced_terms
        Terms of the price program, at most. [not measured]
    first_peak_work
        Work on least peaks where nothing else has proven anything. [not measured]
    later_peak_work
        Work on least peaks in their turn after other methods; each later turn has four times as much. [not measured]
    least_covering_work
        Work limit of a covering program where less was granted. [not measured]
    piece_sizes
        Operators of the pieces that a network is cut into; each size is a try of its own. [not measured]
    piece_slice
        Work of one turn with one try. [not measured]
    whole_work_before_pieces
        Work on the whole network before it is cut. [not measured]
    pieces_work_before_judgement
        Work on pieces before they are judged by their bound. [not measured]
    untried_share, leading_share, trailing_share
        Work on pieces for each second of the whole's: before they are judged, where they give the best bound, and
        elsewhere. [docs/bounds.md states them; not measured]
    wide_gap
        Gap to the known plan below which pieces get no trial. [not measured]
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
