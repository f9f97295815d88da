from __future__ import annotations

import asyncio
import errno
import gc
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import command
import poison
import psutil
import pyarrow as pa
import pytest
from conftest import Run
from factory import path_bytes
from range_server import Server, serving

from rastermeta_async.api import extract_to
from rastermeta_async.model.errors import StuckError, WorkerError
from rastermeta_async.model.record import Record, from_batch
from rastermeta_async.model.settings import CHUNK_PATHS, MAX_STUCK, READS_AT_ONCE, Settings
from rastermeta_async.pools import child
from rastermeta_async.pools import processes as workers
from rastermeta_async.pools.child import Child, ChildLost, Launched
from rastermeta_async.pools.processes import PATHS_A_WORKER, WorkerPool
from rastermeta_async.pools.protocol import STOP, encode_job

PATIENCE = 30.0
ALLOWANCE = 512 * 1024 * 1024
"""Bytes that a greedy file may eat: so few that it does so within its timeout."""


def settings(workers: int = 1, concurrency: int = 1, timeout: float = 30.0) -> Settings:
    return Settings(workers=workers, concurrency=max(workers, concurrency), timeout=timeout)


@asynccontextmanager
async def poisoned(given: Settings) -> AsyncIterator[WorkerPool]:
    async with WorkerPool(given, poison.MAKE) as pool:
        yield pool


async def rows_of(pool: WorkerPool, paths: Sequence[bytes]) -> list[Record]:
    return [row async for batch in pool.read(paths) for row in from_batch(batch)]


async def in_chunks(pool: WorkerPool, paths: Sequence[bytes]) -> list[Record]:
    """Read paths as the pipeline does: as many chunks at once as the pool can take."""
    chunks = [paths[at : at + CHUNK_PATHS] for at in range(0, len(paths), CHUNK_PATHS)]
    slots = asyncio.Semaphore(pool.capacity)

    async def read(chunk: Sequence[bytes]) -> list[Record]:
        async with slots:
            return await rows_of(pool, chunk)

    return [row for rows in await asyncio.gather(*map(read, chunks)) for row in rows]


def names(count: int, start: int = 0) -> list[bytes]:
    return [b"%d.tif" % at for at in range(start, start + count)]


def children() -> list[psutil.Process]:
    return list(psutil.Process().children())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.02)


def verdicts(rows: Iterable[Record]) -> dict[bytes, tuple[str, str | None]]:
    return {path_bytes(row): (row.status, row.error_type) for row in rows}


GOOD = ("success", None)


