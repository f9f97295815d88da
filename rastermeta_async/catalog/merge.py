"""Merge sorted runs of rows into one, in bounded memory.

Runs are sorted by a key, by default the path. A path may have several rows, for example of the
members of an archive; the newest run with a path gives all of them. A run is open only while the
merge is between its first and its last key. The runs of an archive that was read folder by folder
mostly follow one another. If too many runs overlap, some are merged first.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from rastermeta_async.catalog.durable import remove
from rastermeta_async.catalog.names import SCRATCH_END, SCRATCH_START
from rastermeta_async.catalog.order import Keys
from rastermeta_async.model.machine import give_back
from rastermeta_async.model.record import SCHEMA
from rastermeta_async.model.row_ops import has_inside, newest, path_keys

FAN_IN = 8
"""Runs merged at once. Each holds one batch in memory, up to some megabytes with its copies."""

STORED_ROWS = 256
STORED_BYTES = 1024 * 1024
"""Limits of a batch of a stored run: rows, and approximate bytes."""

# Buffers are small: handing one to another thread takes longer than compressing it.
_TO_STORE = {"compression": "lz4", "use_threads": False}
_TO_READ = {"use_threads": False}

Batches = Generator[pa.RecordBatch, None, None]

Pick = Callable[[pa.Table, Keys], pa.RecordBatch]
"""Sorts rows by their keys and picks the rows of a key; each run is a chunk, later ones later."""


@dataclass(frozen=True, slots=True)
class Run:
    """Rows in ascending order of their keys, and the range of the keys.

    Only rows inside one path have the same key; they ascend by `row_keys`.
    """

    first: bytes
    """Lower bound: at most the first key."""
    last: bytes | None
    """Upper bound: at least the last key; None: no bound."""
    rows: int
    open: Callable[[], Batches]

    def may_hold(self, key: bytes) -> bool:
        """Tell whether a key is in the run's range."""
        return self.first <= key and (self.last is None or key <= self.last)


class _Cursor:
    """A position in a run: the rows of the current batch that were not taken yet."""

    def __init__(self, age: int, run: Run, keys_of: Keys) -> None:
        self.age = age
        self._batches = run.open()
        self._keys_of = keys_of
        self.batch: pa.RecordBatch | None = None
        self.advance()

    def advance(self) -> None:
        """Go to the next batch; `batch` is None at the end."""
        self.batch = next((batch for batch in self._batches if batch.num_rows), None)
        if self.batch is not None:
            self._keys = self._keys_of(self.batch)
            self.last: bytes = self._keys[-1].as_py()

    def take_until(self, limit: bytes) -> pa.RecordBatch | None:
        """Take the rows whose key is at most `limit` from the current batch; None: none."""
        if self.batch is None:
            return None
        if self.last <= limit:
            taken, last = self.batch, self.last
            self.advance()
            if self.batch is not None and has_inside(self.batch.slice(0, 1)):
                return self._whole(taken, last)
            return taken
        return self._first_rows(self.batch, limit)

    def _first_rows(self, batch: pa.RecordBatch, limit: bytes) -> pa.RecordBatch | None:
        """Take the rows whose key is at most `limit` from the current batch, which has others."""
        places = range(len(self._keys))
        stop = bisect_right(places, limit, key=lambda at: self._keys[at].as_py())
        if stop == 0:
            return None
        taken, self.batch = batch.slice(0, stop), batch.slice(stop)
        self._keys = self._keys.slice(stop)
        return taken

    def _whole(self, taken: pa.RecordBatch, last: bytes) -> pa.RecordBatch:
        """Return taken rows with those of the following batches that have the same last key."""
        parts = [taken]
        while self.batch is not None and self.last == last:
            parts.append(self.batch)
            self.advance()
        if self.batch is not None and (more := self._first_rows(self.batch, last)) is not None:
            parts.append(more)
        return _joined(parts)

    def close(self) -> None:
        """Close the run's file."""
        self._batches.close()


