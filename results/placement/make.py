"""Make every table of this folder: ``python results/placement/make.py [--traces FOLDER] [--only NAME ...]``.

Reads the routing traces of ``--traces`` (default ``../shared/traces`` beside the project) and writes one CSV per
table here. Everything but the columns of CPU seconds
is the same in every run. Tables: targets, generated, exflow, balance, replication, nearest, headline, scale,
copies, copies_large, fronts, windows, drift.
"""

from __future__ import annotations

import argparse
import csv
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from cosma.errors import InfeasibleError
from cosma.placement import Affinity, Placement, Topology, open_trace, read_affinity, score
from cosma.placement.baselines import eplb, eplb_replicated, vanilla
from cosma.placement.bounds import lower_bound
from cosma.placement.copy_bounds import copies_bound
from cosma.placement.eplb import eplb_placement
from cosma.placement.front import front
from cosma.placement.metrics import imbalance, mean_cost
from cosma.placement.options import PlaceOptions
from cosma.placement.service import place
from cosma.placement.windows import STRATEGIES, MovePrice, compare, totals

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

#: Trace, clusters (nodes, devices per node), as the cost tables have them.
CASES = [
    ("gpt_12x8_top1_s1", [(1, 4), (2, 4), (2, 2), (1, 8)]),
    ("synth_32x8_mixtral_like_top1", [(1, 4), (2, 4), (1, 8)]),
    ("gpt_8x16_top2_s2", [(1, 4), (2, 4), (4, 4)]),
    ("synth_24x16_top1_a50", [(1, 4), (2, 4), (4, 4)]),
    ("gpt_12x64_top1_s5", [(1, 4), (2, 4), (4, 4)]),
    ("synth_32x64_top1_a60", [(1, 4), (2, 4), (4, 4)]),
]
#: Work limit of each of ExFlow's two schemes, in deterministic seconds of its solver, all programs together.
EXFLOW_WORK = 3.0
#: Work limit of the bounds in the tables; see ``cosma.placement.bounds``.
BOUND_WORK = 12_000_000_000
#: Swap proposals of each placement of the headline table, which has many.
HEADLINE_PROPOSALS = 1_000_000
Row = dict[str, Any]


def load(folder: Path, name: str) -> Affinity:
    """Aggregate the profile part of a trace."""
    return read_affinity(open_trace(folder / f"{name}.npz", "profile"))


def held_out(folder: Path, name: str, placement: Placement) -> float:
    """Return the mean cost on unseen tokens of the same domains."""
    return score(placement, open_trace(folder / f"{name}.npz", "eval_in").chunks()).mean_cost


def targets(folder: Path) -> Iterator[Row]:
    """Our placements with bounds, beside the baselines."""
    for name, clusters in CASES:
        affinity = load(folder, name)
        for nodes, per_node in clusters:
            topology = Topology.grid(nodes, per_node)
            begin = time.process_time()
            ours = place(affinity, topology, PlaceOptions(bound="none"))
            placed = time.process_time()
            certificate = ours.certificate
            if certificate["status"] != "optimal":
                found = lower_bound(affinity, topology, BOUND_WORK)
                certificate = found.certificate(float(ours.metrics["mean_cost"]))
            bounded = time.process_time() - placed
            yield {
                "trace": name,
                "cluster": f"{nodes}x{per_node}",
                "vanilla": f"{mean_cost(affinity, topology, vanilla(affinity, topology)):.4f}",
                "eplb": f"{mean_cost(affinity, topology, eplb(affinity, topology)):.4f}",
                "ours": f"{mean_cost(affinity, topology, ours.devices):.4f}",
                "bound": f"{certificate['lower_bound']:.4f}",
                "gap_percent": f"{100 * certificate['gap']:.1f}",
                "status": certificate["status"],
                "method": certificate["method"],
                "ours_held_out": f"{held_out(folder, name, ours):.4f}",
                "cpu_s_placing": f"{placed - begin:.1f}",
                "cpu_s_bound": f"{bounded:.1f}",
            }


