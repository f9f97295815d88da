"""Call the system in other threads, with a timeout or to the end.

Calls that may hang, for example on a dead mount, get a timeout; if the disk is slow, many run at
once. Calls that write are waited for to their end.
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
"""Threads that ask one slow disk at once."""

MOST_THREADS = 8 * AT_ONCE
"""Threads that ask disks or hang, above which a run ends: each further timeout adds more."""

BATCH = 1024
"""Questions of a batch: enough that starting the threads costs little beside slow answers."""

_PAUSE_SECONDS = 0.01
_QUICK_ANSWERS = 10
"""With fewer answers in a pause, more threads start: a start costs about ten cached answers."""


class Stopped(Exception):  # noqa: N818  # an event
    """The run ends: a wait, for example for a permit or a request, has no result."""


def answers(seconds: float, ask: Callable[[Q], T], items: Sequence[Q]) -> list[T | TimeoutError]:
    """Return the result of `ask` for each item, or an error for each item with a timeout.

    One thread asks one question after another; if answers are slow, up to `AT_ONCE` threads do.
    Threads that hang are abandoned: they ask no more, and do not keep the program alive. If all of
    them hang, the rest of the items is not asked, and gets errors.

    Args:
        seconds: timeout of a question.
        ask: a call to the system; its exceptions are raised.
        items: its arguments.

    Raises:
        StuckError: see `started`.
    """
    found: list[T | TimeoutError] = [no_answer(seconds)] * len(items)
    broken: list[BaseException] = []
    rest = iter(range(len(items)))  # shared: each number goes to one thread
    since = [time.monotonic()]  # start of the last question of each thread

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
    for _ in rest:  # leave no item for threads that wake up later
        pass
    if broken:
        raise broken[0]
    return found[:]


def no_answer(seconds: float) -> TimeoutError:
    """Return the error for a timeout."""
    return TimeoutError(f"no answer within {seconds:g} s")


_NAME = "rastermeta-disk"


def started(work: Callable[[], None]) -> threading.Thread:
    """Start a thread that asks the disk, and return it; it does not keep the program alive.

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
    """Return the result of `work` in an executor's thread, or here if the system starts none."""
    try:
        call = executor.submit(work)
    except RuntimeError:
        return work()
    return call.result()


async def to_the_end(
    work: Callable[[], T],
    if_cancelled: Callable[[T], None] | None = None,
    on_cancel: Callable[[], None] | None = None,
) -> T:
    """Return the result of `work` in another thread; when cancelled, still wait for its end.

    Use it for work that writes: the files must stay locked until the work has ended.

    Args:
        work: the function to call.
        if_cancelled: called with the result of `work` after a cancellation.
        on_cancel: called at once on a cancellation, e.g. to make `work` end early.
    """
    import asyncio  # `show` needs no event loop

    call = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        if on_cancel:
            on_cancel()
        await asyncio.wait({call})
        if not call.cancelled() and call.exception() is None and if_cancelled:
            if_cancelled(call.result())
        raise


def let_go(call: asyncio.Future[Any]) -> None:
    """Cancel a call, and ignore an error that it has raised or raises later."""
    call.cancel()
    call.add_done_callback(lambda done: done.cancelled() or done.exception())
