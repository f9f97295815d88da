from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from conftest import Run
from hypothesis import given
from hypothesis import strategies as st

from rastermeta_async.model.errors import SettingsError, SourceError
from rastermeta_async.sources import paths
from rastermeta_async.sources.paths import (
    MAX_RECORD,
    AnyPath,
    AsyncIterableSource,
    ChainedSource,
    IterableSource,
    ListSource,
    Shard,
    ShardSource,
    Source,
    Splitter,
    StdinSource,
    SuffixSource,
    source_of,
)


async def paths_of(source: Source) -> list[bytes]:
    return [path async for block in source.blocks() for path in block]


# Cutting bytes into paths.

CASES = {
    "lines": (b"a.tif\nb.tif\n", b"\n", [b"a.tif", b"b.tif"]),
    "no last newline": (b"a.tif\nb.tif", b"\n", [b"a.tif", b"b.tif"]),
    "NULs": (b"a.tif\0b.tif\0", b"\0", [b"a.tif", b"b.tif"]),
    "no last NUL": (b"a.tif\0b.tif", b"\0", [b"a.tif", b"b.tif"]),
    "empty records": (b"\n\na.tif\n\n\nb.tif\n\n", b"\n", [b"a.tif", b"b.tif"]),
    "nothing but separators": (b"\0\0\0", b"\0", []),
    "nothing": (b"", b"\n", []),
    "carriage returns are kept": (b"a.tif\r\nb.tif\r\n", b"\n", [b"a.tif\r", b"b.tif\r"]),
    "blanks are kept": (b" a.tif \n\tb\n", b"\n", [b" a.tif ", b"\tb"]),
    "newlines between NULs": (b"a\nb.tif\0\n\0", b"\0", [b"a\nb.tif", b"\n"]),
    "NULs between newlines": (b"a\0b.tif\n", b"\n", [b"a\0b.tif"]),
    "no UTF-8": (b"\xff\xfe.tif\n\x80\n", b"\n", [b"\xff\xfe.tif", b"\x80"]),
    "two names of one file": (b"./a.tif\na.tif\n", b"\n", [b"./a.tif", b"a.tif"]),
    "a million bytes": (b"x" * 1_000_000 + b"\ny\n", b"\n", [b"x" * 1_000_000, b"y"]),
    "more than is kept": (
        b"x" * (3 * MAX_RECORD) + b"\ny" + b"z" * MAX_RECORD,
        b"\n",
        [b"x" * MAX_RECORD, b"y" + b"z" * (MAX_RECORD - 1)],
    ),
}


def from_pipe(tmp_path: Path, content: bytes, separator: bytes) -> list[bytes]:
    """Read paths from a pipe that a thread fills."""
    reading, writing = os.pipe()

    async def work() -> list[bytes]:
        def fill() -> None:
            with open(writing, "wb") as file:
                file.write(content)

        filling = asyncio.create_task(asyncio.to_thread(fill))
        paths = await paths_of(StdinSource(reading, separator))
        await filling
        return paths

    try:
        return asyncio.run(work())
    finally:
        os.close(reading)


def from_redirected_file(tmp_path: Path, content: bytes, separator: bytes) -> list[bytes]:
    (tmp_path / "list").write_bytes(content)
    with open(tmp_path / "list", "rb") as file:
        return asyncio.run(paths_of(StdinSource(file.fileno(), separator)))


def from_list(tmp_path: Path, content: bytes, separator: bytes) -> list[bytes]:
    (tmp_path / "list").write_bytes(content)
    return asyncio.run(paths_of(ListSource(str(tmp_path / "list"), separator)))


READERS = [from_pipe, from_redirected_file, from_list]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(("content", "separator", "expected"), CASES.values(), ids=CASES)
def test_bytes_become_paths(
    tmp_path: Path,
    read: Callable[[Path, bytes, bytes], list[bytes]],
    content: bytes,
    separator: bytes,
    expected: list[bytes],
) -> None:
    assert read(tmp_path, content, separator) == expected


@given(st.lists(st.binary(max_size=12).map(lambda data: data.replace(b"x", b"\n")), max_size=12))
def test_it_makes_no_difference_where_the_stream_is_cut(blocks: list[bytes]) -> None:
    longest = 5
    with patch("rastermeta_async.sources.paths.MAX_RECORD", longest):
        splitter = Splitter(b"\n")
        paths = [path for block in blocks for path in splitter.feed(block)] + splitter.finish()
    expected = [record[:longest] for record in b"".join(blocks).split(b"\n") if record]
    assert paths == expected


def test_a_record_without_end_is_not_kept() -> None:
    splitter = Splitter(b"\n")
    kept = [path for _ in range(100) for path in splitter.feed(b"x" * MAX_RECORD)]
    assert [len(path) for path in kept] == [MAX_RECORD]
    assert splitter.feed(b"x\ny\n") == [b"y"]


