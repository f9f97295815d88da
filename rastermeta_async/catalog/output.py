"""One output file and all that stands next to it while it is being made.

``catalog.parquet.parts/`` holds the batches committed so far, ``catalog.parquet.checkpoint``
is the log that says which of them count. Opening an output recovers it from whatever an
earlier run left behind; `Output.seal` turns the parts into the catalog.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from rastermeta_async.catalog.checkpoint import (
    CheckpointLog,
    Entry,
    History,
    Part,
    Sealed,
    Sealing,
    Uploaded,
    history,
)
from rastermeta_async.catalog.content import Content, Counted, ahead, digest_of
from rastermeta_async.catalog.durable import (
    created,
    ensure_folder,
    explained,
    folder_of,
    publish,
    sync_folder,
)
from rastermeta_async.catalog.formats import ParquetFormat, format_of, grouped, parquet_batches
from rastermeta_async.catalog.merge import Batches, Run, merge_many, resorted
from rastermeta_async.catalog.order import keys_of
from rastermeta_async.catalog.prune import check_folders, gone, tombstones
from rastermeta_async.catalog.sink import PartSink, part_number
from rastermeta_async.catalog.stamps import COLUMNS, Unchanged
from rastermeta_async.config import Order
from rastermeta_async.errors import CheckpointError, ForeignOutputError, SettingsError
from rastermeta_async.memory import give_back
from rastermeta_async.pathset import PathSet
from rastermeta_async.rows import is_success, kept, path_keys, was_there
from rastermeta_async.urls import local_name

SEALED_GROUP_ROWS = 32_768
SEALED_GROUP_BYTES = 4 * 1024 * 1024
"""The first row group of the sealed catalog, at most."""

SEALED_GROUP_GROWTH = 8 * 1024
"""Bytes that each group may have more than the one before: the writer keeps 50 KiB of each to the
end, so the largest catalogs are to have few."""

_TOMBSTONES_A_PART = 5000


_PATH = ["filepath", "filepath_bytes"]
_IDENTITY = [*_PATH, "status"]


@dataclass(frozen=True)
class Totals:
    """What a sealed catalog holds."""

    rows: int
    failures: int
    """Rows that are no success."""


def behind_links(output: str) -> str:
    """Return an output's own path, where it is a link that of what it leads to."""
    return os.path.realpath(output) if os.path.islink(output) else output


def parts_folder(output: str) -> str:
    """Return the folder that holds an output's parts."""
    return behind_links(output) + ".parts"


def sealed_temporary(output: str) -> str:
    """Return the file that a catalog is written to before it takes its name."""
    return os.path.join(parts_folder(output), "sealed.tmp")


def log_path(output: str) -> str:
    """Return the path of an output's checkpoint log."""
    return behind_links(output) + ".checkpoint"


def open_output(name: str, *, overwrite: bool = False) -> Output:
    """Return the output of a name, which may be a URL; see `Output`."""
    local = local_name(name)
    return Output(local, name if local != name else "", overwrite=overwrite)


