"""A semaphore whose number of permits changes while it is in use."""

from __future__ import annotations

import asyncio
from collections import deque


class Stopped(Exception):  # noqa: N818  # an event
    """No further permit is given."""


class Permits:
    """Permits to do something at the same time as others. Belongs to one event loop.

    Who waits gets a permit in the order of asking.

    Args:
        limit: permits at first.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        """Permits that there may be now; below that of the moment, none is taken away."""
        self.under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._stopped = False

    async def acquire(self) -> None:
        """Wait for a permit.

        Raises:
            Stopped: there is none any more.
        """
        if self._stopped:
            raise Stopped
        if self.under_way < int(self.limit) and not self._waiting:
            self.under_way += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it had its permit already
                self.release()
            raise

    def release(self) -> None:
        """Give a permit back."""
        self.under_way -= 1
        self._wake()

    def stop(self) -> None:
        """Give no further permit; who waits for one is told so."""
        self._stopped = True
        for turn in self._waiting:
            if not turn.done():
                turn.set_exception(Stopped())
        self._waiting.clear()

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for a permit."""
        return any(not turn.done() for turn in self._waiting)

    def _wake(self) -> None:
        """Give free permits to those who wait; they are counted from now on."""
        while self._waiting and self.under_way < int(self.limit):
            turn = self._waiting.popleft()
            if not turn.done():
                self.under_way += 1
                turn.set_result(None)
