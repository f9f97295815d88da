"""Decodes the header of a usual JP2 file from its bytes, without GDAL.

This module decodes what differs from file to file: sizes, blocks, overviews, georeferencing and
tags. The rest must come from rasterio: for example the CRS, the data type and the colours. It
depends on further bytes, which make up `Jp2Header.kind`.

For an unusual file, the decoder raises `Unsupported` with the reason. It raises no other exception,
whatever the bytes are.

References: ISO/IEC 15444-1 (JPEG 2000, part 1), annex I; GDAL, gcore/gdaljp2metadata.cpp and
frmts/opjlike/jp2opjlikedataset.cpp (which boxes it reads).
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from functools import lru_cache
from typing import NamedTuple

from rastermeta_async.model.record import UNPLACED, Tags
from rastermeta_async.readers.base import Foreign, ReadAt, Unsupported
from rastermeta_async.readers.geotiff.gdal_metadata import is_tag_of_effect, unescaped
from rastermeta_async.readers.jpeg2000.boxes import (
    ASSOCIATION,
    MAX_GML_BYTES,
    XML,
    Box,
    boxes_of,
    inner_boxes,
    labelled_xml,
)
from rastermeta_async.readers.jpeg2000.codestream import MAX_REMEMBERED, main_header
from rastermeta_async.readers.jpeg2000.layout import shown_as
from rastermeta_async.readers.jpeg2000.placement import NOWHERE, ROOT, Placement, of_geojp2, of_gml
from rastermeta_async.readers.window import Window

MAX_BOX_BYTES = 8 * 1024
MAX_XML_BYTES = 256 * 1024

_SIGNATURE = bytes.fromhex("0000000c 6a502020 0d0a870a")
_TYPE, _HEADER, _CODESTREAM, _UUID = b"ftyp", b"jp2h", b"jp2c", b"uuid"
_READER_REQUIREMENTS = b"rreq"
_ONCE = frozenset({_TYPE, _HEADER, _CODESTREAM, ASSOCIATION})

_GEOJP2 = bytes.fromhex("b14bf8bd 083d4b43 a5ae8cd7 d5a6ce03")
_MSIG = bytes.fromhex("96a9f1f1 dc98402d a7aed68e 34451809")
"""UUIDs of the boxes that place a raster."""

_OF_NAME = b"dop10rgbi"
"""GDAL takes files with this in their path for RGB, as one producer marks them as grey."""

_DATA = b"<GDALMultiDomainMetadata>"


class Jp2Header(NamedTuple):
    """What differs between JP2 files of the same kind."""

    kind: Hashable
    """Key of all other properties: files with an equal kind share them."""
    width: int
    height: int
    block_height: int
    block_width: int
    overviews: tuple[int, ...]
    """Decimation factors, ascending."""
    transform: tuple[float, ...] | None
    """Geotransform in GDAL's order, not rotated, as if pixels were areas; None: of the kind."""
    tags: Tags
    """Tags of the dataset that GDAL wrote; the kind has the others."""


class _Content(NamedTuple):
    """The boxes that matter, by what they are about."""

    boxes: dict[bytes, Box]
    geojp2: bytes | None
    metadata: bytes | None


def read_header(path: bytes, head: bytes, size: int, read_at: ReadAt) -> Jp2Header:
    """Decode the header of a JP2 file.

    Args:
        path: of the file; GDAL makes an exception of some.
        head: the first `HEAD_BYTES` of the file, or all of it.
        size: bytes of the file.
        read_at: returns bytes from an offset on; returns fewer only at the end of the file.

    Raises:
        Unsupported: the file is no JP2, or this module does not decode it.
    """
    if not head.startswith(_SIGNATURE):
        raise Foreign("no JP2")
    if _OF_NAME in path:
        raise Unsupported("a name for which GDAL has other colours")
    window = Window(head, size, read_at)
    boxes, geojp2, metadata = _content(window)
    if not boxes.keys() >= {_TYPE, _HEADER, _CODESTREAM}:
        raise Unsupported("boxes missing")
    codestream = boxes[_CODESTREAM]
    main = main_header(window, codestream.start, codestream.end)
    about = boxes[_HEADER].content(window, MAX_BOX_BYTES)
    like, has_palette = _image_kind(about, *main.sizes[:2])
    shown = shown_as(main.sizes, has_palette=has_palette)
    placed = _placement(window, boxes.get(ASSOCIATION), geojp2)
    tags = _tags(metadata) if metadata else {}
    brand = boxes[_TYPE].content(window, MAX_BOX_BYTES)
    return Jp2Header(
        (brand, like, main.kind, shown.rule, placed.kind, tuple(tags)),
        *main.sizes[:2], shown.block_height, shown.block_width, shown.overviews,
        placed.transform, tags,
    )  # fmt: skip


