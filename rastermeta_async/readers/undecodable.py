r"""Keeps texts of a dataset that are not UTF-8 readable, by the same rule as for paths.

Most drivers of GDAL pass on texts as the file has them, so Latin-1 is frequent in old files.
rasterio decodes all texts as UTF-8. It leaves out other tags, with a line in its log; it raises for
other descriptions, units, control points, CRSs and messages. Here, undecodable bytes become
``\xNN``.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from typing import Any
from xml.etree import ElementTree

import rasterio._base
from rasterio.control import GroundControlPoint
from rasterio.errors import RasterioIOError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.shutil import copy

from rastermeta_async.model.record import Tags, readable

_LEFT_OUT = "Failed to decode metadata item"
"""Start of that line in the log; its arguments are the index and the bytes of the item."""

_call = threading.local()
"""`left_out` is the list of the items that the current call of `tags` leaves out."""


class _Log(logging.LoggerAdapter[logging.Logger]):
    """The logger of rasterio; a filter would get nothing if an application turns logs off."""

    def warning(self, msg: object, *args: object, **options: Any) -> None:
        """Keep the items that one of our calls leaves out; pass on all other messages."""
        left_out = getattr(_call, "left_out", None)
        if left_out is not None and str(msg).startswith(_LEFT_OUT):
            left_out.append(args)
        else:
            super().warning(msg, *args, **options)


rasterio._base.log = _Log(logging.getLogger(rasterio._base.__name__))


class ReadableDataset(DatasetReader):  # type: ignore[misc]  # rasterio publishes no types
    """A dataset that has all its texts; texts in UTF-8 cost no more than in rasterio."""

    def tags(self, bidx: int = 0, ns: str | None = None) -> Tags:
        """Return tags as rasterio does; rasterio also makes subdatasets and RPCs from them."""
        found, left_out = self.tags_and_left_out(bidx, ns)
        if left_out:
            items = list(found.items())
            for place, item in left_out:
                items.insert(place, _name_and_value(item))
            found = dict(items)
        return found

    def tags_and_left_out(
        self, bidx: int = 0, ns: str | None = None
    ) -> tuple[Tags, list[tuple[int, bytes]]]:
        """Return the tags that are UTF-8, and the index and bytes of each other tag."""
        left_out: list[tuple[int, bytes]] = []
        _call.left_out = left_out
        try:
            return super().tags(bidx, ns), left_out
        finally:
            _call.left_out = None

    def read_crs(self) -> Any:
        """Return the CRS of the dataset's WKT."""
        try:
            return super().read_crs()
        except UnicodeDecodeError as error:
            return self._handle_crswkt(readable(error.object))

    def get_gcps(self) -> tuple[list[GroundControlPoint], Any]:
        """Return the control points and their CRS."""
        try:
            return super().get_gcps()  # type: ignore[no-any-return]
        except UnicodeDecodeError:
            (found,) = _as_vrt(self).iterfind("GCPList")
            points = [_control_point(one) for one in found.iterfind("GCP")]
            return points, self._handle_crswkt(found.get("Projection"))

    @property
    def descriptions(self) -> tuple[str | None, ...]:
        """Descriptions of the bands."""
        try:
            return super().descriptions  # type: ignore[no-any-return]
        except UnicodeDecodeError:
            return _of_bands(_as_vrt(self), "Description")

    @property
    def units(self) -> tuple[str | None, ...]:
        """Units of the bands."""
        try:
            return super().units  # type: ignore[no-any-return]
        except UnicodeDecodeError:
            return _of_bands(_as_vrt(self), "UnitType")


def _name_and_value(item: bytes) -> tuple[str, str]:
    """Return name and value of an item of GDAL's metadata, split like ``CPLParseNameValue``."""
    name, value = re.split(b"[=:]", item, maxsplit=1)
    return readable(name.rstrip(b" \t")), readable(value.lstrip(b" \t"))


def _as_vrt(dataset: DatasetReader) -> ElementTree.Element:
    """Return a dataset as a VRT: only in this form rasterio gives the bytes of its texts."""
    with MemoryFile(ext=".vrt") as file:
        copy(dataset, file.name, driver="VRT")
        return ElementTree.fromstring(readable(file.read()))  # noqa: S314  # GDAL wrote it


def _control_point(point: ElementTree.Element) -> GroundControlPoint:
    place = [float(point.get(name, 0)) for name in ("Line", "Pixel", "X", "Y", "Z")]
    return GroundControlPoint(*place, id=point.get("Id"), info=point.get("Info"))


def _of_bands(vrt: ElementTree.Element, name: str) -> tuple[str | None, ...]:
    return tuple([band.findtext(name) for band in vrt.iterfind("VRTRasterBand")])


def message_of(error: Exception) -> tuple[str, str]:
    """Return the type and message of an error that rasterio raises instead of opening a file.

    GDAL's message names the file. If it is not UTF-8, rasterio raises a UnicodeDecodeError instead.
    """
    if isinstance(error, UnicodeDecodeError):
        return RasterioIOError.__name__, readable(error.object)
    return type(error).__name__, str(error)


def quiet_undecodable_messages() -> None:
    """Silence the errors of rasterio's log hook about GDAL messages that are not UTF-8.

    They cannot be caught where they arise, and would go to stderr for every such file. Only
    programs may call this: it replaces `sys.unraisablehook` and `sys.excepthook`. Cython reports
    such an error twice, first as one that ends the program but has no traceback.
    """
    told, ended = sys.unraisablehook, sys.excepthook

    def on_unraisable(unraisable: Any) -> None:
        from_rasterio = str(unraisable.object).startswith("rasterio.")
        if not (from_rasterio and isinstance(unraisable.exc_value, UnicodeDecodeError)):
            told(unraisable)

    def on_end(kind: Any, error: Any, trace: Any) -> None:
        if not (kind is UnicodeDecodeError and trace is None):
            ended(kind, error, trace)

    sys.unraisablehook, sys.excepthook = on_unraisable, on_end
