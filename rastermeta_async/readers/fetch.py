"""Blocking range reads of objects, with retries as long as they may help."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from threading import Event

from rastermeta_async.model.timeouts import Stopped
from rastermeta_async.readers.base import HEAD_BYTES, UnreadableError, Unsupported
from rastermeta_async.readers.window import MAX_READS
from rastermeta_async.stores.clients import Located, Stores
from rastermeta_async.stores.problems import Problem, problem_of
from rastermeta_async.stores.raw_keys import ObjectBytes

TRIES = 8
"""Most requests for one range."""

_FIRST_WAIT = 0.2
_LONGEST_WAIT = 8.0
"""Seconds of backoff. It doubles from the first wait on; all waits add up to some 15 seconds.
obstore does not pass on a store's Retry-After, which mostly is a second or a few."""

MAX_HEAD_BYTES = 32 * 1024
_LONGER_ABOVE = 0.02
"""If a larger share of the latest files has longer headers, the first read becomes longer."""

_SHARE_OF = 200
"""Number of files that count as the latest, roughly."""


EMPTY = Problem("RasterioIOError", "the object is empty")
"""The same words as for an empty local file."""


class FetchError(UnreadableError):
    """An object cannot be read."""

    def __init__(self, problem: Problem, tries: int = 1) -> None:
        super().__init__(problem.message)
        self.problem = problem
        self.tries = tries


class Fetcher:
    """Reads objects for a run, for any number of threads.

    Args:
        stores: the stores that hold them.
        timeout: seconds for one object, with all its requests and retries.
        on_overload: called when a store is overloaded.
    """

    def __init__(
        self, stores: Stores, timeout: float, on_overload: Callable[[], None] = lambda: None
    ) -> None:
        self.timeout = timeout
        self.on_overload = on_overload
        self._stores = stores
        self._stopping = Event()
        self._head_bytes = HEAD_BYTES
        self._too_short = 0.0
        """Share of the latest files whose header was longer than the first read."""

    def stop(self) -> None:
        """Send no further request: calls that would send one raise `Stopped`."""
        self._stopping.set()

    def open(self, url: str) -> StoredObject:
        """Return an object with its first bytes read: one request if all goes well.

        Raises:
            FetchError: the object does not exist or is empty, or the store does not return it.
            StoreError: the store cannot be set up.
            Stopped: no further request may be sent.
        """
        # Threads may overwrite each other's share; this does not matter.
        self._too_short *= 1 - 1 / _SHARE_OF
        try:
            return StoredObject(self, self._stores.locate(url), self._head_bytes)
        except FetchError as error:
            raise FetchError(EMPTY) if error.problem.status == 416 else error from None

    def note_short_head(self) -> None:
        """Note that the first read was too short for a header."""
        self._too_short += 1 / _SHARE_OF
        if self._too_short > _LONGER_ABOVE:
            self._head_bytes = MAX_HEAD_BYTES

    def check(self) -> None:
        """Raise `Stopped` if no further request may be sent."""
        if self._stopping.is_set():
            raise Stopped

    def wait(self, seconds: float) -> None:
        """Wait for some seconds, or until `stop` is called.

        Raises:
            Stopped: no further request may be sent.
        """
        if self._stopping.wait(seconds):
            raise Stopped


class StoredObject:
    """An object in a store, in the state that it has when its first bytes are read.

    Args:
        fetcher: of the run.
        located: where it is.
        first: number of bytes to read at once.

    Raises:
        FetchError, Stopped: as for `Fetcher.open`.
    """

    def __init__(self, fetcher: Fetcher, located: Located, first: int) -> None:
        self.left = fetcher.timeout
        """Seconds that further requests for the object may take."""
        self._fetcher = fetcher
        self._located = located
        part = self._get(0, first)
        self.head, self.size, self.mtime, self.etag = part
        self.parts = {0: part.content}
        """Bytes that were read, by offset."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Return bytes of the object, fewer at its end; fetch them unless they are in `parts`.

        Raises:
            FetchError: as for `Fetcher.open`; also when the object was replaced meanwhile.
            Unsupported: `MAX_READS` parts all over the object are read already.
            Stopped: no further request may be sent.
        """
        end = min(offset + size, self.size)
        for start, content in self.parts.items():
            if start <= offset and end <= start + len(content):
                return content[offset - start : end - start]
        if len(self.parts) == MAX_READS:
            raise Unsupported("values all over the file")
        if offset < MAX_HEAD_BYTES:
            self._fetcher.note_short_head()
        content = self.parts[offset] = self._get_same(offset, end)
        return content

    def start_timeout(self) -> None:
        """Give further requests as much time as all of a file has."""
        self.left = self._fetcher.timeout

    def start_over(self) -> None:
        """Drop all but the first bytes, so that another reader may fetch as many parts again."""
        self.parts = {0: self.head}

    def ask_again(self, tried: int, took: float) -> None:
        """Request the first bytes again, because another reader was refused.

        Args:
            tried: requests that the other reader sent.
            took: seconds that the other reader took.

        Raises:
            FetchError: as for `read_at`; it tells why the store refused the other reader.
            Stopped: no further request may be sent.
        """
        self.left -= took
        self._get_same(0, len(self.head), tried)

    def _get_same(self, start: int, end: int, tried: int = 0) -> bytes:
        part = self._get(start, end, tried)
        if (part.size, part.etag) != (self.size, self.etag):
            raise FetchError(Problem("Changed", "it was replaced while it was being read"))
        return part.content

    def _get(self, start: int, end: int, tried: int = 0) -> ObjectBytes:
        """Return bytes of the object; subtract the time that this takes from `left`."""
        fetcher = self._fetcher
        for number in range(tried + 1, TRIES + 1):
            if self.left <= 0:
                message = f"its requests take more than {fetcher.timeout:g} s"
                raise FetchError(Problem("Timeout", message), number - 1)
            fetcher.check()
            began = time.monotonic()
            try:
                return self._located.get(start, end)  # bounded by the store's own timeout
            except Exception as error:  # noqa: BLE001  # a library may raise anything
                problem = problem_of(error)
            finally:
                self.left -= time.monotonic() - began
            if problem.is_overload:
                fetcher.on_overload()
            # Jitter the backoff, so that requests refused together do not retry together.
            jitter = random.uniform(0.5, 1)  # noqa: S311  # not used for security
            wait = jitter * min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (number - 1))
            if not problem.passes or number == TRIES or wait > self.left:
                raise FetchError(problem, number)
            fetcher.wait(wait)
            self.left -= wait
        raise AssertionError("a try either returns or raises")
