"""Tell what each row of a catalog is like, as codes: one code a row and dimension.

The codes are as fine as they can be in bounded memory. `report.dimensions` makes buckets of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.footprints.crs import unit_of
from rastermeta_async.model.record import SUCCESSES
from rastermeta_async.model.row_ops import IDENTITY, has_overviews
from rastermeta_async.model.text import (
    TIFFS,
    layout_of,
    name_in_wkt,
    on_a_line,
    without_names,
    without_numbers,
)
from rastermeta_async.model.urls import redacted
from rastermeta_async.report.folders import FolderTree
from rastermeta_async.report.places import Codes, cells_of
from rastermeta_async.report.taken import months_of

COLUMNS = (*IDENTITY, "error_type", "error_message", "driver", "crs", "dtype", "res",
           "count", "compression", "tiled", "cog", "cog_problems", "bands", "file_size", "bbox",
           "geometry", "dataset_tags", "imagery_tags", "footprint", "time_start")  # fmt: skip
"""Columns that the codes are made of."""

CHANGE = "change"
"""Name of the dimension, and of the further column, that tells what became of a file since an older
catalog."""

NOT_COMPARED = "not compared"
"""Value of `CHANGE` where there is no such column."""

SMALLEST = 1024
"""Bytes; smaller files are alike."""

UNSIZED = -1
"""Code of a row without a size."""

NOT_READ = "not read"
"""Value of all that a row does not tell whose file could not be read."""

OTHERS = "others"
"""All values of a column that are not listed."""

SEPARATOR = "\x1f"
"""Between the parts of a value: kind and message of an error, problems of a COG."""

MAX_VALUES = 10_000
"""Different values of a column that are told apart; later ones are `OTHERS`."""

_MAX_TEXT = 300
"""Characters of a value; longer values are cut."""


class Values:
    """Gives a code to each different value of a column: 0 to `OTHERS`, then as they come."""

    def __init__(self) -> None:
        self.names = [OTHERS]
        self._codes: dict[str, int] = {OTHERS: 0}

    def code(self, value: str) -> int:
        """Return the code of a value."""
        value = value[:_MAX_TEXT]
        if (code := self._codes.get(value)) is not None:
            return code
        if len(self.names) > MAX_VALUES:
            return 0
        self._codes[value] = len(self.names)
        self.names.append(value)
        return self._codes[value]

    def codes(self, values: pa.Array, name: Callable[[Any], str] = str) -> Codes:
        """Return the code of each value of a column; `name` makes text of the different values."""
        encoded = values.dictionary_encode(null_encoding="encode")
        known = [self.code(name(value)) for value in encoded.dictionary.to_pylist()]
        codes: Codes = np.array(known or [0], dtype=np.int64)[np.asarray(encoded.indices)]
        return codes


class RowCodes:
    """Makes codes of rows, batch by batch.

    Args:
        tree: the folders that are told apart.
    """

    def __init__(self, tree: FolderTree) -> None:
        self._tree = tree
        self.values = {name: Values() for name in _TELLERS}
        """Values of the columns whose codes are as they come."""

    def codes(self, rows: pa.RecordBatch) -> dict[str, Codes]:
        """Return the codes of rows with the columns `COLUMNS`, for each dimension."""
        found = {
            "place": cells_of(rows["bbox"], rows["geometry"]),
            "time": months_of(rows["dataset_tags"], rows["imagery_tags"], rows["time_start"]),
            "folder": self._tree.codes(rows["filepath"]),
            "size": _sizes(rows["file_size"]),
        }
        read = pc.is_in(rows["status"], pa.array(sorted(SUCCESSES)))
        unread = ~np.asarray(read)
        for name, tell in _TELLERS.items():
            values = self.values[name]
            found[name] = tell(rows, values)
            if name not in ("state", CHANGE):
                found[name][unread] = values.code(NOT_READ)
        return found


def _sizes(sizes: pa.Array) -> Codes:
    """Return which power of 2 each size has: 0 below 2 KiB, 1 below 4 KiB, and so on."""
    known = np.asarray(pc.fill_null(sizes, 0)).astype(np.float64)
    codes = np.maximum(np.log2(np.maximum(known, SMALLEST) / SMALLEST), 0).astype(np.int64)
    codes[np.asarray(sizes.is_null())] = UNSIZED
    return codes


Teller = Callable[[pa.RecordBatch, Values], Codes]


def _of_column(column: str, name: Callable[[Any], str]) -> Teller:
    return lambda rows, values: values.codes(rows[column], name)


def _named(missing: str) -> Callable[[Any], str]:
    return lambda value: missing if value is None else on_a_line(str(value))


def _crs(crs: str | None) -> str:
    if crs is None:
        return "no CRS"
    name = name_in_wkt(crs)
    return on_a_line(f"{name} (no code)" if name else crs)


def _states(rows: pa.RecordBatch, values: Values) -> Codes:
    """Return the codes of statuses; of a file that could not be read: of its error."""
    read = values.codes(rows["status"])
    at = np.flatnonzero(np.asarray(pc.invert(pc.is_in(rows["status"], _READ))))
    columns = (
        rows[name].take(pa.array(at)) for name in ("error_type", "error_message", "filepath")
    )
    for row, kind, message, path in zip(at, *(one.to_pylist() for one in columns), strict=True):
        read[row] = values.code(_error(kind or "", without_names(message or "", path)))
    return read


@lru_cache(1024)
def _error(kind: str, message: str) -> str:
    return on_a_line(kind) + SEPARATOR + on_a_line(redacted(without_numbers(message)))


_READ = pa.array(sorted(SUCCESSES))


def _pixels(rows: pa.RecordBatch, values: Values) -> Codes:
    """Return the codes of pixel sizes: the longer side, to two digits, with its unit."""
    by_points = pc.is_in(rows["footprint"], pa.array(["gcps", "rpcs"]))
    placed = pc.and_(pc.equal(rows["status"], "success"), pc.invert(by_points))
    known = pc.and_(placed, pc.equal(pc.fill_null(pc.list_value_length(rows["res"]), 0), 2))
    codes = np.full(len(rows), values.code("no pixel size"), dtype=np.int64)
    at = np.flatnonzero(np.asarray(known))
    if not len(at):
        return codes
    rows = rows.select(["res", "crs"]).take(pa.array(at))
    sides = np.stack([np.abs(np.asarray(pc.list_element(rows["res"], one))) for one in (0, 1)])
    crs = rows["crs"].dictionary_encode(null_encoding="encode")
    units = [unit_of(one) for one in crs.dictionary.to_pylist()]
    different, which = np.unique(_rounded(sides.max(axis=0)), return_inverse=True)
    pairs, which = np.unique(which * len(units) + np.asarray(crs.indices), return_inverse=True)
    alike = (divmod(pair, len(units)) for pair in pairs.tolist())
    named = [values.code(_pixel(float(different[side]), units[unit])) for side, unit in alike]
    codes[at] = np.array(named, dtype=np.int64)[which]
    return codes


def _rounded(sides: Any) -> Any:
    """Return positive numbers to two significant digits; others as they are."""
    with np.errstate(divide="ignore", invalid="ignore"):
        power = 10.0 ** (np.floor(np.log10(sides)) - 1)
        return np.where(np.isfinite(sides) & (sides > 0), np.round(sides / power) * power, sides)


def _pixel(side: float, unit: str) -> str:
    if not np.isfinite(side):
        return "no pixel size"
    number = f"{side:,.0f}" if 10 <= side < 1e9 else f"{side:.2g}"
    return f"{number}°" if unit == "°" else f"{number} {unit or '(no unit)'}"


def _compressions(rows: pa.RecordBatch, values: Values) -> Codes:
    untold = pc.if_else(_are_tiffs(rows), "none", "not told")
    return values.codes(pc.coalesce(rows["compression"], untold), on_a_line)


def _layouts(rows: pa.RecordBatch, values: Values) -> Codes:
    tiffs = np.asarray(_are_tiffs(rows))
    kinds = [values.code(layout_of(tiled, some)) for tiled in _TILED for some in (False, True)]
    tiled = np.asarray(pc.fill_null(rows["tiled"].cast(pa.int8()), 2)).astype(np.int64)
    codes: Codes = np.array(kinds)[2 * tiled + np.asarray(has_overviews(rows["bands"]))]
    codes[~tiffs] = values.code("no TIFF")
    return codes


_TILED = (False, True, None)


def _cogs(rows: pa.RecordBatch, values: Values) -> Codes:
    """Return the codes of what a COG has, or of all that keeps a TIFF from being one."""
    problems = pc.fill_null(pc.binary_join(rows["cog_problems"], SEPARATOR), "")
    told = pc.if_else(
        rows["cog"], "a COG", pc.binary_join_element_wise("no COG", problems, SEPARATOR)
    )
    told = pc.if_else(_are_tiffs(rows), pc.fill_null(told, "not told"), "no TIFF")
    return values.codes(told, lambda text: SEPARATOR.join(map(on_a_line, text.split(SEPARATOR))))


def _are_tiffs(rows: pa.RecordBatch) -> pa.Array:
    return pc.is_in(rows["driver"], pa.array(TIFFS))


def _changes(rows: pa.RecordBatch, values: Values) -> Codes:
    if CHANGE in rows.schema.names:
        return values.codes(rows[CHANGE])
    return np.full(len(rows), values.code(NOT_COMPARED), dtype=np.int64)


_TELLERS: dict[str, Teller] = {
    "state": _states,
    "driver": _of_column("driver", _named("none")),
    "crs": _of_column("crs", _crs),
    "pixel": _pixels,
    "dtype": _of_column("dtype", _named("none")),
    "bands": _of_column("count", lambda count: f"{count or 0:,}"),
    "compression": _compressions,
    "layout": _layouts,
    "cog": _cogs,
    CHANGE: _changes,
}

DIMENSIONS: Sequence[str] = ("place", "time", "folder", "size", *_TELLERS)
"""Names of all dimensions."""
