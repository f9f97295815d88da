"""The reader that runs use: plain GeoTIFF headers without GDAL, all other files with rasterio.

rasterio is asked about the first file of each kind (see `header`), and what it says is
remembered for the others of that kind, but only if it is what this module would have said, to
the last bit. So each kind of file is compared with rasterio once in every process.
"""

from __future__ import annotations

import datetime as dt
import os
import stat
from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import NamedTuple

from rastermeta_async.model.errors import StoreError
from rastermeta_async.model.file_state import is_unchanged, settled
from rastermeta_async.model.record import (
    TIFF_HEADER,
    Band,
    Bounds,
    Record,
    Tags,
    is_same,
    path_columns,
)
from rastermeta_async.model.settings import Access
from rastermeta_async.model.text import shortened
from rastermeta_async.model.timeouts import done_in
from rastermeta_async.model.urls import is_url
from rastermeta_async.readers.fence import fence_thread
from rastermeta_async.readers.geotiff.buffer import ReadAt, Unsupported
from rastermeta_async.readers.geotiff.header import HEAD_BYTES, Header, read_header
from rastermeta_async.readers.geotiff.structure import GTIFF
from rastermeta_async.readers.rasterio_reader import RasterioReader, record_time
from rastermeta_async.readers.sidecars import OVERVIEWS, SIDECARS, Folders, Neighbours, sidecars_of
from rastermeta_async.readers.sparse_file import sparse_copy

MAX_KINDS = 512
MAX_BANDS_KEPT = 512
"""Bands that are remembered of each kind."""

_SIDECARS_SHOWN = 3

(
    _FILEPATH, _FILEPATH_BYTES, _BOUNDS, _RES, _TRANSFORM, _DATASET_TAGS, _BAND_TAGS,
    _IMAGERY_TAGS, _WIDTH, _HEIGHT, _BANDS, _COG, _COG_PROBLEMS, _FILE_SIZE, _MTIME, _ETAG,
    _READER,
) = map(
    Record._fields.index,
    ("filepath", "filepath_bytes", "bounds", "res", "transform", "dataset_tags", "band_tags",
     "imagery_tags", "width", "height", "bands", "cog", "cog_problems", "file_size", "mtime",
     "etag", "reader"),
)  # fmt: skip

_OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class Comparison(NamedTuple):
    """Both answers about one file."""

    rasterio: Record
    decoded: Record | None
    """None: rasterio reads the file."""
    reason: str | None
    """Why it does, in a few words."""

    @property
    def differences(self) -> list[str]:
        """Names of the columns that differ, but for `reader`."""
        if self.decoded is None:
            return []
        pairs = zip(Record._fields, self.rasterio, self.decoded, strict=True)
        return [name for name, a, b in pairs if not is_same(a, b) and name != "reader"]


class Facts(NamedTuple):
    """What is known of a file besides its content."""

    size: int
    """Bytes."""
    mtime: dt.datetime | None
    """Last change."""
    etag: str | None = None


class _Accompanied(Unsupported):
    """Files next to a TIFF may say more than its header."""

    def __init__(self, neighbours: Neighbours) -> None:
        super().__init__("sidecar files")
        self.neighbours = neighbours


