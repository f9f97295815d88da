"""The exception tree: errors that end a run. A bad *file* raises none of them: it is a row.

    RastermetaError
    ├── SettingsError      a setting or argument makes no sense (also a ValueError)
    ├── SourceError        the list of paths cannot be read
    ├── StuckError         too many header reads hang
    ├── StoreError         an object store cannot be used at all
    ├── MissingExtraError  an optional library is not installed
    ├── WorkerError        worker processes cannot be started
    ├── PoolError          a pool does not do what `Pool` promises
    └── OutputError        the output cannot be used
        ├── ForeignOutputError   it was not made by this program, or was changed since
        ├── OutputLockedError    another run is writing it
        ├── CheckpointError      its checkpoint log is damaged
        ├── PruneError           too many files are gone to drop their rows
        └── WriteError           the disk refused a write (full, I/O error)

Every message names the file, what happened and what to do.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

_MAX_NOTES = 5
"""Number of further errors that the first one notes."""


class RastermetaError(Exception):
    """Base of all errors that this package defines."""


class SettingsError(RastermetaError, ValueError):
    """A setting or argument makes no sense."""


class SourceError(RastermetaError):
    """The list of paths cannot be read."""


class StuckError(RastermetaError):
    """Too many header reads hang and cannot be ended."""


class StoreError(RastermetaError):
    """An object store cannot be used at all; nothing is read from it."""


class MissingExtraError(RastermetaError):
    """An optional library is not installed."""


class WorkerError(RastermetaError):
    """Worker processes cannot be started, or end as soon as they start."""


class PoolError(RastermetaError):
    """A pool of the caller does not do what `Pool` promises; what was committed is safe."""


class OutputError(RastermetaError):
    """The output cannot be used."""


class ForeignOutputError(OutputError):
    """The output was not made by this program, or another program changed it."""


class OutputLockedError(OutputError):
    """Another run is writing this output."""


class CheckpointError(OutputError):
    """The checkpoint log is damaged before its last line."""


class PruneError(OutputError):
    """Whole folders are gone: no row was dropped."""


class WriteError(OutputError):
    """A write, sync or rename failed; committed rows are safe."""


def first_error(error: BaseException) -> BaseException:
    """Return the first error in an exception group, at any depth; any other error itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@contextlib.contextmanager
def first_error_only() -> Iterator[None]:
    """Raise the first error of an exception group in place of the group; it notes the others."""
    try:
        yield
    except BaseExceptionGroup as group:
        first = first_error(group)
        others = (error for error in _leaves(group) if error is not first)
        for other in itertools.islice(others, _MAX_NOTES):
            first.add_note(f"Another error at the same time: {type(other).__name__}: {other}")
        raise first from None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