# Standard input.


def test_a_device_without_content_ends(run: Run) -> None:
    with open(os.devnull, "rb") as file:
        assert run(paths_of(StdinSource(file.fileno()))) == []


def test_stdin_that_cannot_be_read_is_explained(tmp_path: Path, run: Run) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(SourceError, match="Pipe paths in, name inputs, or give --from-file"):
            run(paths_of(StdinSource(fd)))
    finally:
        os.close(fd)


def test_paths_come_before_the_pipe_ends(run: Run) -> None:
    reading, writing = os.pipe()

    async def work() -> list[bytes]:
        blocks = StdinSource(reading).blocks()
        os.write(writing, b"a.tif\nb.tif\nc.t")
        first = await anext(blocks)
        os.close(writing)
        await blocks.aclose()  # type: ignore[attr-defined]  # it is an asynchronous generator
        return first

    assert run(work()) == [b"a.tif", b"b.tif"]
    os.close(reading)


def test_leaving_a_silent_pipe_frees_its_thread(run: Run) -> None:
    """`run` closes the loop, which waits for threads: it would not return."""
    reading, writing = os.pipe()

    async def work() -> None:
        blocks = StdinSource(reading).blocks()
        waiting = asyncio.ensure_future(anext(blocks))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.wait({waiting})

    run(work())
    os.close(reading)
    os.close(writing)


def test_how_much_of_a_redirected_file_was_read(tmp_path: Path, run: Run) -> None:
    (tmp_path / "list").write_bytes(b"a\n" * 5)
    with open(tmp_path / "list", "rb") as file:
        source = StdinSource(file.fileno())
        assert source.fraction() == 0.0
        run(paths_of(source))
        assert source.fraction() == 1.0


def test_of_a_file_that_grows_no_more_than_all_is_read(tmp_path: Path, run: Run) -> None:
    """A log that is written while it is read, as a list or redirected."""
    path = tmp_path / "list"

    async def work(source: StdinSource | ListSource) -> float | None:
        async for _ in source.blocks():
            if path.stat().st_size < 10:
                with path.open("ab") as more:
                    more.write(b"b\n" * 10)
        return source.fraction()

    for from_stdin in (True, False):
        path.write_bytes(b"a\n")
        with open(path, "rb") as file:
            source = StdinSource(file.fileno()) if from_stdin else ListSource(str(path))
            assert run(work(source)) == 1.0


def test_the_size_of_a_pipe_is_not_known(run: Run) -> None:
    reading, writing = os.pipe()
    os.close(writing)
    source = StdinSource(reading)
    run(paths_of(source))
    assert source.fraction() is None
    os.close(reading)


# Lists.


@pytest.mark.parametrize(("name", "reason"), [("no", "No such file"), (".", "Is a directory")])
def test_a_list_that_cannot_be_read_is_named(
    tmp_path: Path, run: Run, name: str, reason: str
) -> None:
    path = os.path.join(tmp_path, name)
    with pytest.raises(SourceError, match=reason) as error:
        run(paths_of(ListSource(path)))
    assert str(error.value).startswith(f"{path}: the list of paths cannot be read")


def test_how_much_of_a_list_was_read(tmp_path: Path, run: Run) -> None:
    (tmp_path / "list").write_bytes(b"a\nb\n")
    source = ListSource(str(tmp_path / "list"))
    assert source.fraction() is None
    run(paths_of(source))
    assert source.fraction() == 1.0


# Iterables.


def test_any_kind_of_path_in_any_iterable(run: Run) -> None:
    names: list[AnyPath] = ["a", b"\xff", Path("c"), "\udcff"]
    assert run(paths_of(IterableSource(iter(names)))) == [b"a", b"\xff", b"c", b"\xff"]


def test_an_iterable_is_advanced_only_when_asked(run: Run) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "a"

    async def work() -> None:
        blocks = IterableSource(endless()).blocks()
        await anext(blocks)

    run(work())
    assert taken <= 1000


def test_a_blocking_iterable_does_not_block_the_loop(run: Run) -> None:
    async def work() -> list[bytes]:
        loop = asyncio.get_running_loop()

        def asking() -> Iterator[str]:
            answer = asyncio.run_coroutine_threadsafe(asyncio.sleep(0, "answer"), loop)
            yield answer.result(timeout=10)

        return await paths_of(IterableSource(asking()))

    assert run(work()) == [b"answer"]


