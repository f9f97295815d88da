from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from factory import failed, record, records_of, table

from rastermeta_async.catalog import durable
from rastermeta_async.catalog import sink as sinks
from rastermeta_async.catalog.checkpoint import Part
from rastermeta_async.catalog.json_rows import to_lines
from rastermeta_async.catalog.parts import part_run
from rastermeta_async.catalog.sink import PART_GROUP_ROWS, LineSink, NoLog, PartSink
from rastermeta_async.model import streams
from rastermeta_async.model.errors import WriteError
from rastermeta_async.model.record import SCHEMA

pytestmark = pytest.mark.usefixtures("nothing_stays_open")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "catalog.parquet.parts"


def test_a_part_is_what_its_entry_says(folder: Path) -> None:
    rows = [record(b"/b"), failed(b"/c"), failed(b"/a"), record(b"/a")]
    part = PartSink(str(folder)).commit(table(rows))
    content = (folder / "rastermeta-00000001.parquet").read_bytes()
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    assert (part.seq, part.name, part.size) == (1, "rastermeta-00000001.parquet", len(content))
    assert (part.rows, part.failures, part.digest) == (3, 1, digest)
    assert os.listdir(folder) == [part.name]
    assert pq.read_schema(folder / part.name).equals(SCHEMA)
    assert records_of([pq.read_table(folder / part.name)]) == [
        record(b"/a"),
        record(b"/b"),
        rows[1],
    ]


def test_parts_are_numbered_on(folder: Path) -> None:
    sink = PartSink(str(folder), last_seq=7)
    names = [sink.commit(table([record()])).name for _ in range(2)]
    assert names == ["rastermeta-00000008.parquet", "rastermeta-00000009.parquet"]
    assert sorted(os.listdir(folder)) == names


def test_a_part_has_small_row_groups(folder: Path) -> None:
    rows = [record(b"%05d" % at) for at in range(PART_GROUP_ROWS + 1)]
    rows += [record(b"x%d" % at, dataset_tags={"k": "v" * 600_000}) for at in range(3)]
    part = PartSink(str(folder)).commit(table(rows))
    metadata = pq.read_metadata(folder / part.name)
    sizes = [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)]
    assert sizes == [PART_GROUP_ROWS, 2, 1, 1]


