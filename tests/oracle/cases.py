"""The compiles whose plans are pinned: random instances in every mode and strategy, and cells of the zoo."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cosma.accelerator import Accelerator
from cosma.frontend import load_onnx
from cosma.graph import Graph
from cosma.problem import build_problem, smallest_feasible_capacity
from tests.modes.instances import instances
from tests.random_graphs import Shape, random_instance
from tests.symmetric_graphs import random_planted

ZOO = Path(__file__).parents[2] / "models" / "zoo"

KIB = 1 << 10
#: Capacities of the practical grid that are tight for each network.
ZOO_CELLS = {
    "lstm_bi2_s64": 64 * KIB,
    "mobilenet_v2_224": 512 * KIB,
    "unet_256": 1024 * KIB,
    "randwire_small_ws_1": 256 * KIB,
    "zoo_squeezenet": 256 * KIB,
    "llama_4l_512_decode_p255": 256 * KIB,
    "darts_v2_imagenet": 512 * KIB,
    "enas_micro_cifar": 64 * KIB,
}


@dataclass(frozen=True, slots=True)
class Case:
    """One compile: what is planned, for what, and how."""

    name: str
    instance: Callable[[], tuple[Graph, Accelerator]]
    strategy: str
    effort: float
    seed: int = 0

    @property
    def kind(self) -> str:
        """What kind of instance it is: the first part of the name."""
        return self.name.partition("/")[0]


def cases() -> Iterator[Case]:
    """All cases, cheap ones first; names are unique."""
    yield from _random("small", Shape(operators=9), range(20), ("existing", "exact", "divide", "ilp", "auto"), 0.2)
    middle = Shape(operators=32, inputs=4, weights=5, most_units=16)
    yield from _random("middle", middle, range(100, 124), ("e1", "e2", "e3", "exact", "divide", "auto"), 0.3)
    yield from _random("middle", middle, range(124, 130), ("depth-first+cost-aware-belady+first-fit",), 0.3)
    large = Shape(operators=90, inputs=4, weights=6, most_units=40)
    yield from _random("large", large, range(200, 216), ("auto",), 0.5)
    yield from _random("large", large, range(200, 208), ("divide",), 0.5)
    yield from _random("long", Shape(operators=3400, inputs=8, weights=40, most_units=40), (304,), ("auto",), 0.2)
    for seed in range(24):
        yield Case(f"symmetric/{seed}/exact", _planted(seed), "exact", 0.2)
    for number in range(20):
        for strategy in ("e2", "exact", "divide", "auto"):
            yield Case(f"stationary/{number}/{strategy}", _stationary(number), strategy, 0.2, number)
    for name, capacity in ZOO_CELLS.items():
        yield Case(f"zoo/{name}/practice/auto", _practice(name, capacity), "auto", 0.4)
        for weights in ("stream", "scratchpad"):
            yield Case(f"zoo/{name}/cosma-{weights}/auto", _cosma(name, weights), "auto", 0.4)


def _random(
    kind: str, shape: Shape, seeds: Iterator[int] | range | tuple[int, ...], strategies: tuple[str, ...], effort: float
) -> Iterator[Case]:
    for seed in seeds:
        for strategy in strategies:
            yield Case(f"{kind}/{seed}/{strategy}", _instance(seed, shape), strategy, effort, seed)


def _instance(seed: int, shape: Shape) -> Callable[[], tuple[Graph, Accelerator]]:
    return lambda: random_instance(seed, shape)


def _planted(seed: int) -> Callable[[], tuple[Graph, Accelerator]]:
    def build() -> tuple[Graph, Accelerator]:
        planted = random_planted(seed)
        return planted.graph, planted.accelerator

    return build


def _stationary(number: int) -> Callable[[], tuple[Graph, Accelerator]]:
    return lambda: _with_modes()[number]


@cache
def _with_modes() -> tuple[tuple[Graph, Accelerator], ...]:
    return tuple(instances(31, 20, operators=9))


@cache
def _network(name: str) -> Graph:
    return load_onnx(ZOO / f"{name}.onnx").graph


def _practice(name: str, capacity: int) -> Callable[[], tuple[Graph, Accelerator]]:
    return lambda: (_network(name).with_dtype("int8"), Accelerator(scratchpad=capacity))


def _cosma(name: str, weights: str) -> Callable[[], tuple[Graph, Accelerator]]:
    """COSMA's setting at the smallest capacity that works, plus a tenth."""

    def build() -> tuple[Graph, Accelerator]:
        ample = Accelerator(scratchpad=1 << 40, operands="resident", weights=weights, in_place=False)
        least = smallest_feasible_capacity(build_problem(_network(name), ample))
        return _network(name), ample.replace(scratchpad=least * 11 // 10)

    return build
