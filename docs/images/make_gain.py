"""Draw the README's picture: what existing methods move off-chip, and what cosma moves. Plans every case anew."""

from __future__ import annotations

from pathlib import Path

from cosma import Accelerator
from cosma.compiler import run_compile

ROOT = Path(__file__).resolve().parents[2]
TILES = {"fusion": "epilogue", "weights": "scratchpad"}
#: Label, network, accelerator, tiling.
CASES = (
    ("MobileNetV2\n256 KiB, tiles", "mobilenet_v2_224", Accelerator(scratchpad="256KiB", **TILES), "auto"),
    ("SqueezeNet\n512 KiB, tiles", "zoo_squeezenet", Accelerator(scratchpad="512KiB", **TILES), "auto"),
    ("DARTS V2\n384 KiB, whole tensors", "darts_v2_imagenet", Accelerator(scratchpad="384KiB"), "none"),
)
BARS = (("order as given, LRU", "#b8b8b8"), ("best existing method", "#8c8c8c"), ("cosma", "#1f77b4"))


def main() -> None:
    """Plan, print and draw."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.4), layout="constrained")
    for i, (label, model, accelerator, tiling) in enumerate(CASES):
        result = run_compile(ROOT / f"models/zoo/{model}.onnx", accelerator, dtype="int8", tiling=tiling)
        plan, existing = result.plan, {name: traffic.total for name, traffic in result.existing.items()}
        totals = (existing["e1"], min(existing.values()), plan.traffic.total)
        print(label.replace("\n", ", "), *totals, plan.traffic.compulsory, plan.certificate.status)  # noqa: T201
        for k, (total, (name, colour)) in enumerate(zip(totals, BARS, strict=True)):
            bar = axes.bar(i + 0.27 * (k - 1), total / 2**20, 0.25, color=colour, label=name if i == 0 else None)
            axes.bar_label(bar, fmt="%.1f", fontsize=8)
        axes.hlines(plan.traffic.compulsory / 2**20, i - 0.42, i + 0.42, color="black", linestyles="--", linewidth=1,
                    label="compulsory: no plan moves less" if i == 0 else None)  # fmt: skip
    axes.set_xticks(range(len(CASES)), [case[0] for case in CASES], fontsize=9)
    axes.set_ylabel("off-chip traffic, MiB")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(Path(__file__).with_name("gain.png"), dpi=150)


if __name__ == "__main__":
    main()
