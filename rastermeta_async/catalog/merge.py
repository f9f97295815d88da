"""Merge sorted runs of rows into one, and sort rows anew, both in bounded memory.

Runs ascend by a key, that of the path by default; of rows with the same key the newest wins. A
run is open only while the merge is between its first key and its last: those of an archive that
was read folder by folder lie mostly one after another.
"""

from __future__ import annotations

import itertools
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from rastermeta_async.catalog.durable import remove
from rastermeta_async.catalog.formats import grouped
from rastermeta_async.catalog.order import Keys
from rastermeta_async.memory import give_back
from rastermeta_async.record import SCHEMA
from rastermeta_async.rows import newest, path_keys

FAN_IN = 8
"""Runs merged at once: what is held of each is a batch, up to some megabytes with its copies."""

RUN_ROWS = 65_536
RUN_BYTES = 8 * 1024 * 1024
"""Rows that are sorted in memory; they are held twice meanwhile."""

STORED_ROWS = 256
"""Rows that are at hand of a run that was stored between passes."""

_numbers = itertools.count()
"""Of files between passes: a merge may read what another one, in the same folder, is sorting."""

Batches = Iterator[pa.RecordBatch]


@dataclass(frozen=True)
class Run:
    """Rows that ascend by their keys, no key twice, and between which keys they lie."""

    first: bytes
    """At most the first key."""
    last: bytes | None
    """At least the last key; None: there may be any."""
    open: Callable[[], Batches]


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
        stop = self._first_above(limit)
        if stop == 0:
            return None
        taken = self.batch.slice(0, stop)
        self.batch = self.batch.slice(stop)
        self._keys = self._keys.slice(stop)
        return taken

    def _first_above(self, limit: bytes) -> int:
        low, high = 0, len(self._keys)
        while low < high:
            middle = (low + high) // 2
            if self._keys[middle].as_py() <= limit:
                low = middle + 1
            else:
                high = middle
        return low

    def close(self) -> None:
        """Close the run's file."""
        if hasattr(self._batches, "close"):
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


def overlap(runs: Sequence[Run]) -> int:
    """Return how many runs there are at most in which one key may be."""
    ends = [(run.first, 0, 1) for run in runs]
    ends += [(run.last, 1, -1) for run in runs if run.last is not None]
    return max(itertools.accumulate(step for *_, step in sorted(ends)), default=0)


def merge_many(runs: Sequence[Run], scratch: str, keys_of: Keys = path_keys) -> Batches:
    """Like `merge` for any number of runs, in passes of `FAN_IN`, oldest run first.

    Args:
        runs: sorted runs; of rows with the same key that of the last run wins.
        scratch: existing folder for the files between passes (Arrow IPC streams); they are
            removed as soon as they were read.
        keys_of: gives the keys.
    """
    rest, runs = list(runs), []
    while (most := overlap(runs + rest)) > FAN_IN:
        # No more are merged than has to be: each row is written once more.
        width = min(FAN_IN, most - FAN_IN + 1)
        size = bisect_right(range(len(rest)), width, key=lambda at: overlap(rest[: at + 1]))
        if size > 1:
            runs.append(_merged(rest[:size], scratch, keys_of))
            rest = rest[size:]
        else:
            rest, runs = runs + rest, []
    yield from merge(runs + rest, keys_of)


def resorted(batches: Iterable[pa.RecordBatch], scratch: str, keys_of: Keys) -> Batches:
    """Yield rows in the order of their keys; arguments as for `merge_many`."""
    runs = []
    for group in grouped(batches, RUN_ROWS, RUN_BYTES):
        rows = newest(group, keys_of)
        keys = keys_of(rows)
        read = _store(pa.Table.from_batches([rows]).to_batches(STORED_ROWS), scratch)
        runs.append(Run(keys[0].as_py(), keys[-1].as_py(), read))
    yield from merge_many(runs, scratch, keys_of)


def _merged(runs: Sequence[Run], scratch: str, keys_of: Keys) -> Run:
    """Return one run, on disk, in place of several."""
    known = [run.last for run in runs if run.last is not None]
    last = max(known) if len(known) == len(runs) else None
    return Run(min(run.first for run in runs), last, _store(merge(runs, keys_of), scratch))


def _store(batches: Iterable[pa.RecordBatch], scratch: str) -> Callable[[], Batches]:
    path = os.path.join(scratch, f"run-{next(_numbers):08d}.tmp")
    with (
        pa.OSFile(path, "wb") as file,
        pa.ipc.new_stream(file, SCHEMA, options=pa.ipc.IpcWriteOptions(compression="lz4")) as out,
    ):
        for batch in batches:
            out.write_batch(batch)
    give_back()

    def read() -> Batches:
        with pa.OSFile(path, "rb") as file:
            # A name that is gone is a file that no crash can leave behind.
            remove(path)
            yield from pa.ipc.open_stream(file)

    return read
