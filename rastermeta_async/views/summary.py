"""What is in a catalog, at a glance: counts, bytes, extent in space and time, what went wrong.

The catalog is read once, some rows at a time, and counted column by column; what is remembered
is bounded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.catalog.finished import batches_of
from rastermeta_async.footprints.limits import Limits
from rastermeta_async.record import SUCCESSES
from rastermeta_async.urls import local_name
from rastermeta_async.views.dates import Interval
from rastermeta_async.views.evidence import TAGS, evidence_of, from_tags
from rastermeta_async.views.layout import TIFFS, cog_in_words, layout_of
from rastermeta_async.views.units import unit_of

MAX_VALUES = 10_000
"""Different values of a column that are told apart; what comes after them is `OTHER`."""

OTHER = "(other)"

_MAX_TEXT = 64 * 1024 * 1024
"""Characters that are remembered of values; what comes after them is `OTHER`, too."""

COLUMNS = ("filepath", "status", "error_type", "error_message", "driver", "crs", "dtype", "res",
           "count", "compression", "tiled", "cog", "cog_problems", "bands", "file_size", "bbox",
           "dataset_tags", "imagery_tags", "reader", "footprint")  # fmt: skip
_ROWS = 8192

TagsByRow = dict[int, dict[str, str]]

_COUNTED = ("status", "driver", "crs", "dtype", "resolution", "bands", "compression", "layout",
            "cog", "cog_problems", "reader")  # fmt: skip


class Summary:
    """Counts of a catalog's rows; `add` takes them as they come."""

    def __init__(self) -> None:
        self.rows = 0
        self.failures = 0
        self.bytes = 0
        self.counts: dict[str, Counter[Hashable]] = {name: Counter() for name in _COUNTED}
        self.errors: Counter[tuple[str, str]] = Counter()
        """By (type, message without names and large numbers)."""
        self.examples: dict[tuple[str, str], str] = {}
        self.placed = 0
        """Rows that have a footprint."""
        self.limits = Limits()
        self.dated = 0
        """Rows whose tags tell when they were taken."""
        self.time: Interval | None = None
        self._text = 0
        """Characters of all that is counted."""

    def add(self, rows: pa.RecordBatch) -> None:
        """Count rows with the columns `COLUMNS`."""
        self.rows += rows.num_rows
        # Of whole numbers of 64 bits the sum may have more.
        self.bytes += int(pc.sum(rows["file_size"].cast(pa.decimal128(19))).as_py() or 0)
        self._count("status", rows["status"])
        read = pc.is_in(rows["status"], pa.array(sorted(SUCCESSES)))
        failed = rows.filter(pc.invert(read)).select(["filepath", "error_type", "error_message"])
        self._add_errors(failed)
        rows = rows.filter(read)
        for name in ("driver", "crs", "reader"):
            self._count(name, rows[name])
        self.placed += len(rows) - rows["bbox"].null_count
        self.limits.add_rows(rows["bbox"])
        self._add_dates(_relevant_tags(rows["dataset_tags"]), _relevant_tags(rows["imagery_tags"]))
        self._count("bands", rows["count"])
        rasters = rows.filter(pc.greater(rows["count"], 0))  # a container has no pixels
        self._count("dtype", rasters["dtype"])
        tiffs = pc.is_in(rasters["driver"], pa.array(TIFFS))  # other formats do not tell
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
        """Tell whether values can be remembered, and count what that takes."""
        size = sum(len(value) for value in values if isinstance(value, str))
        if len(counter) >= MAX_VALUES or self._text + size > _MAX_TEXT:
            return False
        self._text += size
        return True

    def _add_errors(self, rows: pa.RecordBatch) -> None:
        self.failures += rows.num_rows
        for path, kind, message in zip(*(column.to_pylist() for column in rows), strict=True):
            key = kind or "", _general(message or "", path)
            if key not in self.errors and not self._has_room(self.errors, *key, path):
                key = key[0], OTHER
                if key not in self.errors and len(self.errors) >= 2 * MAX_VALUES:
                    key = "", OTHER
            self.errors[key] += 1
            self.examples.setdefault(key, path)

    def _add_dates(self, of_dataset: TagsByRow, of_imagery: TagsByRow) -> None:
        for row in of_dataset.keys() | of_imagery.keys():
            if interval := from_tags(evidence_of("", of_dataset.get(row), of_imagery.get(row))):
                self.dated += 1
                old = self.time or interval
                self.time = Interval(min(old.start, interval.start), max(old.end, interval.end))

    def _add_pairs(self, name: str, values: list[Hashable], counts: list[int]) -> None:
        for value, count in zip(values, counts, strict=True):
            self._add(name, value, count)

    def _add_layouts(self, tiffs: pa.RecordBatch) -> None:
        """Count layouts: of rows that are alike in what decides it, one is looked at."""
        overviews = _has_overviews(tiffs["bands"])
        parts = pa.table({"tiled": tiffs["tiled"], "overviews": overviews, "cog": tiffs["cog"]})
        alike = parts.group_by(["tiled", "overviews", "cog"]).aggregate([([], "count_all")])
        for one in alike.to_pylist():
            self._add("layout", layout_of(one["tiled"], one["overviews"]), one["count_all"])
            self._add("cog", cog_in_words(one["cog"]), one["count_all"])
        self._count("cog_problems", pc.list_flatten(tiffs["cog_problems"]))


