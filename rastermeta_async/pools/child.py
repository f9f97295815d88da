"""One worker process, as the run sees it: started, given jobs, listened to, ended."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from enum import Enum, auto
from typing import IO, NamedTuple, Self, cast

import pyarrow as pa

from rastermeta_async.model.errors import WorkerError
from rastermeta_async.model.gdal_options import own_environment
from rastermeta_async.model.machine import own_cpus, usable_memory, worker_allowance
from rastermeta_async.model.record import SCHEMA
from rastermeta_async.model.settings import Settings, threads_for
from rastermeta_async.pools.protocol import (
    STOP,
    STUCK_STATUS,
    OpenFiles,
    ReplyKind,
    WorkerConfig,
    encode_job,
    mark_of,
    read_reply,
)
from rastermeta_async.readers.sidecars import SIDECARS

PIPE_BYTES = 1024 * 1024
"""What a worker's answers may fill before it has to wait for the run; a batch is half of it."""

RESIDENT_BYTES = 256 * 1024 * 1024
"""A worker that takes more memory than this is replaced between files."""


class Launched(NamedTuple):
    """A process that is starting."""

    process: subprocess.Popen[bytes]
    """Its standard streams are pipes."""
    open_files: OpenFiles


_ahead: dict[WorkerConfig, Launched] = {}


