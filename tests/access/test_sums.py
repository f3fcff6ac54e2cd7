"""Partial sums: slices along the axis summed over, added up, give the operator's own result."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from cosma.access import access_of
from cosma.access.boxes import slices, whole
from cosma.access.site import Contraction
from tests.access.sites import MAKERS, random_box

pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("seed", range(160))
def test_partial_sums_add_up(seed):
    rng = np.random.default_rng(seed)
    for maker in MAKERS:
        case = maker(rng)
        plain = case.run(case.operands)
        site = case.site(plain)
        rule = access_of(site)
        if not isinstance(rule, Contraction) or rule.reduced(site) < 2:
            continue
        box = random_box(rng, plain[0].shape, rule.cuts(site))
        tile = rule.tile(site, box)
        if tile is None:
            continue
        extent = rule.reduced(site)
        edges = sorted({0, extent, *(int(p) for p in rng.integers(1, extent, 2))})
        spans = list(pairwise(edges))
        rng.shuffle(spans)
        total = 0
        for i, span in enumerate(spans):
            reads = rule.narrowed(site, rule.reads(site, box), tuple(span), first=i == 0)
            operands = [
                o if o is None or k in case.parameters
                else None if reads[k] is None
                else np.asarray(o[slices(reads[k])])
                for k, o in enumerate(case.operands)
            ]  # fmt: skip
            total = total + case.run(operands, {**case.attributes, **tile.attributes})[0]
        np.testing.assert_allclose(total, plain[0][slices(box)], rtol=1e-4, atol=1e-4, err_msg=case.type)
        return
    pytest.skip("no operator of this draw sums over an axis")


def test_what_is_quantised_at_once_has_no_partial_sums():
    types = set()
    for seed in range(80):
        rng = np.random.default_rng(seed)
        for maker in MAKERS:
            case = maker(rng)
            site = case.site(case.run(case.operands))
            rule = access_of(site)
            if not isinstance(rule, Contraction):
                continue
            if rule.reduced(site):
                types.add(case.type)
                assert not case.type.startswith("QLinear")
                assert case.attributes.get("group", 1) == 1
                assert rule.reads(site, whole(site.result))
    assert types >= {"Conv", "MatMul", "Gemm"}
