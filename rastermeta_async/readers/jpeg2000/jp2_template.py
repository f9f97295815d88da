"""The record that rasterio returns for one JP2 file, as a template for others of its kind."""

from __future__ import annotations

from rastermeta_async.model.record import JP2_HEADER, Band, Bounds, Record, path_columns
from rastermeta_async.readers.base import Facts, Unsupported
from rastermeta_async.readers.jpeg2000.jp2_header import Jp2Header

MAX_BANDS_KEPT = 512
"""Maximum number of bands that a template caches."""

JP2_DRIVER = "JP2OpenJPEG"
"""GDAL's driver whose rules this decoder follows."""

_Shape = tuple[int, int, tuple[int, ...]]

(
    _FILEPATH, _FILEPATH_BYTES, _BOUNDS, _RES, _TRANSFORM, _DATASET_TAGS, _WIDTH, _HEIGHT, _BANDS,
    _TILED, _FILE_SIZE, _MTIME, _ETAG, _READER,
) = map(
    Record._fields.index,
    ("filepath", "filepath_bytes", "bounds", "res", "transform", "dataset_tags", "width", "height",
     "bands", "tiled", "file_size", "mtime", "etag", "reader"),
)  # fmt: skip


class Jp2Template:
    """The columns that all files of a kind share; a file's header gives the other columns.

    Args:
        record: rasterio's record of one of these files.

    Raises:
        Unsupported: another driver made the record, or it has what differs from file to file.
    """

    def __init__(self, record: Record) -> None:
        if record.driver != JP2_DRIVER or not record.bands:
            raise Unsupported("another driver opens it")
        if record.gcp_count or record.has_rpcs or record.subdatasets:
            raise Unsupported("control points, RPCs or subdatasets")
        transform = record.transform or ()
        if transform[2] or transform[4]:
            raise Unsupported("rotated")
        self.like = record
        self._transform = transform
        self._is_point = record.area_or_point == "Point"
        self._bands: dict[_Shape, list[Band]] = {}

    def record(self, header: Jp2Header, path: bytes, facts: Facts) -> Record:
        """Return the record of a file of this kind."""
        fields = list(self.like)  # by index: this is three times as fast as by name
        fields[_FILEPATH], fields[_FILEPATH_BYTES] = path_columns(path)
        x, a, _, y, _, e = fields[_TRANSFORM] = self._transform_of(header)
        fields[_BOUNDS] = Bounds(x, y + e * header.height, x + a * header.width, y)
        fields[_RES] = (abs(a), abs(e))
        fields[_DATASET_TAGS] = (self.like.dataset_tags or {}) | header.tags
        fields[_WIDTH], fields[_HEIGHT] = header.width, header.height
        fields[_BANDS] = self._bands_of(header)
        fields[_TILED] = header.block_width != header.width
        fields[_FILE_SIZE], fields[_MTIME], fields[_ETAG] = facts[:3]
        fields[_READER] = JP2_HEADER
        return Record._make(fields)

    def _transform_of(self, header: Jp2Header) -> tuple[float, ...]:
        if header.transform is None:
            return self._transform
        x, a, b, y, d, e = header.transform
        if self._is_point:  # the coordinates are of the pixel's centre
            x -= a * 0.5
            y -= e * 0.5
        return (x, a, b, y, d, e)

    def _bands_of(self, header: Jp2Header) -> list[Band]:
        """Return the bands; files with the same blocks and overviews share one list."""
        shape = header.block_height, header.block_width, header.overviews
        bands = self._bands.get(shape)
        if bands is None:
            like = self.like.bands or []
            if len(self._bands) * len(like) >= MAX_BANDS_KEPT:
                self._bands.clear()
            height, width, overviews = shape
            bands = self._bands[shape] = [
                band._replace(block_height=height, block_width=width, overviews=list(overviews))
                for band in like
            ]
        return bands
