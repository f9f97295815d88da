from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from types import SimpleNamespace, TracebackType
from typing import Any, NoReturn, Self

import pyarrow as pa
import pytest
from conftest import Run
from factory import failed, paths_of, record

from rastermeta_async.catalog.changes import Unchanged
from rastermeta_async.catalog.checkpoint import Entry, Part
from rastermeta_async.catalog.sink import Encoded, Sink
from rastermeta_async.model.channels import until, with_pauses
from rastermeta_async.model.path_set import PathSet
from rastermeta_async.model.record import Record, to_batch
from rastermeta_async.model.row_ops import Counts, row_bytes
from rastermeta_async.model.settings import (
    BATCH_BYTES,
    CHUNK_BYTES,
    CHUNK_PATHS,
    MAX_CHUNK_PATHS,
    Settings,
)
from rastermeta_async.model.timeouts import AT_ONCE
from rastermeta_async.pipeline import Consumer, Rows, committer
from rastermeta_async.pipeline import run as run_pipeline
from rastermeta_async.pools.base import Pool
from rastermeta_async.progress import Progress
from rastermeta_async.remaining import Inputs

PATIENCE = 20


class BrokenError(Exception):
    """What a broken part raises."""


class FakeSource:
    """Yields blocks of paths, notes how far it is, and may break at the end."""

    def __init__(
        self, blocks: Sequence[list[bytes]], breaks: bool = False, waits: bool = False
    ) -> None:
        self.taken = 0
        self.closed = False
        self._blocks = blocks
        self._breaks = breaks
        self._waits = waits

    async def blocks(self) -> AsyncIterator[list[bytes]]:
        try:
            for block in self._blocks:
                self.taken += len(block)
                yield block
            if self._breaks:
                raise BrokenError("source")
            if self._waits:
                await asyncio.Event().wait()
        finally:
            self.closed = True

    def fraction(self) -> float | None:
        return self.taken / sum(map(len, self._blocks))


class FakePool:
    """Makes records up, without threads."""

    def __init__(
        self, capacity: int = 2, answer: Callable[[bytes], Record] = record, breaks: bool = False
    ) -> None:
        self.capacity = capacity
        self.chunks: list[list[bytes]] = []
        self.reading = asyncio.Event()
        self.release = asyncio.Event()
        self.release.set()
        self._answer = answer
        self._breaks = breaks

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    async def read(self, paths: Sequence[bytes]) -> AsyncIterator[pa.RecordBatch]:
        self.chunks.append(list(paths))
        self.reading.set()
        await self.release.wait()
        if self._breaks:
            raise BrokenError("pool")
        yield to_batch([self._answer(path) for path in paths])

    def stop(self) -> None: ...


class Storage(Sink):
    """A sink and a log that note what they are asked to keep, in one list."""

    def __init__(self, *, sink_breaks: bool = False, log_breaks: bool = False) -> None:
        self.events: list[tuple[str, object]] = []
        self.tables: list[pa.Table] = []
        self.encoded = 0
        self.committing = threading.Event()
        self.release = threading.Event()
        self.release.set()
        self._sink_breaks = sink_breaks
        self._log_breaks = log_breaks

    def encode(self, rows: pa.Table) -> Encoded:
        out = pa.BufferOutputStream()
        with pa.ipc.new_stream(out, rows.schema) as stream:
            stream.write_table(rows)
        self.encoded += rows.num_rows
        return Encoded(out.getvalue().to_pybytes(), "", rows.num_rows, Counts(0))

    def write(self, batch: Encoded) -> Part:
        self.committing.set()
        assert self.release.wait(PATIENCE)
        if self._sink_breaks:
            raise BrokenError("sink")
        with pa.ipc.open_stream(batch.content) as stream:
            self.tables.append(stream.read_all())
        seq = len(self.tables)
        self.events.append(("sink", seq))
        return Part(seq, f"part-{seq}", batch.rows, 0, 0, "")

    def append(self, entry: Entry) -> None:
        if self._log_breaks:
            raise BrokenError("log")
        assert isinstance(entry, Part)
        self.events.append(("log", entry.seq))

    @property
    def paths(self) -> list[bytes]:
        return paths_of(self.tables)


