"""Read some columns of a finished catalog, a few rows at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import IO, Any

import pyarrow as pa

from rastermeta_async.catalog.formats import FORMATS
from rastermeta_async.catalog.names import log_path
from rastermeta_async.catalog.reading import (
    NotRowsError,
    ParquetRows,
    checked,
    fault_of,
    json_batches,
)
from rastermeta_async.model.errors import OutputError, SettingsError

_LINES = 1024
ROWS_AS_DICTS = 64
"""Rows that are converted to dicts at once; a row with thousands of bands takes megabytes."""


def batches_of(
    catalog: str, columns: Sequence[str], rows: int = _LINES
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a finished catalog in its order, only with these columns.

    Raises:
        SettingsError: the name does not have the ending of a catalog.
        OutputError: it is not a catalog, it is damaged, or it has another version.
    """
    if not catalog.endswith(tuple(FORMATS)):
        raise SettingsError(f"{catalog}: the name of a catalog ends in one of {', '.join(FORMATS)}")
    if not os.path.isfile(catalog):
        raise OutputError(_not_there(catalog))
    try:
        with open(catalog, "rb") as file:
            if catalog.endswith(".parquet"):
                batches = _from_parquet(catalog, file, columns, rows)
            else:
                batches = json_batches(file, columns, array=catalog.endswith(".json"))
            yield from checked(batches)
    except NotRowsError as error:
        raise OutputError(
            f"{catalog}: {error}. No run writes that: make the catalog anew, or restore it."
        ) from error
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise OutputError(f"{catalog} cannot be read: {reason}") from error


def dicts_of(catalog: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a finished catalog as dicts; see `batches_of`."""
    for batch in batches_of(catalog, columns):
        for start in range(0, batch.num_rows, ROWS_AS_DICTS):
            yield from batch.slice(start, ROWS_AS_DICTS).to_pylist()


def _not_there(catalog: str) -> str:
    text = f"{catalog}: there is no finished catalog of this name"
    if os.path.isdir(catalog):
        return f"{text}, but a folder"
    if os.path.exists(log_path(catalog)):
        return f"{text} yet: `rastermeta status {catalog}` tells how far it is"
    return f"{text}, nor any other file"


def _from_parquet(
    catalog: str, file: IO[bytes], columns: Sequence[str], rows: int
) -> Iterator[pa.RecordBatch]:
    if fault := fault_of(file):
        raise OutputError(
            f"{catalog} {fault}. Make it anew with `rastermeta extract … --overwrite -o {catalog}`"
            ", or take a copy as rastermeta wrote it"
        )
    yield from ParquetRows(file).batches(columns, rows)
