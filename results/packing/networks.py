"""Packs the tensors of whole networks, in the order given, into their peak of live bytes.

    python results/packing/networks.py MODEL.onnx...

Every activation of a network lives from its producer to its last consumer, at alignment 64 and without in-place
results. Written to ``networks.csv`` beside this script: how many buffers, their peak of live bytes, whether the
packing reaches it, by which engine, and the CPU seconds of one call (kernels compiled).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from cosma.compiler.request import read_model
from cosma.errors import CosmaError
from cosma.files import write_atomic
from cosma.graph import Graph, TensorKind
from cosma.packing import Buffer, live_peak, minimise, pack, verify
from cosma.units import align_up

HERE = Path(__file__).resolve().parent
ALIGNMENT = 64
WORK_LIMIT = 200_000


def lifetimes(graph: Graph) -> list[Buffer]:
    """List the activations as buffers over the operators in the graph's order."""
    step = {operator.name: k for k, operator in enumerate(graph.operators)}
    buffers = []
    for name, tensor in graph.tensors.items():
        if tensor.kind is TensorKind.WEIGHT or tensor.size_bytes == 0:
            continue
        producer = graph.producer(name)
        uses = [step[consumer] for consumer in graph.consumers(name)]
        made = min(uses, default=0) if producer is None else step[producer]
        last = len(step) if tensor.kind is TensorKind.OUTPUT else max(uses, default=made) + 1
        buffers.append(Buffer(name, made, last, align_up(tensor.size_bytes, ALIGNMENT)))
    return buffers


def main() -> None:
    """Pack each model named on the command line."""
    pack([Buffer("a", 0, 4, 3, offset=2), Buffer("b", 0, 4, 4)], 8)
    lines = ["model,buffers,live_peak,height,lowest_proven,engine,nodes,cpu_s"]
    for path in map(Path, sys.argv[1:]):
        try:
            graph = read_model(path).graph
        except CosmaError as error:
            print(f"{path.name}: skipped: {error}", file=sys.stderr)
            continue
        buffers = lifetimes(graph)
        peak = live_peak(buffers)
        before = time.process_time()
        result = minimise(buffers, alignment=ALIGNMENT, work_limit=WORK_LIMIT)
        cpu_s = time.process_time() - before
        broken = verify(buffers, result.offsets, result.capacity, alignment=ALIGNMENT)
        if broken:
            sys.exit(f"{path}: {broken[0].message}")
        nodes = result.work.get("nodes", 0)
        lines.append(
            f"{path.name},{len(buffers)},{peak},{result.height},{result.optimal},{result.engine},{nodes},{cpu_s:.3f}"
        )
        print(lines[-1], flush=True)
    write_atomic(HERE / "networks.csv", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
