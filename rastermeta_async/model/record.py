"""One raster header as a record, and the Arrow schema, declared once.

Each field of `Record` has its Arrow type and its meaning. The schema, the sinks, the JSON form,
``rastermeta schema`` and the tests derive from these declarations. Band numbers are 1-based. An
absent value is null, never ``""`` or 0.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, get_type_hints

import pyarrow as pa

from rastermeta_async.model.urls import is_url, redacted, without_secrets

SCHEMA_VERSION = 5
"""Changes whenever a column is added or removed, or changes its meaning."""

VERSION_KEY = b"rastermeta:schema_version"
"""Key in the Parquet file metadata; if present, this program made the file."""

TIFF_HEADER, JP2_HEADER = "tiff_header", "jp2_header"
"""Values of the column `reader` for the decoders of plain GeoTIFF and of usual JP2 headers."""


@dataclass(frozen=True)
class Column:
    """One column: its Arrow type, and its meaning in one line with shape and unit."""

    type: pa.DataType
    meaning: str


def _columns_of(row: type) -> dict[str, Column]:
    hints = get_type_hints(row, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items()}


def _struct_of(row: type) -> pa.DataType:
    return pa.struct([(name, column.type) for name, column in _columns_of(row).items()])


_TEXT = pa.string()
_REAL = pa.float64()
_TIME = pa.timestamp("us", tz="UTC")


class Bounds(NamedTuple):
    """Outer edges of the raster in the units of its CRS."""

    left: Annotated[float, Column(_REAL, "smallest x of the corners, CRS units")]
    bottom: Annotated[float, Column(_REAL, "y of the lower edge, CRS units")]
    right: Annotated[float, Column(_REAL, "largest x of the corners, CRS units")]
    top: Annotated[float, Column(_REAL, "y of the upper edge, CRS units")]


class BBox(NamedTuple):
    """Bounding box of a footprint in longitude and latitude."""

    xmin: Annotated[float, Column(_REAL, "western limit, degrees")]
    ymin: Annotated[float, Column(_REAL, "southern limit, degrees")]
    xmax: Annotated[float, Column(_REAL, "eastern limit, degrees")]
    ymax: Annotated[float, Column(_REAL, "northern limit, degrees")]


class Band(NamedTuple):
    """One band, as ``rasterio`` describes it."""

    dtype: Annotated[str, Column(_TEXT, "data type in NumPy's terms, e.g. uint8, complex_int16")]
    nodata: Annotated[float | None, Column(_REAL, "nodata value, may be NaN")]
    nodata_text: Annotated[
        str | None,
        Column(_TEXT, "exact nodata where it is nan, inf, -inf or a whole number beyond ±2^53"),
    ]
    description: Annotated[str | None, Column(_TEXT, "description")]
    color_interp: Annotated[str | None, Column(_TEXT, "colour interpretation, e.g. gray, red")]
    scale: Annotated[float, Column(_REAL, "value = stored * scale + offset")]
    offset: Annotated[float, Column(_REAL, "value = stored * scale + offset")]
    unit: Annotated[str | None, Column(_TEXT, "unit of the values")]
    block_height: Annotated[int, Column(pa.int32(), "rows of a block (tile or strip), pixels")]
    block_width: Annotated[int, Column(pa.int32(), "columns of a block (tile or strip), pixels")]
    mask_flags: Annotated[
        list[str],
        Column(pa.list_(pa.string()), "where the mask comes from: all_valid, per_dataset, …"),
    ]
    overviews: Annotated[
        list[int], Column(pa.list_(pa.int32()), "decimation factors of the overviews, ascending")
    ]


class Tag(NamedTuple):
    """One tag of a dataset, as its column stores it; a `Record` has a mapping."""

    key: Annotated[str, Column(_TEXT, "name")]
    value: Annotated[str, Column(_TEXT, "value")]


class BandTag(NamedTuple):
    """One tag of a band, as its column stores it; a `Record` has a mapping of mappings."""

    band: Annotated[int, Column(pa.int32(), "number of the band, from 1")]
    key: Annotated[str, Column(_TEXT, "name")]
    value: Annotated[str, Column(_TEXT, "value")]


# Lists, not maps: GeoPandas writes no maps of maps, Spark's distinct() and GDAL take no maps, and
# pandas makes tuples of them.
TAG_LIST = pa.list_(_struct_of(Tag))
BAND_TAG_LIST = pa.list_(_struct_of(BandTag))

Tags = dict[str, str]
BandTags = dict[int, Tags]
"""Tags by the number of their band, from 1, of the bands that have any."""


class Record(NamedTuple):
    """The metadata of one raster: one row of the catalog. Frozen.

    An input path has one, or one for each member or subdataset (see `Reading`). `failure` makes the
    record of a path that could not be read: only its first columns have values.
    """

    filepath: Annotated[
        str, Column(_TEXT, "path as given; bytes that are not UTF-8 are shown as \\xNN")
    ]
    filepath_bytes: Annotated[
        bytes | None, Column(pa.binary(), "exact bytes of the path where it is not UTF-8")
    ]
    status: Annotated[str, Column(_TEXT, "success, no_georef, error or fatal")]
    error_type: Annotated[str | None, Column(_TEXT, "kind of problem, e.g. RasterioIOError")]
    error_message: Annotated[str | None, Column(_TEXT, "the problem in a sentence")]
    crs: Annotated[str | None, Column(_TEXT, "CRS as rasterio has it: a code, else WKT")] = None
    bounds: Annotated[
        Bounds | None, Column(_struct_of(Bounds), "outer edges, units of the CRS")
    ] = None
    res: Annotated[
        tuple[float, float] | None,
        Column(pa.list_(_REAL), "pixel size (x, y), units of the CRS a pixel"),
    ] = None
    count: Annotated[int | None, Column(pa.int32(), "number of bands; 0: a container")] = None  # type: ignore[assignment]  # shadows tuple.count(), which no record needs
    dtype: Annotated[str | None, Column(_TEXT, "data type of band 1")] = None
    nodata: Annotated[float | None, Column(_REAL, "nodata value of band 1, may be NaN")] = None
    nodata_text: Annotated[
        str | None,
        Column(_TEXT, "exact nodata of band 1 where it is nan, inf, -inf or beyond ±2^53"),
    ] = None
    transform: Annotated[
        tuple[float, ...] | None,
        Column(pa.list_(_REAL), "geotransform, 6 numbers in GDAL's order, unrounded"),
    ] = None
    dataset_tags: Annotated[
        Tags | None, Column(TAG_LIST, "tags of the dataset, default domain")
    ] = None
    band_tags: Annotated[
        BandTags | None,
        Column(BAND_TAG_LIST, "tags of the bands (1-based), default domain, in band order"),
    ] = None
    imagery_tags: Annotated[
        Tags | None,
        Column(TAG_LIST, "tags of the domain IMAGERY: satellite, cloud cover, time of acquisition"),
    ] = None
    driver: Annotated[str | None, Column(_TEXT, "GDAL driver that opened the file")] = None
    width: Annotated[int | None, Column(pa.int32(), "columns, pixels")] = None
    height: Annotated[int | None, Column(pa.int32(), "rows, pixels")] = None
    bands: Annotated[
        list[Band] | None, Column(pa.list_(_struct_of(Band)), "one entry a band, in band order")
    ] = None
    compression: Annotated[
        str | None, Column(_TEXT, "compression, lower case, e.g. deflate; null: none, or not told")
    ] = None
    interleave: Annotated[str | None, Column(_TEXT, "pixel, band or line")] = None
    photometric: Annotated[
        str | None, Column(_TEXT, "colour space in the file where it is not RGB, e.g. ycbcr")
    ] = None
    tiled: Annotated[
        bool | None, Column(pa.bool_(), "whether band 1 is stored in tiles; null: not told")
    ] = None
    cog: Annotated[
        bool | None, Column(pa.bool_(), "whether it is a cloud-optimised GeoTIFF; null: no TIFF")
    ] = None
    cog_problems: Annotated[
        list[str] | None,
        Column(pa.list_(pa.string()), "why a TIFF is none, a sentence a reason; empty: it is one"),
    ] = None
    area_or_point: Annotated[
        str | None, Column(_TEXT, "whether coordinates mean the pixel's Area or its Point")
    ] = None
    gcp_count: Annotated[int | None, Column(pa.int32(), "number of ground control points")] = None
    has_rpcs: Annotated[
        bool | None, Column(pa.bool_(), "whether rational polynomial coefficients are there")
    ] = None
    subdatasets: Annotated[
        list[str] | None, Column(pa.list_(pa.string()), "names under which GDAL opens the parts")
    ] = None
    missing_sources: Annotated[
        int | None,
        Column(pa.int32(), "files that a VRT refers to and that are not there; null: no local VRT"),
    ] = None
    file_size: Annotated[int | None, Column(pa.int64(), "size of the file, bytes")] = None
    mtime: Annotated[
        dt.datetime | None,
        Column(_TIME, "last change of the file, UTC, microseconds"),
    ] = None
    etag: Annotated[
        str | None, Column(_TEXT, "entity tag that an object store gives this content")
    ] = None
    proj_code: Annotated[
        str | None, Column(_TEXT, "authority:code of the CRS where it is exactly that one")
    ] = None
    crs_wkt: Annotated[str | None, Column(_TEXT, "WKT of a CRS that has no code")] = None
    geometry: Annotated[
        bytes | None, Column(pa.binary(), "footprint as WKB, longitude and latitude (EPSG:4326)")
    ] = None
    bbox: Annotated[
        BBox | None, Column(_struct_of(BBox), "limits of the footprint, degrees (EPSG:4326)")
    ] = None
    footprint: Annotated[
        str | None,
        Column(_TEXT, "what it is made from: transform; gcps, rpcs: approximate; null: unknown"),
    ] = None
    reader: Annotated[
        str | None,
        Column(
            _TEXT, f"what read the header: {TIFF_HEADER}, {JP2_HEADER} or rasterio; null: nothing"
        ),
    ] = None
    member: Annotated[
        str | None, Column(_TEXT, "name of the raster inside the archive at the path")
    ] = None
    subdataset: Annotated[
        str | None, Column(_TEXT, "name under which GDAL opens this part of a container")
    ] = None
    time_start: Annotated[
        dt.datetime | None,
        Column(_TIME, "first time of a NetCDF variable's time coordinate, UTC"),
    ] = None
    time_end: Annotated[
        dt.datetime | None,
        Column(_TIME, "last time of a NetCDF variable's time coordinate, UTC"),
    ] = None

    @property
    def ok(self) -> bool:
        """Whether the file was read: its status is one of `SUCCESSES`."""
        return self.status in SUCCESSES


Reading = Record | list[Record]
"""What one reading of an input path gives: its row, or its rows, at least one.

