"""Make the tables of this folder: ``python results/caching/make.py [--traces FOLDER] [--only NAME ...]``.

Reads every archive of ``--traces`` (default ``../shared/traces`` beside the project, else ``models/traces``), learns
on ``profile``, runs held-out ``eval_`` arrays, and writes one CSV per table here. Everything but the columns of
seconds is the same in every run. Tables: policies, batches, hosts, scale.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cosma.caching import CacheOptions, Requests, plan_cache, read_requests
from cosma.placement import open_trace
from cosma.placement.synthetic import SyntheticOptions, synthetic_trace

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SHARES = (0.25, 0.5, 0.75)
#: Assumed: an expert of three matrices of 4096 x 14336 in four bits (Mixtral's size), a link of 25 GB a second.
EXPERT_BYTES, BYTES_PER_S = 88_080_384, 25_000_000_000
#: Assumed: seconds of arithmetic of one layer.
LAYER_S = 0.0004
Row = dict[str, Any]


def load(path: Path, array: str, experts: int, batch: int) -> Requests:
    """Read one part of an archive."""
    return read_requests(open_trace(path, array).chunks(), experts, batch)


def parts(path: Path) -> tuple[int, list[str]]:
    """Return experts per layer, and the parts to report on."""
    with np.load(path, allow_pickle=False) as archive:
        names = sorted(name for name in archive.files if name.startswith("eval_") and not name.endswith("_tok"))
        return 1 + max(int(archive[name].max()) for name in ("profile", *names)), names


def rows_of(path: Path, share: float, batch: int = 1, only: str = "eval_", **options: Any) -> Iterator[Row]:
    """Run all policies on every part of one trace whose name begins with ``only``."""
    experts, names = parts(path)
    learnt = load(path, "profile", experts, batch)
    for name in (name for name in names if name.startswith(only)):
        requests = load(path, name, experts, batch)
        shared = options.get("shared", False)
        slots = int(share * (requests.pages if shared else experts))
        wanted = CacheOptions(
            slots=slots, expert_bytes=EXPERT_BYTES, fetch_s=EXPERT_BYTES / BYTES_PER_S, step_s=LAYER_S, **options
        )
        widest = requests.widest_step(np.arange(requests.pages) // (requests.pages if shared else experts))[0]
        if wanted.together and widest > slots:
            continue
        begin = time.process_time()
        report = plan_cache(requests, wanted, learnt_from=learnt)
        seconds = time.process_time() - begin
        for result in report.results:
            yield {
                "trace": path.stem,
                "run": name,
                "share": share,
                "slots": slots,
                "pool": "shared" if shared else "layer",
                "batch": batch,
                "prefetch": wanted.prefetch,
                "policy": result.policy,
                "requests": result.requests,
                "hits": f"{result.hits / result.requests:.4f}",
                "fetches": result.fetches,
                "prefetches": result.prefetches,
                "hosted": result.hosted,
                "lower_bound": report.lower_bound_fetches,
                "proven": report.proven,
                "above_optimum": "" if result.above_optimum is None else f"{result.above_optimum:.4f}",
                "moved_gb": f"{result.moved_bytes / 1e9:.1f}",
                "waiting_s": f"{result.stalled_s:.2f}",
                "total_s": f"{result.total_s:.2f}",
                "cpu_s_of_all": f"{seconds:.1f}",
            }


def policies(traces: list[Path]) -> Iterator[Row]:
    """Every trace, a quarter, half and three quarters of the experts resident.

    All parts without prefetch; ``eval_in`` also with prefetch, and with slots that all layers share.
    """
    for path in traces:
        for share in SHARES:
            yield from rows_of(path, share)
            yield from rows_of(path, share, only="eval_in", prefetch=1)
            yield from rows_of(path, share, only="eval_in", shared=True)


def batches(traces: list[Path]) -> Iterator[Row]:
    """Batches of 1, 4 and 16 tokens of ``eval_in``, experts one by one."""
    for path in traces:
        for batch in (1, 4, 16):
            yield from rows_of(path, 0.5, batch, only="eval_in", together=False)


def hosts(traces: list[Path]) -> Iterator[Row]:
    """A host that computes a visit of ``eval_in`` in half the time of a fetch; models of at most 64 experts a layer."""
    for path in traces:
        if parts(path)[0] <= 64:
            for row in rows_of(path, 0.5, only="eval_in", host_s=0.5 * EXPERT_BYTES / BYTES_PER_S):
                yield {"host_visit_per_fetch": 0.5, **row}


#: Experts a token, steps looked ahead and tokens a batch of the table of scale.
SCALES = ((1, 0, 1), (1, 1, 1), (8, 0, 1), (8, 1, 1), (8, 4, 1), (8, 4, 8))


def scale(_: list[Path]) -> Iterator[Row]:
    """A million token-layers at the command line: 17,300 tokens of 58 layers of 256 experts, top-1 and top-8.

    CPU seconds and memory are those of the whole command. Peaks are in order: each is above those before it.
    """
    for k, prefetch, batch in SCALES:
        tokens = synthetic_trace(
            SyntheticOptions(layers=58, experts=256, tokens=17_300, top_k=k, affinity=0.5, seed=1)
        )
        times = ["--expert-size", str(EXPERT_BYTES), "--bandwidth", str(BYTES_PER_S), "--layer-time", str(LAYER_S)]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.npy"
            np.save(path, tokens)
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            command = [sys.executable, "-m", "cosma", "cache", str(path), "--slots", "128", "--json", *times]
            how = ["--prefetch", str(prefetch), "--batch", str(batch)]
            done = subprocess.run([*command, *how], stdout=subprocess.PIPE, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        report = next(iter(json.loads(done.stdout)["reports"].values()))
        yield {
            "token_layers": tokens.shape[0] * tokens.shape[1],
            "top_k": k,
            "prefetch": prefetch,
            "batch": batch,
            "requests": report["results"][0]["requests"],
            "lower_bound": report["lower_bound_fetches"],
            "proven": report["proven"],
            "cpu_s": f"{after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime:.1f}",
            "peak_mb": after.ru_maxrss // 1024,
        }


TABLES: dict[str, Callable[[list[Path]], Iterator[Row]]] = {
    "policies": policies,
    "batches": batches,
    "hosts": hosts,
    "scale": scale,
}


def main() -> None:
    """Write the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    beside = ROOT.parent / "shared" / "traces"
    parser.add_argument("--traces", type=Path, default=beside if beside.is_dir() else ROOT / "models" / "traces")
    parser.add_argument("--only", nargs="*", choices=list(TABLES), default=list(TABLES))
    given = parser.parse_args()
    traces = sorted(given.traces.glob("*.npz"))
    for name in given.only:
        with (HERE / f"{name}.csv").open("w", newline="") as stream:
            writer = None
            for row in TABLES[name](traces):
                if writer is None:
                    writer = csv.DictWriter(stream, list(row), lineterminator="\n")
                    writer.writeheader()
                writer.writerow(row)
                stream.flush()
        print(f"{name}: {time.process_time():.0f} CPU seconds so far", flush=True)


if __name__ == "__main__":
    main()
