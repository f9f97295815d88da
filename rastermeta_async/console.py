"""What a person sees while a run goes on; all of it on standard error.

Whoever reads that may be slow, or have stopped: messages and the live display are written by
threads of their own, and never hold the data up.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rastermeta_async.errors import RastermetaError, SettingsError
from rastermeta_async.exits import FAILED, USAGE
from rastermeta_async.text import on_a_line, plural

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from rastermeta_async.pipeline import Progress

BAR_SECONDS = 0.25
LINE_SECONDS = 60.0

MAX_WAITING_BYTES = 8 * 1024 * 1024
"""Of messages that wait to be written; what comes then is dropped, and counted."""

LAST_WORDS_SECONDS = 1.0
"""How long the end of the program waits for messages to be read."""


class Console:
    """Messages and progress of a run.

    Args:
        quiet: say only what went wrong.
        verbose: say more: each file that is no success.
        as_json: one JSON object a line.
        bar: a live display; None: when standard error is a terminal.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        verbose: bool = False,
        as_json: bool = False,
        bar: bool | None = None,
    ) -> None:
        self._quiet = quiet
        self._as_json = as_json
        terminal = sys.stderr is not None and sys.stderr.isatty()
        wanted = terminal if bar is None else bar
        self._bar = wanted and not quiet and not as_json
        self._lines = not self._bar and not quiet and bar is not False
        self._outlet = _Outlet(self._dropped)
        if verbose:
            logger = logging.getLogger("rastermeta_async")
            logger.setLevel(logging.DEBUG)
            logger.addHandler(_ToConsole(self))

    def error(self, message: str) -> None:
        """Say what went wrong."""
        self.say("error", message)

    def hint(self, message: str) -> None:
        """Say something that a person should know."""
        if not self._quiet:
            self.say("info", message)

    def say(self, level: str, message: str, **facts: object) -> None:
        """Write one message; `facts` go with it where messages are JSON."""
        self._outlet.write(self._line(level, message, **facts))

    def _line(self, level: str, message: str, **facts: object) -> str:
        if not self._as_json:
            return f"rastermeta: {on_a_line(message)}"
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return json.dumps({"time": now, "level": level, "message": message, **facts})

    def _dropped(self, count: int) -> str:
        return self._line("warning", f"{plural(count, 'message')} dropped, as nobody read them")

    def close(self) -> None:
        """Give the messages so far a moment to be read, before the program ends."""
        self._outlet.flush()

    async def follow(self, progress: Progress) -> None:
        """Show progress until cancelled."""
        import asyncio  # of a run; other commands speak through this module, too

        if self._bar:
            done = threading.Event()
            display = threading.Thread(target=_display, args=(progress, done), daemon=True)
            display.start()
            try:
                await asyncio.Event().wait()
            finally:
                done.set()
                display.join(LAST_WORDS_SECONDS)  # it clears its line
        while self._lines:
            await asyncio.sleep(LINE_SECONDS)
            self.report("progress", progress.snapshot())

    def report(self, what: str, progress: Progress) -> None:
        """Say how far a run is."""
        if self._quiet:
            return
        text = f"{what}: {_counts(progress)}, {progress.rate:,.0f} files/s"
        if left := _time_left(progress):
            text += f", about {left} left"
        self.say(
            "info",
            text,
            done=progress.done,
            failures=progress.failures,
            skipped=progress.skipped,
            files_a_second=round(progress.rate, 1),
        )


class _Outlet:
    """Standard error, written to by a thread that starts with the first line.

    Args:
        words: what is said of so many lines that were dropped.
    """

    def __init__(self, words: Callable[[int], str]) -> None:
        self._words = words
        self._lines: deque[str] = deque()
        self._waiting_bytes = 0
        self._dropped = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def write(self, line: str) -> None:
        """Have a line written, unless too much waits already."""
        if sys.stderr is None:  # closed from the start; print would take standard output
            return
        with self._changed:
            if self._waiting_bytes + len(line) > MAX_WAITING_BYTES:
                self._dropped += 1
                return
            self._lines.append(line)
            self._waiting_bytes += len(line)
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="messages", daemon=True)
            self._thread.start()
            atexit.register(self.flush)

    def flush(self) -> None:
        """Wait until all lines are written, but not for long."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines, LAST_WORDS_SECONDS)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                line, dropped = self._lines[0], self._dropped
                self._dropped = 0
            if dropped:
                _print(self._words(dropped))
            _print(line)
            with self._changed:
                self._lines.popleft()
                self._waiting_bytes -= len(line)
                self._changed.notify_all()


def _print(line: str) -> None:
    # The last reader of standard error may be gone; a run does not end over that.
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)  # noqa: T201  # this is where output is made


def _display(progress: Progress, done: threading.Event) -> None:
    """Keep a line on the terminal up to date until all is done."""
    with contextlib.suppress(OSError), _live_bar() as bar:  # nobody may look any more
        task = bar.add_task("", total=None, left="")
        _show(bar, task, progress.snapshot())
        while not done.wait(BAR_SECONDS):
            _show(bar, task, progress.snapshot())


class _ToConsole(logging.Handler):
    """Passes the package's log messages on."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        self._console.say(record.levelname.lower(), record.getMessage())


def _counts(progress: Progress) -> str:
    text = f"{plural(progress.done, 'file')} read"
    if progress.failures:
        text += f", {progress.failures:,} with problems"
    if progress.skipped:
        text += f", {progress.skipped:,} skipped"
    return text


def _time_left(progress: Progress) -> str:
    """Return how long the rest takes, ``h:mm:ss``; empty where nothing tells."""
    if not progress.done or not progress.share or progress.share >= 1:
        return ""
    passed = time.monotonic() - progress.started
    seconds = round(passed * (1 - progress.share) / progress.share)
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _live_bar() -> Bar:
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    class Terminal(RichConsole):
        def on_broken_pipe(self) -> None:
            """Only stop to show progress: rich would end the program."""
            raise BrokenPipeError

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[left]}"),
        console=Terminal(stderr=True),
        transient=True,
    )


def _show(bar: Bar, task: object, progress: Progress) -> None:
    left = _time_left(progress)
    text = f"{_counts(progress)}, {progress.rate:,.0f}/s"
    bar.update(
        task,  # type: ignore[arg-type]  # rich's TaskID is an int by another name
        description="writing the catalog" if progress.sealing else text,
        completed=(progress.share or 0) * 100,
        total=100 if progress.share is not None else None,
        left=f"{left} left" if left else "",
    )


@contextlib.contextmanager
def explained_exit(console: Console) -> Iterator[None]:
    """End the program with status 1 or 2 and a sentence when the run cannot go on."""
    try:
        yield
    except RastermetaError as error:
        console.error(str(error))
        console.close()
        os._exit(USAGE if isinstance(error, SettingsError) else FAILED)