class TiffReader:
    """Decodes the headers of plain GeoTIFFs; for all others it asks rasterio.

    Args:
        reference: reads what is not plain.
        folders: what is known of folders: a file with sidecars is not plain.
    """

    def __init__(self, reference: RasterioReader, folders: Folders) -> None:
        self._reference = reference
        self._folders = folders
        self._kinds: dict[Hashable, Kind | None] = {}
        self._lock = Lock()
        # One, however many read: each thread that asks rasterio has PROJ's database open.
        self._learning = ThreadPoolExecutor(1, "rastermeta-kinds", fence_thread)

    def enter(self) -> None:
        """See `pool.Reader.enter`."""
        self._reference.enter()

    def read(self, path: bytes) -> Record:
        """Return the record of a file or object; see `pool.Reader.read`."""
        if is_url(path):
            return self._reference.read(path)
        parts: dict[int, bytes] = {}
        try:
            header, facts = self._header(path, parts)
            return self._record(header, path, facts, parts)
        except _Accompanied as event:
            record = self._reference.read(path)
            if record.driver == GTIFF:
                _count(record, path, event.neighbours)
            return record
        except (Unsupported, StoreError):
            return self._reference.read(path)

    def decoded(
        self, path: bytes, facts: Facts, read_at: ReadAt, parts: Mapping[int, bytes]
    ) -> Record:
        """Return the record of a plain GeoTIFF, wherever it is, from its bytes.

        Args:
            path: as given.
            facts: what is known of it besides.
            read_at: returns some of its bytes; what it raises is passed on.
            parts: what that has returned so far, by offset; the first bytes in any case.

        Raises:
            Unsupported: rasterio is to read it.
            StoreError: rasterio is to be asked about a copy, for which there is no room.
        """
        header = read_header(parts[0], facts.size, read_at)
        return self._record(header, path, facts, parts)

    def _record(
        self, header: Header, path: bytes, facts: Facts, parts: Mapping[int, bytes]
    ) -> Record:
        """Return what rasterio says of this kind of file, and the header of this file.

        The first of its kind has rasterio asked about the very bytes that were decoded, whatever
        the file is by now: in a thread of its own, and once for all that wait for the same answer.
        What lies between the bytes is taken for zeros.
        """
        if header.kind in self._kinds:
            return self._known(header, path, facts)
        return done_in(self._learning, lambda: self._learn_once(header, path, facts, parts))

    def _learn_once(
        self, header: Header, path: bytes, facts: Facts, parts: Mapping[int, bytes]
    ) -> Record:
        if header.kind in self._kinds:  # from one that came before it
            return self._known(header, path, facts)
        with sparse_copy(b"header.tif", parts, facts.size) as copy:
            record = self._reference.read(copy, is_ours=True)
        if not record.ok or record.error_type:
            self._remember(header, None)
            raise Unsupported("rasterio has a problem with the header")
        shown, raw = path_columns(path)
        record = record._replace(
            filepath=shown, filepath_bytes=raw, mtime=facts.mtime, etag=facts.etag,
            # Arrays that tell where blocks are may be among the zeros.
            cog=not header.cog_problems, cog_problems=header.cog_problems,
        )  # fmt: skip
        learned = self._learn(header, path, facts, record)
        if learned.reader != TIFF_HEADER:
            raise Unsupported("rasterio says otherwise")
        return learned

    def _known(self, header: Header, path: bytes, facts: Facts) -> Record:
        kind = self._kinds.get(header.kind)  # None as well where it was forgotten right now
        if kind is None:
            raise Unsupported("rasterio says otherwise")
        return kind.record(header, path, facts)

    def compare(self, path: bytes) -> Comparison:
        """Return what rasterio says of a file and what this reader makes of it by itself."""
        reference = self._reference.read(path)
        try:
            if reference.reader is None:  # there is no file to be read
                raise Unsupported(reference.error_message or "")
            header, facts = self._decode(path, {}, only_files=False)
            neighbours = self._folders.neighbours(path)
            if _may_add_to(header, neighbours):
                raise Unsupported(_sidecars_in_words(path, neighbours))
            if not reference.ok or reference.error_type:
                raise Unsupported("rasterio has a problem with the file")
        except Unsupported as reason:
            return Comparison(reference, None, str(reason))
        return Comparison(reference, Kind(reference).record(header, path, facts), None)

    @contextmanager
    def environment(self) -> Iterator[None]:
        """See `RasterioReader.environment`."""
        with self._reference.environment():
            yield

    def _header(self, path: bytes, parts: dict[int, bytes]) -> tuple[Header, Facts]:
        if path.lower().endswith(OVERVIEWS):
            raise Unsupported("overviews of another file")
        neighbours = self._folders.neighbours(path)
        if neighbours is Neighbours.SIDECARS:
            raise _Accompanied(neighbours)
        header, facts = self._decode(path, parts, only_files=neighbours is Neighbours.FILES)
        if _may_add_to(header, neighbours):
            raise _Accompanied(neighbours)
        return header, facts

    def _decode(
        self, path: bytes, parts: dict[int, bytes], *, only_files: bool
    ) -> tuple[Header, Facts]:
        """Decode a file.

        Args:
            path: of the file.
            parts: is filled with the bytes that are looked at, by offset.
            only_files: whether the folder holds nothing but files.

        Raises:
            Unsupported: rasterio is to read it.
        """
        try:
            # A pipe or device is not to be opened; what takes the file's place now is not read.
            if not only_files and not stat.S_ISREG(os.stat(path).st_mode):
                raise Unsupported("no file")
            file = os.open(path, _OPEN_FLAGS)
        except (OSError, ValueError):
            raise Unsupported("it cannot be opened") from None
        try:
            status = settled(partial(os.fstat, file))
            if not stat.S_ISREG(status.st_mode):
                raise Unsupported("no file")

            def read_at(offset: int, size: int) -> bytes:
                parts[offset] = content = os.pread(file, size, offset)
                return content

            facts = Facts(status.st_size, record_time(status))
            header = read_header(read_at(0, HEAD_BYTES), facts.size, read_at)
            if not is_unchanged(status, os.fstat(file)):
                raise Unsupported("it changes while it is read")
            return header, facts
        except OSError:
            raise Unsupported("no answer from the disk") from None
        finally:
            os.close(file)

    def _learn(self, header: Header, path: bytes, facts: Facts, record: Record) -> Record:
        """Remember what rasterio says of a file for the others of its kind; return its record."""
        kind: Kind | None = Kind(record)
        ours = Kind(record).record(header, path, facts)
        # An outline is made from control points or RPCs, which differ from file to file.
        of_points = header.transform is None and (record.gcp_count or record.has_rpcs)
        if of_points or Comparison(record, ours, None).differences:
            kind, ours = None, record
        self._remember(header, kind)
        return ours

    def _remember(self, header: Header, kind: Kind | None) -> None:
        with self._lock:
            if len(self._kinds) >= MAX_KINDS:
                del self._kinds[next(iter(self._kinds))]
            self._kinds[header.kind] = kind


