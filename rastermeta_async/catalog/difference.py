"""Compare two finished catalogs row by row, in bounded memory.

    old by path ─┐
                 ├─▶ pairs of sorted batches ──▶ added, gone, changed, same
    new by path ─┘

Catalogs that are sorted by path are read as streams; others are sorted first, with scratch files.
Rows are compared to the last bit in all columns but `reader`, which tells how a row was read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.catalog.combine import FinishedCatalog
from rastermeta_async.catalog.json_rows import encoder
from rastermeta_async.catalog.merge import Batches
from rastermeta_async.model.record import SCHEMA
from rastermeta_async.model.row_ops import INSIDE, ArchiveSizes, row_keys

ADDED, GONE, CHANGED, SAME = "added", "gone", "changed", "unchanged"

_PATH = ["filepath", "filepath_bytes", *INSIDE]

COMPARED = [name for name in SCHEMA.names if name not in (*_PATH, "reader")]
"""Columns that are compared."""


@dataclass
class Pairs:
    """Rows of both catalogs between the same two paths."""

    old: pa.RecordBatch
    new: pa.RecordBatch
    partners: Any
    """Index of the old row with the path of each new row; -1: it is added. Shape (new rows,)."""

    def gone(self) -> Any:
        """Return the indices of old rows whose path is in no new row."""
        return np.setdiff1d(np.arange(self.old.num_rows), self.partners)

    @cached_property
    def changes(self) -> dict[str, Any]:
        """The indices of new rows whose old row differs, for each column that differs."""
        both = np.flatnonzero(self.partners >= 0)
        if not len(both):
            return {}
        old = self.old.take(pa.array(self.partners[both]))
        new = self.new.take(pa.array(both)) if len(both) < self.new.num_rows else self.new
        found = {name: _differing(old[name], new[name]) for name in COMPARED}
        return {name: both[at] for name, at in found.items() if len(at)}

    def kinds(self) -> Any:
        """Return what became of each new row: added, changed or unchanged."""
        kinds = np.where(self.partners < 0, ADDED, SAME).astype(object)
        for at in self.changes.values():
            kinds[at] = CHANGED
        return kinds


def paired(old: str, new: str, scratch: str) -> Iterator[Pairs]:
    """Yield the rows of two finished catalogs side by side, in the order of their paths.

    Args:
        old: name of a catalog.
        new: name of another one.
        scratch: existing folder for scratch files, which are removed in the end.

    Raises:
        SettingsError, OutputError: one is no catalog, or is damaged, see `FinishedCatalog`.
    """
    stop = Event()
    runs = [FinishedCatalog(name, name, stop).run(scratch) for name in (old, new)]
    with closing(runs[0].open()) as older, closing(runs[1].open()) as newer:
        yield from _side_by_side(_Rows(older), _Rows(newer))


class _Rows:
    """Sorted rows that are taken from the front."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._none = pa.RecordBatch.from_pylist([], SCHEMA)
        self._next()

    def _next(self) -> None:
        self.batch = next((one for one in self._batches if one.num_rows), self._none)
        self._keys = row_keys(self.batch)

    @property
    def last(self) -> bytes | None:
        """The last path at hand; None: there are no more rows."""
        return self._keys[-1].as_py() if len(self._keys) else None

    def take(self, limit: bytes | None) -> pa.RecordBatch:
        """Take the rows at hand whose path is at most `limit`; None: all."""
        if limit is None or self.last is None or self.last <= limit:
            taken = self.batch
            self._next()
            return taken
        count = int(pc.sum(pc.less_equal(self._keys, pa.scalar(limit, pa.binary()))).as_py())
        taken, self.batch = self.batch.slice(0, count), self.batch.slice(count)
        self._keys = self._keys.slice(count)
        return taken


def _side_by_side(old: _Rows, new: _Rows) -> Iterator[Pairs]:
    while old.last is not None or new.last is not None:
        limit = min(last for last in (old.last, new.last) if last is not None)
        some, others = (
            one.take(limit) if one.last is not None else one.batch for one in (old, new)
        )
        partners = pc.index_in(row_keys(others), value_set=row_keys(some))
        yield Pairs(some, others, np.asarray(pc.fill_null(partners, -1)).astype(np.int64))


