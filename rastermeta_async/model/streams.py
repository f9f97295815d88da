"""Standard output and error: written to without ever waiting for whoever reads them."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import stat
import sys
import time
from collections.abc import Callable

MAX_WAITING_BYTES = 8 * 1024 * 1024
"""Of text that waits to be written; what comes then is dropped, and counted."""

LAST_WORDS_SECONDS = 1.0
"""How long the end of the program waits for what is left to be read."""

ATOMIC_BYTES = select.PIPE_BUF
"""So much goes into a pipe whole or not at all (pipe(7)), at once where there is room."""


class Outlet:
    """A file object for text, with as much of one as `print` and rich ask for.

    Args:
        dropped: returns the text that tells how many texts were dropped.
    """

    def __init__(self, dropped: Callable[[int], str]) -> None:
        self._words = dropped
        self._stream = sys.stderr  # None where it was closed from the start
        self._fd, self._may_wait = _opened(self._stream)
        self._is_terminal = self._stream is not None and self._stream.isatty()
        self._waiting = bytearray()
        self._dropped = 0
        if self._fd is not None:
            atexit.register(self.finish)

    @property
    def is_clear(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def isatty(self) -> bool:
        """Whether a person looks on."""
        return self._is_terminal

    def write(self, text: str) -> int:
        """Write a text now, keep it for later, or drop it; return its length."""
        if self._fd is not None:
            self._put()
            self._keep(text)
            self._put()
        elif self._stream is not None:
            with contextlib.suppress(OSError, ValueError):  # a full disk, or closed since
                self._stream.write(text)
                self._stream.flush()
        return len(text)

    def flush(self) -> None:
        """Write what waits, as far as there is room."""
        self._put()

    def finish(self) -> None:
        """Give what waits a moment to be read; what then is left is lost."""
        last = time.monotonic() + LAST_WORDS_SECONDS
        while self._put() and self._fd is not None and (left := last - time.monotonic()) > 0:
            has_room(self._fd, left)

    def _keep(self, text: str) -> None:
        content = self._encoded(text)
        if len(self._waiting) + len(content) > MAX_WAITING_BYTES:
            self._dropped += 1
            return
        self._tell_dropped()
        self._waiting += content

    def _tell_dropped(self) -> None:
        if self._dropped:
            self._waiting += self._encoded(self._words(self._dropped))
            self._dropped = 0

    def _encoded(self, text: str) -> bytes:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        return text.encode(encoding, "backslashreplace")

    def _put(self) -> bool:
        """Write what waits, as far as there is room; tell whether something is left."""
        if self._fd is None:
            return False
        try:
            while self._waiting and not (self._may_wait and not has_room(self._fd, 0)):
                written = os.write(self._fd, self._waiting[:ATOMIC_BYTES])
                del self._waiting[:written]
                if not self._waiting:
                    self._tell_dropped()
        except BlockingIOError:
            pass
        except OSError:  # the last reader has gone
            self._waiting.clear()
            self._dropped = 0
        return bool(self._waiting)


def has_room(fd: int, seconds: float) -> bool:
    """Wait until something can be written, or nothing ever will; tell whether that came."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(seconds * 1000))


def _opened(stream: object) -> tuple[int | None, bool]:
    """Return the descriptor to write a stream through, and whether it may wait.

    It is a descriptor of its own: what libraries print by the stream's number may be silenced. None
    where the stream has no number.
    """
    try:
        fd: int = stream.fileno()  # type: ignore[attr-defined]  # None and other things have none
        kind = os.fstat(fd).st_mode
    except (AttributeError, OSError, ValueError):
        return None, False
    if stat.S_ISREG(kind):  # a file never waits for a reader
        return os.dup(fd), False
    try:
        # O_NONBLOCK is shared by all that have the same open file: here, with the shell. Linux
        # opens pipes and terminals anew by this name (proc(5)), others and sockets do not.
        if sys.platform == "linux":
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
            return os.open(f"/proc/self/fd/{fd}", flags), False
    except OSError:
        pass
    return os.dup(fd), True


def silence_libraries() -> None:
    """Give Python's output streams numbers of their own; 1 and 2 become ``/dev/null``.

    Libraries print by these numbers, for example what libnetcdf cannot parse: not for a terminal,
    nor for who reads the rows.
    """
    nothing = os.open(os.devnull, os.O_WRONLY)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:  # it was closed from the start
            continue
        stream.flush()
        own = open(  # noqa: SIM115  # it stays
            os.dup(number), "w", buffering=1 if stream.line_buffering else -1,
            encoding=stream.encoding, errors=stream.errors,
        )  # fmt: skip
        setattr(sys, name, own)
        os.dup2(nothing, number)
    os.close(nothing)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data`, however many calls that takes."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # a pipe that its other end made non-blocking, and that is full
            select.select([], [fd], [])
