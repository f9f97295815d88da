"""What a pool is, and the rows and errors that all pools have."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Protocol, Self

import pyarrow as pa

from rastermeta_async.model.record import Record, failure
from rastermeta_async.model.urls import is_url


class Pool(Protocol):
    """Turns paths into batches of rows."""

    capacity: int
    """How many `read` calls are worth having at once."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def read(self, paths: Sequence[bytes]) -> AsyncIterator[pa.RecordBatch]:
        """Yield a row of `SCHEMA` for each path, in any order, in one or more batches.

        Cancelled, it returns at once; header opens under way run on and are dropped.
        """
        ...

    def stop(self) -> None:
        """Let `read` end after the files that are being opened now."""
        ...


def timeout_row(path: bytes, timeout: float) -> Record:
    """Return the row of a file or object that does not answer."""
    message = f"no answer within {timeout:g} s; the file or its disk hangs"
    if is_url(path):
        message = "no answer in time"
    return failure(path, "fatal", "Timeout", message)
