"""Reads the main header of a JPEG 2000 codestream, up to the first tile.

GDAL's driver opens a file if OpenJPEG reads the main header. OpenJPEG stops at the first marker
SOT and reads nothing of a tile. Sizes are checked here as OpenJPEG checks them. The bytes of all
other segments are part of the kind, so that rasterio is asked about each new combination of them.
Only comments (COM) and the lengths of tile-parts (TLM), which are without effect, may differ.

Reference: ISO/IEC 15444-1 (JPEG 2000, part 1), annex A.
"""

from __future__ import annotations

import struct
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import NamedTuple

from rastermeta_async.readers.base import Unsupported
from rastermeta_async.readers.window import Window

MAX_SEGMENTS = 64
MAX_CODINGS = 64
MAX_REMEMBERED = 256
MAX_TILES = 65_535
"""Most tiles of an image (table A.9: the index of a tile is below 65,535)."""

MAX_TILE_COMPONENTS = 2**18
"""OpenJPEG takes a kilobyte of memory for each component of each tile when it opens a file."""

_START, _SIZ, _SOT = b"\xff\x4f", b"\xff\x51", b"\xff\x90"
_COD, _TLM, _COM = b"\xff\x52", b"\xff\x55", b"\xff\x64"
_LIKE = frozenset({_COD, b"\xff\x5c", b"\xff\x5d", b"\xff\x5e", b"\xff\x5f", b"\xff\x63"})
"""Segments that are part of the kind: COD, QCD, QCC, RGN, POC, CRG."""

_SEGMENT = struct.Struct(">2sH")
_SIZES = struct.Struct(">2s8IH")
_LEVELS_AT = 5
"""Position in COD of the number of decomposition levels (table A.12)."""


class ImageSizes(NamedTuple):
    """Sizes of an image in pixels."""

    width: int
    height: int
    tile_width: int
    tile_height: int
    resolutions: int
    """Number of sizes in which the image can be decoded, its full size included."""


class MainHeader(NamedTuple):
    """The main header of a codestream."""

    kind: Hashable
    """Key of what the sizes and comments leave out."""
    sizes: ImageSizes