def summary_of(catalog: str) -> Summary:
    """Return what is in a finished catalog; of a URL, in the file it was made in.

    Raises:
        SettingsError: no catalog has a name like this.
        OutputError: it is none, or damaged, or one of another version.
    """
    summary = Summary()
    name = local_name(catalog)
    for batch in batches_of(name, COLUMNS, _ROWS):
        summary.add(batch)
    summary.limits.settle(batches_of(name, ("bbox", "geometry"), _ROWS))
    return summary


def _general(message: str, path: str) -> str:
    """Return a message without what differs from file to file: names, offsets, addresses."""
    for name in (path, path.rpartition("/")[2]):
        if len(name) > 3:  # shorter ones are parts of words
            message = message.replace(name, "…")
    return re.sub(r"0x[0-9a-fA-F]+|\d{4,}", "…", message)


def _resolutions(rasters: pa.RecordBatch) -> tuple[list[Hashable], list[int]]:
    """Return the different (x, y, unit), and how many rasters have each."""
    # Without a place, pixels have no size: rasterio then says 1 by 1.
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


def _has_overviews(bands: pa.Array) -> pa.Array:
    """Return for each row whether its first band has overviews."""
    first = pc.list_value_length(bands)
    any_bands = pc.greater(pc.fill_null(first, 0), 0)
    at = np.asarray(bands.offsets)[:-1][np.asarray(any_bands)]
    overviews = bands.values.field("overviews").take(pa.array(at))
    found = np.zeros(len(bands), dtype=bool)
    found[np.asarray(any_bands)] = np.asarray(
        pc.greater(pc.fill_null(pc.list_value_length(overviews), 0), 0)
    )
    return pa.array(found)


def _relevant_tags(tags: pa.Array) -> TagsByRow:
    """Return, for each row that has any, its tags that can tell a date."""
    offsets = np.asarray(tags.offsets)
    first, last = (int(offsets[0]), int(offsets[-1])) if len(tags) else (0, 0)
    keys = tags.keys.slice(first, last - first).dictionary_encode()
    names = pa.array([name.upper() in TAGS for name in keys.dictionary.to_pylist()], pa.bool_())
    places = np.flatnonzero(np.asarray(names.take(keys.indices))) + first
    pairs = zip(
        np.searchsorted(offsets, places, "right").tolist(),
        tags.keys.take(pa.array(places)).to_pylist(),
        tags.items.take(pa.array(places)).to_pylist(),
        strict=True,
    )
    found: TagsByRow = {}
    for row, key, value in pairs:
        found.setdefault(row, {})[key] = value
    return found


def as_pairs(counter: Counter[Hashable]) -> list[dict[str, Any]]:
    """Return what was counted, the most frequent first."""
    return [{"value": value, "count": count} for value, count in counter.most_common()]
