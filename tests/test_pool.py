from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pytest
from conftest import Run
from factory import band, path_bytes, record

from rastermeta_async.model.errors import StuckError
from rastermeta_async.model.record import Record, from_batch
from rastermeta_async.model.settings import CHUNK_BYTES, MAX_STUCK, Settings
from rastermeta_async.model.timeouts import Stopped
from rastermeta_async.pools import chunk as chunk_module
from rastermeta_async.pools import threads as pool_module
from rastermeta_async.pools.chunk import Chunk
from rastermeta_async.pools.threads import ThreadPool
from rastermeta_async.readers import base

PATIENCE = 20
SHORT = 0.05
"""A time limit for files that hang, in seconds."""


class FakeReader:
    """Answers with a record at once, unless the path is one that hangs until `release`."""

    def __init__(self, *hanging: bytes, answer: Callable[[bytes], Record] = record) -> None:
        self.paths: list[bytes] = []
        self.asked = threading.Event()
        self.release = threading.Event()
        self._hanging = set(hanging)
        self._answer = answer

    def enter(self) -> None:
        """See `Reader.enter`: there is nothing to prepare."""

    def read(self, path: bytes) -> Record:
        self.paths.append(path)
        if path in self._hanging:
            self.asked.set()
            assert self.release.wait(PATIENCE)
        return self._answer(path)


async def rows_of(pool: ThreadPool, paths: Sequence[bytes]) -> list[Record]:
    return [row async for batch in pool.read(paths) for row in from_batch(batch)]


def names(count: int, start: int = 0) -> list[bytes]:
    return [b"%d.tif" % at for at in range(start, start + count)]


def test_a_row_for_each_path_in_order(run: Run) -> None:
    async def work() -> list[Record]:
        async with ThreadPool(FakeReader(), Settings()) as pool:
            return await rows_of(pool, names(100))

    assert [path_bytes(row) for row in run(work())] == names(100)


def test_no_paths_no_rows(run: Run) -> None:
    async def work() -> list[Record]:
        async with ThreadPool(FakeReader(), Settings()) as pool:
            return await rows_of(pool, [])

    assert run(work()) == []


@pytest.mark.campaign
@pytest.mark.parametrize("concurrency", [1, 3, 12])
def test_as_many_opens_at_once_as_allowed_and_no_more(run: Run, concurrency: int) -> None:
    """The first opens wait for each other, so that they must run at once."""
    together = threading.Barrier(concurrency)
    lock = threading.Lock()
    now, most, first = 0, 0, concurrency

    def answer(path: bytes) -> Record:
        nonlocal now, most, first
        with lock:
            now, first = now + 1, first - 1
            most, meet = max(most, now), first >= 0
        if meet:
            together.wait(PATIENCE)
        time.sleep(0.001)
        with lock:
            now -= 1
        return record(path)

    async def work() -> int:
        async with ThreadPool(FakeReader(answer=answer), Settings(concurrency=concurrency)) as pool:
            calls = [rows_of(pool, names(5, start=5 * at)) for at in range(4 * concurrency)]
            return sum(map(len, await asyncio.gather(*calls)))

    assert run(work()) == 5 * 4 * concurrency
    assert most == concurrency


