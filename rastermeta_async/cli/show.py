"""Format one record as text or as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

from rastermeta_async.catalog.json_rows import row_objects
from rastermeta_async.footprints.crs import crs_of, unit_of
from rastermeta_async.footprints.limits import west_to_east
from rastermeta_async.model.record import (
    JP2_HEADER,
    TIFF_HEADER,
    UNPLACED,
    Band,
    Record,
    to_batch,
)
from rastermeta_async.model.text import (
    TIFFS,
    bytes_in_words,
    cog_in_words,
    degrees,
    layout_of,
    name_in_wkt,
    on_a_line,
    plural,
)
from rastermeta_async.readers.router import Comparison

_LABEL = 15
"""Width of the column of labels in characters, with the space after it."""

_MANY_BANDS = 30
"""Highest number of lines for bands."""


def to_json(record: Record) -> str:
    """Return the record as a JSON object, indented."""
    (row,) = row_objects(to_batch([record]))
    return json.dumps(row, ensure_ascii=False, allow_nan=False, indent=2)


def as_text(record: Record) -> str:
    """Return the record as aligned text, in groups, without null values."""
    return "\n".join(_lines(record))


def comparison_as_text(both: Comparison) -> str:
    """Return both readers' records as text, and the columns in which they differ."""
    lines = ["rasterio", *_lines(both.rasterio), ""]
    if both.decoded is None:
        return "\n".join([*lines, "header decoder", f"  does not decode it: {both.reason}"])
    decoder = both.decoded.reader or ""
    lines += [decoder, *_lines(both.decoded), "", "Differences"]
    for name in both.differences:
        lines.append(f"  {name}")
        for reader, record in (("rasterio", both.rasterio), (decoder, both.decoded)):
            lines.append(f"    {reader:<{_LABEL - 2}}{getattr(record, name)!r}")
    return "\n".join(lines if both.differences else [*lines, "  none"])


def comparison_to_json(both: Comparison) -> str:
    """Return both readers' records as a JSON object, indented."""
    records = (both.rasterio,) if both.decoded is None else (both.rasterio, both.decoded)
    of_rasterio, *decoded = row_objects(to_batch(records))
    answer = {
        "rasterio": of_rasterio,
        **dict.fromkeys((TIFF_HEADER, JP2_HEADER)),
        **{str(row["reader"]): row for row in decoded},
        "reason": both.reason,
        "differences": both.differences,
    }
    return json.dumps(answer, ensure_ascii=False, allow_nan=False, indent=2)


def _lines(record: Record) -> Iterator[str]:
    groups = [
        ("File", _file(record)),
        ("Place", _place(record)),
        ("Image", _image(record)),
        ("Tags", (record.dataset_tags or {}).items()),
        ("Imagery", (record.imagery_tags or {}).items()),
        *(
            (f"Tags of band {band}", tags.items())
            for band, tags in (record.band_tags or {}).items()
        ),
    ]
    bands = _band_lines(record.bands or [])
    for title, entries in groups:
        known = [(name, str(value)) for name, value in entries if value not in (None, "")]
        width = max([_LABEL, *(len(on_a_line(name)) + 2 for name, _ in known)])
        if known:
            yield title
            for name, value in known:
                yield from _entry(name, value, min(width, 2 * _LABEL))
        if title == "Image" and bands:
            yield "Bands"
            yield from (f"  {line}" for line in bands)
        if title == "Image" and record.subdatasets:
            yield "Subdatasets"
            yield from (f"  {on_a_line(name)}" for name in record.subdatasets)


Entries = Iterator[tuple[str, object]]


def _file(record: Record) -> Entries:
    yield "path", on_a_line(record.filepath)
    yield "member", record.member and on_a_line(record.member)
    yield "status", record.status
    if record.error_type or record.error_message:
        yield "problem", ": ".join(filter(None, (record.error_type, record.error_message)))
    yield "driver", record.driver
    if record.file_size is not None:
        exact = plural(record.file_size, "byte")
        rounded = bytes_in_words(record.file_size)
        yield "size", exact if exact == rounded else f"{rounded} ({exact})"
    if record.mtime is not None:
        yield "changed", f"{record.mtime:%Y-%m-%d %H:%M:%S} UTC"
    yield "etag", record.etag
    yield "read by", record.reader