def generated(folder: Path) -> Iterator[Row]:
    """The gap to the bound at 32 experts, on generated traces from weak to strong affinity; reads no file."""
    from cosma.placement.synthetic import SyntheticOptions, synthetic_trace

    for affinity_share in (0.2, 0.4, 0.6, 0.8):
        options = SyntheticOptions(
            tokens=20_000, layers=12, experts=32, top_k=1, clusters=8, affinity=affinity_share, skew=1.0, seed=32
        )
        affinity = Affinity.from_tokens(synthetic_trace(options), 32)
        for nodes, per_node in ((1, 4), (2, 4), (4, 4)):
            topology = Topology.grid(nodes, per_node)
            begin = time.process_time()
            ours = place(affinity, topology, PlaceOptions(bound="none"))
            placed = time.process_time()
            cost = float(ours.metrics["mean_cost"])
            certificate = lower_bound(affinity, topology, BOUND_WORK).certificate(cost)
            yield {
                "experts": 32,
                "layers": 12,
                "affinity": affinity_share,
                "cluster": f"{nodes}x{per_node}",
                "vanilla": f"{mean_cost(affinity, topology, vanilla(affinity, topology)):.4f}",
                "ours": f"{cost:.4f}",
                "bound": f"{certificate['lower_bound']:.4f}",
                "gap_percent": f"{100 * certificate['gap']:.1f}",
                "cpu_s_placing": f"{placed - begin:.1f}",
                "cpu_s_bound": f"{time.process_time() - placed:.1f}",
            }


def exflow(folder: Path) -> Iterator[Row]:
    """ExFlow's program, at once and by bipartition with growing batches of tokens, under a work limit."""
    from cosma.placement.exflow import bipartition, incremental_counts, one_shot

    for name, _ in CASES:
        affinity = load(folder, name)
        tokens = np.concatenate(list(open_trace(folder / f"{name}.npz", "profile").chunks()))
        batches = None
        if affinity.top_k == 1:
            batches = incremental_counts(tokens[:, :, 0], affinity.experts, 10_000)
        topology = Topology.grid(2, 4)
        whole = one_shot(affinity, topology, work=EXFLOW_WORK)
        halves = bipartition(affinity, topology, batches=batches, work=EXFLOW_WORK)
        ours = place(affinity, topology, PlaceOptions(bound="none"))
        yield {
            "trace": name,
            "cluster": "2x4",
            "exflow_one_shot": f"{mean_cost(affinity, topology, whole.devices):.4f}",
            "first_program_crossings": whole.first_split.crossings,
            "first_program_bound": f"{whole.first_split.bound:.0f}",
            "cpu_s_one_shot": f"{whole.cpu_seconds:.1f}",
            "exflow_bipartition": f"{mean_cost(affinity, topology, halves.devices):.4f}",
            "bipartition_bound": f"{halves.first_split.bound:.0f}",
            "cpu_s_bipartition": f"{halves.cpu_seconds:.1f}",
            "ours": f"{mean_cost(affinity, topology, ours.devices):.4f}",
        }


def balance(folder: Path) -> Iterator[Row]:
    """Cost under a limit on mean imbalance."""
    for name, limits in (("gpt_8x16_top2_s2", (1.15,)), ("synth_32x64_top1_a60", (1.034,))):
        affinity, topology = load(folder, name), Topology.grid(2, 4)
        for label, homes in (("vanilla", vanilla(affinity, topology)), ("eplb", eplb(affinity, topology))):
            yield balance_row(name, label, affinity, topology, homes, 0.0)
        for limit in (None, *limits):
            begin = time.process_time()
            options = PlaceOptions(bound="none", balance=limit, balance_scope="mean")
            ours = place(affinity, topology, options)
            label = "ours" if limit is None else f"ours, mean at most {limit}"
            yield balance_row(name, label, affinity, topology, ours.devices, time.process_time() - begin)


def balance_row(name: str, label: str, affinity: Affinity, topology: Topology, homes: Any, seconds: float) -> Row:
    """Return one row of the balance table."""
    return {
        "trace": name,
        "cluster": "2x4",
        "placement": label,
        "cost": f"{mean_cost(affinity, topology, homes):.4f}",
        "mean_imbalance": f"{imbalance(affinity, topology, homes).mean():.3f}",
        "cpu_s": f"{seconds:.1f}",
    }


def replication(folder: Path) -> Iterator[Row]:
    """One copy per device and layer (12.5 % more memory), judged on held-out tokens with nearest-copy routing."""
    name, topology = "gpt_12x64_top1_s5", Topology.grid(2, 4)
    affinity = load(folder, name)
    found = [("eplb", Placement.of_copies(topology, eplb_replicated(affinity, topology, 1)), 0.0)]
    for limit in (None, 1.25):
        begin = time.process_time()
        options = PlaceOptions(bound="none", replicas_per_device=1, balance=limit, balance_scope="mean")
        label = "ours" if limit is None else f"ours, mean at most {limit} on the profile"
        found.append((label, place(affinity, topology, options), time.process_time() - begin))
    for label, placement, seconds in found:
        row: Row = {"trace": name, "cluster": "2x4", "placement": label}
        for part in ("profile", "eval_in"):
            counted = score(placement, open_trace(folder / f"{name}.npz", part).chunks())
            row |= {f"{part}_cost": f"{counted.mean_cost:.4f}", f"{part}_imbalance": f"{counted.imbalance:.3f}"}
        yield row | {"cpu_s": f"{seconds:.1f}"}


