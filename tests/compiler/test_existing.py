"""What a compile says of existing methods, of its work, and of tiles where nothing else fits."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import helper

import cosma
from cosma.compiler import Limits, Progress, run_compile
from tests.onnx_files import save_network
from tests.planning import diamond
from tests.random_graphs import Shape, random_instance

TIGHT = cosma.Accelerator(scratchpad=384, operands="resident")


def _pointwise_chain(path: Path) -> Path:
    """Three elementwise operators over 1x8x64x16 floats: 32 KiB each, which rows can be cut from."""
    names = ["x", "a", "b", "y"]
    nodes = [
        helper.make_node(kind, [before], [after], name=kind)
        for kind, before, after in zip(("Sigmoid", "Tanh", "Exp"), names, names[1:], strict=False)
    ]
    return save_network(path, nodes, {"x": [1, 8, 64, 16]})


def test_existing_methods_are_those_of_their_strategies() -> None:
    """The comparison says what `--strategy e1` and the others would move, for whole operators and tensors."""
    for seed in range(6):
        graph, accelerator = random_instance(seed, Shape(operators=12))
        accelerator = accelerator.replace(operands="streamable")
        result = run_compile(graph, accelerator, limits=Limits(effort=0.2))
        assert result.existing
        for name, traffic in result.existing.items():
            alone = run_compile(graph, accelerator, strategy=name).plan.traffic
            assert traffic == alone, (seed, name)
            assert result.plan.traffic.total <= traffic.total


def test_a_single_existing_method_is_compared_with_nothing() -> None:
    assert run_compile(diamond(), TIGHT, strategy="e1").existing == {}


def test_tiles_are_compared_with_the_whole_network(tmp_path: Path) -> None:
    model = _pointwise_chain(tmp_path / "chain.onnx")
    accelerator = cosma.Accelerator(scratchpad="40KiB", operands="streamable")
    whole = run_compile(model, accelerator, strategy="e1").plan.traffic
    tiled = run_compile(model, accelerator, tiling="rows=8", limits=Limits(effort=0.2))
    assert tiled.existing["e1"] == whole


def test_what_does_not_fit_uncut_is_compared_with_nothing_and_tiles_are_named(tmp_path: Path) -> None:
    model = _pointwise_chain(tmp_path / "chain.onnx")
    accelerator = cosma.Accelerator(scratchpad="16KiB", operands="resident")
    with pytest.raises(cosma.InfeasibleError) as refused:
        cosma.compile(model, accelerator)
    (remedy,) = [r for r in refused.value.remedies if r.setting == "tiling"]
    assert remedy.value == "auto"
    assert remedy.enough
    assert "tiling = auto" in str(refused.value)
    result = run_compile(model, accelerator, tiling="auto", limits=Limits(effort=0.2))
    assert result.existing == {}
    assert cosma.replay(result.plan).valid


def test_tiles_are_not_named_where_they_do_not_help(tmp_path: Path) -> None:
    model = _pointwise_chain(tmp_path / "chain.onnx")
    with pytest.raises(cosma.InfeasibleError) as refused:
        cosma.compile(model, cosma.Accelerator(scratchpad="32", operands="resident"))  # not one aligned row
    assert [r for r in refused.value.remedies if r.setting == "tiling"] == []


def test_work_spent_never_falls_and_stays_within_the_effort() -> None:
    seen: list[Progress] = []
    graph, accelerator = random_instance(3)
    run_compile(graph, accelerator, sink=seen.append, limits=Limits(effort=0.5))
    spent = [progress.spent for progress in seen]
    assert spent == sorted(spent)
    assert all(progress.effort == 0.5 for progress in seen)
    assert max(spent) <= 0.5