def unbroken(batches: Iterable[pa.RecordBatch], keys_of: Keys = path_keys) -> Batches:
    """Yield sorted rows in batches, none of which ends between two rows with the same key."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        if not batch.num_rows:
            continue
        if held and not _goes_on(held[-1], batch, keys_of):
            yield _joined(held)
            held = []
        held.append(batch)
    if held:
        yield _joined(held)


def _goes_on(batch: pa.RecordBatch, following: pa.RecordBatch, keys_of: Keys) -> bool:
    """Tell whether the first row of a batch has the key of the last row of the one before."""
    first = following.slice(0, 1)
    if not has_inside(first):  # nearly always; only the first row of a path may be such a row
        return False
    same: bool = keys_of(batch.slice(batch.num_rows - 1)) == keys_of(first)
    return same


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    table = pa.Table.from_batches(batches).combine_chunks()
    (batch,) = table.to_batches()
    return batch


def merge(runs: Sequence[Run], keys_of: Keys = path_keys, pick: Pick = newest) -> Batches:
    """Yield all rows in the order of their keys, of each key those that `pick` picks.

    The number of runs that are open at once is at most the one that `overlap` returns.
    """
    waiting = sorted(enumerate(runs), key=lambda aged: aged[1].first, reverse=True)
    cursors: list[_Cursor] = []
    try:
        while waiting or cursors:
            limit = min([cursor.last for cursor in cursors] or [waiting[-1][1].first])
            while waiting and waiting[-1][1].first <= limit:
                cursors.append(_Cursor(*waiting.pop(), keys_of))
                cursors = [cursor for cursor in cursors if cursor.batch is not None]
                limit = min((cursor.last for cursor in cursors), default=limit)
            cursors.sort(key=lambda cursor: cursor.age)
            taken = [rows for cursor in cursors if (rows := cursor.take_until(limit)) is not None]
            if len(taken) == 1:  # the rows of one run are already in order
                yield taken[0]
            elif taken:
                yield pick(pa.Table.from_batches(taken, schema=SCHEMA), keys_of)
            cursors = [cursor for cursor in cursors if cursor.batch is not None]
    finally:
        for cursor in cursors:
            cursor.close()


def overlap(runs: Sequence[Run]) -> tuple[int, bytes]:
    """Return the largest number of runs that may hold one key, and such a key."""
    firsts = [(run.first, False) for run in runs]
    lasts = [(run.last, True) for run in runs if run.last is not None]
    most, at, count = 0, b"", 0
    for key, is_last in sorted([*firsts, *lasts]):
        count += -1 if is_last else 1
        if count > most:
            most, at = count, key
    return most, at


def crowded(runs: Sequence[Run]) -> list[slice]:
    """Return the slices of neighbouring runs to merge first, the last slice first.

    There are none if no key may be in more than `FAN_IN` runs. Else a key is chosen that most runs
    may hold. The slices of these runs with the fewest rows are returned, as merging a slice writes
    each of its rows once more.
    """
    most, key = overlap(runs)
    if most <= FAN_IN:
        return []
    over = [at for at, run in enumerate(runs) if run.may_hold(key)]
    width = min(FAN_IN, most - FAN_IN + 1)
    slices = [slice(over[end - width], over[end - 1] + 1) for end in range(most, width - 1, -width)]
    before = [0, *itertools.accumulate(run.rows for run in runs)]
    slices.sort(key=lambda some: before[some.stop] - before[some.start])
    enough = -(-(most - FAN_IN) // (width - 1))
    return sorted(slices[:enough], key=lambda some: some.start, reverse=True)


def merge_many(
    runs: Sequence[Run], scratch: str, keys_of: Keys = path_keys, pick: Pick = newest
) -> Batches:
    """Merge any number of runs like `merge`; at most `FAN_IN` are open at once.

    Args:
        runs: sorted runs.
        scratch: existing folder for temporary files of runs that are merged first (Arrow IPC
            streams). They are removed in the end, also after an error.
        keys_of: returns the keys of rows.
        pick: picks the rows of a key; by default those of the last run. The result must not depend
            on which neighbours are merged first.
    """
    left = list(runs)
    slices = crowded(left)
    if not slices:  # the usual case
        yield from merge(left, keys_of, pick)
        return
    with scratch_folder(scratch) as folder:
        while slices:
            for some in slices:
                # A slice is shorter than the list of runs, so the recursion ends.
                left[some] = [
                    stored(merge_many(left[some], folder, keys_of, pick), folder, keys_of)
                ]
            slices = crowded(left)
        yield from merge(left, keys_of, pick)


def scratch_folder(parent: str) -> tempfile.TemporaryDirectory[str]:
    """Return a new folder as a context manager; leaving it removes the folder and its content."""
    return tempfile.TemporaryDirectory(dir=parent, prefix=SCRATCH_START, suffix=SCRATCH_END)


def stored(batches: Iterable[pa.RecordBatch], folder: str, keys_of: Keys) -> Run:
    """Write sorted rows into a scratch file; return them as a run."""
    first, rows = b"", 0
    batch: pa.RecordBatch | None = None
    with scratch_file(folder) as (path, out):
        for batch in batches:
            if not rows:
                first = keys_of(batch)[0].as_py()
            for some in _cut(batch):
                out.write_batch(some)
            rows += batch.num_rows
    give_back()
    last = b"" if batch is None else keys_of(batch)[-1].as_py()
    return Run(first, last, rows, partial(read_scratch, path))


@contextmanager
def scratch_file(folder: str) -> Iterator[tuple[str, pa.ipc.RecordBatchStreamWriter]]:
    """Make a scratch file in a folder; yield its path and the writer for its rows."""
    number, path = tempfile.mkstemp(dir=folder)
    os.close(number)
    options = pa.ipc.IpcWriteOptions(**_TO_STORE)
    with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, SCHEMA, options=options) as out:
        yield path, out


def read_scratch(path: str) -> Batches:
    """Yield the rows of a scratch file; the file's name is removed as soon as it is open."""
    with pa.OSFile(path, "rb") as file:
        remove(path)  # the disk space is free as soon as the file is closed
        yield from pa.ipc.open_stream(file, options=pa.ipc.IpcReadOptions(**_TO_READ))


def _cut(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cut rows into batches so small that the merge may hold one of each run."""
    fitting = STORED_BYTES * batch.num_rows // max(batch.nbytes, 1)
    rows = max(1, min(STORED_ROWS, fitting))
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)
