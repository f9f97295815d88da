"""Worker processes as they are started: with what configuration, and perhaps ahead of need."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import replace
from typing import IO, NamedTuple

from rastermeta_async.config import Settings, threads_for
from rastermeta_async.environment import own_environment
from rastermeta_async.errors import WorkerError
from rastermeta_async.machine import own_cpus, usable_memory, worker_allowance
from rastermeta_async.workers.wire import OpenFiles, WorkerConfig

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
            [sys.executable, "-P", "-c", "from rastermeta_async.workers.worker import main; main()",
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
