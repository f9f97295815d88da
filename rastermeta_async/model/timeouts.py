"""Calls to the system in other threads, and how long they are waited for.

Those that may hang, on a dead mount for ever, only so long, and many at once where a disk is far;
those that write, to their end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from operator import length_hint
from typing import TYPE_CHECKING, Any, TypeVar

from rastermeta_async.model.errors import StuckError

if TYPE_CHECKING:
    import asyncio

Q = TypeVar("Q")
T = TypeVar("T")


AT_ONCE = 64
"""Threads that ask one disk at once, where answers take long."""

MOST_THREADS = 8 * AT_ONCE
"""That ask disks, or hang in that: then a run ends, as each further time limit would leave more."""

BATCH = 1024
"""Questions of a batch: so many that the start of the threads is little beside slow answers."""

_PAUSE_SECONDS = 0.01
_QUICK_ANSWERS = 10
"""Where fewer come in a pause, they are worth threads: one costs about ten warm answers."""


class Stopped(Exception):  # noqa: N818  # an event
    """The run is to end: what was waited for, such as a permit or a request, is not had."""


def answers(seconds: float, ask: Callable[[Q], T], items: Sequence[Q]) -> list[T | TimeoutError]:
    """Return what `ask` says of each item; an error for those for which it takes too long.

    One thread asks, one question after the other; where answers take long, so many that there are
    up to `AT_ONCE`. Those that hang are left behind: they ask no more, and keep no program alive.
    Where all of them hang, the rest is not asked.

    Args:
        seconds: that a question may take.
        ask: a call to the system; what it raises is raised.
        items: what it is asked of.

    Raises:
        StuckError: see `started`.
    """
    found: list[T | TimeoutError] = [no_answer(seconds)] * len(items)
    broken: list[BaseException] = []
    rest = iter(range(len(items)))  # the threads share it: each number goes to one of them
    since = [time.monotonic()]  # of the last question of each thread

    def run(thread: int) -> None:
        try:
            for at in rest:
                since[thread] = time.monotonic()
                found[at] = ask(items[at])
        except BaseException as error:  # noqa: BLE001  # raised again below
            broken.append(error)

    def is_quick() -> bool:
        before = length_hint(rest)
        threads[0].join(min(_PAUSE_SECONDS, seconds))
        return before - length_hint(rest) >= _QUICK_ANSWERS

    threads = [started(partial(run, 0))]
    while threads[0].is_alive() and is_quick():
        pass
    with suppress(RuntimeError):  # the system, e.g. a small container, starts no further thread
        for at in range(1, min(AT_ONCE, 1 + length_hint(rest))):
            since.append(time.monotonic())
            threads.append(started(partial(run, at)))
    for at, thread in enumerate(threads):
        while thread.is_alive() and (left := since[at] + seconds - time.monotonic()) > 0:
            thread.join(left)
    for _ in rest:  # nothing is left to those that wake up later
        pass
    if broken:
        raise broken[0]
    return found[:]


def no_answer(seconds: float) -> TimeoutError:
    """Return the error of what did not answer in time."""
    return TimeoutError(f"no answer within {seconds:g} s")


_NAME = "rastermeta-disk"


def started(work: Callable[[], None]) -> threading.Thread:
    """Start a thread that asks the disk, and return it; it keeps no program alive.

    Raises:
        RuntimeError: the system starts no further thread.
        StuckError: `MOST_THREADS` hang.
    """
    asking = sum(thread.name == _NAME for thread in threading.enumerate())
    if asking >= MOST_THREADS:
        raise StuckError(
            f"{asking} questions to the disk are not answered: a disk or mount hangs. What was "
            "committed is safe; mend it, or leave it out, then run the same command again to go on."
        )
    thread = threading.Thread(target=work, name=_NAME, daemon=True)
    thread.start()
    return thread


def done_in(executor: Executor, work: Callable[[], T]) -> T:
    """Return what `work` returns in a thread of an executor, or here if the system starts none."""
    try:
        call = executor.submit(work)
    except RuntimeError:
        return work()
    return call.result()


async def to_the_end(work: Callable[[], T], if_cancelled: Callable[[T], None] | None = None) -> T:
    """Return what `work` returns, done in another thread; cancelled, wait for its end all the same.

    For what writes: nobody else may have the files before that.

    Args:
        work: is called.
        if_cancelled: is given what it returned where nobody takes that any more.
    """
    import asyncio  # `show` needs no event loop

    call = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        await asyncio.wait({call})
        if not call.cancelled() and call.exception() is None and if_cancelled:
            if_cancelled(call.result())
        raise


def let_go(call: asyncio.Future[Any]) -> None:
    """Cancel a call; what it may have raised already nobody wants to know."""
    call.cancel()
    call.add_done_callback(lambda done: done.cancelled() or done.exception())