def nearest(folder: Path) -> Iterator[Row]:
    """One replica a device, the nearest copy serves, no limit: what it costs on the tokens, and what is proven."""
    for name in COPIES_TRACES[:-2]:
        affinity, topology = load(folder, name), Topology.grid(2, 4)
        begin = time.process_time()
        placed = place(affinity, topology, PlaceOptions(bound="thorough", replicas_per_device=1))
        counted = score(placed, open_trace(folder / f"{name}.npz", "profile").chunks())
        bound = float(placed.certificate["lower_bound"])
        yield {
            "trace": name,
            "cluster": "2x4",
            "replicas": 1,
            "modelled": f"{placed.metrics['mean_cost']:.4f}",
            "cost": f"{counted.mean_cost:.4f}",
            "bound": f"{bound:.4f}",
            "gap_percent": f"{100 * (1 - bound / placed.metrics['mean_cost']):.1f}",
            "bound_any_routing": f"{placed.certificate['lower_bound_any_routing']:.4f}",
            "method": placed.certificate["method"],
            "cpu_s": f"{time.process_time() - begin:.1f}",
        }


def headline(folder: Path) -> Iterator[Row]:
    """Reduction of cross-device routing against experts in order, one node, on the profile and on held-out tokens."""
    for name in (
        "gpt_12x8_top1_s1",
        "gpt_8x16_top2_s2",
        "synth_24x16_top1_a50",
        "gpt_12x64_top1_s5",
        "synth_32x64_top1_a60",
    ):
        affinity = load(folder, name)
        for devices in (2, 4, 8, 16):
            if affinity.experts % devices:
                continue
            topology = Topology.grid(1, devices)
            ours = place(affinity, topology, PlaceOptions(bound="none", proposals=HEADLINE_PROPOSALS))
            before = Placement(topology, vanilla(affinity, topology))
            row: Row = {"trace": name, "experts": affinity.experts, "devices": devices}
            for part in ("profile", "eval_in"):
                trace = open_trace(folder / f"{name}.npz", part)
                old, new = score(before, trace.chunks()).mean_cost, score(ours, trace.chunks()).mean_cost
                row |= {f"{part}_vanilla": f"{old:.4f}", f"{part}_ours": f"{new:.4f}"}
                row[f"{part}_reduction_percent"] = f"{100 * (1 - new / old):.1f}"
            yield row


def scale(folder: Path) -> Iterator[Row]:
    """Large models: time and memory."""
    from cosma.placement.synthetic import SyntheticOptions, synthetic_trace

    for name, nodes, per_node in (("synth_58x256_top1_a50", 4, 4), ("synth_58x256_top8_a50", 4, 8)):
        yield scale_row(name, load(folder, name), nodes, per_node)
    options = SyntheticOptions(tokens=4000, layers=61, experts=384, top_k=8, clusters=32, affinity=0.5, skew=1.0)
    yield scale_row("generated 61x384 top-8", Affinity.from_tokens(synthetic_trace(options), 384), 16, 8)


def scale_row(name: str, affinity: Affinity, nodes: int, per_node: int) -> Row:
    """Return one row of the scale table."""
    topology = Topology.grid(nodes, per_node)
    begin = time.process_time()
    ours = place(affinity, topology, PlaceOptions(bound="none"))
    return {
        "trace": name,
        "cluster": f"{nodes}x{per_node}",
        "vanilla": f"{mean_cost(affinity, topology, vanilla(affinity, topology)):.4f}",
        "ours": f"{mean_cost(affinity, topology, ours.devices):.4f}",
        "cpu_s": f"{time.process_time() - begin:.1f}",
        "peak_memory_gb": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f}",
    }


#: Work of each placement of the table of copies, which has many, and of its bound.
COPIES_PROPOSALS = 10_000_000
COPIES_BOUND_WORK = 6_000_000_000
#: Traces of the table of copies, smallest first; the largest have a table of their own with all the work they ask for.
LARGE_TRACES = ("synth_58x256_top1_a50", "synth_58x256_top8_a50")
COPIES_TRACES = (
    "gpt_12x8_top1_s1", "synth_32x8_mixtral_like_top1", "gpt_8x16_top2_s2", "synth_24x16_top1_a50",
    "gpt_12x64_top1_s5", "synth_32x64_top1_a60", *LARGE_TRACES,
)  # fmt: skip


