"""Reads where a JP2 raster lies: from a GeoTIFF in a box (GeoJP2), or from GML in boxes (GMLJP2).

The numbers are decoded. The rest of the bytes, such as the GeoKeys or the name of the CRS, is part
of the kind, so that rasterio says what it means.

References: GeoJP2 (Mapping Science, 2004); OGC GML in JPEG 2000 (05-047r3), clause 7;
GDAL, gcore/gdaljp2metadata.cpp (``ParseGMLCoverageDesc``).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Hashable
from functools import lru_cache
from typing import NamedTuple

from rastermeta_async.readers.base import Unsupported
from rastermeta_async.readers.geotiff.buffer import SIZES, Entries, File
from rastermeta_async.readers.geotiff.header import placement
from rastermeta_async.readers.geotiff.ifd import MATRIX, SCALE, TIE_POINTS, ifd_at

ROOT = b"gml.root-instance"
"""Label of the GML that places the raster (05-047r3, clause 8)."""

MAX_REMEMBERED = 1024
"""Numbers that are kept: most are sizes of pixels."""

MAX_ROOT_BYTES = 16 * 1024
"""Longest GML that is decoded: a pattern is compiled of it."""

MAX_FORMS = 64
MAX_GML_FORMS = 8
"""Forms that are kept, of GeoTIFFs and of GML."""

MAX_DIGITS, MAX_FRACTION = 15, 22
"""Decimal digits that a double holds, and the largest power of ten that is one: GDAL
(``OGRFastAtof``) rounds other coordinates in its own way."""


class Placement(NamedTuple):
    """Where a raster lies."""

    kind: Hashable
    """All but the numbers."""
    transform: tuple[float, ...] | None
    """Geotransform in GDAL's order, not rotated, as if pixels were areas; None: not decoded."""


NOWHERE = Placement(None, None)


class _Form:
    """A GeoTIFF in a box, without its numbers. The files of a product share it."""

    def __init__(self, content: bytes) -> None:
        file = _file(content)
        ifd = ifd_at(file, file.first)
        self.entries = Entries(file.order, ifd)
        count = file.order.number(ifd[: file.order.count_bytes])
        self.at = {self.entries.tag(index): index for index in range(count)}
        if len(self.at) != count:
            raise Unsupported("a tag given twice")
        areas = _areas(file, self.entries, count)
        _, transform = placement(file, self.at, self.entries)
        places = (SCALE, TIE_POINTS) if SCALE in self.at else (MATRIX,)
        numbers = [areas[self.at[tag]] for tag in places] if transform else []
        edges = [0, *itertools.chain.from_iterable(sorted(numbers)), len(content)]
        self._pieces = list(zip(edges[::2], edges[1::2], strict=True))
        self.rest = self.without_numbers(content)
        """The bytes before, between and after the numbers."""

    def without_numbers(self, content: bytes) -> tuple[bytes, ...]:
        """Return what is `rest` for this content."""
        return tuple([content[start:end] for start, end in self._pieces])


_FORMS: dict[int, _Form] = {}
"""The latest form for each length of a box."""


def of_geojp2(content: bytes) -> Placement:
    """Return the placement that the GeoTIFF in a box gives."""
    form = _FORMS.get(len(content))
    if form is None or form.without_numbers(content) != form.rest:
        form = _Form(content)
        if len(_FORMS) >= MAX_FORMS:
            _FORMS.clear()
        _FORMS[len(content)] = form
    how, transform = placement(_file(content), form.at, form.entries)
    return Placement((how, form.rest), transform)


def _file(content: bytes) -> File:
    """Return the bytes of a classic TIFF as a file."""
    file = File(content, len(content), lambda offset, size: content[offset : offset + size])
    if file.order.big:
        raise Unsupported("a BigTIFF in a box")
    return file


def _areas(file: File, entries: Entries, count: int) -> dict[int, tuple[int, int]]:
    """Return (start, end) of the values outside the IFD, by entry; they may not overlap."""
    areas = {}
    for index in range(count):
        size = SIZES.get(entries.kind(index))
        values, offset = entries.place(index)
        if size is None:
            raise Unsupported("a tag of an odd type")
        if size * values > file.order.inline:
            areas[index] = offset, offset + size * values
    first = file.first, file.first + len(entries.ifd)
    taken = sorted([(0, file.header_bytes), first, *areas.values()])
    apart = all(one[1] <= other[0] for one, other in itertools.pairwise(taken))
    if not apart or taken[-1][1] > file.size:
        raise Unsupported("values outside the file or all over it")
    return areas


