"""The rows of paths that are no rasters: kept in one file with the log, next to the catalog.

Sealing parts them from the rows of rasters as they pass. Their file has a name of its own for each
sealing, and never changes: so it is whole before the log names it, and no two files have to take
their names at once. The next sealing merges it as one more run.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.catalog.checkpoint import Part, Sealed, history, log_content, read_entries
from rastermeta_async.catalog.digest import Content
from rastermeta_async.catalog.durable import Rights, created, open_regular, publish
from rastermeta_async.catalog.formats import Grouper, ParquetFormat
from rastermeta_async.catalog.merge import Batches, Run
from rastermeta_async.catalog.names import (
    log_path,
    no_rasters_name,
    part_temporary,
    parts_folder,
)
from rastermeta_async.catalog.parts import part_rows, part_run
from rastermeta_async.catalog.reading import NotRowsError, checked
from rastermeta_async.catalog.resort import SAMPLE_KEYS, resorted
from rastermeta_async.model.errors import CheckpointError, OutputError, RastermetaError
from rastermeta_async.model.record import ARCHIVE_NOT_READ, NO_RASTERS
from rastermeta_async.model.row_ops import (
    IDENTITY,
    Counts,
    counts_of,
    has_inside,
    parted,
    path_keys,
)

GROUP_ROWS = 8192
GROUP_BYTES = 1024 * 1024
"""Limits of a row group; most rows have a path, a size, a time and a message only."""


class NoRasterWriter:
    """Parts the rows of no rasters from others, and writes them into a file of their own.

    To be used as a context manager: leaving it makes the file durable, or removes it after an
    error. Without such rows there is no file, and no cost.

    Args:
        folder: of the parts; it exists when the first such row comes.
        rights: of the file.
    """

    def __init__(self, folder: str, rights: Rights) -> None:
        self.rows = 0
        """Rows of rasters that were passed on."""
        self.several = False
        """Whether some of them are of members or subdatasets."""
        self.counts = Counts(0)
        """Failures among these rows, and the numbers of the other rows."""
        self.name = ""
        """File name; "": there is no file."""
        self.size = 0
        self.digest = ""
        self._folder = folder
        self._rights = rights
        self._grouper = Grouper(GROUP_ROWS, GROUP_BYTES)
        self._stack = ExitStack()
        self._temporary = ""
        self._writer: Any = None

    def __enter__(self) -> Self:
        self._stack.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def parted(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the rows that belong into a catalog; write all others."""
        for batch in batches:
            counts = counts_of(batch)
            self.counts = Counts(*map(sum, zip(self.counts, counts, strict=True)))
            rasters, others = parted(batch) if counts.no_rasters else (batch, None)
            if others is not None:
                self._write(others)
            self.rows += rasters.num_rows
            self.several = self.several or has_inside(rasters)
            yield rasters

    def _write(self, rows: pa.RecordBatch) -> None:
        if self._writer is None:
            self._temporary = part_temporary(self._folder)
            file = self._stack.enter_context(created(self._temporary, self._rights))
            self._content = Content(file.fileno())
            self._stack.callback(self._content.finish)
            self._writer = ParquetFormat(passing=True).writer(self._content)
        for group in self._grouper.push(rows):
            self._writer.write_table(group)

    def finish(self) -> None:
        """Write what is left, after the last row."""
        if self._writer is None:
            return
        if self._grouper.rows:
            self._writer.write_table(self._grouper.flush())
        self._writer.close()
        self._content.finish()
        self.size, self.digest = self._content.size, self._content.digest

    def publish(self) -> None:
        """Give the file its name, after the context was left."""
        if self._temporary:
            name = no_rasters_name()
            publish(self._temporary, os.path.join(self._folder, name))
            self.name = name


def run_of(folder: str, part: Part, scratch: str, *, in_order: bool) -> Run:
    """Return the rows of no rasters as a run.

    Args:
        folder: of the parts.
        part: the file of no rasters.
        scratch: folder for scratch files.
        in_order: whether the rows are sorted by path. They are, unless the catalog has no order:
            rows without a footprint are in the order of their paths in any other.

    Raises:
        CheckpointError: the file is not what the log says, now or when the run is read.
    """
    if in_order:
        return part_run(folder, part)
    return Run(b"", None, part.rows, partial(_by_path, folder, part, scratch))


def _by_path(folder: str, part: Part, scratch: str) -> Batches:
    step = part.rows // SAMPLE_KEYS + 1
    sample: list[bytes] = []
    for batch in part_rows(folder, [part], IDENTITY):
        sample += path_keys(batch)[::step].to_pylist()
    yield from resorted(part_rows(folder, [part]), sample, part.rows, scratch, path_keys)


def are_unread(rows: pa.RecordBatch) -> pa.Array:
    """Return for each row of no rasters whether it is of an archive whose members were not read."""
    return pc.fill_null(pc.equal(rows.column("error_type"), ARCHIVE_NOT_READ), False)


def are_inside_stores(rows: pa.RecordBatch) -> pa.Array:
    """Return for each row whether it is of a file that makes its folder a Zarr store."""
    return pc.match_substring_regex(rows.column("filepath"), r"/(\.zgroup|\.zarray|zarr\.json)$")


def sealed_of(catalog: str) -> Sealed | None:
    """Return what the log next to a finished local catalog says of it; None: no log is of it."""
    log = log_path(catalog)
    with suppress(OSError, RastermetaError), open(open_regular(log), "rb") as file:
        sealed = history(read_entries(log_content(file, log), log)).sealed
        if sealed and sealed.size == os.path.getsize(catalog):
            return sealed
    return None


_BATCHES_SHOWN = 16
"""Batches of rows among which examples are looked for."""


def some_no_rasters(catalog: str, sealed: Sealed, count: int) -> dict[str, list[str]]:
    """Return the first paths of no rasters of a catalog, up to `count` of each status.

    There are none if their file is gone or damaged: the next run says so.
    """
    found: dict[str, list[str]] = {status: [] for status in NO_RASTERS}
    part = sealed.no_rasters
    with suppress(RastermetaError):
        rows = part_rows(parts_folder(catalog), [part] if part else [], IDENTITY)
        for batch in itertools.islice(rows, _BATCHES_SHOWN):
            for status, some in found.items():
                paths = batch.filter(pc.equal(batch.column("status"), status)).column("filepath")
                some += paths[: count - len(some)].to_pylist()
    return found


def as_error_rows(catalog: str, columns: Sequence[str]) -> Batches:
    """Yield the rows of no rasters of a finished local catalog as error rows.

    There are none if their file is gone.

    Args:
        catalog: its path.
        columns: the columns of the rows; the status is one of them.

    Raises:
        OutputError: the file is damaged, or no run wrote it.
    """
    folder, sealed = parts_folder(catalog), sealed_of(catalog)
    part = sealed.no_rasters if sealed else None
    if part is None or not os.path.exists(os.path.join(folder, part.name)):
        return

    def errors() -> Iterator[pa.RecordBatch]:
        for batch in part_rows(folder, [part], [*columns]):
            at = batch.schema.get_field_index("status")
            words = pa.array(["error"] * batch.num_rows, pa.string())
            yield batch.set_column(at, batch.schema.field(at), words)

    try:
        yield from checked(errors())
    except (CheckpointError, NotRowsError) as error:
        raise OutputError(f"{catalog}: its no rasters cannot be read: {error}") from error
