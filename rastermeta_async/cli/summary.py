"""Summarise a catalog as text or as JSON: counts, bytes, extent in space and time, errors."""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.catalog.completed import batches_of
from rastermeta_async.catalog.no_rasters import sealed_of, some_no_rasters
from rastermeta_async.footprints.crs import unit_of
from rastermeta_async.footprints.limits import Limits
from rastermeta_async.model.record import NO_RASTER, SIDECAR, SUCCESSES, shown_name
from rastermeta_async.model.row_ops import IDENTITY, ArchiveSizes, has_overviews
from rastermeta_async.model.text import (
    TIFFS,
    bytes_in_words,
    cog_in_words,
    degrees,
    general_message,
    layout_of,
    name_in_wkt,
    no_rasters_in_words,
    on_a_line,
    on_lines,
    plural,
    shortened,
)
from rastermeta_async.model.urls import local_name, redacted, shown_url
from rastermeta_async.report.dots import DotMap
from rastermeta_async.report.folders import FolderCounter
from rastermeta_async.report.taken import date_tags
from rastermeta_async.stac.dates import Interval, rfc3339
from rastermeta_async.stac.evidence import coordinate_of, evidence_of, from_tags

MAX_VALUES = 10_000
"""Highest number of different values counted in a column; later ones count as `OTHER`."""

OTHER = "(other)"

_MAX_TEXT = 64 * 1024 * 1024
"""Highest number of characters kept of all values; later values count as `OTHER`, too."""

COLUMNS = (*IDENTITY, "error_type", "error_message", "driver", "crs", "dtype", "res",
           "count", "compression", "tiled", "cog", "cog_problems", "bands", "file_size", "bbox",
           "dataset_tags", "imagery_tags", "reader", "footprint", "missing_sources", "time_start",
           "time_end")  # fmt: skip
_OF_ERRORS = ["filepath", "error_type", "error_message", "member"]
_ROWS = 8192

TagsByRow = dict[int, dict[str, str]]

_COUNTED = ("status", "driver", "crs", "dtype", "resolution", "bands", "compression", "layout",
            "cog", "cog_problems", "reader")  # fmt: skip