def names(count: int) -> list[bytes]:
    return [b"%05d.tif" % at for at in range(count)]


def single(paths: Sequence[bytes]) -> list[list[bytes]]:
    return [[path] for path in paths]


async def go(
    source: FakeSource,
    pool: Pool,
    storage: Storage,
    settings: Settings | None = None,
    *,
    progress: Progress | None = None,
    stop: asyncio.Event | None = None,
    finished: Sequence[bytes] = (),
    consume: Consumer | None = None,
) -> Progress:
    settings = settings or Settings()
    progress = progress or Progress()
    done = PathSet()
    done.update(finished)
    inputs = Inputs(source, done, PathSet())
    consume = consume or committer(storage, storage, settings, progress)
    await run_pipeline(inputs, pool, consume, settings, progress, stop or asyncio.Event())
    return progress


async def settled(figure: Callable[[], int]) -> int:
    """Return a figure once it has not changed for a while."""
    before, same = figure(), 0
    while same < 10:
        await asyncio.sleep(0.01)
        same = same + 1 if figure() == before else 0
        before = figure()
    return before


def test_every_path_is_read_and_kept_once(run: Run) -> None:
    storage = Storage()
    run(go(FakeSource([names(5000)]), FakePool(), storage))
    assert sorted(storage.paths) == names(5000)


def test_duplicates_are_read_once(run: Run) -> None:
    pool, storage = FakePool(), Storage()
    source = FakeSource([[b"a", b"b", b"a"], [b"b"], [b"./a", b"c"]])
    progress = run(go(source, pool, storage))
    assert sorted(path for chunk in pool.chunks for path in chunk) == [b"./a", b"a", b"b", b"c"]
    assert sorted(storage.paths) == [b"./a", b"a", b"b", b"c"]
    assert (progress.done, progress.skipped) == (4, 2)


def test_finished_paths_are_not_read(run: Run) -> None:
    storage = Storage()
    progress = run(go(FakeSource([names(4)]), FakePool(), storage, finished=names(3)))
    assert storage.paths == names(4)[3:]
    assert progress.skipped == 3


def test_nothing_to_read(run: Run) -> None:
    storage = Storage()
    progress = run(go(FakeSource([]), FakePool(), storage))
    assert storage.events == []
    assert progress.done == 0


def test_the_sink_comes_first_and_the_log_second(run: Run) -> None:
    storage = Storage()
    run(go(FakeSource(single(names(10))), FakePool(), storage, Settings(batch_size=4)))
    assert storage.events == [(kind, seq) for seq in (1, 2, 3) for kind in ("sink", "log")]
    assert [table.num_rows for table in storage.tables] == [4, 4, 2]


def test_nothing_is_logged_before_the_sink_is_done(run: Run) -> None:
    storage = Storage()
    storage.release.clear()

    async def work() -> list[tuple[str, object]]:
        running = asyncio.create_task(go(FakeSource([names(3)]), FakePool(), storage))
        await asyncio.to_thread(storage.committing.wait, PATIENCE)
        await asyncio.sleep(0.02)
        before = list(storage.events)
        storage.release.set()
        await running
        return before

    assert run(work()) == []
    assert storage.events == [("sink", 1), ("log", 1)]


def test_the_next_batch_is_encoded_while_one_is_written_but_no_further_one(run: Run) -> None:
    storage = Storage()
    storage.release.clear()

    async def work() -> tuple[int, int]:
        settings = Settings(batch_size=4)
        running = asyncio.create_task(go(FakeSource([names(80)]), FakePool(), storage, settings))
        await asyncio.to_thread(storage.committing.wait, PATIENCE)
        while storage.encoded < 8:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        ahead = storage.encoded, len(storage.tables)
        storage.release.set()
        await running
        return ahead

    assert run(work()) == (8, 0)
    assert storage.paths == names(80)
    assert storage.events == [(kind, seq) for seq in range(1, 21) for kind in ("sink", "log")]


