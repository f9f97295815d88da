"""What is in a catalog, at a glance: counts, bytes, extent in space and time, what went wrong.

The catalog is read once, a few hundred rows at a time; what is counted is bounded.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from typing import Any

from rastermeta_async.dates import Interval, rule_of
from rastermeta_async.errors import OutputError
from rastermeta_async.formats import format_of
from rastermeta_async.record import SUCCESSES

MAX_VALUES = 10_000
"""Different values of a column that are told apart; what comes after them is `OTHER`."""

OTHER = "(other)"
_SHOWN = 8
_ERRORS = 10

COLUMNS = ["filepath", "status", "error_type", "error_message", "driver", "crs", "dtype", "res",
           "count", "compression", "tiled", "bands", "width", "height", "file_size", "bbox",
           "dataset_tags", "reader"]  # fmt: skip


class Summary:
    """Counts of a catalog's rows; `add` takes them as they come."""

    def __init__(self) -> None:
        self.rows = 0
        self.bytes = 0
        self.counts: dict[str, Counter[Hashable]] = {
            name: Counter()
            for name in ("status", "driver", "crs", "dtype", "resolution", "bands", "compression",
                         "layout", "reader")
        }  # fmt: skip
        self.errors: Counter[tuple[str, str]] = Counter()
        """By (type, message without names)."""
        self.examples: dict[tuple[str, str], str] = {}
        self.bbox: list[float] | None = None
        self.time: Interval | None = None
        self.dated = 0
        self._when = rule_of(None)

    def add(self, row: dict[str, Any]) -> None:
        """Count a row, given by `COLUMNS`."""
        self.rows += 1
        self.bytes += row["file_size"] or 0
        self._count("status", row["status"])
        if row["status"] not in SUCCESSES:
            self._add_error(row)
            return
        self._count("driver", row["driver"])
        self._count("crs", _short_crs(row["crs"]))
        self._count("dtype", row["dtype"])
        self._count("resolution", _resolution(row["res"]) if row["count"] else None)
        self._count("bands", row["count"])
        self._count("compression", row["compression"] or "none")
        self._count("layout", layout_of(row))
        self._count("reader", row["reader"])
        self._add_extent(row)

    def _count(self, name: str, value: Hashable) -> None:
        counter = self.counts[name]
        counter[value if value in counter or len(counter) < MAX_VALUES else OTHER] += 1

    def _add_error(self, row: dict[str, Any]) -> None:
        path, message = row["filepath"], row["error_message"] or ""
        key = row["error_type"] or "", message.replace(path, "…")
        if key not in self.errors and len(self.errors) >= MAX_VALUES:
            key = key[0], OTHER
        self.errors[key] += 1
        self.examples.setdefault(key, path)

    def _add_extent(self, row: dict[str, Any]) -> None:
        box = row["bbox"]
        if box:
            old = self.bbox or [box["xmin"], box["ymin"], box["xmax"], box["ymax"]]
            self.bbox = [
                min(old[0], box["xmin"]), min(old[1], box["ymin"]),
                max(old[2], box["xmax"]), max(old[3], box["ymax"]),
            ]  # fmt: skip
        interval = self._when(row["filepath"], dict(row["dataset_tags"] or ()))
        if interval:
            self.dated += 1
            old_time = self.time or interval
            self.time = Interval(
                min(old_time.start, interval.start), max(old_time.end, interval.end)
            )

    def as_json(self) -> str:
        """Return everything as a JSON object."""
        content = {
            "rows": self.rows,
            "bytes": self.bytes,
            **{name: _named(counter.most_common()) for name, counter in self.counts.items()},
            "bbox": self.bbox,
            "time": self.time and [moment.isoformat() for moment in self.time],
            "dated": self.dated,
            "errors": [
                {"type": kind, "message": message, "count": count,
                 "example": self.examples[kind, message]}
                for (kind, message), count in self.errors.most_common(_ERRORS)
            ],
        }  # fmt: skip
        return json.dumps(content, ensure_ascii=False, indent=2)

    def as_text(self) -> str:
        """Return what matters most for a person."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.rows:,} rows, {_readable_bytes(self.bytes)}"
        if self.bbox:
            west, south, east, north = self.bbox
            corners = (_degrees(west, "EW"), _degrees(south, "NS"),
                       _degrees(east, "EW"), _degrees(north, "NS"))  # fmt: skip
            yield "  from {}, {} to {}, {}".format(*corners)
        if self.time:
            start, end = (moment.date().isoformat() for moment in self.time)
            yield f"  from {start} to {end} ({self.dated:,} rows tell their date)"
        for name, counter in self.counts.items():
            if counter:
                yield f"{name.capitalize()}"
                yield from self._table(counter)
        if self.errors:
            yield "Errors"
            for (kind, message), count in self.errors.most_common(_ERRORS):
                yield f"  {count:>12,}  {kind}: {message}"
                yield f"  {'':>12}  e.g. {self.examples[kind, message]}"

    def _table(self, counter: Counter[Hashable]) -> Iterator[str]:
        whole = counter.total()
        shown = counter.most_common(_SHOWN)
        for value, count in shown:
            yield f"  {count:>12,}  {count / whole:>6.1%}  {'-' if value is None else value}"
        rest = len(counter) - len(shown)
        if rest > 0:
            left = whole - sum(count for _, count in shown)
            yield f"  {left:>12,}  {left / whole:>6.1%}  in {rest:,} more"


def summary_of(catalog: str) -> Summary:
    """Return what is in a finished catalog.

    Raises:
        OutputError: it is none, or one of another version.
    """
    summary = Summary()
    for row in catalog_rows(catalog, COLUMNS):
        summary.add(row)
    return summary


def catalog_rows(catalog: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a finished catalog as plain objects.

    Raises:
        OutputError: it is none, or one of another version.
    """
    form = format_of(catalog)
    if not os.path.isfile(catalog):
        raise OutputError(f"{catalog}: there is no finished catalog of this name")
    if catalog.endswith(".parquet"):
        form.check(catalog)
    for batch in form.read(catalog):
        yield from batch.select(columns).to_pylist()


def layout_of(row: dict[str, Any]) -> str | None:
    """Return how a raster is laid out; tiles and overviews make it like a cloud-optimised one."""
    if not row["count"]:
        return None
    overviews = bool(row["bands"] and row["bands"][0]["overviews"])
    small = (row["width"] or 0) <= 512 and (row["height"] or 0) <= 512
    if row["tiled"] and (overviews or small):
        return "tiles and overviews (like a COG)" if overviews else "small tiles (like a COG)"
    if row["tiled"]:
        return "tiles, no overviews"
    return "strips and overviews" if overviews else "strips, no overviews"


def _named(pairs: Iterable[tuple[Hashable, int]]) -> list[dict[str, Any]]:
    return [{"value": value, "count": count} for value, count in pairs]


def _short_crs(crs: str | None) -> str | None:
    return crs if crs is None or len(crs) <= 40 else crs[:39] + "…"


def _resolution(res: list[float] | None) -> str | None:
    return None if res is None else " x ".join(f"{abs(size):.6g}" for size in res)


def _degrees(value: float, names: str) -> str:
    return f"{abs(value):.4f}° {names[0] if value >= 0 else names[1]}"


def _readable_bytes(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:,.0f} bytes" if unit == "bytes" else f"{count:,.1f} {unit}"
