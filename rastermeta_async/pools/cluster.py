"""The pool of a Dask cluster: nodes read, this process keeps sink, log and resume.

    read(paths) ──task──▶ node (a `WorkerPool` of its own) ──Arrow──▶ read(paths)

A task carries some hundred paths. `capacity` is two tasks for each thread that the cluster has at
this moment. What a node loses when it dies, another one reads. Where tasks die with
every node that takes them, their paths are halved until one path is to blame, which gets an error
row. While the scheduler does not answer, tasks wait, and are sent again when it is back.

References: Dask, "Futures", "Scheduling Policies", "Resilience".
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent import futures
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import pyarrow as pa

from rastermeta_async.model.errors import MissingExtraError, SettingsError, WorkerError
from rastermeta_async.model.record import failure, to_batch
from rastermeta_async.model.row_ops import path_keys, was_there
from rastermeta_async.model.settings import Settings
from rastermeta_async.model.text import plural
from rastermeta_async.model.timeouts import let_go
from rastermeta_async.model.urls import is_url, redacted, shown_url
from rastermeta_async.pools import node
from rastermeta_async.stores.problems import first_line

SCHEDULER_SECONDS = 60.0
"""How long the scheduler, or the first worker, may stay away before the run ends."""

TASKS_A_THREAD = 2
"""Tasks under way for each thread of the cluster: one is read while the next one waits there."""

MAX_TASKS = 256
"""Most tasks under way, for the memory that their answers may take."""

_LOOK_SECONDS = 1.0
_STOP_SECONDS = 10.0
"""How long tasks under way may take to end after `stop`; what they read is read again later."""

_LOCAL = "local:"
_SCHEMES = ("tcp", "tls", "ws", "wss", "ucx")
_ORPHAN_TIMEOUT = "120"
"""Seconds after which the processes of a cluster on this machine end without a run."""


class ClusterPool:
    """Reads headers on the workers of a Dask cluster.

    Args:
        address: of its scheduler, e.g. ``tcp://scheduler:8786``; ``local:N`` starts a cluster of
            N processes on this machine.
        settings: `timeout`, `drivers`, `access` and the like, which the nodes get; `concurrency`
            holds for each node. Credentials are those of each node.
        read: runs on the nodes, and returns what `node.read` does.
    """

    def __init__(
        self,
        address: str,
        settings: Settings,
        read: Callable[[node.Job, dict[str, str], node.Paths], node.Answer] = node.read,
    ) -> None:
        self._address = address
        self._read = read
        self._settings = settings
        self._run = uuid.uuid4().hex
        self._processes: list[asyncio.subprocess.Process] = []
        self._folder: TemporaryDirectory[str] | None = None
        self._too_late = asyncio.Event()
        self._client: Any = None
        self._nodes: dict[str, int] = {}
        self._connecting = asyncio.Lock()
        self._seen = False
        self._stopping = False
        self._local = 0
        if address.startswith(_LOCAL):
            count = address.removeprefix(_LOCAL)
            if not (count.isascii() and count.isdigit() and 0 < int(count) < 1000):
                raise SettingsError(f"--cluster {address!r}: give e.g. local:2 for two processes")
            self._local = int(count)
        else:
            _check_address(address)

    async def __aenter__(self) -> Self:
        """Connect to the scheduler, and compare versions with all workers.

        Raises:
            MissingExtraError: Dask is not installed.
            WorkerError: no scheduler or worker answers, or a version differs.
        """
        try:
            import distributed  # noqa: F401  # so that its absence is said first
        except ImportError:
            raise MissingExtraError(
                "--cluster needs the extra dask, in a clone: pip install '.[dask]'"
            ) from None
        try:
            if self._local:
                await self._start()
            await self._connect()
            await self._client.wait_for_workers(1, timeout=SCHEDULER_SECONDS)
            self._versions = node.versions()
            self._nodes = dict(await self._client.nthreads())
            nodes = await self._client.run(node.here)
            for name, found in (await self._client.run_on_scheduler(node.here), *nodes.values()):
                if found != self._versions:
                    raise WorkerError(node.mismatch(name, found, self._versions))
        except (OSError, TimeoutError) as error:
            await self._leave()
            raise WorkerError(
                f"the cluster {self._address} does not answer, or has no worker: {error}. Start "
                "them (`dask scheduler`, and `dask worker ADDRESS` on each node), or give another "
                "--cluster"
            ) from error
        except (WorkerError, asyncio.CancelledError):
            await self._leave()
            raise
        except Exception as error:  # of Dask, or what the nodes raise
            await self._leave()
            raise self._cannot_work(error) from error
        self._looking = asyncio.create_task(self._look())
        return self

    async def _start(self) -> None:
        """Start a cluster on this machine, and wait for its scheduler.

        Its processes are in sessions of their own, so that Ctrl-C in the terminal is for the run.
        They end by themselves if this process is killed.
        """
        self._folder = TemporaryDirectory(prefix="rastermeta-", ignore_cleanup_errors=True)
        file = os.path.join(self._folder.name, "scheduler.json")
        common = ["--no-dashboard", "--scheduler-file", file]
        programs = [
            ["scheduler", "--host", "127.0.0.1", "--port", "0", "--idle-timeout", _ORPHAN_TIMEOUT],
            ["worker", "--nworkers", str(self._local), "--nthreads", "1", "--death-timeout",
             _ORPHAN_TIMEOUT, "--local-directory", self._folder.name],
        ]  # fmt: skip
        for program in programs:
            self._processes.append(
                await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "dask", *program, *common, stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
                )
            )  # fmt: skip
        began = time.monotonic()
        while not self._address.startswith("tcp://"):
            await asyncio.sleep(0.05)
            with contextlib.suppress(OSError, ValueError), open(file) as found:  # noqa: ASYNC230  # small
                self._address = json.load(found)["address"]
            if time.monotonic() > began + SCHEDULER_SECONDS:
                raise TimeoutError("its scheduler does not start")

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the run's processes on the nodes, and disconnect."""
        self._looking.cancel()
        with contextlib.suppress(Exception):  # the nodes end them by themselves, a little later
            await asyncio.wait_for(self._client.run(node.stop, self._run), 5.0)
        await self._leave()

    def stop(self) -> None:
        """See `Pool.stop`."""
        self._stopping = True
        asyncio.get_running_loop().call_later(_STOP_SECONDS, self._too_late.set)
        self._stopped = asyncio.ensure_future(self._stop_nodes())

    def workers(self) -> list[str]:
        """See `HasWorkers.workers`."""
        return [f"{at} ({plural(threads, 'thread')})" for at, threads in self._nodes.items()]

    @property
    def capacity(self) -> int:
        """See `Pool.capacity`: it follows the workers that come and go."""
        return min(max(1, TASKS_A_THREAD * sum(self._nodes.values())), MAX_TASKS)

    async def _stop_nodes(self) -> None:
        with contextlib.suppress(Exception):  # then what is under way is read to its end
            await self._client.run(node.stop, self._run)

    async def read(self, paths: Sequence[bytes]) -> AsyncIterator[pa.RecordBatch]:
        """See `Pool.read`.

        Raises:
            WorkerError: the cluster cannot work: see the class and `__aenter__`.
        """
        left = [list(paths)]
        while left and not self._stopping:
            some = left.pop()
            answer = await self._answer(some)
            if answer is None:  # the node died, several times
                if len(some) > 1:
                    half = len(some) // 2
                    left += [some[half:], some[:half]]
                    continue
                yield to_batch([failure(some[0], "fatal", "Crash", _CRASH)])
                continue
            if answer.error:
                raise WorkerError(answer.error)
            batches = node.decoded(answer.rows)
            if not self._seen:
                self._seen = await asyncio.to_thread(_are_seen, batches, self._address)
            for batch in batches:
                yield batch

    async def _answer(self, paths: list[bytes]) -> node.Answer | None:
        """Return what a node answers; None: each node that was asked died."""
        from distributed import KilledWorker

        while True:
            client = self._client
            try:
                return await self._in_time(self._sent(client, paths))
            except KilledWorker:
                return None
            except (OSError, asyncio.CancelledError, futures.CancelledError) as error:
                # Dask cancels tasks whose scheduler is lost.
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and task and task.cancelling():
                    raise
                if self._stopping:
                    return _NOTHING
                await self._connect_again(client)
            except Exception as error:  # of Dask: `node.read` raises none
                raise self._cannot_work(error) from error

    async def _in_time(self, sending: Coroutine[Any, Any, node.Answer]) -> node.Answer:
        """Return an answer; an empty one if it does not come soon after `stop`."""
        answer = asyncio.ensure_future(sending)
        late = asyncio.ensure_future(self._too_late.wait())
        try:
            await asyncio.wait({answer, late}, return_when=asyncio.FIRST_COMPLETED)
            return answer.result() if answer.done() else _NOTHING
        finally:
            late.cancel()
            let_go(answer)

    async def _sent(self, client: Any, paths: list[bytes]) -> node.Answer:
        future = client.submit(
            self._read, node.Job(self._run, self._settings), self._versions, node.Paths(paths),
            key=f"rastermeta-{uuid.uuid4().hex}", pure=False,
        )  # fmt: skip
        try:
            answer: node.Answer = await future
        finally:
            future.release()
        return answer

    def _cannot_work(self, error: Exception) -> WorkerError:
        said = redacted(first_line(error), remote=True)
        return WorkerError(
            f"the cluster {self._address} cannot work ({said}): install this version of "
            "rastermeta-async on all nodes, also where the scheduler runs"
        )

    async def _look(self) -> None:
        """Follow which nodes the cluster has."""
        while True:
            with contextlib.suppress(OSError, TimeoutError):
                self._nodes = dict(await self._client.nthreads())
            await asyncio.sleep(_LOOK_SECONDS)

    async def _connect(self) -> None:
        from distributed import Client, Security

        secure = self._address.startswith(("tls:", "wss:"))
        safe = Security() if secure else None  # type: ignore[no-untyped-call]  # Dask's
        self._client = await Client(  # type: ignore[no-untyped-call]  # Dask's
            self._address,
            asynchronous=True,
            timeout=SCHEDULER_SECONDS,
            set_as_default=False,
            security=safe,
        )

    async def _connect_again(self, lost: Any) -> None:
        """Connect to a scheduler that was lost; once for all tasks."""
        async with self._connecting:
            if self._client is not lost:
                return
            began = time.monotonic()
            with contextlib.suppress(Exception):  # it is lost
                await asyncio.wait_for(lost.close(timeout=1), 5.0)
            while True:
                try:
                    await self._connect()
                    return
                except (OSError, TimeoutError) as error:
                    if time.monotonic() > began + SCHEDULER_SECONDS:
                        raise WorkerError(
                            f"the scheduler {self._address} does not answer any more: {error}. "
                            "What was committed is safe: run the same command again to go on."
                        ) from error
                    await asyncio.sleep(_LOOK_SECONDS)

    async def _leave(self) -> None:
        if self._client is not None:
            with contextlib.suppress(Exception):  # it may be lost
                await asyncio.wait_for(self._client.close(), 10.0)
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if self._folder:
            self._folder.cleanup()


def _check_address(address: str) -> None:
    split = urlsplit(address)
    with contextlib.suppress(ValueError):  # of a port that is no number
        if split.scheme in _SCHEMES and split.hostname and split.port and not split.username:
            return
    raise SettingsError(
        f"--cluster {shown_url(address)}: give a scheduler's address, e.g. tcp://host:8786, or "
        "e.g. local:2"
    )


_NOTHING = node.Answer(node.encoded([]))

_CRASH = "each process of the cluster that read it died"


def _are_seen(batches: Sequence[pa.RecordBatch], address: str) -> bool:
    """Return whether the nodes see any of the files.

    Raises:
        WorkerError: they see none, though this machine does.
    """
    local = [path for batch in batches for path in path_keys(batch).to_pylist() if not is_url(path)]
    if not local or any(there for batch in batches for there in was_there(batch).to_pylist()):
        return bool(batches)
    for path in local:
        if os.path.lexists(path):
            raise WorkerError(
                f"the nodes of {address} do not see {os.fsdecode(path)}, which is on this machine: "
                "mount the archive there under the same name, or read it without --cluster"
            )
    return False