def copies(folder: Path) -> Iterator[Row]:
    """Copies that share load, within limits on every layer of the profile, beside EPLB; judged on held-out tokens."""
    for name in COPIES_TRACES:
        affinity = load(folder, name)
        for nodes, per_node in ((2, 4), (4, 4)):
            topology = Topology.grid(nodes, per_node)
            for replicas in (0, 1, 2):
                if int(topology.slots(affinity.experts).max()) + replicas > affinity.experts:
                    continue
                row: Row = {"trace": name, "cluster": f"{nodes}x{per_node}", "replicas": replicas}
                yield copies_row(folder, row | {"limit": "", "placement": "eplb"}, affinity, topology, None)
                for limit in (1.05, 1.2):
                    yield copies_row(folder, row | {"limit": limit, "placement": "ours"}, affinity, topology, limit)


def copies_large(folder: Path) -> Iterator[Row]:
    """The same for 256 experts on 32 devices, one replica a device, with the work that placing takes by itself."""
    topology = Topology.grid(4, 8)
    for name in LARGE_TRACES:
        affinity = load(folder, name)
        row: Row = {"trace": name, "cluster": "4x8", "replicas": 1}
        for label, limit in (("eplb", None), ("ours", 1.05)):
            one = copies_row(folder, row | {"limit": limit or "", "placement": label}, affinity, topology, limit, None)
            yield one | {"peak_memory_gb": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f}"}


def copies_row(
    folder: Path,
    row: Row,
    affinity: Affinity,
    topology: Topology,
    limit: float | None,
    proposals: int | None = COPIES_PROPOSALS,
) -> Row:
    """Return one row of the table of copies; a limit that cannot be kept leaves its figures out."""
    begin = time.process_time()
    names = ("mean_cost", "imbalance", "worst_imbalance")
    empty = {f"{part}_{name}": "" for part in ("profile", "eval_in") for name in names}
    empty |= {"bound": "", "gap_percent": ""}
    try:
        if limit is None:
            placed = eplb_placement(affinity, topology, row["replicas"])
        else:
            options = PlaceOptions(
                bound="none", routing="split", replicas_per_device=row["replicas"], balance=limit, proposals=proposals,
            )  # fmt: skip
            placed = place(affinity, topology, options)
    except InfeasibleError as error:
        reason = "proven impossible" if "no placement can keep" in str(error) else "not found"
        return row | empty | {"cpu_s": f"{time.process_time() - begin:.1f}", "cpu_s_bound": "", "note": reason}
    seconds = f"{time.process_time() - begin:.1f}"
    for part in ("profile", "eval_in"):
        counted = score(placed, open_trace(folder / f"{row['trace']}.npz", part).chunks(), "split")
        empty |= {f"{part}_{name}": f"{getattr(counted, name):.4f}" for name in names}
    bounding = ""
    if limit is not None:
        begin = time.process_time()
        bound = copies_bound(affinity, topology, row["replicas"], "split", limit, COPIES_BOUND_WORK)
        bounding = f"{time.process_time() - begin:.1f}"
        certificate = bound.certificate(float(placed.metrics["mean_cost"]))
        empty |= {"bound": f"{bound.mean_cost:.4f}", "gap_percent": f"{100 * certificate['gap']:.1f}"}
    return row | empty | {"cpu_s": seconds, "cpu_s_bound": bounding, "note": ""}


