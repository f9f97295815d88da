"""Nodata values, also those that rasterio rounds, leaves out or misreads.

rasterio holds nodata as a double. A double distinguishes 64-bit integers only within ±2**53, and
rasterio gives None if the nearest double is outside the data type (2**63 - 1 of int64). GDAL knows
the exact value, and writes it into a VRT of the dataset.

GDAL reads ``nan``, but it reads ``-nan`` as 0 (``CPLAtof``); C's ``printf`` writes half of all NaNs
as ``-nan``. The writer of such a GeoTIFF meant NaN, so the record has NaN. For any other text that
is no number the record has GDAL's value, as GDAL treats pixels of that value as nodata.
"""

from __future__ import annotations

import math
import os
import re
from typing import Any, NamedTuple

from rasterio.enums import MaskFlags
from rasterio.io import MemoryFile
from rasterio.shutil import copy

from rastermeta_async.readers.base import Unsupported
from rastermeta_async.readers.geotiff.buffer import File
from rastermeta_async.readers.geotiff.ifd import NODATA, value_in_first_ifd

_WIDE = {"int64": range(-(2**63), 2**63), "uint64": range(2**64)}
"""Data types, by name, with values that a double cannot hold."""

_EXACT = 2**53
"""Up to this absolute value a double distinguishes all whole numbers."""

_WHOLE = re.compile(r"\s*[-+]?\d{1,20}\s*", re.ASCII)
_NAN = re.compile(rb"\s*[-+]?nan(?:\(\w*\))?\s*", re.IGNORECASE)
"""NaN as C writes and reads it (C11, 7.21.6.1 and 7.22.1.3)."""

_HEAD_BYTES = 4096
_MAX_TEXT_BYTES = 64
_MAX_PAM_BYTES = 16 * 1024 * 1024


class Nodata(NamedTuple):
    """The nodata value of a band."""

    value: float | None
    """The nearest double; None: the band has no nodata."""
    text: str | None = None
    """The exact value, if it is a whole number beyond ±2**53, or no finite one."""


def told(value: float | None) -> Nodata:
    """Return the nodata of a band of which a double is known."""
    text = None if value is None or math.isfinite(value) else repr(float(value))
    return Nodata(value, text)


def nodata_of(dataset: Any) -> list[Nodata]:
    """Return the nodata of each band of an open dataset."""
    exact = _exact(dataset)
    misread = _is_nan_misread(dataset)
    found = []
    for band, (dtype, value) in enumerate(zip(dataset.dtypes, dataset.nodatavals, strict=True), 1):
        if band in exact:
            found.append(Nodata(float(exact[band]), str(exact[band])))
        else:
            found.append(told(math.nan if misread and _is_zero(dtype, value) else value))
    return found


def _exact(dataset: Any) -> dict[int, int]:
    """Return the nodata values of 64-bit integers beyond ±2**53, by band (1-based)."""
    if _WIDE.keys().isdisjoint(dataset.dtypes):
        return {}
    # GDAL's HDF5 driver has the value as a double only; the tag _FillValue has it exactly.
    of_hdf5 = dataset.driver == "HDF5Image"

    def is_in_doubt(dtype: str, value: float | None, flags: list[MaskFlags]) -> bool:
        if dtype not in _WIDE:
            return False
        if value is None:  # all_valid: the band has no nodata
            return of_hdf5 or MaskFlags.all_valid not in flags
        return abs(value) >= _EXACT

    bands = zip(dataset.dtypes, dataset.nodatavals, dataset.mask_flag_enums, strict=True)
    if not any(is_in_doubt(*band) for band in bands):
        return {}
    if of_hdf5:
        texts = [dataset.tags(band).get("_FillValue", "") for band in dataset.indexes]
    else:
        texts = _as_a_vrt_has_it(dataset)
    return {
        band: int(text)
        for band, (dtype, text) in enumerate(zip(dataset.dtypes, texts, strict=True), 1)
        if dtype in _WIDE and _WHOLE.fullmatch(text)
        if int(text) in _WIDE[dtype] and abs(int(text)) >= _EXACT
    }


def _as_a_vrt_has_it(dataset: Any) -> list[str]:
    """Return the nodata of each band as a text, from a VRT of the dataset."""
    from xml.etree import ElementTree  # few files need it

    with MemoryFile(ext=".vrt") as file:
        copy(dataset, file.name, driver="VRT")
        # Tags in it may be in any encoding; in Latin-1 every byte is a character.
        parser = ElementTree.XMLParser(encoding="latin-1")  # noqa: S314  # GDAL wrote it
        vrt = ElementTree.fromstring(file.read(), parser)  # noqa: S314
    return [band.findtext("NoDataValue") or "" for band in vrt.iterfind("VRTRasterBand")]


def _is_nan_misread(dataset: Any) -> bool:
    """Whether the nodata of a GeoTIFF is NaN, written in a form that GDAL reads as 0."""
    if dataset.driver != "GTiff" or not any(map(_is_zero, dataset.dtypes, dataset.nodatavals)):
        return False
    try:
        with open(os.fsencode(dataset.name), "rb", buffering=0) as file:

            def read_at(offset: int, size: int) -> bytes:
                file.seek(offset)
                return file.read(size)

            size = os.fstat(file.fileno()).st_size
            tiff = File(read_at(0, _HEAD_BYTES), size, read_at)
            text = value_in_first_ifd(tiff, NODATA, _MAX_TEXT_BYTES)
        return _NAN.fullmatch(text.partition(b"\0")[0]) is not None and not _is_overruled(dataset)
    except (OSError, Unsupported):  # e.g. an object in a store
        return False


def _is_zero(dtype: str, value: float | None) -> bool:
    """Whether a nodata value is 0 in a data type that has NaN."""
    return value == 0 and dtype.startswith(("float", "complex")) and "int" not in dtype


def _is_overruled(dataset: Any) -> bool:
    """Whether GDAL's sidecar (PAM) sets the nodata."""
    for name in dataset.files:
        if name.endswith(".aux.xml"):
            with open(os.fsencode(name), "rb") as file:
                return b"<NoDataValue" in file.read(_MAX_PAM_BYTES)
    return False
