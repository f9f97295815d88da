"""Write a catalog as STAC items: JSON lines, or stac-geoparquet.

    rows ──▶ items ──▶ lines ──▶ (Parquet) ──▶ the output's name

Items go to a temporary file first. Memory does not depend on the number of rows.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from rastermeta_async.catalog.completed import dicts_of
from rastermeta_async.catalog.durable import (
    identity,
    open_regular,
    remove,
)
from rastermeta_async.catalog.reading import NotRowsError, footer_of
from rastermeta_async.catalog.temporary import (
    Temporary,
    TemporaryFolder,
    check_is_no_catalog,
    file_at,
    unchanged_on_error,
)
from rastermeta_async.footprints.limits import Limits
from rastermeta_async.model.errors import (
    ForeignOutputError,
    SettingsError,
)
from rastermeta_async.model.text import on_a_line
from rastermeta_async.model.urls import is_url, shown_url
from rastermeta_async.stac.assembly import Assembler, Notes, Omitted
from rastermeta_async.stac.assets import COLUMNS, FieldChoice
from rastermeta_async.stac.dates import Interval
from rastermeta_async.stac.evidence import Rules
from rastermeta_async.stac.items import ItemMaker, collection_of
from rastermeta_async.stac.links import Links, is_encoded_file, is_relative
from rastermeta_async.stac.scenes import Rows, SceneRules, rows_by_scene
from rastermeta_async.stac.table import PARQUET_KEY, ItemTable

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


@dataclass
class Export:
    """Result of an export."""

    items: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    """Number of rows without an item, by reason."""
    notes: Notes = field(default_factory=Notes)
    """What to tell about scenes."""
    relative_links: int = 0
    encoded_links: int = 0
    """Number of ``file://`` links with percent-encoded characters."""
    time: Interval | None = None
    limits: Limits = field(default_factory=Limits)

    def add(self, item: dict[str, Any]) -> None:
        """Count an item and its links, and extend time and limits to it."""
        self.items += 1
        properties = item["properties"]
        start = _moment(properties["datetime"] or properties["start_datetime"])
        end = _moment(properties["datetime"] or properties["end_datetime"])
        old = self.time or Interval(start, end)
        self.time = Interval(min(old.start, start), max(old.end, end))
        self.limits.add(item["bbox"])
        for asset in item["assets"].values():
            self.relative_links += is_relative(asset["href"])
            self.encoded_links += is_encoded_file(asset["href"])


