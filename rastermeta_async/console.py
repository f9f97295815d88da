"""What a person sees while a run goes on; all of it on standard error."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rastermeta_async.errors import RastermetaError, SettingsError
from rastermeta_async.exits import FAILED, USAGE
from rastermeta_async.text import on_a_line, plural

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from rastermeta_async.pipeline import Progress

BAR_SECONDS = 0.25
LINE_SECONDS = 60.0


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
        if self._as_json:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            line = json.dumps({"time": now, "level": level, "message": message, **facts})
        else:
            line = f"rastermeta: {on_a_line(message)}"
        if sys.stderr is None:  # closed from the start; print would take standard output
            return
        # The last reader of standard error may be gone; a run does not end over that.
        with contextlib.suppress(OSError):
            print(line, file=sys.stderr, flush=True)  # noqa: T201  # this is where output is made

    async def follow(self, progress: Progress) -> None:
        """Show progress until cancelled; a slow terminal never holds up the run."""
        import asyncio  # of a run; other commands speak through this module, too

        if self._bar:
            with contextlib.suppress(OSError), _live_bar() as bar:  # nobody may look any more
                task = bar.add_task("", total=None, left="")
                while True:
                    _show(bar, task, progress.snapshot())
                    await asyncio.sleep(BAR_SECONDS)
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
        os._exit(USAGE if isinstance(error, SettingsError) else FAILED)
