from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import Run
from factory import exact, path_bytes, records_of

import rastermeta_async
from rastermeta_async import api, remaining
from rastermeta_async.api import Outcome, extract, extract_to, extract_to_stream
from rastermeta_async.catalog import durable, sink
from rastermeta_async.catalog.json_rows import from_lines
from rastermeta_async.catalog.names import log_path, parts_folder
from rastermeta_async.catalog.output import open_output
from rastermeta_async.model import path_set
from rastermeta_async.model.errors import OutputLockedError, SourceError
from rastermeta_async.model.record import Record
from rastermeta_async.model.settings import Settings
from rastermeta_async.one_file import read_record
from rastermeta_async.progress import Progress
from rastermeta_async.readers.router import Router

PATIENCE = 2


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The paths that were read, in order."""
    read = Router.read
    paths: list[bytes] = []

    def counted(self: Router, path: bytes) -> Record:
        paths.append(path)
        return read(self, path)

    monkeypatch.setattr(Router, "read", counted)
    return paths


@pytest.fixture
def files(sample_archive: Path) -> list[str]:
    """Every file of the sample archive: 40 are read, three are not."""
    return sorted(str(path) for path in sample_archive.rglob("*") if path.is_file())


@pytest.fixture
def catalog(tmp_path: Path) -> str:
    return str(tmp_path / "catalog.parquet")


def rows_in(catalog: str) -> list[Record]:
    return records_of([pq.read_table(catalog)])


def by_path(records: list[Record]) -> list[Record]:
    return sorted(records, key=path_bytes)


def failures_in(records: list[Record]) -> int:
    return sum(not record.ok for record in records)


async def collect(paths: Any, settings: Settings | None = None) -> list[Record]:
    return [record async for record in extract(paths, settings)]


# The package.


def test_public_names_can_be_imported() -> None:
    missing = [name for name in rastermeta_async.__all__ if not hasattr(rastermeta_async, name)]
    assert missing == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rastermeta_async.nothing


# One record.


@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
def test_read_record_takes_any_kind_of_path(files: list[str], kind: Any) -> None:
    record = read_record(kind(files[0]))
    assert (record.status, record.filepath) == ("success", files[0])


def test_read_record_raises_nothing() -> None:
    assert read_record("/missing.tif").status == "error"


# A stream of records.


def test_extract_gives_what_read_record_gives(run: Run, files: list[str]) -> None:
    expected = by_path([read_record(path) for path in files])
    assert exact(by_path(run(collect(files)))) == exact(expected)


def test_extract_reads_each_path_once(run: Run, files: list[str], reads: list[bytes]) -> None:
    records = run(collect([*files, *files[:7]]))
    assert sorted(path_bytes(record) for record in records) == sorted(map(os.fsencode, files))
    assert len(reads) == len(files)


def test_extract_takes_an_asynchronous_iterable(run: Run, files: list[str]) -> None:
    async def found() -> AsyncIterator[str]:
        for path in files[:3]:
            yield path

    assert len(run(collect(found()))) == 3


def test_extract_of_nothing(run: Run) -> None:
    assert run(collect([])) == []


def test_extract_of_one_path_is_explained(run: Run) -> None:
    with pytest.raises(SourceError, match="expected several paths, not one"):
        run(collect("a.tif"))


def test_an_error_of_the_source_comes_out_of_extract(run: Run, files: list[str]) -> None:
    async def failing() -> AsyncIterator[str]:
        yield files[0]
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        run(collect(failing()))


def test_extract_uses_the_settings(run: Run, files: list[str]) -> None:
    tif = next(path for path in files if path.endswith("map.jp2"))
    (record,) = run(collect([tif], Settings(drivers=("GTiff",))))
    assert record.status == "error"


class Endless:
    """Paths without end, that tell when they are no longer wanted."""

    def __init__(self, path: str) -> None:
        self.taken = 0
        self.closed = False
        self._path = path

    async def blocks(self) -> AsyncIterator[list[bytes]]:
        try:
            while True:
                self.taken += 1
                yield [os.fsencode(f"{self._path}.{self.taken}")]
                await asyncio.sleep(0)
        finally:
            self.closed = True

    def fraction(self) -> None:
        return None


async def until_quiet(source: Endless) -> None:
    """Return when the run has taken all that it takes without a consumer."""
    before, same = source.taken, 0
    while same < 5:
        await asyncio.sleep(0.02)
        same = same + 1 if source.taken == before else 0
        before = source.taken


@pytest.mark.parametrize("wait", [False, True], ids=["at once", "with full queues"])
def test_extract_closed_early_releases_everything(run: Run, tmp_path: Path, wait: bool) -> None:
    """`run` sees that no task is left behind."""
    source = Endless(str(tmp_path / "missing"))

    async def work() -> None:
        settings = Settings(concurrency=1, queue_size=1)
        stream: Any = extract(source, settings)
        async with contextlib.aclosing(stream) as records:
            await anext(records)
            if wait:
                await until_quiet(source)
            closing = asyncio.create_task(records.aclose())
            done, _ = await asyncio.wait({closing}, timeout=PATIENCE)
            if not done:
                closing.cancel()
                await asyncio.wait({closing})
            assert done, "closing must not wait for a consumer that is gone"

    run(work())
    assert source.closed


def test_extract_dropped_without_closing_ends_too(run: Run, tmp_path: Path) -> None:
    source = Endless(str(tmp_path / "missing"))

    async def drop() -> None:
        async for _ in extract(source, Settings(concurrency=1, queue_size=1)):
            return

    async def work() -> None:
        await drop()
        gc.collect()
        for _ in range(200):
            await asyncio.sleep(0.01)
            if source.closed:
                return

    run(work())
    assert source.closed


def test_cancelling_the_consumer_of_extract_cancels_it(run: Run, tmp_path: Path) -> None:
    source = Endless(str(tmp_path / "missing"))

    async def consume() -> None:
        async for _ in extract(source, Settings(concurrency=1, queue_size=1)):
            await asyncio.Event().wait()

    async def work() -> bool:
        consuming = asyncio.create_task(consume())
        while not source.taken:
            await asyncio.sleep(0.001)
        await until_quiet(source)
        consuming.cancel()
        done, _ = await asyncio.wait({consuming}, timeout=PATIENCE)
        if not done:
            consuming.cancel()
            await asyncio.wait({consuming})
        return bool(done) and consuming.cancelled()

    assert run(work())
    assert source.closed


def test_a_slow_consumer_slows_the_source(run: Run, tmp_path: Path) -> None:
    source = Endless(str(tmp_path / "missing"))

    async def work() -> None:
        consuming: Any = extract(source, Settings(concurrency=1, queue_size=1))
        await anext(consuming)
        await until_quiet(source)
        taken = source.taken
        drained = [await anext(consuming) for _ in range(taken)]
        assert len(drained) == taken
        await consuming.aclose()

    run(work())
    assert source.taken < 1000


# A catalog.


def test_extract_to_makes_a_catalog(run: Run, files: list[str], catalog: str) -> None:
    outcome = run(extract_to(catalog, files))
    expected = by_path([read_record(path) for path in files])
    assert exact(rows_in(catalog)) == exact(expected)
    assert outcome == Outcome(len(files), failures_in(expected), complete=True)
    assert not os.path.exists(parts_folder(catalog))


@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
def test_the_output_is_any_kind_of_path(
    run: Run, files: list[str], catalog: str, kind: Any
) -> None:
    run(extract_to(kind(catalog), files[:1]))
    assert len(rows_in(catalog)) == 1


def test_a_second_run_reads_nothing(
    run: Run, files: list[str], catalog: str, reads: list[bytes]
) -> None:
    first = run(extract_to(catalog, files))
    content = Path(catalog).read_bytes()
    reads.clear()
    progress = Progress()
    second = run(extract_to(catalog, files, progress=progress))
    assert reads == []
    assert second == first
    assert (progress.done, progress.skipped) == (0, len(files))
    assert Path(catalog).read_bytes() == content


def test_new_paths_are_added(run: Run, files: list[str], catalog: str, reads: list[bytes]) -> None:
    run(extract_to(catalog, files[:10]))
    reads.clear()
    outcome = run(extract_to(catalog, files))
    assert sorted(reads) == sorted(map(os.fsencode, files[10:]))
    assert outcome.rows == len(files)
    assert [row.filepath for row in rows_in(catalog)] == files


def test_overwrite_reads_everything_again(
    run: Run, files: list[str], catalog: str, reads: list[bytes]
) -> None:
    run(extract_to(catalog, files[:10]))
    reads.clear()
    outcome = run(extract_to(catalog, files[5:12], overwrite=True))
    assert len(reads) == outcome.rows == 7
    assert [row.filepath for row in rows_in(catalog)] == files[5:12]


def test_retry_failed_reads_failures_again(
    run: Run, files: list[str], catalog: str, reads: list[bytes], tmp_path: Path
) -> None:
    late = tmp_path / "late.tif"
    first = run(extract_to(catalog, [files[0], str(late)]))
    assert first == Outcome(2, 1, complete=True)
    late.write_bytes(Path(files[1]).read_bytes())
    reads.clear()
    second = run(extract_to(catalog, [files[0], str(late)], Settings(retry_failed=True)))
    assert reads == [os.fsencode(late)]
    assert second == Outcome(2, 0, complete=True)
    assert [row.status for row in rows_in(catalog)] == ["success"] * 2


def test_failures_stay_unless_they_are_to_be_retried(
    run: Run, catalog: str, reads: list[bytes], tmp_path: Path
) -> None:
    for _ in range(2):
        assert run(extract_to(catalog, [tmp_path / "no.tif"])) == Outcome(1, 1, complete=True)
    assert len(reads) == 1


def test_a_stopped_run_resumes(
    run: Run, files: list[str], catalog: str, reads: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = asyncio.Event()
    progress = Progress()

    async def until_stopped() -> Outcome:
        loop = asyncio.get_running_loop()
        stopped = asyncio.Event()

        def paths() -> Iterator[str]:
            yield from files[:5]
            loop.call_soon_threadsafe(stopped.set)

        async def given() -> AsyncIterator[str]:
            for path in paths():
                yield path
            while progress.done < 5:
                await asyncio.sleep(0.001)
            stop.set()
            await asyncio.Event().wait()

        return await extract_to(catalog, given(), progress=progress, stop=stop)

    failing = failures_in([read_record(path) for path in files[:5]])
    reads.clear()
    assert run(until_stopped()) == Outcome(5, failing, complete=False)
    assert not os.path.exists(catalog)
    assert len(reads) == 5
    reads.clear()
    outcome = run(extract_to(catalog, files))
    assert sorted(reads) == sorted(map(os.fsencode, files[5:]))
    assert (outcome.rows, outcome.complete) == (len(files), True)
    assert [row.filepath for row in rows_in(catalog)] == files


def test_stopped_before_the_start(
    run: Run, files: list[str], catalog: str, reads: list[bytes]
) -> None:
    async def work() -> Outcome:
        stop = asyncio.Event()
        stop.set()
        return await extract_to(catalog, files, stop=stop)

    assert run(work()) == Outcome(0, 0, complete=False)
    assert reads == []


def test_a_stopped_run_reads_no_further_file_of_its_chunks(
    run: Run, catalog: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, count = Router.read, itertools.count(1)
    last = 0

    async def work() -> Outcome:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()

        def slow(self: Router, path: bytes) -> Record:
            nonlocal last
            last = next(count)
            if last == 3:
                loop.call_soon_threadsafe(stop.set)
            time.sleep(0.005)
            return read(self, path)

        monkeypatch.setattr(Router, "read", slow)
        paths = [f"/missing/{number}" for number in range(500)]
        return await extract_to(catalog, paths, Settings(concurrency=1), stop=stop)

    outcome = run(work())
    assert outcome.rows == last < 250


def test_what_was_committed_survives_an_error_of_the_source(
    run: Run, files: list[str], catalog: str, reads: list[bytes]
) -> None:
    progress = Progress()

    async def failing() -> AsyncIterator[str]:
        for path in files[:4]:
            yield path
        while progress.committed < 4:
            await asyncio.sleep(0.001)
        raise LookupError

    with pytest.raises(LookupError):
        run(extract_to(catalog, failing(), Settings(batch_size=1), progress=progress))
    reads.clear()
    run(extract_to(catalog, files[:6]))
    assert sorted(reads) == sorted(map(os.fsencode, files[4:6]))


def test_an_error_frees_the_output(run: Run, files: list[str], catalog: str) -> None:
    async def failing() -> AsyncIterator[str]:
        raise LookupError
        yield ""

    for _ in range(2):
        with pytest.raises(LookupError):
            run(extract_to(catalog, failing()))
    assert run(extract_to(catalog, files[:1])).rows == 1


def test_cancelled_while_the_output_is_opened_it_is_free_again(
    run: Run, files: list[str], catalog: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, go_on = threading.Event(), threading.Event()

    def slow(*given: Any, **more: Any) -> Any:
        output = open_output(*given, **more)
        opened.set()
        assert go_on.wait(PATIENCE)
        return output

    async def work() -> Outcome:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(api, "open_output", slow)
            first = asyncio.create_task(extract_to(catalog, files))
            assert await asyncio.to_thread(opened.wait, PATIENCE)
            first.cancel()
            await asyncio.sleep(0)
            go_on.set()
            await asyncio.wait({first})
        return await extract_to(catalog, files[:1])

    assert run(work()).rows == 1
    opened.clear()
    go_on.clear()


def test_a_duplicate_far_back_is_read_twice_and_is_in_the_catalog_once(
    run: Run, files: list[str], catalog: str, reads: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what is remembered of the paths of a run would grow with it."""
    monkeypatch.setattr(api, "DUPLICATE_WINDOW", 4)
    monkeypatch.setattr(path_set, "_BUFFERED", 4)

    async def given() -> AsyncIterator[str]:
        for path in [*files[:20], files[19], files[0]]:
            yield path

    assert run(extract_to(catalog, given())).rows == 20
    assert len(reads) == 21


