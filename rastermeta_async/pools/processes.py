"""The pool of worker processes: it uses every core, and no file can end the run.

    read(paths) ──job──▶ worker process (a `ThreadPool` of its own) ──rows──▶ read(paths)

If a worker dies, no row is lost: a separate process reads the files that the worker had open, one
by one. A path that ends this process, too, gets an error row. A worker that hangs is killed, and
abandoned if that does not end it. Processes are spawned, never forked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

import pyarrow as pa

from rastermeta_async.model.errors import StuckError, WorkerError
from rastermeta_async.model.machine import own_cpus
from rastermeta_async.model.record import Record, failure, to_batch
from rastermeta_async.model.row_ops import count_readings
from rastermeta_async.model.settings import MAX_STUCK, READS_AT_ONCE, Settings
from rastermeta_async.pools.base import timeout_row
from rastermeta_async.pools.child import (
    Child,
    ChildLost,
    Launched,
    launch,
    worker_config,
    workers_for,
)
from rastermeta_async.pools.protocol import WorkerConfig

PATHS_A_WORKER = 200
"""A further worker is started after this many paths for each running worker."""

MAX_FAILED_STARTS = 3
"""Workers in a row that may end before they are ready; a row from any worker resets the count."""

WATCH_SECONDS = 0.1
GRACE_SECONDS = 0.4
"""Time after a file's timeout in which its worker may still send the timeout row."""