class Summary:
    """Counts of a catalog's rows; `add` takes batches in any order."""

    def __init__(self) -> None:
        self.rows = 0
        self.failures = 0
        self.bytes = 0
        self.counts: dict[str, Counter[Hashable]] = {name: Counter() for name in _COUNTED}
        self.errors: Counter[tuple[str, str]] = Counter()
        """Keys are (type, message without names and large numbers)."""
        self.examples: dict[tuple[str, str], str] = {}
        self.placed = 0
        """Rows with a footprint."""
        self.limits = Limits()
        self.dated = 0
        """Rows whose tags have a date."""
        self.time: Interval | None = None
        self.incomplete = 0
        """Rows of VRTs that refer to files that are not there."""
        self._sizes = ArchiveSizes()
        self._text = 0
        """Characters of all counted values."""
        self.folders = FolderCounter()
        self.places = DotMap()
        self.several = False
        """Whether a path may have several rows, as the log tells."""
        self.sidecars = 0
        """Paths that are no rasters, and have no row: files that belong to a raster."""
        self.others = 0
        """Other paths that are no rasters."""
        self.no_rasters: dict[str, list[str]] = {}
        """Some of these, by their status."""

    def _repr_html_(self) -> str:
        """Return the summary for a notebook."""
        return as_html(self)

    def add(self, rows: pa.RecordBatch) -> None:
        """Count rows with the columns `COLUMNS`."""
        self.rows += rows.num_rows
        sizes = self._sizes.of(rows)
        self.folders.add(rows["filepath"], sizes)
        # The sum of 64-bit integers may need more bits.
        self.bytes += int(pc.sum(sizes.cast(pa.decimal128(19))).as_py() or 0)
        self._count("status", rows["status"])
        read = pc.is_in(rows["status"], pa.array(sorted(SUCCESSES)))
        failed = rows.filter(pc.invert(read)).select(_OF_ERRORS)
        self._add_errors(failed)
        rows = rows.filter(read)
        for name in ("driver", "crs", "reader"):
            self._count(name, rows[name])
        self.placed += len(rows) - rows["bbox"].null_count
        self.incomplete += pc.sum(pc.greater(rows["missing_sources"], 0)).as_py() or 0
        self.limits.add_rows(rows["bbox"])
        self.places.add(rows["bbox"])
        self._add_dates(
            _relevant_tags(rows["dataset_tags"]), _relevant_tags(rows["imagery_tags"]),
            _coordinates(rows["time_start"], rows["time_end"]),
        )  # fmt: skip
        self._count("bands", rows["count"])
        rasters = rows.filter(pc.greater(rows["count"], 0))  # a container has no pixels
        self._count("dtype", rasters["dtype"])
        tiffs = pc.is_in(rasters["driver"], pa.array(TIFFS))  # others do not report compression
        untold = pc.if_else(tiffs, "none", "not told")
        self._count("compression", pc.coalesce(rasters["compression"], untold))
        self._add_pairs("resolution", *_resolutions(rasters))
        self._add_layouts(rasters.filter(tiffs))

    def _count(self, name: str, values: pa.Array) -> None:
        for one in pc.value_counts(values).to_pylist():
            self._add(name, one["values"], one["counts"])

    def _add(self, name: str, value: Hashable, count: int) -> None:
        counter = self.counts[name]
        counter[value if value in counter or self._has_room(counter, value) else OTHER] += count

    def _has_room(self, counter: Counter[Any], *values: object) -> bool:
        """Tell whether there is room to keep values, and count their characters."""
        size = sum(len(value) for value in values if isinstance(value, str))
        if len(counter) >= MAX_VALUES or self._text + size > _MAX_TEXT:
            return False
        self._text += size
        return True

    def _add_errors(self, rows: pa.RecordBatch) -> None:
        self.failures += rows.num_rows
        columns = (column.to_pylist() for column in rows)
        for path, kind, message, member in zip(*columns, strict=True):
            key = kind or "", general_message(message or "", path)
            if key not in self.errors and not self._has_room(self.errors, *key, path):
                key = key[0], OTHER
                if key not in self.errors and len(self.errors) >= 2 * MAX_VALUES:
                    key = "", OTHER
            self.errors[key] += 1
            self.examples.setdefault(key, shown_name(path, member))

    def _add_dates(
        self, of_dataset: TagsByRow, of_imagery: TagsByRow, of_coordinates: dict[int, Interval]
    ) -> None:
        for row in of_dataset.keys() | of_imagery.keys() | of_coordinates.keys():
            evidence = evidence_of("", of_dataset.get(row), of_imagery.get(row))
            if interval := from_tags(evidence._replace(coordinate=of_coordinates.get(row))):
                self.dated += 1
                old = self.time or interval
                self.time = Interval(min(old.start, interval.start), max(old.end, interval.end))

    def _add_pairs(self, name: str, values: list[Hashable], counts: list[int]) -> None:
        for value, count in zip(values, counts, strict=True):
            self._add(name, value, count)

    def _add_layouts(self, tiffs: pa.RecordBatch) -> None:
        """Count layouts, once for each group of rows with equal layout columns."""
        overviews = has_overviews(tiffs["bands"])
        parts = pa.table({"tiled": tiffs["tiled"], "overviews": overviews, "cog": tiffs["cog"]})
        alike = parts.group_by(["tiled", "overviews", "cog"]).aggregate([([], "count_all")])
        for one in alike.to_pylist():
            self._add("layout", layout_of(one["tiled"], one["overviews"]), one["count_all"])
            self._add("cog", cog_in_words(one["cog"]), one["count_all"])
        self._count("cog_problems", pc.list_flatten(tiffs["cog_problems"]))


def _coordinates(start: pa.Array, end: pa.Array) -> dict[int, Interval]:
    """Return the times of the rows that have a time coordinate, by the index of the row."""
    if start.null_count == len(start):
        return {}
    pairs = zip(start.to_pylist(), end.to_pylist(), strict=True)
    found = {row: coordinate_of(*pair) for row, pair in enumerate(pairs)}
    return {row: interval for row, interval in found.items() if interval}


def summary_of(catalog: str) -> Summary:
    """Return the summary of a finished catalog; for a URL, of its local file.

    Raises:
        SettingsError: a catalog cannot have this name.
        OutputError: it is not a catalog, or damaged, or of another version.
    """
    summary = Summary()
    name = local_name(catalog)
    for batch in batches_of(name, COLUMNS, _ROWS):
        summary.add(batch)
    summary.limits.settle(batches_of(name, ("bbox", "geometry"), _ROWS))
    if sealed := sealed_of(name):
        summary.sidecars, summary.others = sealed.sidecars, sealed.others
        summary.several = sealed.several
        summary.no_rasters = some_no_rasters(name, sealed, _EXAMPLES)
    return summary


