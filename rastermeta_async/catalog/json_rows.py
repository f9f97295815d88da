"""Convert rows to JSON and back, by the Arrow schema; strict JSON in both directions.

Structs and maps are objects (map keys are strings, so band tags have the keys ``"1"``, ``"2"``, …),
times are ISO 8601 in UTC, bytes are base64. JSON has no NaN, so non-finite numbers are the strings
``"nan"``, ``"inf"`` and ``"-inf"``, as in STAC's raster extension. This keeps a nodata of NaN
different from no nodata.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa

from rastermeta_async.model.record import SCHEMA


def encode(value: Any, kind: pa.DataType) -> Any:
    """Return the JSON form of an Arrow value of type `kind` (as ``as_py`` gives it)."""
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


@lru_cache
def encoder(kind: pa.DataType) -> Callable[[Any], Any]:
    """Return the function that turns a value of type `kind`, not null, into its JSON form."""
    return lambda value: encode(value, kind)


def decode(value: Any, kind: pa.DataType) -> Any:
    """Return the value that `encode` turned into this JSON form."""
    return None if value is None else decoder(kind)(value)


@lru_cache
def decoder(kind: pa.DataType) -> Callable[[Any], Any]:
    """Return the function that turns a JSON form, not null, into a value of type `kind`."""
    if pa.types.is_floating(kind):
        return _real
    if pa.types.is_timestamp(kind):
        return dt.datetime.fromisoformat
    if pa.types.is_binary(kind):
        return lambda value: base64.b64decode(value, validate=True)
    if pa.types.is_map(kind):
        key, item = int if pa.types.is_integer(kind.key_type) else str, _nullable(kind.item_type)
        return lambda value: [(key(name), item(one)) for name, one in value.items()]
    if pa.types.is_list(kind):
        element = _nullable(kind.value_type)
        return lambda value: [element(one) for one in _listed(value)]
    if pa.types.is_struct(kind):
        fields = [(field.name, _nullable(field.type)) for field in kind]
        return lambda value: {name: field(value[name]) for name, field in fields}
    return _as_it_is


def _nullable(kind: pa.DataType) -> Callable[[Any], Any]:
    plain = decoder(kind)
    if plain is _as_it_is:
        return plain
    return lambda value: None if value is None else plain(value)


def _as_it_is(value: Any) -> Any:
    return value


def _real(value: Any) -> float:
    if type(value) not in (float, int) and value not in ("nan", "inf", "-inf"):
        raise TypeError("no number")
    return float(value)


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("no list")
    return value


def _strict(literal: str) -> float:
    raise ValueError(f"JSON has no {literal}")


_JSON = json.JSONDecoder(parse_constant=_strict)


def row_objects(rows: pa.RecordBatch | pa.Table) -> Iterator[dict[str, Any]]:
    """Yield each row as a JSON object, keys in the order of the columns."""
    for row in rows.to_pylist():
        yield {field.name: encode(row[field.name], field.type) for field in SCHEMA}


def to_lines(rows: pa.RecordBatch | pa.Table) -> Iterator[str]:
    """Yield each row as one line of JSON, without the newline."""
    for row in row_objects(rows):
        yield json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def from_lines(lines: Iterable[str], columns: Sequence[str] | None = None) -> pa.RecordBatch:
    """Return these columns of JSON lines as one batch (None: all); the inverse of `to_lines`.

    Raises:
        Exception: a line is not a row; the type of the exception depends on the line's content.
    """
    schema = pa.schema([SCHEMA.field(name) for name in columns]) if columns else SCHEMA
    row_of = decoder(pa.struct(list(schema)))
    return pa.RecordBatch.from_pylist([row_of(_JSON.decode(line)) for line in lines], schema)
