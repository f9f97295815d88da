"""A run as a process: event loop, signals, standard streams, exit status."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Iterator

from rastermeta_async.api import Outcome, extract_to, extract_to_stream
from rastermeta_async.config import Settings
from rastermeta_async.console import Console
from rastermeta_async.errors import PruneError, SourceError
from rastermeta_async.exits import FAILED, OK, READER_GONE, SOME_FAILED, interrupted
from rastermeta_async.loops import new_loop
from rastermeta_async.memory import collect_seldom
from rastermeta_async.pipeline import Progress
from rastermeta_async.sources import Source
from rastermeta_async.text import plural


def run_extract(
    source: Source, output: str, settings: Settings, overwrite: bool, console: Console
) -> int:
    """Run to the end, or to the second signal; return the exit status.

    The caller must leave by `os._exit`: threads that hang cannot be joined.
    """
    if not settings.workers:
        _quiet_rasterio()
    collect_seldom()
    progress = Progress()
    loop = new_loop()
    try:
        work = _extract(source, output, settings, overwrite, console, progress)
        outcome, signalled = loop.run_until_complete(work)
    except BrokenPipeError:
        return READER_GONE
    if not outcome.complete:
        return interrupted(signalled) if signalled else FAILED
    return SOME_FAILED if outcome.failures else OK


def _quiet_rasterio() -> None:
    from rastermeta_async.reader import quiet_undecodable_messages

    warnings.simplefilter("ignore")  # rows say what is wrong with a file
    quiet_undecodable_messages()


async def _extract(
    source: Source, output: str, settings: Settings, overwrite: bool, console: Console,
    progress: Progress,
) -> tuple[Outcome, int]:  # fmt: skip
    stop = asyncio.Event()
    following = asyncio.create_task(console.follow(progress))
    try:
        with _signals(stop, console) as received:
            if output == "-":
                outcome = await extract_to_stream(
                    sys.stdout.fileno(), source, settings, progress=progress, stop=stop
                )
            else:
                try:
                    outcome = await extract_to(
                        output, source, settings, overwrite=overwrite, progress=progress, stop=stop
                    )
                except PruneError:  # all else was done
                    console.report("finished", progress)
                    raise
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
    _conclude(outcome, output, overwrite, progress, console)
    return outcome, received[0] if received else 0


def _conclude(
    outcome: Outcome, output: str, overwrite: bool, progress: Progress, console: Console
) -> None:
    if not outcome.complete:
        console.report("stopped", progress)
        if output != "-":
            again = "again, without --overwrite," if overwrite else "again"
            console.hint(f"what was read is safe; run the same command {again} to go on")
        return
    console.report("finished", progress)
    if not progress.done and not progress.skipped:
        console.hint("there was no path in the input")
    if progress.example and progress.failures == progress.done and not progress.skipped:
        console.hint(f"no file could be read, e.g. {progress.example}")
        if output != "-":
            console.hint("once that is mended, --retry-failed reads them again")
    if output != "-":
        if progress.dropped:
            console.hint(f"{plural(progress.dropped, 'row')} dropped: no longer a file on the disk")
        failed = f", {plural(outcome.failures, 'error row')} among them" if outcome.failures else ""
        console.hint(f"{output}: {plural(outcome.rows, 'row')}{failed}")


@contextlib.contextmanager
def _signals(stop: asyncio.Event, console: Console) -> Iterator[list[int]]:
    """Set `stop` on the first signal to end, end the process on the second.

    Ending it at once is as safe as a crash: everything on disk is in order at any instant.
    """
    received: list[int] = []

    def on_signal(number: int) -> None:
        received.append(number)
        if len(received) > 1:
            os._exit(interrupted(number))
        stop.set()
        console.hint("stopping: finishing what is in flight; once more to stop at once")

    loop = asyncio.get_running_loop()
    if sys.platform == "win32":
        yield received
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # else it is as under nohup(1)
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield received
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
            # From here to the exit there is nothing left to finish.
            signal.signal(number, lambda number, _frame: os._exit(interrupted(number)))


def protected_stdin(console: Console) -> int:
    """Return standard input under a number of its own; descriptor 0 becomes ``/dev/null``.

    A raster may name ``/vsistdin/`` as its source: GDAL would then read the list of paths.

    Raises:
        SourceError: there is no standard input.
    """
    closed = SourceError(
        "standard input is closed: pipe paths in, name inputs, or give --from-file"
    )
    if sys.stdin is None:
        raise closed
    try:
        own = os.dup(0)
    except OSError as error:
        raise closed from error
    if os.isatty(own):
        console.hint("reading paths from the terminal, one a line; Ctrl-D ends the list")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return own
