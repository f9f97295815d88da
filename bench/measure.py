"""Wall time, CPU time and peak memory of a pipeline of commands (Linux only).

CPU time is that of all commands, `find` included. Memory is that of the last command and every
process it started: the sum of their PSS (proportional set size: a page shared by n processes counts
1/n for each), sampled.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

SAMPLE_EVERY = 0.2
"""Seconds between two looks at the memory."""
_ORPHAN_GRACE, _KILL_GRACE = 5.0, 2.0
_PR_SET_CHILD_SUBREAPER = 36


class CommandError(Exception):
    """A command ended with an exit status other than 0, too late, or left processes behind."""


@dataclass(frozen=True)
class Measurement:
    """One run of a pipeline."""

    wall_s: float
    cpu_s: float
    """User and system time of all processes."""
    peak_pss: int
    """Bytes; 0 if the last command was gone before the first sample."""
    samples: int
    """Looks at the memory; few of them make `peak_pss` a lower bound only."""
    stdout: str
    """Of the last command."""


def measure(
    commands: Sequence[Sequence[str]],
    *,
    stdin: Path | None = None,
    cwd: Path | None = None,
    timeout: float = 7200.0,
) -> Measurement:
    """Run commands as a pipeline without a shell, in a process group of their own.

    `stdin` is the file that the first one reads (default: nothing). Raises CommandError with the
    end of stderr; a command in front of the last may also end by SIGPIPE. What a failed run leaves
    behind is killed.
    """
    _adopt_orphans()
    bystanders = _descendants(os.getpid())
    before = _children_cpu()
    running: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        try:
            with open(stdin or os.devnull, "rb") as source:
                _start(commands, source, out, err, cwd, running)
            feeders = [process.pid for process in running[:-1]]
            with _PeakSampler({*bystanders, *feeders}) as sampler:
                _wait(running, start + timeout, err)
                wall = time.perf_counter() - start
            left = _reap(bystanders, _ORPHAN_GRACE)
            if left:
                raise CommandError(f"processes {left} of {commands[-1]!r} outlived it")
        finally:
            _kill_group(running)
            _reap(bystanders, 0.0)
        out.seek(0)
        return Measurement(
            wall_s=wall,
            cpu_s=_children_cpu() - before,
            peak_pss=sampler.peak,
            samples=sampler.samples,
            stdout=out.read().decode(errors="replace"),
        )


def _start(
    commands: Sequence[Sequence[str]],
    source: BinaryIO,
    out: BinaryIO,
    err: BinaryIO,
    cwd: Path | None,
    running: list[subprocess.Popen[bytes]],
) -> None:
    stdin: BinaryIO | None = source
    for number, command in enumerate(commands):
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=out if number == len(commands) - 1 else subprocess.PIPE,
            stderr=err,
            cwd=cwd,
            process_group=running[0].pid if running else 0,
        )
        if running and running[-1].stdout:
            running[-1].stdout.close()  # so that SIGPIPE reaches the one in front
        running.append(process)
        stdin = process.stdout  # type: ignore[assignment]


def _wait(running: Sequence[subprocess.Popen[bytes]], deadline: float, err: BinaryIO) -> None:
    for process in reversed(running):
        try:
            status = process.wait(max(0.0, deadline - time.perf_counter()))
        except subprocess.TimeoutExpired:
            raise CommandError(_message(process, "took too long", err)) from None
        if status != 0 and not (process is not running[-1] and status == -signal.SIGPIPE):
            raise CommandError(_message(process, f"ended with status {status}", err))


def _message(process: subprocess.Popen[bytes], what: str, err: BinaryIO) -> str:
    err.seek(0)
    tail = err.read()[-4000:].decode(errors="replace")
    return f"{process.args!r} {what}\n{tail}"


def _kill_group(running: Sequence[subprocess.Popen[bytes]]) -> None:
    """Kill whatever is left of the group and reap the commands; does nothing after a good run."""
    if all(process.returncode is not None for process in running):
        return
    os.killpg(running[0].pid, signal.SIGKILL)
    for process in running:
        process.wait()


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _adopt_orphans() -> None:
    """Become the parent of processes whose own died (prctl(2)), so that they are counted."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _reap(bystanders: Collection[int], grace: float) -> list[int]:
    """Wait for adopted processes; kill and return those that are left after `grace` seconds."""
    killed: list[int] = []
    deadline = time.perf_counter() + grace
    while left := _descendants(os.getpid(), bystanders):
        if time.perf_counter() > deadline:
            if killed:
                break  # not even SIGKILL ends them
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            killed, deadline = left, time.perf_counter() + _KILL_GRACE
        for pid in left:
            with contextlib.suppress(ChildProcessError):  # not adopted: its parent lives
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.005)
    return killed


class _PeakSampler:
    """Samples the PSS of all descendants of this process, less those at or below `without`."""

    def __init__(self, without: Collection[int]) -> None:
        self.peak = 0
        self.samples = 0
        self._without = without
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="peak-sampler", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_EVERY):
            total = sum(map(_pss, _descendants(os.getpid(), self._without)))
            self.peak = max(self.peak, total)
            self.samples += 1


def _descendants(root: int, without: Collection[int] = ()) -> list[int]:
    """Process ids below `root`, zombies included, less those at or below `without`."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = Path("/proc", name, "stat").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parent = int(stat.rpartition(b")")[2].split()[1])  # proc(5): the name may hold anything
            children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    todo = [root]
    while todo:
        for child in children.get(todo.pop(), []):
            if child not in without:
                found.append(child)
                todo.append(child)
    return found


def _pss(pid: int) -> int:
    """Bytes; 0 for a process that is gone (or a zombie)."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as rollup:
            for line in rollup:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0
