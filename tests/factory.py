"""Records made from a few arguments, and what it takes to compare them."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from rastermeta_async.model.record import (
    Band,
    Bounds,
    Reading,
    Record,
    failure,
    from_batch,
    path_columns,
    to_batch,
)

MODIFIED = dt.datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=dt.UTC)


def band(**fields: Any) -> Band:
    plain = Band(
        dtype="uint8",
        nodata=255.0,
        nodata_text=None,
        description=None,
        color_interp="gray",
        scale=1.0,
        offset=0.0,
        unit=None,
        block_height=256,
        block_width=512,
        mask_flags=["nodata"],
        overviews=[2, 4],
    )
    return plain._replace(**fields)


def record(path: bytes = b"/archive/a.tif", **fields: Any) -> Record:
    """Return the record of a file that was read, every kind of column filled in."""
    plain = Record(
        *path_columns(path),
        "success",
        None,
        None,
        crs="EPSG:32633",
        bounds=Bounds(300000.0, 5000000.0, 300010.5, 5000021.0),
        res=(10.5, 21.0),
        count=1,
        dtype="uint8",
        nodata=255.0,
        transform=(300000.0, 10.5, 0.0, 5000021.0, 0.0, -21.0),
        dataset_tags={"AREA_OR_POINT": "Area"},
        band_tags={1: {"STATISTICS_MEAN": "1.5"}},
        imagery_tags={},
        driver="GTiff",
        width=1,
        height=1,
        bands=[band()],
        compression="deflate",
        interleave="band",
        tiled=False,
        cog=True,
        cog_problems=[],
        area_or_point="Area",
        gcp_count=0,
        has_rpcs=False,
        subdatasets=[],
        file_size=1234,
        mtime=MODIFIED,
        proj_code="EPSG:32633",
    )
    return plain._replace(**fields)


def in_thread(read: Callable[[bytes], Reading], path: bytes) -> Reading:
    """Read in a thread of its own, as GDAL's options stay in the thread that reads."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(read, path).result()


def failed(path: bytes = b"/archive/bad.tif", status: str = "error") -> Record:
    return failure(path, status, "RasterioIOError", "not recognized as being in a supported format")


def path_bytes(record: Record) -> bytes:
    """Return the path of a record exactly as it was given."""
    return record.filepath_bytes if record.filepath_bytes is not None else record.filepath.encode()


def table(records: Sequence[Record]) -> pa.Table:
    return pa.Table.from_batches([to_batch(records)])


def records_of(batches: Iterable[pa.RecordBatch | pa.Table]) -> list[Record]:
    return [row for batch in batches for row in from_batch(batch)]


def paths_of(batches: Iterable[pa.RecordBatch | pa.Table]) -> list[bytes]:
    return [path_bytes(row) for row in records_of(batches)]


def exact(value: Any) -> Any:
    """Return a value in a form that is equal only where type and content are, NaN included."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value.hex()
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat()
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value).__name__, [exact(item) for item in value]
    return type(value).__name__, value


_text = st.text(max_size=8)
_real = st.floats()
_int32 = st.integers(-(2**31), 2**31 - 1)
_tags = st.dictionaries(_text, _text, max_size=3)
_some_tags = st.dictionaries(_text, _text, min_size=1, max_size=3)
_finite = st.floats(allow_nan=False, allow_infinity=False)
_nodata = st.one_of(
    st.tuples(st.none() | _finite, st.none()),
    st.integers(-(2**63), 2**64 - 1).map(lambda number: (float(number), str(number))),
    st.sampled_from(["nan", "inf", "-inf"]).map(lambda text: (float(text), text)),
)
"""A nodata value, and its text."""


@st.composite
def _some_bands(draw: st.DrawFn) -> Band:
    nodata, text = draw(_nodata)
    return draw(_bands)._replace(nodata=nodata, nodata_text=text)


_bands = st.builds(
    Band,
    dtype=_text,
    nodata=st.none(),
    nodata_text=st.none(),
    description=st.none() | _text,
    color_interp=st.none() | _text,
    scale=_real,
    offset=_real,
    unit=st.none() | _text,
    block_height=_int32,
    block_width=_int32,
    mask_flags=st.lists(_text, max_size=2),
    overviews=st.lists(_int32, max_size=3),
)
_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "crs": _text,
    "bounds": st.builds(Bounds, _real, _real, _real, _real),
    "res": st.tuples(_real, _real),
    "count": _int32,
    "dtype": _text,
    "transform": st.tuples(*[_real] * 6),
    "dataset_tags": _tags,
    "band_tags": st.dictionaries(_int32, _some_tags, max_size=3),
    "imagery_tags": _tags,
    "driver": _text,
    "width": _int32,
    "height": _int32,
    "bands": st.lists(_some_bands(), max_size=2),
    "compression": _text,
    "interleave": _text,
    "photometric": _text,
    "tiled": st.booleans(),
    "cog": st.booleans(),
    "cog_problems": st.lists(_text, max_size=2),
    "area_or_point": _text,
    "gcp_count": _int32,
    "has_rpcs": st.booleans(),
    "subdatasets": st.lists(_text, max_size=3),
    "missing_sources": st.integers(0, 10_000),
    "file_size": st.integers(0, 2**63 - 1),
    "mtime": st.datetimes(timezones=st.just(dt.UTC)),
    "proj_code": _text,
    "crs_wkt": _text,
}

some_paths = st.one_of(
    st.binary(min_size=1, max_size=6), st.sampled_from([b"a", b"\\xff", b"\xff", "ä".encode()])
)
"""Paths, many of them no UTF-8, some of them look like the readable form of another."""


@st.composite
def some_records(draw: st.DrawFn) -> Record:
    shown, raw = path_columns(draw(some_paths))
    status = draw(st.sampled_from(["success", "no_georef", "error", "fatal"]))
    error = draw(st.tuples(st.none() | _text, st.none() | _text))
    fields = draw(st.fixed_dictionaries({}, optional=_FIELDS))
    nodata, text = draw(_nodata)
    return Record(shown, raw, status, *error, nodata=nodata, nodata_text=text, **fields)
