from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import io
import json
import os
import shutil
import socket
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from catalogs import commit
from ends import Killed, Machine, copies
from factory import failed, path_bytes, record, records_of, table

from rastermeta_async.catalog import durable, formats
from rastermeta_async.catalog import merge as merging
from rastermeta_async.catalog.changes import Unchanged, stamp_of
from rastermeta_async.catalog.checkpoint import LogHeader, Part, Sealed, read_entries
from rastermeta_async.catalog.digest import Content
from rastermeta_async.catalog.formats import FORMATS, format_of
from rastermeta_async.catalog.names import log_path, parts_folder
from rastermeta_async.catalog.output import Output, Totals
from rastermeta_async.cli.status import status_of
from rastermeta_async.model.errors import (
    CheckpointError,
    ForeignOutputError,
    OutputLockedError,
    SettingsError,
    WriteError,
)
from rastermeta_async.model.path_set import PathSet
from rastermeta_async.model.record import SCHEMA, SCHEMA_VERSION, VERSION_KEY, Record
from rastermeta_async.model.settings import Order

A, B, C, D, E = (record(b"/%s.tif" % name) for name in (b"a", b"b", b"c\xff", b"d", b"e"))
BAD = failed(b"/bad.tif")


pytestmark = pytest.mark.usefixtures("nothing_stays_open")


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave syncing out: what it is for is tested with `Machine`."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.setattr(durable, "_sync_data", lambda fd: None)


@pytest.fixture(params=["catalog.parquet", "catalog.ndjson", "catalog.json"])
def any_path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / request.param)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "catalog.parquet")


def stopped(path: str, *batches: Sequence[Record], overwrite: bool = False) -> list[Part]:
    """Commit batches as a run that is stopped before sealing."""
    output = Output(path, overwrite=overwrite)
    try:
        return commit(output, *batches)
    finally:
        output.close()


def completed(path: str, *batches: Sequence[Record], overwrite: bool = False) -> Totals:
    """Commit those of the rows that are not finished yet and seal, as a whole run does."""
    output = Output(path, overwrite=overwrite)
    try:
        finished = output.finished()
        assert isinstance(finished, PathSet)
        for rows in batches:
            todo = finished.missing([path_bytes(row) for row in rows])
            if todo:
                commit(output, [row for row in rows if path_bytes(row) in todo])
        return output.seal()
    finally:
        output.close()


def catalog(path: str) -> list[Record]:
    return records_of(format_of(path).read(io.FileIO(path)))


def tree(path: str) -> dict[str, bytes]:
    """Return every file next to an output with its content."""
    top = Path(path).parent
    return {str(at.relative_to(top)): at.read_bytes() for at in top.rglob("*") if at.is_file()}


def refused(kind: type[Exception], path: str, **options: Any) -> str:
    """Return the message with which opening is refused, which must change nothing."""
    before, folders = tree(path), set(os.listdir(os.path.dirname(path)))
    with pytest.raises(kind) as caught:
        Output(path, **options)
    assert tree(path) == before
    assert set(os.listdir(os.path.dirname(path))) == folders
    if os.path.isfile(log_path(path)) and not os.path.islink(log_path(path)):
        assert not durable.is_locked(log_path(path))
    return str(caught.value)


def unfinished(path: str, *rows: Record, retry_failed: bool = False) -> list[bytes]:
    output = Output(path)
    try:
        wanted = [path_bytes(row) for row in rows]
        finished = output.finished(retry_failed=retry_failed)
        assert isinstance(finished, PathSet)
        return finished.missing(wanted)
    finally:
        output.close()


# Outputs that are copied to a URL

ONE, TWO = "s3://one/catalog.parquet", "s3://two/catalog.parquet"


@pytest.mark.parametrize("ended", ["stopped", "sealed"])
@pytest.mark.parametrize(("before", "now"), [(ONE, TWO), (ONE, ""), ("", ONE)])
def test_outputs_of_one_name_are_not_mixed(path: str, before: str, now: str, ended: str) -> None:
    output = Output(path, before)
    commit(output, [A])
    if ended == "sealed":
        output.seal()
    output.close()
    message = refused(ForeignOutputError, path, url=now)
    shown, other = (url or f"the local {path}" for url in (before, now))
    assert f"belongs to the output {shown}, not to {other}: their rows would be mixed" in message
    assert "another folder, give -o another name, or give --overwrite" in message
    Output(path, before).close()
    Output(path, now, overwrite=True).close()
    Output(path, now).close()


def test_a_run_that_committed_nothing_binds_no_other(path: str) -> None:
    Output(path, ONE).close()
    output = Output(path, TWO)
    assert output.log.url == TWO
    output.close()


def test_a_log_older_than_uploads_is_gone_on_with(path: str) -> None:
    stopped(path, [A])
    log = Path(log_path(path))
    header, _, rest = log.read_bytes().partition(b"\n")
    fields = json.loads(header[9:])
    assert fields.pop("url") == ""
    body = json.dumps(fields).encode()
    log.write_bytes(b"%08x %s\n" % (zlib.crc32(body), body) + rest)
    output = Output(path, ONE)
    assert (output.log.url, len(output.finished())) == (ONE, 1)
    output.close()


def test_what_may_be_replaced_at_the_url_outlives_the_catalog_but_not_the_url(path: str) -> None:
    output = Output(path, ONE)
    commit(output, [A])
    output.seal()
    output.note_uploaded("first")
    output.note_uploaded("second")
    output.close()
    os.unlink(path)
    for url, known in ((ONE, "second"), (ONE, "second"), (TWO, None), (ONE, None)):
        output = Output(path, url)
        assert output.uploaded == known
        output.close()


# The life of an output


def test_parts_become_a_catalog_in_path_order(any_path: str) -> None:
    output = Output(any_path)
    commit(output, [C, A], [BAD, B])
    assert not os.path.exists(any_path)
    assert output.seal() == Totals(4, 1)
    output.close()
    assert catalog(any_path) == [A, B, BAD, C]
    name = os.path.basename(any_path)
    assert sorted(os.listdir(os.path.dirname(any_path))) == [name, name + ".checkpoint"]


def test_an_empty_run_makes_an_empty_catalog(any_path: str) -> None:
    assert completed(any_path) == Totals(0, 0)
    assert catalog(any_path) == []
    assert completed(any_path, [A]) == Totals(1, 0)
    assert catalog(any_path) == [A]