LARGE: dict[str, Any] = {
    "dataset_tags": {"LARGE": "x" * CHUNK_BYTES},
    "imagery_tags": {"LARGE": "x" * CHUNK_BYTES},
    "band_tags": {2: {"x" * CHUNK_BYTES: ""}},
    "bands": [band()] * (CHUNK_BYTES // 100 + 1),
    "crs": "x" * CHUNK_BYTES,
}


@pytest.mark.parametrize("field", LARGE)
def test_large_records_come_in_several_batches(run: Run, field: str) -> None:
    """Whichever part of them is large."""

    def answer(path: bytes) -> Record:
        return record(path, **{field: LARGE[field]})

    async def work() -> list[int]:
        async with ThreadPool(FakeReader(answer=answer), Settings()) as pool:
            return [batch.num_rows async for batch in pool.read(names(3))]

    assert run(work()) == [1, 1, 1]


def test_rows_come_back_while_others_are_still_to_be_read(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However small the records are, of slow files not all are waited for."""
    monkeypatch.setattr(chunk_module, "SLICE_SECONDS", SHORT)

    def answer(path: bytes) -> Record:
        time.sleep(SHORT / 2)
        return record(path)

    reader = FakeReader(answer=answer)

    async def work() -> tuple[int, int]:
        async with ThreadPool(reader, Settings()) as pool:
            rows = read = 0
            async for batch in pool.read(names(20)):
                read = read or len(reader.paths)
                rows += batch.num_rows
            return read, rows

    read, rows = run(work())
    assert read < rows == 20


def test_rows_that_come_while_others_are_taken_are_taken_too(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The threads come to the end of all paths while the first rows are on their way."""
    monkeypatch.setattr(chunk_module, "SLICE_SECONDS", -1.0)
    batches = Chunk.batches

    def slowly(chunk: Chunk) -> Iterator[pa.RecordBatch]:
        yield from batches(chunk)
        last = time.monotonic() + PATIENCE
        while not (chunk.is_read and chunk.is_collected):
            assert time.monotonic() < last
            time.sleep(0.001)

    monkeypatch.setattr(Chunk, "batches", slowly)

    async def work() -> list[Record]:
        async with ThreadPool(FakeReader(), Settings()) as pool:
            return await rows_of(pool, names(100))

    assert [path_bytes(row) for row in run(work())] == names(100)


@pytest.mark.campaign
@pytest.mark.parametrize("most", [1, 3])
def test_where_the_system_starts_no_further_thread_those_there_are_read_on(
    run: Run, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """As where a container may have few processes."""
    start, started = threading.Thread.start, 0

    def refuse(thread: threading.Thread) -> None:
        nonlocal started
        if thread.name.startswith("rastermeta-read"):
            started += 1
            if started > most:
                raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)

    def answer(path: bytes) -> Record:
        time.sleep(0.02)
        return record(path)

    async def work() -> list[Record]:
        async with ThreadPool(FakeReader(answer=answer), Settings()) as pool:
            return await rows_of(pool, names(100))

    assert [path_bytes(row) for row in run(work())] == names(100)
    assert started > most, "else it was not tried"


def test_where_no_thread_can_be_had_at_all_the_run_ends(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("rastermeta-read"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)

    async def work() -> None:
        async with ThreadPool(FakeReader(), Settings()) as pool, asyncio.timeout(PATIENCE):
            await rows_of(pool, names(10))

    with pytest.raises(RuntimeError, match="can't start new thread"):
        run(work())


def test_where_no_thread_can_be_had_for_rows_the_first_that_reads_makes_them(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("rastermeta-rows"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)

    async def work() -> list[Record]:
        settings = Settings(concurrency=1)
        async with ThreadPool(FakeReader(), settings) as pool, asyncio.timeout(PATIENCE):
            return await rows_of(pool, names(600))

    assert [path_bytes(row) for row in run(work())] == names(600)


def test_an_error_of_the_reader_is_an_error_of_the_run(run: Run) -> None:
    def answer(path: bytes) -> Record:
        raise LookupError(path)

    async def work() -> None:
        async with ThreadPool(FakeReader(answer=answer), Settings()) as pool:
            await rows_of(pool, names(1))

    with pytest.raises(LookupError):
        run(work())


# Files that hang.


def test_a_hung_open_becomes_a_row_and_the_pool_goes_on(run: Run) -> None:
    reader = FakeReader(b"1.tif")

    async def work() -> tuple[list[Record], list[Record], int]:
        async with ThreadPool(reader, Settings(concurrency=1, timeout=SHORT)) as pool:
            rows = await rows_of(pool, names(4))
            more = await rows_of(pool, names(2, start=10))
            stuck = pool.stuck
            reader.release.set()
            return rows, more, stuck

    rows, more, stuck = run(work())
    assert [path_bytes(row) for row in rows] == names(4)
    assert [row.status for row in rows] == ["success", "fatal", "success", "success"]
    assert rows[1].error_type == "Timeout"
    assert rows[1].error_message == "no answer within 0.05 s; the file or its disk hangs"
    assert [row.status for row in more] == ["success"] * 2
    assert stuck == 1


def test_after_a_slow_file_no_more_are_read_at_once_than_before(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its permit was lent meanwhile, and is not had back."""
    monkeypatch.setattr(pool_module, "SLOW_SECONDS", SHORT)
    lock, now, most = threading.Lock(), 0, 0

    def answer(path: bytes) -> Record:
        nonlocal now, most
        if path == b"0.tif":
            return record(path)
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(SHORT / 10)
        with lock:
            now -= 1
        return record(path)

    reader = FakeReader(b"0.tif", answer=answer)

    async def work() -> list[Record]:
        async with ThreadPool(reader, Settings(concurrency=1)) as pool:
            reading = asyncio.create_task(rows_of(pool, names(60)))
            while len(reader.paths) < 10:
                await asyncio.sleep(0.001)
            reader.release.set()
            return await reading

    assert len(run(work())) == 60
    assert most == 1


@pytest.mark.campaign
def test_while_a_file_is_slow_few_large_records_wait_for_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk_module, "CHUNK_BYTES", 2_500)
    monkeypatch.setattr(chunk_module, "HELD_BYTES", 20_000)
    monkeypatch.setattr(pool_module, "SLOW_SECONDS", SHORT)
    tags: Any = {"dataset_tags": {"LARGE": "x" * 1000}}
    reader = FakeReader(b"0.tif", answer=lambda path: record(path, **tags))

    async def work() -> int:
        async with ThreadPool(reader, Settings(concurrency=4)) as pool:
            reading = asyncio.create_task(rows_of(pool, names(500)))
            await asyncio.to_thread(reader.asked.wait, PATIENCE)
            await asyncio.sleep(20 * SHORT)
            waiting = len(reader.paths)
            reader.release.set()
            assert len(await reading) == 500
            return waiting

    assert 10 < run(work()) < 30


def test_a_late_answer_is_dropped(run: Run) -> None:
    reader = FakeReader(b"0.tif")

    async def work() -> tuple[list[Record], int]:
        async with ThreadPool(reader, Settings(timeout=SHORT)) as pool:
            rows = await rows_of(pool, names(2))
            reader.release.set()
            while pool.stuck:
                await asyncio.sleep(0.001)
            return rows, len(rows)

    rows, _ = run(work())
    assert [row.status for row in rows] == ["fatal", "success"]
    assert reader.paths == names(2), "the thread that hung must not go on with its chunk"


def test_an_answer_that_is_late_while_its_chunk_goes_on_is_dropped(run: Run) -> None:
    def answer(path: bytes) -> Record:
        time.sleep(SHORT / 25)
        return record(path)

    reader = FakeReader(b"0.tif", answer=answer)

    async def work() -> list[Record]:
        async with ThreadPool(reader, Settings(timeout=6 * SHORT, concurrency=1)) as pool:
            reading = asyncio.create_task(rows_of(pool, names(400)))
            while not pool.stuck:
                await asyncio.sleep(0.001)
            assert not reading.done()
            reader.release.set()
            return await reading

    rows = run(work())
    assert [path_bytes(row) for row in rows] == names(400)
    assert [path_bytes(row) for row in rows if row.error_type == "Timeout"] == [b"0.tif"]


def test_a_late_error_is_dropped_as_well(run: Run) -> None:
    def answer(path: bytes) -> Record:
        raise LookupError(path)

    reader = FakeReader(b"0.tif", answer=answer)

    async def work() -> list[Record]:
        async with ThreadPool(reader, Settings(timeout=SHORT)) as pool:
            rows = await rows_of(pool, names(1))
            reader.release.set()
            while pool.stuck:
                await asyncio.sleep(0.001)
            gc.collect()  # the loop would complain of an exception that was never retrieved
            return rows

    assert [row.error_type for row in run(work())] == ["Timeout"]


def test_a_time_limit_below_what_is_slow_holds_as_well(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "SLOW_SECONDS", PATIENCE)
    reader = FakeReader(b"0.tif")

    async def work() -> list[Record]:
        async with ThreadPool(reader, Settings(timeout=SHORT)) as pool:
            async with asyncio.timeout(PATIENCE / 2):
                rows = await rows_of(pool, names(1))
            reader.release.set()
            return rows

    assert [row.error_type for row in run(work())] == ["Timeout"]


def test_what_has_a_time_limit_of_its_own_may_take_that_long(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other file is read meanwhile in its place: its reader says when it is given up."""
    monkeypatch.setattr(pool_module, "SLOW_SECONDS", SHORT / 10)
    reader = FakeReader(b"0.tif")

    async def work() -> tuple[list[bytes], list[Record]]:
        settings = Settings(concurrency=1, timeout=SHORT / 10)
        async with ThreadPool(reader, settings, seconds=2 * SHORT) as pool:
            reading = asyncio.create_task(rows_of(pool, names(2)))
            await asyncio.sleep(SHORT)
            before = list(reader.paths)
            async with asyncio.timeout(PATIENCE / 2):
                rows = await reading
            reader.release.set()
            return before, rows

    before, rows = run(work())
    assert before == names(1)
    assert [row.error_type for row in rows] == ["Timeout", None]


def test_waiting_for_a_turn_is_no_time_of_a_file(run: Run) -> None:
    """As objects wait that few threads may open with GDAL."""
    pools: list[ThreadPool] = []

    def answer(path: bytes) -> Record:
        with pools[0].no_time_of_the_file():
            time.sleep(4 * SHORT)
        if path == b"1.tif":
            time.sleep(4 * SHORT)
        return record(path)

    async def work() -> list[Record]:
        settings = Settings(concurrency=1)
        async with ThreadPool(FakeReader(answer=answer), settings, seconds=2 * SHORT) as pool:
            pools.append(pool)
            return await rows_of(pool, names(3))

    assert [row.error_type for row in run(work())] == [None, "Timeout", None]


def test_what_is_not_read_any_more_has_no_row(run: Run) -> None:
    def answer(path: bytes) -> Record:
        if path == b"1.tif":
            raise Stopped
        return record(path)

    async def work() -> list[Record]:
        async with ThreadPool(FakeReader(answer=answer), Settings(concurrency=1)) as pool:
            return await rows_of(pool, names(3))

    assert [path_bytes(row) for row in run(work())] == [b"0.tif", b"2.tif"]


def test_files_are_read_while_as_many_as_may_hang_do(run: Run) -> None:
    """Each has its thread, and whoever waits for one is not blamed."""
    reader = FakeReader(*names(MAX_STUCK))
    hung: list[bytes] = []

    async def work() -> list[Record]:
        settings = Settings(concurrency=1, timeout=SHORT / 5)
        async with ThreadPool(reader, settings, hung.append) as pool:
            async with asyncio.timeout(PATIENCE / 2):
                for path in names(MAX_STUCK):
                    await rows_of(pool, [path])
                rows = await rows_of(pool, [b"file"])
            reader.release.set()
            return rows

    assert [row.status for row in run(work())] == ["success"]
    assert hung == names(MAX_STUCK)


def test_the_time_limit_is_one_for_each_file(run: Run) -> None:
    """Ten files of a third of the limit each are slow, but none hangs."""

    def answer(path: bytes) -> Record:
        time.sleep(0.1)
        return record(path)

    async def work() -> list[Record]:
        async with ThreadPool(FakeReader(answer=answer), Settings(timeout=0.4)) as pool:
            return await rows_of(pool, names(6))

    assert [row.status for row in run(work())] == ["success"] * 6


def test_too_many_hung_opens_end_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_STUCK", 2)
    reader = FakeReader(*names(3))

    async def work() -> list[Record]:
        async with ThreadPool(reader, Settings(concurrency=1, timeout=SHORT)) as pool:
            try:
                return await rows_of(pool, names(5))
            finally:
                reader.release.set()

    with pytest.raises(StuckError, match=r"3 header reads hang, the last one in b'2.tif'.*again"):
        run(work())


def test_what_hangs_is_named_without_its_secrets(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_STUCK", 0)
    reader = FakeReader(b"https://h/a.tif?sig=hidden")

    async def work() -> list[Record]:
        async with ThreadPool(reader, Settings(timeout=SHORT)) as pool:
            try:
                return await rows_of(pool, [b"https://h/a.tif?sig=hidden"])
            finally:
                reader.release.set()

    with pytest.raises(StuckError, match=r"https://h/a\.tif") as caught:
        run(work())
    assert "hidden" not in str(caught.value)


def test_opens_that_come_back_do_not_count_as_hung(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "MAX_STUCK", 1)
    reader = FakeReader(*names(3))

    async def work() -> list[str]:
        statuses = []
        async with ThreadPool(reader, Settings(concurrency=1, timeout=SHORT)) as pool:
            for path in names(3):
                reader.release.clear()
                statuses += [row.status for row in await rows_of(pool, [path])]
                reader.release.set()
                while pool.stuck:
                    await asyncio.sleep(0.001)
        return statuses

    assert run(work()) == ["fatal"] * 3


def test_the_loop_closes_although_a_thread_hangs() -> None:
    """`Runner` waits for the threads of the loop's executor when it closes."""
    reader = FakeReader(b"0.tif")

    async def work() -> list[Record]:
        async with ThreadPool(reader, Settings(timeout=SHORT)) as pool:
            return await rows_of(pool, names(1))

    try:
        rows = asyncio.run(work())
        assert not reader.release.is_set()
    finally:
        reader.release.set()
    assert [row.status for row in rows] == ["fatal"]


# Ending early.


def test_stop_lets_the_file_in_flight_finish(run: Run) -> None:
    reader = FakeReader(b"1.tif")

    async def work() -> list[Record]:
        async with ThreadPool(reader, Settings(concurrency=1)) as pool:
            reading = asyncio.create_task(rows_of(pool, names(9)))
            await asyncio.to_thread(reader.asked.wait, PATIENCE)
            pool.stop()
            reader.release.set()
            return await reading

    assert [path_bytes(row) for row in run(work())] == names(2)
    assert reader.paths == names(2)


def test_a_stopped_pool_reads_nothing(run: Run) -> None:
    reader = FakeReader()

    async def work() -> list[Record]:
        async with ThreadPool(reader, Settings()) as pool:
            pool.stop()
            return await rows_of(pool, names(3))

    assert run(work()) == []
    assert reader.paths == []


def test_cancelled_it_returns_while_the_thread_goes_on(run: Run) -> None:
    reader = FakeReader(b"0.tif")

    async def work() -> bool:
        async with ThreadPool(reader, Settings(concurrency=1)) as pool:
            reading = asyncio.create_task(rows_of(pool, names(1)))
            await asyncio.to_thread(reader.asked.wait, PATIENCE)
            reading.cancel()
            await asyncio.wait({reading})
            hangs_on = not reader.release.is_set()
            reader.release.set()
            assert [row.status for row in await rows_of(pool, names(1, 5))] == ["success"]
            return hangs_on and reading.cancelled()

    assert run(work())


def test_other_work_finds_a_thread_beside_a_busy_pool(run: Run) -> None:
    reader = FakeReader(*names(4))

    async def work() -> str:
        async with ThreadPool(reader, Settings(concurrency=4)) as pool:
            reading = [asyncio.create_task(rows_of(pool, [path])) for path in names(4)]
            answer = await asyncio.to_thread(lambda: "done")
            reader.release.set()
            await asyncio.gather(*reading)
            return answer

    assert run(work()) == "done"


def test_no_file_is_blamed_for_what_takes_time_after_reading(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_rows = chunk_module._rows_with_footprints

    def slow(records: Sequence[Record]) -> pa.RecordBatch:
        time.sleep(4 * SHORT)
        return make_rows(records)

    def answer(path: bytes) -> Record:
        time.sleep(SHORT / 2)
        return record(path)

    monkeypatch.setattr(chunk_module, "_rows_with_footprints", slow)
    monkeypatch.setattr(chunk_module, "SLICE_SECONDS", SHORT)

    async def work() -> list[Record]:
        settings = Settings(concurrency=1, timeout=2 * SHORT)
        async with ThreadPool(FakeReader(answer=answer), settings) as pool:
            return await rows_of(pool, names(10))

    assert [row.status for row in run(work())] == ["success"] * 10


def test_the_callers_executor_stays_as_it_was(run: Run) -> None:
    """Neither is the pool's work done in it, nor is it another one afterwards."""

    async def work() -> tuple[list[Record], str]:
        with ThreadPoolExecutor(1, "callers") as executor:
            asyncio.get_running_loop().set_default_executor(executor)
            executor.submit(time.sleep, 2 * SHORT)
            async with ThreadPool(FakeReader(), Settings()) as pool, asyncio.timeout(SHORT):
                rows = await rows_of(pool, names(2))
            return rows, await asyncio.to_thread(lambda: threading.current_thread().name)

    rows, thread = run(work())
    assert [path_bytes(row) for row in rows] == names(2)
    assert thread.startswith("callers")


def test_waiting_for_a_thread_is_no_hang(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "local_threads", lambda _: 1)

    def answer(path: bytes) -> Record:
        time.sleep(1.5 * SHORT)
        return record(path)

    async def work() -> list[list[Record]]:
        settings = Settings(concurrency=3, timeout=2 * SHORT)
        async with ThreadPool(FakeReader(answer=answer), settings) as pool:
            return await asyncio.gather(*[rows_of(pool, [name]) for name in names(3)])

    assert [row.error_type for rows in run(work()) for row in rows] == [None] * 3


def test_a_permit_that_was_lent_is_not_given_back_twice(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow files let others be opened meanwhile; afterwards there are as many permits as before."""
    monkeypatch.setattr(pool_module, "SLOW_SECONDS", SHORT)
    open_now, most = 0, 0
    lock = threading.Lock()

    def answer(path: bytes) -> Record:
        nonlocal open_now, most
        if path.startswith(b"slow"):
            time.sleep(3 * SHORT)
            return record(path)
        with lock:
            open_now += 1
            most = max(most, open_now)
        time.sleep(SHORT / 5)
        with lock:
            open_now -= 1
        return record(path)

    async def work() -> None:
        async with ThreadPool(FakeReader(answer=answer), Settings(concurrency=1)) as pool:
            for number in range(3):
                await rows_of(pool, [b"slow-%d" % number])
            await asyncio.gather(*(rows_of(pool, [name]) for name in names(8)))

    run(work())
    assert most == 1
