"""Write a catalog as STAC items: JSON lines, or stac-geoparquet.

    rows ──▶ items ──▶ lines ──▶ (Parquet) ──▶ the output's name

Items go to a temporary file first. This also finds the fields in use: only they become columns in
Parquet. Memory does not depend on the number of rows.

References: stac-geoparquet 1.0.0 ("Schema", "Metadata"); GeoParquet 1.1.0.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from rastermeta_async.catalog.completed import dicts_of
from rastermeta_async.catalog.durable import (
    identity,
    open_regular,
    remove,
)
from rastermeta_async.catalog.formats import Extent
from rastermeta_async.catalog.names import log_path
from rastermeta_async.catalog.reading import NotRowsError, footer_of
from rastermeta_async.catalog.temporary import Temporary, file_at
from rastermeta_async.footprints.limits import Limits
from rastermeta_async.model.errors import (
    ForeignOutputError,
    MissingExtraError,
    OutputError,
    SettingsError,
    WriteError,
)
from rastermeta_async.model.machine import allow_import
from rastermeta_async.model.text import on_a_line
from rastermeta_async.model.urls import is_url, shown_url
from rastermeta_async.stac.dates import Interval
from rastermeta_async.stac.evidence import When
from rastermeta_async.stac.items import COLUMNS, Hrefs, LeftOut, collection_of, item_of

PARQUET_KEY = "stac-geoparquet"
"""Key in a Parquet file's metadata; if present, the rows are items."""

_MOST_BYTES = 64 * 1024 * 1024
"""Highest number of bytes read of a file; an item is smaller, with any number of bands."""


def check_items(path: str) -> None:
    """Raise ForeignOutputError if a file of this name exists and holds no STAC items."""
    of_items = _is_parquet_of_items if path.endswith(".parquet") else _is_lines_of_items
    _check(path, "holds no STAC items", is_known=of_items(path))


def check_collection(path: str) -> None:
    """Raise ForeignOutputError if a file of this name exists and is not a STAC collection."""
    found = _object(_content(path))
    is_known = found.get("type") == "Collection" and "stac_version" in found
    _check(path, "is no STAC collection", is_known=is_known)


def check_left_out(path: str) -> None:
    """Raise ForeignOutputError if a file of this name exists and is not a list of omitted rows."""
    is_known = _first_line(path).count(b"\t") == 1
    _check(path, "is no list of what an export left out", is_known=is_known)


def _check(path: str, what: str, *, is_known: bool) -> None:
    if os.path.exists(path) and not is_known:
        raise ForeignOutputError(f"{path} exists and {what}; give --overwrite or another -o")


def _is_parquet_of_items(path: str) -> bool:
    try:
        with open(open_regular(path), "rb") as file:
            return PARQUET_KEY.encode() in (footer_of(file).metadata or {})
    except (pa.ArrowException, OSError, NotRowsError):
        return False


def _is_lines_of_items(path: str) -> bool:
    if os.path.isfile(path) and not os.path.getsize(path):  # an export without items is empty
        return True
    return "stac_version" in _object(_first_line(path))


def _first_line(path: str) -> bytes:
    """Return the first line of a file; empty if it cannot be read."""
    with contextlib.suppress(OSError), open(open_regular(path), "rb") as file:
        return file.readline(_MOST_BYTES)
    return b""


def _content(path: str) -> bytes:
    """Return the content of a file; empty if it cannot be read."""
    with contextlib.suppress(OSError), open(open_regular(path), "rb") as file:
        return file.read(_MOST_BYTES)
    return b""


