"""The reader that runs use: plain GeoTIFF headers without GDAL, all other files with rasterio.

rasterio is asked about the first file of each kind (see `tiff_header`), and what it says is
remembered for the others of that kind, but only if it is what this module would have said, to
the last bit. So each kind of file is compared with rasterio once in every process.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import NamedTuple

from rastermeta_async.folders import Folders, Neighbours
from rastermeta_async.reader import RasterioReader, record_time
from rastermeta_async.record import Band, Bounds, Record, Tags, path_columns
from rastermeta_async.tiff_header import HEAD_BYTES, Header, NotPlain, read_header

MAX_KINDS = 512
MAX_BANDS_KEPT = 512
"""Bands that are remembered of each kind."""

NAME = "tiff_header"
"""What the column `reader` calls it."""

(
    _FILEPATH, _FILEPATH_BYTES, _BOUNDS, _RES, _TRANSFORM, _DATASET_TAGS, _BAND_TAGS, _WIDTH,
    _HEIGHT, _BANDS, _TILED, _FILE_SIZE, _MTIME, _READER,
) = map(
    Record._fields.index,
    ("filepath", "filepath_bytes", "bounds", "res", "transform", "dataset_tags", "band_tags",
     "width", "height", "bands", "tiled", "file_size", "mtime", "reader"),
)  # fmt: skip

_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


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
        # In tuples, as a nodata of NaN is to equal itself.
        return [name for name, a, b in pairs if (a,) != (b,) and name != "reader"]


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
        self._learning = Lock()

    def enter(self) -> None:
        """See `pool.Reader.enter`."""
        self._reference.enter()

    def read(self, path: bytes) -> Record:
        """Return the record of a local file; see `pool.Reader.read`."""
        try:
            header, status = self._header(path)
            kind = self._kinds[header.kind]
            if kind is not None:
                return kind.record(header, path, status)
        except NotPlain:
            pass
        except KeyError:
            return self._learn(header, path, status)
        return self._reference.read(path)

    def compare(self, path: bytes) -> Comparison:
        """Return what rasterio says of a file and what this reader makes of it by itself."""
        reference = self._reference.read(path)
        try:
            header, status = self._header(path)
        except NotPlain as reason:
            return Comparison(reference, None, str(reason))
        if not reference.ok or reference.error_type:
            return Comparison(reference, None, "rasterio has a problem with the file")
        return Comparison(reference, Kind(reference).record(header, path, status), None)

    @contextmanager
    def environment(self) -> Iterator[None]:
        """See `RasterioReader.environment`."""
        with self._reference.environment():
            yield

    def _header(self, path: bytes) -> tuple[Header, os.stat_result]:
        neighbours = self._folders.neighbours(path)
        if neighbours is Neighbours.SIDECARS:
            raise NotPlain("sidecar files")
        try:
            # A pipe or device is not to be opened; what takes the file's place now is not read.
            if neighbours is not Neighbours.FILES and not stat.S_ISREG(os.stat(path).st_mode):
                raise NotPlain("no file")
            file = os.open(path, _OPEN_FLAGS)
        except (OSError, ValueError):
            raise NotPlain("no file") from None
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise NotPlain("no file")
            head = os.pread(file, HEAD_BYTES, 0)
            return read_header(head, status.st_size, partial(_read_at, file)), status
        except OSError:
            raise NotPlain("no answer from the disk") from None
        finally:
            os.close(file)

    def _learn(self, header: Header, path: bytes, status: os.stat_result) -> Record:
        """Return what rasterio says of the file, and remember it for the others of its kind."""
        record = self._reference.read(path)
        if not record.ok or record.error_type or record.mtime != record_time(status):
            return record
        kind: Kind | None = Kind(record)
        ours = Kind(record).record(header, path, status)
        if Comparison(record, ours, None).differences:
            kind, ours = None, record
        with self._learning:
            if len(self._kinds) >= MAX_KINDS:
                del self._kinds[next(iter(self._kinds))]
            self._kinds[header.kind] = kind
        return ours


def _read_at(file: int, offset: int, size: int) -> bytes:
    return os.pread(file, size, offset)


class Kind:
    """What rasterio said of one file, as far as it goes for all others of its kind."""

    def __init__(self, record: Record) -> None:
        self.like = record._replace(filepath="", dataset_tags=None, band_tags=None)
        self._bands: dict[Hashable, list[Band]] = {}

    def record(self, header: Header, path: bytes, status: os.stat_result) -> Record:
        """Return the record of a file of this kind."""
        fields = list(self.like)  # by place: that is three times as fast as by name
        fields[_FILEPATH], fields[_FILEPATH_BYTES] = path_columns(path)
        x, a, _, y, _, e = fields[_TRANSFORM] = self._transform(header)
        fields[_BOUNDS] = Bounds(x, y + e * header.height, x + a * header.width, y)
        fields[_RES] = (abs(a), abs(e))
        fields[_DATASET_TAGS] = self._tags(header)
        fields[_BAND_TAGS] = self._band_tags(header)
        fields[_WIDTH] = header.width
        fields[_HEIGHT] = header.height
        fields[_BANDS] = self._bands_of(header)
        fields[_TILED] = header.block_width != header.width
        fields[_FILE_SIZE] = status.st_size
        fields[_MTIME] = record_time(status)
        fields[_READER] = NAME
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
        return {band: given.get(band, {}) for band in range(1, (self.like.count or 0) + 1)}

    def _bands_of(self, header: Header) -> list[Band]:
        """Return the bands; files that have the same share one list."""
        metadata = header.metadata
        key: Hashable = (header.block_height, header.block_width, header.overviews)
        if metadata.descriptions or metadata.scales or metadata.offsets:
            properties = metadata.descriptions, metadata.scales, metadata.offsets
            key = (key, *(tuple(of_bands.items()) for of_bands in properties))
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


def make_reader(drivers: Sequence[str] | None) -> TiffReader | RasterioReader:
    """Return the reader that runs use; a process needs one, whatever its threads."""
    folders = Folders()
    reference = RasterioReader(drivers, folders)
    may_read = hasattr(os, "pread") and (not drivers or "GTiff" in drivers)
    return TiffReader(reference, folders) if may_read else reference
