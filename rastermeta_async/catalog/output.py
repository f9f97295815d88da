"""One output file and the files that stand next to it while a run writes it.

``catalog.parquet.parts/`` holds the batches committed so far. The log
``catalog.parquet.checkpoint`` says which of them count. Opening an output recovers it from
whatever an earlier run left. `Output.seal` turns the parts into the catalog.
"""

from __future__ import annotations

import io
import itertools
import os
import shlex
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.catalog.changes import COLUMNS, Unchanged
from rastermeta_async.catalog.checkpoint import (
    CheckpointLog,
    History,
    Part,
    Sealed,
    Sealing,
    Uploaded,
    history,
)
from rastermeta_async.catalog.dedupe import replaced
from rastermeta_async.catalog.digest import WRITE_BYTES, Content
from rastermeta_async.catalog.durable import (
    created,
    ensure_folder,
    explained,
    folder_of,
    identity,
    open_folder,
    publish,
    remove,
    rights_at,
    sync_folder,
)
from rastermeta_async.catalog.formats import format_of, grouped
from rastermeta_async.catalog.merge import Batches, Run, merge_many, unbroken
from rastermeta_async.catalog.names import behind_links, log_path, parts_folder, sealed_temporary
from rastermeta_async.catalog.no_rasters import NoRasterWriter, are_unread, run_of
from rastermeta_async.catalog.order import keys_of
from rastermeta_async.catalog.parts import catalog_rows, part_rows, part_run
from rastermeta_async.catalog.prefetch import prefetched
from rastermeta_async.catalog.prune import Seen, check_folders, gone, tombstones
from rastermeta_async.catalog.recovery import Recovery, check_unlogged, remove_unlogged, start_over
from rastermeta_async.catalog.resort import SAMPLE_KEYS, resorted
from rastermeta_async.catalog.sink import PartSink
from rastermeta_async.catalog.workers import note_workers
from rastermeta_async.model.errors import ForeignOutputError, SettingsError
from rastermeta_async.model.machine import give_back
from rastermeta_async.model.path_set import PathSet
from rastermeta_async.model.record import SUCCESSES
from rastermeta_async.model.row_ops import (
    IDENTITY,
    PATH_AND_STATUS,
    has_inside,
    is_success,
    kept,
    parted,
    path_keys,
    was_there,
)
from rastermeta_async.model.settings import Order
from rastermeta_async.model.urls import local_name

_GIVEN_BACK_AFTER = 4
"""Groups between calls of `give_back`; a call after each takes a fourth of the total time."""

SEALED_GROUP_ROWS = 32_768
SEALED_GROUP_BYTES = 4 * 1024 * 1024
"""Limits of the first row group of the sealed catalog."""

SEALED_GROUP_GROWTH = 8 * 1024
"""Bytes by which the limit grows with each group. The writer keeps 50 KiB of each group until the
end, so the largest catalogs should have few groups."""

_TOMBSTONES_A_PART = 5000

_SAMPLE_PARTS = 64
"""Parts whose keys are sampled before rows are sorted in another order."""


@dataclass(frozen=True)
class Totals:
    """Numbers of rows in a sealed catalog."""

    rows: int
    failures: int
    """Rows whose status is not a success."""
    sidecars: int = 0
    """Paths that are no rasters, and in no catalog: files that belong to a raster."""
    others: int = 0
    """Other paths that are no rasters."""
    several: bool = False
    """Whether a path has several rows, of members or subdatasets."""


def _totals_of(sealed: Sealing) -> Totals:
    return Totals(
        sealed.rows, sealed.failures, sealed.sidecars, sealed.others, several=sealed.several
    )


def open_output(
    name: str,
    *,
    overwrite: bool = False,
    order: Order | None = None,
    gdal_config: str | None = None,
) -> Output:
    """Open the output with this name, which may be a URL; see `Output`."""
    local = local_name(name)
    url = name if local != name else ""
    return Output(local, url, overwrite=overwrite, order=order, gdal_config=gdal_config)