Rows of one path differ in member or subdataset; they ascend by both, null first."""


def as_rows(reading: Reading) -> list[Record]:
    """Return the rows of a reading."""
    return reading if isinstance(reading, list) else [reading]


COLUMNS: dict[str, Column] = _columns_of(Record)
"""Every column by name, in the order of the file."""

SCHEMA: pa.Schema = pa.schema(
    [
        pa.field(name, column.type, metadata={"description": column.meaning})
        for name, column in COLUMNS.items()
    ],
    metadata={VERSION_KEY: str(SCHEMA_VERSION)},
)
"""The Arrow schema of a catalog."""

SUCCESSES = frozenset({"success", "no_georef"})
INVALID_NAME = "InvalidName"
"""Error type of a name that no file can have: with a NUL byte, or too long."""

MISSING = frozenset({"FileNotFoundError", "NotADirectoryError", "NotFound", INVALID_NAME})
"""Error types of a path that does not exist."""

PASSING = frozenset(
    {"Changed", "Connection", "NameResolution", "OSError", "ServerError", "Throttled", "Timeout"}
)
"""Error types that a later read may not have, even if the file does not change."""

UNPLACED = (0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
"""The geotransform that rasterio returns for a file without one."""

ARCHIVE_NOT_READ = "ArchiveNotRead"
"""Error type of an archive whose members were not read, as that was not asked for."""

SIDECAR, NO_RASTER = "sidecar", "no_raster"
NO_RASTERS = frozenset({SIDECAR, NO_RASTER})
"""Statuses of paths that were found, not named, and are no rasters: files that belong to a raster,
and all others. Their rows are kept with the log of a catalog; no catalog has them."""

GONE = "gone"
"""Status of a row that the next sealing drops; no catalog has it."""

MAX_MESSAGE = 1000
"""Number of characters of an error message that are kept."""


def readable(text: str | bytes) -> str:
    r"""Return `text` as valid UTF-8: undecodable bytes become ``\xNN``."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "backslashreplace")


