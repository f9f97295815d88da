"""One record, or the schema, for a person or as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any

from rastermeta_async.jsonform import row_objects
from rastermeta_async.record import Band, Record, describe_columns, to_batch
from rastermeta_async.tiff_reader import Comparison

_GROUPS = {
    "File": (
        "filepath", "status", "error_type", "error_message", "driver", "file_size", "mtime",
        "reader",
    ),
    "Placement": (
        "crs", "proj_code", "transform", "res", "bounds", "area_or_point", "gcp_count", "has_rpcs",
    ),
    "Image": (
        "width", "height", "count", "dtype", "nodata", "compression", "interleave", "photometric",
        "tiled",
    ),
}  # fmt: skip
_INDENT = 16


def to_json(record: Record) -> str:
    """Return the record as a JSON object, indented."""
    (row,) = row_objects(to_batch([record]))
    return json.dumps(row, ensure_ascii=False, allow_nan=False, indent=2)


def as_text(record: Record) -> str:
    """Return the record as aligned text; what is null is left out."""
    return "\n".join(_lines(record))


def comparison_as_text(both: Comparison) -> str:
    """Return both readers' records as text, and the columns in which they differ."""
    lines = ["rasterio", *_lines(both.rasterio), "", "tiff_header"]
    if both.decoded is None:
        return "\n".join([*lines, f"  does not decode it: {both.reason}"])
    lines += [*_lines(both.decoded), "", "Differences"]
    for name in both.differences:
        lines.append(f"  {name}")
        for reader, record in (("rasterio", both.rasterio), ("tiff_header", both.decoded)):
            lines.append(f"    {reader:<{_INDENT - 4}}{getattr(record, name)!r}")
    return "\n".join(lines if both.differences else [*lines, "  none"])


def comparison_to_json(both: Comparison) -> str:
    """Return both readers' records as a JSON object, indented."""
    records = (both.rasterio,) if both.decoded is None else (both.rasterio, both.decoded)
    rows = [*row_objects(to_batch(records)), None]
    answer = {
        "rasterio": rows[0], "tiff_header": rows[1], "reason": both.reason,
        "differences": both.differences,
    }  # fmt: skip
    return json.dumps(answer, ensure_ascii=False, allow_nan=False, indent=2)


def _lines(record: Record) -> Iterator[str]:
    for title, names in _GROUPS.items():
        known = [(name, getattr(record, name)) for name in names]
        known = [(name, value) for name, value in known if value is not None]
        if known:
            yield title
            for name, value in known:
                yield from _entry(name, _text(value))
    if record.bands:
        yield "Bands"
        for number, band in enumerate(record.bands, 1):
            yield from _entry(str(number), _band(band))
    if record.subdatasets:
        yield "Subdatasets"
        yield from (f"  {name}" for name in record.subdatasets)
    for title, tags in (("Tags", record.dataset_tags), *_tags_of_bands(record)):
        if tags:
            yield title
            for key, value in tags.items():
                yield from _entry(key, value)


def _tags_of_bands(record: Record) -> Iterator[tuple[str, dict[str, str]]]:
    for band, tags in (record.band_tags or {}).items():
        yield f"Tags of band {band}", tags


def _entry(name: str, text: str) -> Iterator[str]:
    first, *rest = text.splitlines() or [""]
    yield f"  {name:<{_INDENT - 2}}{first}" if len(name) < _INDENT - 2 else f"  {name}  {first}"
    for line in rest:
        yield " " * _INDENT + line


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if hasattr(value, "_asdict"):
        return ", ".join(f"{name} {number!r}" for name, number in value._asdict().items())
    if isinstance(value, tuple):
        return ", ".join(map(repr, value))
    return str(value)


def _band(band: Band) -> str:
    parts = [band.dtype, band.color_interp, f"blocks {band.block_width} x {band.block_height}"]
    parts.append(None if band.nodata is None else f"nodata {band.nodata!r}")
    if (band.scale, band.offset) != (1.0, 0.0):
        parts.append(f"scale {band.scale!r}, offset {band.offset!r}")
    parts.append(f"unit {band.unit}" if band.unit else None)
    parts.append(f"overviews {' '.join(map(str, band.overviews))}" if band.overviews else None)
    parts.append(f"“{band.description}”" if band.description else None)
    return ", ".join(part for part in parts if part)


def schema_as_text() -> str:
    """Return the columns as aligned text, long types wrapped."""
    lines = []
    for name, kind, meaning in describe_columns():
        lines.append(f"{name:<16}{meaning}")
        lines.extend(textwrap.wrap(kind, 82, initial_indent=" " * 16, subsequent_indent=" " * 18))
    return "\n".join(lines)


def schema_as_json() -> str:
    """Return the columns as a JSON array of objects."""
    columns = [
        {"name": name, "type": kind, "meaning": meaning}
        for name, kind, meaning in describe_columns()
    ]
    return json.dumps(columns, indent=2)
