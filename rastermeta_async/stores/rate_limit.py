"""Sets how many objects are read at once: more while a store answers well, fewer if it refuses.

The limit grows by half with every round of answers that are as fast as ever, and by one if they
are slower. It is halved if a store refuses, and then grows by one a round for a while: additive
increase and multiplicative decrease, as in TCP (RFC 5681).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

START = 32
"""Objects at once at first."""

LEAST = 32
"""Objects at once even if a store refuses everything, so that the run ends. Each object waits
longer after each refusal (backoff), so these are few requests."""

_GROWTH = 1.5
_AS_EVER, _SLOWER = 1.5, 4.0
"""Multiples of the best time for an object: up to the first, answers are as fast as ever; beyond
the second, the limit does not grow."""

_MARGIN_SECONDS = 0.01
_FORGETS_SECONDS = 60.0
"""In this time the remembered best time doubles, as a store may have become slower."""

_CAREFUL_SECONDS = 60.0
_ROUND_SECONDS = 0.05
"""A store refuses the requests of one round within this time, or the best time if longer."""


class StoreTuner:
    """Finds how many objects to read at once; replaces `concurrency.Tuner`, with its methods.

    Args:
        ceiling: most objects at once.
        clock: returns the time in seconds since any fixed moment.
    """

    def __init__(self, ceiling: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = min(START, ceiling)
        """Objects at once."""
        self.ceiling = ceiling
        """Most objects at once; it may become lower."""
        self._clock = clock
        self._overloaded = False
        self._seconds, self._files = 0.0, 0
        self._best = float("inf")
        self._answered_at = self._cut_at = clock()
        self._careful_until = self._cut_at

    def note_overload(self) -> None:
        """Note that a store is overloaded; any thread may call this."""
        self._overloaded = True

    def note(self, seconds: float, files: int, _cpu: float, _idle: float) -> int:
        """Return the limit from now on; see `concurrency.Tuner.note`."""
        self._seconds += seconds
        self._files += files
        if self._overloaded:
            self._overloaded = False
            self._cut()
        elif self._files >= self.limit:
            self._grow(self.limit * self._seconds / self._files)
            self.forget()
        return self.limit

    def forget(self) -> None:
        """Drop what was noted, as it says nothing about the limit."""
        self._seconds, self._files = 0.0, 0

    def _grow(self, took: float) -> None:
        """Raise the limit after a round of answers, unless they took too long."""
        now = self._clock()
        forgotten = 2 ** ((now - self._answered_at) / _FORGETS_SECONDS)
        self._best, self._answered_at = min(took, self._best * forgotten), now
        grown = self.limit
        if now >= self._careful_until and took <= _AS_EVER * self._best + _MARGIN_SECONDS:
            grown = math.ceil(self.limit * _GROWTH)
        elif took <= _SLOWER * self._best + _MARGIN_SECONDS:
            grown = self.limit + 1
        self.limit = min(self.ceiling, grown)

    def _cut(self) -> None:
        """Halve the limit; all refusals of one round count once."""
        now = self._clock()
        if now - self._cut_at > max(
            self._best if self._best < _FORGETS_SECONDS else 0, _ROUND_SECONDS
        ):
            self.limit = max(min(LEAST, self.limit), self.limit // 2)
            self._cut_at = now
        self._careful_until = now + _CAREFUL_SECONDS
        self.forget()