@pytest.mark.parametrize("problem", [OSError(errno.ENOSPC, "No space left on device"), None])
def test_a_system_without_room_for_a_worker(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: OSError | None
) -> None:
    """Nothing is kept in the folder for temporary files: where that is full, a page is missing."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))

    async def work() -> list[Record]:
        async with poisoned(settings()) as pool:
            return await rows_of(pool, names(2))

    if problem is None:
        assert len(run(work())) == 2
        return

    def refuse(*_: object) -> int:
        raise problem

    monkeypatch.setattr(os, "memfd_create", refuse)
    with pytest.raises(WorkerError, match=r"cannot be started: No space left on device\. Free"):
        run(work())


def test_a_row_for_each_path(run: Run) -> None:
    async def work() -> list[Record]:
        async with poisoned(settings(2)) as pool:
            return await in_chunks(pool, names(500))

    assert sorted(map(path_bytes, run(work()))) == sorted(names(500))


def test_no_paths_no_rows(run: Run) -> None:
    async def work() -> list[Record]:
        async with poisoned(settings()) as pool:
            return await rows_of(pool, [])

    assert run(work()) == []


def test_a_file_that_has_standard_streams_used_takes_no_job_and_spoils_no_answer(run: Run) -> None:
    """As a VRT that names ``/vsistdin/``, or what a library prints."""
    paths = [*names(3), b"talk-1", *names(3, start=3)]

    async def work() -> list[Record]:
        async with poisoned(settings()) as pool:
            return await rows_of(pool, paths)

    assert verdicts(run(work())) == dict.fromkeys(paths, GOOD)


def test_the_drivers_reach_the_reader(run: Run, sample_archive: Path) -> None:
    async def work() -> list[Record]:
        given = Settings(workers=1, concurrency=1, drivers=("JP2OpenJPEG",))
        async with WorkerPool(given) as pool:
            images = [*sorted(sample_archive.rglob("*.tif"))[:1], *sample_archive.rglob("*.jp2")]
            return await rows_of(pool, [os.fsencode(image) for image in images])

    assert [row.status for row in run(work())] == ["error", "success"]


# How many processes there are.


def test_small_inputs_get_one_process(run: Run) -> None:
    async def work() -> int:
        async with poisoned(settings(4)) as pool:
            await in_chunks(pool, names(PATHS_A_WORKER - 1))
            return len(children())

    assert run(work()) == 1


def test_large_inputs_get_all_processes(run: Run) -> None:
    async def work() -> int:
        async with poisoned(settings(3)) as pool:
            await in_chunks(pool, names(10 * PATHS_A_WORKER))
            return len(children())

    assert run(work()) == 3


@pytest.mark.campaign
def test_each_process_keeps_to_a_cpu_of_its_own(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    monkeypatch.setattr(workers, "own_cpus", lambda _: tuple(cpus))

    async def work() -> list[int]:
        async with poisoned(settings(len(cpus))) as pool:
            await in_chunks(pool, names(10 * PATHS_A_WORKER * len(cpus)))
            await rows_of(pool, [b"exit-1"])  # another one takes its place
            await in_chunks(pool, names(10 * PATHS_A_WORKER * len(cpus)))
            return [cpu for child in children() for cpu in child.cpu_affinity()]

    assert sorted(run(work())) == cpus


@pytest.mark.skipif(sys.platform != "linux", reason="the policies are Linux's")
@pytest.mark.parametrize(
    ("given", "used"), [("SCHED_OTHER", "SCHED_BATCH"), ("SCHED_IDLE", "SCHED_IDLE")]
)
def test_threads_of_a_process_do_not_interrupt_each_other(run: Run, given: str, used: str) -> None:
    async def work() -> Counter[int]:
        async with poisoned(settings()) as pool:
            await rows_of(pool, names(1))
            (worker,) = children()
            return Counter(os.sched_getscheduler(thread.id) for thread in worker.threads())

    def under_policy() -> Counter[int]:
        os.sched_setscheduler(0, getattr(os, given), os.sched_param(0))  # of this thread only
        return run(work())

    with ThreadPoolExecutor(1) as thread:
        threads = thread.submit(under_policy).result()
    assert threads[getattr(os, used)] >= 2  # the event loop's, and one that reads


@pytest.mark.skipif(sys.platform != "linux", reason="proc(5) is Linux's")
def test_where_memory_is_short_a_worker_goes_before_the_run(run: Run) -> None:
    def readiness(pid: int) -> int:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

    async def work() -> int:
        async with poisoned(settings()) as pool:
            await rows_of(pool, names(1))
            (worker,) = children()
            return readiness(worker.pid)

    before = readiness(os.getpid())
    assert run(work()) == 1000
    assert readiness(os.getpid()) == before


def test_as_many_chunks_are_at_hand_for_each_process() -> None:
    assert WorkerPool(settings(2, concurrency=2)).capacity == 2 * READS_AT_ONCE
    assert WorkerPool(settings(2, concurrency=99)).capacity == 2 * READS_AT_ONCE
    assert WorkerPool(Settings(workers=8, concurrency=3)).capacity == 3 * READS_AT_ONCE


@pytest.mark.campaign
def test_work_goes_to_whichever_process_has_least_to_do(run: Run) -> None:
    """While one is frozen, all goes to the other; a third one is not started where one idles."""

    async def work() -> tuple[int, int]:
        async with poisoned(settings(3, timeout=PATIENCE)) as pool:
            for start in range(0, 4 * PATHS_A_WORKER, PATHS_A_WORKER):
                await rows_of(pool, names(PATHS_A_WORKER, start))
            alone = len(children())
            freezing = asyncio.create_task(rows_of(pool, [b"freeze-1"]))
            await asyncio.sleep(0)
            async with asyncio.timeout(PATIENCE / 2):
                for start in range(5):
                    assert len(await rows_of(pool, names(1, start))) == 1
            freezing.cancel()
            return alone, len(children())

    assert run(work()) == (1, 2)


@pytest.mark.campaign
def test_files_that_end_workers_share_one_process_of_their_own(run: Run, tmp_path: Path) -> None:
    """However many chunks have some: each of these ends its worker, then hangs."""

    async def work() -> int:
        async with poisoned(settings(2, timeout=1.5)) as pool:
            most = 0

            async def watch() -> None:
                nonlocal most
                while True:
                    most = max(most, len(children()))
                    await asyncio.sleep(0.005)

            watching = asyncio.create_task(watch())
            chunks = [[os.fsencode(tmp_path / f"kill-hang-{at}")] for at in range(7)]
            await asyncio.gather(*(rows_of(pool, chunk) for chunk in chunks))
            watching.cancel()
            return most

    assert run(work()) <= 2 + 1 + 1  # one that ends may still be there while the next one starts


def test_what_a_run_may_use_is_shared_by_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = 4 * 1024**3
    monkeypatch.setattr(child, "usable_memory", lambda: memory)
    one, many = (
        child.worker_config(Settings(workers=workers, concurrency=10)) for workers in (1, 4)
    )
    assert (one.concurrency, many.concurrency) == (10, 3)
    assert 4 * many.allowance < memory
    assert many.allowance < one.allowance


def test_a_process_that_is_started_ahead_is_the_first_one(tmp_path: Path) -> None:
    """Each further one would cost its memory and a third of a second."""
    raster, started = command.write_raster(tmp_path / "a.tif"), tmp_path / "started"
    catalog = tmp_path / "c.parquet"
    counted = [sys.executable, "-c", COUNTED, str(started)]
    for words in ([str(raster)], ["--prune", "--dry-run"]):  # which needs none
        arguments: command.Arguments = ["extract", *words, "-o", catalog, "--workers", "1"]
        done = command.run(arguments, command=counted)
        assert done.returncode == 0, done.stderr
        assert started.read_text() == "x"


COUNTED = """
import subprocess, sys
started = sys.argv.pop(1)
start = subprocess.Popen.__init__
def counted(*arguments, **options):
    with open(started, "a") as file:
        file.write("x")
    start(*arguments, **options)
