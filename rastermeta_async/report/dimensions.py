"""The dimensions of the cube: buckets of the codes of `report.facts`, which can be made coarser.

A coarser bucket is the union of finer ones. So counts stay exact: a bucket of any coarseness holds
the rows that its label tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rastermeta_async.model.text import bytes_in_words
from rastermeta_async.report.facts import OTHERS, SMALLEST, UNSIZED
from rastermeta_async.report.folders import parent_of
from rastermeta_async.report.places import (
    ANYWHERE,
    EVERYWHERE,
    FINEST,
    NOWHERE,
    Codes,
    box_of,
    coarser,
)
from rastermeta_async.report.taken import FIRST_YEAR, UNDATED

Counts = np.ndarray[Any, np.dtype[np.int64]]

_WIDTHS = {"time": (1, 3, 12, 60, 120, 600, 6000), "size": (2, 4, 8, 64)}
"""Widths of buckets in months, and in powers of 2."""


@dataclass(frozen=True)
class Dimension:
    """Buckets of a dimension."""

    name: str
    keys: Sequence[Any]
    """One key a bucket: a code of `report.facts`, the path of a folder, or a value; each is also
    the lowest code of a bucket of times or sizes."""
    files: Counts
    """Rows of each bucket, without those of the folders below."""
    step: int = 0
    """Width of times and sizes; level of cells."""

    def __len__(self) -> int:
        return len(self.keys)


Coarser = tuple[Dimension, Codes]
"""A coarser dimension, and the index of its bucket for each bucket of the finer one."""


def made_coarser(dimension: Dimension) -> Coarser | None:
    """Return a dimension with about half as many buckets; None: there is one bucket."""
    if len(dimension) < 2:
        return None
    return _WAYS.get(dimension.name, _fewer_values)(dimension)


def fitted(dimension: Dimension, most: int) -> Coarser:
    """Return the dimension with at most so many buckets, and where its buckets went."""
    mapping = np.arange(len(dimension), dtype=np.int64)
    while len(dimension) > most and (found := made_coarser(dimension)):
        dimension, step = found
        mapping = step[mapping]
    return dimension, mapping


def _regrouped(old: Dimension, keys: Sequence[Any], step: int) -> Coarser:
    """Return the dimension whose buckets have the given keys, one for each old bucket."""
    places: dict[Any, int] = {}
    mapping = np.array([places.setdefault(key, len(places)) for key in keys], dtype=np.int64)
    files = np.bincount(mapping, old.files, len(places)).astype(np.int64)
    return Dimension(old.name, list(places), files, step), mapping


def _larger_cells(old: Dimension) -> Coarser:
    if old.step == 0:
        return _regrouped(old, [ANYWHERE] * len(old), 0)
    cells = coarser(np.array(old.keys, dtype=np.int64), FINEST - old.step + 1)
    return _regrouped(old, cells.tolist(), old.step - 1)


def _longer_spans(old: Dimension) -> Coarser:
    widths = _WIDTHS[old.name]
    width = next((one for one in widths if one > old.step), 0)
    if not width:
        return _regrouped(old, [ANYWHERE] * len(old), old.step)
    return _regrouped(old, [key if key < 0 else key // width * width for key in old.keys], width)


def _fewer_folders(old: Dimension) -> Coarser:
    """Keep the folders that hold the most files; the others go to the folders around them."""
    held = dict.fromkeys(old.keys, 0)
    for folder, files in zip(old.keys, old.files.tolist(), strict=True):
        for one in _kept_around(folder, held):
            held[one] += files
    by_size = sorted(held, key=lambda one: (-held[one], len(one), one))
    left = set(by_size[: max(1, len(old) // 2)])
    return _regrouped(old, [next(_kept_around(one, left)) for one in old.keys], 0)


def _kept_around(folder: str, kept: Any) -> Any:
    """Yield those of the kept folders that hold a folder, itself included, the nearest first."""
    while True:
        if folder in kept:
            yield folder
        if not folder:
            return
        folder = parent_of(folder)


def _fewer_values(old: Dimension) -> Coarser:
    """Keep the most frequent values; the others are `OTHERS`."""
    frequent = sorted(range(len(old)), key=lambda at: (old.keys[at] == OTHERS, -old.files[at]))
    kept = {old.keys[at] for at in frequent[: (len(old) - 1) // 2]}
    return _regrouped(old, [key if key in kept else OTHERS for key in old.keys], 0)


_WAYS: dict[str, Callable[[Dimension], Coarser]] = {
    "place": _larger_cells,
    "time": _longer_spans,
    "size": _longer_spans,
    "folder": _fewer_folders,
}


def described(dimension: Dimension) -> dict[str, Any]:
    """Return what a page needs to show the buckets, as JSON: one label a bucket, and the rest."""
    found: dict[str, Any] = {"name": dimension.name, "labels": _labels(dimension)}
    if dimension.name == "place":
        level = dimension.step
        found["boxes"] = [box_of(key, level) if key >= 0 else None for key in dimension.keys]
    if dimension.name == "time":
        found["starts"] = [_year_month(key) if key >= 0 else None for key in dimension.keys]
        found["months"] = dimension.step
    if dimension.name == "folder":
        places = {key: at for at, key in enumerate(dimension.keys)}
        found["parents"] = [_parent(key, places) for key in dimension.keys]
    return found


def _parent(folder: str, places: dict[str, int]) -> int:
    """Return the index of the nearest folder around a folder; -1 for the first one."""
    while folder:
        folder = parent_of(folder)
        if folder in places:
            return places[folder]
    return -1


def _labels(dimension: Dimension) -> list[str]:
    if dimension.name not in _LABELS:
        return list(dimension.keys)
    of_code, make = _LABELS[dimension.name]
    return [of_code.get(key) or make(key, dimension.step) for key in dimension.keys]


def _place(code: int, level: int) -> str:
    west, south, east, north = box_of(code, level)
    return f"{_degrees((south + north) / 2, 'NS')} {_degrees((west + east) / 2, 'EW')}"


def _degrees(value: float, names: str) -> str:
    return f"{abs(value):.2f}° {names[value < 0]}"


def _year_month(month: int) -> tuple[int, int]:
    return FIRST_YEAR + month // 12, month % 12 + 1


def _time(month: int, width: int) -> str:
    year, number = _year_month(month)
    if width >= 12:
        return f"{year}" if width == 12 else f"{year}-{year + width // 12 - 1}"
    return f"{year}-{number:02}" if width == 1 else f"{year} Q{number // 3 + 1}"


def _size(power: int, width: int) -> str:
    low, high = (SMALLEST << power), (SMALLEST << power + width)
    if power == 0:
        return f"below {bytes_in_words(high)}"
    return f"{bytes_in_words(low)} to {bytes_in_words(high)}"


_ALL = {ANYWHERE: "all"}
_LABELS: dict[str, tuple[dict[int, str], Callable[[int, int], str]]] = {
    "place": (_ALL | {NOWHERE: "no place known", EVERYWHERE: "large parts of the Earth"}, _place),
    "time": (_ALL | {UNDATED: "no date known"}, _time),
    "size": (_ALL | {UNSIZED: "no size known"}, _size),
}
"""Labels of special codes, and what makes those of the others."""
