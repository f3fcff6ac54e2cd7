"""Randomly wired networks (Xie et al., Exploring Randomly Wired Neural Networks for Image Recognition, ICCV 2019).

Three stages are random graphs of 32 nodes; an edge points from the lower number to the higher. A node adds what
it reads, each edge times a learned number, then applies ReLU and a separable convolution. Nodes nothing points to
read the stage's input at stride 2; the stage's result is the mean of the nodes that point nowhere.
"""

from __future__ import annotations

import random

from builder import Builder

Edges = set[tuple[int, int]]


def erdos_renyi(nodes: int, probability: float, rng: random.Random) -> Edges:
    """Every pair is joined with a probability; drawn again until the graph is connected."""
    while True:
        edges = {(i, j) for i in range(nodes) for j in range(i + 1, nodes) if rng.random() < probability}
        if _connected(nodes, edges):
            return edges


def barabasi_albert(nodes: int, links: int, rng: random.Random) -> Edges:
    """Each new node joins ``links`` earlier ones, likelier those with many links."""
    edges: Edges = set()
    ends: list[int] = []  # every node as often as it has links
    for new in range(links, nodes):
        chosen: set[int] = set(range(links)) if new == links else set()
        while len(chosen) < links:
            chosen.add(ends[int(rng.random() * len(ends))])
        edges.update((old, new) for old in chosen)
        ends.extend(sorted(chosen))
        ends.extend([new] * links)
    return edges


def watts_strogatz(nodes: int, neighbours: int, probability: float, rng: random.Random) -> Edges:
    """A ring of nodes joined to their nearest neighbours, each edge then moved elsewhere with a probability."""
    joined = {frozenset((i, (i + k) % nodes)) for i in range(nodes) for k in range(1, neighbours // 2 + 1)}
    for k in range(1, neighbours // 2 + 1):
        for i in range(nodes):
            edge = frozenset((i, (i + k) % nodes))
            if edge not in joined or rng.random() >= probability:
                continue
            target = int(rng.random() * nodes)
            if target != i and frozenset((i, target)) not in joined:
                joined.remove(edge)
                joined.add(frozenset((i, target)))
    return {(min(edge), max(edge)) for edge in joined}


def _connected(nodes: int, edges: Edges) -> bool:
    reached, waiting = {0}, [0]
    while waiting:
        at = waiting.pop()
        for i, j in edges:
            other = j if i == at else i if j == at else at
            if other not in reached:
                reached.add(other)
                waiting.append(other)
    return len(reached) == nodes


def draw(kind: str, nodes: int, rng: random.Random) -> Edges:
    """Draw a graph of one kind with the paper's parameters: WS(4, 0.75), ER(0.2), BA(5)."""
    if kind == "ws":
        return watts_strogatz(nodes, 4, 0.75, rng)
    if kind == "er":
        return erdos_renyi(nodes, 0.2, rng)
    if kind == "ba":
        return barabasi_albert(nodes, 5, rng)
    raise ValueError(f"unknown kind of graph {kind!r}")


def build(name: str, kind: str, seed: int, *, channels: int = 78, nodes: int = 32) -> tuple[Builder, str]:
    """Build the paper's small network for images of 224 pixels.

    Parameters
    ----------
    name
        Name of the graph.
    kind
        ``ws``, ``er`` or ``ba``.
    seed
        Of the three random graphs; the same seed gives the same network on every machine.
    channels
        Channels of the first random stage.
    nodes
        Nodes of each random graph.
    """
    rng = random.Random(seed)
    b = Builder(name, 224)
    x = b.relu(b.conv("image", channels // 2, 3, "conv1", stride=2))
    x = b.conv(x, channels, 3, "conv2", stride=2)
    for stage in range(3):
        x = _add_stage(b, f"stage{stage}", x, channels << stage, nodes, draw(kind, nodes, rng))
    x = b.relu(b.conv(b.relu(x), 1280, 1, "head"))
    return b, b.classify(x, 1000)


def _add_stage(b: Builder, label: str, x: str, channels: int, nodes: int, edges: Edges) -> str:
    entering = b.relu(x, f"{label}/in")
    results: list[str] = []
    for node in range(nodes):
        sources = sorted(i for i, j in edges if j == node)
        unit = f"{label}/node{node}"
        total = entering
        if sources:
            parts = [b.scale(results[i], f"{unit}/edge") if len(sources) > 1 else results[i] for i in sources]
            total = parts[0]
            for part in parts[1:]:
                total = b.add(total, part, f"{unit}/sum")
            total = b.relu(total, f"{unit}/relu")
        width = b.shapes[total][1]
        deep = b.conv(total, width, 3, f"{unit}/dw", stride=1 if sources else 2, groups=width, bias=False)
        results.append(b.conv(deep, channels, 1, f"{unit}/pw"))
    starts = {i for i, _ in edges}
    ends = [results[node] for node in range(nodes) if node not in starts]
    mean = ends[0]
    for other in ends[1:]:
        mean = b.add(mean, other, f"{label}/total")
    return b.scale(mean, f"{label}/mean") if len(ends) > 1 else mean
