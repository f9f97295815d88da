"""Convert rows to JSON and back, by the Arrow schema; strict JSON in both directions.

Structs are objects; so are tags, by their names, and band tags have the keys ``"1"``, ``"2"``, …;
times are ISO 8601 in UTC, bytes are base64. JSON has no NaN. A nodata that is not finite is null,
and `nodata_text` says what it is, so that the field has the same type in all rows. Any other number
that is not finite, which hardly a raster has, is the string ``"nan"``, ``"inf"`` or ``"-inf"``.
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

from rastermeta_async.model.record import (
    BAND_TAG_LIST,
    SCHEMA,
    TAG_LIST,
    BandTag,
    Tag,
    band_tags_of,
    tags_of,
)
from rastermeta_async.model.settings import JsonTags

_NODATA, _NODATA_TEXT = "nodata", "nodata_text"

_Function = Callable[[Any], Any]


@lru_cache
def encoder(kind: pa.DataType, tags: JsonTags = JsonTags.MAP) -> _Function:
    """Return the function that turns a value of type `kind` (as ``as_py``) into its JSON form.

    Neither is null.
    """
    if pa.types.is_floating(kind):
        return lambda value: value if math.isfinite(value) else repr(value)
    if pa.types.is_timestamp(kind):
        return lambda value: value.isoformat().replace("+00:00", "Z")
    if pa.types.is_binary(kind):
        return lambda value: base64.b64encode(value).decode("ascii")
    if kind == TAG_LIST and tags is JsonTags.MAP:
        return tags_of
    if kind == BAND_TAG_LIST and tags is JsonTags.MAP:
        return lambda rows: {str(band): named for band, named in band_tags_of(rows).items()}
    if pa.types.is_list(kind):
        element = _nullable(encoder(kind.value_type, tags))
        return lambda value: [element(one) for one in value]
    if pa.types.is_struct(kind):
        fields = [(field.name, _nullable(_field_encoder(field, tags))) for field in kind]
        return lambda value: {name: field(value[name]) for name, field in fields}
    return _as_it_is


def _field_encoder(field: pa.Field, tags: JsonTags) -> _Function:
    if field.name == _NODATA:
        return lambda value: value if math.isfinite(value) else None
    return encoder(field.type, tags)


@lru_cache
def decoder(kind: pa.DataType) -> _Function:
    """Return the function that turns a JSON form, not null, into a value of type `kind`."""
    if pa.types.is_floating(kind):
        return _real
    if pa.types.is_timestamp(kind):
        return dt.datetime.fromisoformat
    if pa.types.is_binary(kind):
        return lambda value: base64.b64decode(value, validate=True)
    if kind == TAG_LIST:
        return lambda tags: [Tag(*one)._asdict() for one in tags.items()]
    if kind == BAND_TAG_LIST:
        return _band_tag_rows
    if pa.types.is_list(kind):
        element = _nullable(decoder(kind.value_type))
        return lambda value: [element(one) for one in _listed(value)]
    if pa.types.is_struct(kind):
        fields = [(field.name, _nullable(decoder(field.type))) for field in kind]
        special = _nodata if kind.get_field_index(_NODATA) >= 0 else _nothing
        return lambda value: {name: field(value[name]) for name, field in fields} | special(value)
    return _as_it_is


def _nothing(_: Any) -> dict[str, Any]:
    return {}


def _nodata(value: dict[str, Any]) -> dict[str, float | None]:
    number = value[_NODATA]
    if number is None:
        number = value[_NODATA_TEXT]
    return {_NODATA: None if number is None else _real(number)}


def _nullable(plain: _Function) -> _Function:
    if plain is _as_it_is:
        return plain
    return lambda value: None if value is None else plain(value)


def _as_it_is(value: Any) -> Any:
    return value


def _real(value: Any) -> float:
    if type(value) not in (float, int) and value not in ("nan", "inf", "-inf"):
        raise TypeError("no number")
    return float(value)


def _band_tag_rows(bands: Any) -> list[dict[str, Any]]:
    numbered = [(int(band), tags) for band, tags in bands.items()]
    return [BandTag(band, *one)._asdict() for band, tags in numbered for one in tags.items()]


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("no list")
    return value


def _strict(literal: str) -> float:
    raise ValueError(f"JSON has no {literal}")


_JSON = json.JSONDecoder(parse_constant=_strict)


def row_objects(rows: pa.RecordBatch | pa.Table) -> Iterator[dict[str, Any]]:
    """Yield each row as a JSON object, keys in the order of the columns."""
    yield from map(encoder(pa.struct(list(SCHEMA))), rows.to_pylist())


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
