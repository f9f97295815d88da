"""Merge sorted runs of rows into one, and sort rows anew, both in bounded memory.

Runs ascend by a key, that of the path by default; of rows with the same key the newest wins.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa

from rastermeta_async.catalog.durable import remove
from rastermeta_async.catalog.formats import grouped
from rastermeta_async.catalog.order import Keys
from rastermeta_async.memory import give_back
from rastermeta_async.record import SCHEMA
from rastermeta_async.rows import newest, path_keys

FAN_IN = 16
"""Runs merged at once: what they hold of each is at most one small batch."""

RUN_ROWS = 65_536
RUN_BYTES = 8 * 1024 * 1024
"""Rows that are sorted in memory; they are held twice meanwhile."""

MERGED_ROWS = 256
"""Rows of each run that are at hand while many are merged."""

_numbers = itertools.count()
"""Of files between passes: a merge may read what another one, in the same folder, is sorting."""

Run = Callable[[], Iterator[pa.RecordBatch]]
"""Opens a run: batches of rows that ascend by their keys, no key twice."""


class _Cursor:
    """A place in a run: the current batch, from its first row that was not taken yet."""

    def __init__(self, run: Run, keys_of: Keys) -> None:
        self._batches = run()
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


def merge(runs: Sequence[Run], keys_of: Keys = path_keys) -> Iterator[pa.RecordBatch]:
    """Yield all rows in the order of their keys, one a key; later runs win. Opens all at once."""
    cursors = [_Cursor(run, keys_of) for run in runs]
    try:
        while active := [cursor for cursor in cursors if cursor.batch is not None]:
            limit = min(cursor.last for cursor in active)
            taken = [rows for cursor in active if (rows := cursor.take_until(limit)) is not None]
            # The rows of one run are in order as they are.
            yield (
                taken[0]
                if len(taken) == 1
                else newest(pa.Table.from_batches(taken, schema=SCHEMA), keys_of)
            )
    finally:
        for cursor in cursors:
            cursor.close()


def merge_many(
    runs: Sequence[Run], scratch: str, keys_of: Keys = path_keys
) -> Iterator[pa.RecordBatch]:
    """Like `merge` for any number of runs, in passes of `FAN_IN`, oldest run first.

    Args:
        runs: sorted runs; of rows with the same key that of the last run wins.
        scratch: existing folder for the files between passes (Arrow IPC streams); they are
            removed as soon as they were read.
        keys_of: gives the keys.
    """
    while len(runs) > FAN_IN:
        rest, runs = list(runs), []
        # No more are merged than has to be: each row is written once more.
        while len(rest) > 1 and len(runs) + len(rest) > FAN_IN:
            size = min(FAN_IN, len(runs) + len(rest) - FAN_IN + 1)
            runs.append(_store(merge(rest[:size], keys_of), scratch))
            del rest[:size]
        runs += rest
    yield from merge(runs, keys_of)


def resorted(
    batches: Iterable[pa.RecordBatch], scratch: str, keys_of: Keys
) -> Iterator[pa.RecordBatch]:
    """Yield rows in the order of their keys; arguments as for `merge_many`."""
    runs = []
    for group in grouped(batches, RUN_ROWS, RUN_BYTES):
        rows = pa.Table.from_batches([newest(group, keys_of)])
        runs.append(_store(rows.to_batches(MERGED_ROWS), scratch))
    yield from merge_many(runs, scratch, keys_of)


def _store(batches: Iterable[pa.RecordBatch], scratch: str) -> Run:
    path = os.path.join(scratch, f"run-{next(_numbers):08d}.tmp")
    with (
        pa.OSFile(path, "wb") as file,
        pa.ipc.new_stream(file, SCHEMA, options=pa.ipc.IpcWriteOptions(compression="lz4")) as out,
    ):
        for batch in batches:
            out.write_batch(batch)
    give_back()

    def read() -> Iterator[pa.RecordBatch]:
        with pa.OSFile(path, "rb") as file:
            # A name that is gone is a file that no crash can leave behind.
            remove(path)
            yield from pa.ipc.open_stream(file)

    return read