_NUMBER = rb"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
_PAIR = rb"(%b) (%b)" % (_NUMBER, _NUMBER)
_ANY_PAIR = rb"%b %b" % (_NUMBER, _NUMBER)
_ELEMENT = rb"<gml:%b\b[^<>]*>"
_VECTOR = _ELEMENT % b"offsetVector" + _PAIR + rb"</gml:offsetVector>\s*"
_GRID = re.compile(
    rb"%b\s*%b\s*%b%b</gml:pos>\s*</gml:Point>\s*</gml:origin>\s*%b%b"
    % (*[_ELEMENT % name for name in (b"origin", b"Point", b"pos")], _PAIR, _VECTOR, _VECTOR)
)
"""Origin and offsets of a grid, each with two numbers."""

_LIMITS = re.compile(rb"(?<=>)%b(?=</gml:(?:low|high|lowerCorner|upperCorner)>)" % _ANY_PAIR)
"""Numbers that GDAL does not read."""

_ONCE = re.compile(rb"<(?:\w+:)?(?:RectifiedGrid[ >]|origin|pos\b)")
_ODD = re.compile(rb"<!|&|<(?:\w+:)?coord|GDALMultiDomainMetadata|ALT_OFFSETVECTOR_ORDER")


class _GmlForm:
    """GML without its numbers. The files of a product share it."""

    def __init__(self, root: bytes) -> None:
        grid = _GRID.search(root) if len(root) <= MAX_ROOT_BYTES else None
        if grid is None or _ODD.search(root) or len(_ONCE.findall(root)) != 3:
            raise Unsupported("odd GML")
        if root.count(b"offsetVector") != 4:
            raise Unsupported("odd GML")
        edges = [0, *itertools.chain.from_iterable(map(grid.span, range(1, 7))), len(root)]
        pieces = [
            _ANY_PAIR.join(map(re.escape, _LIMITS.split(root[start:end])))
            for start, end in zip(edges[::2], edges[1::2], strict=True)
        ]
        self.pattern = re.compile((rb"(%b)" % _NUMBER).join(pieces))
        """Matches GML of this form; its groups are the numbers of origin and offsets."""


_GML_FORMS: list[_GmlForm] = []
"""The latest forms."""


def of_gml(documents: dict[bytes, bytes]) -> Placement:
    """Return the placement that GML gives; the documents are given by label."""
    root = documents[ROOT]
    for form in _GML_FORMS:
        if match := form.pattern.fullmatch(root):
            break
    else:
        form = _GmlForm(root)
        _GML_FORMS.insert(0, form)
        del _GML_FORMS[MAX_GML_FORMS:]
        match = form.pattern.fullmatch(root)
        if match is None:
            raise Unsupported("odd GML")
    swapped, transform = _transform(*[_real(number) for number in match.groups()])
    others = [(label, xml) for label, xml in documents.items() if label != ROOT]
    return Placement((swapped, form.pattern.pattern, *others), transform)


@lru_cache(MAX_REMEMBERED)
def _real(text: bytes) -> float:
    whole, _, fraction = text.partition(b"e")[0].partition(b".")
    digits = len((whole + fraction).lstrip(b"-0"))
    value = float(text)
    if digits > MAX_DIGITS or len(fraction) > MAX_FRACTION or not -1e150 < value < 1e150:
        raise Unsupported("an odd number")
    if not value and text[:1] == b"-":
        raise Unsupported("an odd number")
    return value


def _transform(
    x: float, y: float, right_x: float, right_y: float, down_x: float, down_y: float
) -> tuple[bool, tuple[float, ...]]:
    """Return whether the axes are swapped, and the geotransform with x first.

    The origin is the centre of the first pixel. Which axis comes first depends on the CRS; that
    rasterio swaps them too shows when the kind is learned: otherwise the raster is rotated.
    """
    x = x - right_x * 0.5 - down_x * 0.5
    y = y - right_y * 0.5 - down_y * 0.5
    if not (right_y or down_x) and right_x and down_y:
        return False, (x, right_x, down_x, y, right_y, down_y)
    if not (right_x or down_y) and right_y and down_x:
        return True, (y, right_y, down_y, x, right_x, down_x)
    raise Unsupported("rotated")
