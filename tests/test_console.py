"""What a person sees: it holds nothing up, it moves no cursor, and it gives nothing away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
import tty
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command import (
    COMMAND,
    PATIENCE,
    committed,
    from_json,
    in_shell,
    log_of,
    paths_of,
    rows_of,
    run,
    wait_until,
    write_raster,
)

from rastermeta_async.api import Outcome
from rastermeta_async.cli import console as console_module
from rastermeta_async.cli import run as run_module
from rastermeta_async.cli.console import (
    BAR_SECONDS,
    FAILED,
    OK,
    SOME_FAILED,
    USAGE,
    Console,
    explained_exit,
)
from rastermeta_async.model.errors import OutputError
from rastermeta_async.model.streams import LAST_WORDS_SECONDS, MAX_WAITING_BYTES, has_room
from rastermeta_async.progress import Progress

UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
HOSTILE = "a\u202eb\u2066c\u200fd\u061ce\x9b31mf\x1b[2Jg\x7fh\u2028i\U000e0001j[red]k.tif"
"""Of each sort of characters that a terminal must not get, and what rich takes for a colour."""

THE_END = "this is the end"

MANY = 5000
"""Files that are missing; to name them takes more than a pipe holds."""


class Reader:
    """A pipe that is full, and that nobody reads before `read`."""

    def __init__(self) -> None:
        self.end, self.given = os.pipe()
        os.set_blocking(self.given, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.given, b"." * 4096)
        os.set_blocking(self.given, True)

    def read(self) -> bytes:
        """Return all that comes until nobody can write any more."""
        os.close(self.given)
        with open(self.end, "rb", closefd=False) as file:
            return file.read().lstrip(b".")


@pytest.fixture
def unread() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    for fd in (reader.end, reader.given):
        with contextlib.suppress(OSError):
            os.close(fd)


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The name of a catalog in an empty folder; the command runs in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "catalog.parquet"


def missing(count: int) -> bytes:
    return b"".join(b"missing-%05d.tif\n" % at for at in range(count))


@contextlib.contextmanager
def started(
    command: list[str], *, stderr: int, stdout: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command, its standard input a pipe; it is killed on leaving."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr) as process:
        try:
            yield process
        finally:
            process.kill()


# Nobody reads


@pytest.mark.campaign
@pytest.mark.parametrize("options", [["-v"], ["-v", "--log-json"], ["-v", "--progress"]])
def test_a_standard_error_that_nobody_reads_stops_no_run(
    catalog: Path, unread: Reader, options: list[str]
) -> None:
    command = [*COMMAND, "extract", *options, "-o", str(catalog)]
    done = subprocess.run(
        command, input=missing(MANY), stderr=unread.given, timeout=PATIENCE, check=False
    )
    assert done.returncode == SOME_FAILED
    assert len(rows_of(catalog)) == MANY


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize("flags", [os.O_TRUNC, os.O_APPEND])
def test_messages_reach_a_file(catalog: Path, tmp_path: Path, workers: str, flags: int) -> None:
    """As from cron; with no workers, what libraries print is kept from standard error."""
    command = [*COMMAND, "extract", "-v", "--workers", workers, "-o", str(catalog)]
    file = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | flags)
    os.write(file, b"what came before\n" * 100)
    done = subprocess.run(command, input=missing(2), stderr=file, timeout=PATIENCE, check=False)
    os.close(file)
    assert done.returncode == SOME_FAILED
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[:100] == ["what came before"] * 100
    assert sum("missing-" in line and ": error: " in line for line in lines) == 2
    assert any("finished: 2 files read" in line for line in lines)


def test_a_full_disk_under_the_messages_stops_no_run(catalog: Path) -> None:
    for words in (["-v", "--workers", "0"], ["--progress"]):
        extract: list[str | Path] = ["extract", *words, "missing.tif", "-o", catalog]
        assert in_shell('"$@" 2>/dev/full', *extract).returncode == SOME_FAILED
        assert len(rows_of(catalog)) == 1


def test_a_message_says_what_the_encoding_of_its_reader_has_no_letters_for(catalog: Path) -> None:
    done = run(["extract", "caf\xe9.tif", "-v", "-o", catalog], PYTHONIOENCODING="ascii")
    assert (done.returncode, len(rows_of(catalog))) == (SOME_FAILED, 1)
    assert rb"caf\xe9.tif: error: " in done.stderr


def test_a_socket_that_nobody_reads_stops_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under supervisors that log through one; it cannot be opened anew.

    Nor is more written than there is room for when some of it was read.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs, open(theirs.fileno(), "w", closefd=False) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        console, said = Console(), bytearray()

        def say() -> None:
            for _ in range(250):
                console.hint("x" * 4000)

        for _ in range(2):
            saying = threading.Thread(target=say, daemon=True)
            saying.start()
            saying.join(PATIENCE / 10)
            assert not saying.is_alive()
            while not has_room(theirs.fileno(), 0):
                said += ours.recv(4096)
        assert theirs.getblocking()
        reading = threading.Thread(target=drain, args=(ours.fileno(), said))
        reading.start()
        console.hint(THE_END)
        while not console._outlet.is_clear:
            console.close()
        reading.join(PATIENCE)
    assert said.count(b"x" * 4000) == 500


SAY = """
from rastermeta_async.cli.console import Console
Console().hint("this is the end")
print("said", flush=True)
"""


def test_a_last_word_is_read_by_who_reads_a_moment_after_the_end(unread: Reader) -> None:
    """Also where a command does not wait for it by itself."""
    with started(
        [sys.executable, "-c", SAY], stderr=unread.given, stdout=subprocess.PIPE
    ) as ending:
        assert ending.stdout is not None
        assert ending.stdout.readline() == b"said\n"
        assert unread.read().endswith(b"this is the end\n")


@pytest.mark.campaign
@pytest.mark.parametrize("stopped", [False, True])
def test_a_terminal_that_nobody_reads_stops_no_run(catalog: Path, stopped: bool) -> None:
    master, terminal = pty.openpty()
    if stopped:
        termios.tcflow(terminal, termios.TCOOFF)  # as Ctrl-S does
    command = [*COMMAND, "extract", "-v", "-o", str(catalog)]
    done = subprocess.run(
        command, input=missing(MANY), stderr=terminal, timeout=PATIENCE, check=False
    )
    os.close(master)
    os.close(terminal)
    assert done.returncode == SOME_FAILED
    assert len(rows_of(catalog)) == MANY


def test_a_signal_ends_a_run_whose_messages_nobody_reads(catalog: Path, unread: Reader) -> None:
    command = [*COMMAND, "extract", "-v", "--batch-size", "1", "-o", str(catalog)]
    with started(command, stderr=unread.given) as process:
        assert process.stdin is not None
        process.stdin.write(b"missing.tif\n")
        process.stdin.flush()
        wait_until(lambda: committed(catalog) == 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM


@pytest.mark.campaign
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_signal_ends_a_run_whose_data_nobody_reads(
    catalog: Path, unread: Reader, workers: str
) -> None:
    command = [*COMMAND, "extract", "-v", "-o", "-", "--workers", workers]
    with started(command, stdout=unread.given, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(missing(10))
        process.stdin.close()
        while b"missing-00009" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.campaign
@pytest.mark.parametrize("words", [["summary", "a.parquet"], ["extract", "-o", "a.parquet"]])
def test_a_last_word_that_nobody_reads_holds_no_command_up(
    catalog: Path, unread: Reader, words: list[str]
) -> None:
    done = subprocess.run(
        [*COMMAND, *words], stdin=subprocess.DEVNULL, stderr=unread.given, timeout=5, check=False
    )
    assert done.returncode in (OK, FAILED)


def test_why_a_command_ends_is_said_to_who_reads_a_moment_later(
    unread: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = bytearray()
    reading = threading.Thread(target=drain, args=(unread.end, said), daemon=True)

    class Read(Console):
        """A console that somebody reads from the first error on."""

        def error(self, message: str) -> None:
            super().error(message)
            reading.start()

    with open(unread.given, "w", closefd=False) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(os, "_exit", sys.exit)
        with pytest.raises(SystemExit) as ended, explained_exit(Read()):
            raise OutputError(THE_END)
    reading.join(PATIENCE / 10)
    assert ended.value.code == FAILED
    assert bytes(said).lstrip(b".").decode() == f"rastermeta: {THE_END}\n"


def test_what_waits_is_read_once_somebody_reads(catalog: Path, unread: Reader) -> None:
    command = [*COMMAND, "extract", "-v", "-o", str(catalog)]
    with started(command, stderr=unread.given) as process:
        assert process.stdin is not None
        process.stdin.write(missing(MANY))
        process.stdin.flush()
        wait_until(lambda: sum(e["rows"] for e in log_of(catalog) if e["kind"] == "part") > 0)
        reading = threading.Timer(0, process.stdin.close)
        reading.start()
        said = unread.read()
        assert process.wait(PATIENCE) == SOME_FAILED
    lines = said.decode().splitlines()
    assert sum("missing-" in line and ": error: " in line for line in lines) == MANY
    assert lines[-1].startswith("rastermeta: ")
    assert not any("dropped: nobody" in line for line in lines)


def test_a_run_that_has_ended_waits_a_moment_for_who_reads_its_messages(
    catalog: Path, unread: Reader
) -> None:
    with started([*COMMAND, "extract", "-o", str(catalog)], stderr=unread.given) as process:
        assert process.stdin is not None
        process.stdin.write(missing(3))
        process.stdin.close()
        wait_until(lambda: catalog.exists() and log_of(catalog)[-1]["kind"] == "sealed")
        time.sleep(0.3)  # it has nothing more to do than to say so
        assert unread.read().decode().splitlines()[-1].startswith("rastermeta: ")
        assert process.wait(PATIENCE) == SOME_FAILED


def test_of_the_live_display_only_the_latest_waits_for_a_terminal(catalog: Path) -> None:
    """As for one that was stopped with Ctrl-S for hours."""
    master, terminal = pty.openpty()
    command = [*COMMAND, "extract", "-o", str(catalog), "--progress"]
    with started(command, stderr=terminal) as process:
        assert b"\x1b" in os.read(master, 65536)
        termios.tcflow(terminal, termios.TCOOFF)
        drain_now(master)
        time.sleep(16 * BAR_SECONDS)
        termios.tcflow(terminal, termios.TCOON)
        time.sleep(BAR_SECONDS)
        assert drain_now(master).count(b"\x1b[2K") < 10
        process.kill()
    os.close(master)
    os.close(terminal)


def drain_now(fd: int) -> bytes:
    """Return what is there to be read."""
    found = b""
    while select.select([fd], [], [], 0)[0]:
        found += os.read(fd, 65536)
    return found


@pytest.mark.campaign
@pytest.mark.parametrize("as_json", [False, True])
def test_what_is_dropped_is_counted(
    unread: Reader, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    with open(unread.given, "w", closefd=False) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        console = Console(as_json=as_json)
        length = MAX_WAITING_BYTES // 10
        for _ in range(25):
            console.hint("x" * length)
        reading = threading.Thread(target=drain, args=(unread.end, said := bytearray()))
        reading.start()
        console.close()
        console.hint(THE_END)
        console.close()
    reading.join(PATIENCE)
    lines = bytes(said).lstrip(b".").decode().splitlines()
    whole = sum("x" * length in line for line in lines)
    assert 5 < whole < 10
    told = f"{25 - whole} messages were dropped: nobody read them"
    assert [at for at, line in enumerate(lines) if told in line] == [len(lines) - 2], "told once"
    assert THE_END in lines[-1]
    assert not as_json or all(json.loads(line)["message"] for line in lines)


def test_what_was_dropped_is_told_though_nothing_follows(
    unread: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(unread.given, "w", closefd=False) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        console = Console()
        for _ in range(25):
            console.hint("x" * (MAX_WAITING_BYTES // 10))
        told = "messages were dropped: nobody read them"
        reading = threading.Thread(target=drain, args=(unread.end, said := bytearray(), told))
        reading.daemon = True
        reading.start()
        console.close()
        reading.join(PATIENCE / 10)
    assert told in said[-100:].decode()


def drain(fd: int, into: bytearray, end: str = THE_END) -> None:
    while end.encode() not in into[-100:] and (some := os.read(fd, 65536)):
        into += some


def test_a_reader_that_has_gone_is_not_waited_for(
    unread: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(unread.given, "w", closefd=False) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        console = Console()
        console.hint(THE_END)  # waits, as there is no room
        os.close(unread.end)
        start = time.monotonic()
        console.close()
    assert time.monotonic() - start < LAST_WORDS_SECONDS / 2


def test_the_shells_standard_error_stays_as_it_is(catalog: Path, unread: Reader) -> None:
    """O_NONBLOCK is shared by all that write there."""
    subprocess.run(
        [*COMMAND, "extract", "none.tif", "-o", catalog], stderr=unread.given, timeout=PATIENCE,
        check=False,
    )  # fmt: skip
    assert os.get_blocking(unread.given)


# How far a run is


@pytest.mark.parametrize(
    ("seconds", "progress", "left"),
    [
        (3600, {"done": 10, "taken": 10, "fraction": 0.25}, "3:00:00"),
        (100, {"done": 5, "taken": 5, "fraction": 0.5}, "0:01:40"),
        (80, {"done": 10, "taken": 40, "fraction": 0.5}, "0:09:20"),
        (80, {"done": 10, "taken": 10}, None),
        (80, {"done": 0, "taken": 10, "fraction": 0.5}, None),
        (80, {"done": 10, "taken": 10, "fraction": 1.0}, None),
    ],
)
def test_a_report_says_how_long_the_rest_takes(
    capfd: pytest.CaptureFixture[str], seconds: int, progress: dict[str, Any], left: str | None
) -> None:
    Console().report("progress", Progress(started=time.monotonic() - seconds, **progress))
    (line,) = capfd.readouterr().err.splitlines()
    assert line.partition(", about ")[2] == (f"{left} left" if left else "")
    assert f"progress: {progress['done']} files read, " in line


@pytest.mark.parametrize(
    ("options", "lines"),
    [({}, 3), ({"as_json": True}, 3), ({"quiet": True}, 0), ({"bar": False}, 0)],
)
def test_where_no_one_looks_on_a_line_a_minute_says_how_far_a_run_is(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: Any, lines: int
) -> None:
    clock = SimpleNamespace(now=0.0, strftime=time.strftime, gmtime=time.gmtime)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(console_module, "time", clock)
    monkeypatch.setattr(console_module, "BAR_SECONDS", 0)

    async def run_is_on() -> None:
        following = asyncio.create_task(Console(**options).follow(Progress()))
        for _ in range(10):
            await asyncio.sleep(0)
            clock.now += 25
        following.cancel()
        await asyncio.wait({following})

    asyncio.run(run_is_on())
    assert len(capfd.readouterr().err.splitlines()) == lines


# Terminals


@pytest.mark.parametrize("options", [["-q"], ["--log-json"], ["--no-progress"]])
def test_a_terminal_has_no_live_display_where_none_is_wanted(
    catalog: Path, options: list[str]
) -> None:
    given: list[str | Path] = ["extract", *options, write_raster(Path("a.tif")), "-o", catalog]
    text = shown(given, streams="err")
    assert not unsafe(text)
    if options == ["--log-json"]:
        assert all(from_json(line.encode()) for line in text.splitlines())
    assert (text == "") == (options == ["-q"])


def test_the_live_display_says_when_the_catalog_is_written_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console_module, "BAR_SECONDS", 0.0)
    ours, theirs = pty.openpty()
    said = bytearray()
    with open(theirs, "w", closefd=False) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        console = Console()
        progress = Progress(done=2, taken=4, fraction=1.0, started=time.monotonic() - 60)

        async def run_is_on() -> None:
            following = asyncio.create_task(console.follow(progress))
            for sealing in (False, True):
                progress.sealing = sealing
                for _ in range(5):
                    await asyncio.sleep(0)
            following.cancel()
            await asyncio.wait({following})

        asyncio.run(run_is_on())
        console.hint(THE_END)
        console.close()
        while THE_END.encode() not in said:
            said += os.read(ours, 65536)
    os.close(theirs)
    os.close(ours)
    assert b"2 files read, " in said
    assert b"0:01:00 left" in said
    display, _, rest = bytes(said).rpartition(b"writing the catalog")
    assert display
    assert b"\x1b[2K" in rest, "the display is taken off the terminal"


def test_a_message_takes_the_live_display_off_the_terminal_and_nothing_once_that_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    said = bytearray()
    with open(theirs, "w", closefd=False) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        console = Console(bar=True)

        async def run_is_on() -> None:
            following = asyncio.create_task(console.follow(Progress()))
            await asyncio.sleep(0)
            console.hint("in between")
            following.cancel()
            await asyncio.wait({following})

        asyncio.run(run_is_on())
        console.hint(THE_END)
        console.close()
        while THE_END.encode() not in said:
            said += os.read(ours, 65536)
    os.close(theirs)
    os.close(ours)
    erased = b"\r\x1b[2Krastermeta: "
    assert erased + b"in between" in said
    assert erased + THE_END.encode() not in said


def shown(arguments: list[str | Path], *, streams: str = "out err", status: int = OK) -> str:
    """Return what a terminal gets, byte for byte."""
    master, terminal = pty.openpty()
    tty.setraw(terminal)
    into = {name: terminal if name in streams else subprocess.DEVNULL for name in ("out", "err")}
    got = bytearray()
    with subprocess.Popen(
        [*COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=into["out"], stderr=into["err"],
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"},
    ) as process:  # fmt: skip
        os.close(terminal)
        with contextlib.suppress(OSError):  # EIO: nobody has the terminal open any more
            drain(master, got)
        assert process.wait(PATIENCE) == status, bytes(got)
    os.close(master)
    return got.decode()


def unsafe(text: str) -> set[str]:
    return {one for one in text if unicodedata.category(one) in UNSAFE} - {"\n", "\r"}


@pytest.fixture
def hostile(catalog: Path) -> Path:
    """A raster whose name, tags and description are hostile."""
    import rasterio

    path = write_raster(catalog.parent / HOSTILE)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(**{HOSTILE: HOSTILE})
        dataset.set_band_description(1, HOSTILE)
    return path


@pytest.mark.campaign
@pytest.mark.parametrize("options", [[], ["--json"], ["--compare"], ["--compare", "--json"]])
def test_a_record_moves_no_cursor(hostile: Path, options: list[str]) -> None:
    text = shown(["show", hostile.name, *options])
    assert not unsafe(text)
    assert "[red]" in text
    piped = run(["show", hostile.name, *options]).stdout.decode()
    if "--json" in options:
        assert from_json(text.encode()) == from_json(piped.encode())
        assert "\u202e" in piped


@pytest.mark.campaign
@pytest.mark.parametrize("name", ["lost\u202e\x9b[red].tif", "lost-\udce9\x1b[31m.tif"])
def test_messages_and_summaries_move_no_cursor(catalog: Path, name: str) -> None:
    extract: list[str | Path] = ["extract", "-v", "--progress", "-o", catalog, name]
    said = shown(extract, streams="err", status=SOME_FAILED)
    line = next(line for line in said.splitlines() if ": error: " in line)
    assert "\u202e" not in said
    assert "\x9b" not in said
    assert "\x1b[31m" not in line
    assert not unsafe(line.rpartition("\x1b[2K")[2])
    assert "[red]" in line or "[31m" in line
    for options in ([], ["--json"]):
        text = shown(["summary", catalog, *options])
        assert not unsafe(text)
    assert from_json(text.encode()) == from_json(run(["summary", catalog, "--json"]).stdout)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_terminal_has_the_live_display(catalog: Path, workers: str) -> None:
    path = write_raster(Path("a.tif"))
    said = shown(["extract", path, "-o", catalog, "--workers", workers], streams="err")
    assert "\x1b[2K" in said.partition("finished")[0]


def test_rows_on_a_terminal_move_no_cursor(hostile: Path) -> None:
    text = shown(["extract", hostile.name, "-o", "-"], streams="out")
    assert not unsafe(text)
    piped = run(["extract", hostile.name, "-o", "-"]).stdout
    assert from_json(text.encode()) == from_json(piped)
    assert HOSTILE.encode()[:4] in piped


@pytest.mark.campaign
@pytest.mark.parametrize(
    "arguments",
    [
        ["extract", "--\u202e\x9b[red]"],
        ["extract", "--batch-size", "\u202e\x1b[31m"],
        ["extract", "--drivers", "\u202e\x1b[31m"],
        ["\u202e\x1b[31m"],
        ["show", "a", "\u202e\x1b[31m"],
        ["export", "stac", "a", "-o", "b", "\u202e\x1b[31m"],
        ["extract", "--from-file", "\u202e\x1b[31m", "-o", "c.parquet"],
        ["extract", "--from-file", "https://me:hidden@h/list", "-o", "c.parquet"],
        ["extract", "--batch-size", "https://me:hidden@h/list"],
        ["extract", "--no-progress", "-o", "https://me:hidden@h/c.parquet?sig=hidden", "a.tif"],
        ["export", "stac", "a", "-o", "b.ndjson", "--base-url", "https://me:hidden@h/data"],
        ["summary", "https://me:hidden@h/c.parquet"],
    ],
)
def test_what_is_wrong_with_arguments_is_said_safely(catalog: Path, arguments: list[str]) -> None:
    text = shown([*arguments], status=USAGE)
    assert not unsafe(text)
    assert "hidden" not in text


def test_lists_are_exact_in_pipes_and_safe_on_terminals(catalog: Path) -> None:
    names = [b"a\x1b[31m.tif", b"b\xe9\x9b.tif", "c\u202e.tif".encode(), b"d\ne.tif"]
    for name in names:
        Path(os.fsdecode(name)).write_bytes(b"")
    run(["extract", "-0", "-o", catalog], stdin=b"\0".join(names))
    assert paths_of(catalog) == names
    for name in names:
        os.unlink(name)
    dry: list[str | Path] = ["extract", "-o", catalog, "--prune", "--dry-run"]
    assert run(dry).stdout == b"".join(name + b"\n" for name in names)
    assert run([*dry, "-0"]).stdout == b"".join(name + b"\0" for name in names)
    text = shown(dry, streams="out")
    assert not unsafe(text)
    assert text.splitlines()[0] == r"a\x1b[31m.tif"
    assert len(text.splitlines()) == len(names)


# Secrets


@pytest.mark.campaign
def test_nothing_that_leaves_the_program_gives_a_secret_away(catalog: Path) -> None:
    paths = [
        " https://me:hidden@h/a.tif?sig=hidden", "vrt://https://me:hidden@h/a.tif?jwt=hidden",
        "/vsicurl?url=https%3A%2F%2Fme%3Ahidden%40h%2Fa.tif&header.Authorization=Bearer%20hidden",
        "ftp://me:hidden@h/a.tif#passwd=hidden", "/vsicurl/http://me:hidden@h/a.tif;sessionid=hidden",
    ]  # fmt: skip
    Path("a.vrt").write_text(
        '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1">'
        "<SimpleSource><SourceFilename>/vsicurl/http://me:hidden@localhost:9/a.tif?sig=hidden"
        "</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    given = "\n".join([*paths, "a.vrt", "plain?sig=b;c.tif"]).encode()
    done = run(["extract", "-v", "-o", catalog], stdin=given)
    assert len(rows_of(catalog)) == len(paths) + 2
    assert "plain?sig=b;c.tif" in [row["filepath"] for row in rows_of(catalog)]
    kept = [done, *(run([*words, catalog]) for words in (["summary"], ["summary", "--json"]))]
    kept += [run(["status", catalog]), run(["extract", "--prune", "--dry-run", "-o", catalog])]
    kept += [run(["show", path]) for path in [*paths, "a.vrt"]]
    kept += [run(["extract", "-o", "-", *paths, "--log-json", "-v"])]
    assert "hidden" not in repr(rows_of(catalog)) + repr(log_of(catalog))
    for command in kept:
        assert b"hidden" not in command.stdout + command.stderr, command
    again = run(["extract", "-o", catalog], stdin=given.replace(b"hidden", b"anew"))
    assert b"0 files read" in again.stderr


@pytest.mark.parametrize("passing", [0, 1])
def test_rows_below_a_folder_that_did_not_answer_are_not_said_to_be_dropped(
    capsys: pytest.CaptureFixture[str], passing: int
) -> None:
    progress = Progress(done=1, failures=1, passing=passing, not_given=5, example="a: no answer")
    run_module._conclude(Outcome(6, 6, complete=True), "c.parquet", False, progress, Console())
    said = capsys.readouterr().err
    assert "--retry-failed" in said
    assert ("5 error rows are of paths that are not in this input" in said) == (not passing)


@pytest.mark.parametrize("as_json", [False, True])
def test_no_message_holds_a_password(as_json: bool) -> None:
    options = ["--log-json"] if as_json else []
    url = "https://me:hidden@host/list.txt"
    done = run(["extract", "-o", "-", "--from-file", url, *options])
    assert done.returncode != 0
    assert b"list.txt" in done.stderr
    assert b"hidden" not in done.stderr
