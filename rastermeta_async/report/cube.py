"""Aggregate a catalog for a page: a cube of few rows, from which all counts can be made.

    catalog ──▶ folders            (the paths)
    catalog ──▶ codes ──▶ scratch  (all columns; what there is of each dimension)
    scratch ──▶ cube               (buckets; coarser ones while there are too many rows)
    catalog ──▶ examples           (the paths of a few rows)

A row of the cube stands for the files that are alike in all dimensions. Sums over its rows are
those over the files in the same buckets. Memory is bounded by the number of rows of the cube, and
of different values.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.catalog.difference import GONE
from rastermeta_async.model.row_ops import IDENTITY, ArchiveSizes
from rastermeta_async.report.dimensions import Dimension, fitted, made_coarser
from rastermeta_async.report.examples import Example, chosen_rows, examples_of
from rastermeta_async.report.facts import CHANGE, COLUMNS, DIMENSIONS, RowCodes
from rastermeta_async.report.folders import FolderCounter, FolderTree
from rastermeta_async.report.outlines import Outlines
from rastermeta_async.report.places import FINEST, Codes, coarser

MAX_ROWS = 100_000
"""Rows of a finished cube."""

_MAX_HELD = 300_000
"""Rows of a cube while it is made."""

_AT_FIRST = {"place": 1500, "time": 150, "folder": 600, "size": 24, "state": 40}
"""Buckets of a dimension at most; `_VALUES` of the others."""

_VALUES = 24
_MAX_CELLS = 20_000
"""Cells that are told apart while rows are counted."""

_ENOUGH = {"place": 400, "folder": 60, "time": 30, "state": 30}
"""Buckets that are enough to look at; `_ENOUGH_VALUES` of the others. What has more of them, in
proportion, is made coarser first."""

_ENOUGH_VALUES = 8

_SUMS = ("files", "bytes", "first")
_KINDS = [pa.int32()] * len(DIMENSIONS) + [pa.int64(), pa.float64(), pa.int64()]
_NO_ROWS = pa.schema(zip((*DIMENSIONS, *_SUMS), _KINDS, strict=True)).empty_table()
_SEED = 20
_LITTLE = 1e-9
"""Smallest score of a dimension that can still be made coarser."""

_PENDING = 1 << 17
"""Rows that wait to be grouped."""


Batches = Iterator[pa.RecordBatch]
Read = Callable[[Sequence[str]], Batches]
"""Returns the rows of a catalog with some columns, in the same order each time."""


@dataclass
class Cube:
    """Rows that each stand for the files that are alike."""

    dimensions: dict[str, Dimension]
    rows: pa.Table
    """The columns are the index of a row's bucket in each dimension; `files`; `bytes`, whole
    numbers as floats, exact up to 8 PiB; and `first`, the first of the files as a row of the
    catalog, from 0."""
    outlines: Outlines
    examples: list[Example] = field(default_factory=list)
    """Some of the files, see `exemplify`."""

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def codes(self, name: str) -> Codes:
        """Return the index of the bucket of each row in a dimension."""
        return np.asarray(self.rows[name])


def standing(cube: Cube) -> Cube:
    """Return a cube without the files that are gone since an older catalog."""
    gone = [at for at, key in enumerate(cube.dimensions[CHANGE].keys) if key == GONE]
    stays = ~np.isin(cube.codes(CHANGE), gone)
    return replace(cube, rows=cube.rows.filter(pa.array(stays)))


def cube_of(read: Read, folder: str | None = None) -> Cube:
    """Return the cube of a catalog.

    Args:
        read: returns its rows.
        folder: existing folder for a scratch file; None: the system's.

    Raises:
        OutputError: as `read` does.
        OSError: the scratch file cannot be written.
    """
    with tempfile.TemporaryFile(dir=folder) as scratch:
        tree = _tree_of(read)
        tally = _Tally(tree)
        _code_rows(read, tally, scratch)
        scratch.seek(0)
        cube = _Grouped(tally).cube(scratch)
    reduced(cube, MAX_ROWS)
    return cube


def exemplify(cube: Cube, read: Read) -> None:
    """Give a cube its examples; it must not be made coarser afterwards.

    Args:
        cube: made of the same rows.
        read: returns them.
    """
    codes = [cube.codes(name) for name in cube.dimensions]
    rows = chosen_rows(codes, np.asarray(cube.rows["files"]))
    first = np.asarray(cube.rows["first"])[rows]
    cube.examples = examples_of(rows, first, read(("filepath", "file_size", "member")))


def _tree_of(read: Read) -> FolderTree:
    counter = FolderCounter()
    sizes = ArchiveSizes()
    for batch in read((*IDENTITY, "file_size")):
        counter.add(batch["filepath"], sizes.of(batch))
    return counter.tree()


class _Tally:
    """What there is of each dimension."""

    def __init__(self, tree: FolderTree) -> None:
        self.tree = tree
        self.facts = RowCodes(tree)
        self.outlines = Outlines()
        self.level = FINEST
        """Level of the cells that are told apart."""
        self._counts: dict[str, dict[int, int]] = {name: {} for name in DIMENSIONS}

    def codes(self, rows: pa.RecordBatch) -> dict[str, Codes]:
        """Return the codes of rows, and count them."""
        found = self.facts.codes(rows)
        self.outlines.add(found["place"], rows["geometry"])
        for name, codes in found.items():
            self._count(name, coarser(codes, FINEST - self.level) if name == "place" else codes)
        return found

    def _count(self, name: str, codes: Codes) -> None:
        counts = self._counts[name]
        different, files = np.unique(codes, return_counts=True)
        for code, number in zip(different.tolist(), files.tolist(), strict=True):
            counts[code] = counts.get(code, 0) + number
        while name == "place" and len(counts) > _MAX_CELLS:
            self.level -= 1
            counts = self._merged(counts)

    def _merged(self, counts: dict[int, int]) -> dict[int, int]:
        merged: dict[int, int] = {}
        cells = coarser(np.array(list(counts), dtype=np.int64), FINEST - self.level)
        for code, number in zip(cells.tolist(), counts.values(), strict=True):
            merged[code] = merged.get(code, 0) + number
        self._counts["place"] = merged
        return merged

    def known(self, name: str) -> tuple[Codes, Codes]:
        """Return the codes of a dimension that rows have, ascending, and the files of each."""
        counts = self._counts[name]
        if name == "folder":  # also those around others, which hold no file themselves
            counts = dict.fromkeys(range(len(self.tree.folders)), 0) | counts
        codes, files = np.array(sorted(counts.items()) or [(0, 0)], dtype=np.int64).T
        return codes, files

    def dimension(self, name: str, codes: Codes, files: Codes) -> Dimension:
        """Return the dimension with a bucket for each of the codes."""
        step = {"place": self.level, "time": 1, "size": 1}.get(name, 0)
        names: Sequence[Any] = codes.tolist()
        if name == "folder":
            names = [self.tree.folders[code] for code in names]
        elif name in self.facts.values:
            names = [self.facts.values[name].names[code] for code in names]
        return Dimension(name, names, files, step)


def _code_rows(read: Read, tally: _Tally, scratch: IO[bytes]) -> None:
    """Write the codes of all rows, and their sizes, into a scratch file."""
    schema = pa.schema([(name, pa.int64()) for name in DIMENSIONS] + [("bytes", pa.float64())])
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(scratch, schema, options=options) as out:
        once = ArchiveSizes()
        for batch in read(COLUMNS):
            codes = tally.codes(batch)
            sizes = pc.fill_null(once.of(batch), 0).cast(pa.float64(), safe=False)
            columns = [pa.array(codes[name]) for name in DIMENSIONS]
            out.write_batch(pa.RecordBatch.from_arrays([*columns, sizes], schema=schema))


class _Grouped:
    """Groups the rows of a scratch file to a cube, in buckets that get coarser as needed."""

    def __init__(self, tally: _Tally) -> None:
        self._tally = tally
        self._known: dict[str, Codes] = {}
        self._bucket: dict[str, Codes] = {}
        """Index of the bucket of each known code."""
        dimensions: dict[str, Dimension] = {}
        for name in DIMENSIONS:
            self._known[name], files = tally.known(name)
            finest = tally.dimension(name, self._known[name], files)
            dimensions[name], self._bucket[name] = fitted(finest, _AT_FIRST.get(name, _VALUES))
        self._cube = Cube(dimensions, _NO_ROWS, tally.outlines)

    def cube(self, scratch: IO[bytes]) -> Cube:
        """Return the cube; it has at most `_MAX_HELD` rows."""
        waiting: list[pa.Table] = []
        first = count = 0
        for batch in pa.ipc.open_stream(scratch):
            waiting.append(self._coded(batch, first))
            first += batch.num_rows
            count += batch.num_rows
            if count > _PENDING:
                self._take(waiting)
                waiting, count = [], 0
        self._take(waiting)
        return self._cube

    def _coded(self, batch: pa.RecordBatch, first: int) -> pa.Table:
        """Return rows as those of a cube; `first` is the row of the catalog of the first one."""
        codes = [self._buckets(name, np.asarray(batch[name])) for name in DIMENSIONS]
        rows = np.arange(first, first + batch.num_rows)
        sums = np.ones(batch.num_rows, dtype=np.int64), np.asarray(batch["bytes"]), rows
        return pa.table(dict(zip((*DIMENSIONS, *_SUMS), (*codes, *sums), strict=True)))

    def _buckets(self, name: str, codes: Codes) -> Any:
        if name == "place":
            codes = coarser(codes, FINEST - self._tally.level)
        return self._bucket[name][np.searchsorted(self._known[name], codes)].astype(np.int32)

    def _take(self, waiting: list[pa.Table]) -> None:
        """Add rows; if there are too many, make the dimensions coarser."""
        self._cube.rows = _grouped(pa.concat_tables([self._cube.rows, *waiting]))
        if len(self._cube) > _MAX_HELD:
            for name, mapping in reduced(self._cube, _MAX_HELD // 2).items():
                self._bucket[name] = mapping[self._bucket[name]]


def _grouped(rows: pa.Table) -> pa.Table:
    """Return one row for those rows that are in the same buckets."""
    groups = rows.group_by(list(DIMENSIONS), use_threads=False)
    sums = groups.aggregate([("files", "sum"), ("bytes", "sum"), ("first", "min")])
    return sums.rename_columns([*DIMENSIONS, *_SUMS]).combine_chunks()


def reduced(cube: Cube, most: int) -> dict[str, Codes]:
    """Make the dimensions of a cube coarser, until it has at most so many rows.

    Each step takes the dimension that saves the most rows for what it loses.

    Returns:
        for each dimension that is coarser, the index of the bucket for each earlier bucket.
    """
    done: dict[str, Codes] = {}
    choice = _Choice(cube)
    while choice.rows > most and (name := choice.best()):
        mapping = choice.take(name)
        done[name] = mapping[done[name]] if name in done else mapping
    if done:
        cube.rows = _grouped(cube.rows)
    return done


class _Choice:
    """Finds the dimension to make coarser next.

    A row has a hash: the sum of a random number for each of its buckets. So the number of rows
    after a step is that of the different hashes. The final counts do not depend on it.
    """

    def __init__(self, cube: Cube) -> None:
        self._cube = cube
        random = np.random.default_rng(_SEED)
        self._numbers = {
            name: random.integers(0, 2**64, len(dimension), dtype=np.uint64)
            for name, dimension in cube.dimensions.items()
        }
        self._hash = np.zeros(len(cube), dtype=np.uint64)
        for name in cube.dimensions:
            self._hash += self._numbers[name][cube.codes(name)]
        self.rows = _different(self._hash)
        self._scores = dict.fromkeys(cube.dimensions, math.inf)

    def best(self) -> str | None:
        """Return the best dimension; None: all have one bucket.

        A step changes the scores of others little. So only the best are computed again.
        """
        fresh: set[str] = set()
        while (name := max(self._scores, key=lambda one: self._scores[one])) not in fresh:
            self._scores[name] = self._score(name)
            fresh.add(name)
        return name if self._scores[name] else None

    def _score(self, name: str) -> float:
        found = made_coarser(self._cube.dimensions[name])
        if not found:
            return 0.0
        dimension, mapping = found
        saved = math.log(self.rows / _different(self._after(name, mapping))) + _LITTLE
        return saved * len(dimension) / _ENOUGH.get(name, _ENOUGH_VALUES)

    def _after(self, name: str, mapping: Codes) -> Any:
        """Return the hashes after a step; a bucket has the number of its first old bucket."""
        numbers = self._numbers[name]
        change = numbers[_first_of_each(mapping)][mapping] - numbers
        return self._hash + change[self._cube.codes(name)]

    def take(self, name: str) -> Codes:
        """Make a dimension coarser; return the index of the new bucket for each old one."""
        found = made_coarser(self._cube.dimensions[name])
        assert found  # noqa: S101  # `best` has seen it
        dimension, mapping = found
        self._hash = self._after(name, mapping)
        self.rows = _different(self._hash)
        self._numbers[name] = self._numbers[name][_first_of_each(mapping)]
        codes = pa.array(mapping[self._cube.codes(name)].astype(np.int32))
        at = self._cube.rows.column_names.index(name)
        self._cube.rows = self._cube.rows.set_column(at, name, codes)
        self._cube.dimensions[name] = dimension
        return mapping


def _different(hashes: Any) -> int:
    """Return the number of different values; sorting is faster here than `numpy.unique`."""
    ordered = np.sort(hashes)
    return int(np.count_nonzero(ordered[1:] != ordered[:-1])) + 1


def _first_of_each(mapping: Codes) -> Codes:
    return np.unique(mapping, return_index=True)[1].astype(np.int64)