def workers_for(settings: Settings) -> tuple[int, int]:
    """Return how many workers a run may have, and how many files each of them reads at once."""
    most = min(settings.workers, settings.concurrency)
    return most, -(-settings.concurrency // most)


def worker_config(settings: Settings, reader: str | None = None) -> WorkerConfig:
    """Return what the workers of a run are told; `reader` in place of that of the settings."""
    most, concurrency = workers_for(settings)
    return WorkerConfig(
        parent=os.getpid(),
        concurrency=concurrency,
        timeout=settings.timeout,
        reader=reader or settings.reader_path,
        drivers=settings.drivers,
        gdal_config=settings.gdal_config,
        skip_offline=settings.skip_offline,
        access=settings.access,
        open_files=-1,
        slots=threads_for(concurrency),
        resident=RESIDENT_BYTES,
        allowance=worker_allowance(most, usable_memory()),
    )


def launch_ahead(settings: Settings) -> None:
    """Start the first worker of a run that is about to begin: it imports while this process does.

    Never asked for, it ends with this process.
    """
    cpus = own_cpus(workers_for(settings)[0])
    config = replace(worker_config(settings), cpu=cpus[0] if cpus else None)
    with contextlib.suppress(WorkerError):  # the run itself will say so
        _ahead[config] = _start(config)


def launch(config: WorkerConfig) -> Launched:
    """Return a worker process of this configuration, one that was started ahead where there is one.

    Raises:
        WorkerError: the system starts no process.
    """
    return _ahead.pop(config, None) or _start(config)


def _start(config: WorkerConfig) -> Launched:
    open_files: OpenFiles | None = None
    try:
        open_files = OpenFiles.create(config.slots)
        process = subprocess.Popen(  # noqa: S603  # our own command
            # -P: nothing is imported from the current folder, which may be anybody's archive.
            [sys.executable, "-P", "-c", "from rastermeta_async.pools.worker import main; main()",
             replace(config, open_files=open_files.fd).as_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=own_environment(os.environ) | {"PYTHONPATH": _import_path()},
            pass_fds=[open_files.fd],
            start_new_session=True,  # the terminal's Ctrl-C is the run's alone
        )  # fmt: skip
    except OSError as error:
        if open_files:
            open_files.close()
        raise WorkerError(
            f"a worker process cannot be started: {error.strerror}. Free processes, memory and "
            "open files, or give --workers 0, and run the same command again to go on."
        ) from error
    _widen(process.stdout)
    return Launched(process, open_files)


def _import_path() -> str:
    return os.pathsep.join(filter(None, sys.path))


def _widen(pipe: IO[bytes] | None) -> None:
    """Give a pipe room for `PIPE_BYTES`, where the system has that (fcntl(2), F_SETPIPE_SZ)."""
    if pipe is not None and sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):  # others have taken what a user may have
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


START_SECONDS = 60.0
"""How long a worker may take to start."""

END_SECONDS = 1.0
"""How long a worker may take to end when it is told to, and again when it is killed."""

_POLL_SECONDS = 0.01
_LAST_WORDS = 2000
"""Bytes kept of what a worker writes to standard error."""


_FRAME = " \t|+-"
"""What Python draws around the errors of a group."""


class ChildLost(Exception):  # noqa: N818  # an event that the pool handles
    """A worker process has ended, or does not answer, with a job unfinished."""


class _Sign(Enum):
    """What may stand between the rows of a job."""

    DONE = auto()
    LOST = auto()


class Child:
    """A worker process.

    It is waited for by looking, not by the event loop: a loop cannot be closed while a process
    that it waits for is in uninterruptible sleep.
    """

    alone = False
    """Whether it is kept for paths that may have ended another one."""

    cpu: int | None = None
    """CPU that it keeps to."""

    def __init__(self, process: subprocess.Popen[bytes], open_files: OpenFiles) -> None:
        """Take charge of a process; `start` makes one."""
        self._process = process
        self._open_files = open_files
        self._answers: dict[int, asyncio.Queue[pa.RecordBatch | _Sign]] = {}
        self._numbers = itertools.count(STOP + 1)
        self._words = b""
        self._timed_out: set[int] = set()
        self._open_at_end: set[int] = set()
        self._started = time.monotonic()
        self.ready = False
        """Whether it has started."""
        self.leaving = False
        """Whether it takes no further job."""
        self.lost = False
        """Whether it answers nothing any more."""

    @classmethod
    async def start(cls, config: WorkerConfig) -> Self:
        """Return a worker whose process is starting; it may be given jobs at once.

        Raises:
            WorkerError: the system starts no process.
        """
        child = cls(*launch(config))
        await child._connect()
        return child

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        self._input, _ = await loop.connect_write_pipe(
            asyncio.BaseProtocol, cast("IO[bytes]", self._process.stdin)
        )
        answers, self._output = await _stream(cast("IO[bytes]", self._process.stdout))
        errors, self._errors = await _stream(cast("IO[bytes]", self._process.stderr))
        hearing = asyncio.create_task(self._keep_words(errors))
        self._tasks = [hearing, asyncio.create_task(self._listen(answers, hearing))]

    @property
    def jobs(self) -> int:
        """Jobs that it has."""
        return len(self._answers)

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    @property
    def cause(self) -> str:
        """How it ended, for a person."""
        code = self._process.poll()
        if code is None:
            return "no answer"
        if code < 0:
            return f"signal {signal.Signals(-code).name}"
        return f"exit status {code} ({self.last_words})"

    @property
    def last_words(self) -> str:
        """The last line that it wrote to standard error."""
        lines = self._words.decode("utf-8", "replace").splitlines()
        said = (line.strip(_FRAME) for line in reversed(lines))
        return next(filter(None, said), "it said nothing")

    @property
    def stuck(self) -> bool:
        """Whether it ended because too many files hung in it."""
        return self._process.poll() == STUCK_STATUS

    @property
    def hung(self) -> bool:
        """Whether it was killed because files took too long."""
        return bool(self._timed_out)

    def hung_in(self, path: bytes) -> bool:
        """Tell whether it was killed while this file took too long."""
        return mark_of(path) in self._timed_out

    def had_open(self, path: bytes) -> bool:
        """Tell whether it was reading this file when it ended."""
        return mark_of(path) in self._open_at_end

    async def ask(self, paths: Sequence[bytes]) -> AsyncIterator[pa.RecordBatch]:
        """Yield the rows of paths, in order; fewer when it was told to stop.

        Raises:
            ChildLost: it ended before it had answered for all of them.
        """
        number = next(self._numbers)
        answers = self._answers[number] = asyncio.Queue(2)
        try:
            self._send(encode_job(number, paths))
            if self.lost:
                raise ChildLost
            while not isinstance(answer := await answers.get(), _Sign):
                yield answer
            if answer is _Sign.LOST:
                raise ChildLost
        finally:
            del self._answers[number]

    def stop(self) -> None:
        """Have it open no further file."""
        self._send(encode_job(STOP, ()))

    def _send(self, message: bytes) -> None:
        """Write to it; one that takes nothing more is lost, whatever it still has to say.

        A transport that met a closed pipe says so before the end of the answers does, and uvloop
        raises RuntimeError for what is written to it then.
        """
        if self._input.is_closing():
            self.kill()
        if not self.lost:
            self._input.write(message)

    def kill_if_hung(self, timeout: float) -> None:
        """End it if it has had a file open for longer than `timeout` seconds, or never started."""
        now = time.monotonic()
        self._timed_out = {
            at.mark for at in self._open_files.openings() if at.since < now - timeout
        }
        if self._timed_out or not (self.ready or now < self._started + START_SECONDS):
            self.kill()

    def kill(self) -> None:
        """Send SIGKILL and listen no more; the process may take its time."""
        self._process.kill()
        self._lose()

    async def end(self) -> None:
        """Let it end by itself, or kill it; if it does not even die, leave it behind."""
        self.leaving = True
        self._input.close()
        if not await self._gone_within(END_SECONDS):
            self.kill()
            await self._gone_within(END_SECONDS)
        self._lose()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._output.close()
        self._errors.close()
        self._open_files.close()

    async def _gone_within(self, seconds: float) -> bool:
        last = time.monotonic() + seconds
        while not self.ended and time.monotonic() < last:  # noqa: ASYNC110  # only looking tells
            await asyncio.sleep(_POLL_SECONDS)
        return self.ended

    async def _listen(self, answers: asyncio.StreamReader, hearing: asyncio.Task[None]) -> None:
        """Pass its answers on until there are no more."""
        try:
            while not self.lost:
                kind, job, content = await read_reply(answers)
                if kind is ReplyKind.DONE:
                    SIDECARS.add_taken(content)
                if kind is ReplyKind.READY:
                    self.ready = True
                elif kind is ReplyKind.RETIRING:
                    self.leaving = True
                elif queue := self._answers.get(job):
                    await queue.put(_batch_of(content) if kind is ReplyKind.ROWS else _Sign.DONE)
        except (asyncio.IncompleteReadError, ConnectionError):
            if await self._gone_within(END_SECONDS):  # for the cause
                await asyncio.wait({hearing}, timeout=END_SECONDS)
        finally:
            self._lose()

    def _lose(self) -> None:
        if not self.lost:
            self._open_at_end = {at.mark for at in self._open_files.openings()}
        self.lost = True
        for answers in self._answers.values():
            while not answers.empty():  # rows that nobody took are read again
                answers.get_nowait()
            answers.put_nowait(_Sign.LOST)

    async def _keep_words(self, errors: asyncio.StreamReader) -> None:
        while words := await errors.read(_LAST_WORDS):
            self._words = (self._words + words)[-_LAST_WORDS:]


async def _stream(pipe: IO[bytes]) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    stream = asyncio.StreamReader(PIPE_BYTES)
    protocol = asyncio.StreamReaderProtocol(stream)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, pipe)
    return stream, transport


def _batch_of(content: bytes) -> pa.RecordBatch:
    return pa.ipc.read_record_batch(pa.py_buffer(content), SCHEMA)
