"""Run the program as a process: event loop, signals, standard streams, exit status."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from stat import S_ISFIFO
from typing import TYPE_CHECKING

import uvloop

from rastermeta_async.api import Outcome, extract_to, extract_to_stream
from rastermeta_async.catalog.output import Output, open_output
from rastermeta_async.cli.console import FAILED, OK, READER_GONE, SOME_FAILED, Console, interrupted
from rastermeta_async.model.errors import PruneError, SourceError
from rastermeta_async.model.machine import collect_seldom
from rastermeta_async.model.path_set import PathSet
from rastermeta_async.model.settings import Access, Order, Settings
from rastermeta_async.model.streams import silence_libraries
from rastermeta_async.model.text import no_rasters_in_words, plural
from rastermeta_async.pools.base import Pool
from rastermeta_async.progress import Progress
from rastermeta_async.readers.sidecars import SIDECARS
from rastermeta_async.remaining import Inputs
from rastermeta_async.sources.paths import Source, StdinSource

if TYPE_CHECKING:
    from rastermeta_async.merging import Merged


def run_extract(
    source: Source, output: str, settings: Settings, overwrite: bool, console: Console,
    cluster: str | None = None,
) -> int:  # fmt: skip
    """Run to the end, or to the second signal; return the exit status.

    With the address of a `cluster`, its nodes read.

    The caller must exit with `os._exit`: threads that hang cannot be joined.
    """
    if not settings.workers:
        _quiet_rasterio()
        silence_libraries()
    collect_seldom()
    progress = Progress()
    loop = uvloop.new_event_loop()
    try:
        pool = _cluster_pool(cluster, settings) if cluster else None
        work = _extract(source, output, settings, overwrite, console, progress, pool)
        outcome, signalled = loop.run_until_complete(work)
    except BrokenPipeError:
        return READER_GONE
    if not outcome.complete:
        return interrupted(signalled) if signalled else FAILED
    return SOME_FAILED if outcome.failures else OK


def run_merge(
    catalogs: list[str], output: str, sort: Order, access: Access, console: Console, *,
    overwrite: bool,
) -> int:  # fmt: skip
    """Merge catalogs; return the exit status. A first signal ends the work, a second the program.

    The caller must exit with `os._exit`, as for `run_extract`.
    """
    from rastermeta_async.merging import merge_to  # only this command needs it

    silence_libraries()
    collect_seldom()

    async def work() -> int:
        stop = asyncio.Event()
        merging = asyncio.create_task(
            merge_to(output, catalogs, sort=sort, overwrite=overwrite, access=access)
        )
        with _signals(stop, console, _ENDING) as received:
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({merging, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if received and merging.cancel():
                await asyncio.wait({merging})
                return interrupted(received[0])
            merged = await merging
        rows, failed = plural(merged.rows, "row"), plural(merged.failures, "error row")
        several = f"{output}: {plural(len(catalogs), 'catalog')} merged, {rows}"
        console.hint(several + (f", {failed} among them" if merged.failures else ""))
        if text := _besides(merged):
            console.hint(text)
        if merged.repeated:
            left = plural(merged.repeated, "row")
            console.hint(f"{left} left out: other catalogs have rows of the same paths, see --help")
        return OK

    return uvloop.new_event_loop().run_until_complete(work())


_ENDING = "stopping: nothing is written; once more to stop at once"


def list_lost(
    output: str, source: Source | None, settings: Settings, console: Console,
    show: Callable[[bytes], None],
) -> int:  # fmt: skip
    """Show the paths whose rows a run with ``--prune`` would drop; return the exit status.

    It reads no raster and changes nothing.

    Args:
        output: the catalog.
        source: the paths that the run would read; None: nothing.
        settings: settings of the run.
        console: takes messages for the user.
        show: takes each path.
    """
    target = open_output(output)
    lost = partial(target.prune, even_folders=True, dry_run=True, timeout=settings.timeout)
    try:
        given = PathSet() if source is None else asyncio.run(_given(source, lost(), settings))
        count = 0
        for path in lost(given):
            if settings.update and given.known([path]):  # the run would read it again
                continue
            show(path)
            count += 1
        console.hint(f"--prune would drop {plural(count, 'row')}" if count else _NOTHING_LOST)
        if count and not settings.prune_folders:
            _say_folders(target, given, settings, console)
    finally:
        target.close()
    return OK


_NOTHING_LOST = "--prune would drop nothing"


async def _given(source: Source, lost: Iterator[bytes], settings: Settings) -> PathSet:
    """Return the lost paths that a source yields."""
    candidates = PathSet()
    for path in lost:
        candidates.add_new([path])
    inputs = Inputs(source, PathSet(), PathSet(), settings.timeout, candidates)
    async for block in source.blocks():
        await inputs.to_read(block)
    return inputs.given


def _say_folders(target: Output, given: PathSet, settings: Settings, console: Console) -> None:
    """Print why ``--prune`` would refuse without ``--prune-folders``, if it would."""
    try:
        for _ in target.prune(given, dry_run=True, timeout=settings.timeout):
            break
    except PruneError as error:
        console.hint(f"but without --prune-folders: {error}")


def _cluster_pool(address: str, settings: Settings) -> Pool:
    from rastermeta_async.pools.cluster import ClusterPool

    with contextlib.suppress(ImportError):  # the pool says what to install
        import dask

        # Dask sets its loggers up when it is imported. Its errors end the run with a message.
        quiet = dict.fromkeys(("distributed", "distributed.client"), "critical")
        dask.config.set(logging=quiet)
    return ClusterPool(address, settings)


def _quiet_rasterio() -> None:
    from rastermeta_async.readers.undecodable import quiet_undecodable_messages

    warnings.simplefilter("ignore")  # rows say what is wrong with a file
    quiet_undecodable_messages()


async def _extract(
    source: Source, output: str, settings: Settings, overwrite: bool, console: Console,
    progress: Progress, pool: Pool | None,
) -> tuple[Outcome, int]:  # fmt: skip
    stop = asyncio.Event()
    following = asyncio.create_task(console.follow(progress))
    try:
        with _signals(stop, console, _FINISHING) as received:
            if output == "-":
                outcome = await extract_to_stream(
                    sys.stdout.fileno(), source, settings, progress=progress, stop=stop, pool=pool
                )
            else:
                try:
                    outcome = await extract_to(
                        output, source, settings, overwrite=overwrite, progress=progress,
                        stop=stop, pool=pool,
                    )  # fmt: skip
                except PruneError:  # all other work is done
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
        console.hint(_NO_PATH)
    nothing_read = progress.failures == progress.rows and not progress.skipped
    if progress.example and nothing_read:
        console.hint(f"no file could be read, e.g. {progress.example}")
    if output != "-":
        for hint in _what_next(progress, nothing_read=nothing_read):
            console.hint(hint)
        failed = f", {plural(outcome.failures, 'error row')} among them" if outcome.failures else ""
        console.hint(f"{output}: {plural(outcome.rows, 'row')}{failed}")
    if text := _besides(outcome):
        console.hint(text, sidecars=outcome.sidecars, others=outcome.others)


_NO_PATH = (
    "there was no path in the input: look at the folder or list, at what the command before the "
    "pipe says (`set -o pipefail` makes its failure count), and at --suffix"
)


def _besides(what: Outcome | Merged) -> str:
    return no_rasters_in_words(what.rows, what.sidecars, what.others, several=what.several)


def _what_next(progress: Progress, *, nothing_read: bool) -> Iterator[str]:
    """Yield hints: which rows were dropped, what was slow, and how to repair error rows."""
    if count := progress.missing:
        lead, its = ("leads", "its row") if count == 1 else ("lead", "their rows")
        yield (
            f"{plural(count, 'path')} of the input {lead} to nothing (-v names each): where a disk "
            "is not mounted, or files come later, --retry-failed reads them; where the list is "
            f"wrong, run the right one with --prune, which drops {its}"
        )
    elif progress.failures and nothing_read:
        yield "once that is mended, --retry-failed reads them again"
    elif count := progress.passing:
        yield (
            f"{plural(count, 'file')} did not answer in time or could not be reached: once that "
            "is mended, or with a longer --timeout, --retry-failed reads them again"
        )
    if count := progress.unread_archives:
        were = "archive was" if count == 1 else "archives were"
        yield (
            f"{count:,} {were} not looked into: --members all reads what is inside, also "
            "later with --retry-failed"
        )
    if count := progress.store_files:
        lies = "lies" if count == 1 else "lie"
        yield (
            f"{plural(count, 'file')} {lies} inside Zarr stores, which are one input each: have "
            "rastermeta walk the archive, or name the folders"
        )
    if count := SIDECARS.count:
        were = "was" if count == 1 else "were"
        yield (
            f"{plural(count, 'raster')} with sidecar files {were} read with GDAL, which takes "
            f"longer, e.g. {SIDECARS.example}"
        )
    if progress.walked:
        yield f"{plural(progress.walked, 'row')} dropped: of folders that were walked this time"
    if count := progress.dropped:
        leads = "its path leads" if count == 1 else "their paths lead"
        yield f"{plural(count, 'row')} dropped: {leads} to no file"
    # Files of a folder that did not answer are not in this input, but may exist.
    if (count := progress.not_given) and not progress.passing:
        one = count == 1
        yield (
            f"{plural(count, 'error row')} {'is of a path' if one else 'are of paths'} that "
            f"{'is' if one else 'are'} not in this input: --retry-failed does not read "
            f"{'it' if one else 'them'}; --prune drops "
            f"{'it if it leads' if one else 'those that lead'} to no file"
        )


_FINISHING = "stopping: finishing what is in flight; once more to stop at once"


@contextlib.contextmanager
def _signals(stop: asyncio.Event, console: Console, hint: str) -> Iterator[list[int]]:
    """Set `stop` and print a hint on the first signal; end the process on the second.

    The second signal is as safe as a crash: the files on disk are consistent at any moment.
    """
    received: list[int] = []

    def on_signal(number: int) -> None:
        received.append(number)
        if len(received) > 1:
            os._exit(interrupted(number))
        stop.set()
        console.hint(hint)

    loop = asyncio.get_running_loop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup(1) has it ignored
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield received
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
            # From here on a signal ends the process: nothing is left to finish.
            signal.signal(number, lambda number, _frame: os._exit(interrupted(number)))


def paths_on_stdin(separator: bytes, console: Console, *, read_here: bool) -> StdinSource:
    """Return the paths on standard input; descriptor 0 becomes ``/dev/null``.

    A raster may name ``/vsistdin/`` or ``/proc/self/fd/…`` as its source: then GDAL would read the
    list of paths. If this process reads files, another process copies a pipe's content to a
    socket, which cannot be opened by name (open(2), ENXIO).

    Args:
        separator: the end of each path.
        console: takes messages for the user.
        read_here: files are read in this process, not in workers.

    Raises:
        SourceError: there is no standard input, or no process can be started.
    """
    if sys.stdin is None:
        raise SourceError(_CLOSED)
    try:
        own = os.dup(0)
    except OSError as error:
        raise SourceError(_CLOSED) from error
    if os.isatty(own):
        console.hint("reading paths from the terminal, one a line; Ctrl-D ends the list")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    if read_here and S_ISFIFO(os.fstat(own).st_mode):
        return _carried(own, separator)
    return StdinSource(own, separator)


_CLOSED = "standard input is closed: pipe paths in, name inputs, or give --from-file"


def _carried(pipe: int, separator: bytes) -> StdinSource:
    """Return the paths of a pipe; another process reads it, and this process closes it."""
    here, there = socket.socketpair()
    try:
        carrier = subprocess.Popen(
            ["cat"], stdin=pipe,  # noqa: S607  # its folder depends on the system
            stdout=there.fileno(), stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal reaches only the run
        )  # fmt: skip
    except OSError as error:
        raise SourceError(
            f"the process that is to carry the list (cat) cannot be started: {error.strerror}. "
            "Give the list as a file (--from-file), or read with workers."
        ) from error
    finally:
        os.close(pipe)
        there.close()
    return StdinSource(here.detach(), separator, carrier)
