"""``cosma presets``: what accelerators, strategies and solvers there are."""

from __future__ import annotations

from cosma.cli import options


def presets(json: options.Json = False) -> None:
    """List the accelerators, strategies and solver profiles that come with cosma."""
    from cosma.accelerator.files import preset, preset_names
    from cosma.cli.output import make_table, print_json, print_table
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
                        "origins": {k: {"source": o.source, "confidence": o.confidence} for k, o in p.origins.items()},
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
    columns = ("name", "scratchpad", "align", "trust", "what it is")
    table = make_table("Accelerators (--accelerator)", columns, right=(1, 2))
    for p in accelerators:
        trust = p.origins["scratchpad"].confidence if "scratchpad" in p.origins else ""
        table.add_row(
            str(p.accelerator.name),
            format_size(p.accelerator.scratchpad),
            str(p.accelerator.alignment),
            trust,
            p.description,
        )
    print_table(table)
    table = make_table("Strategies (--strategy)", ("name", "what it does"))
    for s in STRATEGIES.values():
        table.add_row(s.name, s.summary)
    print_table(table)
    table = make_table("Solver profiles (--solver, for the strategies exact and ilp)", ("name", "back end", "about"))
    for profile in profiles:
        table.add_row(profile.name, profile.back_end, profile.about)
    print_table(table)
