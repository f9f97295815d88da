"""The pool of a process: local files and objects in stores are read in separate threads."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import pyarrow as pa

from rastermeta_async.model.settings import READS_AT_ONCE, Settings
from rastermeta_async.model.urls import is_url
from rastermeta_async.pools.threads import ThreadPool
from rastermeta_async.readers.base import Reader
from rastermeta_async.readers.objects import ObjectReader
from rastermeta_async.readers.router import Router
from rastermeta_async.readers.sifting import SiftingReader
from rastermeta_async.stores.rate_limit import StoreTuner

HANGS = 2
"""An object is given up after this many times its timeout. Its requests end within one timeout,
except the last request, and bytes that come one by one."""


class HeaderPool:
    """Two `ThreadPool`s: threads that read objects must connect, those for local files must not.

    Args:
        reader: reads local files, and objects that only rasterio can read.
        decoder: `reader`, or the reader that it wraps; a `Router` also decodes heads of objects.
        settings: at most `concurrency` of each kind at once, `timeout` for each.
        on_hang: called with each path whose file or object is given up.
    """

    capacity = READS_AT_ONCE

    def __init__(
        self,
        reader: Reader,
        decoder: Reader,
        settings: Settings,
        on_hang: Callable[[bytes], None] | None = None,
    ) -> None:
        self._files = ThreadPool(SiftingReader(reader), settings, on_hang)
        router = decoder if isinstance(decoder, Router) else None
        tuner = StoreTuner(settings.concurrency)
        self._object_reader = objects = ObjectReader(
            reader, router, settings, tuner.note_overload, on_hang
        )
        self._objects = ThreadPool(
            objects, settings, on_hang, _enter_no_fence, HANGS * settings.timeout, tuner
        )
        objects.waiting = self._objects.no_time_of_the_file
        self._stopping = False

    async def __aenter__(self) -> Self:
        """See `Pool`."""
        self._entered = AsyncExitStack()
        await self._entered.enter_async_context(self._files)
        await self._entered.enter_async_context(self._objects)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """See `Pool`."""
        self.stop()
        self._object_reader.close()
        await self._entered.__aexit__(kind, error, trace)

    @property
    def stuck(self) -> int:
        """Threads that hang now."""
        return self._files.stuck + self._objects.stuck + self._object_reader.stuck

    @property
    def threads_bytes(self) -> int:
        """Memory that the reading threads may take themselves."""
        return self._files.threads_bytes + self._objects.threads_bytes

    def stop(self) -> None:
        """See `Pool.stop`."""
        self._stopping = True
        self._files.stop()
        self._objects.stop()
        self._object_reader.stop()

    async def read(self, paths: Sequence[bytes]) -> AsyncIterator[pa.RecordBatch]:
        """See `Pool.read`; rows come in the order of the paths."""
        for remote, some in itertools.groupby(paths, is_url):
            if self._stopping:
                return
            pool = self._objects if remote else self._files
            async for batch in pool.read(list(some)):
                yield batch


def _enter_no_fence() -> None:
    """Do nothing, so that a thread may connect."""
