"""The reader of runs: asks the decoders first, then rasterio for files that no decoder knows.

To add a format, write a `HeaderDecoder` in a module of its own and add a line to `DECODERS`.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

from rastermeta_async.model.errors import RastermetaError, StoreError
from rastermeta_async.model.file_state import is_unchanged, record_time, settled
from rastermeta_async.model.record import Record, differing_columns, path_columns
from rastermeta_async.model.settings import Access
from rastermeta_async.model.text import shortened
from rastermeta_async.model.urls import is_url
from rastermeta_async.readers.base import (
    HEAD_BYTES,
    Facts,
    Foreign,
    HeaderDecoder,
    ReadAt,
    Unplaced,
    Unsupported,
)
from rastermeta_async.readers.geotiff.decoder import GeoTiffDecoder
from rastermeta_async.readers.geotiff.structure import GTIFF
from rastermeta_async.readers.jpeg2000.jp2_decoder import Jp2Decoder
from rastermeta_async.readers.jpeg2000.jp2_template import JP2_DRIVER
from rastermeta_async.readers.rasterio_reader import RasterioReader
from rastermeta_async.readers.sidecars import OVERVIEWS, SIDECARS, Folders, Neighbours, sidecars_of
from rastermeta_async.readers.subdatasets import PartPath
from rastermeta_async.stores.archive_names import MemberPath

DECODERS: dict[str, Callable[[RasterioReader], HeaderDecoder]] = {
    GTIFF: GeoTiffDecoder,
    JP2_DRIVER: Jp2Decoder,
}
"""Factories of decoders, by the name of GDAL's driver for the format."""

log = logging.getLogger(__name__)

_SIDECARS_SHOWN = 3
_OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class Comparison(NamedTuple):
    """The records of one file from rasterio and from the decoders."""

    rasterio: Record
    decoded: Record | None
    """None: no decoder reads the file, so rasterio does."""
    reason: str | None
    """Why no decoder reads the file, in a few words."""

    @property
    def differences(self) -> list[str]:
        """Names of the columns that differ; `reader` is not compared."""
        return differing_columns(self.rasterio, self.decoded) if self.decoded else []


class _Accompanied(Unsupported):
    """Sidecars of a file may say more than its header."""

    def __init__(self, neighbours: Neighbours) -> None:
        super().__init__("sidecar files")
        self.neighbours = neighbours


