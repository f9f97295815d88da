"""How many files are worth reading at once: it is found out while they are read.

Where files wait for their disk, more of them are read at once; where they compute, no more than
keep the process busy: Python's lock lets one thread of a process compute at a time. What a change
is worth is seen from the files a second before and after it, and one that is worth nothing is
taken back.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, Protocol

from rastermeta_async.model.machine import STACK_BYTES, allow_data
from rastermeta_async.model.timeouts import Stopped


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


_LOOK_SECONDS = 0.025
"""Time between two looks at how it goes."""

IDLE = 0.2
"""Share of the time that a single thread waits where more files at once are tried."""

BUSY = 0.8
"""Share of one CPU that the process uses where several threads are not made more."""

_FULL = 0.9
"""Share of one CPU that a growth aims at."""

_MOST_GROWTH, _LEAST_GROWTH, _SHRINK = 8.0, 1.25, 0.7
"""Times as many files at once after a change."""

_WORTH_MORE = 1.15
"""Times as many files a second that a growth has to bring, at the most (see `Tuner`)."""

_DEARER = 1.5
"""Times as much CPU time for a file as it may cost."""

_SURE = 1.5
"""Times as many files a second, and it may cost more."""

_WORTH_LESS = 0.97
"""Times as many that have to be left by fewer files at once."""

_HOLD_SECONDS, _LONGEST_HOLD_SECONDS = 3.0, 60.0
"""Time until the next try after one that was taken back; each time twice as long."""

_OTHERWISE = 2.0
"""Times as many files a second, or as few, and it is tried at once: this is another disk."""

_LEAST_SECONDS, _MOST_SECONDS = 0.1, 1.0
"""How long is looked before the limit changes."""

_JUDGE_SECONDS = 5.0
"""The same for a change that is to be judged, where files are few."""

_LEAST_FILES = 4
_FILES_EACH = 4
"""Files for each permit, so that what is seen is no matter of chance."""


class AnyTuner(Protocol):
    """Finds the number of files to read at once; see `Tuner`."""

    limit: int
    ceiling: int

    def note(self, seconds: float, files: int, cpu: float, idle: float, /) -> int:
        """Return the limit from now on, see `Tuner.note`."""
        ...

    def forget(self) -> None:
        """Look anew: what was noted says nothing about the limit."""
        ...


class ReadLimit(Permits):
    """Permits to read a file, whose number is found out while files are read.

    Args:
        tuner: finds the number.
    """

    def __init__(self, tuner: AnyTuner) -> None:
        super().__init__(tuner.limit)
        self.files = 0
        """Files read so far; whoever reads one adds it."""
        self._tuner = tuner
        self.most = tuner.limit
        """Permits that there were at the most."""
        self._looking: asyncio.TimerHandle | None = None
        self._last = _Look(0.0, 0.0, 0, 0, None)
        self._thread = 0

    def note_thread(self) -> None:
        """Note that this thread reads files now."""
        self._thread = threading.get_native_id()

    async def acquire(self) -> None:
        """See `Permits.acquire`."""
        if self._looking is None:
            self._look_later()
        await super().acquire()

    @property
    def crowded(self) -> bool:
        """Whether more permits are held than there may be; who holds one should give it back."""
        return self.under_way > self.limit

    def no_more(self) -> None:
        """Have no more permits than there are now, but for the one that is of no use."""
        self._tuner.ceiling = max(1, self.under_way - 1)
        self._tuner.limit = min(self._tuner.limit, self._tuner.ceiling)
        self._resize(self._tuner.limit)

    def _look_later(self) -> None:
        self._last = _Look.now(self.files, self._thread)
        self._looking = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Note how it went since the last look; act on it."""
        last, now = self._last, _Look.now(self.files, self._thread)
        self._looking = None
        if self.wanted and self.under_way == self.limit:
            seconds, cpu = now.clock - last.clock, now.cpu - last.cpu
            idle = max(seconds - (cpu if (busy := now.busy_since(last)) is None else busy), 0.0)
            self._resize(self._tuner.note(seconds, now.files - last.files, cpu, idle))
        else:  # it is not the limit that matters
            self._tuner.forget()
        if self.under_way or self.wanted:
            self._look_later()

    def _resize(self, limit: int) -> None:
        if limit > self.most:
            allow_data((limit - self.most) * STACK_BYTES)  # one more thread each
            self.most = limit
        self.limit = limit
        self._wake()


class _Look(NamedTuple):
    """How it stands at some moment."""

    clock: float
    cpu: float
    """Seconds that the process has used."""
    files: int
    """Read so far."""
    thread: int
    """One that reads; of several, any."""
    busy: float | None
    """Seconds that it ran, or waited for a CPU; None where nothing tells."""

    @classmethod
    def now(cls, files: int, thread: int) -> _Look:
        return cls(time.monotonic(), time.process_time(), files, thread, _busy(thread))

    def busy_since(self, last: _Look) -> float | None:
        if self.thread != last.thread or self.busy is None or last.busy is None:
            return None
        return self.busy - last.busy