def test_what_was_committed_is_finished_when_opened_again(any_path: str) -> None:
    stopped(any_path, [C, A], [B])
    assert unfinished(any_path, A, B, C, D) == [b"/d.tif"]
    completed(any_path)
    assert unfinished(any_path, A, B, C, D) == [b"/d.tif"]
    stopped(any_path, [D])
    assert unfinished(any_path, A, B, C, D, E) == [b"/e.tif"]


def test_the_output_is_the_same_however_it_was_cut_into_parts(
    tmp_path: Path, any_path: str
) -> None:
    rows = [record(b"/%03d\xff.tif" % at) for at in range(50)]
    completed(any_path, rows)
    other = str(tmp_path / ("other-" + os.path.basename(any_path)))
    stopped(other, rows[40:], rows[10:20])
    completed(other, rows[:10], rows[20:45])
    assert tree(any_path)[os.path.basename(other)] == Path(any_path).read_bytes()


def test_sealing_again_without_new_parts_leaves_the_file_alone(any_path: str) -> None:
    first = completed(any_path, [A, BAD])
    inode, before = os.stat(any_path).st_ino, tree(any_path)[os.path.basename(any_path)]
    output = Output(any_path)
    assert output.seal() == output.seal() == first == Totals(2, 1)
    output.close()
    assert os.stat(any_path).st_ino == inode
    assert Path(any_path).read_bytes() == before
    assert not os.path.exists(parts_folder(any_path))


def test_new_parts_are_merged_and_the_newest_row_wins(any_path: str) -> None:
    completed(any_path, [A, BAD, C])
    mended = record(b"/bad.tif")
    stopped(any_path, [mended, B], [B._replace(width=77)])
    assert catalog(any_path) == [A, BAD, C], "the catalog changes only when it is sealed"
    assert completed(any_path) == Totals(4, 0)
    assert catalog(any_path) == [A, B._replace(width=77), mended, C]


def test_sealing_twice_in_one_run(any_path: str) -> None:
    output = Output(any_path)
    commit(output, [B])
    output.seal()
    commit(output, [A])
    assert output.seal() == Totals(2, 0)
    output.close()
    assert catalog(any_path) == [A, B]


def test_part_numbers_are_never_used_again(path: str) -> None:
    assert [part.seq for part in stopped(path, [A], [B])] == [1, 2]
    completed(path)
    assert [part.seq for part in stopped(path, [C])] == [3]


def test_retrying_takes_failures_out_of_what_is_finished(any_path: str) -> None:
    stopped(any_path, [A, BAD])
    assert unfinished(any_path, A, BAD, retry_failed=True) == [b"/bad.tif"]
    assert unfinished(any_path, A, BAD) == []
    completed(any_path)
    assert unfinished(any_path, A, BAD, retry_failed=True) == [b"/bad.tif"]
    stopped(any_path, [record(b"/bad.tif")])
    assert unfinished(any_path, A, BAD, retry_failed=True) == []


@pytest.mark.parametrize("ended", ["stopped", "sealed"])
def test_only_the_newest_row_of_a_path_tells_whether_it_is_read_again(
    path: str, ended: str
) -> None:
    stopped(path, [A, BAD])
    if ended == "sealed":
        completed(path)
    stopped(path, [failed(b"/a.tif"), record(b"/bad.tif")])
    assert unfinished(path, A, BAD, retry_failed=True) == [b"/a.tif"]
    assert not os.path.exists(path) or catalog(path) == [A, BAD], "it is not sealed before its time"


def test_an_update_looks_at_the_newest_row_of_a_path(path: str, tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    file.write_bytes(b"x")
    status = file.stat()
    name = bytes(file)
    time = dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(
        microseconds=status.st_mtime_ns // 1000
    )
    now = record(name, file_size=1, mtime=time)
    stopped(path, [now], [record(name, file_size=2, mtime=time)])
    for changed, rows in (([name], ()), ([], [now])):
        stopped(path, *[rows] * bool(rows))
        output = Output(path)
        finished = output.finished(update=True)
        assert isinstance(finished, Unchanged)
        assert finished.changed([name], [stamp_of(name)]) == changed
        output.close()
    assert not os.path.exists(path)


def test_a_row_without_georeference_is_no_failure(path: str) -> None:
    stopped(path, [A._replace(status="no_georef")])
    assert unfinished(path, A, retry_failed=True) == []


def test_overwriting_keeps_the_old_catalog_until_the_new_one_is_sealed(any_path: str) -> None:
    completed(any_path, [A, B])
    old = Path(any_path).read_bytes()
    stopped(any_path, [C], overwrite=True)
    assert Path(any_path).read_bytes() == old
    assert unfinished(any_path, A, B, C) == [b"/a.tif", b"/b.tif"], "the old rows do not count"
    assert Path(any_path).read_bytes() == old
    completed(any_path, [D])
    assert catalog(any_path) == [C, D]
    completed(any_path, [A])
    assert catalog(any_path) == [A, C, D], "from then on it is a catalog like any other"


def test_overwriting_forgets_parts_and_a_damaged_log(path: str) -> None:
    stopped(path, [A], [B])
    Path(log_path(path)).write_bytes(b"damaged\n" + Path(log_path(path)).read_bytes())
    refused(CheckpointError, path)
    completed(path, [C], overwrite=True)
    assert catalog(path) == [C]


def test_a_log_whose_header_is_torn_is_damaged(path: str) -> None:
    stopped(path, [A], [B])
    log = Path(log_path(path))
    log.write_bytes(log.read_bytes()[:20])
    assert "line 1 at byte 0 is damaged" in refused(CheckpointError, path)


def test_a_log_that_has_lost_its_end_is_damaged(path: str) -> None:
    stopped(path, [A], [B], [C])
    log = Path(log_path(path))
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:2]))
    said = refused(CheckpointError, path)
    assert (
        f"{log}: it does not name 2 parts that are in {parts_folder(path)}: its end is missing."
        in said
    )
    log.write_bytes(b"".join(lines[:3]))  # as after a crash
    assert unfinished(path, A, B, C) == [path_bytes(C)]


def test_what_merging_left_behind_is_removed(path: str) -> None:
    stopped(path, [A])
    folder = Path(parts_folder(path)) / "rastermeta-abc.tmp"
    folder.mkdir()
    (folder / "run").write_bytes(b"x")
    assert unfinished(path, A) == []
    assert sorted(os.listdir(parts_folder(path))) == ["rastermeta-00000001.parquet"]