subprocess.Popen.__init__ = counted
from rastermeta_async.__main__ import main
main()
"""
"""The command, which notes each process that it starts."""


@pytest.mark.campaign
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_a_process_that_does_not_end_is_killed(run: Run) -> None:
    async def work() -> psutil.Process:
        async with poisoned(settings(timeout=PATIENCE)) as pool:
            await rows_of(pool, names(1))
            freezing = asyncio.create_task(rows_of(pool, [b"freeze-1"]))
            await asyncio.sleep(0.1)
            freezing.cancel()
            (process,) = children()
            return process

    process = run(work())
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_no_process_is_left(run: Run) -> None:
    async def work() -> list[psutil.Process]:
        async with poisoned(settings(2)) as pool:
            await in_chunks(pool, names(1000))
            before = children()
            assert len(before) == 2
        return [process for process in before if process.is_running()]

    assert run(work()) == []


@pytest.mark.campaign
def test_a_grown_worker_is_replaced(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "RESIDENT_BYTES", 1)
    seen: set[int] = set()

    async def work() -> list[Record]:
        async with poisoned(settings()) as pool:
            rows = []
            for start in range(0, 40, 10):
                rows += await rows_of(pool, names(10, start))
                seen.update(child.pid for child in children())
                await asyncio.sleep(0)
            await until(lambda: len(children()) <= 1)
            return rows

    assert [path_bytes(row) for row in run(work())] == names(40)
    assert len(seen) > 2


def test_a_worker_in_which_files_hang_takes_no_further_chunk(run: Run) -> None:
    async def work() -> tuple[psutil.Process, psutil.Process]:
        async with poisoned(settings(timeout=0.1)) as pool:
            await rows_of(pool, names(1))
            (first,) = children()
            await rows_of(pool, [b"hang-1"])
            await rows_of(pool, names(1))
            await until(lambda: first not in children())
            (second,) = children()
            return first, second

    first, second = run(work())
    assert first != second


# Files that end or hang a worker.


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("deed", "cause"),
    [("crash", "SIGSEGV"), ("kill", "SIGKILL"), ("exit", "exit status 3 (it said nothing)")],
)
def test_a_file_that_ends_its_worker_gets_a_row(run: Run, deed: str, cause: str) -> None:
    poisonous = os.fsencode(deed) + b"-1"
    paths = [*names(20), poisonous, *names(20, start=20)]

    async def work() -> list[Record]:
        async with poisoned(settings()) as pool:
            return await rows_of(pool, paths)

    rows = run(work())
    assert Counter(map(path_bytes, rows)) == Counter(paths)
    assert verdicts(rows) == dict.fromkeys(paths, GOOD) | {poisonous: ("fatal", "Crash")}
    message = next(row.error_message for row in rows if path_bytes(row) == poisonous)
    assert message is not None
    assert cause in message


def test_a_row_quotes_the_last_line_that_its_worker_said(run: Run) -> None:
    """What libraries print on standard output counts, too."""

    async def work() -> list[Record]:
        async with poisoned(settings()) as pool:
            return await rows_of(pool, [b"rave-1"])

    (row,) = run(work())
    ended = "reading it ended two worker processes, the last one by exit status 3"
    assert row.error_message == f"{ended} (printed by a library)"


def test_of_much_that_a_worker_says_little_is_kept(run: Run) -> None:
    async def work() -> int:
        worker = await Child.start(child.launch(child.worker_config(settings(), poison.MAKE)))
        try:
            with pytest.raises(ChildLost):
                async for _ in worker.ask([b"yell-1"]):
                    pass
            return len(worker.last_words)
        finally:
            await worker.end()

    assert 0 < run(work()) < 10_000


@pytest.mark.campaign
def test_what_a_file_does_to_the_second_worker_is_what_its_row_says(
    run: Run, tmp_path: Path
) -> None:
    """The others' rows are there once; no worker is left but the one that reads on."""
    odd = {
        os.fsencode(tmp_path / "kill-good-1"): GOOD,
        os.fsencode(tmp_path / "kill-freeze-1"): ("fatal", "Timeout"),
    }

    async def work() -> tuple[list[Record], int]:
        async with poisoned(settings(timeout=0.5)) as pool:
            rows: list[Record] = []
            for path in odd:
                rows += await rows_of(pool, [path, *names(2, start=len(rows))])
            await until(lambda: len(children()) <= 1)
            return rows, len(children())

    rows, left = run(work())
    assert verdicts(rows) == dict.fromkeys([*names(2), *names(2, 3)], GOOD) | odd
    assert (len(rows), left) == (6, 1)


