"""Rules of access: nothing outside a region's reads matters, and slices of the operands give the region itself."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

from cosma.access import Site, access_of
from cosma.access.boxes import box_shape, intersection, region_of_result, slices, through_reshape, whole
from cosma.access.site import Barrier
from cosma.access.table import ACCESS
from cosma.graph.semantics import ELEMENTWISE
from cosma.graph.tensor import Part
from tests.access.sites import MAKERS, cropped, draws, on_slices, poisoned, random_box

pytest.importorskip("onnxruntime")
#: Kernels that add up scaled numbers in an order that depends on their slices: the same but for one step of eight bits.
_ROUNDED = frozenset({"QLinearAveragePool"})


@pytest.mark.parametrize("kind", MAKERS)
def test_regions_depend_on_what_they_read_alone(kind):
    for seed in draws(kind, 25, 3):
        rng = np.random.default_rng(seed)
        case = MAKERS[kind](rng, kind)
        plain = case.run(case.operands)
        site = case.site(plain)
        rule = access_of(site)
        assert not isinstance(rule, Barrier)
        cuts = rule.cuts(site)
        assert len(cuts) == plain[0].ndim
        for _ in range(4):
            box = random_box(rng, plain[0].shape, cuts)
            reads = rule.reads(site, box)
            operands = [
                o if o is None or i in case.parameters else poisoned(o, reads[i], rng)
                for i, o in enumerate(case.operands)
            ]
            for number, (result, other) in enumerate(zip(plain, case.run(operands), strict=True)):
                if number == 0 or any(cuts):
                    at = slices(region_of_result(box, plain[0].shape, result.shape))
                    np.testing.assert_allclose(
                        other[at], result[at], rtol=1e-4, atol=1e-4, err_msg=f"{seed}: {case}, {box}"
                    )


@pytest.mark.parametrize("kind", MAKERS)
def test_slices_give_the_region(kind):
    for seed in draws(kind, 25, 3):
        rng = np.random.default_rng(1000 + seed)
        case = MAKERS[kind](rng, kind)
        plain = case.run(case.operands)
        site = case.site(plain)
        rule = access_of(site)
        for _ in range(4):
            box = random_box(rng, plain[0].shape, rule.cuts(site))
            tile = rule.tile(site, box)
            if tile is not None:
                message = f"{seed}: {case}, {box}"
                made = on_slices(case, tile, rule.reads(site, box))
                for found, result in zip(made, plain, strict=True):
                    part = region_of_result(box, plain[0].shape, result.shape)
                    step = 1 if kind in _ROUNDED else 1e-4
                    inside = cropped(tile, found, part).astype(float)
                    np.testing.assert_allclose(inside, result[slices(part)].astype(float), 1e-4, step, err_msg=message)
                    assert tile.crop or found.shape == box_shape(part), message


def test_every_rule_is_drawn_from():
    """A row of the table whose operators no case covers is a row that nothing tests."""
    ruled = {*ACCESS, *(kind for kind in ELEMENTWISE if not isinstance(access_of(_site(kind)), Barrier))}
    assert set(MAKERS) == ruled


def _site(kind):
    domain = "com.microsoft" if kind.startswith("QLinear") else ""
    return Site(Part(kind, domain), ((4, 5),), ((4, 5),))


def test_most_operators_can_be_cut_along_some_axis():
    """Cases that nothing can be cut of prove nothing."""
    for kind, maker in MAKERS.items():
        cut = 0
        for seed in draws(kind, 25, 3):
            case = maker(np.random.default_rng(seed), kind)
            site = case.site(case.run(case.operands))
            cut += any(c and n > 1 for c, n in zip(access_of(site).cuts(site), site.result, strict=True))
        assert cut >= len(draws(kind, 25, 3)) / 3, kind


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "MaxPool", "AveragePool"])
def test_tiles_of_windows_can_be_computed(kind):
    """Rows of a window without dilation or groups always have a kernel: tilings may not fail on ordinary layers."""
    computed = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        case = MAKERS[kind](rng, kind)
        plain = case.run(case.operands)
        site = case.site(plain)
        rule = access_of(site)
        for _ in range(3):
            box = (*whole(plain[0].shape)[:2], *random_box(rng, plain[0].shape, (True,) * plain[0].ndim)[2:])
            computed += rule.tile(site, box) is not None
    assert computed >= 120


@pytest.mark.parametrize("seed", range(300))
def test_reshaped_boxes_contain_the_same_elements(seed):
    rng = np.random.default_rng(seed)
    pairs = [((2, 6, 8), (2, 6, 2, 4)), ((2, 3, 4), (6, 4)), ((24,), (2, 3, 4)), ((4, 6), (6, 4)), ((1, 5, 1), (5,)),
             ((2, 2, 3), (4, 3)), ((3, 4, 2), (3, 8)), ((2, 3, 1, 4), (1, 6, 4, 1))]  # fmt: skip
    shape, target = pairs[seed % len(pairs)]
    if rng.random() < 0.5:
        shape, target = target, shape
    box = random_box(rng, shape, (True,) * len(shape))
    marked = np.zeros(shape, dtype=bool)
    marked[slices(box)] = True
    found = through_reshape(box, shape, target)
    assert marked.reshape(target)[slices(found)].sum() == marked.sum()
    exact = tuple((int(i.min()), int(i.max()) + 1) for i in np.nonzero(marked.reshape(target)))
    if prod(box_shape(exact)) == marked.sum():
        assert found == exact


def test_heads_are_boxes_of_channels():
    box = ((0, 1), (4, 8), (2, 3), (0, 64))
    assert through_reshape(box, (1, 16, 8, 64), (1, 16, 512)) == ((0, 1), (4, 8), (128, 192))


def test_boxes_that_do_not_meet():
    assert intersection(((0, 2), (0, 4)), ((2, 4), (0, 4))) is None
    assert intersection(((0, 3), (1, 4)), ((2, 4), (0, 2))) == ((2, 3), (1, 2))


@pytest.mark.parametrize("kind", ["NonZero", "TopK", "Loop", "LSTM", "Nonsense"])
def test_what_no_rule_covers_is_a_barrier(kind):
    site = Site(Part(kind), ((4, 5), (3,)), ((4, 5),))
    rule = access_of(site)
    assert isinstance(rule, Barrier)
    assert rule.cuts(site) == (False, False)
    assert rule.reads(site, ((0, 1), (0, 1))) == (whole((4, 5)), whole((3,)))


def test_other_domains_are_barriers():
    assert isinstance(access_of(Site(Part("Conv", "my.own"), ((1, 1, 4), (1, 1, 1)), ((1, 1, 4),))), Barrier)


def test_training_normalisation_is_a_barrier():
    part = Part("BatchNormalization", "", {"training_mode": 1})
    assert isinstance(access_of(Site(part, ((2, 3), (3,), (3,), (3,), (3,)), ((2, 3),))), Barrier)