@pytest.mark.parametrize("order", list(Order))
def test_sealing_that_fails_leaves_the_parts_alone(
    path: str, monkeypatch: pytest.MonkeyPatch, order: Order
) -> None:
    monkeypatch.setattr(merging, "FAN_IN", 2)
    stopped(path, *[[record(b"/%d.tif" % at), record(b"/x%d.tif" % at)] for at in range(9)])
    parts = sorted(os.listdir(parts_folder(path)))

    def full(self: Content, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    output = Output(path, order=order)
    with monkeypatch.context() as patch:
        patch.setattr(Content, "write", full)
        with pytest.raises(WriteError, match="No space left"):
            output.seal()
    assert sorted(os.listdir(parts_folder(path))) == parts, "the disk is as full as before"
    assert output.seal().rows == 18
    output.close()


def test_overwriting_replaces_a_foreign_file(any_path: str) -> None:
    Path(any_path).write_bytes(b"mine")
    stopped(any_path, [A], overwrite=True)
    assert Path(any_path).read_bytes() == b"mine"
    completed(any_path)
    assert catalog(any_path) == [A]


def test_one_run_at_a_time(path: str) -> None:
    output = Output(path)
    for overwrite in (False, True):
        with pytest.raises(OutputLockedError, match="another run is writing this output"):
            Output(path, overwrite=overwrite)
    commit(output, [A])
    output.seal()
    with pytest.raises(OutputLockedError):
        Output(path)
    output.close()
    assert unfinished(path, A) == []


def test_a_log_that_another_run_replaces_before_it_is_locked_is_not_the_one(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else both of them would have a lock, each on its own file."""
    stopped(path, [A])
    flock = fcntl.flock
    others: list[Output] = []

    def late(fd: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        others.append(Output(path))
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(OutputLockedError):
        Output(path)
    others[0].close()
    Output(path).close()


def test_looks_at_a_lock_bar_neither_each_other_nor_a_run(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`status` holds the lock for an instant, in any number of processes."""
    stopped(path, [A])
    with open(log_path(path), "rb") as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        assert status_of(path).state == "stopped"
        ending = SimpleNamespace(sleep=lambda _: fcntl.flock(look, fcntl.LOCK_UN))
        monkeypatch.setattr(durable, "time", ending)
        Output(path).close()


def test_many_parts_are_merged_in_passes(any_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "FAN_IN", 2)
    rows = [record(b"/%d.tif" % at) for at in range(9)]
    completed(any_path, *[[row] for row in rows])
    assert catalog(any_path) == rows
    assert not os.path.exists(parts_folder(any_path))


def lost(path: str, *given: Path, dry_run: bool = False) -> list[bytes]:
    """Prune an output for which some paths were given; return what is dropped, in order."""
    output, paths = Output(path), PathSet()
    paths.update([bytes(at) for at in given])
    try:
        found = sorted(output.prune(paths, dry_run=dry_run))
        output.seal()
        return found
    finally:
        output.close()


def test_rows_of_folders_and_of_nothing_go_unless_they_are_given(path: str, tmp_path: Path) -> None:
    folder, file, never = tmp_path / "folder", tmp_path / "file.tif", tmp_path / "never.tif"
    folder.mkdir()
    file.touch()
    missing = failed(bytes(never))._replace(error_type="FileNotFoundError")
    rows = [failed(bytes(at), "fatal") for at in (file, folder)]
    completed(path, [*rows, missing])
    assert lost(path, folder, never) == []
    assert lost(path, never, dry_run=True) == [bytes(folder)]
    assert catalog(path) == [*rows, missing]
    assert lost(path, never) == [bytes(folder)]
    assert lost(path) == [bytes(never)]
    assert catalog(path) == [rows[0]]


def test_a_dry_run_drops_nothing_however_many_would_go(path: str, tmp_path: Path) -> None:
    never = [failed(b"%s/%d.tif" % (bytes(tmp_path), at)) for at in range(5001)]
    completed(path, [row._replace(error_type="FileNotFoundError") for row in never])
    before = Path(path).read_bytes()
    assert len(lost(path, dry_run=True)) == 5001
    assert Path(path).read_bytes() == before
    assert len(lost(path)) == 5001
    assert catalog(path) == []


def test_rows_of_objects_stay_as_no_store_is_asked(path: str, tmp_path: Path) -> None:
    rows = [failed(b"s3://bucket/never.tif")._replace(error_type="NotFound")]
    completed(path, rows)
    assert lost(path) == []
    assert catalog(path) == rows


def test_rows_of_a_run_that_was_stopped_go_as_those_of_a_catalog(path: str, tmp_path: Path) -> None:
    output = Output(path)
    never = failed(bytes(tmp_path / "a.tif\r"))._replace(error_type="FileNotFoundError")
    output.log.append(output.sink.commit(table([never])))
    output.close()
    assert lost(path) == [bytes(tmp_path / "a.tif\r")]
    assert catalog(path) == []


# What is refused


def test_a_name_without_a_format_is_refused(tmp_path: Path) -> None:
    assert "must end in one of " + ", ".join(FORMATS) in refused(
        SettingsError, str(tmp_path / "catalog.csv")
    )


def test_a_foreign_file_is_refused(any_path: str) -> None:
    Path(any_path).write_bytes(b'{"mine": 1}\n')
    said = refused(ForeignOutputError, any_path)
    assert said.startswith(f"{any_path} was not made by rastermeta")
    assert said.endswith("Give --overwrite to replace it, or another -o.")


def test_a_catalog_that_may_not_be_read_is_not_called_foreign(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    completed(path, [A])

    def refusing(file: str) -> int:
        assert file == path
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(formats, "open_regular", refusing)
    said = refused(ForeignOutputError, path)
    assert said.startswith(f"{path} cannot be read: Permission denied. Get the right to read it")


def test_a_catalog_of_another_version_is_refused(path: str) -> None:
    pq.write_table(SCHEMA.with_metadata({VERSION_KEY: "0"}).empty_table(), path)
    assert refused(ForeignOutputError, path) == (
        f"{path} was made by another version of rastermeta (schema 0; this one has "
        f"{SCHEMA_VERSION}). Give --overwrite to replace it, or another -o."
    )


def test_a_missing_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ForeignOutputError, match="there is no folder"):
        Output(str(tmp_path / "none" / "catalog.parquet"))


def test_parts_without_their_log_are_refused(any_path: str) -> None:
    stopped(any_path, [A])
    os.unlink(log_path(any_path))
    assert refused(ForeignOutputError, any_path) == (
        f"{parts_folder(any_path)} holds parts, but their log {log_path(any_path)} is missing. "
        "Put the log back, or give --overwrite to start again from nothing."
    )


def test_a_missing_part_is_refused(path: str) -> None:
    _, second = stopped(path, [A], [B])
    part = os.path.join(parts_folder(path), second.name)
    os.unlink(part)
    assert refused(CheckpointError, path) == (
        f"{part}: is missing, but the log says {second.size} bytes. Nothing was changed: restore "
        "the file from a backup, or give --overwrite to start again from nothing."
    )


def test_a_short_part_is_refused(path: str) -> None:
    first, _ = stopped(path, [A], [B])
    part = os.path.join(parts_folder(path), first.name)
    os.truncate(part, first.size - 1)
    message = refused(CheckpointError, path)
    assert f"{part}: has {first.size - 1} bytes, but the log says {first.size} bytes" in message


def test_an_altered_part_is_refused(path: str) -> None:
    _first, second = stopped(path, [A], [B])
    part = Path(parts_folder(path)) / second.name
    content = bytearray(part.read_bytes())
    content[second.size // 2] ^= 1
    part.write_bytes(content)
    output = Output(path)
    with pytest.raises(CheckpointError) as caught:
        output.finished()
    output.close()
    assert str(caught.value).startswith(f"{part}: its content is not what the log says. Nothing")
    assert part.read_bytes() == content


def test_a_catalog_changed_by_another_program_is_refused(any_path: str) -> None:
    completed(any_path, [A])
    size = os.path.getsize(any_path)
    with open(any_path, "ab") as file:
        file.write(b"more\n")
    assert refused(ForeignOutputError, any_path) == (
        f"{any_path} has {size + 5} bytes, but {log_path(any_path)} says {size}: it was changed "
        "by another program. Put it back, give --overwrite to start again from nothing, or give "
        "another -o."
    )


def test_a_catalog_that_is_gone_while_parts_add_to_it_is_refused(any_path: str) -> None:
    completed(any_path, [A])
    stopped(any_path, [B])
    os.unlink(any_path)
    assert refused(ForeignOutputError, any_path) == (
        f"{any_path} is gone, but parts that add to it are there. Put it back, or give "
        "--overwrite to start again from nothing."
    )


def test_a_foreign_file_that_appears_during_a_run_is_not_taken_over(any_path: str) -> None:
    stopped(any_path, [A])
    Path(any_path).write_bytes(b'{"mine": 1}\n')
    assert "was not made by rastermeta" in refused(ForeignOutputError, any_path)


def test_a_foreign_file_in_place_of_a_deleted_catalog_is_refused(any_path: str) -> None:
    completed(any_path, [A], overwrite=True)
    os.unlink(any_path)
    Output(any_path).close()
    Path(any_path).write_bytes(b'{"mine": 1}\n')
    assert "was not made by rastermeta" in refused(ForeignOutputError, any_path)


# What comes in mid-run


class Disk:
    """What a system and disk can do besides renaming."""

    def __init__(self, patch: pytest.MonkeyPatch, *, renames: bool, links: bool) -> None:
        if not renames:
            patch.setattr(durable, "_renamed", lambda *_: False)
        if not links:
            patch.setattr(os, "link", self._refuse)

    @staticmethod
    def _refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")


DISKS = pytest.mark.parametrize(
    "disk",
    [{"renames": True, "links": True}, {"renames": False, "links": True},
     {"renames": False, "links": False}],
    ids=["linux", "links-only", "neither"],
)  # fmt: skip


def is_foreign(text: str, path: str) -> bool:
    start = (
        f"{path} was put there or changed by another program while this one was at work, and is "
        "left as it is. What was committed before is safe: move that file away, then run"
    )
    return text.startswith(start)


def test_a_disk_of_any_kind_is_written(any_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for disk in ({"renames": False, "links": True}, {"renames": False, "links": False}):
        with monkeypatch.context() as patch:
            Disk(patch, **disk)
            completed(any_path, [A], overwrite=True)
            completed(any_path, [B])
        assert catalog(any_path) == [A, B]
        name = os.path.basename(any_path)
        assert sorted(os.listdir(os.path.dirname(any_path))) == [name, name + ".checkpoint"]


@DISKS
def test_a_file_that_takes_the_name_in_mid_run_is_left_alone(
    any_path: str, monkeypatch: pytest.MonkeyPatch, disk: dict[str, bool]
) -> None:
    Disk(monkeypatch, **disk)
    output = Output(any_path)
    commit(output, [A])
    Path(any_path).write_bytes(b"mine")
    with pytest.raises(ForeignOutputError) as caught:
        output.seal()
    output.close()
    assert is_foreign(str(caught.value), any_path)
    assert Path(any_path).read_bytes() == b"mine"
    os.unlink(any_path)
    assert completed(any_path, [A, B]) == Totals(2, 0)
    assert catalog(any_path) == [A, B]


@DISKS
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_takes_the_place_of_a_catalog_in_mid_run_is_left_alone(
    any_path: str, monkeypatch: pytest.MonkeyPatch, disk: dict[str, bool], overwrite: bool
) -> None:
    Disk(monkeypatch, **disk)
    completed(any_path, [A])
    old = Path(any_path).with_name("old")
    for number, content in enumerate([Path(any_path).read_bytes(), b"mine"]):  # a copy is another
        output = Output(any_path, overwrite=overwrite)
        commit(output, [B._replace(width=number)])
        os.rename(any_path, old)
        Path(any_path).write_bytes(content)
        with pytest.raises((ForeignOutputError, CheckpointError)) as caught:
            output.seal()
        output.close()
        assert Path(any_path).read_bytes() == content
        if overwrite or not number:
            assert is_foreign(str(caught.value), any_path)
        os.replace(old, any_path)
    assert completed(any_path) == Totals(1 if overwrite else 2, 0)


@pytest.mark.parametrize("changed", [b"mine, more", b"MINE"], ids=["longer", "of equal size"])
@pytest.mark.parametrize("stopped_before", [0, 1, 2])
def test_a_foreign_file_that_is_changed_after_leave_was_given_is_left_alone(
    path: str, changed: bytes, stopped_before: int
) -> None:
    """Whether the run goes on, or was stopped and goes on later without --overwrite."""
    Path(path).write_bytes(b"mine")
    output = Output(path, overwrite=True)
    for _ in range(stopped_before):
        output.close()
        output = Output(path)
    commit(output, [A])
    Path(path).write_bytes(changed)
    os.utime(path, (1, 1))
    with pytest.raises(ForeignOutputError) as caught:
        output.seal()
    output.close()
    assert is_foreign(str(caught.value), path)
    said = refused(ForeignOutputError, path)
    assert said.startswith(f"{path} is not what stood there when --overwrite was given")
    Path(path).unlink()
    assert completed(path) == Totals(1, 0)


def test_a_file_that_cannot_take_its_name_is_removed(path: str) -> None:
    Path(path).write_bytes(b"theirs")
    Path(f"{path}.tmp").write_bytes(b"new")
    with pytest.raises(ForeignOutputError):
        durable.publish(f"{path}.tmp", path)
    assert tree(path) == {os.path.basename(path): b"theirs"}


def test_a_link_that_takes_the_name_in_mid_run_is_left_alone(path: str) -> None:
    output = Output(path)
    commit(output, [A])
    theirs = Path(path).with_name("theirs")
    theirs.write_bytes(b"mine")
    os.symlink(theirs, path)
    with pytest.raises(ForeignOutputError):
        output.seal()
    output.close()
    assert (os.readlink(path), theirs.read_bytes()) == (str(theirs), b"mine")


@pytest.mark.parametrize("before", [None, [A]])
def test_a_file_that_comes_at_the_last_instant_is_left_alone(
    any_path: str, monkeypatch: pytest.MonkeyPatch, before: list[Record] | None
) -> None:
    """After the last look, as the names are changed."""
    if before:
        completed(any_path, before)
    output = Output(any_path)
    commit(output, [B])
    renamed, mine = durable._renamed, Path(any_path).with_name("mine")
    mine.write_bytes(b"mine")

    def late(old: str, new: str, how: int) -> bool:
        if new == any_path and mine.exists():
            os.replace(mine, any_path)
        return renamed(old, new, how)

    monkeypatch.setattr(durable, "_renamed", late)
    with pytest.raises(ForeignOutputError) as caught:
        output.seal()
    output.close()
    assert is_foreign(str(caught.value), any_path)
    assert Path(any_path).read_bytes() == b"mine"


def test_a_file_that_comes_as_a_run_is_killed_is_not_removed(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It changed places with the catalog, and nobody was left to look."""
    completed(path, [A])
    output = Output(path)
    commit(output, [B])
    renamed = durable._renamed

    def late(old: str, new: str, how: int) -> bool:
        if new == path:
            os.unlink(path)
            Path(path).write_bytes(b"mine")
            renamed(old, new, how)
            raise Killed
        return renamed(old, new, how)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(durable, "_renamed", late)
        output.seal()
    output.close()
    said = refused(ForeignOutputError, path)
    (mine,) = (at for at in Path(parts_folder(path)).iterdir() if at.read_bytes() == b"mine")
    assert said.startswith(f"{mine} was put under the name {path} by another program")
    mine.unlink()
    assert completed(path) == Totals(2, 0)
    assert catalog(path) == [A, B]
    assert not os.path.exists(parts_folder(path))


def test_a_catalog_that_appears_among_the_parts_of_a_new_one_is_not_mixed_in(path: str) -> None:
    other = str(Path(path).with_name("other.parquet"))
    completed(other, [B])
    stopped(path, [A])
    os.rename(other, path)
    said = refused(ForeignOutputError, path)
    assert said.startswith(f"{path} is a catalog that was put there after parts were made")
    os.rename(path, other)
    completed(path)
    assert catalog(path) == [A]


def test_a_catalog_that_is_moved_away_in_mid_run_is_made_anew(any_path: str) -> None:
    completed(any_path, [A])
    output = Output(any_path, overwrite=True)
    commit(output, [B])
    os.rename(any_path, any_path + ".old")
    output.seal()
    output.close()
    assert catalog(any_path) == [B]


# What is planted


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("ended", ["nothing", "stopped", "sealed"])
def test_a_data_set_in_a_folder_of_parts_stays(path: str, ended: str, overwrite: bool) -> None:
    """pyarrow's, and one that was numbered with as many digits."""
    if ended == "stopped":
        stopped(path, [A])
    elif ended == "sealed":
        completed(path, [A])
    theirs = Path(parts_folder(path))
    theirs.mkdir(exist_ok=True)
    names = ["part-0.parquet", "part-00000001.parquet", "notes.tmp", "sealed.tmp"]
    for name in names:
        (theirs / name).write_bytes(b"mine")
    if ended == "nothing" and not overwrite:
        assert "stands there already, and no log says" in refused(ForeignOutputError, path)
    else:
        completed(path, [B], overwrite=overwrite)
        assert catalog(path) == ([B] if overwrite else [A, B])
    assert sorted(os.listdir(theirs)) == sorted(names)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("ended", ["nothing", "sealed"])
@pytest.mark.parametrize("what", ["parts", "log"])
def test_a_link_leads_to_nothing_of_others(
    path: str, what: str, ended: str, overwrite: bool
) -> None:
    if ended == "sealed":
        completed(path, [A])
        os.unlink(log_path(path))
    theirs = Path(path).with_name("theirs")
    theirs.mkdir()
    (theirs / "rastermeta-00000001.parquet").write_bytes(b"mine")
    planted = parts_folder(path) if what == "parts" else log_path(path)
    for target in ("theirs", "nowhere"):
        os.symlink(target, planted)
        said = refused(ForeignOutputError, path, overwrite=overwrite)
        assert said.startswith(f"{planted} is a link")
        os.unlink(planted)


def test_a_folder_of_parts_that_becomes_a_link_in_mid_run_leads_nowhere(path: str) -> None:
    output = Output(path)
    commit(output, [A])
    theirs = Path(path).with_name("theirs")
    os.rename(parts_folder(path), theirs)
    os.symlink(theirs, parts_folder(path))
    before = tree(path)
    with pytest.raises(ForeignOutputError, match="is a link"):
        commit(output, [B])
    with pytest.raises(ForeignOutputError, match="is a link"):
        output.seal()
    output.close()
    assert tree(path) == before


def make_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))  # a whole path may be too long


PLANTED = {"a named pipe": os.mkfifo, "a socket": make_socket, "a folder": os.mkdir}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("where", ["output", "log"])
def test_what_is_no_file_is_refused_and_not_waited_for(
    path: str, where: str, kind: str, overwrite: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(path).parent)
    planted = path if where == "output" else log_path(path)
    PLANTED[kind](planted)
    with pytest.raises(ForeignOutputError) as caught:
        Output(path, overwrite=overwrite)
    assert str(caught.value) == f"{planted} is {kind}: move it away, or give another -o"
    assert os.listdir() == [os.path.basename(planted)]
    if where == "log":
        with pytest.raises(ForeignOutputError, match=kind):
            status_of(path)
        with pytest.raises(ForeignOutputError, match=kind):
            durable.is_locked(planted)


@pytest.mark.timeout(20)
def test_a_part_or_catalog_that_became_a_pipe_is_not_waited_for(path: str) -> None:
    completed(path, [A])
    (part,) = stopped(path, [B])
    at = os.path.join(parts_folder(path), part.name)
    output = Output(path)
    os.rename(at, path + ".kept")
    os.mkfifo(at)
    with pytest.raises(ForeignOutputError, match=f"{part.name} is a named pipe"):
        output.seal()
    os.replace(path + ".kept", at)
    os.unlink(path)
    os.mkfifo(path)
    with pytest.raises(ForeignOutputError, match="is a named pipe"):
        output.finished()
    output.close()


def test_names_that_are_like_temporaries_stay(path: str) -> None:
    """But for files that can only be this program's."""
    log, theirs = log_path(path), Path(path).with_name("theirs")
    theirs.write_bytes(b"mine")
    for name in (f"{log}.tmp", f"{log}.notes.tmp", f"{log}.0123456789abcdef.tmp.txt"):
        Path(name).write_bytes(b"mine")
    os.symlink(theirs, f"{log}.0123456789abcdef.tmp")
    os.mkdir(f"{log}.0123456789abcde0.tmp")
    Path(f"{log}.0123456789abcde1.tmp").write_bytes(b"half a line")
    before = set(os.listdir(Path(path).parent))
    completed(path, [A])
    assert before - set(os.listdir(Path(path).parent)) == {
        os.path.basename(log) + ".0123456789abcde1.tmp"
    }
    assert {at: content for at, content in tree(path).items() if content == b"mine"}.keys() >= {
        "theirs", os.path.basename(log) + ".tmp"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "owners", "trusted"),
    [
        (0o755, (0, 0), True),
        (0o755, (1, 0), False),
        (0o775, (1, 0), True),
        (0o1777, (1, 0), False),
        (0o1777, (2, 2), True),
    ],
    ids=["own", "others", "shared", "sticky", "of-the-folder"],
)
def test_what_another_user_made_is_used_only_where_all_is_shared(
    path: str, mode: int, owners: tuple[int, int], trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = os.geteuid()
    made, folder = (user + number for number in owners)

    def status(mode: int, owner: int) -> os.stat_result:
        return os.stat_result((mode, 1, 1, 1, owner, 0, 0, 0, 0, 0))

    monkeypatch.setattr(os, "stat", lambda at, **options: status(mode, folder))
    if trusted:
        durable.check_owner(status(0o600, made), path)
        return
    with pytest.raises(ForeignOutputError) as caught:
        durable.check_owner(status(0o600, made), path)
    assert str(caught.value) == (
        f"{path} belongs to user {made}, and this run is user {os.geteuid()}'s, who may not trust "
        "it: run it as that user, or have the file belong to this one (chown), or give another -o"
    )


def test_a_log_parts_and_temporaries_of_another_user_are_left_alone(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(path, [A])
    leftover = f"{log_path(path)}.0123456789abcdef.tmp"
    Path(leftover).write_bytes(b"half a line")
    assert durable.temporaries_beside(log_path(path)) == [leftover]
    real, top, user = os.stat, os.path.dirname(path), os.geteuid()

    def status(at: Any, **options: Any) -> Any:
        return (
            SimpleNamespace(st_mode=0o41777, st_uid=user + 2) if at == top else real(at, **options)
        )

    monkeypatch.setattr(os, "stat", status)
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    assert durable.temporaries_beside(log_path(path)) == []
    for planted in (parts_folder(path), log_path(path)):
        with pytest.raises(ForeignOutputError) as caught:
            Output(path)
        assert str(caught.value).startswith(f"{planted} belongs to user {user}, and this run is")
        os.rename(planted, f"{planted}.aside")


@pytest.mark.timeout(20)
def test_a_file_that_becomes_a_pipe_as_it_is_opened_is_not_waited_for(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(path).write_bytes(b"")
    real = os.open

    def late(at: str, flags: int, mode: int = 0o777) -> int:
        os.unlink(path)
        os.mkfifo(path)
        return real(at, flags, mode)

    monkeypatch.setattr(os, "open", late)
    with pytest.raises(ForeignOutputError, match="is a named pipe"):
        durable.open_regular(path)


# Rights


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def rights(path: str) -> dict[str, int]:
    """Return the rights of all that stands next to an output."""
    top = Path(path).parent
    return {at.name: stat.S_IMODE(at.lstat().st_mode) for at in top.rglob("*")}


@pytest.mark.parametrize(
    ("mask", "file", "folder"),
    [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700), (0o002, 0o664, 0o775)],
)
def test_a_new_output_has_the_rights_of_any_new_file(
    path: str, umask: Callable[[int], int], mask: int, file: int, folder: int
) -> None:
    umask(mask)
    stopped(path, [A])
    name = os.path.basename(path)
    assert rights(path) == {
        f"{name}.checkpoint": file, f"{name}.parts": folder, "rastermeta-00000001.parquet": file
    }  # fmt: skip
    umask(0o022)
    completed(path, [B])
    assert rights(path) == {name: file, f"{name}.checkpoint": file}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("hidden", ["catalog", "log", "both"])
def test_what_only_its_owner_may_read_stays_so(
    any_path: str, umask: Callable[[int], int], hidden: str, overwrite: bool
) -> None:
    completed(any_path, [A])
    catalogs, logs = (0o600 if hidden in (name, "both") else 0o644 for name in ("catalog", "log"))
    os.chmod(any_path, catalogs)
    os.chmod(log_path(any_path), logs)
    stopped(any_path, [B], overwrite=overwrite)
    name = os.path.basename(any_path)
    expected = {name: catalogs, f"{name}.checkpoint": logs}
    assert rights(any_path) == expected | {
        f"{name}.parts": 0o700, f"rastermeta-0000000{1 if overwrite else 2}.parquet": 0o600
    }  # fmt: skip
    completed(any_path)
    assert rights(any_path) == expected


def test_a_disk_that_knows_no_rights_gives_nobody_more(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is made anew is its owner's alone where nothing more can be said of it."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    completed(path, [A])
    monkeypatch.setattr(os, "fchmod", refuse)
    completed(path, [B])
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_new_log_has_the_rights_of_its_catalog(path: str, umask: Callable[[int], int]) -> None:
    completed(path, [A])
    os.chmod(path, 0o600)
    os.unlink(log_path(path))
    Output(path).close()
    assert set(rights(path).values()) == {0o600}


@pytest.mark.parametrize("may", [True, False])
def test_a_catalog_stays_its_owners_or_gives_nobody_more(
    path: str, monkeypatch: pytest.MonkeyPatch, may: bool
) -> None:
    """Of a group that the program may not give it to, no member gets anything."""
    asked: list[tuple[int, int]] = []

    def chown(fd: int, uid: int, gid: int) -> None:
        asked.append((uid, gid))
        if not may:
            raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", chown)
    status = os.stat(Path(path).parent)
    given = durable.Rights(0o640, status.st_uid + 1, status.st_gid + 1)
    with durable.created(path, given):
        pass
    assert asked == [(given.uid, -1), (-1, given.gid)]
    assert stat.S_IMODE(os.stat(path).st_mode) == (0o640 if may else 0o600)


# The version before


def test_parts_and_logs_of_the_version_before_are_gone_on_with(path: str) -> None:
    completed(path, [A])
    parts = stopped(path, [B], [C])
    folder, log = Path(parts_folder(path)), Path(log_path(path))
    lines = []
    for line in log.read_bytes().splitlines():
        fields = json.loads(line[9:])
        if fields["kind"] == "header":
            fields["version"] = 2
            del fields["replaced"]
        if fields["kind"] == "part":
            fields["name"] = f"part-{fields['seq']:08d}.parquet"
        body = json.dumps(fields).encode()
        lines.append(b"%08x %s\n" % (zlib.crc32(body), body))
    log.write_bytes(b"".join(lines))
    for part in parts:
        os.rename(folder / part.name, folder / f"part-{part.seq:08d}.parquet")
    stopped(path, [D])
    assert sorted(os.listdir(folder)) == [
        "part-00000002.parquet", "part-00000003.parquet", "rastermeta-00000004.parquet"
    ]  # fmt: skip
    copy = shutil.copytree(Path(path).parent, Path(path).parent.with_name("copy"))
    completed(path)
    assert catalog(path) == [A, B, C, D]
    assert not folder.exists()
    completed(str(copy / "catalog.parquet"), [E], overwrite=True)
    assert catalog(str(copy / "catalog.parquet")) == [E]
    assert not (copy / folder.name).exists()


# What is mended


def test_a_catalog_whose_log_was_deleted_is_adopted(path: str) -> None:
    completed(path, [A, BAD])
    os.unlink(log_path(path))
    assert unfinished(path, A, BAD, B) == [b"/b.tif"]
    assert completed(path) == Totals(2, 1)
    assert completed(path, [A._replace(width=99), B]) == Totals(3, 1)
    assert catalog(path) == [A, B, BAD]


def test_a_catalog_deleted_after_sealing_is_made_anew(any_path: str) -> None:
    completed(any_path, [A, B])
    os.unlink(any_path)
    assert unfinished(any_path, A, B) == [b"/a.tif", b"/b.tif"]
    assert completed(any_path, [A]) == Totals(1, 0)
    assert catalog(any_path) == [A]


@pytest.mark.parametrize("name", ["catalog.parquet", "catalog.ndjson"])
def test_a_damaged_catalog_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = str(tmp_path / name)
    completed(path, [A, B, C])
    content = bytearray(Path(path).read_bytes())
    content[20:400] = bytes(380)
    Path(path).write_bytes(content)
    output = Output(path)
    with pytest.raises(CheckpointError, match=f"{name}: its content is not what the log says"):
        output.finished()
    output.close()


def test_an_empty_log_next_to_parts_is_a_missing_one(path: str) -> None:
    stopped(path, [A])
    Path(log_path(path)).write_bytes(b"")
    assert "is missing" in refused(ForeignOutputError, path)


def test_only_what_this_program_made_is_removed_from_the_parts(path: str) -> None:
    completed(path, [A])
    os.mkdir(parts_folder(path))
    mine = Path(parts_folder(path), "mine.txt")
    mine.write_text("mine")
    assert completed(path, [B], overwrite=True).rows == 1
    assert mine.read_text() == "mine"


def test_behind_a_link_the_catalog_is_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "catalog.parquet"
    link.symlink_to("disk/catalog.parquet")
    completed(str(link), [A, B])
    assert link.is_symlink()
    assert sorted(os.listdir(tmp_path / "disk")) == [
        "catalog.parquet", "catalog.parquet.checkpoint"
    ]  # fmt: skip
    assert len(catalog(str(link))) == 2
    assert (status_of(str(link)).state, status_of(str(link)).rows) == ("complete", 2)
    completed(str(link), [C])
    assert len(catalog(str(link))) == 3


def test_a_catalog_with_parts_that_are_not_in_it_yet_is_not_called_complete(path: str) -> None:
    completed(path, [A, B])
    stopped(path, [C])
    status = status_of(path)
    assert (status.state, status.rows, status.parts) == ("stopped", 3, 1)


def test_only_the_newest_row_counts_when_failures_are_retried(path: str) -> None:
    completed(path, [A, B])
    stopped(path, [failed(path_bytes(A))])
    assert unfinished(path, A, B, retry_failed=True) == [path_bytes(A)]


def test_only_the_columns_asked_for_are_read(any_path: str) -> None:
    completed(any_path, [A, BAD, C])
    names = ["filepath", "filepath_bytes", "status"]
    some = list(format_of(any_path).read(io.FileIO(any_path), names))
    whole = list(format_of(any_path).read(io.FileIO(any_path)))
    assert [batch.schema.names for batch in some] == [names]
    assert [batch.to_pylist() for batch in some] == [b.select(names).to_pylist() for b in whole]


def test_leftovers_are_removed(path: str) -> None:
    (part,) = stopped(path, [A])
    folder = Path(parts_folder(path))
    unlogged = folder / "rastermeta-00000002.parquet"
    unlogged.write_bytes((folder / part.name).read_bytes())
    for name in ("rastermeta-0123456789abcdef.tmp", "rastermeta-sealed-0123456789abcdef.tmp"):
        (folder / name).write_bytes(b"half")
    Path(f"{log_path(path)}.0123456789abcdef.tmp").write_bytes(b"half")
    Output(path).close()
    assert os.listdir(folder) == [part.name]
    assert sorted(os.listdir(Path(path).parent)) == [Path(log_path(path)).name, folder.name]
    completed(path, [B])
    assert catalog(path) == [A, B]


def test_an_unlogged_first_part_does_not_count(path: str) -> None:
    output = Output(path)
    output.sink.commit(table([A]))
    output.close()
    assert unfinished(path, A) == [b"/a.tif"]
    assert not os.path.exists(parts_folder(path))


def test_a_torn_line_means_that_its_part_does_not_count(path: str) -> None:
    stopped(path, [A], [B])
    log = Path(log_path(path))
    log.write_bytes(log.read_bytes()[:-10])
    assert unfinished(path, A, B) == [b"/b.tif"]
    assert os.listdir(parts_folder(path)) == ["rastermeta-00000001.parquet"]
    completed(path, [B])
    assert catalog(path) == [A, B]


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_refused_sealing_loses_nothing(
    any_path: str, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    completed(any_path, [A])
    old = Path(any_path).read_bytes()
    output = Output(any_path)
    commit(output, [B])

    def refuse(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(WriteError, match="No space left on device"):
        patch.setattr(*{"rename": (durable, "_renamed")}.get(call, (os, call)), refuse)
        output.seal()
    output.close()
    assert Path(any_path).read_bytes() == old
    assert completed(any_path) == Totals(2, 0)
    assert catalog(any_path) == [A, B]


# Kill and power cut at every step


ROWS = [[D, BAD], [C, A], [B, E]]


@pytest.mark.parametrize("power", [False, True], ids=["kill", "power-cut"])
def test_overwriting_that_is_killed_has_forgotten_all_or_nothing(
    tmp_path: Path, power: bool
) -> None:
    """The same command without --overwrite goes on with the one or the other."""

    def start_over(path: str, last: int | None) -> int:
        with pytest.MonkeyPatch.context() as patch:
            machine = Machine(patch, Path(path).parent, last)
            with contextlib.suppress(Killed):
                Output(path, overwrite=True).close()
        if power:
            machine.cut_power()
        machine.switch_off()
        return machine.steps

    scenes = copies(tmp_path, "catalog.parquet", sealed_and_parts)
    steps = start_over(next(scenes), None)
    left = set()
    for last in range(1, steps + 1):
        path = next(scenes)
        start_over(path, last)
        left.add(len(unfinished(path, A, BAD, C, D)))
    assert left == {0, 4}


def fresh(path: str) -> None:
    """Nothing is there."""


def sealed(path: str) -> None:
    """A catalog is there."""
    completed(path, [A, BAD])


def sealed_and_parts(path: str) -> None:
    """A catalog and parts that add to it are there, and a leftover."""
    completed(path, [A, BAD])
    stopped(path, [C], [D])
    (Path(parts_folder(path)) / "rastermeta-0123456789abcdef.tmp").write_bytes(b"half")


SCENES = [(fresh, False), (sealed, False), (sealed_and_parts, False), (sealed_and_parts, True)]


def crash(path: str, overwrite: bool, last: int | None, *, power: bool = False) -> int:
    """Run until the end or step `last`; return the number of steps, 0 when it was not reached."""
    with pytest.MonkeyPatch.context() as patch:
        machine = Machine(patch, Path(path).parent, last)
        try:
            completed(path, *ROWS, overwrite=overwrite)
            ended = last is None
        except Killed:
            ended = True
    if power:
        machine.cut_power()
    machine.switch_off()
    return machine.steps if ended else 0


@pytest.mark.campaign
@pytest.mark.parametrize("power", [False, True], ids=["kill", "power-cut"])
@pytest.mark.parametrize(
    ("scene", "overwrite"),
    SCENES,
    ids=["fresh", "sealed", "sealed-and-parts", "overwrite"],
)
@pytest.mark.parametrize("name", ["catalog.parquet", "catalog.ndjson"])
def test_a_run_that_ends_anywhere_is_finished_by_the_next(
    tmp_path: Path, name: str, scene: Callable[[str], None], overwrite: bool, power: bool
) -> None:
    scenes = copies(tmp_path, name, scene)
    path = next(scenes)
    before = Path(path).read_bytes() if os.path.exists(path) else None
    steps = crash(path, overwrite, None)
    expected = tree(path)[name]
    assert steps > 20
    # A Parquet footer is written in many small pieces, which differ in nothing: take one of three.
    for last in range(1, steps + 1, 3 if name.endswith(".parquet") else 1):
        path = next(scenes)
        assert crash(path, overwrite, last, power=power) >= last
        readable = Path(path).read_bytes() if os.path.exists(path) else None
        assert readable in (before, expected), f"step {last}: a partial catalog has its name"
        completed(path, *ROWS, overwrite=overwrite and not _resumes(path))
        assert tree(path)[name] == expected, f"step {last}"
        assert set(os.listdir(os.path.dirname(path))) == {name, name + ".checkpoint"}


def _resumes(path: str) -> bool:
    """Tell whether a run that overwrites got so far that it can be resumed."""
    entries = read_entries(Path(log_path(path)).read_bytes(), path)
    header = entries[0]
    return isinstance(header, LogHeader) and header.replaces


@pytest.mark.parametrize("power", [False, True], ids=["kill", "power-cut"])
def test_a_recovery_that_ends_anywhere_is_recovered_again(tmp_path: Path, power: bool) -> None:
    scenes = copies(tmp_path, "catalog.parquet", sealed_and_parts)
    path = next(scenes)
    steps = crash(path, False, None)
    expected = Path(path).read_bytes()
    for last in range(steps // 2, steps + 1, 7):
        for again in (1, 2, 4, 8):
            path = next(scenes)
            crash(path, False, last, power=power)
            crash(path, False, again, power=power)
            completed(path, *ROWS)
            assert Path(path).read_bytes() == expected, f"steps {last}, {again}"


def test_committed_rows_survive_and_are_not_read_again(tmp_path: Path) -> None:
    """What the log named before the end is finished afterwards, all of it and nothing else."""
    scenes = copies(tmp_path, "catalog.parquet", fresh)
    steps = crash(next(scenes), False, None)
    counts = set()
    for last in range(1, steps + 1):
        path = next(scenes)
        crash(path, False, last, power=True)
        named = 0
        if os.path.exists(log_path(path)):
            entries = read_entries(Path(log_path(path)).read_bytes(), path)
            sealed_rows = [entry.rows for entry in entries if type(entry) is Sealed]
            parts = [entry.rows for entry in entries if isinstance(entry, Part)]
            named = sealed_rows[-1] if sealed_rows else sum(parts)
        missing = unfinished(path, *[row for rows in ROWS for row in rows])
        assert 6 - len(missing) == named, f"step {last}"
        counts.add(named)
    assert counts == {0, 2, 4, 6}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_adds_to_a_catalog_of_another_user_which_stays_theirs(path: str) -> None:
    completed(path, [A])
    os.chown(path, 65534, 65534)
    stopped(path, [B])
    assert os.stat(parts_folder(path)).st_uid == 0
    assert completed(path, [C]).rows == 3
    assert os.stat(path).st_uid == 65534
