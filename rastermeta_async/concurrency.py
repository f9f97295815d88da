"""How many files are worth reading at once: it is found out while they are read.

Where files wait for their disk, more of them are read at once; where they compute, no more than
keep the process busy: Python's lock lets one thread of a process compute at a time. What a change
is worth is seen from the files a second before and after it, and one that is worth nothing is
taken back.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import NamedTuple

from rastermeta_async.memory import STACK_BYTES, allow_data
from rastermeta_async.permits import Permits

_LOOK_SECONDS = 0.025
"""Time between two looks at how it goes."""

BUSY = 0.8
"""Share of one CPU that the process uses where more files at once are not tried."""

_FULL = 0.9
"""Share of one CPU that a growth aims at."""

_MOST_GROWTH, _LEAST_GROWTH, _SHRINK = 8.0, 1.25, 0.7
"""Times as many files at once after a change."""

_WORTH_MORE = 1.15
"""Times as many files a second that a growth has to bring, at the most (see `Tuner`)."""

_WORTH_LESS = 0.97
"""Times as many that have to be left by fewer files at once."""

_HOLD_SECONDS, _LONGEST_HOLD_SECONDS = 3.0, 60.0
"""Time until the next try after one that was taken back; each time twice as long."""

_OTHERWISE = 2.0
"""Times as many files a second, or as few, and it is tried at once: this is another disk."""

_LEAST_SECONDS, _MOST_SECONDS = 0.05, 1.0
"""How long is looked before the limit changes."""

_JUDGE_SECONDS = 5.0
"""The same for a change that is to be judged, where files are few."""

_LEAST_FILES = 4


class ReadLimit(Permits):
    """Permits to read a file, whose number is found out while files are read.

    Args:
        ceiling: permits at the most.
    """

    def __init__(self, ceiling: int) -> None:
        super().__init__(1)
        self.files = 0
        """Files read so far; whoever reads one adds it."""
        self._tuner = Tuner(ceiling)
        self._most = 1
        self._looking: asyncio.TimerHandle | None = None
        self._last = _Look(0.0, 0.0, 0)

    async def acquire(self) -> None:
        """See `Permits.acquire`."""
        if self._looking is None:
            self._look_later()
        await super().acquire()

    @property
    def crowded(self) -> bool:
        """Whether more permits are held than there may be; who holds one should give it back."""
        return self.under_way > self.limit

    def _look_later(self) -> None:
        self._last = _Look.now(self.files)
        self._looking = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Note how it went since the last look; act on it."""
        last, now = self._last, _Look.now(self.files)
        self._looking = None
        if self.wanted and self.under_way == self.limit:
            seconds, busy = now.clock - last.clock, now.cpu - last.cpu
            self._resize(self._tuner.note(seconds, now.files - last.files, busy))
        else:  # it is not the limit that matters
            self._tuner.forget()
        if self.under_way or self.wanted:
            self._look_later()

    def _resize(self, limit: int) -> None:
        if limit > self._most:
            allow_data((limit - self._most) * STACK_BYTES)  # one more thread each
            self._most = limit
        self.limit = limit
        self._wake()


class _Look(NamedTuple):
    """How it stands at some moment."""

    clock: float
    cpu: float
    """Seconds that the process has used."""
    files: int
    """Read so far."""

    @classmethod
    def now(cls, files: int) -> _Look:
        return cls(time.monotonic(), time.process_time(), files)


class Tuner:
    """Finds the number of files to read at once from how it goes with the number of now.

    It tries more where the process does not use its CPU, else fewer. Of a growth by half, at least
    a tenth has to come back as files a second.

    Args:
        ceiling: files at once at the most.
        clock: tells the time, seconds from any moment on.
    """

    def __init__(self, ceiling: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = 1
        """Files at once."""
        self._ceiling = ceiling
        self._clock = clock
        self._seconds = self._busy = 0.0
        self._files = 0
        self._before: tuple[int, float] | None = None
        """While a change is being tried: the limit before it, and files a second."""
        self._hold = _HOLD_SECONDS
        self._hold_until = -math.inf
        self._held_rate = 0.0

    def note(self, seconds: float, files: int, busy: float) -> int:
        """Return the limit from now on.

        Args:
            seconds: since the last note, during which as many files were read as the limit says.
            files: that were read in this time.
            busy: seconds of a CPU that the process used in it.
        """
        self._seconds += seconds
        self._files += files
        self._busy += busy
        few = _JUDGE_SECONDS if self._before and self._files else _MOST_SECONDS
        enough = self._files >= max(_LEAST_FILES, 2 * self.limit)
        if self._seconds >= (_LEAST_SECONDS if enough else few):
            self._decide(self._busy / self._seconds, self._files / self._seconds)
            self.forget()
        return self.limit

    def forget(self) -> None:
        """Look anew: what was noted says nothing about the limit."""
        self._seconds = self._busy = 0.0
        self._files = 0

    def _decide(self, busy: float, rate: float) -> None:
        before, self._before = self._before, None
        if before and rate < before[1] * _worth(self.limit / before[0]):
            self._take_back(*before)
            return
        if before:
            self._hold = _HOLD_SECONDS
        elif self._clock() < self._hold_until and self._is_as_held(rate):
            return
        if busy < BUSY:
            self._try(self._grown(busy), rate)
        else:
            self._try(math.ceil(self.limit * _SHRINK - 0.5), rate)

    def _grown(self, busy: float) -> int:
        times = min(_MOST_GROWTH, max(_LEAST_GROWTH, _FULL / max(busy, 1e-3)))
        return min(self._ceiling, math.ceil(self.limit * times))

    def _try(self, limit: int, rate: float) -> None:
        limit = max(limit, 1)
        if limit != self.limit:
            self._before = self.limit, rate
            self.limit = limit

    def _take_back(self, limit: int, rate: float) -> None:
        """Go back to the limit before a change; after a growth, see whether fewer do as well."""
        grew, self.limit = self.limit > limit, limit
        if grew and limit > 1:
            self._try(math.ceil(limit * _SHRINK - 0.5), rate)
        else:
            self._hold_until = self._clock() + self._hold
            self._hold = min(2 * self._hold, _LONGEST_HOLD_SECONDS)
            self._held_rate = rate

    def _is_as_held(self, rate: float) -> bool:
        return self._held_rate / _OTHERWISE < rate < self._held_rate * _OTHERWISE


def _worth(times: float) -> float:
    """Return how many times the files a second have to be after so many times as many at once."""
    return min(_WORTH_MORE, 1 + 0.2 * (times - 1)) if times > 1 else _WORTH_LESS