def test_the_innocent_are_not_blamed(run: Run) -> None:
    """Several chunks are in the worker when it dies; only one path is at fault."""

    async def work() -> list[Record]:
        async with poisoned(settings(1, concurrency=3)) as pool:
            return await in_chunks(pool, [*names(100), b"crash-1", *names(100, start=100)])

    rows = run(work())
    assert Counter(map(path_bytes, rows)) == Counter([*names(200), b"crash-1"])
    assert [path_bytes(row) for row in rows if not row.ok] == [b"crash-1"]


@pytest.mark.campaign
@pytest.mark.parametrize("deed", ["hang", "freeze"])
def test_a_file_that_hangs_gets_its_row_in_time(run: Run, deed: str) -> None:
    poisonous = os.fsencode(deed) + b"-1"
    paths = [*names(5), poisonous, *names(5, start=5)]

    async def work() -> tuple[list[Record], float]:
        async with poisoned(settings(timeout=1.0)) as pool:
            await rows_of(pool, names(1))
            start = time.monotonic()
            rows = await rows_of(pool, paths)
            return rows, time.monotonic() - start

    rows, seconds = run(work())
    expected = dict.fromkeys(paths, GOOD) | {poisonous: ("fatal", "Timeout")}
    assert verdicts(rows) == expected
    assert len(rows) == len(paths)
    assert 1.0 <= seconds < PATIENCE


@pytest.mark.campaign
def test_the_others_go_on_while_a_file_hangs(run: Run) -> None:
    async def work() -> int:
        async with poisoned(settings(timeout=PATIENCE)) as pool:
            hanging = asyncio.create_task(rows_of(pool, [b"hang-1"]))
            rows = [await rows_of(pool, names(30, start=30 * at)) for at in range(10)]
            hanging.cancel()
            return sum(map(len, rows))

    assert run(work()) == 300


