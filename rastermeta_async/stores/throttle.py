"""How many requests a store is given at once: more while it answers well, fewer when it objects.

Additive increase and multiplicative decrease, as TCP does it (RFC 5681), after a start that
doubles with every round of answers.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from types import TracebackType

START = 16
"""Requests at once at first."""

LEAST = 4
"""A store that refuses everything is still asked so much, so that a run comes to its end."""

_SLOWER = 4.0
"""So many times the best latency, and no more requests are added."""

_FORGETS_SECONDS = 60.0
"""In this time the best latency doubles that is remembered: a store may have become slower."""


class Stopped(Exception):  # noqa: N818  # an event
    """No further request is to be sent."""


class Throttle:
    """A limit of requests under way that adapts. Belongs to one event loop.

    Args:
        ceiling: requests at once at the most.
    """

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self.limit = float(min(START, ceiling))
        """Requests that may be under way now."""
        self.under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._starting = True
        self._best = float("inf")
        self._answered_at = time.monotonic()
        self._cut_at = float("-inf")
        self._stopped = False

    async def __aenter__(self) -> None:
        """Wait until one more request may be sent.

        Raises:
            Stopped: none may be.
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
            if turn.done() and not turn.cancelled():  # it had its place already
                self._leave()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let others have the place."""
        self._leave()

    def stop(self) -> None:
        """Let no further request be sent; who waits for a turn is told so."""
        self._stopped = True
        for turn in self._waiting:
            if not turn.done():
                turn.set_exception(Stopped())
        self._waiting.clear()

    def answered(self, seconds: float) -> None:
        """Note an answer, and how long it took."""
        now = time.monotonic()
        forgotten = 2 ** ((now - self._answered_at) / _FORGETS_SECONDS)
        self._best, self._answered_at = min(seconds, self._best * forgotten), now
        if seconds <= _SLOWER * self._best + 0.01:
            self.limit = min(self.ceiling, self.limit + (1 if self._starting else 1 / self.limit))
        else:
            self._starting = False
        self._wake()

    def refused(self) -> None:
        """Note that the store wants fewer requests; those under way then count as one refusal."""
        now = time.monotonic()
        if now - self._cut_at > max(self._best if self._best < 60 else 0, 0.05):
            self.limit = max(min(LEAST, self.ceiling), self.limit / 2)
            self._cut_at = now
        self._starting = False

    def _leave(self) -> None:
        self.under_way -= 1
        self._wake()

    def _wake(self) -> None:
        """Give free places to those who wait; they are counted from now on."""
        while self._waiting and self.under_way < int(self.limit):
            turn = self._waiting.popleft()
            if not turn.done():
                self.under_way += 1
                turn.set_result(None)