def test_what_came_of_an_iterable_that_blocks_is_handed_on(run: Run) -> None:
    go_on = threading.Semaphore(0)

    def slow() -> Iterator[str]:
        for some in ("ab", "c", "d"):
            yield from some
            assert go_on.acquire(timeout=10)

    async def work() -> list[list[bytes]]:
        found = []
        async for block in IterableSource(slow()).blocks():
            found.append(block)
            go_on.release()
        return found

    assert run(work()) == [[b"a", b"b"], [b"c"], [b"d"]]


def test_no_path_of_a_slow_iterable_is_lost_while_its_reader_is_slower(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that advances it comes to the end of a block while the one before is read."""
    monkeypatch.setattr(paths, "_PATHS_A_BLOCK", 4)
    monkeypatch.setattr(paths, "_POLL_SECONDS", 0.01)

    def slowly() -> Iterator[bytes]:
        for number in range(10):
            time.sleep(0.02)
            yield b"%d" % number

    async def work() -> list[bytes]:
        found = []
        async for block in IterableSource(slowly()).blocks():
            found += block
            await asyncio.sleep(0.2)
        return found

    assert run(work()) == [b"%d" % number for number in range(10)]


def test_an_error_in_an_iterable_is_raised(run: Run) -> None:
    def failing() -> Iterator[str]:
        yield "a"
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        run(paths_of(IterableSource(failing())))


def test_how_much_of_a_sequence_was_taken(run: Run) -> None:
    source = IterableSource(["a", "b"])
    assert source.fraction() == 0.0
    run(paths_of(source))
    assert source.fraction() == 1.0
    assert IterableSource(iter("ab")).fraction() is None


async def slowly() -> AsyncIterator[str | bytes]:
    yield "a"
    await asyncio.sleep(0)
    yield b"\xff"


def test_paths_of_an_asynchronous_iterable(run: Run) -> None:
    assert run(paths_of(AsyncIterableSource(slowly()))) == [b"a", b"\xff"]


def test_sources_one_after_the_other(run: Run) -> None:
    chain = ChainedSource([IterableSource(["a", "b"]), IterableSource(["c"])])
    assert chain.fraction() is None
    assert run(paths_of(chain)) == [b"a", b"b", b"c"]


def test_endings_are_those_of_names_not_of_what_signs_a_url(run: Run) -> None:
    paths = ["https://h/a.TIF?sig=b.xml", "https://h/a.xml?b.tif", "s3://b/a?.tif", "a.tif", "tif"]
    source = SuffixSource(IterableSource(paths), (b".tif", b".jp2"))
    assert run(paths_of(source)) == [b"https://h/a.TIF?sig=b.xml", b"s3://b/a?.tif", b"a.tif"]
    assert source.fraction() == 1.0


def test_what_holds_paths_becomes_a_source() -> None:
    own = ListSource("list")
    assert isinstance(source_of(["a"]), IterableSource)
    assert isinstance(source_of(slowly()), AsyncIterableSource)
    assert source_of(own) is own


@pytest.mark.parametrize("single", ["a.tif", b"a.tif", Path("a.tif")])
def test_one_path_is_not_several(single: Any) -> None:
    with pytest.raises(SourceError, match=r"give \[.*a.tif.*\]"):
        source_of(single)


# Shards.


def test_each_path_is_in_one_shard_and_the_shards_are_of_like_size(run: Run) -> None:
    paths = [b"/archive/%d/scene_%05d.tif" % (n % 7, n) for n in range(20_000)] + [b"\xff\n", b"x"]
    shards = [ShardSource(IterableSource(paths), Shard(index, 5)) for index in range(5)]
    found = [run(paths_of(shard)) for shard in shards]
    assert sorted(itertools.chain(*found)) == sorted(paths)
    for shard, held in zip(found, map(set, found), strict=True):
        assert shard == [path for path in paths if path in held]
    assert {3800 < len(shard) < 4200 for shard in found} == {True}


def test_a_path_is_in_the_same_shard_for_ever_and_whatever_signs_it() -> None:
    known = {b"/archive/a.tif": 4, b"s3://bucket/b.tif": 2, b"\xff\xfe": 1}
    for path, index in known.items():
        assert [Shard(at, 10).holds(path) for at in range(10)] == [at == index for at in range(10)]
    signed = [b"https://host/a.tif?X-Amz-Signature=%d" % number for number in range(20)]
    assert len({tuple(Shard(at, 10).holds(url) for at in range(10)) for url in signed}) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4/4", "there is no shard 4/4: the indices begin with 0, so 4 shards are 0/4 to 3/4"),
        ("0/0", "there is no shard 0/0"), ("1", "is no shard"), ("-1/4", "is no shard"),
        ("1/4/2", "is no shard"), ("", "is no shard"), ("٣/4", "is no shard"),
    ],
)  # fmt: skip
def test_what_is_no_shard_is_refused(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Shard.of(text)
    assert Shard.of("3/4") == Shard(3, 4)