def test_a_memory_hog_costs_its_row(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "worker_allowance", lambda *_: ALLOWANCE)

    async def work() -> list[Record]:
        async with poisoned(settings()) as pool:
            return await rows_of(pool, [b"1.tif", b"eat-1", b"2.tif"])

    assert verdicts(run(work())) == {
        b"1.tif": GOOD, b"eat-1": ("fatal", "MemoryError"), b"2.tif": GOOD
    }  # fmt: skip


def test_files_in_a_row_that_end_their_workers_are_rows_not_failed_starts(run: Run) -> None:
    paths = [b"crash-%d" % number for number in range(5)]

    async def work() -> list[Record]:
        async with poisoned(settings()) as pool:
            return await rows_of(pool, paths)

    assert verdicts(run(work())) == dict.fromkeys(paths, ("fatal", "Crash"))


@pytest.mark.campaign
@pytest.mark.timeout(300)
def test_a_thousand_files_of_which_twenty_are_poisonous(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten crash the worker, five hang, five eat memory: 980 real rows, 20 that say why."""
    monkeypatch.setattr(child, "worker_allowance", lambda *_: ALLOWANCE)
    deeds = [b"crash"] * 10 + [b"hang"] * 3 + [b"freeze"] * 2 + [b"eat"] * 5
    paths = names(1000)
    for number, deed in enumerate(deeds):
        paths[49 * number + 7] = b"%s-%d" % (deed, number)

    async def work() -> list[Record]:
        async with poisoned(settings(2, timeout=4.0)) as pool:
            return await in_chunks(pool, paths)

    rows = asyncio.run(work())
    assert Counter(map(path_bytes, rows)) == Counter(paths)
    reasons = {b"crash": "Crash", b"hang": "Timeout", b"freeze": "Timeout", b"eat": "MemoryError"}
    assert verdicts(rows) == {
        path: ("fatal", reasons[path.split(b"-")[0]]) if b"-" in path else GOOD for path in paths
    }


@pytest.mark.campaign
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_a_worker_that_survives_sigkill_is_left_behind(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process in uninterruptible sleep: it neither ends nor dies."""
    monkeypatch.setattr(child, "END_SECONDS", 0.1)
    victims: list[psutil.Process] = []

    async def work() -> list[Record]:
        async with poisoned(settings(timeout=0.5)) as pool:
            await rows_of(pool, names(1))
            victims.extend(children())
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(subprocess.Popen, "kill", lambda process: None)
                return await rows_of(pool, [b"freeze-1", *names(3)])

    try:
        rows = run(work())
    finally:
        for victim in victims:
            victim.kill()
            victim.wait(PATIENCE)
        gc.collect()  # of what was left behind, while its warning is expected
    assert verdicts(rows) == dict.fromkeys(names(3), GOOD) | {b"freeze-1": ("fatal", "Timeout")}


def test_too_many_left_behind_end_the_run(run: Run) -> None:
    class Undead(Child):
        ended = False

    async def work() -> None:
        async with poisoned(settings()) as pool:
            await rows_of(pool, names(1))
            pool._left_behind = [Undead.__new__(Undead)] * (MAX_STUCK + 1)
            await rows_of(pool, [b"crash-1"])

    with pytest.raises(StuckError, match="65 worker processes hang"):
        run(work())


@pytest.mark.campaign
def test_too_many_files_that_hang_end_the_run() -> None:
    async def work() -> None:
        async with poisoned(settings(timeout=0.05)) as pool:
            await rows_of(pool, [f"hang-{number}".encode() for number in range(MAX_STUCK + 2)])

    with pytest.raises(StuckError, match="65 header reads hang, the last one in b'hang-64'"):
        asyncio.run(work())


@pytest.mark.campaign
def test_too_many_objects_that_hang_end_the_run_with_the_same_sentence(tmp_path: Path) -> None:
    async def work(server: Server) -> None:
        urls = [f"{server.url}/hang-{number}".encode() for number in range(MAX_STUCK + 2)]
        async with poisoned(settings(timeout=0.5)) as pool:
            await rows_of(pool, urls)

    for number in range(MAX_STUCK + 2):
        (tmp_path / f"hang-{number}").write_bytes(b"some")
    with (
        serving(str(tmp_path)) as server,
        pytest.raises(StuckError, match="65 header reads hang, the last one in b'http"),
    ):
        asyncio.run(work(server))


def test_workers_that_cannot_start_end_the_run(run: Run) -> None:
    async def work() -> None:
        async with WorkerPool(settings(), "no_such_module:make") as pool:
            await rows_of(pool, names(1))

    with pytest.raises(WorkerError, match="No module named 'no_such_module'"):
        run(work())


@pytest.mark.campaign
def test_a_worker_that_never_starts_ends_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "START_SECONDS", 0.5)

    async def work() -> None:
        async with WorkerPool(settings(), poison.MAKE_LATE) as pool:
            await rows_of(pool, names(1))

    with pytest.raises(WorkerError, match="end as soon as they start"):
        run(work())