def _differing(old: pa.Array, new: pa.Array) -> Any:
    """Return the indices at which two columns differ, to the last bit of a number."""
    old, new = (one.view(_bits(one.type)) for one in (old, new))
    found: list[int] = []
    _find(old, new, 0, found)
    return np.array(found, dtype=np.int64)


def _find(old: pa.Array, new: pa.Array, first: int, found: list[int]) -> None:
    """Halve what differs, until it is one row."""
    if old.equals(new):
        return
    if len(old) == 1:
        found.append(first)
        return
    half = len(old) // 2
    _find(old.slice(0, half), new.slice(0, half), first, found)
    _find(old.slice(half), new.slice(half), first + half, found)


def _bits(kind: pa.DataType) -> pa.DataType:
    """Return a type with whole numbers in place of doubles, so that NaN equals NaN."""
    if pa.types.is_float64(kind):
        return pa.int64()
    if pa.types.is_struct(kind):
        return pa.struct([one.with_type(_bits(one.type)) for one in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_bits(kind.value_type)))
    return kind


@dataclass
class Difference:
    """Counts of a comparison."""

    files: Counter[str] = field(default_factory=Counter)
    """By `ADDED`, `GONE`, `CHANGED`, `SAME`."""
    bytes: Counter[str] = field(default_factory=Counter)
    """The same: of the new files, or of those that are gone."""
    columns: Counter[str] = field(default_factory=Counter)
    """Files that differ in a column."""

    _old_sizes: ArchiveSizes = field(default_factory=ArchiveSizes, repr=False, compare=False)
    _new_sizes: ArchiveSizes = field(default_factory=ArchiveSizes, repr=False, compare=False)

    def __bool__(self) -> bool:
        return any(files for kind, files in self.files.items() if kind != SAME)

    def add(self, pairs: Pairs) -> None:
        """Count some rows."""
        kinds = pairs.kinds()
        sizes = self._new_sizes.of(pairs.new).to_pylist()
        for kind, size in zip(kinds, sizes, strict=True):
            self.files[kind] += 1
            self.bytes[kind] += size or 0
        old_sizes = self._old_sizes.of(pairs.old)
        for at in pairs.gone():
            self.files[GONE] += 1
            self.bytes[GONE] += old_sizes[int(at)].as_py() or 0
        for name, rows in pairs.changes.items():
            self.columns[name] += len(rows)


def listed(pairs: Pairs) -> Iterator[dict[str, Any]]:
    """Yield what differs in some rows, as JSON, in no particular order.

    A file that changed has the values that differ, as `old` and `new`, in the form of the rows.
    """
    for at in np.flatnonzero(pairs.partners < 0).tolist():
        yield {"change": ADDED, **_of_row(pairs.new, at, ["file_size"])}
    for at in pairs.gone().tolist():
        yield {"change": GONE, **_of_row(pairs.old, at, ["file_size"])}
    columns: dict[int, list[str]] = {}
    for name, rows in pairs.changes.items():
        for at in rows.tolist():
            columns.setdefault(at, []).append(name)
    for at, names in sorted(columns.items()):
        old, new = _values(pairs.old, int(pairs.partners[at]), names), _values(pairs.new, at, names)
        yield {"change": CHANGED, **_of_row(pairs.new, at, []), "old": old, "new": new}


def _of_row(rows: pa.RecordBatch, at: int, names: list[str]) -> dict[str, Any]:
    values = _values(rows, at, [*_PATH, *names])
    return {
        name: value
        for name, value in values.items()
        if value is not None or name not in ("filepath_bytes", *INSIDE)
    }


def _values(rows: pa.RecordBatch, at: int, names: list[str]) -> dict[str, Any]:
    kind = pa.struct([SCHEMA.field(name) for name in names])
    values: dict[str, Any] = encoder(kind)({name: rows[name][at].as_py() for name in names})
    return values