def _busy(thread: int) -> float | None:
    """Return the seconds that a thread ran or waited for a CPU; None where nothing tells.

    ``/proc/self/task/TID/schedstat``: nanoseconds on a CPU, nanoseconds in a run queue, and how
    often it ran (Linux, Documentation/scheduler/sched-stats.rst).
    """
    with suppress(OSError, ValueError), open(f"/proc/self/task/{thread}/schedstat", "rb") as file:
        ran, waited, _ = file.read().split()
        return (int(ran) + int(waited)) / 1e9
    return None


class Tuner:
    """Finds the number of files to read at once from how it goes with the number of now.

    A single thread tells whether it waits for the disk. Of several, each may also wait for the
    others; then more are tried where the process uses little of its CPU, else fewer. Of a growth by
    half, at least a tenth has to come back as files a second, and a file may cost half as much CPU
    time again, or more where files a second grow by half.

    Args:
        ceiling: files at once at the most.
        clock: tells the time, seconds from any moment on.
    """

    def __init__(self, ceiling: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = 1
        """Files at once."""
        self.ceiling = ceiling
        """See above; it may become lower."""
        self._clock = clock
        self._sum = _Course()
        self._before: tuple[int, _Course] | None = None
        """While a change is being tried: the limit before it, and how it went."""
        self._hold = _HOLD_SECONDS
        self._hold_until = -math.inf
        self._held_rate = 0.0

    def note(self, seconds: float, files: int, cpu: float, idle: float) -> int:
        """Return the limit from now on.

        Args:
            seconds: since the last note, during which as many files were read as the limit says.
            files: that were read in this time.
            cpu: seconds of a CPU that the process used in it.
            idle: seconds that a thread neither ran nor waited for a CPU.
        """
        self._sum = course = self._sum.plus(seconds, files, cpu, idle)
        few = _JUDGE_SECONDS if self._before and course.files else _MOST_SECONDS
        enough = course.files >= max(_LEAST_FILES, _FILES_EACH * self.limit)
        if course.seconds >= (_LEAST_SECONDS if enough else few):
            self._decide(course)
            self.forget()
        return self.limit

    def forget(self) -> None:
        """Look anew: what was noted says nothing about the limit."""
        self._sum = _Course()

    def _decide(self, course: _Course) -> None:
        before, self._before = self._before, None
        if before and not course.is_worth(self.limit / before[0], before[1]):
            self._take_back(*before)
            return
        if before:
            self._hold = _HOLD_SECONDS
        elif self._clock() < self._hold_until and self._is_as_held(course.rate):
            return
        if self.limit == 1:
            if course.idle > IDLE * course.seconds:
                self._try(self._grown(course.busy), course)
        elif course.busy < BUSY:
            self._try(self._grown(course.busy), course)
        else:
            self._try(self._shrunk(), course)

    def _grown(self, busy: float) -> int:
        times = min(_MOST_GROWTH, max(_LEAST_GROWTH, _FULL / max(busy, 1e-3)))
        return min(self.ceiling, math.ceil(self.limit * times))

    def _shrunk(self) -> int:
        return max(1, math.ceil(self.limit * _SHRINK - 0.5))

    def _try(self, limit: int, course: _Course) -> None:
        if limit != self.limit:
            self._before = self.limit, course
            self.limit = limit

    def _take_back(self, limit: int, course: _Course) -> None:
        """Go back to the limit before a change; after a growth, see whether fewer do as well."""
        grew, self.limit = self.limit > limit, min(limit, self.ceiling)
        if grew and limit > 1:
            self._try(self._shrunk(), course)
        else:
            self._hold_until = self._clock() + self._hold
            self._hold = min(2 * self._hold, _LONGEST_HOLD_SECONDS)
            self._held_rate = course.rate

    def _is_as_held(self, rate: float) -> bool:
        return self._held_rate / _OTHERWISE < rate < self._held_rate * _OTHERWISE


class _Course(NamedTuple):
    """How it went for some time; see `Tuner.note`."""

    seconds: float = 0.0
    files: int = 0
    cpu: float = 0.0
    idle: float = 0.0

    def plus(self, seconds: float, files: int, cpu: float, idle: float) -> _Course:
        return _Course(self.seconds + seconds, self.files + files, self.cpu + cpu, self.idle + idle)

    @property
    def rate(self) -> float:
        """Files a second."""
        return self.files / self.seconds

    @property
    def busy(self) -> float:
        """Share of a CPU that was used."""
        return self.cpu / self.seconds

    def is_worth(self, times: float, before: _Course) -> bool:
        """Tell whether so many times as many files at once are worth it."""
        if times < 1:
            return self.rate >= _WORTH_LESS * before.rate
        if self.rate >= _SURE * before.rate:
            return True
        more = self.rate >= min(_WORTH_MORE, 1 + 0.2 * (times - 1)) * before.rate
        # Threads that hinder each other take more CPU time for a file.
        return more and self.cpu * before.files <= _DEARER * before.cpu * self.files