class Output:
    """An output file, locked for this process until `close`.

    Args:
        path: of the file.
        url: where the finished file is copied to, "" if nowhere.
        overwrite: start again from nothing.
        order: of the rows in the sealed catalog. None: the order that was asked for last, else the
            order that the catalog has; a new catalog is sorted by path.
        gdal_config: options of GDAL that further rows are read with, see
            `gdal_options.options_as_json`; None: there are no further rows.

    Raises (on construction, before anything changes):
        SettingsError: no format has the name's ending, or the format does not have this order.
        OutputLockedError: another run is writing the output.
        ForeignOutputError: this program did not make the output, another program changed it, it
            is copied to another URL, or its rows were read with other options of GDAL.
        CheckpointError: the log, or a part that the log names, is damaged.
    """

    def __init__(
        self,
        path: str,
        url: str = "",
        *,
        overwrite: bool = False,
        order: Order | None = None,
        gdal_config: str | None = None,
    ) -> None:
        path = self.path = behind_links(path)
        self.url = url
        self._format = format_of(path)
        if order and order not in self._format.orders:
            raise SettingsError(
                f"{path}: --sort {order} is for .parquet catalogs; other ones are by path"
            )
        self._parts_folder = parts_folder(path)
        if not os.path.isdir(folder_of(path)):
            raise ForeignOutputError(
                f"{path} cannot be written: there is no folder {folder_of(path)}. Make it, e.g. by "
                f"mkdir -p {shlex.quote(folder_of(path))}, or give another -o."
            )
        with explained(path, "looking at the output"):
            if os.path.lexists(self._parts_folder):
                os.close(open_folder(self._parts_folder))
            own = rights_at(path)
            log = log_path(path)  # a run that died at once leaves an empty log
            fresh = not (os.path.exists(log) and os.path.getsize(log))
            if fresh and not overwrite:
                check_unlogged(path, self._format)
        self.log = CheckpointLog(
            log, path, url, order=order, gdal_config=gdal_config, overwrite=overwrite,
            rights=own and own.ours,
        )  # fmt: skip
        try:
            logs = self.log.rights
            self._rights = own or logs
            self._hidden = self._rights.ours._replace(mode=self._rights.mode & logs.mode)
            stood = identity(path)  # before all checks, so that a later change is noticed
            if overwrite:
                start_over(self.log, self._parts_folder, stood)
            else:
                Recovery(path, url, self._format, self.log, stood, gdal_config).run()
            self._stood = stood
            state = self._state
            self._opened_at = state.last_seq
            self._had = self._format.order(path) if state.sealed else Order.PATH
            self._order = self.log.order or self._had
            self.sink = PartSink(
                self._parts_folder,
                state.last_seq,
                rights=self._hidden,
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the lock."""
        self.log.close()

    def note_workers(self, names: Sequence[str]) -> bool:
        """See `workers.note_workers`."""
        return note_workers(self._parts_folder, names, self._hidden)

    def forget(self) -> None:
        """Remove the folder of parts if there are none, and the log if nothing is there."""
        state = self._state
        if not state.parts:
            remove_unlogged(self._parts_folder, _names(state.sealed))
        if not (state.sealed or state.parts or os.path.lexists(self.path)):
            remove(self.log.path)

    def finished(
        self,
        *,
        retry_failed: bool = False,
        update: bool = False,
        failed: PathSet | None = None,
        no_rasters: PathSet | None = None,
        strict: bool = False,
    ) -> PathSet | Unchanged:
        """Return the paths that need no reading; they include those of no rasters.

        The result takes 16 bytes a path. With either option, each path that is only in parts takes
        16 bytes more.

        Args:
            retry_failed: leave failures out, and archives whose members were not read.
            update: return the files with their state, so that changed files are read again.
            failed: receives the paths of all error rows, 16 bytes each.
            no_rasters: receives the paths of no rasters, 16 bytes each. With `update` the result
                has them, too, else it does not.
            strict: leave out the paths of no rasters: all paths are to have rows.

        Raises:
            CheckpointError: a part is not what the log says.
        """
        if retry_failed or update or strict:
            rows = self._newest_rows(COLUMNS, self._state.parts, PathSet())
        else:
            rows = self._committed_rows()
        unchanged, finished = Unchanged(), PathSet()
        partly = self._partly_failed() if retry_failed else PathSet()
        for batch in rows:
            if kept(batch) is not batch:  # tombstones: a run was killed before it sealed
                self.seal()
                return self.finished(
                    retry_failed=retry_failed, update=update, failed=failed, no_rasters=no_rasters,
                    strict=strict,
                )  # fmt: skip
            rasters, others = parted(batch)
            if failed is not None:
                failed.add_new(_failed_paths(rasters))
            counting = [rasters.filter(is_success(rasters)) if retry_failed else rasters]
            if len(partly):
                paths = partly.missing(path_keys(counting[0]).to_pylist())
                counting = [_of_paths(counting[0], paths)]
            if others is not None and retry_failed:
                others = others.filter(pc.invert(are_unread(others)))
            if others is not None and not strict:
                if no_rasters is not None:
                    no_rasters.update(path_keys(others).to_pylist())
                if update or no_rasters is None:
                    counting.append(others)
            for some in counting:
                if update:
                    unchanged.update(some)
                else:
                    finished.update(path_keys(some).to_pylist())
        return unchanged if update else finished

    def _partly_failed(self) -> PathSet:
        """Return the paths of several rows of which not all are a success."""
        found = PathSet()
        for batch in self._newest_rows((), self._state.parts, PathSet()):
            if has_inside(batch):
                found.add_new(_failed_paths(batch))
        return found

    def prune(
        self,
        given: PathSet | None = None,
        *,
        even_folders: bool = False,
        dry_run: bool = False,
        timeout: float = 60.0,
    ) -> Iterator[bytes]:
        """Yield the paths that lead to no file; the next sealing drops their rows.

        Args:
            given: paths that the caller still asks for. A row of such a path stays if it already
                says that there is no file.
            even_folders: also drop rows where a whole folder is gone.
            dry_run: only yield the paths.
            timeout: seconds that the disk may take to answer.

        Raises:
            PruneError: whole folders are gone, or the disk does not answer.
            WriteError: writing failed; what was committed is safe.
        """
        given = PathSet() if given is None else given
        if not even_folders:
            check_folders(self._prunable(given), timeout)
        lost: list[bytes] = []
        for path in gone(self._prunable(given), timeout):
            lost.append(path)
            yield path
            if len(lost) == _TOMBSTONES_A_PART and not dry_run:
                self.log.append(self.sink.commit(tombstones(lost)))
                lost.clear()
        if lost and not dry_run:
            self.log.append(self.sink.commit(tombstones(lost)))

    def _prunable(self, given: PathSet) -> Iterator[Seen]:
        """Yield what is known of each path that was not read since this output was opened."""
        since, columns = PathSet(), ["error_type"]
        before = [part for part in self._state.parts if part.seq <= self._opened_at]
        own = [part for part in self._state.parts if part.seq > self._opened_at]
        for batch in part_rows(self._parts_folder, own, IDENTITY):
            since.update(path_keys(batch).to_pylist())
        several = PathSet()
        for batch in self._newest_rows(columns, before, since):
            paths = path_keys(batch).to_pylist()
            asked_for = set(given.known(paths))
            there = was_there(batch).to_pylist()
            if has_inside(batch):  # a path has several rows, of which one is enough
                seen = dict(zip(paths, there, strict=True))
                paths = several.add_new(paths)
                there = [seen[path] for path in paths]
            for path, is_there in zip(paths, there, strict=True):
                yield Seen(path, is_there, path in asked_for)

    def seal(self) -> Totals:
        """Write the catalog from the last catalog and the parts committed since.

        Does nothing if there are no new parts and the catalog already has the order. If the process
        is killed at any point, the next run finishes the sealing.

        Raises:
            WriteError: writing failed; all that was committed is safe.
            CheckpointError: a part, or the last catalog, cannot be read.
            ForeignOutputError: something else took the catalog's name since this output was
                opened. It is left alone, and all that was committed is safe.
        """
        state = self._state
        if state.sealed and not state.parts and self._order is self._had:
            sealed = state.sealed
            return _totals_of(sealed)
        give_back()  # memory that reading has freed
        unsorted = self._order is Order.NONE
        return self._seal(self._as_they_come(state) if unsorted else self._merged(state))

    def seal_rows(self, rows_in: Callable[[str, Order], Batches]) -> Totals:
        """Write the catalog from other rows than those that were committed; see `seal`.

        Args:
            rows_in: returns the rows in an order, those of a path of one reading; takes a folder
                for scratch files. Rows of no rasters may be among them.
        """
        return self._seal(rows_in(self._parts_folder, self._order))

    def _seal(self, rows: Batches) -> Totals:
        last_seq = self._state.last_seq
        with explained(self.path, "writing the catalog"):
            ensure_folder(self._parts_folder, self._hidden)
            temporary = sealed_temporary(self._parts_folder)
            with (
                created(temporary, self._rights) as file,
                NoRasterWriter(self._parts_folder, self._hidden) as others,
            ):
                content = Content(file.fileno())
                try:
                    self._write(rows, content, others)
                    others.finish()
                finally:
                    content.finish()
            others.publish()
            counts = others.counts
            sealing = Sealing(
                last_seq, others.rows, counts.failures, content.size, content.digest,
                sidecars=counts.sidecars, others=counts.others, no_rasters_name=others.name,
                no_rasters_size=others.size, no_rasters_digest=others.digest,
                several=others.several,
            )  # fmt: skip
            self.log.append(sealing)
            self._stood = publish(temporary, self.path, self._stood)
            self._finish_sealing(sealing)
            self._had = self._order
        return _totals_of(sealing)

    def _write(self, rows: Batches, content: Content, others: NoRasterWriter) -> None:
        """Write the catalog, and the rows of no rasters elsewhere."""
        file = io.BufferedWriter(content, WRITE_BYTES)
        # Closing the rows removes the scratch files of the merge, also after an error.
        with closing(rows), closing(prefetched(self._groups(others.parted(rows)))) as ready:
            self._format.write(file, ready, self._order, self.log.gdal_config)
            file.flush()

    def _merged(self, state: History) -> Batches:
        """Yield the newest rows of each path in the catalog's order."""
        with closing(merge_many(self._runs(state), self._parts_folder)) as merged:
            rows = map(kept, merged)
            yield from rows if self._order is Order.PATH else self._sorted(rows, state, self._order)

    def _as_they_come(self, state: History) -> Batches:
        """Yield the newest rows of each path: first from the last catalog, then from each part."""
        sizes = [_rows_of(state.sealed), *(part.rows for part in state.parts)]
        starts = list(itertools.accumulate(sizes, initial=0))
        dropped = replaced(self._committed_rows(), starts.pop(), self._parts_folder, starts)
        catalog = self._sealed_rows(state)
        start = 0
        for batch in itertools.chain(catalog, part_rows(self._parts_folder, state.parts)):
            first, last = np.searchsorted(dropped, (start, start + batch.num_rows))
            stays = np.ones(batch.num_rows, bool)
            stays[dropped[first:last] - start] = False
            start += batch.num_rows
            yield batch if first == last else batch.filter(pa.array(stays))

    def _sorted(self, rows: Iterable[pa.RecordBatch], state: History, order: Order) -> Batches:
        """Yield the rows sorted in `order`."""
        keys, count = keys_of(order), _rows_at_most(state)
        columns = [*IDENTITY, "bbox"]
        some_parts = state.parts[:: len(state.parts) // _SAMPLE_PARTS + 1]
        of_parts = part_rows(self._parts_folder, some_parts, columns)
        sample: list[bytes] = []
        start, step = 0, _rows_at_most(replace(state, parts=some_parts)) // SAMPLE_KEYS + 1
        for batch in itertools.chain(self._sealed_rows(state, columns), of_parts):
            sample += keys(batch.slice(start))[::step].to_pylist()
            start = (start - batch.num_rows) % step
        return resorted(rows, sample, count, self._parts_folder, keys)

    def _groups(self, rows: Iterable[pa.RecordBatch]) -> Generator[pa.Table, None, None]:
        """Yield the rows, cut into the row groups of a catalog."""
        groups = grouped(rows, SEALED_GROUP_ROWS, SEALED_GROUP_BYTES, SEALED_GROUP_GROWTH)
        for number, group in enumerate(groups, 1):
            yield group
            if number % _GIVEN_BACK_AFTER == 0:
                give_back()

    @property
    def uploaded(self) -> str | None:
        """Entity tag of the object at the URL that an upload may replace; None: none is known."""
        known = self._state.uploaded
        return known.etag if known else None

    def note_uploaded(self, etag: str) -> None:
        """Record in the log the object at the URL that uploads may replace from now on.

        Raises:
            WriteError: see `CheckpointLog.append`.
        """
        self.log.append(Uploaded(etag))

    @property
    def sealed(self) -> Sealed | None:
        """The log's entry of the catalog that was sealed last; None: there is none."""
        return self._state.sealed

    @property
    def _state(self) -> History:
        return history(self.log.entries)

    def _committed_rows(self) -> Iterator[pa.RecordBatch]:
        """Yield path and status of the rows so far."""
        state = self._state
        yield from self._sealed_rows(state, PATH_AND_STATUS)
        yield from part_rows(self._parts_folder, state.parts, PATH_AND_STATUS)

    def _newest_rows(
        self, columns: Sequence[str], parts: Sequence[Part], since: PathSet
    ) -> Iterator[pa.RecordBatch]:
        """Yield the newest rows of each path in the catalog and `parts`, without paths in `since`.

        A row has the columns that identify it, and `columns`. Paths of parts are added to `since`.
        """
        names = [*IDENTITY, *columns]
        for part in reversed(parts):
            for batch in unbroken(part_rows(self._parts_folder, [part], names)):
                yield _of_paths(batch, since.add_new(path_keys(batch).to_pylist()))
        yield from self._sealed_rows_but(since, names)

    def _sealed_rows_but(self, paths: PathSet, names: list[str]) -> Iterator[pa.RecordBatch]:
        """Yield the catalog's rows, except those of some paths."""
        for batch in self._sealed_rows(self._state, names):
            yield _of_paths(batch, paths.missing(path_keys(batch).to_pylist()))

    def _sealed_rows(
        self, state: History, names: list[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the catalog's rows, then those of no rasters."""
        if state.sealed:
            yield from self._catalog_rows(state.sealed, names)
            if no_rasters := state.sealed.no_rasters:
                yield from part_rows(self._parts_folder, [no_rasters], names)

    def _catalog_rows(self, sealed: Sealed, names: list[str] | None = None) -> Batches:
        return catalog_rows(self._format, self.path, sealed.digest, sealed.rows, names)

    def _runs(self, state: History) -> list[Run]:
        """Return the last catalog and the parts as runs sorted by path."""
        runs = [part_run(self._parts_folder, part) for part in state.parts]
        if state.sealed and (no_rasters := state.sealed.no_rasters):
            folder, in_order = self._parts_folder, self._had is not Order.NONE
            runs.insert(0, run_of(folder, no_rasters, folder, in_order=in_order))
        if state.sealed:
            by_path = partial(self._sealed_by_path, state.sealed)
            runs.insert(0, Run(b"", None, state.sealed.rows, by_path))
        return runs

    def _sealed_by_path(self, sealed: Sealed) -> Batches:
        rows = self._catalog_rows(sealed)
        yield from rows if self._had is Order.PATH else self._sorted(rows, self._state, Order.PATH)

    def _finish_sealing(self, sealing: Sealing) -> None:
        self.log.append(Sealed(**vars(sealing)))
        named = {entry.name for entry in self.log.entries if isinstance(entry, Part)}
        remove_unlogged(self._parts_folder, _names(sealing), named)
        sync_folder(folder_of(self._parts_folder))


def _rows_at_most(state: History) -> int:
    """Return the number of rows, including rows that newer ones replace."""
    return sum(part.rows for part in state.parts) + _rows_of(state.sealed)


def _rows_of(sealed: Sealing | None) -> int:
    """Return the number of rows in a catalog and in its file of no rasters."""
    return sealed.rows + sealed.sidecars + sealed.others if sealed else 0


def _names(sealed: Sealing | None) -> list[str]:
    """Return the names in the parts folder that a sealed catalog needs."""
    return [sealed.no_rasters_name] if sealed and sealed.no_rasters_name else []


def _failed_paths(batch: pa.RecordBatch) -> list[bytes]:
    """Return the paths of the rows that are not a success; mostly there are few or none."""
    bad = pc.invert(pc.is_in(batch.column("status"), pa.array(sorted(SUCCESSES))))
    paths: list[bytes] = path_keys(batch.filter(bad)).to_pylist() if pc.any(bad).as_py() else []
    return paths


def _of_paths(batch: pa.RecordBatch, paths: Sequence[bytes]) -> pa.RecordBatch:
    """Return the rows of a batch that have one of `paths`."""
    if len(paths) == batch.num_rows:
        return batch
    wanted = set(paths)
    return batch.filter(pa.array([path in wanted for path in path_keys(batch).to_pylist()]))