def test_an_update_asks_a_disk_no_longer_than_a_file_may_take(
    run: Run, files: list[str], catalog: str, reads: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = threading.Event()
    monkeypatch.setattr(remaining, "stamp_of", lambda _: answer.wait(10 * PATIENCE) and b"")

    async def work() -> Outcome:
        await extract_to(catalog, files[:3])
        reads.clear()
        async with asyncio.timeout(5 * PATIENCE):
            return await extract_to(catalog, files[:3], Settings(update=True, timeout=0.2))

    try:
        assert run(work()).rows == 3
    finally:
        answer.set()
    assert len(reads) == 3


def test_a_second_run_on_one_output_is_refused(run: Run, files: list[str], catalog: str) -> None:
    async def second(at_work: Path) -> AsyncIterator[str]:
        assert at_work.exists()
        with pytest.raises(OutputLockedError):
            await extract_to(catalog, files)
        yield files[0]

    assert run(extract_to(catalog, second(Path(log_path(catalog))))).rows == 1


def test_progress_is_kept_up_to_date(run: Run, files: list[str], catalog: str) -> None:
    progress = Progress()
    outcome = run(extract_to(catalog, [*files, files[0]], progress=progress))
    assert (progress.done, progress.committed) == (len(files), len(files))
    assert (progress.failures, progress.skipped) == (outcome.failures, 1)
    assert (progress.fraction, progress.sealing) == (1.0, True)


@pytest.mark.parametrize("suffix", [".ndjson", ".jsonl", ".json"])
def test_other_formats(run: Run, files: list[str], tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"catalog{suffix}"
    assert run(extract_to(output, files)).rows == len(files)
    text = output.read_text(encoding="utf-8")
    rows = json.loads(text) if suffix == ".json" else list(map(json.loads, text.splitlines()))
    assert [row["filepath"] for row in rows] == files


# A stream of lines.


@pytest.mark.campaign
def test_extract_to_stream_writes_lines(run: Run, files: list[str]) -> None:
    reading, writing = os.pipe()
    content: list[bytes] = []

    def drain() -> None:
        with open(reading, "rb") as file:
            content.append(file.read())

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        outcome = run(extract_to_stream(writing, [*files, files[0]]))
    finally:
        os.close(writing)
        thread.join()
    records = records_of([from_lines(content[0].decode().splitlines())])
    expected = by_path([read_record(path) for path in files])
    assert exact(by_path(records)) == exact(expected)
    assert outcome == Outcome(len(files), failures_in(expected), complete=True)


def test_a_stream_whose_reader_has_gone(run: Run, files: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with pytest.raises(BrokenPipeError):
            run(extract_to_stream(writing, files))
    finally:
        os.close(writing)


def test_a_call_that_is_cancelled_ends_when_its_part_is_written(
    run: Run, catalog: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next call would have the lock, and its first part would be overwritten."""
    publish, begun, go_on = durable.publish, threading.Event(), threading.Event()

    def slow(temporary: str, path: str) -> None:
        if not begun.is_set():
            begun.set()
            assert go_on.wait(PATIENCE)
        publish(temporary, path)

    monkeypatch.setattr(sink, "publish", slow)

    async def work() -> Outcome:
        settings = Settings(batch_size=2)
        first = asyncio.create_task(extract_to(catalog, ["/no/1", "/no/2"], settings))
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        first.cancel()
        await asyncio.wait({first}, timeout=0.2)
        with pytest.raises(OutputLockedError):
            await extract_to(catalog, [])
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await extract_to(catalog, ["/no/3", "/no/4"], settings)

    assert run(work()).complete
    # The first part is there or not, as after a crash; of the second call nothing is missing.
    assert {row.filepath for row in rows_in(catalog)} >= {"/no/3", "/no/4"}