def export(
    catalog: str,
    output: str,
    rules: Rules,
    collection: str | None = None,
    base_url: str | None = None,
    *,
    scenes: Sequence[str] = (),
    choice: FieldChoice = FieldChoice(),  # noqa: B008  # it is frozen
    overwrite: bool = False,
) -> Export:
    """Write a catalog as STAC items: one JSON object a line, or stac-geoparquet.

    Rows without an item are listed in OUTPUT.left-out.txt, one a line: path, tab, reason. A
    collection goes to OUTPUT.collection.json. Each file gets its final name when it is complete,
    the items last; after a crash the same command writes all files again.

    Args:
        catalog: a finished catalog.
        output: the items' file; the file of an earlier export is replaced.
        rules: tell when a raster was taken.
        collection: the id of a collection to write, too.
        base_url: URL before local paths; None: they become ``file://`` URLs or relative links.
        scenes: rules that tell the scene of a file, see `SceneRules`; empty: an item a file.
        choice: the fields of items.
        overwrite: also replace files that no export made, except a catalog.

    Raises:
        SettingsError: a name, URL or rule is invalid, or Parquet would have too many columns.
        MissingExtraError: the output is Parquet, and stac-geoparquet is not installed.
        OutputError: `catalog` is not a catalog, or of another version; the output is a catalog.
        ForeignOutputError: a file with the name of an output was not made by an export.
        WriteError: the disk refused a write; the earlier files are unchanged.
    """
    _check_names(catalog, output, collection)
    table = ItemTable() if output.endswith(".parquet") else None
    links = Links(base_url, os.path.dirname(output))
    scene_rules = SceneRules(scenes) if scenes else None
    listed, described = f"{output}.left-out.txt", f"{output}.collection.json"
    stood = {name: file_at(name) for name in (output, listed, described)}
    if not overwrite:
        _check_earlier(output, listed, described if collection else None)
    link = None
    if collection:
        link = {"id": collection, "href": "./" + quote(os.fsencode(os.path.basename(described)))}
    maker = ItemMaker(rules, links, choice, link)
    assembler = Assembler(maker, others_alone=scene_rules is None or scene_rules.others_alone)
    with unchanged_on_error(output), contextlib.ExitStack() as files:
        lines = files.enter_context(Temporary(output))
        others = files.enter_context(Temporary(listed))
        rows = files.enter_context(_opened(catalog, output, scene_rules))
        result = _write_lines(assembler.items(rows), table, lines, others)
        result.notes = assembler.notes
        content = _collection(collection, catalog, result) if collection else None
        finished = lines
        if table:
            finished = files.enter_context(Temporary(output, ".table"))
            lines.file.seek(0)
            table.write(lines.file, finished.file, content)
        if content:
            text = files.enter_context(Temporary(described))
            text.file.write(json.dumps(content, ensure_ascii=False, indent=2).encode() + b"\n")
            text.publish(described, stood[described])
        elif collection and identity(described) == stood[described]:
            remove(described)  # of an earlier export, whose items are gone
        if result.left_out:
            others.publish(listed, stood[listed])
        elif identity(listed) == stood[listed]:
            remove(listed)  # of an earlier export
        finished.publish(output, stood[output])
    return result


@contextlib.contextmanager
def _opened(catalog: str, output: str, rules: SceneRules | None) -> Iterator[Rows]:
    """Open the rows of a catalog: those of a scene together, if there are rules for scenes."""
    with contextlib.ExitStack() as files:
        rows: Rows
        if rules:
            scratch = files.enter_context(TemporaryFolder(output))
            rows = rows_by_scene(catalog, COLUMNS, rules, scratch.path)
        else:
            rows = ((row, None) for row in dicts_of(catalog, COLUMNS))
        yield files.enter_context(contextlib.closing(rows))


def _collection(name: str, catalog: str, result: Export) -> dict[str, Any] | None:
    """Return the collection of the items; None: there are none."""
    limits = result.limits.west_to_east()
    if not (result.time and limits):
        return None
    title = os.fsencode(os.path.basename(catalog)).decode("utf-8", "backslashreplace")
    return collection_of(name, title, limits, result.time)


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
    check_is_no_catalog(output, catalog=catalog)


def _write_lines(
    items: Iterable[dict[str, Any] | Omitted],
    table: ItemTable | None,
    lines: Temporary,
    others: Temporary,
) -> Export:
    """Write items and omitted rows, one a line each."""
    result = Export()
    for item in items:
        if isinstance(item, Omitted):
            path = on_a_line(shown_url(item.path))
            others.file.write(f"{path}\t{item.reason}\n".encode())
            result.left_out[item.reason] = result.left_out.get(item.reason, 0) + 1
            continue
        lines.file.write(_line(item))
        result.add(item)
        if table:
            table.add(item)
    return result


def _line(item: dict[str, Any]) -> bytes:
    r"""Return an item as a line of JSON that can be loaded into pgstac.

    pypgstac (0.10, `read_json`) halves double backslashes before it parses a line, so a backslash
    is ``\u005c`` here. PostgreSQL ("JSON Types", 8.14.1) refuses U+0000, so U+FFFD replaces it.
    """
    import orjson

    line = orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE)
    return line.replace(rb"\\", rb"\u005c").replace(rb"\u0000", "\ufffd".encode())


def _moment(text: str) -> dt.datetime:
    """Return a time of an item; any year is valid here, unlike in `interval_of`."""
    return dt.datetime.fromisoformat(text)
