"""Find how many files to read at once, while files are read.

If reads wait for the disk, the limit grows. If reads compute, the limit stays at what keeps the
process busy: Python's lock (GIL) lets one thread of a process compute at a time. Each change is
judged by the files a second before and after it; a change without benefit is undone.
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
    """A semaphore whose limit may change, for one event loop.

    Waiting tasks get permits in the order in which they asked.

    Args:
        limit: number of permits at the start.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        """Allowed number of permits; permits above a lowered limit are not taken away."""
        self.under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._stopped = False

    async def acquire(self) -> None:
        """Wait for a permit.

        Raises:
            Stopped: `stop` was called.
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
            if turn.done() and not turn.cancelled():  # it already had a permit
                self.release()
            raise

    def release(self) -> None:
        """Give a permit back."""
        self.under_way -= 1
        self._wake()

    def stop(self) -> None:
        """Give no further permit; `acquire` raises Stopped, also in waiting tasks."""
        self._stopped = True
        for turn in self._waiting:
            if not turn.done():
                turn.set_exception(Stopped())
        self._waiting.clear()

    @property
    def wanted(self) -> bool:
        """Whether a task waits for a permit."""
        return any(not turn.done() for turn in self._waiting)

    def _wake(self) -> None:
        """Give free permits to waiting tasks, and count them."""
        while self._waiting and self.under_way < int(self.limit):
            turn = self._waiting.popleft()
            if not turn.done():
                self.under_way += 1
                turn.set_result(None)


_LOOK_SECONDS = 0.025
"""Time between two measurements."""

IDLE = 0.2
"""Share of the time that a single thread waits, above which more files at once are tried."""

BUSY = 0.8
"""Share of one CPU that the process uses, from which several threads do not become more."""

_FULL = 0.9
"""Share of one CPU that an increase aims at."""

_MOST_GROWTH, _LEAST_GROWTH, _SHRINK = 8.0, 1.25, 0.7
"""Factors of the limit in one change."""

_WORTH_MORE = 1.15
"""Highest factor of the files a second that an increase has to bring (see `Tuner`)."""

_DEARER = 1.5
"""Factor of the CPU time a file that an increase may cost."""

_SURE = 1.5
"""Factor of the files a second from which an increase may cost any CPU time."""

_WORTH_LESS = 0.97
"""Factor of the files a second that a decrease has to keep."""

_HOLD_SECONDS, _LONGEST_HOLD_SECONDS = 3.0, 60.0
"""Time from an undone change to the next try; it doubles each time, up to the longest."""

_OTHERWISE = 2.0
"""If files a second change by this factor, the next try is at once: it is another disk."""

_LEAST_SECONDS, _MOST_SECONDS = 0.1, 1.0
"""Time of measurement before the limit changes."""

_JUDGE_SECONDS = 5.0
"""The longest time of measurement that judges a change, if there are few files."""

_LEAST_FILES = 4
_FILES_EACH = 4
"""Files for each permit that make a measurement reliable."""


class AnyTuner(Protocol):
    """Finds the number of files to read at once; see `Tuner`."""

    limit: int
    ceiling: int

    def note(self, seconds: float, files: int, cpu: float, idle: float, /) -> int:
        """Return the new limit, see `Tuner.note`."""
        ...

    def forget(self) -> None:
        """Drop the notes so far: they say nothing about the limit."""
        ...


class ReadLimit(Permits):
    """Permits to read a file; a tuner sets their number while files are read.

    Args:
        tuner: finds the number.
    """

    def __init__(self, tuner: AnyTuner) -> None:
        super().__init__(tuner.limit)
        self.files = 0
        """Files read so far; the reading threads count."""
        self._tuner = tuner
        self.most = tuner.limit
        """The highest limit so far."""
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
        """Whether more permits are held than the limit allows: a holder should give one back."""
        return self.under_way > self.limit

    def no_more(self) -> None:
        """Limit the permits to those in use, less one: its holder cannot use it."""
        self._tuner.ceiling = max(1, self.under_way - 1)
        self._tuner.limit = min(self._tuner.limit, self._tuner.ceiling)
        self._resize(self._tuner.limit)

    def _look_later(self) -> None:
        self._last = _Look.now(self.files, self._thread)
        self._looking = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Pass the measurement since the last look to the tuner, and set the new limit."""
        last, now = self._last, _Look.now(self.files, self._thread)
        self._looking = None
        if self.wanted and self.under_way == self.limit:
            seconds, cpu = now.clock - last.clock, now.cpu - last.cpu
            idle = max(seconds - (cpu if (busy := now.busy_since(last)) is None else busy), 0.0)
            self._resize(self._tuner.note(seconds, now.files - last.files, cpu, idle))
        else:  # something else than the limit determines the speed
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
    """Counters at one moment."""

    clock: float
    cpu: float
    """CPU seconds of the process."""
    files: int
    """Files read so far."""
    thread: int
    """Native id of one of the reading threads."""
    busy: float | None
    """Seconds that this thread ran or waited for a CPU; None: unknown."""

    @classmethod
    def now(cls, files: int, thread: int) -> _Look:
        return cls(time.monotonic(), time.process_time(), files, thread, _busy(thread))

    def busy_since(self, last: _Look) -> float | None:
        if self.thread != last.thread or self.busy is None or last.busy is None:
            return None
        return self.busy - last.busy


def _busy(thread: int) -> float | None:
    """Return the seconds that a thread ran or waited for a CPU; None: unknown.

    ``/proc/self/task/TID/schedstat`` has the nanoseconds on a CPU, the nanoseconds in a run queue,
    and the number of runs (Linux, Documentation/scheduler/sched-stats.rst).
    """
    with suppress(OSError, ValueError), open(f"/proc/self/task/{thread}/schedstat", "rb") as file:
        ran, waited, _ = file.read().split()
        return (int(ran) + int(waited)) / 1e9
    return None


class Tuner:
    """Finds the number of files to read at once from measurements with the present number.

    The idle time of a single thread shows whether it waits for the disk. Several threads may also
    wait for each other; then the tuner tries more if the process uses little CPU, else fewer. When
    the limit grows by half, files a second have to grow by a tenth. The CPU time of a file may grow
    by half; if files a second grow by half, it may grow more.

    Args:
        ceiling: the highest limit.
        clock: returns the time in seconds since any fixed moment.
    """

    def __init__(self, ceiling: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = 1
        """Files to read at once."""
        self.ceiling = ceiling
        """The highest limit; may be lowered."""
        self._clock = clock
        self._sum = _Course()
        self._before: tuple[int, _Course] | None = None
        """While a change is being tried: the limit before it, and its measurement."""
        self._hold = _HOLD_SECONDS
        self._hold_until = -math.inf
        self._held_rate = 0.0

    def note(self, seconds: float, files: int, cpu: float, idle: float) -> int:
        """Return the new limit.

        Args:
            seconds: time since the last note; in this time all permits of the limit were in use.
            files: number of files read in this time.
            cpu: CPU seconds of the process in this time.
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
        """Drop the notes so far: they say nothing about the limit."""
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
        """Go back to the limit before a change; after an increase, try whether fewer suffice."""
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
    """A measurement over some time; see `Tuner.note`."""

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
        """Tell whether a change of the limit by the factor `times` is worth it."""
        if times < 1:
            return self.rate >= _WORTH_LESS * before.rate
        if self.rate >= _SURE * before.rate:
            return True
        more = self.rate >= min(_WORTH_MORE, 1 + 0.2 * (times - 1)) * before.rate
        # Threads that hinder each other use more CPU time for a file.
        return more and self.cpu * before.files <= _DEARER * before.cpu * self.files