def _object(text: bytes) -> dict[str, Any]:
    """Return the JSON object of a text; an empty one if it is no JSON object."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


ENDINGS = (".parquet", ".ndjson", ".jsonl")
_GROUP_ROWS, _GROUP_BYTES = 4096, 8 * 1024 * 1024

_EXAMPLE = {
    "type": "Feature", "stac_version": "", "stac_extensions": [""], "id": "",
    "geometry": {"type": "Point", "coordinates": [0, 0]}, "bbox": [0.0, 0.0, 0.0, 0.0],
    "properties": {"datetime": "1970-01-01T00:00:00Z"}, "links": [],
    "assets": {"data": {"href": "", "bands": []}},
}  # fmt: skip
"""An item with the fields that every item has."""


@dataclass
class Export:
    """Result of an export."""

    items: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    """Number of rows without an item, by reason."""
    examples: list[dict[str, Any]] = field(default_factory=lambda: [_EXAMPLE])
    """Items with all fields in use, of properties, assets and bands, and all types of values."""
    time: Interval | None = None
    limits: Limits = field(default_factory=Limits)
    _known: set[tuple[str, str, type]] = field(default_factory=set)
    """Where a field is in the examples, its name, and the type of its value."""

    def add(self, item: dict[str, Any]) -> None:
        """Count an item, and extend examples, time and limits to it."""
        self.items += 1
        properties = item["properties"]
        self._add_example(item, properties, item["assets"]["data"])
        start = _moment(properties["datetime"] or properties["start_datetime"])
        end = _moment(properties["datetime"] or properties["end_datetime"])
        old = self.time or Interval(start, end)
        self.time = Interval(min(old.start, start), max(old.end, end))
        self.limits.add(item["bbox"])

    def _add_example(
        self, item: dict[str, Any], properties: dict[str, Any], asset: dict[str, Any]
    ) -> None:
        bands = [band for band in asset["bands"] if self._is_new("band", band)]
        parts = {"item": item, "properties": properties, "asset": asset}
        if sum(self._is_new(*part) for part in parts.items()) or bands:  # of each: no `any`
            # An item may have 10^5 bands.
            assets = {"data": {**asset, "bands": bands}}
            self.examples.append({**item, "assets": assets})

    def _is_new(self, where: str, part: dict[str, Any]) -> bool:
        kinds = {(where, name, type(value)) for name, value in part.items()} - self._known
        self._known |= kinds
        return bool(kinds)


def export(
    catalog: str,
    output: str,
    when: When,
    collection: str | None = None,
    base_url: str | None = None,
    *,
    overwrite: bool = False,
) -> Export:
    """Write a catalog as STAC items: one JSON object a line, or stac-geoparquet.

    Rows without an item are listed in OUTPUT.left-out.txt, one a line: path, tab, reason. A
    collection goes to OUTPUT.collection.json. Each file gets its final name when it is complete,
    the items last; after a crash the same command writes all files again.

    Args:
        catalog: a finished catalog.
        output: the items' file; the file of an earlier export is replaced.
        when: returns the time when a raster was taken.
        collection: the id of a collection to write, too.
        base_url: URL before local paths.
        overwrite: also replace files that no export made, except a catalog.

    Raises:
        SettingsError: a name or URL is invalid.
        MissingExtraError: the output is Parquet, and stac-geoparquet is not installed.
        OutputError: `catalog` is not a catalog, or of another version; the output is a catalog.
        ForeignOutputError: a file with the name of an output was not made by an export.
        WriteError: the disk refused a write; the earlier files are unchanged.
    """
    _check_names(catalog, output, collection)
    if output.endswith(".parquet"):
        _parser()  # before the work begins
    hrefs = Hrefs(base_url)
    listed, described = f"{output}.left-out.txt", f"{output}.collection.json"
    stood = {name: file_at(name) for name in (output, listed, described)}
    if not overwrite:
        _check_earlier(output, listed, described if collection else None)
    link = None
    if collection:
        link = {"id": collection, "href": "./" + quote(os.path.basename(described))}
    with _explained(output), contextlib.ExitStack() as files:
        lines = files.enter_context(Temporary(output))
        others = files.enter_context(Temporary(listed))
        result = _write_lines(dicts_of(catalog, COLUMNS), when, hrefs, link, lines, others)
        content = None
        limits = result.limits.west_to_east()
        if collection and result.time and limits:
            name = os.path.basename(catalog)
            content = collection_of(collection, name, limits, result.time)
        finished = lines
        if output.endswith(".parquet"):
            finished = files.enter_context(Temporary(output, ".table"))
            _write_parquet(lines, finished, result, content)
        if content:
            text = files.enter_context(Temporary(described))
            text.file.write(json.dumps(content, ensure_ascii=False, indent=2).encode() + b"\n")
            text.publish(described, stood[described])
        if result.left_out:
            others.publish(listed, stood[listed])
        elif identity(listed) == stood[listed]:
            remove(listed)  # of an earlier export
        finished.publish(output, stood[output])
    return result


def _check_earlier(output: str, listed: str, described: str | None) -> None:
    """Raise ForeignOutputError if a file of these names exists and no export made it."""
    check_items(output)
    check_left_out(listed)
    if described:
        check_collection(described)


def _check_names(catalog: str, output: str, collection: str | None) -> None:
    if is_url(output.encode("utf-8", "surrogateescape")):
        raise SettingsError(f"{output}: items are written to a local file; copy it there then")
    if not output.endswith(ENDINGS):
        raise SettingsError(f"{output}: the items' name must end in one of {', '.join(ENDINGS)}")
    if collection is not None and not re.fullmatch(r"[^\s/\x00-\x1f\x7f]+", collection):
        raise SettingsError(f"--collection: {collection!r} is no id: no spaces, no slashes")
    same = os.path.exists(output) and os.path.exists(catalog) and os.path.samefile(output, catalog)
    if same or os.path.exists(log_path(output)):
        raise OutputError(f"{output} is a catalog: give the items another name")


@contextlib.contextmanager
def _explained(output: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"{output}: writing failed: {error.strerror or error}. What stood there before is as "
            "it was: mend that, or give another -o, then run the same command again."
        ) from error


def _write_lines(
    rows: Iterable[dict[str, Any]],
    when: When,
    hrefs: Hrefs,
    link: dict[str, str] | None,
    lines: Temporary,
    others: Temporary,
) -> Export:
    result = Export()
    for row in rows:
        try:
            item = item_of(row, when, hrefs, link)
        except LeftOut as finding:
            reason = str(finding)
            others.file.write(f"{on_a_line(shown_url(row['filepath']))}\t{reason}\n".encode())
            result.left_out[reason] = result.left_out.get(reason, 0) + 1
            continue
        text = json.dumps(item, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        lines.file.write(text.encode() + b"\n")
        result.add(item)
    return result


def _write_parquet(
    lines: Temporary, output: Temporary, result: Export, collection: dict[str, Any] | None
) -> None:
    """Write the items of lines as Parquet; stac-geoparquet turns them into rows."""
    extent = Extent()
    schema = _schema_of(result.examples)
    (nothing,) = _rows_of(result.examples[:1], schema)
    # No `with`: after an exception it would close the file as if it were complete.
    writer = pq.ParquetWriter(output.file, nothing.schema, version="2.6", compression="zstd")
    lines.file.seek(0)
    for some in _groups(lines.file):
        for batch in _rows_of([_for_parquet(json.loads(line)) for line in some], schema):
            table = pa.Table.from_batches([batch])
            extent.add(table)
            writer.write_table(table, row_group_size=len(table))
    about: dict[str, Any] = {"version": "1.0.0"}
    if collection:
        about["collections"] = {collection["id"]: collection}
    writer.add_key_value_metadata({"geo": extent.metadata(), PARQUET_KEY: json.dumps(about)})
    writer.close()


def _schema_of(items: list[dict[str, Any]]) -> pa.Schema:
    """Return the Arrow schema of items as JSON, with binary geometries."""
    rows = pa.array([{**_for_parquet(item), "geometry": b""} for item in items])
    schema = pa.schema(list(rows.type))
    at = schema.get_field_index("properties")
    properties = [  # such a property is null in all items: it would be of the type null
        one.with_type(pa.string()) if pa.types.is_null(one.type) else one
        for one in schema.field(at).type
    ]
    return schema.set(at, schema.field(at).with_type(pa.struct(properties)))


def _rows_of(items: list[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Return items as rows; `schema` is that of their JSON."""
    yield from _parser()(items, chunk_size=len(items), schema=schema)