def path_columns(path: bytes) -> tuple[str, bytes | None]:
    """Return `filepath` and `filepath_bytes` of a path given as bytes, without secrets."""
    path = without_secrets(path)  # here, as every row needs it, also a timeout row
    try:
        return path.decode(), None
    except UnicodeDecodeError:
        return readable(path), path


def failure(path: bytes, status: str, error_type: str, message: str) -> Record:
    """Return the record of a path that could not be read."""
    shown, raw = path_columns(path)
    return Record(shown, raw, status, error_type, words_for_row(shown, message))


def rough_bytes(record: Record) -> int:
    """Return roughly the bytes of the parts of a record that can be large."""
    of_dataset = record.dataset_tags or {}, record.imagery_tags or {}
    tags = *of_dataset, *(record.band_tags or {}).values()
    text = sum(len(key) + len(value) for some in tags for key, value in some.items())
    return text + len(record.filepath) + 100 * len(record.bands or ()) + len(record.crs or "")


def words_for_row(shown: str, message: str) -> str:
    """Return the message for the row with the `filepath` `shown`, without secrets."""
    return redacted(readable(message), shown, remote=is_url(shown.encode()))[:MAX_MESSAGE]


def shown_name(filepath: str, member: str | None) -> str:
    """Return what a message calls a row: its path, and below it the member, if it is of one."""
    return filepath if member is None else f"{filepath}/{member}"


