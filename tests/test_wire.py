from __future__ import annotations

import asyncio
import pickle
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rastermeta_async.model.settings import Access
from rastermeta_async.model.urls import FoundPath, Listed
from rastermeta_async.pools.protocol import (
    OpenFiles,
    Reply,
    ReplyKind,
    WorkerConfig,
    encode_job,
    encode_reply,
    mark_of,
    read_job,
    read_reply,
)
from rastermeta_async.sources.paths import MAX_RECORD


def stream_of(content: bytes) -> asyncio.StreamReader:
    stream = asyncio.StreamReader()
    stream.feed_data(content)
    stream.feed_eof()
    return stream


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.lists(st.binary()))))
def test_jobs_arrive_as_they_were_sent(jobs: list[tuple[int, list[bytes]]]) -> None:
    async def receive() -> list[tuple[int, list[bytes]]]:
        stream = stream_of(b"".join(encode_job(*job) for job in jobs))
        received = [await read_job(stream) for _ in jobs]
        with pytest.raises(asyncio.IncompleteReadError):
            await read_job(stream)
        return received

    assert asyncio.run(receive()) == jobs


def test_which_paths_were_found_arrives_with_them() -> None:
    paths = [b"named", FoundPath(b"found"), b"", FoundPath(b""), FoundPath(b"x" * MAX_RECORD)]

    async def receive() -> list[bytes]:
        _, received = await read_job(stream_of(encode_job(1, paths)))
        return received

    received = asyncio.run(receive())
    assert received == paths
    assert [type(path) for path in received] == [type(path) for path in paths]
    listed = Listed.of("s3://bucket/a.tif", 1, "etag")
    assert pickle.loads(pickle.dumps(paths[1])) == paths[1]
    assert type(pickle.loads(pickle.dumps(paths[1]))) is FoundPath
    assert pickle.loads(pickle.dumps(listed)).etag == "etag"


@given(
    st.lists(st.builds(Reply, st.sampled_from(ReplyKind), st.integers(0, 2**32 - 1), st.binary()))
)
def test_replies_arrive_as_they_were_sent(replies: list[Reply]) -> None:
    async def receive() -> list[Reply]:
        stream = stream_of(b"".join(encode_reply(*reply) for reply in replies))
        received = [await read_reply(stream) for _ in replies]
        with pytest.raises(asyncio.IncompleteReadError):
            await read_reply(stream)
        return received

    assert asyncio.run(receive()) == replies


@pytest.mark.parametrize("drivers", [None, (), ("GTiff", "VRT")])
def test_a_configuration_arrives_as_it_was_given(drivers: tuple[str, ...] | None) -> None:
    config = WorkerConfig(1, 2, 0.5, "module:function", drivers, Access(region="x"), 3, 4, 5, 6, 7)
    assert WorkerConfig.from_json(config.as_json()) == config


def test_both_ends_see_what_is_open() -> None:
    ours = OpenFiles.create(3)
    theirs = OpenFiles(ours.fd, 3)
    before = time.monotonic()
    theirs.opened(0, b"/a.tif")
    theirs.opened(2, b"/b.tif")
    assert [at.mark for at in ours.openings()] == [mark_of(b"/a.tif"), mark_of(b"/b.tif")]
    assert all(before <= at.since <= time.monotonic() for at in ours.openings())
    theirs.closed(0)
    assert [at.mark for at in ours.openings()] == [mark_of(b"/b.tif")]
    ours.close()


def test_a_file_that_is_waited_for_no_longer_takes_no_other_off_the_board() -> None:
    open_files = OpenFiles.create(3)
    for slot, path in enumerate((b"/a.tif", b"/b.tif", b"/c.tif")):
        open_files.opened(slot, path)
    open_files.forget(b"/b.tif")
    assert [at.mark for at in open_files.openings()] == [mark_of(b"/a.tif"), mark_of(b"/c.tif")]
    open_files.close()


def test_paths_of_one_archive_have_marks_of_their_own() -> None:
    """Names of equal length that differ in a few digits, as archives have them."""
    assert len({mark_of(b"/archive/%07d.tif" % number) for number in range(300_000)}) == 300_000
