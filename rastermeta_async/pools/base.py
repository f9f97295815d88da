"""The protocol of pools, and the row for a timeout that all pools share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import pyarrow as pa

from rastermeta_async.model.record import Record, failure
from rastermeta_async.model.urls import is_url


class Pool(Protocol):
    """Turns paths into batches of rows."""

    @property
    def capacity(self) -> int:
        """Useful number of `read` calls at once, at least 1; it may change in the course of a run.

        A run makes no more calls at once.
        """
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def read(self, paths: Sequence[bytes]) -> AsyncIterator[pa.RecordBatch]:
        """Yield rows of `SCHEMA` for each path, in any order of the paths, in one or more batches.

        A path has one row, or one for each of its members and subdatasets: these are in one batch,
        one after the other, in ascending order (see `record.Reading`). The row of a `FoundPath`
        that is no raster may have one of the statuses `NO_RASTERS`: the run counts it, and keeps
        it out of the catalog.

        A run ends with `PoolError` where there are rows of more paths, or of fewer before `stop`.
        Whether they are of these paths is not checked.

        When cancelled, it returns at once; header opens already running go on, and their results
        are dropped.
        """
        ...

    def stop(self) -> None:
        """Let `read` end after the files that are open now."""
        ...


@runtime_checkable
class HasWorkers(Protocol):
    """A pool that can tell who reads for it; `status` names them."""

    def workers(self) -> list[str]:
        """Return the names of the processes or nodes that read now."""
        ...


def timeout_row(path: bytes, timeout: float) -> Record:
    """Return the row of a file or object that does not answer within the timeout in seconds."""
    message = f"no answer within {timeout:g} s; the file or its disk hangs"
    if is_url(path):
        message = "no answer in time"
    return failure(path, "fatal", "Timeout", message)
