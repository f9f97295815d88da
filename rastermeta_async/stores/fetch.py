"""Ranged reads of objects: tried again while that may help, never more at once than bearable."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import time
from typing import NamedTuple

from rastermeta_async.stores.clients import Located, Stores
from rastermeta_async.stores.oddkeys import Part
from rastermeta_async.stores.problems import Problem, problem_of
from rastermeta_async.stores.throttle import Throttle
from rastermeta_async.tiff.header import HEAD_BYTES

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


class Head(NamedTuple):
    """The first bytes of an object, and what the store says of it."""

    located: Located
    content: bytes
    size: int
    mtime: dt.datetime | None
    etag: str | None
    left: float
    """Seconds that further requests for the object may take."""


class Fetcher:
    """Reads objects for a run; belongs to one event loop.

    Args:
        stores: where they are.
        requests: under way at once, at the most.
        timeout: seconds for one object, with all its requests and tries.
    """

    def __init__(self, stores: Stores, requests: int, timeout: float) -> None:
        self.throttle = Throttle(requests)
        self._stores = stores
        self._timeout = timeout
        self._head_bytes = HEAD_BYTES
        self._too_short = 0.0
        """Share of the latest files whose header was longer than what was read at first."""

    async def head(self, url: str) -> Head:
        """Return the first bytes of an object; one request if all goes well.

        Raises:
            FetchError: there is none, or the store does not give it.
            StoreError: the store cannot be set up.
            Stopped: no further request is to be sent.
        """
        located = self._stores.locate(url)
        self._too_short *= 1 - 1 / _SHARE_OF
        try:
            part, left = await self._get(located, 0, self._head_bytes, self._timeout)
        except FetchError as error:
            raise FetchError(EMPTY) if error.problem.status == 416 else error from None
        return Head(located, *part, left)

    async def more(self, head: Head, offset: int, size: int) -> tuple[bytes, Head]:
        """Return further bytes of an object, fewer at its end, and the head with the time left.

        Raises:
            FetchError: as for `head`; also when the object was replaced meanwhile.
        """
        if offset < MAX_HEAD_BYTES:
            self._note_short_head()
        return await self._more(head, offset, min(offset + size, head.size))

    async def again(self, head: Head, tried: int, took: float) -> Head:
        """Ask for the first bytes again, as another reader was refused; return what is left.

        Args:
            head: the same bytes.
            tried: requests that the other one sent.
            took: seconds that it took.

        Raises:
            FetchError: as for `more`: the store's own words for what the other one met.
        """
        head = head._replace(left=head.left - took)
        return (await self._more(head, 0, len(head.content), tried))[1]

    async def _more(self, head: Head, start: int, end: int, tried: int = 0) -> tuple[bytes, Head]:
        part, left = await self._get(head.located, start, end, head.left, tried)
        if (part.size, part.etag) != (head.size, head.etag):
            raise FetchError(Problem("Changed", "it was replaced while it was being read"))
        return part.content, head._replace(left=left)

    def _note_short_head(self) -> None:
        self._too_short += 1 / _SHARE_OF
        if self._too_short > _LONGER_ABOVE:
            self._head_bytes = MAX_HEAD_BYTES

    async def _get(
        self, located: Located, start: int, end: int, left: float, tried: int = 0
    ) -> tuple[Part, float]:
        """Return bytes of an object, and how many of the `left` seconds are left then."""
        for number in range(tried + 1, TRIES + 1):
            if left <= 0:
                message = f"its requests take more than {self._timeout:g} s"
                raise FetchError(Problem("Timeout", message), number - 1)
            async with self.throttle:  # it may wait for its turn as long as it takes
                began = time.monotonic()
                try:
                    part = await located.get(start, end)  # bounded by the store's own timeout
                except Exception as error:  # noqa: BLE001  # whatever a library makes of an answer
                    problem = problem_of(error)
                else:
                    took = time.monotonic() - began
                    self.throttle.answered(took)
                    return part, left - took
            left -= time.monotonic() - began
            if problem.kind in ("Throttled", "Timeout", "ServerError"):
                self.throttle.refused()
            # A jittered wait, so that those refused together do not come back together.
            jitter = random.uniform(0.5, 1)  # noqa: S311  # nothing is kept secret by it
            wait = jitter * min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (number - 1))
            if not problem.passes or number == TRIES or wait > left:
                raise FetchError(problem, number)
            await asyncio.sleep(wait)
            left -= wait
        raise AssertionError("a try either returns or raises")
