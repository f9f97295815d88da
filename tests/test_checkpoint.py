from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rastermeta_async.catalog import durable
from rastermeta_async.catalog.checkpoint import (
    LOG_VERSION,
    CheckpointLog,
    Entry,
    History,
    LogHeader,
    Part,
    Sealed,
    Sealing,
    Uploaded,
    decode,
    encode,
    history,
    read_entries,
)
from rastermeta_async.catalog.durable import is_locked
from rastermeta_async.catalog.names import part_name
from rastermeta_async.model import streams
from rastermeta_async.model.errors import (
    CheckpointError,
    ForeignOutputError,
    OutputLockedError,
    WriteError,
)

pytestmark = pytest.mark.usefixtures("nothing_stays_open")


def part(seq: int) -> Part:
    return Part(
        seq, f"rastermeta-{seq:08d}.parquet", 10 * seq, seq, 1000 + seq, f"{seq:032x}", 1.5e9
    )


def sealing(seq: int) -> Sealing:
    return Sealing(seq, 100, 2, 5000, "d1", 1.6e9)


def sealed(seq: int) -> Sealed:
    return Sealed(seq, 100, 2, 5000, "d1", 1.6e9)


ENTRIES: list[Entry] = [
    LogHeader(output="catalog.parquet", url=""), part(1), part(2), sealing(2), sealed(2),
    Uploaded("e1"), part(3),
]  # fmt: skip
CONTENT = b"".join(map(encode, ENTRIES))
LAST_LINE = CONTENT.rindex(b"\n", 0, -1) + 1


def line(kind: str, **fields: Any) -> bytes:
    """Return a line as some other version might write it."""
    body = json.dumps({"kind": kind, **fields}).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "catalog.parquet.checkpoint")


@pytest.fixture
def log(path: str) -> Iterator[CheckpointLog]:
    log = CheckpointLog(path, "catalog.parquet")
    yield log
    log.close()


def write(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)


def read(path: str) -> bytes:
    return Path(path).read_bytes()


numbers = st.integers(0, 2**53 - 1)
names = st.builds(part_name, numbers)
digests = st.text("0123456789abcdef")
parts = st.builds(Part, numbers, names, numbers, numbers, numbers, digests, st.floats(0, 2**52))


@given(parts | st.builds(LogHeader, output=st.text(), replaces=st.booleans()))
def test_encoded_entries_are_one_line_and_decode_again(entry: Entry) -> None:
    encoded = encode(entry)
    assert encoded.count(b"\n") == 1
    assert encoded.endswith(b"\n")
    assert decode(encoded[:-1]) == entry


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: type(entry).__name__)
def test_decoding_keeps_the_kind(entry: Entry) -> None:
    decoded = decode(encode(entry)[:-1])
    assert type(decoded) is type(entry)
    assert decoded == entry


def test_line_is_its_checksum_and_json() -> None:
    checksum, _, body = encode(part(1)).rstrip(b"\n").partition(b" ")
    assert int(checksum, 16) == zlib.crc32(body)
    assert json.loads(body) == {
        "kind": "part", "seq": 1, "name": "rastermeta-00000001.parquet", "rows": 10, "failures": 1,
        "size": 1001, "digest": f"{1:032x}", "time": 1.5e9,
    }  # fmt: skip


@given(st.binary())
def test_arbitrary_bytes_are_damage_not_a_crash(data: bytes) -> None:
    assert decode(data) is None


@pytest.mark.parametrize("text", [b"", b" ", b"00000000", b"00000000 ", b"{}"])
def test_short_lines_are_damage(text: bytes) -> None:
    assert decode(text) is None


def test_a_log_cut_anywhere_is_a_prefix() -> None:
    for cut in range(len(encode(ENTRIES[0])), len(CONTENT) + 1):
        whole_lines = CONTENT[:cut].count(b"\n")
        assert read_entries(CONTENT[:cut], "log") == ENTRIES[:whole_lines]


def test_a_file_cut_anywhere_can_be_continued(path: str) -> None:
    for cut in [0, *range(len(encode(ENTRIES[0])), len(CONTENT) + 1, 7)]:
        write(path, CONTENT[:cut])
        log = CheckpointLog(path, "catalog.parquet")
        kept = [entry for entry in log.entries if not isinstance(entry, LogHeader)]
        assert read(path) == CONTENT[:cut], "opening alone changes nothing"
        log.rewrite(kept)
        log.append(part(9))
        log.close()
        assert read_entries(read(path), path) == [ENTRIES[0], *kept, part(9)]