class _Sizes(NamedTuple):
    """The segment SIZ (A.5.1), if the image and its tiles start at 0 and all bands are alike."""

    capabilities: bytes
    width: int
    height: int
    tile_width: int
    tile_height: int
    components: bytes
    """Depth, sign and subsampling of each component, 3 bytes each."""

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return -(-self.width // self.tile_width) * -(-self.height // self.tile_height)


def main_header(window: Window, start: int, end: int) -> MainHeader:
    """Decode the main header of the codestream between two offsets."""
    if window.get(start, len(_START)) != _START:
        raise Unsupported("no codestream")
    code, content, at = _segment(window, start + len(_START), end)
    if code != _SIZ:
        raise Unsupported("no sizes")
    sizes = _sizes(content)
    coding = _coding(window, at, end)
    if coding.lengths:
        _check_lengths(coding.lengths, sizes.tiles)
    kind = sizes.capabilities, sizes.components, coding.kind
    return MainHeader(kind, ImageSizes(*sizes[1:5], coding.resolutions))


class _Coding(NamedTuple):
    """The segments after the sizes."""

    kind: tuple[bytes, ...]
    resolutions: int
    lengths: tuple[bytes, ...]
    """Contents of the segments TLM."""


class _Codings:
    """Segments that were decoded, by all of their bytes up to the first tile."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Coding] = {}
        self._length = 0
        """Length of the latest key, as a guess for the next file."""

    def find(self, window: Window, start: int, end: int) -> _Coding | None:
        """Return the segments from `start` on, if an earlier file had the same."""
        length = self._length
        if not length or start + length > end or not window.is_at_hand(start, length):
            return None
        return self._known.get(window.get(start, length))

    def keep(self, content: bytes, coding: _Coding) -> None:
        """Keep the segments that were decoded from some bytes."""
        if len(self._known) >= MAX_CODINGS:
            self._known.clear()
        self._known[content] = coding
        self._length = len(content)


_CODINGS = _Codings()


def _coding(window: Window, start: int, end: int) -> _Coding:
    """Return the segments from `start` on; files of a product have the same bytes there."""
    known = _CODINGS.find(window, start, end)
    if known is not None:
        return known
    coding, at = _decoded_coding(window, start, end)
    length = at + len(_SOT) - start
    if window.is_at_hand(start, length):
        _CODINGS.keep(window.get(start, length), coding)
    return coding


def _decoded_coding(window: Window, at: int, end: int) -> tuple[_Coding, int]:
    """Return the segments from an offset on, and the offset of the first tile."""
    kind: list[bytes] = []
    lengths: list[bytes] = []
    resolutions = 0
    for _ in range(MAX_SEGMENTS):
        if window.get(at, len(_SOT)) == _SOT:
            break
        code, content, at = _segment(window, at, end)
        if code in _LIKE:
            kind += (code, content)
            if code == _COD:
                if resolutions or len(content) <= _LEVELS_AT:
                    raise Unsupported("an odd coding style")
                resolutions = content[_LEVELS_AT] + 1
        elif code == _TLM:
            lengths.append(content)
        elif code != _COM:
            raise Unsupported(f"a segment {code.hex()}")
    else:
        raise Unsupported("many segments")
    if not resolutions:
        raise Unsupported("an odd coding style")
    return _Coding(tuple(kind), resolutions, tuple(lengths)), at


def _segment(window: Window, at: int, end: int) -> tuple[bytes, bytes, int]:
    """Return marker and content of a segment, and the offset of the next one."""
    code, length = _SEGMENT.unpack(window.get(at, _SEGMENT.size))
    following: int = at + 2 + length
    if length < 3 or following + len(_SOT) > end:
        raise Unsupported("an odd segment")
    return code, window.get(at + _SEGMENT.size, length - 2), following


@lru_cache(MAX_REMEMBERED)
def _sizes(content: bytes) -> _Sizes:
    components = content[_SIZES.size :]
    if len(content) <= _SIZES.size or len(components) % 3:
        raise Unsupported("odd sizes")
    capabilities, width, height, *others, count = _SIZES.unpack_from(content)
    left, top, tile_width, tile_height, tiles_left, tiles_top = others
    if left or top or tiles_left or tiles_top:
        raise Unsupported("an image that does not start at 0")
    if not all(0 < size < 2**31 for size in (width, height, tile_width, tile_height)):
        raise Unsupported("odd sizes")
    if count * 3 != len(components):
        raise Unsupported("odd sizes")
    if set(components[1::3] + components[2::3]) != {1}:
        raise Unsupported("components of different sizes")
    sizes = _Sizes(capabilities, width, height, tile_width, tile_height, components)
    if sizes.tiles > MAX_TILES or sizes.tiles * count > MAX_TILE_COMPONENTS:
        raise Unsupported("many tiles")
    return sizes


def _check_lengths(segments: Sequence[bytes], tiles: int) -> None:
    """Raise Unsupported unless the segments TLM (A.7.1) are of the form that OpenJPEG expects."""
    styles = {segment[1] if len(segment) > 2 else -1 for segment in segments}
    style = styles.pop()
    index_bytes, length_bytes = style >> 4 & 3, 4 if style & 0x40 else 2
    if styles or style < 0 or style & 0x8F or index_bytes > 2:
        raise Unsupported("odd lengths of tiles")
    item = index_bytes + length_bytes
    count = 0
    for number, segment in enumerate(segments):
        items, rest = divmod(len(segment) - 2, item)
        if segment[0] != number or rest:
            raise Unsupported("odd lengths of tiles")
        count += items
        if index_bytes:
            codes = struct.iter_unpack(f">{'BH'[index_bytes - 1]}{length_bytes}x", segment[2:])
            if max(codes)[0] >= tiles:
                raise Unsupported("odd lengths of tiles")
    if not index_bytes and count > tiles:
        raise Unsupported("odd lengths of tiles")
