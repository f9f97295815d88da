"""Calls to the system in other threads, and how long they are waited for.

Those that may hang, on a dead mount for ever, only so long; those that write, to their end.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def within(seconds: float, work: Callable[[], T]) -> T:
    """Return what `work` returns, done in another thread; what it raises is raised.

    Raises:
        TimeoutError: it takes longer. The thread is left behind; it keeps no program alive.
    """
    found: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:  # noqa: BLE001  # raised again below
            raised.append(error)

    thread = threading.Thread(target=run, name="rastermeta-patience", daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not found:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return found[0]


def each_within(seconds: float, works: Sequence[Callable[[], T]]) -> list[T | None]:
    """Return what each of some calls returns, all done at once; None for one that takes longer.

    They must raise nothing, and each has a thread.
    """
    found: list[T | None] = [None] * len(works)

    def run(at: int, work: Callable[[], T]) -> None:
        found[at] = work()

    threads = [
        threading.Thread(target=run, args=numbered, name="rastermeta-patience", daemon=True)
        for numbered in enumerate(works)
    ]
    for thread in threads:
        thread.start()
    last = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, last - time.monotonic()))
    return found[:]


async def to_the_end(work: Callable[[], T], if_cancelled: Callable[[T], None] | None = None) -> T:
    """Return what `work` returns, done in another thread; cancelled, wait for its end all the same.

    For what writes: nobody else may have the files before that.

    Args:
        work: is called.
        if_cancelled: is given what it returned where nobody takes that any more.
    """
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