def test_a_header_that_is_torn_or_bad_is_damage() -> None:
    header = encode(ENTRIES[0])
    for bad in (*(header[:cut] for cut in range(1, len(header))), header[1:], b"\n"):
        with pytest.raises(CheckpointError, match="log: line 1 at byte 0 is damaged"):
            read_entries(bad, "log")
    assert read_entries(b"", "log") == []


def test_a_bad_last_line_is_dropped() -> None:
    for bad in (b"0badc0de {}\n", b"\n", b"\0" * 40 + b"\n", encode(part(4))[1:]):
        assert read_entries(CONTENT + bad, "log") == ENTRIES


def test_a_bad_line_before_a_torn_one_is_damage() -> None:
    with pytest.raises(CheckpointError, match=f"line 8 at byte {len(CONTENT)} is damaged"):
        read_entries(CONTENT + b"0badc0de {}\n" + b"torn", "log")


def test_every_flipped_bit_before_the_last_line_is_found() -> None:
    # But for the newline before the last line: without it, both are one bad last line.
    for at in range(LAST_LINE - 1):
        for bit in range(8):
            data = bytearray(CONTENT)
            data[at] ^= 1 << bit
            start = CONTENT.rfind(b"\n", 0, at) + 1
            with pytest.raises(CheckpointError, match=f"^log: line .* at byte {start} is damaged"):
                read_entries(bytes(data), "log")


def test_every_flipped_bit_in_the_last_line_drops_it() -> None:
    for at in range(LAST_LINE, len(CONTENT)):
        for bit in range(8):
            data = bytearray(CONTENT)
            data[at] ^= 1 << bit
            if data.count(b"\n") <= len(ENTRIES):
                assert read_entries(bytes(data), "log") == ENTRIES[:-1]


@pytest.mark.parametrize("number", range(1, 6))
def test_damage_leaves_the_file_and_its_lock_alone(path: str, number: int) -> None:
    lines = CONTENT.splitlines(keepends=True)
    offset = sum(map(len, lines[: number - 1]))
    content = CONTENT[: offset + 20] + b"?" + CONTENT[offset + 21 :]
    write(path, content)
    with pytest.raises(CheckpointError) as caught:
        CheckpointLog(path, "catalog.parquet")
    assert str(caught.value) == (
        f"{path}: line {number} at byte {offset} is damaged. Nothing was changed: restore the "
        "file from a backup, or give --overwrite to start again from nothing."
    )
    assert read(path) == content
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]
    assert not is_locked(path)


@pytest.mark.parametrize(
    "content",
    [
        encode(LogHeader(version=LOG_VERSION + 1)) + encode(part(1)),
        encode(LogHeader(version=LOG_VERSION + 1)),
        encode(part(1)) + encode(part(2)),
        line("header", version=LOG_VERSION + 1, output="c.parquet", replaces=False, host="new"),
        encode(LogHeader(version=LOG_VERSION + 1)) + line("shard", seq=1) + encode(part(1)),
        encode(LogHeader(version=LOG_VERSION + 1)) + line("part", seq=1, etag="new"),
    ],
    ids=["version", "header-only", "no-header", "newer-header", "newer-kind", "newer-field"],
)
def test_another_version_is_refused(path: str, content: bytes) -> None:
    write(path, content)
    with pytest.raises(CheckpointError) as caught:
        CheckpointLog(path, "catalog.parquet")
    assert str(caught.value) == (
        f"{path} is not a checkpoint log of this version of rastermeta. Nothing was changed: use "
        "the version that made it, or give --overwrite to start again from nothing."
    )
    assert read(path) == content


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], History()),
        ([LogHeader()], History()),
        ([LogHeader(), part(1), part(2)], History((part(1), part(2)))),
        ([part(1), sealing(1)], History((part(1),), None, sealing(1))),
        ([part(1), sealing(1), sealed(1)], History((), sealed(1))),
        ([part(1), sealing(1), part(2)], History((part(1), part(2)), None, sealing(1))),
        ([part(1), sealing(1), part(2), sealed(1)], History((part(2),), sealed(1))),
        ([sealed(1), part(2)], History((part(2),), sealed(1))),
        ([sealed(1), part(2), sealing(2)], History((part(2),), sealed(1), sealing(2))),
        ([sealed(1), part(2), sealing(2), sealed(2)], History((), sealed(2))),
    ],
)
def test_history(entries: list[Entry], expected: History) -> None:
    assert history(entries) == expected


