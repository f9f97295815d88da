"""Where paths come from: standard input, a list file, a prefix in a store, or any iterable.

A source yields blocks of paths, as bytes, exactly as given. It reads on only when asked, so a
fast source waits for a slow pool (backpressure).
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import re
import select
import subprocess
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from stat import S_ISREG
from typing import Protocol

import aiofiles

from rastermeta_async.model.errors import SettingsError, SourceError
from rastermeta_async.model.settings import Access
from rastermeta_async.model.urls import FoundPath, without_query, without_secrets

AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]

MAX_RECORD = 1024 * 1024
"""Bytes of one path that are kept; the rest is skipped. No system opens a longer path."""

_STDIN_BLOCK = 64 * 1024
_LIST_BLOCK = 1024 * 1024
_PATHS_A_BLOCK = 1000
_POLL_SECONDS = 0.2
_CUT = (
    "standard input: the process that carries the list (cat) was ended, so paths may be missing. "
    "Run the same command again to go on."
)


class Source(Protocol):
    """Yields the paths of a run, once."""

    def blocks(self) -> AsyncIterator[list[bytes]]:
        """Yield blocks of paths; closing the iterator stops the reading.

        Raises:
            SourceError: the paths cannot be read, or not to their end.
        """
        ...

    def fraction(self) -> float | None:
        """Return the share of the source that was read, 0 to 1; None if its size is unknown."""
        ...


class Splitter:
    """Splits a byte stream into paths at a separator; drops empty paths."""

    def __init__(self, separator: bytes) -> None:
        self._separator = separator
        self._rest = b""
        self._skipping = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the paths that `data` completes."""
        if self._skipping:
            _, found, data = data.partition(self._separator)
            self._skipping = not found
        paths = (self._rest + data).split(self._separator)
        self._rest = paths.pop()
        if len(self._rest) > MAX_RECORD:
            paths.append(self._rest)
            self._rest = b""
            self._skipping = True
        return [path[:MAX_RECORD] for path in paths if path]

    def finish(self) -> list[bytes]:
        """Return the last path, if no separator follows it."""
        return [self._rest[:MAX_RECORD]] if self._rest else []


class StdinSource:
    """Paths (`FoundPath`) from an open file descriptor: a pipe, file, terminal, device or socket.

    Args:
        fd: the descriptor.
        separator: the bytes that end each path.
        carrier: our own process that writes to the other end, if there is one; the list is
            complete only if this process exits with 0.
    """

    def __init__(
        self, fd: int, separator: bytes = b"\n", carrier: subprocess.Popen[bytes] | None = None
    ) -> None:
        self._fd = fd
        self._separator = separator
        self._carrier = carrier
        self._read = 0
        self._closed = False
        self._size = _regular_size(fd)

    async def blocks(self) -> AsyncIterator[list[bytes]]:
        """See `Source.blocks`. At most one thread reads; it ends soon after the iterator."""
        splitter = Splitter(self._separator)
        try:
            while data := await asyncio.to_thread(self._next_block):
                self._read += len(data)
                yield list(map(FoundPath, splitter.feed(data)))
            if self._carrier is not None and await asyncio.to_thread(self._carrier.wait) != 0:
                raise SourceError(_CUT)
            yield list(map(FoundPath, splitter.finish()))
        except OSError as error:
            raise SourceError(
                f"standard input cannot be read: {error.strerror}. Pipe paths in, name inputs, or "
                "give --from-file."
            ) from error
        finally:
            self._closed = True
            if self._carrier:
                self._carrier.kill()
                self._carrier.wait()

    def _next_block(self) -> bytes:
        # The event loop's own pipe support aborts or hangs on files and /dev/null, and makes a
        # terminal's other ends non-blocking.
        while not select.select([self._fd], [], [], _POLL_SECONDS)[0]:
            if self._closed:
                return b""
        return os.read(self._fd, _STDIN_BLOCK)

    def fraction(self) -> float | None:
        """See `Source.fraction`: known when a file is redirected to standard input."""
        return min(self._read / self._size, 1.0) if self._size else None


class ListSource:
    """Paths from a list file."""

    def __init__(self, path: str, separator: bytes = b"\n") -> None:
        self._path = path
        self._separator = separator
        self._read = 0
        self._size = 0

    async def blocks(self) -> AsyncIterator[list[bytes]]:
        """See `Source.blocks`."""
        splitter = Splitter(self._separator)
        try:
            async with aiofiles.open(self._path, "rb", buffering=0) as file:
                self._size = _regular_size(file.fileno())
                while data := await file.read(_LIST_BLOCK):
                    self._read += len(data)
                    yield splitter.feed(data)
        except OSError as error:
            raise SourceError(
                f"{self._path}: the list of paths cannot be read: {error.strerror}"
            ) from error
        yield splitter.finish()

    def fraction(self) -> float | None:
        """See `Source.fraction`."""
        return min(self._read / self._size, 1.0) if self._size else None


