"""Queues between tasks that have an end, and waits that a stop ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Coroutine
from typing import Generic, TypeVar, cast

from rastermeta_async.model.timeouts import let_go

T = TypeVar("T")


class _End:
    """Wakes a waiting receiver when the channel is closed; never leaves this module."""


_END = _End()


class _Queue(asyncio.Queue[T | _End]):
    closed = False

    def wake_at_end(self) -> None:
        """Wake a receiver that waits for an item although none will come."""
        if self.empty():
            self.put_nowait(_END)


class Sender(Generic[T]):
    """The input end of a queue."""

    def __init__(self, queue: _Queue[T]) -> None:
        self._queue = queue

    async def send(self, item: T) -> None:
        """Put an item into the queue; wait while the queue is full."""
        await self._queue.put(item)

    def close(self) -> None:
        """End every receiver after the items sent so far; do not send after this."""
        self._queue.closed = True
        self._queue.wake_at_end()


class Receiver(Generic[T]):
    """The output end of a queue; several tasks may iterate over one receiver."""

    def __init__(self, queue: _Queue[T]) -> None:
        self._queue = queue

    async def __aiter__(self) -> AsyncIterator[T]:
        while not (self._queue.closed and self._queue.empty()):
            item = await self._queue.get()
            if item is _END:
                break
            yield cast("T", item)
        self._queue.wake_at_end()


def channel(size: int) -> tuple[Sender[T], Receiver[T]]:
    """Return the two ends of a queue that holds at most `size` items (at least 1)."""
    queue: _Queue[T] = _Queue(size)
    return Sender(queue), Receiver(queue)


async def unless(stop: asyncio.Event, work: Coroutine[None, None, T]) -> T | None:
    """Return the result of some work; once `stop` is set, abandon it and return None."""
    stopped, doing = asyncio.create_task(stop.wait()), asyncio.create_task(work)
    try:
        await asyncio.wait({stopped, doing}, return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        stopped.cancel()
        let_go(doing)


async def with_pauses(items: AsyncIterable[T], seconds: float) -> AsyncIterator[T | None]:
    """Yield items, and None whenever no item comes for `seconds`."""
    rest = aiter(items)
    following: asyncio.Future[T] | None = None
    try:
        while True:
            following = following or asyncio.ensure_future(anext(rest))
            await asyncio.wait({following}, timeout=seconds)
            if not following.done():
                yield None
                continue
            try:
                item = following.result()
            except StopAsyncIteration:
                return
            following = None
            yield item
    finally:
        if following:
            let_go(following)


async def until(stop: asyncio.Event, items: AsyncIterator[T]) -> AsyncIterator[T]:
    """Yield items until `stop` is set; a wait for the next item ends then, too."""
    stopped = asyncio.create_task(stop.wait())
    try:
        while not stop.is_set():
            following = asyncio.ensure_future(anext(items))
            try:
                await asyncio.wait({stopped, following}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                let_go(following)
                raise
            finally:
                if not following.done():
                    following.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await following
            if following.cancelled():
                return
            try:
                yield following.result()
            except StopAsyncIteration:
                return
    finally:
        stopped.cancel()