def is_same(one: object, other: object) -> bool:
    """Tell whether two values of records are equal to the last bit, at any depth of nesting.

    NaN equals NaN with any payload; 0.0 does not equal -0.0.
    """
    return repr(one) == repr(other)  # Python's repr of a double is unique


def differing_columns(one: Record, other: Record) -> list[str]:
    """Return the names of the columns, except `reader`, in which two records differ."""
    pairs = zip(Record._fields, one, other, strict=True)
    return [name for name, a, b in pairs if name != "reader" and not is_same(a, b)]


def to_batch(records: Sequence[Record]) -> pa.RecordBatch:
    """Return records as one Arrow batch of `SCHEMA`, in the same order."""
    columns = zip(*records, strict=True) if records else [()] * len(SCHEMA)
    arrays = [_array(values, f.type) for f, values in zip(SCHEMA, columns, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return values as an Arrow array; for tags and lists of structs in a faster way."""
    if kind == TAG_LIST:
        return _tag_lists([value if value is None else {0: value} for value in values], kind)
    if kind == BAND_TAG_LIST:
        return _tag_lists(values, kind)
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        return _shared(values, kind)
    return pa.array(values, kind)


def _tag_lists(values: Sequence[BandTags | None], kind: pa.ListType) -> pa.Array:
    """Convert tags by band to lists of structs; those of datasets without the number of a band."""
    offsets: list[int | None] = []
    bands: list[int] = []
    keys: list[str] = []
    texts: list[str] = []
    for value in values:
        offsets.append(None if value is None else len(keys))
        for band, tags in (value or {}).items():
            bands += [band] * len(tags)
            keys += tags
            texts += tags.values()
    offsets.append(len(keys))
    fields = list(kind.value_type)
    columns = [
        pa.array(column, field.type)
        for column, field in zip((bands, keys, texts)[-len(fields) :], fields, strict=True)
    ]
    rows = pa.StructArray.from_arrays(columns, fields=fields)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), rows, type=kind)


def _shared(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Convert each object once, however many records share it."""
    places: dict[int, int] = {}
    unique: list[Any] = []
    for value in values:
        if id(value) not in places:
            places[id(value)] = len(unique)
            unique.append(value)
    array = pa.array(unique, kind)
    if len(unique) == len(values):
        return array
    return array.take(pa.array([places[id(value)] for value in values], pa.int32()))


def from_batch(batch: pa.RecordBatch) -> Iterator[Record]:
    """Yield the records of an Arrow batch or table, the inverse of `to_batch`."""
    yield from map(from_fields, batch.to_pylist())


def from_fields(fields: dict[str, Any]) -> Record:
    """Return the record for plain fields by name, as from Arrow's ``to_pylist``."""

    def bands(rows: list[dict[str, Any]]) -> list[Band]:
        return [Band(**row) for row in rows]

    revive: dict[str, Any] = {
        "bounds": lambda fields: Bounds(**fields),
        "bbox": lambda fields: BBox(**fields),
        "res": tuple,
        "transform": tuple,
        "dataset_tags": tags_of,
        "band_tags": band_tags_of,
        "imagery_tags": tags_of,
        "bands": bands,
    }
    return Record(
        **{
            name: revive[name](value) if value is not None and name in revive else value
            for name, value in fields.items()
        }
    )


def tags_of(rows: Iterable[Mapping[str, str]] | None) -> Tags:
    """Return tags by their name, of the rows of `Tag` that a column holds."""
    return {row["key"]: row["value"] for row in rows or ()}


def band_tags_of(rows: Iterable[Mapping[str, Any]]) -> BandTags:
    """Return tags by band and name, of the rows of `BandTag` that a column holds."""
    found: BandTags = {}
    for row in rows:
        found.setdefault(row["band"], {})[row["key"]] = row["value"]
    return found


def describe_columns() -> Iterable[tuple[str, str, str]]:
    """Yield (name, Arrow type, meaning) of every column, in the order of the file."""
    for name, column in COLUMNS.items():
        yield name, str(column.type), column.meaning
