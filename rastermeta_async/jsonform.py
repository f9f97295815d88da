"""The JSON form of a row, derived from the Arrow schema; strict JSON both ways.

Structs and maps are objects (map keys as strings, so band tags are keyed ``"1"``, ``"2"``, …),
times are ISO 8601 in UTC, bytes are base64. JSON has no NaN: as in STAC's raster extension,
non-finite numbers are the strings ``"nan"``, ``"inf"`` and ``"-inf"``, so that a nodata of NaN
and no nodata at all stay different things.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from rastermeta_async.record import SCHEMA


def encode(value: Any, kind: pa.DataType) -> Any:
    """Return an Arrow value of type `kind` (as ``as_py`` gives it) in its JSON form."""
    if value is None:
        return None
    if pa.types.is_floating(kind):
        return value if math.isfinite(value) else repr(value)
    if pa.types.is_timestamp(kind):
        return value.isoformat().replace("+00:00", "Z")
    if pa.types.is_binary(kind):
        return base64.b64encode(value).decode("ascii")
    if pa.types.is_map(kind):
        return {str(key): encode(item, kind.item_type) for key, item in value}
    if pa.types.is_list(kind):
        return [encode(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind):
        return {field.name: encode(value[field.name], field.type) for field in kind}
    return value


def decode(value: Any, kind: pa.DataType) -> Any:
    """Return the value that `encode` turned into this JSON form."""
    if value is None:
        return None
    if pa.types.is_floating(kind):
        return float(value)
    if pa.types.is_timestamp(kind):
        return dt.datetime.fromisoformat(value)
    if pa.types.is_binary(kind):
        return base64.b64decode(value)
    if pa.types.is_map(kind):
        number = pa.types.is_integer(kind.key_type)
        return [
            (int(key) if number else key, decode(item, kind.item_type))
            for key, item in value.items()
        ]
    if pa.types.is_list(kind):
        return [decode(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind):
        return {field.name: decode(value[field.name], field.type) for field in kind}
    return value


def row_objects(rows: pa.RecordBatch | pa.Table) -> Iterator[dict[str, Any]]:
    """Yield each row as a JSON object, keys in the order of the columns."""
    for row in rows.to_pylist():
        yield {field.name: encode(row[field.name], field.type) for field in SCHEMA}


def to_lines(rows: pa.RecordBatch | pa.Table) -> Iterator[str]:
    """Yield each row as one line of JSON, without the newline."""
    for row in row_objects(rows):
        yield json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def from_lines(lines: Iterable[str]) -> pa.RecordBatch:
    """Return the rows of JSON lines as one batch, the inverse of `to_lines`."""
    rows = []
    for line in lines:
        row = json.loads(line)
        rows.append({field.name: decode(row[field.name], field.type) for field in SCHEMA})
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
