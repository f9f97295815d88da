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
    Identity,
    create,
    identity,
    lock,
    open_regular,
    publish,
    remove,
    remove_unlocked,
    rights_at,
    temporaries_beside,
    temporary_beside,
)
from rastermeta_async.catalog.formats import Extent
from rastermeta_async.catalog.names import log_path
from rastermeta_async.catalog.reading import NotRowsError, footer_of
from rastermeta_async.footprints.limits import Limits
from rastermeta_async.model.errors import ForeignOutputError, OutputError, SettingsError, WriteError
from rastermeta_async.model.record import BBox
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

_TIME = pa.timestamp("us", tz="UTC")
_TEXT, _REAL = pa.string(), pa.float64()
_BAND = pa.struct(
    [
        ("name", _TEXT), ("data_type", _TEXT), ("description", _TEXT), ("nodata", _REAL),
        ("unit", _TEXT), ("raster:scale", _REAL), ("raster:offset", _REAL),
        ("raster:sampling", _TEXT), ("raster:spatial_resolution", _REAL),
    ]
)  # fmt: skip
_ASSET = pa.struct(
    [("href", _TEXT), ("type", _TEXT), ("roles", pa.list_(_TEXT)), ("bands", pa.list_(_BAND))]
)
_SCHEMA = pa.schema(
    [
        ("type", _TEXT),
        ("stac_version", _TEXT),
        ("stac_extensions", pa.list_(_TEXT)),
        ("id", _TEXT),
        pa.field("geometry", pa.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"}),
        ("bbox", pa.struct([(name, _REAL) for name in BBox._fields])),
        ("links", pa.list_(pa.struct([("rel", _TEXT), ("href", _TEXT), ("type", _TEXT)]))),
        ("assets", pa.struct([("data", _ASSET)])),
        ("collection", _TEXT),
        ("datetime", _TIME),
        ("start_datetime", _TIME),
        ("end_datetime", _TIME),
        ("proj:code", _TEXT),
        ("proj:shape", pa.list_(pa.int64())),
        ("proj:wkt2", _TEXT),
        ("proj:transform", pa.list_(_REAL)),
        ("proj:bbox", pa.list_(_REAL)),
    ]
)
"""Schema of stac-geoparquet: properties are columns, the geometry is WKB."""

_ALWAYS = frozenset(["datetime", "proj:code"])
"""Fields that every item has, even if they are null."""


@dataclass
class Export:
    """Result of an export."""

    items: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    """Number of rows without an item, by reason."""
    fields: set[str] = field(default_factory=set)
    """Properties, and fields of assets and bands, in use."""
    time: Interval | None = None
    limits: Limits = field(default_factory=Limits)

    def add(self, item: dict[str, Any]) -> None:
        """Count an item, and extend fields, time and limits to it."""
        self.items += 1
        asset, properties = item["assets"]["data"], item["properties"]
        self.fields.update(item, properties, *asset["bands"])
        self.fields.update(f"asset {name}" for name in asset)
        start = _moment(properties["datetime"] or properties["start_datetime"])
        end = _moment(properties["datetime"] or properties["end_datetime"])
        old = self.time or Interval(start, end)
        self.time = Interval(min(old.start, start), max(old.end, end))
        self.limits.add(item["bbox"])


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
        OutputError: `catalog` is not a catalog, or of another version; the output is a catalog.
        ForeignOutputError: a file with the name of an output was not made by an export.
        WriteError: the disk refused a write; the earlier files are unchanged.
    """
    _check_names(catalog, output, collection)
    hrefs = Hrefs(base_url)
    listed, described = f"{output}.left-out.txt", f"{output}.collection.json"
    stood = {name: _file_at(name) for name in (output, listed, described)}
    if not overwrite:
        _check_earlier(output, listed, described if collection else None)
    link = None
    if collection:
        link = {"id": collection, "href": "./" + quote(os.path.basename(described))}
    with _explained(output), contextlib.ExitStack() as files:
        lines = files.enter_context(_Temporary(output))
        others = files.enter_context(_Temporary(listed))
        result = _write_lines(dicts_of(catalog, COLUMNS), when, hrefs, link, lines, others)
        content = None
        limits = result.limits.west_to_east()
        if collection and result.time and limits:
            name = os.path.basename(catalog)
            content = collection_of(collection, name, limits, result.time)
        finished = lines
        if output.endswith(".parquet"):
            finished = files.enter_context(_Temporary(output, ".table"))
            _write_parquet(lines, finished, result, content)
        if content:
            text = files.enter_context(_Temporary(described))
            text.file.write(json.dumps(content, ensure_ascii=False, indent=2).encode() + b"\n")
            text.publish(described, stood[described])
        if result.left_out:
            others.publish(listed, stood[listed])
        elif identity(listed) == stood[listed]:
            remove(listed)  # of an earlier export
        finished.publish(output, stood[output])
    return result


def _file_at(path: str) -> Identity | None:
    """Return the identity of a file that may be replaced; refuse what is no regular file."""
    rights_at(path)
    return identity(path)


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


class _Temporary:
    """A temporary file next to its final name; removed at the end, unless it was published.

    Two exports to the same name do not mix: the second one ends at once.

    Args:
        final: the final name.
        kind: distinguishes temporary files of the same final name.
    """

    def __init__(self, final: str, kind: str = "") -> None:
        self._final = final
        self._name = final + kind
        self._path = temporary_beside(self._name)

    def __enter__(self) -> _Temporary:
        fd = create(self._path, rights_at(self._final))
        self.file = open(fd, "w+b", buffering=1024 * 1024)  # closed on leaving
        try:
            lock(fd, self._path)
            for other in temporaries_beside(self._name):
                if other != self._path:
                    remove_unlocked(other)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._path:
            remove(self._path)
        with contextlib.suppress(OSError):  # a full disk again; the error was already raised
            self.file.close()

    def publish(self, final: str, stood: Identity | None) -> None:
        """Give the file its final name durably; it replaces the file `stood`."""
        self.file.flush()
        os.fsync(self.file.fileno())
        publish(self._path, final, stood)
        self._path = ""


def _write_lines(
    rows: Iterable[dict[str, Any]],
    when: When,
    hrefs: Hrefs,
    link: dict[str, str] | None,
    lines: _Temporary,
    others: _Temporary,
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
    lines: _Temporary, output: _Temporary, result: Export, collection: dict[str, Any] | None
) -> None:
    schema = _used(_SCHEMA, result.fields)
    extent = Extent()
    # No `with`: after an exception it would close the file as if it were complete.
    writer = pq.ParquetWriter(output.file, schema, version="2.6", compression="zstd")
    lines.file.seek(0)
    for some in _groups(lines.file):
        items = [_flat(json.loads(line)) for line in some]
        table = pa.Table.from_pylist(items, schema=schema)
        extent.add(table)
        writer.write_table(table, row_group_size=len(items))
    about: dict[str, Any] = {"version": "1.0.0"}
    if collection:
        about["collections"] = {collection["id"]: collection}
    writer.add_key_value_metadata({"geo": extent.metadata(), PARQUET_KEY: json.dumps(about)})
    writer.close()


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


def _used(schema: pa.Schema, names: set[str]) -> pa.Schema:
    """Return a schema without the optional fields that no item uses."""

    def used(kind: pa.DataType) -> pa.DataType:
        if kind == _ASSET:
            return pa.struct(
                [(one.name, used(one.type)) for one in kind if f"asset {one.name}" in names]
            )
        if pa.types.is_list(kind) and kind.value_type == _BAND:
            return pa.list_(pa.struct([one for one in _BAND if one.name in names]))
        if pa.types.is_struct(kind) and kind.get_field_index("data") >= 0:
            return pa.struct([("data", used(_ASSET))])
        return kind

    return pa.schema(
        [one.with_type(used(one.type)) for one in schema if one.name in names | _ALWAYS]
        if names
        else schema
    )


def _flat(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item as a row: properties at the top level, times, WKB, NaN and infinity.

    The nodata column has doubles: a whole number beyond ±2**53 becomes the nearest double.
    """
    import shapely

    west, south, east, north = item["bbox"]
    if west > east:  # the covering is planar: it spans both sides of the antimeridian
        west, east = -180.0, 180.0
    for band in item["assets"]["data"]["bands"]:
        if "nodata" in band:
            band["nodata"] = float(band["nodata"])
    properties = item.pop("properties")
    for name in ("datetime", "start_datetime", "end_datetime"):
        text = properties.get(name)
        properties[name] = text and _moment(text)
    shape = shapely.from_geojson(json.dumps(item["geometry"]))
    box = dict(zip(BBox._fields, (west, south, east, north), strict=True))
    return {**item, **properties, "geometry": shapely.to_wkb(shape, byte_order=1), "bbox": box}