def _parser() -> Any:
    """Return the function of stac-geoparquet that makes rows of items.

    Raises:
        MissingExtraError: stac-geoparquet is not installed.
    """
    allow_import("pandas")
    try:
        from stac_geoparquet.arrow import parse_stac_items_to_arrow
    except ImportError:
        raise MissingExtraError(
            "items as Parquet need the extra stac, in a clone: pip install '.[stac]'; "
            "-o NAME.ndjson needs none"
        ) from None
    return parse_stac_items_to_arrow


def _moment(text: str) -> dt.datetime:
    """Return a time of an item; any year is valid here, unlike in `interval_of`."""
    return dt.datetime.fromisoformat(text)


def _groups(file: IO[bytes]) -> Iterator[list[bytes]]:
    """Yield lines in groups bounded by number and by size."""
    group: list[bytes] = []
    size = 0
    for line in file:
        if group and (len(group) == _GROUP_ROWS or size + len(line) > _GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(line)
        size += len(line)
    if group:
        yield group


def _for_parquet(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item with a planar bounding box, and with NaN and infinity as numbers.

    The nodata column has doubles: a whole number beyond ±2**53 becomes the nearest double.
    """
    west, south, east, north = item["bbox"]
    if west > east:  # the covering is planar: it spans both sides of the antimeridian
        west, east = -180.0, 180.0
    asset = item["assets"]["data"]
    bands = [
        band | {"nodata": float(band["nodata"])} if "nodata" in band else band
        for band in asset["bands"]
    ]
    return {
        **item, "bbox": [west, south, east, north], "assets": {"data": {**asset, "bands": bands}}
    }  # fmt: skip
