"""How far a run is, counted from its paths and rows."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.catalog.no_rasters import are_inside_stores, are_unread
from rastermeta_async.model.record import NO_RASTERS, SUCCESSES, shown_name
from rastermeta_async.model.row_ops import (
    count_missing,
    count_passing,
    count_readings,
    counts_of,
    kept,
)
from rastermeta_async.model.text import shortened

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a run is. Only the pipeline and `count_rows` write it; others take a `snapshot`."""

    done: int = 0
    """Paths finished in this run."""
    rows: int = 0
    """Rows of these paths that are rasters: members of archives have rows of their own."""
    failures: int = 0
    """Rows finished in this run that are neither a success nor of a path that is no raster."""
    sidecars: int = 0
    """Paths finished in this run that are no rasters: files that belong to a raster."""
    others: int = 0
    """Other paths finished in this run that are no rasters."""
    unread_archives: int = 0
    """Archives among `others` whose members were not read, as that was not asked for."""
    store_files: int = 0
    """Files among `others` that make their folders Zarr stores."""
    taken: int = 0
    """Input paths taken so far for reading, finished or not."""
    skipped: int = 0
    """Input paths that are not read: finished in an earlier run, or given twice."""
    dropped: int = 0
    """Rows dropped because their file is gone."""
    walked: int = 0
    """Rows dropped because they are of folders that could be walked this time."""
    missing: int = 0
    """Failures of this run because a local path does not exist."""
    passing: int = 0
    """Failures of this run that a later run may not have."""
    not_given: int = 0
    """Error rows of earlier runs whose paths are not among this run's inputs."""
    example: str | None = None
    """The first failure: path and message."""
    committed: int = 0
    """Committed rows of this run."""
    fraction: float | None = None
    """Share of the input that was read, 0 to 1; None: its size is unknown."""
    sealing: bool = False
    """Whether the catalog is being written."""
    started: float = field(default_factory=time.monotonic)
    """`time.monotonic` when the first file was taken for reading."""
    passed_over: int = 0
    """Input paths skipped before the first file was taken."""

    def take(self, files: int, skipped: int) -> None:
        """Count input paths that are taken for reading, and those that are skipped."""
        if files and not (self.taken or self.done):
            self.started, self.passed_over = time.monotonic(), self.skipped
        self.taken += files
        self.skipped += skipped

    def snapshot(self) -> Progress:
        """Return a copy that does not change."""
        return replace(self)

    @property
    def rasters(self) -> int:
        """Paths finished in this run, but for those of no rasters."""
        return self.done - self.sidecars - self.others

    @property
    def share(self) -> float | None:
        """Share of the reading that is done, 0 to 1; None: unknown."""
        if self.fraction is None or not self.taken:
            return self.fraction
        return self.fraction * self.done / self.taken

    @property
    def rate(self) -> float:
        """Paths a second since the first file was taken."""
        return self.done / max(time.monotonic() - self.started, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Time until all is read, if as many of the further paths need reading; None: unknown."""
        if not (self.fraction and self.done):
            return None
        given = self.taken + self.skipped
        new = self.taken / (given - self.passed_over)
        return ((given / self.fraction - given) * new + self.taken - self.done) / self.rate


def count_rows(batch: pa.RecordBatch, progress: Progress) -> None:
    """Count the rows that a pool has read, and log their problems."""
    rows = kept(batch)
    progress.walked += batch.num_rows - rows.num_rows
    progress.done += count_readings(rows)
    counts = counts_of(rows)
    progress.rows += rows.num_rows - counts.no_rasters
    progress.sidecars += counts.sidecars
    progress.others += counts.others
    if counts.others:
        progress.unread_archives += pc.sum(are_unread(rows)).as_py()
        progress.store_files += pc.sum(are_inside_stores(rows)).as_py()
    if counts.failures:
        progress.failures += counts.failures
        progress.missing += count_missing(rows)
        progress.passing += count_passing(rows)
        progress.example = progress.example or _example(rows)
    if counts.failures or counts.no_rasters:
        _log_problems(rows)


def _log_problems(batch: pa.RecordBatch) -> None:
    if log.isEnabledFor(logging.DEBUG):
        for row in _problems(batch):
            path = _name(row)
            log.debug("%s: %s: %s", path, row["status"], row["error_message"])


def _example(batch: pa.RecordBatch) -> str:
    row = next(row for row in _problems(batch) if row["status"] not in NO_RASTERS)
    return f"{_name(row)}: {row['error_message']}"


def _name(row: dict[str, str]) -> str:
    return shortened(shown_name(row["filepath"], row["member"]))


def _problems(batch: pa.RecordBatch) -> Iterator[dict[str, str]]:
    for row in batch.select(["filepath", "member", "status", "error_message"]).to_pylist():
        if row["status"] not in SUCCESSES:
            yield row
