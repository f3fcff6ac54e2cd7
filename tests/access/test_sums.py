"""Partial sums: slices along the axis summed over, added up, give the operator's own result."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from cosma.access import access_of
from cosma.access.boxes import slices, whole
from cosma.access.site import Contraction
from tests.access.case import Case, values
from tests.access.sites import MAKERS, cropped, draws, on_slices, random_box

pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("kind", ["Conv", "ConvInteger", "MatMul", "MatMulInteger", "Gemm"])
def test_partial_sums_add_up(kind):
    tried = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        case = MAKERS[kind](rng, kind)
        plain = case.run(case.operands)
        site = case.site(plain)
        rule = access_of(site)
        box = random_box(rng, plain[0].shape, rule.cuts(site))
        tile = rule.tile(site, box)
        if rule.reduced(site) < 2 or tile is None:
            continue
        extent = rule.reduced(site)
        edges = sorted({0, extent, *(int(p) for p in rng.integers(1, extent, 2))})
        spans = list(pairwise(edges))
        rng.shuffle(spans)
        total = 0
        for i, span in enumerate(spans):
            reads = rule.narrowed(site, rule.reads(site, box), tuple(span), first=i == 0)
            total = total + cropped(tile, on_slices(case, tile, reads)[0], box)
        np.testing.assert_allclose(total, plain[0][slices(box)], rtol=1e-4, atol=1e-4, err_msg=f"{seed}: {case}")
        tried += 1
    assert tried >= 5


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("taps", [1, 3])
def test_partial_sums_of_a_tile_in_the_padding_alone_add_up(taps, stride):
    rng = np.random.default_rng(0)
    weights = (values(rng, 3, 4, taps, 1), values(rng, 3))
    case = Case("Conv", [values(rng, 1, 4, 4, 5), *weights], {"pads": [7, 0, 8, 0], "strides": [stride, 1]})
    plain = case.run(case.operands)
    site = case.site(plain)
    rule = access_of(site)
    rows = plain[0].shape[2]
    for span in ((0, 1), (0, 2), (rows - 2, rows), (rows - 1, rows)):
        box = ((0, 1), (0, 3), span, (1, 4))
        tile = rule.tile(site, box)
        steps = [rule.narrowed(site, rule.reads(site, box), s, first=s[0] == 0) for s in ((0, 2), (2, 4))]
        total = sum(cropped(tile, on_slices(case, tile, reads)[0], box) for reads in steps)
        np.testing.assert_allclose(total, plain[0][slices(box)], rtol=1e-5, atol=1e-5)


def test_what_is_quantised_at_once_has_no_partial_sums():
    types = set()
    for kind, maker in MAKERS.items():
        for seed in draws(kind, 10, 6):
            case = maker(np.random.default_rng(seed), kind)
            site = case.site(case.run(case.operands))
            rule = access_of(site)
            if isinstance(rule, Contraction) and rule.reduced(site):
                types.add(kind)
                assert case.attributes.get("group", 1) == 1
                assert rule.reads(site, whole(site.result))
    assert types == {"Conv", "ConvInteger", "MatMul", "MatMulInteger", "Gemm"}
