"""Write to standard output and error without waiting for their readers."""

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
"""Limit of text that waits to be written; further text is dropped, and counted."""

LAST_WORDS_SECONDS = 1.0
"""How long the program waits at its end for a reader to take the remaining text."""

ATOMIC_BYTES = select.PIPE_BUF
"""A write of at most this size goes into a pipe whole or not at all (pipe(7))."""


class Outlet:
    """A text file object for standard error, with the methods that `print` and rich need.

    Args:
        dropped: returns the message for a number of dropped texts.
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
        """Whether no text waits."""
        return not self._waiting

    def isatty(self) -> bool:
        """Whether standard error is a terminal."""
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
        """Write waiting text, as far as there is room."""
        self._put()

    def finish(self) -> None:
        """Wait `LAST_WORDS_SECONDS` for the waiting text to be read; drop the rest."""
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
        """Write waiting text, as far as there is room; tell whether something is left."""
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
    """Wait until a write would not block, or its pipe is broken; False: a timeout came first."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(seconds * 1000))


def _opened(stream: object) -> tuple[int | None, bool]:
    """Return a new file descriptor to write a stream through, and whether a write may block.

    The descriptor is new, as `silence_libraries` redirects the stream's own. None: it has none.
    """
    try:
        fd: int = stream.fileno()  # type: ignore[attr-defined]  # None and other things have none
        kind = os.fstat(fd).st_mode
    except (AttributeError, OSError, ValueError):
        return None, False
    if stat.S_ISREG(kind):  # a regular file needs no reader
        return os.dup(fd), False
    try:
        # All processes with the same open file share O_NONBLOCK, also the shell. Linux opens pipes
        # and terminals anew by this name (proc(5)); sockets and other systems do not.
        if sys.platform == "linux":
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
            return os.open(f"/proc/self/fd/{fd}", flags), False
    except OSError:
        pass
    return os.dup(fd), True


def silence_libraries() -> None:
    """Give Python's output streams new file descriptors; 1 and 2 become ``/dev/null``.

    Libraries print to 1 and 2, for example libnetcdf when it cannot parse a file. Their text must
    reach neither the terminal nor the reader of the rows.
    """
    nothing = os.open(os.devnull, os.O_WRONLY)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:  # it was closed from the start
            continue
        stream.flush()
        own = open(  # noqa: SIM115  # it stays open
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
        except BlockingIOError:  # the pipe is full, and its other end made it non-blocking
            select.select([], [fd], [])
