"""``cosma table``: what came out of a sweep, as tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Results = Annotated[
    list[Path], typer.Argument(metavar="RESULTS...", help="Results folders, or .csv, .jsonl or .parquet files of rows.")
]
Strategies = Annotated[
    list[str] | None,
    typer.Option(
        "--strategy",
        metavar="NAME",
        help="Report on this one; repeat for more. By default all but the existing methods.",
    ),
]


def table(
    results: Results,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="NAME",
            help="headline, reduction, proof, groups, models, profiles, fronts, failures.",
        ),
    ] = None,
    strategy: Strategies = None,
    form: Annotated[str, typer.Option("--format", "-f", metavar="NAME", help="markdown, csv or json.")] = "markdown",
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write here.")] = None,
    insert: Annotated[
        Path | None,
        typer.Option("--insert", metavar="FILE.md", help="Replace what FILE has between its two marks for the table."),
    ] = None,
) -> None:
    """Summarise sweeps: reduction against existing methods, proof, gap and time profiles, fronts, failures.

    With --insert, FILE holds the marks `<!-- table: NAME -->` and `<!-- end -->`, and what lies between them is
    replaced, so that a document's numbers are never typed.
    """
    from cosma.cli.output import CSV, PLAN, claim_outputs, deliver, json_text, print_data
    from cosma.errors import InputError
    from cosma.experiments.store import load_rows
    from cosma.experiments.tables import SUMMARY, TABLES, make_tables, provenance
    from cosma.files import write_atomic

    names = list(name or SUMMARY)
    for given in names:
        if given not in TABLES:
            raise InputError(f"--only {given!r} is unknown; choose from {', '.join(TABLES)}")
    if form not in ("markdown", "csv", "json"):
        raise InputError(f"--format must be markdown, csv or json, not {form!r}")
    claim_outputs({"--output": (output, {"markdown": (".md", ".txt"), "csv": CSV, "json": PLAN}[form])}, results)
    if insert is not None:
        claim_outputs({"--insert": (insert, ())})
    rows = [row for path in results for row in load_rows(path)]
    if not rows:
        raise InputError(f"{', '.join(map(str, results))}: no finished cells yet")
    tables = make_tables(rows, names, strategy or ())
    if insert is not None:
        for made in tables:
            text = made.to_markdown().split("\n", 2)[2]
            write_atomic(insert, replace_marked(_document(insert), made.name, text, str(insert)))
        return
    if form == "json":
        text = json_text({"rows": len(rows), **{made.name: made.to_records() for made in tables}})
    elif form == "csv":
        text = "\n".join(made.to_csv() for made in tables)
    else:
        text = "\n".join([*(made.to_markdown() for made in tables), provenance(rows) + ".\n"])
    if output is not None:
        deliver(output, text, "the table")
    else:
        print_data(text.rstrip("\n") + "\n")


def _document(path: Path) -> str:
    from cosma.errors import InputError
    from cosma.files import read_bytes

    try:
        return read_bytes(path, "document").decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"document {path}: not UTF-8 text: {error}") from error


def replace_marked(document: str, name: str, text: str, where: str) -> str:
    """Replace what lies between a document's marks for a table.

    Raises InputError if the marks are not there, or in the wrong order.
    """
    from cosma.errors import InputError

    start, end = f"<!-- table: {name} -->", "<!-- end -->"
    head, found_start, rest = document.partition(start)
    _, found_end, tail = rest.partition(end)
    if not found_start or not found_end:
        raise InputError(f"{where}: no {start} followed by {end}; put both where the table should be")
    return f"{head}{start}\n{text.strip()}\n{end}{tail}"