def _may_add_to(header: Header, neighbours: Neighbours) -> bool:
    """Whether files next to a TIFF may say more than its header; GDAL prefers where it lies."""
    if neighbours is Neighbours.WORLD_FILES:
        return header.transform is None
    return neighbours is Neighbours.SIDECARS


def _count(record: Record, path: bytes, neighbours: Neighbours) -> None:
    """Count a GeoTIFF that is not decoded because of what stands next to it."""
    example = SIDECARS.example
    if not example:  # the folder is listed once more for it
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


class Kind:
    """What rasterio said of one file, as far as it goes for all others of its kind."""

    def __init__(self, record: Record) -> None:
        self.like = record._replace(filepath="", dataset_tags=None, band_tags=None)
        self._numbers = range(1, (record.count or 0) + 1)
        self._bands: dict[Hashable, list[Band]] = {}

    def record(self, header: Header, path: bytes, facts: Facts) -> Record:
        """Return the record of a file of this kind."""
        fields = list(self.like)  # by place: that is three times as fast as by name
        fields[_FILEPATH], fields[_FILEPATH_BYTES] = path_columns(path)
        x, a, _, y, _, e = fields[_TRANSFORM] = self._transform(header)
        fields[_BOUNDS] = Bounds(x, y + e * header.height, x + a * header.width, y)
        fields[_RES] = (abs(a), abs(e))
        fields[_DATASET_TAGS] = self._tags(header)
        fields[_BAND_TAGS] = self._band_tags(header)
        fields[_IMAGERY_TAGS] = {}  # what has that domain is not plain
        fields[_WIDTH] = header.width
        fields[_HEIGHT] = header.height
        fields[_BANDS] = self._bands_of(header)
        fields[_COG], fields[_COG_PROBLEMS] = not header.cog_problems, header.cog_problems
        fields[_FILE_SIZE], fields[_MTIME], fields[_ETAG] = facts
        fields[_READER] = TIFF_HEADER
        return Record._make(fields)

    def _tags(self, header: Header) -> Tags:
        tags = header.tags
        tags.update(header.metadata.dataset)
        if self.like.area_or_point is not None:
            tags["AREA_OR_POINT"] = self.like.area_or_point
        return tags

    def _transform(self, header: Header) -> tuple[float, ...]:
        if header.transform is None:
            return self.like.transform or ()
        x, a, b, y, d, e = header.transform
        if self.like.area_or_point == "Point":  # coordinates are those of the pixel's centre
            x -= a * 0.5
            y -= e * 0.5
        return (x, a, b, y, d, e)

    def _band_tags(self, header: Header) -> dict[int, Tags]:
        given = header.metadata.bands
        if not given:
            return {band: {} for band in self._numbers}
        return {band: given.get(band, {}) for band in self._numbers}

    def _bands_of(self, header: Header) -> list[Band]:
        """Return the bands; files that have the same share one list."""
        metadata = header.metadata
        key: Hashable = (header.block_height, header.block_width, header.overviews)
        if metadata.descriptions or metadata.scales or metadata.offsets:
            properties = metadata.descriptions, metadata.scales, metadata.offsets
            key = (key, *[tuple(of_bands.items()) for of_bands in properties])
        bands = self._bands.get(key)
        if bands is None:
            if len(self._bands) * max(1, self.like.count or 0) >= MAX_BANDS_KEPT:
                self._bands.clear()
            bands = self._bands[key] = self._new_bands(header)
        return bands

    def _new_bands(self, header: Header) -> list[Band]:
        metadata = header.metadata
        return [
            band._replace(
                block_height=header.block_height,
                block_width=header.block_width,
                overviews=list(header.overviews),
                description=metadata.descriptions.get(number),
                scale=metadata.scales.get(number, band.scale),
                offset=metadata.offsets.get(number, band.offset),
            )
            for number, band in enumerate(self.like.bands or (), 1)
        ]


def make_reader(
    drivers: Sequence[str] | None, access: Access | None = None, gdal_config: Sequence[str] = ()
) -> TiffReader | RasterioReader:
    """Return the reader that runs use; a process needs one, whatever its threads."""
    folders = Folders()
    reference = RasterioReader(drivers, folders, access, gdal_config)
    # It knows none of GDAL's options.
    may_read = (not drivers or "GTiff" in drivers) and not gdal_config
    return TiffReader(reference, folders) if may_read else reference
