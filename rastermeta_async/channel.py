"""A bounded queue with two ends: a sender that can be closed, a receiver that then ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar, cast

T = TypeVar("T")


class _End:
    """Stands in the queue behind the last item; never leaves this module."""


_END = _End()


class Sender(Generic[T]):
    """The end that items go in; waits while the queue is full."""

    def __init__(self, queue: asyncio.Queue[T | _End]) -> None:
        self._queue = queue

    async def send(self, item: T) -> None:
        """Put an item in; returns once there is room for it."""
        await self._queue.put(item)

    async def close(self) -> None:
        """End every receiver after the items sent so far. Nothing may be sent afterwards."""
        await self._queue.put(_END)


class Receiver(Generic[T]):
    """The end that items come out of; several tasks may iterate over one receiver."""

    def __init__(self, queue: asyncio.Queue[T | _End]) -> None:
        self._queue = queue

    async def __aiter__(self) -> AsyncIterator[T]:
        while (item := await self._queue.get()) is not _END:
            yield cast("T", item)
        self._queue.put_nowait(_END)  # for the other receivers; the sender is closed: there is room


def channel(size: int) -> tuple[Sender[T], Receiver[T]]:
    """Return the two ends of a queue that holds at most `size` items (at least 1)."""
    queue: asyncio.Queue[T | _End] = asyncio.Queue(size)
    return Sender(queue), Receiver(queue)
