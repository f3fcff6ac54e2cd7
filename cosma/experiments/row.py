"""Rows: what is known about a cell once it has run, one flat record, and tables of them as CSV and Parquet."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cosma.errors import FormatError, SolverUnavailableError
from cosma.files import read_bytes, write_atomic
from cosma.text import csv_lines, csv_text

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Statuses of a cell that has a plan.
PLANNED = ("optimal", "feasible")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one cell. Sizes in bytes; None where a failed cell has no such number."""

    #: See :class:`~cosma.experiments.cell.Cell`.
    key: str
    point: str
    instance: str
    #: What was compiled.
    model: str
    group: str
    model_sha256: str
    dims: str = ""
    #: Onto what; ``capacity`` as written, ``scratchpad`` in bytes.
    grid: str
    accelerator: str | None = None
    capacity: str
    scratchpad: int | None = None
    alignment: int
    reserved: int
    operands: str
    weights: str
    in_place: bool
    fusion: str
    min_transfer: int = 0
    zero_copy: bool | None = None
    pieces: int | None = None
    dtype: str | None = None
    #: How.
    label: str
    strategy: str
    solver: str | None = None
    effort: float
    gap_target: float
    time_limit_s: float | None = None
    seed: int
    repeat: int
    #: One of :data:`PLANNED`, or why there is no plan: ``infeasible``, ``timeout`` or ``memory`` (given up),
    #: ``crashed`` (its process died), ``error`` (refused); then the reason in words.
    status: str
    reason: str | None = None
    #: Size of the graph.
    operators: int | None = None
    tensors: int | None = None
    #: Of the plan, as replayed.
    total: int | None = None
    compulsory: int | None = None
    noncompulsory: int | None = None
    loaded: int | None = None
    stored: int | None = None
    streamed: int | None = None
    peak: int | None = None
    #: Its certificate.
    lower_bound: int | None = None
    gap: float | None = None
    bound_method: str | None = None
    #: How the compile ended, and the SHA-256 of the plan file.
    found_by: str | None = None
    stopped_by: str | None = None
    reproducible: bool | None = None
    plan_sha256: str | None = None
    #: Clock on the wall: the compile, its first plan, its best plan.
    seconds: float | None = None
    seconds_first: float | None = None
    seconds_best: float | None = None
    #: Processor time of the compile, wall seconds of reading the model (0 where it was read before), and peak resident
    #: memory of the process during the cell.
    cpu_seconds: float | None = None
    load_seconds: float | None = None
    rss: int | None = None
    #: Limits the cell ran under.
    limit_s: float | None = None
    memory_limit: int | None = None
    #: Versions, a digest of cosma's source code, and the kind of machine.
    cosma: str
    code: str = ""
    python: str = ""
    ortools: str = ""
    numpy: str = ""
    machine: str = ""

    @property
    def planned(self) -> bool:
        """Whether there is a plan."""
        return self.status in PLANNED


#: Columns of every table of rows, in order.
COLUMNS = Row.__struct_fields__


def rows_to_csv(rows: Iterable[Row]) -> str:
    """Write rows as CSV with a header; None is an empty field."""
    return csv_lines([COLUMNS, *(map(_field, msgspec.structs.astuple(row)) for row in rows)])


def rows_from_csv(text: str, where: str) -> list[Row]:
    """Read what :func:`rows_to_csv` wrote; columns unknown to this version are left out.

    Raises FormatError if a column is missing or a field is of the wrong type; the message names the line.
    """
    reader = csv.DictReader(io.StringIO(text))
    rows = []
    for record in reader:
        values = {key: csv_text(value) for key, value in record.items() if key in COLUMNS and value not in ("", None)}
        try:
            # An empty field is None, or the empty text where the column always has one.
            rows.append(msgspec.convert({**_EMPTY, **values}, Row, strict=False))
        except msgspec.ValidationError as error:
            raise FormatError(f"{where}: line {reader.line_num}: {error}") from error
    return rows


def write_parquet(rows: Iterable[Row], path: Path | str) -> None:
    """Write rows as a Parquet file, whole or not at all; raises SolverUnavailableError if pyarrow is not installed."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise SolverUnavailableError("Parquet needs pyarrow: pip install 'cosma[batch]'") from error
    records = [msgspec.to_builtins(row) for row in rows]
    schema = arrow.schema([(info.name, _arrow_type(arrow, info.type)) for info in msgspec.structs.fields(Row)])
    sink = arrow.BufferOutputStream()
    parquet.write_table(arrow.Table.from_pylist(records, schema=schema), sink, compression="zstd")
    write_atomic(path, sink.getvalue().to_pybytes())


def read_parquet(path: Path | str) -> list[Row]:
    """Read what :func:`write_parquet` wrote.

    Raises SolverUnavailableError if pyarrow is not installed. Raises FormatError if the file is no Parquet file of
    rows.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise SolverUnavailableError("Parquet needs pyarrow: pip install 'cosma[batch]'") from error
    data = read_bytes(path, "results")
    try:
        return msgspec.convert(parquet.read_table(arrow.BufferReader(data)).to_pylist(), list[Row])
    except (arrow.ArrowException, msgspec.ValidationError) as error:
        raise FormatError(f"{path}: not a Parquet file of rows: {error}") from error


_EMPTY = dict.fromkeys(("dims", "code", "python", "ortools", "numpy", "machine"), "")


def _field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def _arrow_type(arrow: Any, kind: Any) -> Any:
    kinds = set(getattr(kind, "__args__", (kind,))) - {type(None)}
    return {bool: arrow.bool_(), int: arrow.int64(), float: arrow.float64(), str: arrow.string()}[kinds.pop()]
