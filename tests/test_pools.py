"""The pipeline's cases on every kind of pool there is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import poison
import psutil
import pytest
from conftest import Run
from test_pipeline import BrokenError, FakeSource, Storage, go, names, settled

from rastermeta_async.model.settings import Access, Settings
from rastermeta_async.pools.base import Pool
from rastermeta_async.pools.processes import WorkerPool
from rastermeta_async.pools.threads import ThreadPool
from rastermeta_async.progress import Progress

MakePool = Callable[[], Pool]


def threads() -> Pool:
    return ThreadPool(poison.make(None, Access()), Settings(concurrency=2))


def one_worker() -> Pool:
    return WorkerPool(Settings(workers=1, concurrency=1), poison.MAKE)


def two_workers() -> Pool:
    return WorkerPool(Settings(workers=2, concurrency=4), poison.MAKE)


@pytest.fixture(params=[threads, one_worker, two_workers])
def make(request: pytest.FixtureRequest) -> MakePool:
    chosen: MakePool = request.param
    return chosen


def processes() -> list[psutil.Process]:
    return list(psutil.Process().children())


@pytest.mark.campaign
def test_every_path_is_read_and_kept_once(run: Run, make: MakePool) -> None:
    source, storage = FakeSource([names(1500), names(700), [b"./1.tif"]]), Storage()

    async def work() -> Progress:
        async with make() as pool:
            return await go(source, pool, storage, Settings(batch_size=400))

    progress = run(work())
    assert sorted(storage.paths) == [b"./1.tif", *names(1500)]
    assert (progress.done, progress.skipped, progress.committed) == (1501, 700, 1501)
    assert [table.num_rows for table in storage.tables] == [400, 400, 400, 301]


def test_finished_paths_are_not_read(run: Run, make: MakePool) -> None:
    storage = Storage()

    async def work() -> None:
        async with make() as pool:
            await go(FakeSource([names(100)]), pool, storage, finished=names(98))

    run(work())
    assert sorted(storage.paths) == names(100)[98:]


@pytest.mark.campaign
def test_a_fast_source_waits_for_a_slow_sink(run: Run, make: MakePool) -> None:
    storage = Storage()
    storage.release.clear()
    source = FakeSource([[path] for path in names(1500)])

    async def work() -> int:
        async with make() as pool:
            settings = Settings(batch_size=5, queue_size=32)
            running = asyncio.create_task(go(source, pool, storage, settings))
            await asyncio.to_thread(storage.committing.wait, 20)
            taken = await settled(lambda: source.taken)
            storage.release.set()
            await running
            return taken

    assert run(work()) < 300
    assert len(storage.paths) == 1500


@pytest.mark.campaign
@pytest.mark.parametrize("part", ["source", "sink", "log"])
def test_an_error_ends_the_run_and_leaves_nothing_running(
    run: Run, make: MakePool, part: str
) -> None:
    source = FakeSource([names(2000)], breaks=part == "source")
    storage = Storage(sink_breaks=part == "sink", log_breaks=part == "log")

    async def work() -> None:
        async with make() as pool:
            await go(source, pool, storage, Settings(batch_size=100))

    with pytest.raises(BrokenError, match=part):
        run(work())
    assert processes() == []


@pytest.mark.campaign
def test_cancelling_the_run_leaves_nothing_running(run: Run, make: MakePool) -> None:
    async def work() -> None:
        async with make() as pool:
            naps = [b"nap-%d" % at for at in range(10_000)]
            await go(FakeSource([naps]), pool, Storage())

    async def cancelled() -> bool:
        running = asyncio.create_task(work())
        await asyncio.sleep(0.5)
        running.cancel()
        await asyncio.wait({running})
        return running.cancelled()

    assert run(cancelled())
    assert processes() == []


@pytest.mark.campaign
def test_stop_keeps_what_was_read(run: Run, make: MakePool) -> None:
    source, storage, stop = FakeSource([names(100_000)]), Storage(), asyncio.Event()

    async def work() -> Progress:
        async with make() as pool:
            settings = Settings(batch_size=100)
            running = asyncio.create_task(go(source, pool, storage, settings, stop=stop))
            await asyncio.to_thread(storage.committing.wait, 20)
            stop.set()
            pool.stop()
            return await running

    progress = run(work())
    assert 0 < progress.done < 100_000
    assert len(set(storage.paths)) == len(storage.paths) == progress.committed == progress.done
