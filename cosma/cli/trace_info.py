"""``cosma trace-info``: what a routing trace or a table of counts holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cosma.cli import options, routing

if TYPE_CHECKING:
    from cosma.placement.trace_info import TraceInfo


def trace_info(
    trace: routing.TracePath,
    array: routing.ArrayOption = None,
    experts: routing.ExpertsOption = None,
    kind: routing.KindOption = None,
    dense_layers: routing.DenseOption = None,
    routing_shape: routing.ShapeOption = None,
    json: options.Json = False,
) -> None:
    """Say what a routing trace holds, and what would be read from it, before anything is placed."""
    from cosma.placement.trace_info import describe

    found = describe(routing.open_given(trace, array, kind, dense_layers, routing_shape), experts)
    if json:
        from cosma.cli.output import print_json

        print_json(found.to_json())
    else:
        _print(found)


def _print(found: TraceInfo) -> None:
    from cosma.cli.output import print_rows, print_text

    print_rows(None, ("", ""), _rows(found))
    for note in found.notes:
        print_text(f"note: {note}")


def _rows(found: TraceInfo) -> list[tuple[str, str]]:
    rows: list[tuple[str, Any]] = [("file", found.file)]
    if found.array is not None:
        rows.append(("array", f"{found.array} (of {', '.join(found.arrays)})"))
    rows += [
        ("kind", found.kind),
        ("shape", " x ".join(str(size) for size in found.shape)),
        ("layers with experts", f"{found.layers} (numbers {_ranges(found.layer_ids)})"),
        ("dense layers", _ranges(found.dense_layers) or "none"),
        ("experts per layer", f"{found.experts} ({found.experts_seen} are used)"),
    ]
    if found.kind == "trace":
        least, most = found.least_k, found.top_k
        rows += [
            ("experts per token", str(most) if least == most else f"{least} to {most}"),
            ("tokens", found.tokens),
            ("choices of no expert (-1)", found.absent),
        ]
    rows.append(("visits", found.visits))
    rows.append(
        ("busiest expert over mean", f"{found.expert_imbalance:.3f} (mean over layers), {found.worst_expert:.3f} worst")
    )
    if found.affinity is not None:
        rows.append(
            ("affinity", f"{found.affinity:.3f} (0: layers are independent; 1: an expert decides the next layer's)")
        )
    rows.append(("read from it", found.used_for))
    return [(name, str(value)) for name, value in rows]


def _ranges(numbers: tuple[int, ...]) -> str:
    """Write numbers as ranges: 0, 3-5."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