class Output:
    """An output file, locked for this process until `close`.

    Args:
        path: of the file.
        url: where it is copied to when it is finished, "" if nowhere.
        overwrite: start again from nothing.

    Raises (on construction, having changed nothing):
        SettingsError: the name's ending stands for no format.
        OutputLockedError: another run is writing it.
        ForeignOutputError: it was not made by this program, was changed since, or is copied to
            another URL.
        CheckpointError: its log, or a part that the log names, is damaged.
    """

    def __init__(self, path: str, url: str = "", *, overwrite: bool = False) -> None:
        path = self.path = behind_links(path)
        self.url = url
        self._format = format_of(path)
        self._parts_folder = parts_folder(path)
        if os.path.isdir(path):
            raise ForeignOutputError(f"{path} is a folder: give another -o")
        if not os.path.isdir(folder_of(path)):
            raise ForeignOutputError(
                f"{path} cannot be written: there is no folder {folder_of(path)}. Make it, or give "
                "another -o."
            )
        with explained(path, "looking at the output"):
            log = log_path(path)  # an empty one was made by a run that died at once
            fresh = not (os.path.exists(log) and os.path.getsize(log))
            if fresh and not overwrite:
                self._check_unlogged()
        self.log = CheckpointLog(log_path(path), path, url, overwrite=overwrite)
        try:
            self._recover(overwrite)
            last_seq = history(self.log.entries).last_seq
            self.sink = PartSink(self._parts_folder, last_seq)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free the lock."""
        self.log.close()

    def finished(self, *, retry_failed: bool = False, update: bool = False) -> PathSet | Unchanged:
        """Return the paths that need no reading; without failures if those are to be redone.

        With `update` these are only the files that are as they were. Costs 16 bytes a path; either
        option, as much again for each path that is in no catalog yet.

        Raises:
            CheckpointError: a part is not what the log says.
        """
        rows = self._newest_rows(COLUMNS) if retry_failed or update else self._committed_rows()
        unchanged, finished = Unchanged(), PathSet()
        for batch in rows:
            if kept(batch) is not batch:  # a run was killed before it dropped them
                self.seal()
                return self.finished(retry_failed=retry_failed, update=update)
            counting = batch.filter(is_success(batch)) if retry_failed else batch
            if update:
                unchanged.update(counting)
            else:
                finished.update(path_keys(counting).to_pylist())
        return unchanged if update else finished

    def prune(
        self, *, even_folders: bool = False, dry_run: bool = False, patience: float = 60.0
    ) -> Iterator[bytes]:
        """Yield the paths whose file is gone, and drop their rows with the next sealing.

        Args:
            even_folders: also where a whole folder is gone.
            dry_run: only yield them.
            patience: seconds that the disk may take to tell.

        Raises:
            PruneError: whole folders are gone, or the disk does not tell.
            WriteError: the disk refused; what was committed is safe.
        """
        if not even_folders:
            check_folders(self._prunable(), patience)
        lost: list[bytes] = []
        for path in gone(self._prunable(), patience):
            lost.append(path)
            yield path
            if len(lost) == _TOMBSTONES_A_PART and not dry_run:
                self.log.append(self.sink.commit(tombstones(lost)))
                lost.clear()
        if lost and not dry_run:
            self.log.append(self.sink.commit(tombstones(lost)))

    def _prunable(self) -> Iterator[bytes]:
        """Yield the catalog's paths of files that were there, but not those read since."""
        state = self._state
        since = PathSet()
        for batch in self._part_rows(state.parts, _IDENTITY):
            since.update(path_keys(batch).to_pylist())
        for batch in self._sealed_rows(state, [*_IDENTITY, "error_type"]):
            yield from since.missing(path_keys(batch.filter(was_there(batch))).to_pylist())

    def seal(self, order: Order | None = None) -> Totals:
        """Make the catalog out of the last one and the parts since.

        Does nothing where there are no new parts and the order is the one that it has. Killed at
        any point, the next run finishes the job.

        Args:
            order: of the rows; None: as they are, by path if it is new.

        Raises:
            SettingsError: the format has no such order.
            WriteError: the disk refused; all that was committed is safe.
        """
        self.check_order(order)
        state = self._state
        had = self._format.order(self.path) if state.sealed else Order.PATH
        order = order or had
        if state.sealed and not state.parts and order is had:
            return Totals(state.sealed.rows, state.sealed.failures)
        give_back()  # what reading has left behind
        with explained(self.path, "writing the catalog"):
            ensure_folder(self._parts_folder)
            temporary = sealed_temporary(self.path)
            with created(temporary) as file:
                content = Content(file.fileno())
                merged = merge_many(self._runs(state, had), self._parts_folder)
                rows = Counted(map(kept, merged))
                # Closed whatever happens, as what merging has on the disk goes with that.
                with (
                    closing(merged),
                    closing(self._ordered(rows, Order.PATH, order)) as ordered,
                    closing(ahead(self._groups(ordered))) as ready,
                ):
                    try:
                        self._format.write(content, ready, order)
                        content.complete()
                    finally:
                        content.finish()
            sealing = Sealing(
                state.last_seq, rows.rows, rows.failures, content.size, content.digest
            )
            self.log.append(sealing)
            publish(temporary, self.path)
            self._finish_sealing(sealing)
        return Totals(rows.rows, rows.failures)

    def check_order(self, order: Order | None) -> None:
        """Raise SettingsError if the output's format has no such order."""
        if order and order not in self._format.orders:
            raise SettingsError(f"{self.path}: only a .parquet catalog can be sorted by {order}")

    def _ordered(self, rows: Iterable[pa.RecordBatch], had: Order, order: Order) -> Batches:
        """Yield rows that are in one order in another."""
        yield from rows if order is had else resorted(rows, self._parts_folder, keys_of(order))

    def _groups(self, rows: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
        """Return the rows in the row groups of a catalog."""
        return grouped(rows, SEALED_GROUP_ROWS, SEALED_GROUP_BYTES, SEALED_GROUP_GROWTH)

    @property
    def uploaded(self) -> str | None:
        """Entity tag of the object at the URL that may be replaced; None: none is known."""
        known = self._state.uploaded
        return known.etag if known else None

    def note_uploaded(self, etag: str) -> None:
        """Remember the object at the URL that may be replaced from now on.

        Raises:
            WriteError: see `CheckpointLog.append`.
        """
        self.log.append(Uploaded(etag))

    @property
    def sealed(self) -> Sealed | None:
        """The catalog as it was finished last."""
        return self._state.sealed

    @property
    def _state(self) -> History:
        return history(self.log.entries)

    def _check_unlogged(self) -> None:
        if os.path.exists(self.path):
            self._format.check(self.path)
        if os.path.isdir(self._parts_folder) and os.listdir(self._parts_folder):
            raise ForeignOutputError(
                f"{self._parts_folder} holds parts, but their log {log_path(self.path)} is "
                "missing. Put the log back, or give --overwrite to start again from nothing."
            )

    def _recover(self, overwrite: bool) -> None:
        """Bring the log, the parts and the output into one state."""
        if overwrite:
            self._start_over()
            return
        state = self._state
        self._check_log_names_parts(state)
        if state.sealing and self._holds(state.sealing):
            state = history([*self.log.entries, Sealed(**vars(state.sealing))])
        replaces = self.log.replaces and not state.sealed
        entries: list[Entry] = list(state.parts)
        if state.sealed and not os.path.exists(self.path):
            if state.parts:
                raise ForeignOutputError(
                    f"{self.path} is gone, but parts that add to it are there. Put it back, or "
                    "give --overwrite to start again from nothing."
                )
            # The catalog was deleted: nothing of it is left to protect.
            state = History(uploaded=state.uploaded)
        if state.sealed or state.parts:
            self._check_url()
        if state.sealed:
            self._check_unchanged(state.sealed)
            entries.insert(0, state.sealed)
        elif os.path.exists(self.path) and not replaces:
            self._format.check(self.path)
            entries.insert(0, self._adopt())
        self._check_parts(state.parts)
        if state.uploaded and self.log.url == self.url:
            entries.append(state.uploaded)
        self.log.rewrite(entries, replaces=replaces)
        self._remove_unlogged({part.name for part in state.parts})

    def _check_log_names_parts(self, state: History) -> None:
        """Refuse a log that lacks its end: a crash leaves one part at most that it does not name.

        A log that was begun anew, as with `overwrite`, may stand next to parts of the old one.
        """
        if self.log.replaces or not os.path.isdir(self._parts_folder):
            return
        numbers = map(part_number, os.listdir(self._parts_folder))
        unnamed = sum(number > state.last_seq for number in numbers if number is not None)
        if unnamed > 1:
            raise CheckpointError(
                f"{self.log.path} does not name {unnamed} parts that are in {self._parts_folder}: "
                "its end is missing. Nothing was changed: restore the file from a backup, or give "
                "--overwrite to start again from nothing."
            )

    def _start_over(self) -> None:
        # The log first: parts that no log names are nothing, a log of parts that are gone is
        # damage. The old catalog stays readable until the new one is sealed.
        self.log.rewrite([], replaces=True)
        self._remove_unlogged(set())

    def _check_url(self) -> None:
        """Refuse to mix the rows of two catalogs whose URLs end in one name."""
        if self.log.url in (None, self.url):
            return
        before, now = (url or f"the local {self.path}" for url in (self.log.url, self.url))
        raise ForeignOutputError(
            f"{log_path(self.path)} belongs to the output {before}, not to {now}: their rows "
            "would be mixed. Run it in another folder, give -o another name, or give --overwrite "
            "to start again from nothing."
        )

    def _holds(self, sealing: Sealing) -> bool:
        """Tell whether the output's content is the one named."""
        try:
            if os.path.getsize(self.path) != sealing.size:
                return False
            with open(self.path, "rb") as file:
                return digest_of(file) == sealing.digest
        except FileNotFoundError:
            return False

    def _check_unchanged(self, sealed: Sealed) -> None:
        size = os.path.getsize(self.path)
        if size != sealed.size:
            raise ForeignOutputError(
                f"{self.path} has {size} bytes, but {log_path(self.path)} says {sealed.size}: it "
                "was changed by another program. Put it back, give --overwrite to start again "
                "from nothing, or give another -o."
            )
        if isinstance(self._format, ParquetFormat):
            self._format.check(self.path)

    def _adopt(self) -> Sealed:
        """Return the entry of a catalog that this program made but whose log is gone."""
        rows = Counted(self._format.read(self.path))
        for _ in rows:
            pass
        with open(self.path, "rb") as file:
            digest = digest_of(file)
        size = os.path.getsize(self.path)
        return Sealed(0, rows.rows, rows.failures, size, digest)

    def _check_parts(self, parts: tuple[Part, ...]) -> None:
        for part in parts:
            path = os.path.join(self._parts_folder, part.name)
            size = os.path.getsize(path) if os.path.exists(path) else None
            if size != part.size:
                found = "is missing" if size is None else f"has {size} bytes"
                what = f"{found}, but the log says {part.size} bytes"
                raise CheckpointError(_damaged(path, what))

    def _remove_unlogged(self, named: set[str]) -> None:
        if not os.path.isdir(self._parts_folder):
            return
        with explained(self._parts_folder, "removing leftovers"):
            others = False
            for name in os.listdir(self._parts_folder):
                others = others or not _is_own(name)
                if name not in named and _is_own(name):
                    _remove_all(os.path.join(self._parts_folder, name))
            if not named and not others:
                os.rmdir(self._parts_folder)

    def _committed_rows(self) -> Iterator[pa.RecordBatch]:
        """Yield what identifies the rows so far."""
        state = self._state
        yield from self._sealed_rows(state, _IDENTITY)
        yield from self._part_rows(state.parts, _IDENTITY)

    def _newest_rows(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield of each path the newest row so far: what identifies it, and some columns more."""
        state, names = self._state, [*_IDENTITY, *columns]
        since = PathSet()
        for batch in self._part_rows(reversed(state.parts), names):
            yield _rows_of(batch, since.add_new(path_keys(batch).to_pylist()))
        for batch in self._sealed_rows(state, names):
            yield _rows_of(batch, since.missing(path_keys(batch).to_pylist()))

    def _sealed_rows(self, state: History, names: list[str]) -> Iterator[pa.RecordBatch]:
        if state.sealed:
            yield from _whole(self.path, self._format.read(self.path, names))

    def _part_rows(self, parts: Iterable[Part], names: list[str]) -> Iterator[pa.RecordBatch]:
        for part in parts:
            path = os.path.join(self._parts_folder, part.name)
            with open(path, "rb") as file:
                content = file.read()
            if hashlib.blake2b(content, digest_size=16).hexdigest() != part.digest:
                raise CheckpointError(_damaged(path, "its content is not what the log says"))
            with pq.ParquetFile(pa.BufferReader(content)) as table:
                yield from parquet_batches(table, names, rows=8192)

    def _runs(self, state: History, order: Order) -> list[Run]:
        """Return the last catalog, which is in the order given, and the parts, all by path."""
        runs = [_part_run(self._parts_folder, part) for part in state.parts]
        if state.sealed:
            sealed = partial(self._sealed_by_path, order)
            runs.insert(0, Run(b"", None, state.sealed.rows, sealed))
        return runs

    def _sealed_by_path(self, order: Order) -> Batches:
        rows = _whole(self.path, self._format.read(self.path))
        yield from self._ordered(rows, order, Order.PATH)

    def _finish_sealing(self, sealing: Sealing) -> None:
        self.log.append(Sealed(**vars(sealing)))
        self._remove_unlogged(set())
        sync_folder(folder_of(self._parts_folder))


def _rows_of(batch: pa.RecordBatch, paths: Sequence[bytes]) -> pa.RecordBatch:
    """Return the rows of some of the paths of a batch, no path of which is there twice."""
    if len(paths) == batch.num_rows:
        return batch
    wanted = set(paths)
    return batch.filter(pa.array([path in wanted for path in path_keys(batch).to_pylist()]))


def _is_own(name: str) -> bool:
    """Tell whether this program gives such a name to something in a parts folder."""
    return name.endswith(".tmp") or part_number(name) is not None


def _remove_all(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _part_run(folder: str, part: Part) -> Run:
    """Return the rows of a part.

    Raises:
        CheckpointError: it cannot be read.
    """
    path = os.path.join(folder, part.name)
    ends = [path_keys(rows) for rows in _whole(path, _outer_rows(path))]
    first, last = ends[0][0].as_py(), ends[-1][-1].as_py()
    return Run(first, last, part.rows, lambda: _whole(path, _read_part(path)))


def _outer_rows(path: str) -> Iterator[pa.Table]:
    """Yield the first and the last group of a part's rows, as far as their paths go."""
    with pq.ParquetFile(path) as file:
        for index in (0, file.num_row_groups - 1):
            yield file.read_row_group(index, _PATH, use_threads=False)


def _read_part(path: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a part, a group at a time: nothing else of the file is held meanwhile."""
    with pq.ParquetFile(path) as file:
        for index in range(file.num_row_groups):
            yield from file.read_row_group(index, use_threads=False).to_batches()


def _whole(path: str, rows: Iterable[pa.RecordBatch]) -> Batches:
    """Yield rows of a file that this program wrote.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        yield from rows
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(_damaged(path, f"it cannot be read: {reason}")) from error


def _damaged(path: str, what: str) -> str:
    return (
        f"{path}: {what}. Nothing was changed: restore the file from a backup, or give "
        "--overwrite to start again from nothing."
    )