def _resolutions(rasters: pa.RecordBatch) -> tuple[list[Hashable], list[int]]:
    """Return the different (x, y, unit), and how many rasters have each."""
    # Rasters without georeferencing have no pixel size: rasterio then returns 1 by 1.
    by_points = pc.is_in(rasters["footprint"], pa.array(["gcps", "rpcs"]))
    success = pc.equal(rasters["status"], "success")
    placed = rasters.filter(pc.and_(success, pc.invert(by_points)))
    known = placed.filter(pc.equal(pc.fill_null(pc.list_value_length(placed["res"]), 0), 2))
    if not known.num_rows:
        return [], []
    crs = known["crs"].dictionary_encode()
    units = pa.array([unit_of(one) for one in crs.dictionary.to_pylist()], pa.string())
    parts = pa.table(
        {
            "x": pc.list_element(known["res"], 0),
            "y": pc.list_element(known["res"], 1),
            "unit": pc.fill_null(units.take(crs.indices), ""),
        }
    )
    parts = parts.filter(pc.and_(pc.is_finite(parts["x"]), pc.is_finite(parts["y"])))
    alike = parts.group_by(["x", "y", "unit"]).aggregate([([], "count_all")]).to_pylist()
    values: list[Hashable] = [(abs(one["x"]), abs(one["y"]), one["unit"]) for one in alike]
    return values, [one["count_all"] for one in alike]


def _relevant_tags(tags: pa.Array) -> TagsByRow:
    """Return the tags that can hold a date, for each row that has any."""
    row, names, values = date_tags(tags)
    found: TagsByRow = {}
    for at, name, value in zip(row.tolist(), names.to_pylist(), values.to_pylist(), strict=True):
        found.setdefault(at, {})[name] = value
    return found


def as_pairs(counter: Counter[Hashable]) -> list[dict[str, Any]]:
    """Return the counted values, the most frequent first."""
    return [{"value": value, "count": count} for value, count in counter.most_common()]


_SHOWN = 8
"""Number of values of a column that the text shows."""

_FOLDERS = 8
_EXAMPLES = 3
_KINDS = {SIDECAR: "sidecars", NO_RASTER: "others"}
_ERRORS = 10
_BAR = 20
_NAME = 48


def to_json(summary: Summary) -> str:
    """Return the whole summary as a JSON object."""
    content = {
        "rows": summary.rows,
        "failures": summary.failures,
        "bytes": summary.bytes,
        **{name: _pairs(name, counter) for name, counter in summary.counts.items()},
        "placed": summary.placed,
        "bbox": summary.limits.west_to_east(),
        "dated": summary.dated,
        "incomplete": summary.incomplete,
        "time": summary.time and [rfc3339(moment) for moment in summary.time],
        "no_rasters": {
            "sidecars": summary.sidecars, "others": summary.others,
            "examples": {
                kind: [*map(shown_url, summary.no_rasters.get(status, []))]
                for status, kind in _KINDS.items()
            },
        },
        "errors": [
            {"type": kind, "message": redacted(message), "count": count,
             "example": shown_url(summary.examples[kind, message])}
            for (kind, message), count in summary.errors.most_common(_ERRORS)
        ],
    }  # fmt: skip
    return json.dumps(content, ensure_ascii=False, allow_nan=False, indent=2)


def _pairs(name: str, counter: Counter[Hashable]) -> list[dict[str, Any]]:
    if name != "resolution":
        return as_pairs(counter)
    return [
        {"value": dict(zip(("x", "y", "unit"), one["value"], strict=True))
                  if isinstance(one["value"], tuple) else one["value"], "count": one["count"]}
        for one in as_pairs(counter)
    ]  # fmt: skip


def as_html(summary: Summary) -> str:
    """Return the most important figures as HTML for a notebook; nothing in it is run."""
    return (
        '<pre style="line-height:1.2;font-family:DejaVu Sans Mono,Menlo,Consolas,monospace">'
        f"{html.escape(on_lines(as_text(summary)))}</pre>"
    )


def as_text(summary: Summary) -> str:
    """Return the most important figures as text."""
    return "\n".join(_lines(summary))