def test_a_part_tells_between_which_paths_its_rows_lie(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever number of row groups it has."""
    monkeypatch.setattr(sinks, "PART_GROUP_ROWS", 2)
    part = PartSink(str(folder)).commit(table([record(b"/%d" % at) for at in (3, 1, 4, 0, 2)]))
    run = part_run(str(folder), part)
    assert pq.read_metadata(folder / part.name).num_row_groups == 3
    assert (run.first, run.last, run.rows) == (b"/0", b"/4", 5)


def test_a_part_is_synced_before_it_has_its_name_and_the_folder_after(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir()
    steps = synced(folder, monkeypatch)
    part = PartSink(str(folder)).commit(table([record()]))
    assert steps == [(part.size, []), (folder.name, [part.name])]


def test_the_folder_is_synced_after_it_is_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = synced(folder, monkeypatch)
    part = PartSink(str(folder)).commit(table([record()]))
    assert steps == [
        (folder.parent.name, []), (part.size, []), (folder.name, [part.name])
    ]  # fmt: skip


def synced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, list[str]]]:
    """Return a list that grows: what is synced, a folder's name or a file's size, and the parts
    that have their names then."""
    steps: list[tuple[object, list[str]]] = []
    fsync = os.fsync

    def watched(fd: int) -> None:
        status = os.fstat(fd)
        name = next((at.name for at in (folder, folder.parent) if is_at(at, status)), None)
        steps.append((name or status.st_size, [at.name for at in folder.glob("*.parquet")]))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    return steps


def is_at(path: Path, status: os.stat_result) -> bool:
    return path.exists() and os.path.samestat(path.stat(), status)


def refuse(number: int) -> Callable[..., Any]:
    def call(*args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


def refuse_files(number: int) -> Callable[[int], None]:
    fsync = os.fsync

    def call(fd: int) -> None:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(fd)

    return call


CALLS = {"rename": (durable, "_renamed")}
"""Calls that are not in `os`."""

SPACE = "free space or mend the disk"
RIGHTS = "get the right to write there, or give another -o"
FOLDER = "make that folder, or give another -o"


@pytest.mark.parametrize(
    ("call", "replacement", "reason", "advice"),
    [
        ("write", refuse(errno.ENOSPC), "No space left on device", SPACE),
        ("fsync", refuse_files(errno.EIO), "Input/output error", SPACE),
        ("rename", refuse(errno.EROFS), "Read-only file system", RIGHTS),
        ("mkdir", refuse(errno.EACCES), "Permission denied", RIGHTS),
        ("mkdir", refuse(errno.ENOENT), "No such file or directory", FOLDER),
    ],
)
def test_a_refused_write_leaves_no_part(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    replacement: Callable[..., Any],
    reason: str,
    advice: str,
) -> None:
    sink = PartSink(str(folder))
    with monkeypatch.context() as patch, pytest.raises(WriteError) as caught:
        patch.setattr(*CALLS.get(call, (os, call)), replacement)
        sink.commit(table([record()]))
    assert str(caught.value) == (
        f"{folder / 'rastermeta-00000001.parquet'}: writing a part failed: {reason}. What was "
        f"committed before is safe: {advice}, then run the same command again to go on."
    )
    names = os.listdir(folder) if folder.exists() else []
    assert "rastermeta-00000001.parquet" not in names
    assert PartSink(str(folder)).commit(table([record()])).seq == 1


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_refused_write_leaves_no_temporary_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    folder.mkdir()
    with monkeypatch.context() as patch, pytest.raises(WriteError):
        patch.setattr(*CALLS.get(call, (os, call)), refuse(errno.EIO))
        PartSink(str(folder)).commit(table([record()]))
    assert os.listdir(folder) == []


@pytest.mark.parametrize("kept", [0, 1, 100])
def test_a_disk_that_loses_data_is_found_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    write = os.write

    def forgetful(fd: int, data: memoryview) -> int:
        write(fd, data[:kept])
        return len(data)

    with monkeypatch.context() as patch, pytest.raises(WriteError, match="faulty"):
        patch.setattr(os, "write", forgetful)
        PartSink(str(folder)).commit(table([record()]))
    assert os.listdir(folder) == []


def test_a_disk_that_returns_another_file_is_found_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = (tmp_path / "other", PartSink(str(tmp_path / "other")).commit(table([record()])).name)
    content = (other[0] / other[1]).read_bytes()
    write = os.write

    def confused(fd: int, data: memoryview) -> int:
        write(fd, content)
        return len(data)

    with monkeypatch.context() as patch, pytest.raises(WriteError) as caught:
        patch.setattr(os, "write", confused)
        PartSink(str(folder)).commit(table([record(b"/a"), record(b"/b")]))
    assert str(caught.value) == (
        f"{folder / 'rastermeta-00000001.parquet'}: wrote 2 rows but the file says 1: the disk or "
        "memory is faulty. What was committed before is safe; run the same command again to go on."
    )
    assert os.listdir(folder) == []


def lines(rows: Sequence[Any]) -> bytes:
    return "".join(f"{line}\n" for line in to_lines(table(rows))).encode()


def drain(fd: int, into: bytearray) -> None:
    while data := os.read(fd, 1000):
        into += data
    os.close(fd)


def commit_to_pipe(rows: Sequence[Any], *, blocking: bool = True) -> tuple[Part, bytes]:
    reading, writing = os.pipe()
    os.set_blocking(writing, blocking)
    received = bytearray()
    reader = threading.Thread(target=drain, args=(reading, received))
    reader.start()
    try:
        part = LineSink(writing).commit(table(rows))
    finally:
        os.close(writing)
        reader.join()
    return part, bytes(received)


LONG = [record(b"/%d" % at, dataset_tags={"k": "v" * 1000}) for at in range(500)]
"""Far more than a pipe holds."""


def test_lines_come_in_the_order_given_duplicates_too() -> None:
    rows = [record(b"/b"), failed(b"/a"), record(b"/b")]
    part, received = commit_to_pipe(rows)
    assert received == lines(rows)
    assert (part.seq, part.rows, part.failures, part.size) == (1, 3, 1, len(received))


def test_more_than_a_pipe_holds_arrives_whole() -> None:
    assert commit_to_pipe(LONG)[1] == lines(LONG)


def test_lines_on_a_terminal_do_nothing_to_it_and_are_the_same_json() -> None:
    odd = record("/a\x1b[2J\x9b\u202e.tif".encode())
    reader, terminal = os.openpty()
    try:
        LineSink(terminal).commit(table([odd]))
        said = os.read(reader, 65_536).decode()
    finally:
        os.close(reader)
        os.close(terminal)
    assert said.strip().isprintable()
    assert json.loads(said)["filepath"] == odd.filepath


def test_a_pipe_that_does_not_block_is_waited_for() -> None:
    assert commit_to_pipe(LONG, blocking=False)[1] == lines(LONG)


def test_short_writes_are_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:100]))
    rows = [record(), failed()]
    assert commit_to_pipe(rows)[1] == lines(rows)


def test_a_reader_that_has_gone_is_a_broken_pipe() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with pytest.raises(BrokenPipeError):
            LineSink(writing).commit(table([record()]))
    finally:
        os.close(writing)


def test_a_run_that_is_to_end_waits_for_a_reader_that_takes_some_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading, writing = os.pipe()
    now, taken = 0.0, bytearray()

    def has_room(fd: int, seconds: float) -> bool:
        """Have the reader take some in more than half of the time that it is given."""
        nonlocal now
        if streams.has_room(fd, 0):
            return True
        now += 0.6
        taken.extend(os.read(reading, 50_000))
        return False

    monkeypatch.setattr(sinks, "has_room", has_room)
    monkeypatch.setattr(sinks, "time", SimpleNamespace(monotonic=lambda: now))
    try:
        LineSink(writing, lambda: True).commit(table(LONG))
        os.close(writing)
        while some := os.read(reading, 50_000):
            taken.extend(some)
    finally:
        os.close(reading)
    assert now > 1.2
    assert taken == lines(LONG)


def test_a_full_disk_behind_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", refuse(errno.ENOSPC))
    with pytest.raises(WriteError) as caught:
        LineSink(1).commit(table([record()]))
    assert str(caught.value) == "standard output: writing failed: No space left on device"


def test_no_log_forgets() -> None:
    NoLog().append(Part(1, "-", 1, 0, 1, ""))
