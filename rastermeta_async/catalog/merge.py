"""Merge sorted runs of rows into one, in bounded memory.

Runs ascend by a key, that of the path by default; of rows with the same key the newest wins. A
run is open only while the merge is between its first key and its last: those of an archive that
was read folder by folder lie mostly one after another. Where too many lie over each other, some
are merged beforehand.
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
from rastermeta_async.model.row_ops import newest, path_keys

FAN_IN = 8
"""Runs merged at once: what is held of each is a batch, up to some megabytes with its copies."""

STORED_ROWS = 256
STORED_BYTES = 1024 * 1024
"""Rows that are at hand of a run that was stored, or about as many as have so many bytes."""

# Buffers are small: to hand each to another thread takes longer than to compress it.
_TO_STORE = {"compression": "lz4", "use_threads": False}
_TO_READ = {"use_threads": False}

Batches = Generator[pa.RecordBatch, None, None]


@dataclass(frozen=True, slots=True)
class Run:
    """Rows that ascend by their keys, no key twice, and between which keys they lie."""

    first: bytes
    """At most the first key."""
    last: bytes | None
    """At least the last key; None: there may be any."""
    rows: int
    open: Callable[[], Batches]

    def may_hold(self, key: bytes) -> bool:
        """Tell whether a key lies between its ends."""
        return self.first <= key and (self.last is None or key <= self.last)


class _Cursor:
    """A place in a run: the current batch, from its first row that was not taken yet."""

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
        """Take the rows whose key is at most `limit` out of the current batch."""
        if self.batch is None:
            return None
        if self.last <= limit:
            taken = self.batch
            self.advance()
            return taken
        places = range(len(self._keys))
        stop = bisect_right(places, limit, key=lambda at: self._keys[at].as_py())
        if stop == 0:
            return None
        taken = self.batch.slice(0, stop)
        self.batch = self.batch.slice(stop)
        self._keys = self._keys.slice(stop)
        return taken

    def close(self) -> None:
        """Close the run's file."""
        self._batches.close()


def merge(runs: Sequence[Run], keys_of: Keys = path_keys) -> Batches:
    """Yield all rows in the order of their keys, one a key; later runs win.

    At most so many runs are open at once as `overlap` counts.
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
            if len(taken) == 1:  # the rows of one run are in order as they are
                yield taken[0]
            elif taken:
                yield newest(pa.Table.from_batches(taken, schema=SCHEMA), keys_of)
            cursors = [cursor for cursor in cursors if cursor.batch is not None]
    finally:
        for cursor in cursors:
            cursor.close()


def overlap(runs: Sequence[Run]) -> tuple[int, bytes]:
    """Return how many runs there are at most in which one key may be, and such a key."""
    firsts = [(run.first, False) for run in runs]
    lasts = [(run.last, True) for run in runs if run.last is not None]
    most, at, count = 0, b"", 0
    for key, is_last in sorted([*firsts, *lasts]):
        count += -1 if is_last else 1
        if count > most:
            most, at = count, key
    return most, at


def crowded(runs: Sequence[Run]) -> list[slice]:
    """Return which neighbours are to be merged first, each slice for itself, from the end on.

    There are none where no key may be in more than `FAN_IN` runs. Else they are of those that
    may hold one such key: the slices with the fewest rows, as each row is written once more.
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


def merge_many(runs: Sequence[Run], scratch: str, keys_of: Keys = path_keys) -> Batches:
    """Like `merge` for any number of runs; no more than `FAN_IN` are open at once.

    Args:
        runs: sorted runs; of rows with the same key that of the last run wins.
        scratch: existing folder for the files of runs that had to be merged beforehand (Arrow
            IPC streams); they are gone in the end, however it ends.
        keys_of: gives the keys.
    """
    left = list(runs)
    slices = crowded(left)
    if not slices:  # as mostly
        yield from merge(left, keys_of)
        return
    with scratch_folder(scratch) as folder:
        while slices:
            for some in slices:
                # A slice is less than all, so this comes to an end.
                left[some] = [stored(merge_many(left[some], folder, keys_of), folder, keys_of)]
            slices = crowded(left)
        yield from merge(left, keys_of)


def scratch_folder(parent: str) -> tempfile.TemporaryDirectory[str]:
    """Return a new folder, as a context; it is removed with all that is in it."""
    return tempfile.TemporaryDirectory(dir=parent, prefix=SCRATCH_START, suffix=SCRATCH_END)


def stored(batches: Iterable[pa.RecordBatch], folder: str, keys_of: Keys) -> Run:
    """Write rows, which are in order, into a file; return them as a run."""
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
    """Make a file in a folder; return its path, and what takes its rows."""
    number, path = tempfile.mkstemp(dir=folder)
    os.close(number)
    options = pa.ipc.IpcWriteOptions(**_TO_STORE)
    with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, SCHEMA, options=options) as out:
        yield path, out


def read_scratch(path: str) -> Batches:
    """Yield the rows of such a file, which is removed as soon as it is open."""
    with pa.OSFile(path, "rb") as file:
        remove(path)  # its room on the disk is free as soon as it was read
        yield from pa.ipc.open_stream(file, options=pa.ipc.IpcReadOptions(**_TO_READ))


def _cut(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cut rows into batches that may be held of many runs at once."""
    fitting = STORED_BYTES * batch.num_rows // max(batch.nbytes, 1)
    rows = max(1, min(STORED_ROWS, fitting))
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)