def fronts(folder: Path) -> Iterator[Row]:
    """Crossings against imbalance at 0, 1 and 2 replicas per device; also writes the figure."""
    from cosma.placement.plots import front_figure

    for name in ("gpt_8x16_top2_s2", "gpt_12x64_top1_s5"):
        topology = Topology.grid(2, 4)
        options = PlaceOptions(bound="quick", proposals=COPIES_PROPOSALS // 2)
        points = front(load(folder, name), topology, options=options)
        picture = front_figure("svg", points, f"{name}, 2 x 4 devices")
        (HERE / f"front_{name}.svg").write_bytes(picture)
        for point in points:
            yield {"trace": name, "cluster": "2x4"} | point.row()


def windows(folder: Path) -> Iterator[Row]:
    """Placements over six windows; an expert weighs as much as 100 crossing tokens send, or moves have a budget."""
    for name in ("gpt_8x16_top2_s2", "gpt_12x64_top1_s5"):
        trace = open_trace(folder / f"{name}.npz", "profile")
        for label, price, strategies in (
            ("an expert as 100 activations", MovePrice(expert_bytes=12_800, activation_bytes=128), STRATEGIES),
            ("at most 30 moves", MovePrice(expert_bytes=12_800, activation_bytes=128, max_moves=30), ("near",)),
        ):
            options = PlaceOptions(replicas_per_device=1, balance=1.1, proposals=COPIES_PROPOSALS // 2)
            scores = compare(trace, Topology.grid(2, 4), 6, price, options, load(folder, name).experts, strategies)
            for row in totals(scores):
                rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
                yield {"trace": name, "moves": label} | rounded


def drifting(seed: int) -> Iterator[tuple[str, Any]]:
    """Yield traces from whose first half little is to be learnt for the second: noise, few tokens, another model."""
    from cosma.placement.synthetic import SyntheticOptions, synthetic_trace

    def model(number: int, tokens: int, affinity: float) -> Any:
        return synthetic_trace(SyntheticOptions(
            tokens=tokens, layers=6, experts=16, top_k=1, clusters=4, affinity=affinity, skew=1.0, seed=number
        )).astype(np.int64)  # fmt: skip

    random = np.random.default_rng(seed)
    yield "noise, even load", random.integers(0, 16, (4000, 6))
    for experts in (16, 8):
        shares = random.dirichlet(np.full(experts, 3.0), 6)
        skewed = [random.choice(experts, 4000, p=shares[layer]) for layer in range(6)]
        yield f"noise, uneven load, {experts} experts", np.stack(skewed, 1)
    yield "affinity 0.3, 200 tokens", model(seed, 400, 0.3)
    yield "another model", np.concatenate([model(100 + seed, 2000, 0.5), model(200 + seed, 2000, 0.5)])


def drift(folder: Path) -> Iterator[Row]:
    """Placements of the first half of generated traces, judged on the second beside EPLB; reads no file."""
    topology = Topology.grid(2, 4)
    found: dict[tuple[str, float], list[tuple[float, float, float, float] | None]] = {}
    for seed in range(20):
        for kind, tokens in drifting(seed):
            first, second = np.split(tokens, 2)
            affinity = Affinity.from_tokens(first, int(tokens.max()) + 1)
            theirs = score(eplb_placement(affinity, topology, 1), [second], "split")
            for limit in (1.05, 1.2):
                options = PlaceOptions(
                    bound="none", routing="split", replicas_per_device=1, balance=limit, proposals=300_000
                )
                result = None
                with suppress(InfeasibleError):
                    ours = score(place(affinity, topology, options), [second], "split")
                    result = ours.mean_cost, theirs.mean_cost, ours.imbalance, theirs.imbalance
                found.setdefault((kind, limit), []).append(result)
    for (kind, limit), results in found.items():
        table = np.array([result for result in results if result is not None])
        more = table[:, 0] - table[:, 1]
        means = dict(zip(("ours", "eplb", "ours_imbalance", "eplb_imbalance"), table.mean(axis=0), strict=True))
        yield {
            "kind": kind, "limit": limit, "traces": len(table), "impossible": len(results) - len(table),
            **{name: f"{mean:.4f}" for name, mean in means.items()},
            "mean_dearer": f"{more.mean():.4f}", "error": f"{more.std(ddof=1) / len(more) ** 0.5:.4f}",
            "dearer": int((more > 0).sum()), "most_dearer": f"{max(0.0, float(more.max())):.4f}",
        }  # fmt: skip


TABLES: dict[str, Callable[[Path], Iterator[Row]]] = {
    table.__name__: table for table in (
        targets, generated, exflow, balance, replication, nearest, headline, scale, copies, copies_large, fronts,
        windows, drift,
    )
}  # fmt: skip


def main() -> None:
    """Write the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=Path, default=ROOT.parent / "shared" / "traces")
    parser.add_argument("--only", nargs="*", choices=sorted(TABLES), default=list(TABLES))
    arguments = parser.parse_args()
    for name in arguments.only:
        with (HERE / f"{name}.csv").open("w", newline="") as stream:
            writer = None
            for row in TABLES[name](arguments.traces):
                if writer is None:
                    writer = csv.DictWriter(stream, list(row), lineterminator="\n")
                    writer.writeheader()
                writer.writerow(row)
                stream.flush()
                print(name, row, flush=True)


if __name__ == "__main__":
    main()