def _content(window: Window) -> _Content:
    boxes: dict[bytes, Box] = {}
    geojp2 = metadata = None
    for number, box in enumerate(boxes_of(window)):
        kind = box.kind
        if kind in _ONCE:
            if kind in boxes or (kind == _CODESTREAM and _HEADER not in boxes):
                raise Unsupported("boxes in an odd order")
            boxes[kind] = box
        elif kind == _UUID:
            if box.end - box.start < len(_GEOJP2):
                raise Unsupported("an odd box")
            name = window.get(box.start, len(_GEOJP2))
            if name == _MSIG or (name == _GEOJP2 and geojp2 is not None):
                raise Unsupported("odd georeferencing")
            if name == _GEOJP2:
                geojp2 = box.content(window, MAX_BOX_BYTES)[len(_GEOJP2) :]
        elif kind == XML:
            length = min(len(_DATA), box.end - box.start)
            if window.get(box.start, length) == _DATA:
                if metadata is not None:
                    raise Unsupported("a tag given twice")
                metadata = box.content(window, MAX_XML_BYTES)
        elif number and kind != _READER_REQUIREMENTS:  # the first box is the signature
            raise Unsupported(f"a box {box.name}")
    return _Content(boxes, geojp2, metadata)


@lru_cache(MAX_REMEMBERED)
def _image_kind(content: bytes, width: int, height: int) -> tuple[bytes, bool]:
    """Return what the box about the image says besides sizes, and whether it has a palette."""
    inner = inner_boxes(content)
    kind, of_image = inner[0] if inner else (b"", b"")
    sizes = height.to_bytes(4, "big") + width.to_bytes(4, "big")
    if kind != b"ihdr" or of_image[:8] != sizes:
        raise Unsupported("other sizes in the box than in the codestream")
    for kind, part in inner:
        if kind.lower() == b"res ":  # GDAL reads the first box in it
            inner_boxes(part)
    has_palette = any(kind == b"pclr" for kind, _ in inner)
    return content[:8] + content[16:], has_palette


def _placement(window: Window, gml: Box | None, geojp2: bytes | None) -> Placement:
    """Return where the raster lies; GDAL reads GML only if there is no GeoTIFF that tells it."""
    content = gml.content(window, MAX_GML_BYTES) if gml else b""
    if b"GDALMultiDomainMetadata" in content:
        raise Unsupported("metadata in GML")
    documents = labelled_xml(content) if gml else {}
    if geojp2 is not None:
        placed = of_geojp2(geojp2)
        if documents and placed.transform is None:
            raise Unsupported("odd georeferencing")
    else:
        placed = of_gml(documents) if ROOT in documents else NOWHERE
    if placed.transform == UNPLACED:
        raise Unsupported("georeferencing that says nothing")
    return placed


_ITEM = (
    rb'    <MDI key="([^"&<>=:\s](?:[^"&<>=:\n]*[^"&<>=:\s])?)">'
    rb"([^<>\x00-\x20][^<>\x00-\x1f]*)</MDI>\n"
)
_METADATA = re.compile(
    rb"<GDALMultiDomainMetadata>\n  <Metadata>\n((?:%b)*)  </Metadata>\n"
    rb"</GDALMultiDomainMetadata>\n?\0?" % _ITEM
)
_ITEMS = re.compile(_ITEM)


def _tags(content: bytes) -> Tags:
    """Return the tags in a box that GDAL wrote, if they are of the default domain only."""
    match = _METADATA.fullmatch(content)
    if match is None:
        raise Unsupported("metadata of effect")
    try:
        items = [(name.decode(), text.decode()) for name, text in _ITEMS.findall(match[1])]
    except UnicodeDecodeError:
        raise Unsupported("metadata that is not UTF-8") from None
    if len({name.lower() for name, _ in items}) != len(items):
        raise Unsupported("a tag given twice")
    if any(is_tag_of_effect(name) for name, _ in items):
        raise Unsupported("metadata of effect")
    return {name: unescaped(text) if "&" in text else text for name, text in items}