def test_rows_that_cannot_be_encoded_end_the_run(run: Run) -> None:
    class Broken(Storage):
        def encode(self, rows: pa.Table) -> Encoded:
            raise BrokenError("encoding")

    storage = Broken()
    with pytest.raises(BrokenError, match="encoding"):
        run(go(FakeSource([names(10)]), FakePool(), storage))
    assert storage.events == []


def test_there_are_as_many_reads_at_once_as_the_pool_has_use_for_now(run: Run) -> None:
    """A cluster has workers that come and go."""

    at_once = 0
    seen: list[int] = []

    class Cluster(FakePool):
        async def read(self, paths: Sequence[bytes]) -> AsyncIterator[pa.RecordBatch]:
            nonlocal at_once
            at_once += 1
            seen.append(at_once)
            self.capacity = {20: 6, 60: 1}.get(len(seen), self.capacity)
            await asyncio.sleep(0.001)
            async for batch in super().read(paths):
                yield batch
            at_once -= 1

    pool, storage = Cluster(capacity=2), Storage()
    run(go(FakeSource(single(names(100))), pool, storage))
    assert sorted(storage.paths) == names(100)
    assert max(seen[:20]) == 2
    assert max(seen[20:60]) == 6
    assert max(seen[66:]) == 1


def test_a_batch_also_closes_at_a_size(run: Run) -> None:
    def answer(path: bytes) -> Record:
        return record(path, dataset_tags={"LARGE": "x" * 1024 * 1024})

    storage = Storage()
    run(go(FakeSource(single(names(20))), FakePool(answer=answer), storage))
    sizes = [
        sum(int(row_bytes(batch).sum()) for batch in table.to_batches()) for table in storage.tables
    ]
    assert sum(table.num_rows for table in storage.tables) == 20
    assert max(sizes) <= BATCH_BYTES


