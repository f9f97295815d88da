"""One worker process from the run's side: start it, give it jobs, read its answers, end it."""

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
"""Size of the pipe of a worker's answers, twice a batch; when it is full, the worker waits."""

RESIDENT_BYTES = 256 * 1024 * 1024
"""A worker that uses more memory than this is replaced between files."""


class Launched(NamedTuple):
    """A process that is starting."""

    process: subprocess.Popen[bytes]
    """Its standard streams are pipes."""
    open_files: OpenFiles


_ahead: dict[WorkerConfig, Launched] = {}


def workers_for(settings: Settings) -> tuple[int, int]:
    """Return the number of workers that a run may have, and of files that each reads at once."""
    most = min(settings.workers, settings.concurrency)
    return most, -(-settings.concurrency // most)


def worker_config(settings: Settings, reader: str | None = None) -> WorkerConfig:
    """Return the configuration of a run's workers; `reader` replaces that of the settings."""
    most, concurrency = workers_for(settings)
    return WorkerConfig(
        parent=os.getpid(),
        concurrency=concurrency,
        timeout=settings.timeout,
        reader=reader or settings.reader_path,
        drivers=settings.drivers,
        gdal_config=settings.gdal_config,
        skip_offline=settings.skip_offline,
        members=settings.members,
        subdatasets=settings.subdatasets,
        access=settings.access,
        open_files=-1,
        slots=threads_for(concurrency),
        resident=RESIDENT_BYTES,
        allowance=worker_allowance(most, usable_memory()),
    )


def launch_ahead(settings: Settings) -> None:
    """Start the first worker before the run, so that it imports while this process imports.

    If no run takes it, it ends with this process.
    """
    cpus = own_cpus(workers_for(settings)[0])
    config = replace(worker_config(settings), cpu=cpus[0] if cpus else None)
    with contextlib.suppress(WorkerError):  # the run raises it again
        _ahead[config] = _start(config)


def launch(config: WorkerConfig) -> Launched:
    """Return a worker process of this configuration; take one that was started ahead if possible.

    Raises:
        WorkerError: the system starts no process.
    """
    return _ahead.pop(config, None) or _start(config)


def _start(config: WorkerConfig) -> Launched:
    open_files: OpenFiles | None = None
    try:
        open_files = OpenFiles.create(config.slots)
        process = subprocess.Popen(  # noqa: S603  # our own command
            # -P: import nothing from the current folder; it may be a foreign archive.
            [sys.executable, "-P", "-c", "from rastermeta_async.pools.worker import main; main()",
             replace(config, open_files=open_files.fd).as_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=own_environment(os.environ) | {"PYTHONPATH": _import_path()},
            pass_fds=[open_files.fd],
            start_new_session=True,  # Ctrl-C in the terminal reaches only the run
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
    """Make a pipe `PIPE_BYTES` large, if the system can (fcntl(2), F_SETPIPE_SZ)."""
    if pipe is not None and sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):  # the user's pipes have reached their limit
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


START_SECONDS = 60.0
"""How long a worker may take to start."""

END_SECONDS = 1.0
"""Time for a worker to end after its input is closed, and again after it is killed."""

_POLL_SECONDS = 0.01
_LAST_WORDS = 2000
"""Number of last bytes kept of a worker's standard error."""


_FRAME = " \t|+-"
"""Characters that Python prints around the errors of an exception group."""


class ChildLost(Exception):  # noqa: N818  # an event that the pool handles
    """A worker process ended, or stopped answering, before its job was finished."""


class _Sign(Enum):
    """What may end the rows of a job."""

    DONE = auto()
    LOST = auto()


class Child:
    """Controls one worker process.

    It polls for the end of the process instead of waiting in the event loop: a loop cannot be
    closed while it waits for a process in uninterruptible sleep.
    """

    alone = False
    """Whether it reads only paths that may have ended another worker."""

    cpu: int | None = None
    """The CPU that it runs on."""

    def __init__(self, process: subprocess.Popen[bytes], open_files: OpenFiles) -> None:
        """Control a process; `start` makes one."""
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
        """Whether it does not answer any more."""

    @classmethod
    async def start(cls, launched: Launched) -> Self:
        """Return a worker whose process is starting; it takes jobs at once."""
        child = cls(*launched)
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
        """Number of its unfinished jobs."""
        return len(self._answers)

    @property
    def name(self) -> str:
        """The process, for a message."""
        return f"process {self._process.pid}"

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    @property
    def cause(self) -> str:
        """How it ended, for a message."""
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
        """Yield the rows of paths, in order; fewer after `stop`.

        Raises:
            ChildLost: the worker ended before it had sent all rows.
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
        """Tell it to open no further file."""
        self._send(encode_job(STOP, ()))

    def _send(self, message: bytes) -> None:
        """Write to the worker; a worker with a closed input is lost, with its last answers.

        A transport notices a closed pipe before the answers end. In uvloop, a later write to it
        raises RuntimeError.
        """
        if self._input.is_closing():
            self.kill()
        if not self.lost:
            self._input.write(message)

    def kill_if_hung(self, timeout: float) -> None:
        """Kill it if a file is open for over `timeout` seconds, or if it did not start in time."""
        now = time.monotonic()
        self._timed_out = {
            at.mark for at in self._open_files.openings() if at.since < now - timeout
        }
        if self._timed_out or not (self.ready or now < self._started + START_SECONDS):
            self.kill()

    def kill(self) -> None:
        """Send SIGKILL and read no more answers; the process may end later."""
        self._process.kill()
        self._lose()

    async def end(self) -> None:
        """Let it end by itself, or kill it; if it does not die, abandon it."""
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
        """Pass its answers on to the jobs until the answers end."""
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
            if await self._gone_within(END_SECONDS):  # `cause` needs the exit status and last words
                await asyncio.wait({hearing}, timeout=END_SECONDS)
        finally:
            self._lose()

    def _lose(self) -> None:
        if not self.lost:
            self._open_at_end = {at.mark for at in self._open_files.openings()}
        self.lost = True
        for answers in self._answers.values():
            while not answers.empty():  # the pool reads these rows again
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