def test_one_worker_that_fails_to_start_counts_once_whatever_it_had_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(poison.DEATHS, json.dumps(poison.Death(str(tmp_path), 2, 1, 0)))

    async def work() -> list[Record]:
        async with WorkerPool(settings(concurrency=4), poison.MAKE_MORTAL) as pool:
            return await in_chunks(pool, names(10 * CHUNK_PATHS))

    assert len(asyncio.run(work())) == 10 * CHUNK_PATHS


@pytest.mark.campaign
def test_failed_starts_are_forgotten_once_there_are_rows(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time two workers fail, the third one reads a file and is killed."""

    async def work() -> list[Record]:
        rows = []
        async with WorkerPool(settings(), poison.MAKE_MORTAL) as pool:
            for at in range(3):
                rows += await rows_of(pool, names(1, start=at))
                for process in children():
                    process.kill()
                folder = tmp_path / str(at + 1)
                folder.mkdir()
                set_deaths(folder)
        return rows

    def set_deaths(folder: Path) -> None:
        monkeypatch.setenv(poison.DEATHS, json.dumps(poison.Death(str(folder), 2, 1, 0)))

    (tmp_path / "0").mkdir()
    set_deaths(tmp_path / "0")
    assert [path_bytes(row) for row in run(work())] == names(3)


# Workers that are killed for no fault of a file.


@pytest.mark.campaign
@pytest.mark.parametrize("sent", [0, 0.5, 1])
@pytest.mark.parametrize("write", [1, 2, 3])  # READY, ROWS, DONE
def test_killed_while_it_answers_a_worker_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int, sent: float
) -> None:
    """Two workers in a row die; the files that they had are read by the next one."""
    death = poison.Death(str(tmp_path), 2, write, sent)
    monkeypatch.setenv(poison.DEATHS, json.dumps(death))

    async def work() -> list[Record]:
        async with WorkerPool(settings(), poison.MAKE_MORTAL) as pool:
            return await in_chunks(pool, names(3 * CHUNK_PATHS))

    rows = asyncio.run(work())
    assert len(os.listdir(tmp_path)) == 2
    assert Counter(map(path_bytes, rows)) == Counter(names(3 * CHUNK_PATHS))
    assert all(row.ok for row in rows)


@pytest.mark.campaign
@pytest.mark.parametrize("write", [1, 2, 3])
def test_killed_before_it_gets_a_job_a_worker_costs_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    numbers = itertools.count(1)

    def kill_and_encode(number: int, paths: Sequence[bytes]) -> bytes:
        if next(numbers) == write:
            for worker in children():
                worker.kill()
                os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
        return encode_job(number, paths)

    monkeypatch.setattr(child, "encode_job", kill_and_encode)

    async def work() -> list[Record]:
        async with poisoned(settings(2)) as pool:
            return await in_chunks(pool, names(3 * CHUNK_PATHS))

    rows = run(work())
    assert Counter(map(path_bytes, rows)) == Counter(names(3 * CHUNK_PATHS))
    assert all(row.ok for row in rows)


@pytest.mark.campaign
def test_a_dead_worker_whose_answers_nobody_takes_takes_no_job(run: Run) -> None:
    """Its end is seen only after all that it said; its closed input, at once."""

    async def rows_from(answers: AsyncIterator[pa.RecordBatch]) -> int:
        return sum([batch.num_rows async for batch in answers])

    async def work() -> list[type]:
        worker = await Child.start(child.launch(child.worker_config(settings(), poison.MAKE)))
        try:
            slow = worker.ask([b"nap-%d" % number for number in range(400)])
            await anext(slow)
            await asyncio.sleep(1.3)  # more batches come than are kept for who asked
            (process,) = children()
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            asking = []
            for _ in range(4):
                asking.append(asyncio.create_task(rows_from(worker.ask(names(1)))))
                await asyncio.sleep(0.01)
                worker.stop()
            asking.append(asyncio.create_task(rows_from(slow)))  # now its end can be seen
            return [
                type(outcome) for outcome in await asyncio.gather(*asking, return_exceptions=True)
            ]
        finally:
            await worker.end()

    assert run(work()) == [ChildLost] * 5


@pytest.mark.campaign
def test_workers_that_die_with_nothing_open_end_in_rows_that_say_so(run: Run) -> None:
    async def work() -> list[Record]:
        async with WorkerPool(settings(), poison.MAKE_MUTE) as pool:
            return await rows_of(pool, names(2))

    assert verdicts(run(work())) == dict.fromkeys(names(2), ("fatal", "Crash"))


@pytest.mark.campaign
def test_cancelled_while_a_worker_is_starting_nothing_is_left_of_it(run: Run) -> None:
    async def work() -> tuple[list[psutil.Process], int]:
        files: list[int] = []
        for steps in range(8):
            pool = WorkerPool(settings(), poison.MAKE)
            async with pool:
                pool._workers[0].kill()
                reading = asyncio.create_task(rows_of(pool, names(1)))
                for _ in range(steps):
                    await asyncio.sleep(0)
                reading.cancel()
            gc.collect()
            files.append(psutil.Process().num_fds())
        return children(), files[-1] - files[0]

    assert run(work()) == ([], 0)


@pytest.mark.campaign
def test_workers_that_are_killed_while_idle_leave_nothing_behind(run: Run) -> None:
    async def work() -> tuple[list[Record], int]:
        rows = []
        async with poisoned(settings()) as pool:
            await rows_of(pool, names(1))
            files = psutil.Process().num_fds()
            for at in range(5):
                (process,) = children()
                process.kill()
                await until(lambda process=process: not process.is_running())  # type: ignore[misc]  # mypy knows no lambda with a default
                rows += await rows_of(pool, names(1, start=at))
            return rows, psutil.Process().num_fds() - files

    rows, more_files = run(work())
    assert [path_bytes(row) for row in rows] == names(5)
    assert all(row.ok for row in rows)
    assert more_files == 0


# Stopping and signals.


def test_stop_ends_after_the_files_that_are_open(run: Run) -> None:
    async def work() -> int:
        async with poisoned(settings()) as pool:
            reading = asyncio.create_task(in_chunks(pool, names(5000)))
            await until(lambda: pool._asked > 100)
            pool.stop()
            return len(await reading)

    assert run(work()) < 5000


def test_a_worker_that_is_started_as_the_pool_is_stopped_reads_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Child.start

    async def work() -> list[Record]:
        async with poisoned(settings()) as pool:

            async def meanwhile(launched: Launched) -> Child:
                worker = await start(launched)
                pool.stop()
                return worker

            (process,) = children()
            process.kill()
            await until(lambda: not process.is_running())
            monkeypatch.setattr(Child, "start", meanwhile)
            return await rows_of(pool, names(3))

    assert run(work()) == []


def test_stopped_while_a_file_is_read_on_its_own_the_pool_ends(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = itertools.count(1)

    async def work() -> list[Record]:
        async with poisoned(settings()) as pool:

            def stop_and_encode(number: int, paths: Sequence[bytes]) -> bytes:
                if number != STOP and next(jobs) == 2:
                    pool.stop()
                return encode_job(number, paths)

            monkeypatch.setattr(child, "encode_job", stop_and_encode)
            return await rows_of(pool, [b"crash-1", *names(1)])

    assert run(work()) == []


def test_the_terminals_signals_do_not_reach_workers(run: Run) -> None:
    async def work() -> list[Record]:
        async with poisoned(settings()) as pool:
            rows = await rows_of(pool, names(1))
            (child,) = children()
            assert os.getsid(child.pid) != os.getsid(0)
            child.send_signal(signal.SIGINT)
            return rows + await rows_of(pool, names(1, start=1))

    assert [path_bytes(row) for row in run(work())] == names(2)


PARENT = """
import asyncio, sys
from rastermeta_async.model.settings import Settings
from rastermeta_async.pools.processes import WorkerPool

async def main():
    async with WorkerPool(Settings(workers=1, concurrency=1), "poison:make") as pool:
        async for batch in pool.read([b"1.tif"]):
            print("ready", flush=True)
        async for batch in pool.read([sys.argv[1].encode()]):
            pass

asyncio.run(main())
"""


@pytest.mark.campaign
@pytest.mark.parametrize("deed", ["hang-1", "freeze-1"])
def test_workers_die_with_their_parent(deed: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, deed], stdout=subprocess.PIPE, env=environment
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        (worker,) = psutil.Process(parent.pid).children()
        parent.kill()
    worker.wait(PATIENCE)


# What it all is for.


def test_catalogs_are_the_same_whatever_the_pool(tmp_path: Path, sample_archive: Path) -> None:
    paths = sorted(str(path) for path in sample_archive.rglob("*") if path.is_file())
    contents = set()
    for count in (0, 1, 2):
        output = tmp_path / f"{count}.parquet"
        given = Settings(workers=count, concurrency=2, batch_size=7)
        outcome = asyncio.run(extract_to(str(output), paths, given))
        assert outcome.rows == len(paths)
        contents.add(output.read_bytes())
    assert len(contents) == 1


IMPORTED = """
import sys
{work}
print(*[name for name in {unwanted} if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("work", "unwanted"),
    [
        (("import rastermeta_async.pools.processes, rastermeta_async.cli.app\n"
          "import rastermeta_async.cli.run"),
         ["rasterio"]),
        ("import rastermeta_async.pools.worker, rastermeta_async.readers.rasterio_reader",
         ["typer", "rich", "pyarrow.parquet", "pyarrow.compute", "aiofiles"]),
    ],
    ids=["run", "worker"],
)  # fmt: skip
def test_no_process_imports_what_it_does_not_need(work: str, unwanted: list[str]) -> None:
    code = IMPORTED.format(work=work, unwanted=unwanted)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout.split(), result.stderr) == ([], "")


RUN = """
import asyncio, sys
from rastermeta_async.model.machine import spare_memory
spare_memory()
from rastermeta_async import Settings, extract_to
asyncio.run(extract_to("catalog.parquet", {paths}, Settings(batch_size=1)))
print(*[name for name in ("boto3", "pandas") if name in sys.modules])
"""


def test_a_run_imports_nothing_only_because_it_is_installed(
    tmp_path: Path, sample_archive: Path
) -> None:
    paths = [str(path) for path in sample_archive.rglob("*.tif")][:20]
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(paths=paths)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (done.stdout.split(), done.stderr) == ([], "")


def test_nothing_is_imported_from_the_current_folder(
    tmp_path: Path, sample_archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('foreign code ran')")
    monkeypatch.chdir(tmp_path)
    file = sample_archive / "odd" / "map.jp2"
    program = str(Path(sys.executable).parent / "rastermeta")  # python -m would look there itself
    arguments = ["extract", str(file), "-o", "catalog.parquet", "--workers", "1"]
    done = command.run(arguments, command=[program])
    assert (done.returncode, b"foreign" in done.stderr) == (0, False), done.stderr


def test_threads_with_huge_stacks_take_no_worker_down(tmp_path: Path) -> None:
    """What ``ulimit -s`` says is no reason to take files for ones that crash."""
    paths = command.many_rasters(tmp_path / "archive", 30)
    catalog = tmp_path / "catalog.parquet"
    script = 'ulimit -s 1048576 && exec "$@"'
    done = command.in_shell(
        script, "extract", tmp_path / "archive", "-o", catalog, "--workers", "1"
    )
    assert done.returncode == 0, done.stderr
    assert command.paths_of(catalog) == paths