def _place(record: Record) -> Entries:
    if record.status == "no_georef":
        return
    name, code = _name_of(record.crs), record.proj_code or ""
    yield "CRS", f"{code} ({name})" if code and name and name != code else code or name
    unit = unit_of(record.crs)
    unit = unit if unit in ("", "°") else f" {unit}"
    by_transform = record.footprint == "transform" or record.transform != UNPLACED
    if record.transform and record.bounds and record.count and by_transform:
        x, a, b, y, d, e = record.transform
        yield "origin", f"x {x!r}, y {y!r}"
        yield (
            "pixel",
            f"{_size(math.hypot(a, d))}{unit} x {_size(math.hypot(b, e))}{unit}"
            + (
                ""
                if b == d == 0
                else f", turned (geotransform {', '.join(map(repr, (a, b, d, e)))})"
            ),
        )
        left, bottom, right, top = record.bounds
        yield "x", f"{left!r} to {right!r}"
        yield "y", f"{min(bottom, top)!r} to {max(bottom, top)!r}"
    if record.bbox and record.geometry:
        west, south, east, north = west_to_east(record.bbox._asdict(), record.geometry)
        yield "longitude", f"{degrees(west, 'EW')} to {degrees(east, 'EW')}"
        yield "latitude", f"{degrees(south, 'NS')} to {degrees(north, 'NS')}"
        if record.footprint != "transform":
            yield "footprint", f"approximate, from {record.footprint}"
    yield "pixel is", record.area_or_point and record.area_or_point.lower()
    if record.gcp_count:
        yield "control", plural(record.gcp_count, "ground control point")
    if record.has_rpcs:
        yield "RPCs", "yes"


def _image(record: Record) -> Entries:
    if record.count == 0:
        yield "bands", "none: a container"
        return
    if record.width is not None and record.height is not None:
        yield "size", f"{record.width:,} x {record.height:,} pixels"
    if record.count is not None:
        yield "bands", f"{plural(record.count, 'band')} of {record.dtype}"
        untold = "none" if record.driver in TIFFS else "not told"
        yield "compression", record.compression or untold
    if record.missing_sources:
        yield "sources", f"{plural(record.missing_sources, 'file')} missing"
    yield "interleave", record.interleave
    yield "photometric", record.photometric
    if record.driver in TIFFS and record.bands:
        yield "layout", layout_of(record.tiled, bool(record.bands[0].overviews))
        yield "COG", "\n".join([cog_in_words(record.cog), *(record.cog_problems or ())])


def _size(value: float) -> str:
    return f"{value:.12g}"


def _name_of(crs: str | None) -> str:
    """Return the name of a CRS, or its code if it has no name."""
    if not crs:
        return ""
    found = crs_of(crs)
    return on_a_line(name_in_wkt(found.to_wkt() if found else crs) or crs)


def _band_lines(bands: list[Band]) -> list[str]:
    """Return a table of bands; equal neighbours share a line."""
    runs: list[tuple[int, int, Band]] = []
    for number, band in enumerate(bands, 1):
        if runs and runs[-1][2] == band:
            runs[-1] = (runs[-1][0], number, band)
        else:
            runs.append((number, number, band))
    rows = [
        (f"{first}" if first == last else f"{first}-{last}", *_band(band))
        for first, last, band in runs[:_MANY_BANDS]
    ]
    used = [any(column) for column in zip(*rows, strict=True)]
    shown = [[cell for cell, keep in zip(row, used, strict=True) if keep] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    ]
    if len(runs) > _MANY_BANDS:
        lines.append(f"and {len(bands) - runs[_MANY_BANDS - 1][1]:,} more")
    return lines


def _band(band: Band) -> tuple[str, ...]:
    """Return the columns of a band's line; the usual value is an empty text."""
    scaled = (band.scale, band.offset) != (1.0, 0.0)
    overviews = " ".join(map(str, band.overviews or ()))
    return (
        band.dtype,
        band.color_interp or "",
        f"blocks {band.block_width} x {band.block_height}",
        "" if band.nodata is None else f"nodata {band.nodata_text or f'{band.nodata:.17g}'}",
        f"scale {band.scale!r}, offset {band.offset!r}" if scaled else "",
        f"unit {on_a_line(band.unit)}" if band.unit else "",
        f"overviews {overviews}" if overviews else "",
        f"“{on_a_line(band.description)}”" if band.description else "",
    )


def _entry(name: str, text: str, width: int) -> Iterator[str]:
    """Yield a label and its text; a text of several lines is aligned."""
    first, *rest = [on_a_line(line) for line in text.splitlines()] or [""]
    yield f"  {on_a_line(name):<{width - 2}}  {first}".rstrip()
    for line in rest:
        yield f"{'':{width + 2}}{line}".rstrip()
