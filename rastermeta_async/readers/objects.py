"""Headers of objects in stores: decoded from their first bytes, or read with rasterio."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from threading import Lock, Semaphore

from rastermeta_async.model.errors import MissingExtraError, RastermetaError, StoreError
from rastermeta_async.model.gdal_options import drivers_here
from rastermeta_async.model.machine import allow_data
from rastermeta_async.model.raster_folders import (
    ZARR_MARKS,
    StoreUrl,
    is_raster_name,
    may_be_store,
)
from rastermeta_async.model.record import Reading, Record, as_rows, failure
from rastermeta_async.model.settings import MAX_STUCK, REMOTE_OPENS, REQUEST_SECONDS, Settings
from rastermeta_async.model.timeouts import Stopped, done_in
from rastermeta_async.model.urls import FoundPath, without_secrets
from rastermeta_async.readers.archives.entries import ArchiveError
from rastermeta_async.readers.archives.member_rows import ArchiveSource, read_members
from rastermeta_async.readers.base import FOREIGN, Facts, Reader, Unsupported, check_stuck
from rastermeta_async.readers.fence import fence_thread, refuse_page_faults
from rastermeta_async.readers.fetch import EMPTY, TRIES, Fetcher, FetchError, StoredObject
from rastermeta_async.readers.geotiff.structure import GTIFF, Structure, structure_of_bytes
from rastermeta_async.readers.members import with_hint
from rastermeta_async.readers.part_rows import with_parts
from rastermeta_async.readers.router import Router
from rastermeta_async.readers.sifting import (
    HEAD_BYTES,
    REFUSED,
    belongs_to_a_raster,
    sidecar_row,
    sifted,
)
from rastermeta_async.readers.sparse_file import sparse_copy
from rastermeta_async.readers.subdatasets import NOT_A_PART, PartPath
from rastermeta_async.stores.archive_names import MemberPath, kind_of
from rastermeta_async.stores.clients import Stores
from rastermeta_async.stores.credentials import GDAL_RETRIES
from rastermeta_async.stores.problems import NO_ANSWER

GDAL_OPENS = TRIES // (1 + GDAL_RETRIES)
"""Most opens of one object: GDAL does not distinguish a truncated response from a broken file."""

GDAL_REQUESTS = 5
"""Requests that GDAL sends before it reports that a store refuses an object: two for its size, two
for its bytes, and one for a folder of that name."""

TIMES_CHANGED = 3
"""Most reads of one object that is replaced while it is read."""

_THREADS_OF_OBSTORE = 512
_STACK_OF_OBSTORE = 2 * 1024 * 1024
"""obstore looks up host names in at most so many threads, each with a stack of this size."""

_ONLY_LOCAL = {
    b"CDF": "netCDF",  # NetCDF Classic Format Specification; other NetCDF files are HDF5
    b"\x0e\x03\x13\x01": "HDF4",  # HDF Specification and Developer's Guide, "File Identification"
    b"RUU CROSS SYSTEM MAP FORMAT": "PCRaster",  # PCRaster, "CSF file format"
}
"""Drivers that read local files only (GDAL, "Raster drivers": no VSI support), by a file's first
bytes."""

_NOT_THERE = ("NotFound", "AccessDenied")
"""Kinds of problems of an object that may not exist: without the right to list, a store denies
access to it."""

_NETCDF_ENDINGS = (b".nc", b".nc4", b".cdf")


class ObjectReader:
    """Reads headers of objects; blocks, and several threads may use it.

    GDAL sends its requests itself. It cannot read through Python (rasterio's `opener`): its HDF5
    drivers hold a lock of the process while they read, and rasterio holds Python's lock (the GIL)
    while it waits for theirs, as when it closes a file. Two threads then wait for each other.

    Args:
        rasterio: reads what the decoder does not, also local copies of first bytes.
        decoder: decodes heads of objects; None: rasterio reads them all.
        settings: `timeout` for each object; `access`.
        on_overload: called when a store is overloaded.
        on_hang: called with each path whose read in rasterio times out.
    """

    def __init__(
        self,
        rasterio: Reader,
        decoder: Router | None,
        settings: Settings,
        on_overload: Callable[[], None] = lambda: None,
        on_hang: Callable[[bytes], None] | None = None,
    ) -> None:
        self._rasterio = rasterio
        self._on_hang = on_hang
        self._decoder = None if settings.access.sidecars else decoder
        self._request_seconds = min(REQUEST_SECONDS, settings.timeout / 3)
        self._members = settings.members
        self._subdatasets = settings.subdatasets
        stores = Stores(settings.access, self._request_seconds)
        self.fetcher = Fetcher(stores, settings.timeout, on_overload)
        self._stacks = min(settings.concurrency, _THREADS_OF_OBSTORE) * _STACK_OF_OBSTORE
        self._copies = ThreadPoolExecutor(1, "rastermeta-copies", fence_thread)
        self.stuck = 0
        """Threads that hang in rasterio now."""
        self._opens = ThreadPoolExecutor(
            REMOTE_OPENS + MAX_STUCK, "rastermeta-opens", refuse_page_faults
        )
        self._may_open = Semaphore(REMOTE_OPENS)
        self._most_waiting = settings.concurrency
        self.waiting: Callable[[], AbstractContextManager[None]] = nullcontext
        """Context held while an object waits for its turn: its own time does not include this."""
        self._lock = Lock()

    def stop(self) -> None:
        """Send no further request; reads that wait for a turn raise `Stopped`."""
        self.fetcher.stop()
        self._may_open.release(self._most_waiting)

    def close(self) -> None:
        """End the idle threads."""
        self._opens.shutdown(wait=False)
        self._copies.shutdown(wait=False)

    def enter(self) -> None:
        """See `Reader.enter`."""
        self._rasterio.enter()

    def read(self, path: bytes) -> Reading:
        """Return the row of an object, or its rows; see `Reader.read`.

        Raises:
            MissingExtraError: obstore is not installed.
            StuckError: more than `MAX_STUCK` threads hang.
            Stopped: no further request may be sent.
        """
        self._allow_stacks()
        shown = without_secrets(path)
        for _ in range(TIMES_CHANGED):
            try:
                return self._read(path, shown)
            except UnicodeDecodeError:
                return failure(shown, "error", "UnicodeDecodeError", "a URL must be UTF-8")
            except (StoreError, MissingExtraError) as error:
                return failure(shown, "fatal", type(error).__name__, str(error))
            except FetchError as error:
                failed = _failed(shown, error)
                if isinstance(path, FoundPath) and error.problem is EMPTY:
                    return sifted(shown, failed, b"")
                if error.problem.kind != "Changed":
                    break
            except (RastermetaError, Stopped):
                raise
            except Exception as error:  # noqa: BLE001  # an object gives a row, whatever it raises
                message = str(error) or repr(error)
                return failure(shown, "fatal", type(error).__name__, message)
        return failed

    def _allow_stacks(self) -> None:
        if self._stacks:
            with self._lock:
                allow_data(self._stacks)
                self._stacks = 0

    def _read(self, path: bytes, shown: bytes) -> Reading:
        if not may_be_store(path):
            return self._read_object(path, shown)
        # A name that ends in .zarr is seldom that of an object, one without an ending mostly is.
        ways = [self._read_object, self._read_store]
        first, second = reversed(ways) if is_raster_name(path) else ways
        try:
            return first(path, shown)
        except FetchError as error:
            if error.problem.kind not in _NOT_THERE:
                raise
            try:
                return second(path, shown)
            except FetchError as other:
                raise (error if other.problem.kind in _NOT_THERE else other) from None

    def _read_store(self, path: bytes, shown: bytes) -> Reading:
        """Return the rows of a Zarr store, whose time is that of its metadata.

        Raises:
            FetchError: there is none at this URL; or as for `_read_object`.
        """
        for mark in ZARR_MARKS:
            try:
                found = self.fetcher.open(f"{path.decode()}/{mark.decode()}")
                break
            except FetchError as error:
                if error.problem.kind not in _NOT_THERE or mark == ZARR_MARKS[-1]:
                    raise
        store = StoreUrl(path)
        record = self._read_with_rasterio(store, shown, found)._replace(mtime=found.mtime)
        return self._with_parts(store, shown, found, record)

    def _read_object(self, path: bytes, shown: bytes) -> Reading:
        found = self.fetcher.open(path.decode())
        facts = Facts(found.size, found.mtime, found.etag)
        if isinstance(path, FoundPath) and belongs_to_a_raster(path):
            return _with_facts(sidecar_row(shown), facts)
        kind = kind_of(path)
        if kind is not None and kind in self._members:
            return self._with_parts(
                path, shown, found, self._read_archive(path, shown, found, facts)
            )
        record = self._read_raster(path, shown, found, facts)
        if kind is not None:
            record = with_hint(record, kind)
        return self._with_parts(path, shown, found, record)

    def _with_parts(
        self, path: bytes, shown: bytes, found: StoredObject, reading: Reading
    ) -> Reading:
        """Return a reading with the rows of subdatasets, if they are asked for."""

        def open_part(part: PartPath) -> Record:
            found.start_timeout()
            try:
                record = self._read_with_rasterio(part, shown, found)
            except FetchError as error:
                if error.problem.kind == "Changed":
                    raise
                return _failed(shown, error)
            return _without_netcdf(record) if record.ok and _is_netcdf(shown) else record

        if not self._subdatasets:
            return reading
        return with_parts(path, reading, open_part, self.fetcher.timeout)

    def _read_archive(
        self, path: bytes, shown: bytes, found: StoredObject, facts: Facts
    ) -> Reading:
        def next_member() -> None:
            found.start_timeout()
            found.start_over()

        def open_with_gdal(member: str) -> Record:
            try:
                return self._read_with_rasterio(MemberPath(path, member), shown, found)
            except FetchError as error:
                if error.problem is not NO_ANSWER:
                    raise
                return _failed(shown, error)  # the other members may be read all the same

        source = ArchiveSource(
            path=shown, facts=facts, read_at=found.read_at, decoder=self._decoder,
            open_with_gdal=open_with_gdal, timeout=self.fetcher.timeout, next_member=next_member,
        )  # fmt: skip
        try:
            if rows := read_members(source):
                return rows
            next_member()
            return self._read_raster(path, shown, found, facts)
        except ArchiveError as error:
            return source.failure(error.kind, str(error))

    def _read_raster(self, path: bytes, shown: bytes, found: StoredObject, facts: Facts) -> Record:
        if self._decoder is not None:
            with suppress(Unsupported):
                return self._decoder.decode(shown, facts, found.head, found.read_at)
        for first_bytes, driver in _ONLY_LOCAL.items():
            if found.head.startswith(first_bytes) and driver in drivers_here():
                why = f"GDAL's {driver} driver reads local files only: copy the object to a disk"
                return failure(shown, "error", "NotReadInStores", why)
        record = self._read_with_rasterio(path, shown, found)
        if record.driver == GTIFF:
            found.start_over()
            record = record._replace(**_structure(found, record)._asdict())
        elif record.driver in ("HDF5", "HDF5Image") and _is_netcdf(shown):
            record = _without_netcdf(record)
        if isinstance(path, FoundPath) and record.error_type == REFUSED:
            record = sifted(shown, record, found.head[:HEAD_BYTES])
        return _with_facts(record, facts)

    def _read_with_rasterio(self, path: bytes, shown: bytes, found: StoredObject) -> Record:
        for _ in range(GDAL_OPENS):
            with self.waiting():
                self._may_open.acquire()
            began = time.monotonic()
            try:
                # Always allow some time: an object whose requests used up its time does not hang.
                record = self._open(path, max(found.left, self._request_seconds))
            finally:
                self._may_open.release()
            took = time.monotonic() - began
            if record.error_type is None or self._is_final(record, path, shown, found):
                found.left -= took
                break
            # GDAL does not pass on the store's answer, so ask the store.
            found.ask_again(GDAL_REQUESTS, took)
        return record

    def _open(self, path: bytes, seconds: float) -> Record:
        """Return rasterio's record, read in another thread; the caller holds `_may_open`."""
        self.fetcher.check()
        try:
            opening = self._opens.submit(self._rasterio.read, path)
        except RuntimeError:  # the system starts no further thread
            return as_rows(self._rasterio.read(path))[0]
        try:
            return as_rows(opening.result(seconds))[0]
        except TimeoutError:
            self._count_stuck(1)
            if self._on_hang is not None:
                self._on_hang(path)
            opening.add_done_callback(lambda _: self._count_stuck(-1))
            check_stuck(self.stuck, path)
            raise FetchError(NO_ANSWER) from None

    def _count_stuck(self, more: int) -> None:
        with self._lock:
            self.stuck += more

    def _is_final(self, record: Record, path: bytes, shown: bytes, found: StoredObject) -> bool:
        """Return whether GDAL's error comes from the object, not from the connection.

        If so, GDAL gives the same error for a copy of the first bytes, which did arrive.
        """
        if type(path) is PartPath:
            return record.ok or record.error_type == NOT_A_PART
        if type(path) in (MemberPath, StoreUrl) or kind_of(path) is not None:
            return FOREIGN in (record.error_message or "")
        whole = len(found.head) >= found.size
        if not whole and FOREIGN not in (record.error_message or ""):
            return False
        name = shown.partition(b"?")[0].rpartition(b"/")[2]
        with sparse_copy(name, {0: found.head}, found.size) as copy:
            (again,) = as_rows(done_in(self._copies, partial(self._rasterio.read, copy)))
        return again.error_type is not None and (whole or FOREIGN in (again.error_message or ""))


def _with_facts(record: Record, facts: Facts) -> Record:
    return record._replace(file_size=facts.size, mtime=facts.mtime, etag=facts.etag)


def _structure(found: StoredObject, record: Record) -> Structure:
    """Return the structure of a TIFF that rasterio reads; an empty one if its bytes are missing."""
    factors = record.bands[0].overviews if record.bands else []
    with suppress(Unsupported, FetchError):
        return structure_of_bytes(found.size, found.read_at, factors)
    return Structure()


def _is_netcdf(path: bytes) -> bool:
    return path.partition(b"?")[0].lower().endswith(_NETCDF_ENDINGS)


def _without_netcdf(record: Record) -> Record:
    """Return the record of a NetCDF-4 object with a note of what GDAL's HDF5 driver leaves out."""
    note = (
        "GDAL's netCDF driver reads local files only, and its HDF5 driver, which was used, leaves "
        "out the CRS and the transform"
    )
    known = f"{record.error_message}; " if record.error_message else ""
    return record._replace(error_type="PartlyRead", error_message=known + note)


def _failed(path: bytes, error: FetchError) -> Record:
    problem = error.problem
    if problem is EMPTY:
        return failure(path, "error", *problem[:2])._replace(file_size=0)
    status = "error" if problem.kind == "NotFound" else "fatal"
    tries = f" (tried {error.tries} times)" if error.tries > 1 and problem.passes else ""
    return failure(path, status, problem.kind, problem.message + tries)
