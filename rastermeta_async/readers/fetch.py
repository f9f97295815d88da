"""Ranged reads of objects, blocking: tried again while that may help."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from threading import Event

from rastermeta_async.model.timeouts import Stopped
from rastermeta_async.readers.base import HEAD_BYTES, Unsupported
from rastermeta_async.readers.geotiff.buffer import MAX_READS
from rastermeta_async.stores.clients import Located, Stores
from rastermeta_async.stores.problems import Problem, problem_of
from rastermeta_async.stores.raw_keys import ObjectBytes

TRIES = 8
"""Requests for one range at the most."""

_FIRST_WAIT = 0.2
_LONGEST_WAIT = 8.0
"""Seconds. Doubled from the first on, the waits add up to some 15: obstore does not pass on for
how long a store wants to be left alone (Retry-After), which mostly is a second or few."""

MAX_HEAD_BYTES = 32 * 1024
_LONGER_ABOVE = 0.02
"""Share of the latest files, the longer headers of which make the first read longer."""

_SHARE_OF = 200
"""So many files are the latest ones, roughly."""


EMPTY = Problem("RasterioIOError", "the object is empty")
"""In the words of a local file that has no byte."""


class FetchError(Exception):
    """An object cannot be read."""

    def __init__(self, problem: Problem, tries: int = 1) -> None:
        super().__init__(problem.message)
        self.problem = problem
        self.tries = tries


class Fetcher:
    """Reads objects for a run, for any number of threads.

    Args:
        stores: where they are.
        timeout: seconds for one object, with all its requests and tries.
        on_overload: is called when a store has too much to do.
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
        """Share of the latest files whose header was longer than what was read at first."""

    def stop(self) -> None:
        """Send no further request: who is to is told so by `Stopped`."""
        self._stopping.set()

    def open(self, url: str) -> StoredObject:
        """Return an object, of which the first bytes are here: one request if all goes well.

        Raises:
            FetchError: there is none, or the store does not give it.
            StoreError: the store cannot be set up.
            Stopped: no further request is to be sent.
        """
        # Shares that get lost as threads meet here do not matter.
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
        """Raise `Stopped` where no further request is to be sent."""
        if self._stopping.is_set():
            raise Stopped

    def wait(self, seconds: float) -> None:
        """Wait, but no longer than until `stop`.

        Raises:
            Stopped: no further request is to be sent.
        """
        if self._stopping.wait(seconds):
            raise Stopped


class StoredObject:
    """An object in a store, in the state that its first bytes are of.

    Args:
        fetcher: of the run.
        located: where it is.
        first: bytes that are read at once.

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
        """Return bytes of the object, fewer at its end; fetch them unless they are here.

        Raises:
            FetchError: as for `Fetcher.open`; also when the object was replaced meanwhile.
            Unsupported: they are all over the object.
            Stopped: no further request is to be sent.
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

    def start_over(self) -> None:
        """Forget all but the first bytes: another reader may ask for as many others."""
        self.parts = {0: self.head}

    def ask_again(self, tried: int, took: float) -> None:
        """Ask for the first bytes again, as another reader was refused.

        Args:
            tried: requests that the other one sent.
            took: seconds that it took.

        Raises:
            FetchError: as for `read_at`: the store's own words for what the other one met.
            Stopped: no further request is to be sent.
        """
        self.left -= took
        self._get_same(0, len(self.head), tried)

    def _get_same(self, start: int, end: int, tried: int = 0) -> bytes:
        part = self._get(start, end, tried)
        if (part.size, part.etag) != (self.size, self.etag):
            raise FetchError(Problem("Changed", "it was replaced while it was being read"))
        return part.content

    def _get(self, start: int, end: int, tried: int = 0) -> ObjectBytes:
        """Return bytes of the object; what that takes is no longer left."""
        fetcher = self._fetcher
        for number in range(tried + 1, TRIES + 1):
            if self.left <= 0:
                message = f"its requests take more than {fetcher.timeout:g} s"
                raise FetchError(Problem("Timeout", message), number - 1)
            fetcher.check()
            began = time.monotonic()
            try:
                return self._located.get(start, end)  # bounded by the store's own timeout
            except Exception as error:  # noqa: BLE001  # whatever a library makes of an answer
                problem = problem_of(error)
            finally:
                self.left -= time.monotonic() - began
            if problem.is_overload:
                fetcher.on_overload()
            # A jittered wait, so that those refused together do not come back together.
            jitter = random.uniform(0.5, 1)  # noqa: S311  # nothing is kept secret by it
            wait = jitter * min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (number - 1))
            if not problem.passes or number == TRIES or wait > self.left:
                raise FetchError(problem, number)
            fetcher.wait(wait)
            self.left -= wait
        raise AssertionError("a try either returns or raises")
