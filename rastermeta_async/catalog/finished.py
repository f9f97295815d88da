"""Reading a finished catalog: the columns that are asked for, a few rows at a time."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rastermeta_async.catalog.formats import FORMATS, parquet_batches
from rastermeta_async.catalog.jsonform import decoder
from rastermeta_async.catalog.names import log_path
from rastermeta_async.errors import OutputError, SettingsError
from rastermeta_async.record import SCHEMA, SCHEMA_VERSION, VERSION_KEY

_LINES = 1024
_ROWS = 64
"""Rows that are plain objects at a time: one with thousands of bands takes megabytes."""


def batches_of(
    catalog: str, columns: Sequence[str], rows: int = _LINES
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a finished catalog in its order, only with these columns.

    Raises:
        SettingsError: no catalog has a name like this.
        OutputError: it is none, or damaged, or one of another version.
    """
    if not catalog.endswith(tuple(FORMATS)):
        raise SettingsError(f"{catalog}: the name of a catalog ends in one of {', '.join(FORMATS)}")
    if not os.path.isfile(catalog):
        raise OutputError(_not_there(catalog))
    try:
        if catalog.endswith(".parquet"):
            yield from _from_parquet(catalog, columns, rows)
        else:
            yield from _from_json(catalog, columns, array=catalog.endswith(".json"))
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise OutputError(f"{catalog} cannot be read: {error}") from error


def rows_of(catalog: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a finished catalog as plain objects; see `batches_of`."""
    for batch in batches_of(catalog, columns):
        for start in range(0, batch.num_rows, _ROWS):
            yield from batch.slice(start, _ROWS).to_pylist()


def _not_there(catalog: str) -> str:
    text = f"{catalog}: there is no finished catalog of this name"
    if os.path.isdir(catalog):
        return f"{text}, but a folder"
    if os.path.exists(log_path(catalog)):
        text += f" yet: `rastermeta status {catalog}` tells how far it is"
    return text


def _from_parquet(catalog: str, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(catalog) as file:
        schema = file.schema_arrow
        version = (schema.metadata or {}).get(VERSION_KEY)
        if version is None:
            raise OutputError(f"{catalog} is a Parquet file, but no catalog made by rastermeta")
        if version != str(SCHEMA_VERSION).encode() or not schema.equals(SCHEMA):
            raise OutputError(
                f"{catalog} was made by another version of rastermeta (schema {version.decode()}; "
                f"this one reads {SCHEMA_VERSION}): make it anew, or use that version"
            )
        yield from parquet_batches(file, list(columns), rows)


def _from_json(catalog: str, columns: Sequence[str], *, array: bool) -> Iterator[pa.RecordBatch]:
    schema = pa.schema([SCHEMA.field(name) for name in columns])
    with open(catalog, encoding="utf-8", newline="\n") as file:
        lines: Iterator[tuple[int, str]] = enumerate(file, 1)
        if array:  # one object a line, as this program writes it
            lines = ((at, line.rstrip(",\n")) for at, line in lines if line.strip() not in "[]")
        while some := list(itertools.islice(lines, _LINES)):
            yield _decoded(catalog, schema, some)


def _decoded(catalog: str, schema: pa.Schema, lines: Iterable[tuple[int, str]]) -> pa.RecordBatch:
    rows = []
    row_of = decoder(pa.struct(list(schema)))
    for at, line in lines:
        try:
            rows.append(row_of(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OutputError(
                f"{catalog}: line {at} is no row of a catalog: it was not made by this version of "
                "rastermeta, or it is damaged"
            ) from error
    return pa.RecordBatch.from_pylist(rows, schema=schema)