def _lines(summary: Summary) -> Iterator[str]:
    yield f"{plural(summary.rows, 'row')}, {bytes_in_words(summary.bytes)}"
    if limits := summary.limits.west_to_east():
        west, south, east, north = limits
        yield f"  longitude  {degrees(west, 'EW')} to {degrees(east, 'EW')}"
        yield f"  latitude   {degrees(south, 'NS')} to {degrees(north, 'NS')}"
        yield f"             ({plural(summary.placed, 'row')} with a footprint)"
    if summary.time:
        start, end = (moment.date().isoformat() for moment in summary.time)
        yield f"  time       {start if start == end else f'{start} to {end}'}"
        yield f"             ({plural(summary.dated, 'row')} whose tags tell it)"
    if summary.placed:
        yield ""
        yield from summary.places.lines()
    width = len(f"{summary.rows:,}")
    yield from _folders(summary, width)
    tables = {
        title: _table(summary.counts[name], form)
        for name, (title, form) in _TITLES.items()
        if summary.counts[name]
    }
    names = max((len(name) for table in tables.values() for name, _ in table), default=0)
    for title, table in tables.items():
        yield f"\n{title}"
        whole = sum(count for _, count in table)
        for name, count in table:
            bar = "█" * round(_BAR * count / whole)
            line = f"  {name:<{names}}  {count:>{width},}  {_percent(count, whole):>6}  {bar}"
            yield line.rstrip()
    if problems := summary.counts["cog_problems"]:
        yield "\nWhy TIFFs are no COGs"
        for problem, count in problems.most_common():
            yield f"  {count:>{width},}  {on_a_line(str(problem))}"
    if summary.incomplete:
        yield f"\nVRTs of which files are missing: {summary.incomplete:,}"
    if summary.errors:
        yield "\nErrors"
        yield from _errors(summary, width)
    if text := no_rasters_in_words(
        summary.rows, summary.sidecars, summary.others, several=summary.several
    ):
        yield f"\n{text}"
        for status, kind in _KINDS.items():
            if paths := summary.no_rasters.get(status):
                shown = ", ".join(on_a_line(shortened(shown_url(path))) for path in paths)
                yield f"  {kind}, e.g. {shown}"


def _folders(summary: Summary, width: int) -> Iterator[str]:
    """Yield the folders that hold the most; none if all files are in one without a name."""
    folders = summary.folders.largest(_FOLDERS)
    if not any(path for path, _, _ in folders):
        return
    yield "\nFolders"
    names = [on_a_line(shortened(shown_url(path or "(none)"))) for path, _, _ in folders]
    longest = max(map(len, names))
    for name, (_, files, size) in zip(names, folders, strict=True):
        yield f"  {name:<{longest}}  {files:>{width},}  {bytes_in_words(size):>10}"


def _table(counter: Counter[Hashable], form: Callable[[Any], str]) -> list[tuple[str, int]]:
    """Return the most frequent values as text, and all others in one line."""
    shown = [pair for pair in counter.most_common(_SHOWN + 1) if pair[0] != OTHER][:_SHOWN]
    lines = [("none" if value is None else form(value), count) for value, count in shown]
    if rest := counter.total() - sum(count for _, count in shown):
        more = len(counter) - len(shown)
        lines.append((f"{'at least ' if OTHER in counter else ''}{more:,} more", rest))
    return lines


def _errors(summary: Summary, width: int) -> Iterator[str]:
    shown = summary.errors.most_common(_ERRORS)
    for (kind, message), count in shown:
        text = redacted(f"{kind}: {message}" if kind else message)
        example = shown_url(summary.examples[kind, message])
        yield f"  {count:>{width},}  {on_a_line(text)}"
        yield f"  {'':>{width}}  e.g. {on_a_line(shortened(example))}"
    if rest := summary.failures - sum(count for _, count in shown):
        yield f"  {rest:>{width},}  of {len(summary.errors) - len(shown):,} more kinds"


def _percent(count: int, whole: int) -> str:
    share = 100 * count / whole
    if count < whole and share >= 99.95:  # never show 100.0% for less than all
        return ">99.9%"
    return "<0.1%" if share < 0.05 else f"{share:.1f}%"


def _plain(value: Any) -> str:
    text = on_a_line(str(value))
    return text if len(text) <= _NAME else f"{text[: _NAME - 1]}…"


def _crs(value: str) -> str:
    """Return the code of a CRS, or the name in its WKT."""
    name = name_in_wkt(value)
    return _plain(f"{name} (no code)" if name else value)


def _resolution(value: Sequence[Any]) -> str:
    x, y, unit = value
    text = f"{x:.6g}" if x == y else f"{x:.6g} x {y:.6g}"
    return text + ("°" if unit == "°" else f" {unit or '(no unit)'}")


_TITLES: dict[str, tuple[str, Callable[[Any], str]]] = {
    "status": ("Status", _plain),
    "driver": ("Driver", _plain),
    "crs": ("CRS", _crs),
    "resolution": ("Pixel size", _resolution),
    "bands": ("Number of bands", "{:,}".format),
    "dtype": ("Data type", _plain),
    "compression": ("Compression", _plain),
    "layout": ("Layout", _plain),
    "cog": ("Cloud-optimised GeoTIFFs", _plain),
    "reader": ("Read by", _plain),
}