@pytest.mark.parametrize(
    ("entries", "last"),
    [([], 0), ([part(1), part(3)], 3), ([sealed(7)], 7), ([sealed(7), part(8)], 8)],
)
def test_numbers_go_on_after_the_last_part(entries: list[Entry], last: int) -> None:
    assert history(entries).last_seq == last


def test_entries_are_there_when_opened_again(path: str, log: CheckpointLog) -> None:
    log.rewrite([sealed(1)])
    log.append(part(2))
    expected = [LogHeader(output="catalog.parquet", url=""), sealed(1), part(2)]
    assert log.entries == expected
    log.close()
    again = CheckpointLog(path, "/elsewhere/catalog.parquet")
    assert again.entries == expected
    again.close()


def test_the_header_says_whether_the_output_is_replaced(path: str, log: CheckpointLog) -> None:
    assert log.replaces is False
    log.rewrite([], replaces=True)
    assert log.replaces is True
    log.rewrite([part(1)])
    assert log.replaces is False


def test_a_second_log_is_refused_while_the_first_is_open(path: str, log: CheckpointLog) -> None:
    with pytest.raises(OutputLockedError) as caught:
        CheckpointLog(path, "catalog.parquet")
    assert str(caught.value) == (
        f"{path} is locked: another run is writing this output. Wait for it, stop it, or give "
        "another -o."
    )
    log.close()
    CheckpointLog(path, "catalog.parquet").close()


def test_rewriting_keeps_the_lock_and_leaves_no_temporary_file(
    path: str, log: CheckpointLog
) -> None:
    for entries in ([], [part(1)], [part(1), part(2)]):
        log.rewrite(entries)
        with pytest.raises(OutputLockedError):
            CheckpointLog(path, "catalog.parquet")
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]
    log.close()
    assert not is_locked(path)


def test_closing_twice_frees_no_other_descriptor(path: str, log: CheckpointLog) -> None:
    log.close()
    other = os.open(path, os.O_RDONLY)
    log.close()
    os.fstat(other)
    os.close(other)


def test_a_failed_sync_is_a_write_error(
    path: str, log: CheckpointLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.rewrite([part(1)])

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("rastermeta_async.catalog.durable._sync_data", fail)
    with pytest.raises(WriteError) as caught:
        log.append(part(2))
    assert str(caught.value) == (
        f"{path}: writing the checkpoint log failed: Input/output error. What was committed "
        "before is safe: free space or mend the disk, then run the same command again to go on."
    )
    assert log.entries == [LogHeader(output="catalog.parquet", url=""), part(1)]


CALLS = {"rename": (durable, "_renamed")}
"""Calls that are not in `os`."""


@pytest.mark.parametrize("call", ["fsync", "rename", "write"])
def test_a_failed_rewrite_leaves_the_old_log(
    path: str, log: CheckpointLog, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    log.rewrite([part(1)])
    before = read(path)

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(WriteError, match="No space left"):
        patch.setattr(*CALLS.get(call, (os, call)), fail)
        log.rewrite([part(1), part(2)])
    assert read(path) == before
    with pytest.raises(OutputLockedError):
        CheckpointLog(path, "catalog.parquet")
    log.close()
    CheckpointLog(path, "catalog.parquet").close()


def test_a_log_that_another_program_put_there_is_not_replaced(
    path: str, log: CheckpointLog
) -> None:
    os.unlink(path)
    write(path, b"theirs")
    with pytest.raises(ForeignOutputError, match="was put there or changed by another program"):
        log.rewrite([part(1)])
    assert read(path) == b"theirs"
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]


def test_an_entry_is_synced_before_append_returns(
    path: str, log: CheckpointLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.rewrite([])
    synced: list[bytes] = []
    monkeypatch.setattr(
        "rastermeta_async.catalog.durable._sync_data", lambda fd: synced.append(read(path))
    )
    log.append(part(1))
    assert synced == [encode(LogHeader(output="catalog.parquet", url="")) + encode(part(1))]


@settings(max_examples=20)
@given(st.lists(st.integers(1, 5), max_size=5))
def test_short_writes_are_continued(chunks: list[int]) -> None:
    sizes, written = iter(chunks), bytearray()

    def write_some(fd: int, data: memoryview) -> int:
        some = bytes(data[: next(sizes, len(data))])
        written.extend(some)
        return len(some)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", write_some)
        streams.write_all(99, CONTENT)
    assert bytes(written) == CONTENT
