"""Turns the columns of a catalog into columns that spreadsheets and GIS formats have.

Lists, maps and structs become JSON texts. What becomes of a column depends on its type alone.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import shapely

from rastermeta_async.catalog.json_rows import encoder
from rastermeta_async.footprints.limits import parsed
from rastermeta_async.gis.layers import GEOMETRY

Converter = Callable[[pa.Array], pa.Array]


json_text = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
"""Returns a value as strict JSON on one line."""


def flattened(
    rows: pa.RecordBatch, converter_of: Callable[[pa.Field], Converter | None]
) -> pa.RecordBatch:
    """Return rows with converted columns.

    Args:
        rows: some columns of a catalog.
        converter_of: returns what converts a column; None: it stays.
    """
    columns = [
        converter(column) if (converter := converter_of(field)) else column
        for field, column in zip(rows.schema, rows.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, rows.schema.names)


def for_layer(field: pa.Field) -> Converter | None:
    """Return what makes a column one that GDAL can write; None: it is one."""
    if pa.types.is_nested(field.type):
        return _to_json
    return _without_nul if pa.types.is_string(field.type) else None


def for_csv(field: pa.Field) -> Converter | None:
    """Return what makes a column one of texts, numbers or truth values; None: it is one."""
    if pa.types.is_nested(field.type):
        return _to_json
    if pa.types.is_timestamp(field.type):
        return _to_iso
    if pa.types.is_binary(field.type):
        return _to_wkt if field.name == GEOMETRY else _to_base64
    return None


def _to_json(column: pa.Array) -> pa.Array:
    encoded = encoder(column.type)
    known: dict[str, str] = {}  # many rasters have the same bands and tags

    def text_of(value: Any) -> str:
        key = repr(value)  # a tenth of the time of what follows
        if key not in known:
            known[key] = json_text(encoded(value))
        return known[key]

    return _texts(column, text_of)


def _to_iso(column: pa.Array) -> pa.Array:
    return pc.strftime(column, "%Y-%m-%dT%H:%M:%SZ")  # %S has all digits of the column's unit


def _to_base64(column: pa.Array) -> pa.Array:
    return _texts(column, lambda value: base64.b64encode(value).decode())


def _texts(column: pa.Array, text_of: Callable[[Any], str]) -> pa.Array:
    """Return the text of each value; null for null."""
    values = column.to_pylist()
    return pa.array([None if one is None else text_of(one) for one in values], pa.string())


def _to_wkt(column: pa.Array) -> pa.Array:
    shapes = parsed(column.to_pylist())
    return pa.array(shapely.to_wkt(shapes, rounding_precision=-1), pa.string())


def _without_nul(column: pa.Array) -> pa.Array:
    r"""Return texts in which ``\x00`` stands for a NUL character, which ends a text in GDAL."""
    return pc.replace_substring(column, "\0", r"\x00")
