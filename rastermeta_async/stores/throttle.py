"""How many requests a store is given at once: more while it answers well, fewer when it objects.

Additive increase and multiplicative decrease, as TCP does it (RFC 5681), after a start that
doubles with every round of answers.
"""

from __future__ import annotations

import time
from types import TracebackType

from rastermeta_async.permits import Permits

START = 16
"""Requests at once at first."""

LEAST = 4
"""A store that refuses everything is still asked so much, so that a run comes to its end."""

_SLOWER = 4.0
"""So many times the best latency, and no more requests are added."""

_FORGETS_SECONDS = 60.0
"""In this time the best latency doubles that is remembered: a store may have become slower."""


class Throttle(Permits):
    """Permits for requests under way, as many as a store bears. Belongs to one event loop.

    Args:
        ceiling: requests at once at the most.
    """

    def __init__(self, ceiling: int) -> None:
        super().__init__(float(min(START, ceiling)))
        self.ceiling = ceiling
        self._starting = True
        self._best = float("inf")
        self._answered_at = time.monotonic()
        self._cut_at = float("-inf")

    async def __aenter__(self) -> None:
        """Wait until one more request may be sent.

        Raises:
            Stopped: none may be.
        """
        await self.acquire()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let others have the place."""
        self.release()

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
