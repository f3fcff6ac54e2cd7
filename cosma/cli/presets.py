"""``cosma presets``: what accelerators, strategies and solvers there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.cli import options

if TYPE_CHECKING:
    from cosma.accelerator import Accelerator

#: Fields that estimates of time need.
FIGURES = ("bandwidth_bytes_per_s", "dma_latency_s", "clock_hz", "macs_per_cycle")


def presets(json: options.Json = False) -> None:
    """List the accelerators, strategies and solver profiles that come with cosma."""
    from cosma.accelerator.files import preset, preset_names
    from cosma.cli.output import make_table, print_json, print_rows, print_table, print_text
    from cosma.compiler.strategies import STRATEGIES
    from cosma.solvers import list_profiles, load_profile
    from cosma.units import format_size

    profiles = [load_profile(name) for name in list_profiles()]
    accelerators = [preset(name) for name in preset_names()]
    if json:
        print_json(
            {
                "accelerators": [
                    {
                        "name": p.accelerator.name,
                        "description": p.description,
                        "scratchpad": p.accelerator.scratchpad,
                        "alignment": p.accelerator.alignment,
                        **{name: getattr(p.accelerator, name) for name in FIGURES},
                        "origins": {k: {"source": o.source, "confidence": o.confidence} for k, o in p.origins.items()},
                        "unpublished": p.unpublished,
                    }
                    for p in accelerators
                ],
                "strategies": [{"name": s.name, "summary": s.summary} for s in STRATEGIES.values()],
                "solvers": [
                    {"name": p.name, "back_end": p.back_end, "about": p.about} for p in profiles
                ],
            }
        )
        return
    columns = ("name", "scratchpad", "align", "off-chip", "clock", "MACs/cycle", "trust", "what it is")
    table = make_table("Accelerators (--accelerator)", columns, right=(1, 2, 3, 4, 5))
    for p in accelerators:
        trust = p.origins["scratchpad"].confidence if "scratchpad" in p.origins else ""
        table.add_row(
            str(p.accelerator.name),
            format_size(p.accelerator.scratchpad),
            str(p.accelerator.alignment),
            *_figures(p.accelerator),
            trust,
            p.description,
        )
    print_table(table)
    print_text("A dash is a number that nobody publishes; --json says why, and gives the source of every other.")
    strategies = [(s.name, s.summary) for s in STRATEGIES.values()]
    print_rows("Strategies (--strategy)", ("name", "what it does"), strategies)
    title = "Solver profiles (--solver, for the strategies exact and ilp)"
    print_rows(title, ("name", "back end", "about"), [(p.name, p.back_end, p.about) for p in profiles])


def _figures(accelerator: Accelerator) -> tuple[str, str, str]:
    bandwidth, clock, macs = accelerator.bandwidth_bytes_per_s, accelerator.clock_hz, accelerator.macs_per_cycle
    return (
        "-" if bandwidth is None else f"{bandwidth / 1e9:g} GB/s",
        "-" if clock is None else f"{clock / 1e6:g} MHz",
        "-" if macs is None else f"{macs:g}",
    )