def test_chunks_are_bounded_by_paths_and_by_bytes(run: Run) -> None:
    pool = FakePool(capacity=1)
    long = [b"%d" % at + b"x" * (CHUNK_BYTES // 3) for at in range(8)]
    run(go(FakeSource([names(2 * CHUNK_PATHS + 10), long]), pool, Storage()))
    assert [len(chunk) for chunk in pool.chunks] == [174, 174, 174, 3, 3, 2]


@pytest.mark.parametrize(("rate", "lengths"), [(0, {250}), (3200, {334, 332}), (10**9, {1000})])
def test_chunks_are_longer_where_files_are_read_fast(
    run: Run, rate: int, lengths: set[int]
) -> None:
    """A chunk keeps one of the readers busy for a quarter of a second."""
    pool, started = FakePool(capacity=2), time.monotonic() - 1000
    progress = Progress(done=1000 * rate, started=started)
    run(go(FakeSource([names(1000)]), pool, Storage(), progress=progress))
    assert {len(chunk) for chunk in pool.chunks} == lengths


def test_a_short_block_is_spread_over_all_readers(run: Run) -> None:
    async def work() -> list[int]:
        pool = FakePool(capacity=4)
        await go(FakeSource([names(8)]), pool, Storage())
        return [len(chunk) for chunk in pool.chunks]

    assert run(work()) == [2, 2, 2, 2]


@pytest.mark.campaign
@pytest.mark.parametrize("count", [200, 2000])
def test_a_fast_source_waits_for_a_slow_sink(run: Run, count: int) -> None:
    """What is taken ahead depends on the settings, not on how much there is to take."""
    storage = Storage()
    storage.release.clear()
    settings = Settings(batch_size=5, concurrency=2, queue_size=4 * MAX_CHUNK_PATHS)
    source, pool = FakeSource(single(names(count))), FakePool(capacity=2)

    async def work() -> int:
        running = asyncio.create_task(go(source, pool, storage, settings))
        await asyncio.to_thread(storage.committing.wait, PATIENCE)
        taken = await settled(lambda: source.taken)
        storage.release.set()
        await running
        return taken

    being_written, encoded, complete = 5, 5, 5
    waiting_for_the_sink, in_readers, queued, in_hand = 4, 2, 4, 1
    most = being_written + encoded + complete + waiting_for_the_sink + in_readers + queued + in_hand
    assert 5 <= run(work()) <= most + 2
    assert len(storage.paths) == count


def test_no_more_paths_wait_than_settings_say_where_files_are_read_fast(run: Run) -> None:
    pool = FakePool(capacity=1)
    pool.release.clear()
    paths = names(10_000)
    source = FakeSource([paths[at : at + 500] for at in range(0, len(paths), 500)])
    settings = Settings(queue_size=2 * MAX_CHUNK_PATHS)

    async def work() -> int:
        progress = Progress(done=10**12)
        running = asyncio.create_task(go(source, pool, Storage(), settings, progress=progress))
        await pool.reading.wait()
        taken = await settled(lambda: progress.taken)
        pool.release.set()
        await running
        return taken

    being_read, in_hand = 500, 500
    assert run(work()) <= being_read + settings.queued_paths + in_hand


PARTS: dict[str, Callable[[], tuple[FakeSource, FakePool, Storage]]] = {
    "source": lambda: (FakeSource([names(50)], breaks=True), FakePool(), Storage()),
    "pool": lambda: (FakeSource(single(names(50))), FakePool(breaks=True), Storage()),
    "sink": lambda: (FakeSource(single(names(50))), FakePool(), Storage(sink_breaks=True)),
    "log": lambda: (FakeSource(single(names(50))), FakePool(), Storage(log_breaks=True)),
}


@pytest.mark.parametrize("part", PARTS)
def test_an_error_in_any_part_ends_the_run(run: Run, part: str) -> None:
    """It is raised itself, not in a group; `run` sees that no task is left behind."""
    source, pool, storage = PARTS[part]()
    with pytest.raises(BrokenError, match=part):
        run(go(source, pool, storage, Settings(batch_size=1)))
    assert source.closed


@pytest.mark.parametrize("part", PARTS)
def test_an_error_leaves_no_task_running(run: Run, part: str) -> None:
    source, pool, storage = PARTS[part]()

    async def work() -> set[asyncio.Task[object]]:
        before = asyncio.all_tasks()
        with pytest.raises(BrokenError, match=part):
            await go(source, pool, storage, Settings(batch_size=1))
        for _ in range(5):
            await asyncio.sleep(0)
        return asyncio.all_tasks() - before

    assert run(work()) == set()


def test_rows_that_the_log_does_not_have_are_not_counted_as_safe(run: Run) -> None:
    progress = Progress()
    with pytest.raises(BrokenError):
        run(go(FakeSource([names(5)]), FakePool(), Storage(log_breaks=True), progress=progress))
    assert (progress.done, progress.committed) == (5, 0)


def test_cancelling_the_run_ends_its_parts(run: Run) -> None:
    source = FakeSource(single(names(500)))

    async def work() -> bool:
        pool = FakePool()
        pool.release.clear()
        running = asyncio.create_task(go(source, pool, Storage()))
        await pool.reading.wait()
        running.cancel()
        await asyncio.wait({running})
        return running.cancelled()

    assert run(work())
    assert source.closed


class SlowLog(Storage):
    """Takes its time to keep a note of what the sink has kept."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on = threading.Event(), threading.Event()

    def append(self, entry: Entry) -> None:
        self.begun.set()
        assert self.go_on.wait(PATIENCE)
        super().append(entry)


def test_a_run_that_is_cancelled_ends_when_the_log_has_its_line(run: Run) -> None:
    """Else the next one would have the log, and read or cut it, while this one still writes."""
    storage = SlowLog()

    async def work() -> bool:
        running = asyncio.create_task(go(FakeSource([names(3)]), FakePool(), storage))
        await asyncio.to_thread(storage.begun.wait, PATIENCE)
        running.cancel()
        await asyncio.wait({running}, timeout=0.1)
        ended = running.done()
        storage.go_on.set()
        await asyncio.wait({running})
        return ended

    assert not run(work())
    assert storage.events == [("sink", 1), ("log", 1)]


# Stopping.


def test_stop_keeps_what_is_in_flight_and_reads_no_more(run: Run) -> None:
    source, storage, stop = FakeSource(single(names(500))), Storage(), asyncio.Event()

    async def work() -> list[list[bytes]]:
        pool = FakePool(capacity=2)
        pool.release.clear()
        running = asyncio.create_task(go(source, pool, storage, stop=stop))
        await settled(lambda: len(pool.chunks))
        stop.set()
        pool.release.set()
        await running
        return pool.chunks

    chunks = run(work())
    assert sorted(storage.paths) == sorted(path for chunk in chunks for path in chunk) == names(2)
    assert storage.events == [("sink", 1), ("log", 1)]
    assert source.closed


def test_stop_does_not_wait_for_a_silent_source(run: Run) -> None:
    class Silent(FakeSource):
        async def blocks(self) -> AsyncIterator[list[bytes]]:
            try:
                yield [b"a"]
                await asyncio.Event().wait()
            finally:
                self.closed = True

    source, storage, stop = Silent([[b"a"]]), Storage(), asyncio.Event()

    async def work() -> None:
        pool = FakePool()
        running = asyncio.create_task(go(source, pool, storage, stop=stop))
        await pool.reading.wait()
        stop.set()
        await running

    run(work())
    assert storage.paths == [b"a"]
    assert source.closed


def test_stopped_before_the_start(run: Run) -> None:
    storage, stop = Storage(), asyncio.Event()
    stop.set()
    run(go(FakeSource([names(5)]), FakePool(), storage, stop=stop))
    assert storage.events == []


# Progress.


def test_progress_is_counted(run: Run) -> None:
    def answer(path: bytes) -> Record:
        return failed(path) if path.endswith(b"1.tif") else record(path)

    source = FakeSource([names(10), names(20)])
    progress = run(go(source, FakePool(answer=answer), Storage()))
    assert (progress.done, progress.failures, progress.skipped) == (20, 2, 10)
    assert (progress.committed, progress.fraction) == (20, 1.0)
    assert progress.rate > 0


def test_the_first_failure_is_the_example(run: Run) -> None:
    """However many follow, and however long its name is."""
    first = b"x" * 1_000_000
    source = FakeSource([[b"good"], [first], *single(names(3))])
    pool = FakePool(capacity=1, answer=lambda path: (record if path == b"good" else failed)(path))
    progress = run(go(source, pool, Storage()))
    assert progress.example is not None
    assert progress.example.startswith("xxx")
    assert len(progress.example) < 1000


def test_what_waits_is_not_done() -> None:
    assert Progress().seconds_left is None
    assert Progress().share is None
    assert Progress(done=0, fraction=0.0).share == 0
    assert Progress(done=10, taken=40, fraction=0.5).share == 0.125
    assert Progress(done=40, taken=40, fraction=1.0).share == 1
    assert Progress(done=40, taken=50, fraction=None).share is None


def test_a_batch_closes_after_a_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rastermeta_async.pipeline.BATCH_SECONDS", 0.0)
    storage = Storage()
    run(go(FakeSource([names(5), names(9)]), FakePool(), storage))
    assert len(storage.events) > 2
    assert sorted(storage.paths) == names(9)


@pytest.mark.parametrize(("most", "rows_each"), [(5000, 10), (4, 4)], ids=["by time", "full"])
def test_the_time_of_a_batch_starts_anew_when_one_is_closed(
    run: Run, monkeypatch: pytest.MonkeyPatch, most: int, rows_each: int
) -> None:
    """Rows that come one a second are in batches of ten where a row waits ten seconds."""
    clock = SimpleNamespace(now=1000.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr("rastermeta_async.pipeline.time", clock)
    storage = Storage()

    async def rows() -> AsyncIterator[pa.RecordBatch]:
        for name in names(44):
            clock.now += 1
            yield to_batch([record(name)])

    consume: Any = committer(storage, storage, Settings(batch_size=most), Progress(), 10.0)
    run(consume(rows()))
    full, rest = divmod(44, rows_each)
    assert [table.num_rows for table in storage.tables] == [rows_each] * full + [rest] * (rest > 0)
    assert storage.paths == names(44)


def test_a_snapshot_does_not_change() -> None:
    progress = Progress(done=1)
    snapshot = progress.snapshot()
    progress.done = 2
    assert snapshot.done == 1


def test_another_consumer_gets_all_rows(run: Run) -> None:
    taken: list[pa.RecordBatch] = []

    async def consume(rows: Rows) -> None:
        taken.extend([batch async for batch in rows])

    run(go(FakeSource([names(10)]), FakePool(), Storage(), consume=consume))
    assert sorted(paths_of(taken)) == names(10)


def test_a_batch_closes_after_a_time_though_nothing_follows(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rastermeta_async.pipeline.BATCH_SECONDS", 0.05)
    storage, progress = Storage(), Progress()

    async def waits() -> None:
        source = FakeSource([names(5)], waits=True)
        running = asyncio.create_task(go(source, FakePool(), storage, progress=progress))
        while progress.committed < 5:
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait({running})

    run(waits())
    assert sorted(storage.paths) == names(5)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """A disk that does not answer, and what it was asked."""
    asked: list[bytes] = []
    answer = threading.Event()

    def stat(path: bytes) -> NoReturn:
        asked.append(path)
        answer.wait(20)
        raise FileNotFoundError

    monkeypatch.setattr(os, "stat", stat)
    yield asked
    answer.set()


def test_of_a_disk_that_does_not_answer_all_is_read(run: Run, silent: list[bytes]) -> None:
    inputs = Inputs(FakeSource([]), Unchanged(), PathSet(), timeout=0.05)
    assert run(inputs.to_read(names(9000))) == names(9000)
    assert len(silent) == 3 * AT_ONCE


@pytest.mark.campaign
def test_stopping_does_not_wait_for_a_disk(run: Run, silent: list[bytes]) -> None:
    stop = asyncio.Event()

    async def stopped() -> float:
        inputs = Inputs(FakeSource([names(9)]), Unchanged(), PathSet(), timeout=2)
        working = asyncio.create_task(
            run_pipeline(inputs, FakePool(), drop, Settings(), Progress(), stop)
        )
        await asyncio.sleep(0.1)
        start = time.monotonic()
        stop.set()
        await working
        return time.monotonic() - start

    async def drop(rows: Rows) -> None:
        async for _ in rows:
            pass

    assert run(stopped()) < 1.5


THROUGH: dict[str, Callable[[AsyncIterator[int]], AsyncIterator[int | None]]] = {
    "until": lambda items: until(asyncio.Event(), items),
    "with_pauses": lambda items: with_pauses(items, PATIENCE),
}


@pytest.mark.parametrize("through", THROUGH)
def test_cancelled_as_its_items_end_it_leaves_no_error_unheard(run: Run, through: str) -> None:
    """The loop would complain of an exception that was never retrieved."""

    async def cancelled() -> bool:
        async def items() -> AsyncIterator[int]:
            eating.cancel()
            return
            yield

        async def eat() -> None:
            async for _ in THROUGH[through](items()):
                pass

        eating = asyncio.create_task(eat())
        await asyncio.wait({eating})
        return eating.cancelled()

    async def work() -> bool:
        found = await cancelled()
        gc.collect()  # it complains when the call goes
        return found

    assert run(work())


def test_the_time_left_after_a_resume_is_that_of_what_is_new() -> None:
    """Nine tenths of the input were read in an earlier run, and are passed over at once."""
    progress = Progress(fraction=0.9)
    progress.take(0, 9000)
    progress.started -= 1000.0
    progress.fraction = 0.95
    progress.take(500, 0)
    progress.started = time.monotonic() - 10.0
    progress.done = 400
    assert progress.rate == pytest.approx(40, rel=0.01)
    assert progress.seconds_left == pytest.approx((500 + 100) / 40, rel=0.01)
    progress.take(0, 500)  # of what comes only half is new
    progress.fraction = 1.0
    assert progress.seconds_left == pytest.approx(100 / 40, rel=0.01)