class WorkerPool:
    """Reads headers in worker processes, which it starts when there is work for them.

    Args:
        settings: at most `workers` processes, at least 1; `concurrency` files at once over all.
        reader: ``module:function`` that makes each process's reader; None: that of the settings.
        launch: starts a process that speaks `protocol`; raises WorkerError if it cannot.
    """

    def __init__(
        self,
        settings: Settings,
        reader: str | None = None,
        launch: Callable[[WorkerConfig], Launched] = launch,
    ) -> None:
        self._most, _ = workers_for(settings)
        self.capacity = READS_AT_ONCE * self._most
        self._settings = settings
        self._config = worker_config(settings, reader)
        self._launch = launch
        self._cpus = own_cpus(self._most)
        self._workers: list[Child] = []
        self._choosing = asyncio.Lock()
        self._alone = asyncio.Lock()
        self._starting: set[asyncio.Task[Child]] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._left_behind: list[Child] = []
        self._failed_starts = 0
        self._last_cause = ""
        self._asked = 0
        self._stopping = False

    async def __aenter__(self) -> Self:
        """Start the first worker."""
        await self._start()
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all workers; do not wait for workers that cannot be ended."""
        self._watching.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        for worker in list(self._workers):
            self._dismiss(worker)
        await asyncio.gather(*self._ending)

    def stop(self) -> None:
        """See `Pool.stop`."""
        self._stopping = True
        for worker in self._workers:
            worker.stop()

    def workers(self) -> list[str]:
        """See `HasWorkers.workers`."""
        return [worker.name for worker in self._workers]

    async def read(self, paths: Sequence[bytes]) -> AsyncIterator[pa.RecordBatch]:
        """See `Pool.read`.

        Raises:
            WorkerError: workers end as soon as they start.
            StuckError: `MAX_STUCK` workers cannot be ended, or `MAX_STUCK` files hang in one.
        """
        rest = list(paths)
        self._asked += len(rest)
        lost = 0
        while rest and not self._stopping:
            worker = await self._choose()
            if self._stopping:  # `stop` did not reach a worker that was still starting
                return
            try:
                async for batch in worker.ask(rest):
                    del rest[: count_readings(batch)]
                    self._failed_starts = 0
                    yield batch
            except ChildLost:
                if worker.stuck:
                    raise StuckError(worker.last_words) from None
                if worker.hung:
                    hung = [path for path in rest if worker.hung_in(path)]
                    rest = [path for path in rest if not worker.hung_in(path)]
                    if hung:
                        yield to_batch([timeout_row(path, self._settings.timeout) for path in hung])
                elif worker.ready:
                    lost += 1
                    # After a second loss an open file need not be the cause: read all alone.
                    alone = [path for path in rest if lost > 1 or worker.had_open(path)]
                    rest = [path for path in rest if path not in alone]
                    async for batch in self._read_alone(alone):
                        yield batch
            finally:
                self._settle(worker)

    async def _read_alone(self, paths: Sequence[bytes]) -> AsyncIterator[pa.RecordBatch]:
        """Yield the rows of paths read one by one in a separate process: one of them ends it."""
        async with self._alone:
            worker: Child | None = None
            for path in paths:
                answered, losses = False, 0
                while not (answered or self._stopping):
                    worker = worker or await self._start(alone=True)
                    try:
                        async for batch in worker.ask([path]):
                            answered = True
                            self._failed_starts = 0
                            yield batch
                    except ChildLost:
                        losses += worker.ready
                        # A single loss while the file was not open may have another cause.
                        to_blame = worker.had_open(path) or losses > 1
                        if worker.ready and to_blame and not answered:
                            answered = True
                            yield to_batch([self._row_of_lost(worker, path)])
                    if worker.lost or worker.leaving:
                        self._dismiss(worker)
                        worker = None
            if worker is not None:
                self._dismiss(worker)

    def _row_of_lost(self, worker: Child, path: bytes) -> Record:
        if worker.hung_in(path):
            return timeout_row(path, self._settings.timeout)
        message = f"reading it ended two worker processes, the last one by {worker.cause}"
        return failure(path, "fatal", "Crash", message)

    async def _choose(self) -> Child:
        """Return the worker with the fewest jobs; start a further one if all are busy."""
        async with self._choosing:
            for worker in list(self._workers):
                self._settle(worker)  # a worker without jobs may have ended
            here = [at for at in self._workers if not (at.lost or at.leaving or at.alone)]
            wanted = min(self._most, 1 + self._asked // PATHS_A_WORKER)
            if len(here) < wanted and all(worker.jobs for worker in here):
                here.append(await self._start())
            return min(here, key=lambda worker: worker.jobs)

    async def _start(self, *, alone: bool = False) -> Child:
        stuck = sum(not worker.ended for worker in self._left_behind)
        if stuck > MAX_STUCK:
            raise StuckError(
                f"{stuck} worker processes hang and cannot be ended: a disk or mount does not "
                "answer. What was committed is safe; mend it, then run the same command again to "
                "go on."
            )
        if self._failed_starts >= MAX_FAILED_STARTS:
            raise WorkerError(
                f"worker processes end as soon as they start, the last one by {self._last_cause}. "
                "Mend that, or give --workers 0, and run the same command again to go on."
            )
        starting = asyncio.create_task(self._open(alone))
        self._starting.add(starting)
        starting.add_done_callback(self._starting.discard)
        return await asyncio.shield(starting)  # else a cancelled start leaves an unowned process

    async def _open(self, alone: bool) -> Child:
        taken = [worker.cpu for worker in self._workers]
        cpu = min(self._cpus, key=taken.count, default=None)
        worker = await Child.start(self._launch(replace(self._config, cpu=cpu)))
        worker.alone = alone
        worker.cpu = cpu
        self._workers.append(worker)
        return worker

    async def _watch(self) -> None:
        """Kill every worker that has a file open for longer than its own pool allows."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for worker in self._workers:
                if not worker.lost:
                    worker.kill_if_hung(self._settings.timeout + GRACE_SECONDS)

    def _dismiss(self, worker: Child) -> None:
        if worker in self._workers:
            self._workers.remove(worker)
            if worker.lost and not worker.ready:
                self._failed_starts += 1
                self._last_cause = worker.cause
            ending = asyncio.create_task(self._end(worker))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def _end(self, worker: Child) -> None:
        await worker.end()
        if not worker.ended:
            self._left_behind.append(worker)

    def _settle(self, worker: Child) -> None:
        """Dismiss a worker that has no job and takes none."""
        if (worker.leaving or worker.lost) and not (worker.jobs or worker.alone):
            self._dismiss(worker)