class IterableSource:
    """Paths from any iterable, which may block: a thread advances it."""

    def __init__(self, paths: Iterable[AnyPath]) -> None:
        self._paths = paths
        self._total = len(paths) if isinstance(paths, Sequence) else None
        self._taken = 0

    async def blocks(self) -> AsyncIterator[list[bytes]]:
        """See `Source.blocks`."""
        paths = iter(self._paths)
        found = [b""]
        while found:
            found, sent = [], 0
            taking = asyncio.create_task(asyncio.to_thread(_take, paths, found))
            try:
                is_taken = False
                while not is_taken:  # hand on at intervals what came so far
                    await asyncio.wait({taking}, timeout=_POLL_SECONDS)
                    is_taken = taking.done()  # ask first: more may come while the block is taken
                    if block := found[sent:]:
                        sent += len(block)
                        self._taken += len(block)
                        yield block
                await taking
            finally:
                taking.cancel()

    def fraction(self) -> float | None:
        """See `Source.fraction`: known for a list or tuple."""
        return self._taken / self._total if self._total else None


class AsyncIterableSource:
    """Paths from an asynchronous iterable, each handed on at once."""

    def __init__(self, paths: AsyncIterable[AnyPath]) -> None:
        self._paths = paths

    async def blocks(self) -> AsyncIterator[list[bytes]]:
        """See `Source.blocks`."""
        async for path in self._paths:
            yield [os.fsencode(path)]

    def fraction(self) -> None:
        """See `Source.fraction`: never known."""


class StoreSource:
    """URLs of the objects (`Listed`) and Zarr stores below a prefix, a page at a time.

    Args:
        url: of a bucket or prefix, e.g. ``s3://bucket/scenes/``.
        suffixes: lower-case endings of the names that are taken; empty: all.
        access: how the store is reached.
    """

    def __init__(self, url: str, suffixes: tuple[str, ...], access: Access) -> None:
        self._url = url
        self._suffixes = suffixes
        self._access = access

    async def blocks(self) -> AsyncIterator[list[bytes]]:
        """See `Source.blocks`.

        Raises:
            StoreError: the store cannot be listed.
        """
        from rastermeta_async.stores.clients import RETRIES, Stores

        async for page in Stores(self._access, retries=RETRIES).walk(self._url, self._suffixes):
            yield [*page]

    def fraction(self) -> None:
        """See `Source.fraction`: never known."""


class SuffixSource:
    """The paths of another source that have one of some endings.

    Args:
        source: the other source.
        suffixes: lower-case endings; the part of an HTTP URL from the ``?`` on does not count.
    """

    def __init__(self, source: Source, suffixes: tuple[bytes, ...]) -> None:
        self._source = source
        self._suffixes = suffixes

    async def blocks(self) -> AsyncIterator[list[bytes]]:
        """See `Source.blocks`."""
        async for block in self._source.blocks():
            yield [path for path in block if self._ends_well(path)]

    def _ends_well(self, path: bytes) -> bool:
        return without_query(path).lower().endswith(self._suffixes)

    def fraction(self) -> float | None:
        """See `Source.fraction`."""
        return self._source.fraction()


@dataclass(frozen=True)
class Shard:
    """A part of all paths, so that several runs may share the work."""

    index: int
    """From 0."""
    count: int
    """Number of shards."""

    def holds(self, path: bytes) -> bool:
        """Return whether a path is in this shard; this is the same on every machine, for ever.

        The signature of a URL does not count.
        """
        digest = hashlib.blake2b(without_secrets(path), digest_size=8).digest()
        return int.from_bytes(digest) % self.count == self.index

    @classmethod
    def of(cls, text: str) -> Shard:
        """Return the shard that a text such as ``0/4`` names.

        Raises:
            SettingsError: it names none.
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        if found is None:
            raise SettingsError(f"{text!r} is no shard: give its index and their number, e.g. 0/4")
        index, count = map(int, found.groups())
        if index >= count:
            raise SettingsError(
                f"there is no shard {text}: the indices begin with 0, so {count} shards are "
                f"0/{count} to {max(count - 1, 0)}/{count}"
            )
        return cls(index, count)


class ShardSource:
    """The paths of another source that are in a shard."""

    def __init__(self, source: Source, shard: Shard) -> None:
        self._source = source
        self._shard = shard

    async def blocks(self) -> AsyncIterator[list[bytes]]:
        """See `Source.blocks`."""
        async for block in self._source.blocks():
            yield list(filter(self._shard.holds, block))

    def fraction(self) -> float | None:
        """See `Source.fraction`."""
        return self._source.fraction()


class ChainedSource:
    """Several sources, one after the other."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    async def blocks(self) -> AsyncIterator[list[bytes]]:
        """See `Source.blocks`."""
        for source in self._sources:
            async for block in source.blocks():
                yield block

    def fraction(self) -> float | None:
        """See `Source.fraction`: known for a single source only."""
        return self._sources[0].fraction() if len(self._sources) == 1 else None


def source_of(paths: Source | Iterable[AnyPath] | AsyncIterable[AnyPath]) -> Source:
    """Return a source for an iterable of paths; return a source as it is."""
    if isinstance(paths, str | bytes | os.PathLike):
        raise SourceError(f"expected several paths, not one: give [{paths!r}]")
    if isinstance(paths, AsyncIterable):
        return AsyncIterableSource(paths)
    if isinstance(paths, Iterable):
        return IterableSource(paths)
    return paths


def _take(paths: Iterator[AnyPath], found: list[bytes]) -> None:
    """Append the next paths to a list that the event loop reads meanwhile."""
    found.extend(map(os.fsencode, itertools.islice(paths, _PATHS_A_BLOCK)))


def _regular_size(fd: int) -> int:
    """Return the size of an open regular file, else 0."""
    try:
        status = os.fstat(fd)
    except OSError:
        return 0
    return status.st_size if S_ISREG(status.st_mode) else 0
