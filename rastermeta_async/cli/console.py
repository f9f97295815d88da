"""Show messages and progress of a run on standard error.

Every message goes through `Console.say`, which removes secrets and control characters, and
through the `Outlet`, which never delays the run.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, cast

from rastermeta_async.model.errors import RastermetaError, SettingsError
from rastermeta_async.model.streams import Outlet
from rastermeta_async.model.text import json_on_lines, on_a_line, plural
from rastermeta_async.model.urls import redacted

OK = 0
"""All inputs were read."""
FAILED = 1
"""The run failed; its message says what to do."""
USAGE = 2
"""Options or arguments are invalid."""
SOME_FAILED = 3
"""The run finished, but some inputs have error rows."""
READER_GONE = 141
"""The reader of standard output has gone, as if SIGPIPE had ended the program."""


def interrupted(signal: int) -> int:
    """Return the exit status of a run that a signal stopped, as shells define it."""
    return 128 + signal


if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from rastermeta_async.progress import Progress

BAR_SECONDS = 0.25
LINE_SECONDS = 60.0

_ERASE = "\r\x1b[2K"
"""Erases the one-line live display of a terminal before a message (ECMA-48, EL)."""


class Console:
    """Messages and progress of a run.

    Args:
        quiet: print only errors.
        verbose: also print each file that is not a success, and each that is no raster.
        as_json: print one JSON object a line.
        bar: show a live display; None: if standard error is a terminal.
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
        self._outlet = Outlet(self._dropped)
        wanted = self._outlet.isatty() if bar is None else bar
        self._bar = wanted and not quiet and not as_json
        self._lines = not self._bar and not quiet and bar is not False
        self._erase = ""
        logging.lastResort = _ToConsole(self, logging.WARNING)  # for warnings of libraries
        if verbose:
            logger = logging.getLogger("rastermeta_async")
            logger.setLevel(logging.DEBUG)
            logger.addHandler(_ToConsole(self, logging.DEBUG))

    def error(self, message: str) -> None:
        """Print an error."""
        self.say("error", message)

    def hint(self, message: str, **facts: object) -> None:
        """Print information for the user, unless `quiet`."""
        if not self._quiet:
            self.say("info", message, **facts)

    def say(self, level: str, message: str, **facts: object) -> None:
        """Print one message; in JSON messages `facts` are added."""
        line = self._line(level, redacted(message), **facts)
        self._outlet.write(self._erase + line)

    def close(self) -> None:
        """Wait a moment for the messages to be read, before the program ends."""
        self._outlet.finish()

    def _line(self, level: str, message: str, **facts: object) -> str:
        if not self._as_json:
            return f"rastermeta: {on_a_line(message)}\n"
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        entry = {"time": now, "level": level, "message": message, **facts}
        return json_on_lines(json.dumps(entry)) + "\n"

    def _dropped(self, count: int) -> str:
        were = "was" if count == 1 else "were"
        return self._line("warning", f"{plural(count, 'message')} {were} dropped: nobody read them")

    async def follow(self, progress: Progress) -> None:
        """Show progress until cancelled."""
        import asyncio  # only runs need it; other commands use this module, too

        with self._display() as show:
            said = time.monotonic()
            while True:
                self._outlet.flush()
                if self._outlet.is_clear:  # else skip this display: older text still waits
                    show(progress)
                if self._lines and time.monotonic() - said >= LINE_SECONDS:
                    said = time.monotonic()
                    self.report("progress", progress.snapshot())
                await asyncio.sleep(BAR_SECONDS)

    @contextlib.contextmanager
    def _display(self) -> Iterator[Callable[[Progress], None]]:
        """Keep the live display open, if there is one; yield a function that shows progress."""
        if not self._bar:
            yield lambda _: None
            return
        with _live_bar(self._outlet) as bar:
            task = bar.add_task("", total=None, left="")
            if bar.console.is_terminal and not bar.console.is_dumb_terminal:
                self._erase = _ERASE
            try:
                yield lambda progress: _show(bar, task, progress.snapshot())
            finally:
                self._erase = ""

    def report(self, what: str, progress: Progress) -> None:
        """Print how far a run is."""
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
            sidecars=progress.sidecars,
            others=progress.others,
            skipped=progress.skipped,
            files_a_second=round(progress.rate, 1),
        )


class _ToConsole(logging.Handler):
    """Passes log messages to a console."""

    def __init__(self, console: Console, level: int) -> None:
        super().__init__(level)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        self._console.say(record.levelname.lower(), record.getMessage())


def _counts(progress: Progress) -> str:
    text = f"{plural(progress.rasters, 'file')} read"
    if progress.rows > progress.rasters:
        text += f" ({plural(progress.rows, 'row')})"
    if progress.failures:
        text += f", {progress.failures:,} with problems"
    if count := progress.sidecars + progress.others:
        text += f", {count:,} no raster{'' if count == 1 else 's'}"
    if progress.skipped:
        text += f", {progress.skipped:,} skipped"
    return text


def _time_left(progress: Progress) -> str:
    """Return how long the rest takes, ``h:mm:ss``; empty: unknown."""
    seconds = round(progress.seconds_left or 0)
    if not seconds:
        return ""
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _live_bar(outlet: Outlet) -> Bar:
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[left]}"),
        console=RichConsole(file=cast("IO[str]", outlet)),
        auto_refresh=False,  # else a separate thread writes
        redirect_stdout=False,
        redirect_stderr=False,
        transient=True,
    )


def _show(bar: Bar, task: object, progress: Progress) -> None:
    left = _time_left(progress)
    text = f"{_counts(progress)}, {progress.rate:,.0f}/s"
    bar.update(
        task,  # type: ignore[arg-type]  # rich's TaskID is an int
        description="writing the catalog" if progress.sealing else text,
        completed=(progress.share or 0) * 100,
        total=100 if progress.share is not None else None,
        left=f"{left} left" if left else "",
    )
    bar.refresh()


@contextlib.contextmanager
def explained_exit(console: Console) -> Iterator[None]:
    """End the program with status 1 or 2 and a message if the block raises RastermetaError."""
    try:
        yield
    except RastermetaError as error:
        console.error(str(error))
        console.close()
        os._exit(USAGE if isinstance(error, SettingsError) else FAILED)
