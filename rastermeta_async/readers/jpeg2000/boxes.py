"""Walks through the boxes of a JP2 file.

References: ISO/IEC 15444-1 (JPEG 2000, part 1), annex I.4 (boxes); ISO/IEC 15444-2 (part 2), annex
M (associations and labels).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from rastermeta_async.readers.base import Unsupported
from rastermeta_async.readers.window import Window

MAX_BOXES = 64
MAX_GML_BYTES = 64 * 1024

_HEAD = struct.Struct(">I4s")
_LONG = struct.Struct(">Q")

_GML_DATA = b"gml.data"
"""Label of the association that holds all of GMLJP2 (OGC 05-047r3, clause 8)."""

LABEL, XML, ASSOCIATION = b"lbl ", b"xml ", b"asoc"


class Box(NamedTuple):
    """A box of a file, without its own header."""

    kind: bytes
    start: int
    end: int

    def content(self, window: Window, most: int) -> bytes:
        """Return what is in the box; raise Unsupported if these are more than `most` bytes."""
        if self.end - self.start > most:
            raise Unsupported(f"a long box {self.name}")
        return window.get(self.start, self.end - self.start)

    @property
    def name(self) -> str:
        """Type of the box, for messages."""
        return self.kind.decode("ascii", "backslashreplace").strip()


def boxes_of(window: Window) -> Iterator[Box]:
    """Yield the boxes of a file; raise Unsupported unless they are all of the file."""
    at = 0
    head, size = window.head, window.size
    for _ in range(MAX_BOXES):
        start = at + _HEAD.size
        if start <= len(head):
            length, kind = _HEAD.unpack_from(head, at)
        elif at == size:
            return
        else:
            length, kind = _HEAD.unpack(window.get(at, _HEAD.size))
        if length == 1:
            (length,) = _LONG.unpack(window.get(start, _LONG.size))
            start += _LONG.size
        elif length == 0:  # up to the end of the file
            length = size - at
        at += length
        if not start <= at <= size:
            raise Unsupported("a box that is not all in the file")
        yield Box(kind, start, at)
    raise Unsupported("many boxes")


def inner_boxes(content: bytes) -> list[tuple[bytes, bytes]]:
    """Return type and content of each box in a box; raise Unsupported unless they fill it."""
    found = []
    at = 0
    while at < len(content):
        if at + _HEAD.size > len(content):
            raise Unsupported("an odd box")
        length, kind = _HEAD.unpack_from(content, at)
        if not _HEAD.size <= length <= len(content) - at:
            raise Unsupported("an odd box")
        found.append((kind, content[at + _HEAD.size : at + length]))
        at += length
    return found


def labelled_xml(content: bytes) -> dict[bytes, bytes]:
    """Return the XML documents of GMLJP2 by label (OGC 05-047r3, clause 8).

    Args:
        content: of the outermost association box.
    """
    (kind, label), *others = inner_boxes(content) or [(b"", b"")]
    if kind != LABEL or _text(label) != _GML_DATA:
        raise Unsupported("an association of something else than GML")
    found: dict[bytes, bytes] = {}
    for kind, pair in others:
        parts = inner_boxes(pair) if kind == ASSOCIATION else []
        if [part for part, _ in parts] != [LABEL, XML]:
            raise Unsupported("odd GML boxes")
        label, xml = (_text(part) for _, part in parts)
        if label.lower() != label or label in found:  # GDAL compares them without regard to case
            raise Unsupported("odd GML boxes")
        found[label] = xml
    return found


def _text(content: bytes) -> bytes:
    """Return a text without the zeros at its end."""
    text = content.rstrip(b"\0")
    if not text or b"\0" in text:
        raise Unsupported("odd GML boxes")
    return text
