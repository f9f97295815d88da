"""A bounded queue with two ends: a sender that can be closed, a receiver that then ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar, cast

T = TypeVar("T")


class _End:
    """Wakes a receiver that waits when the channel is closed; never leaves this module."""


_END = _End()


class _Queue(asyncio.Queue[T | _End]):
    closed = False

    def wake_at_end(self) -> None:
        """Wake a receiver that waits for an item which will never come."""
        if self.empty():
            self.put_nowait(_END)


class Sender(Generic[T]):
    """The end that items go in; waits while the queue is full."""

    def __init__(self, queue: _Queue[T]) -> None:
        self._queue = queue

    async def send(self, item: T) -> None:
        """Put an item in; returns once there is room for it."""
        await self._queue.put(item)

    def close(self) -> None:
        """End every receiver after the items sent so far. Nothing may be sent afterwards."""
        self._queue.closed = True
        self._queue.wake_at_end()


class Receiver(Generic[T]):
    """The end that items come out of; several tasks may iterate over one receiver."""

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