class Router:
    """Reads each header with the first decoder that knows it, otherwise with rasterio.

    Args:
        rasterio: reads the files that no decoder knows.
        folders: what is known of folders; rasterio reads the files that have sidecars.
        decoders: asked in this order; None: one for each of `DECODERS`.
    """

    def __init__(
        self,
        rasterio: RasterioReader,
        folders: Folders,
        decoders: Sequence[HeaderDecoder] | None = None,
    ) -> None:
        self._rasterio = rasterio
        self._folders = folders
        if decoders is None:
            decoders = [make(rasterio) for make in DECODERS.values()]
        self.decoders = decoders

    def enter(self) -> None:
        """See `Reader.enter`."""
        self._rasterio.enter()

    @contextmanager
    def environment(self) -> Iterator[None]:
        """See `RasterioReader.environment`."""
        with self._rasterio.environment():
            yield

    def read(self, path: bytes) -> Record:
        """Return the record of a file or object; see `Reader.read`."""
        if is_url(path) or isinstance(path, MemberPath | PartPath):
            return self._rasterio.read(path)
        try:
            return self.decode_file(path)
        except _Accompanied as event:
            record = self._rasterio.read(path)
            if record.driver in DECODERS:
                _count_accompanied(record, path, event.neighbours)
            return record
        except (Unsupported, StoreError):
            return self._rasterio.read(path)
        except RastermetaError:
            raise
        except Exception:  # a fault in a decoder must not end a run
            name = shortened(path_columns(path)[0])
            log.debug("%s: a decoder failed, so rasterio reads the file", name, exc_info=True)
            return self._rasterio.read(path)

    def holding(self, path: bytes, driver: str) -> AbstractContextManager[None]:
        """See `RasterioReader.holding`."""
        return self._rasterio.holding(path, driver)

    def decode(
        self,
        path: bytes,
        facts: Facts,
        head: bytes,
        read_at: ReadAt,
        reference: Record | None = None,
    ) -> Record:
        """Return the record from the first decoder that knows a header; see `HeaderDecoder`."""
        reasons = []
        for decoder in self.decoders:
            try:
                return decoder.decode(path, facts, head, read_at, reference)
            except Unplaced:
                raise
            except Unsupported as unsupported:
                reasons.append(unsupported)
        known = [reason for reason in reasons if not isinstance(reason, Foreign)]
        raise Unsupported("; ".join(map(str, known or reasons)))

    def decode_file(self, path: bytes) -> Record:
        """Return the record of a local file without opening it with rasterio; see `decode`."""
        if path.lower().endswith(OVERVIEWS):
            raise Unsupported("overviews of another file")
        neighbours = self._folders.neighbours(path)
        if neighbours is Neighbours.SIDECARS:
            raise _Accompanied(neighbours)
        try:
            return self._decode_beside(neighbours, path)
        except Unplaced:
            raise _Accompanied(neighbours) from None

    def _decode_beside(
        self, neighbours: Neighbours, path: bytes, reference: Record | None = None
    ) -> Record:
        """Decode a file; the only neighbour that counts here is a world file."""
        try:
            # Do not open a pipe or device. One that takes the file's place after this is not read.
            only_files = neighbours is Neighbours.FILES
            if not only_files and not stat.S_ISREG(os.stat(path).st_mode):
                raise Unsupported("no file")
            file = os.open(path, _OPEN_FLAGS)
        except (OSError, ValueError):
            raise Unsupported("it cannot be opened") from None
        try:
            status = settled(file)
            if not stat.S_ISREG(status.st_mode):
                raise Unsupported("no file")

            def read_at(offset: int, size: int) -> bytes:
                return os.pread(file, size, offset)

            world_file = neighbours is Neighbours.WORLD_FILES
            facts = Facts(status.st_size, record_time(status), has_world_file=world_file)
            record = self.decode(path, facts, read_at(0, HEAD_BYTES), read_at, reference)
            if not is_unchanged(status, os.fstat(file)):
                raise Unsupported("it changes while it is read")
            return record
        except OSError:
            raise Unsupported("no answer from the disk") from None
        finally:
            os.close(file)

    def compare(self, path: bytes) -> Comparison:
        """Return rasterio's record of a file and the record that the decoders make on their own."""
        reference = self._rasterio.read(path)
        try:
            if reference.reader is None:  # there is no file to read
                raise Unsupported(reference.error_message or "")
            neighbours = self._folders.neighbours(path)
            decoded = self._decode_beside(neighbours, path, reference)
            if neighbours is Neighbours.SIDECARS:
                raise Unplaced
            return Comparison(reference, decoded, None)
        except Unplaced:
            return Comparison(reference, None, _sidecars_in_words(path, neighbours))
        except Unsupported as reason:
            return Comparison(reference, None, str(reason))


def _count_accompanied(record: Record, path: bytes, neighbours: Neighbours) -> None:
    """Count a file that is not decoded because of its sidecars."""
    example = SIDECARS.example
    if not example:  # finding one lists the folder once more
        example = f"{shortened(record.filepath)}: {_sidecars_in_words(path, neighbours)}"
    SIDECARS.add(1, example)


def _sidecars_in_words(path: bytes, neighbours: Neighbours) -> str:
    found = sidecars_of(path, neighbours)
    names = [name.decode("utf-8", "backslashreplace") for name in found]
    if not names:
        return "sidecar files may be there: its folder cannot be looked through"
    more = len(names) - _SIDECARS_SHOWN
    shown = ", ".join(names[:_SIDECARS_SHOWN]) + (f" and {more} more" if more > 0 else "")
    return f"sidecar file{'s' if len(names) > 1 else ''} {shown}"


def make_reader(
    drivers: Sequence[str] | None, access: Access | None = None, gdal_config: Sequence[str] = ()
) -> Router | RasterioReader:
    """Return the reader of a run; one serves all threads of a process."""
    folders = Folders()
    rasterio = RasterioReader(drivers, folders, access, gdal_config)
    if gdal_config:  # decoders do not know GDAL's options
        return rasterio
    allowed = [make for driver, make in DECODERS.items() if not drivers or driver in drivers]
    return Router(rasterio, folders, [make(rasterio) for make in allowed]) if allowed else rasterio
