"""How many objects are read at once: more while a store answers well, fewer when it objects.

Half as many again with every round of answers that come as quickly as ever, one more where they
come more slowly; half as many where a store objects, and then one more a round for a while:
additive increase and multiplicative decrease, as TCP does it (RFC 5681).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

START = 32
"""Objects at once at first."""

LEAST = 32
"""As many are read of a store that refuses everything, so that a run comes to its end: each waits
for longer after each refusal, so these are few requests."""

_GROWTH = 1.5
_AS_EVER, _SLOWER = 1.5, 4.0
"""Times the best time for an object up to which it takes as long as ever; beyond which no more are
read at once."""

_MARGIN_SECONDS = 0.01
_FORGETS_SECONDS = 60.0
"""In this time the best one doubles that is remembered: a store may have become slower."""

_CAREFUL_SECONDS = 60.0
_ROUND_SECONDS = 0.05
"""Those that were under way together are refused in this time, if not in that for an object."""


class StoreTuner:
    """Finds how many objects to read at once; see `concurrency.Tuner`, in place of which it stands.

    Args:
        ceiling: objects at once at the most.
        clock: tells the time, seconds from any moment on.
    """

    def __init__(self, ceiling: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = min(START, ceiling)
        """Objects at once."""
        self.ceiling = ceiling
        """See above; it may become lower."""
        self._clock = clock
        self._overloaded = False
        self._seconds, self._files = 0.0, 0
        self._best = float("inf")
        self._answered_at = self._cut_at = clock()
        self._careful_until = self._cut_at

    def note_overload(self) -> None:
        """Note that a store has too much to do; from any thread."""
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
        """Look anew: what was noted says nothing about the limit."""
        self._seconds, self._files = 0.0, 0

    def _grow(self, took: float) -> None:
        """Grow after a round of answers, unless they took too long."""
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
        """Halve the limit; what is refused of one round counts once."""
        now = self._clock()
        if now - self._cut_at > max(
            self._best if self._best < _FORGETS_SECONDS else 0, _ROUND_SECONDS
        ):
            self.limit = max(min(LEAST, self.limit), self.limit // 2)
            self._cut_at = now
        self._careful_until = now + _CAREFUL_SECONDS
        self.forget()
