"""Make the networks of the zoo that are generated here: ``python models/make/zoo.py [NAME ...] [--into FOLDER]``.

The same script gives the same files, byte for byte, on every machine with the same version of onnx.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import nas_cells
import randwire
from builder import Builder

ZOO = Path(__file__).resolve().parents[1] / "zoo"

#: Genotype, channels and cells of each network: for CIFAR-10 (32 pixels) and for ImageNet (224 pixels).
CELL_NETWORKS: dict[str, tuple[str, int, int, int]] = {
    "nasnet_a_imagenet": ("nasnet_a", 44, 14, 224),
    "amoebanet_a_cifar": ("amoebanet_a", 36, 20, 32),
    "amoebanet_a_imagenet": ("amoebanet_a", 50, 14, 224),
    "pnasnet5_cifar": ("pnasnet5", 48, 11, 32),
    "pnasnet5_imagenet": ("pnasnet5", 54, 11, 224),
    "darts_v1_imagenet": ("darts_v1", 48, 14, 224),
    "darts_v2_cifar": ("darts_v2", 36, 20, 32),
}
#: Kind of random graph and seed.
RANDOM_NETWORKS = {f"randwire_small_{kind}_{seed}": (kind, seed) for kind, seeds in
                   (("ws", (1, 2, 3, 4)), ("er", (1, 2, 3)), ("ba", (1, 2, 3))) for seed in seeds}  # fmt: skip


def makers() -> dict[str, Callable[[], tuple[Builder, str]]]:
    """What makes each network, by name."""
    found: dict[str, Callable[[], tuple[Builder, str]]] = {}
    for name, (genotype, channels, cells, image) in CELL_NETWORKS.items():
        found[name] = lambda name=name, g=genotype, c=channels, n=cells, i=image: nas_cells.build(
            name, nas_cells.GENOTYPES[g], channels=c, cells=n, image=i, classes=10 if i == 32 else 1000
        )
    for name, (kind, seed) in RANDOM_NETWORKS.items():
        found[name] = lambda name=name, k=kind, s=seed: randwire.build(name, k, s)
    return found


def main() -> None:
    """Make the networks named on the command line, or all."""
    known = makers()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of: {', '.join(known)}")
    parser.add_argument("--into", type=Path, default=ZOO, help="folder to write to (the zoo)")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(f"no such network: {', '.join(unknown)}")
    options.into.mkdir(parents=True, exist_ok=True)
    for name in options.names or known:
        builder, output = known[name]()
        path = options.into / f"{name}.onnx"
        builder.save(output, path)
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
