"""Nothing that a person looks at holds the data up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import COMMAND, PATIENCE, committed, rows_of, run, wait_until

from rastermeta_async.console import MAX_WAITING_BYTES, Console
from rastermeta_async.exits import FAILED, SOME_FAILED

MANY = 60_000
"""Files that are missing; their messages are more than a pipe and the queue hold."""


@pytest.fixture
def unread() -> Iterator[int]:
    """Return the writing end of a pipe that is full, and that nobody reads."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    while True:
        try:
            os.write(writing, bytes(65536))
        except BlockingIOError:
            break
    os.set_blocking(writing, True)
    yield writing
    os.close(reading)
    os.close(writing)


def test_a_standard_error_that_nobody_reads_stops_no_run(tmp_path: Path, unread: int) -> None:
    catalog = tmp_path / "catalog.parquet"
    names = b"".join(b"missing-%07d-%s.tif\n" % (at, b"x" * 100) for at in range(MANY))
    done = subprocess.run(
        [*COMMAND, "extract", "-v", "-o", catalog], input=names, stderr=unread, timeout=PATIENCE,
        check=False,
    )  # fmt: skip
    assert done.returncode == SOME_FAILED
    assert len(rows_of(catalog)) == MANY


def test_a_signal_ends_a_run_whose_messages_nobody_reads(tmp_path: Path, unread: int) -> None:
    catalog = tmp_path / "catalog.parquet"
    command = [*COMMAND, "extract", "-v", "--batch-size", "1", "-o", str(catalog)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=unread) as process:
        assert process.stdin is not None
        process.stdin.write(b"missing.tif\n")
        process.stdin.flush()
        wait_until(lambda: catalog.with_suffix(".parquet.checkpoint").exists())
        wait_until(lambda: committed(catalog) == 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM


def test_what_is_dropped_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    held = threading.Event()

    class Slow:
        def write(self, text: str) -> None:
            held.wait(PATIENCE)
            said.append(text)

        def flush(self) -> None: ...

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr(sys, "stderr", Slow())
    console = Console()
    text = "x" * (MAX_WAITING_BYTES // 4)
    for _ in range(10):
        console.hint(text)
    held.set()
    console.close()
    console.hint("the end")
    console.close()
    lines = [line for line in said if line.strip()]
    whole = sum(line == f"rastermeta: {text}" for line in lines)
    assert f"rastermeta: {10 - whole} messages dropped, as nobody read them" in lines
    assert lines[-1] == "rastermeta: the end"


def test_a_terminal_that_is_stopped_stops_no_run(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.parquet"
    master, slave = os.openpty()
    termios.tcflow(slave, termios.TCOOFF)  # as Ctrl-S does
    names = b"".join(b"missing-%06d.tif\n" % at for at in range(5000))
    done = subprocess.run(
        [*COMMAND, "extract", "-v", "-o", catalog], input=names, stderr=slave, timeout=PATIENCE,
        check=False,
    )  # fmt: skip
    os.close(master)
    os.close(slave)
    assert done.returncode == SOME_FAILED
    assert len(rows_of(catalog)) == 5000


# Pipes in the place of files


@pytest.mark.parametrize("suffix", ["", ".checkpoint"])
def test_a_pipe_in_the_place_of_an_output_is_refused(tmp_path: Path, suffix: str) -> None:
    catalog = tmp_path / "catalog.parquet"
    os.mkfifo(f"{catalog}{suffix}")
    done = run(["extract", "missing.tif", "-o", catalog])
    assert done.returncode == FAILED
    assert b"give another -o" in done.stderr
    assert os.listdir(tmp_path) == [f"catalog.parquet{suffix}"]


def test_a_pipe_in_the_place_of_a_log_tells_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "catalog.parquet.checkpoint")
    done = run(["status", tmp_path / "catalog.parquet"])
    assert done.returncode == FAILED
    assert b"is no regular file, so nothing tells of a run" in done.stderr
