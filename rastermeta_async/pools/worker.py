"""Run a worker process: it takes jobs on standard input, and answers on standard output.

It opens headers with the same pool as a run without worker processes. It ends with the run: when
its input ends, or on Linux when its parent dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import os
import signal
import sys
import threading
import warnings

import uvloop

from rastermeta_async.model.machine import collect_seldom, limit_data, memory_bytes, spare_memory

spare_memory(arenas=2)  # before anything imports pyarrow

from rastermeta_async.model.errors import StuckError, first_error  # noqa: E402
from rastermeta_async.model.record import Reading  # noqa: E402
from rastermeta_async.model.settings import Settings, threads_for  # noqa: E402
from rastermeta_async.model.streams import write_all  # noqa: E402
from rastermeta_async.pools.header_pool import HeaderPool  # noqa: E402
from rastermeta_async.pools.protocol import (  # noqa: E402
    STOP,
    STUCK_STATUS,
    OpenFiles,
    ReplyKind,
    WorkerConfig,
    encode_reply,
    read_job,
)
from rastermeta_async.readers.base import Reader, load_reader, watch_progress  # noqa: E402
from rastermeta_async.readers.members import with_members  # noqa: E402
from rastermeta_async.readers.part_rows import with_subdatasets  # noqa: E402
from rastermeta_async.readers.sidecars import SIDECARS  # noqa: E402
from rastermeta_async.readers.undecodable import quiet_undecodable_messages  # noqa: E402

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Run a worker with the configuration in the last argument."""
    config = WorkerConfig.from_json(sys.argv[-1])
    _end_with(config.parent)
    _be_the_first_to_go()
    _keep_to(config.cpu)
    _let_threads_finish()
    limit_data(config.allowance, threads_for(1))  # `allow_data` adds room for further threads
    requests, answers = _own_streams()
    warnings.simplefilter("ignore")  # rows say what is wrong with a file
    quiet_undecodable_messages()
    reader = load_reader(config.reader, config.drivers, config.access, config.gdal_config)
    collect_seldom()
    status = 0
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(reader, config, requests, answers))
    except* BrokenPipeError:  # the run has ended
        pass
    except* StuckError as stuck:
        write_all(2, str(first_error(stuck)).encode())
        status = STUCK_STATUS
    os._exit(status)  # threads that hang cannot be joined


async def _serve(reader: Reader, config: WorkerConfig, requests: int, answers: int) -> None:
    open_files = OpenFiles(config.open_files, config.slots)
    settings = Settings(
        concurrency=config.concurrency, timeout=config.timeout, access=config.access,
        skip_offline=config.skip_offline, members=config.members, subdatasets=config.subdatasets,
    )  # fmt: skip
    jobs = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(jobs)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(requests, "rb"))
    members = with_members(reader, config.members, config.timeout)
    files = members
    if config.subdatasets:
        files = with_subdatasets(members, reader, config.timeout)
    noting = _NotingReader(files, open_files)
    async with (
        HeaderPool(noting, reader, settings, open_files.forget) as pool,
        asyncio.TaskGroup() as t,
    ):

        async def answer(job: int, paths: list[bytes]) -> None:
            async for batch in pool.read(paths):
                write_all(answers, encode_reply(ReplyKind.ROWS, job, batch.serialize()))
            if pool.stuck or memory_bytes().resident > config.resident + pool.threads_bytes:
                write_all(answers, encode_reply(ReplyKind.RETIRING))
            write_all(answers, encode_reply(ReplyKind.DONE, job, SIDECARS.take()))

        write_all(answers, encode_reply(ReplyKind.READY))
        while True:
            try:
                job, paths = await read_job(jobs)
            except asyncio.IncompleteReadError:
                os._exit(0)
            if job == STOP:
                pool.stop()
            else:
                t.create_task(answer(job, paths))


class _NotingReader:
    """A reader that notes which files it has open."""

    def __init__(self, reader: Reader, open_files: OpenFiles) -> None:
        self._reader = reader
        self._open_files = open_files
        self._numbers = itertools.count()
        self._slot = threading.local()

    def enter(self) -> None:
        """See `Reader.enter`."""
        self._reader.enter()

    def read(self, path: bytes) -> Reading:
        """See `Reader.read`."""
        if not hasattr(self._slot, "number"):
            self._slot.number = next(self._numbers)
            watch_progress("worker", self._go_on)
        self._slot.path = path
        self._open_files.opened(self._slot.number, path)
        try:
            return self._reader.read(path)
        finally:
            self._slot.path = None
            self._open_files.closed(self._slot.number)

    def _go_on(self) -> None:
        """Note that a part of this thread's file was read."""
        if self._slot.path is not None:
            self._open_files.opened(self._slot.number, self._slot.path)


def _own_streams() -> tuple[int, int]:
    """Return new file descriptors of the pipes; 0 becomes ``/dev/null``, 1 standard error.

    A raster may name ``/vsistdin/``, and libraries print: both must not reach the pipes.
    """
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return requests, answers


def _end_with(parent: int) -> None:
    """Have the kernel end this process when its parent dies, for whatever reason."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call of prctl
        os._exit(0)


def _be_the_first_to_go() -> None:
    """Have the kernel kill this process before the run when memory is short (proc(5))."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def _keep_to(cpu: int | None) -> None:
    """Have all threads of this process run on one CPU, if the system allows it."""
    if cpu is not None and sys.platform == "linux":
        with contextlib.suppress(OSError):  # the CPU is no longer in the affinity
            os.sched_setaffinity(0, {cpu})


def _let_threads_finish() -> None:
    """Have a thread that wakes up wait until the running thread pauses (sched(7), SCHED_BATCH).

    Every answer of a store wakes the event loop's thread. If it ran at once, it would interrupt
    the thread that receives the answers, which costs a fifth of all CPU time. A scheduling policy
    that the user has set, for example with chrt(1), stays.
    """
    if hasattr(os, "SCHED_BATCH") and os.sched_getscheduler(0) == os.SCHED_OTHER:
        with contextlib.suppress(OSError):  # forbidden in some sandboxes
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
