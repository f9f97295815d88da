"""TIFF headers, byte by byte: TIFF 6.0, BigTIFF, OGC GeoTIFF 1.1, and the COG layout of GDAL.

Tile arrays have the length that they have in the field; the tiles are a hole in the file.
"""

from __future__ import annotations

import math
import random
import struct
from dataclasses import dataclass
from functools import lru_cache

from bench.scenes import Kind, Scene

_SAMPLE_FORMAT = {"u": 1, "i": 2, "f": 3}
_BITS = {"uint8": 8, "int16": 16, "uint16": 16, "float32": 32}

_CITATION = {
    3035: ("ETRS89-extended / LAEA Europe", "ETRS89"),
    3857: ("WGS 84 / Pseudo-Mercator", "WGS 84"),
    5070: ("NAD83 / Conus Albers", "NAD83"),
    25832: ("ETRS89 / UTM zone 32N", "ETRS89"),
    25833: ("ETRS89 / UTM zone 33N", "ETRS89"),
}


@dataclass(frozen=True)
class Level:
    """The full image or one overview."""

    width: int
    height: int
    offsets: tuple[int, bytes]
    """TIFF count, and the value field of the tag or what it points to."""
    counts: tuple[int, bytes]


@dataclass(frozen=True)
class Layout:
    """Where things are in the files of one kind and size; positions are bytes from the start."""

    levels: tuple[Level, ...]
    index: bytes
    """The tile arrays, where they stand apart from the directories (cog)."""
    index_at: int
    """Where they start: the directories in front (cog, plain) have to end before."""
    data_end: int


def _block_count(kind: Kind, width: int, height: int) -> int:
    if not kind.block:
        return height
    return math.ceil(width / kind.block) * math.ceil(height / kind.block)


@lru_cache(maxsize=64)
def layout_of(kind: Kind, width: int, height: int, big_tags: int) -> Layout:
    """Sizes of compressed tiles are drawn once a kind and size: 30 to 70 % of the raw bytes."""
    rng = random.Random(f"layout:{kind.name}:{width}:{height}")
    word = "Q" if kind.big else "I"
    cog = kind.layout == "cog"
    raw = (kind.block**2 if kind.block else width) * kind.bands * _BITS[kind.dtype] // 8
    shapes = [(width, height)]
    while cog and max(shapes[-1]) > kind.block:
        shapes.append((math.ceil(shapes[-1][0] / 2), math.ceil(shapes[-1][1] / 2)))
    sizes = [
        [int(raw * rng.uniform(0.3, 0.7)) for _ in range(_block_count(kind, *shape))]
        for shape in shapes
    ]
    arrays = 2 * struct.calcsize(word) * sum(map(len, sizes))

    # Room for what differs from file to file, so that nothing behind it moves.
    room = 4096 + (256 + 1536 * kind.palette) * len(shapes) + big_tags + big_tags // 10
    index_at = (16 if kind.layout == "tail" else room if cog else room + arrays) // 8 * 8
    position = index_at + (arrays if cog else 0)
    offsets: list[list[int]] = []
    for level in reversed(sizes):  # the smallest overview comes first
        offsets.insert(0, [])
        for size in level:
            offsets[0].append(position)
            position += size
    if not kind.big and position >= 1 << 32:
        raise ValueError(f"{kind.name} {width} x {height} does not fit a classic TIFF")

    index = b""
    levels = []
    for (wide, high), at, size_list in zip(shapes, offsets, sizes, strict=True):
        fields = []
        for values in (at, size_list):
            array = struct.pack(f"<{len(values)}{word}", *values)
            if cog and len(values) > 1:
                fields.append((len(values), struct.pack(f"<{word}", index_at + len(index))))
                index += array
            else:
                fields.append((len(values), array))
        levels.append(Level(wide, high, offsets=fields[0], counts=fields[1]))
    return Layout(tuple(levels), index, index_at, position)


_Entry = tuple[int, int, int, bytes]
"""Tag, type, count, and the value (or, no longer than the value field, a pointer to it)."""


def _short(tag: int, *values: int) -> _Entry:
    return tag, 3, len(values), struct.pack(f"<{len(values)}H", *values)


def _double(tag: int, *values: float) -> _Entry:
    return tag, 12, len(values), struct.pack(f"<{len(values)}d", *values)


def _ascii(tag: int, text: str) -> _Entry:
    value = text.encode("ascii") + b"\0"
    return tag, 2, len(value), value


def _directory(entries: list[_Entry], at: int, big: bool, last: bool) -> bytes:
    """One IFD at byte `at`, its values behind it, and the next IFD directly behind those."""
    count, entry, pointer = ("<Q", "<HHQ", "<Q") if big else ("<H", "<HHI", "<I")
    field = struct.calcsize(pointer)
    head = struct.calcsize(count) + len(entries) * (struct.calcsize(entry) + field) + field
    table, values = struct.pack(count, len(entries)), b""
    for tag, kind, number, value in sorted(entries):
        table += struct.pack(entry, tag, kind, number)
        if len(value) <= field:
            table += value.ljust(field, b"\0")
        else:
            table += struct.pack(pointer, at + head + len(values))
            values += value + b"\0" * (-len(value) % 8)
    values += b"\0" * (-(at + head + len(values)) % 8)
    return table + struct.pack(pointer, 0 if last else at + head + len(values)) + values


def _image_entries(kind: Kind, level: Level) -> list[_Entry]:
    """Make the tags that a full image and an overview share."""
    colours = 3 if kind.palette else 2 if kind.bands >= 3 else 1
    long = 16 if kind.big else 4
    first, second = (324, 325) if kind.block else (273, 279)
    entries = [
        (256, 4, 1, struct.pack("<I", level.width)),
        (257, 4, 1, struct.pack("<I", level.height)),
        _short(258, *[_BITS[kind.dtype]] * kind.bands),
        _short(259, kind.compression),
        _short(262, colours),
        _short(277, kind.bands),
        _short(284, 1),
        _short(339, *[_SAMPLE_FORMAT[kind.dtype[0]]] * kind.bands),
        (first, long, *level.offsets),
        (second, long, *level.counts),
    ]
    entries += (
        [_short(322, kind.block), _short(323, kind.block)] if kind.block else [_short(278, 1)]
    )
    if kind.predictor > 1:
        entries.append(_short(317, kind.predictor))
    if kind.palette:
        ramp = [value * 257 for value in range(256)]
        entries.append(_short(320, *ramp, *reversed(ramp), *ramp))
    if kind.bands == 4:
        entries.append(_short(338, 0))
    if kind.nodata is not None:
        entries.append(_ascii(42113, kind.nodata))
    return entries


@lru_cache(maxsize=256)
def _geo_entries(epsg: int, point: bool) -> tuple[_Entry, ...]:
    """GeoKeyDirectory, GeoDoubleParams and GeoAsciiParams as GDAL writes them (OGC 19-008, 7.1)."""
    raster = (1025, 0, 1, 2 if point else 1)
    if epsg == 4326:
        keys = [
            (1024, 0, 1, 2),
            raster,
            (2048, 0, 1, 4326),
            (2049, 34737, 7, 0),
            (2054, 0, 1, 9102),
        ]
        keys += [(2057, 34736, 1, 1), (2059, 34736, 1, 0)]
        directory = _short(34735, 1, 1, 0, len(keys), *[value for key in keys for value in key])
        return directory, _double(34736, 298.257223563, 6378137.0), _ascii(34737, "WGS 84|")
    name, datum = _citation(epsg)
    keys = [(1024, 0, 1, 1), raster, (1026, 34737, len(name) + 1, 0)]
    keys += [(2049, 34737, len(datum) + 1, len(name) + 1), (2054, 0, 1, 9102)]
    keys += [(3072, 0, 1, epsg), (3076, 0, 1, 9001)]
    directory = _short(34735, 1, 1, 0, len(keys), *[value for key in keys for value in key])
    return directory, _ascii(34737, f"{name}|{datum}|")


def _citation(epsg: int) -> tuple[str, str]:
    if epsg in _CITATION:
        return _CITATION[epsg]
    datum = "WGS 84" if epsg // 100 == 326 else "NAD83"
    return f"{datum} / UTM zone {epsg % 100}N", datum


def _metadata_xml(item: Scene) -> str:
    kind = item.kind
    lines = [f'  <Item name="{name}">{value}</Item>' for name, value in item.tags]
    for band in range(kind.bands):
        at = f'sample="{band}"'
        if kind.descriptions:
            text = kind.descriptions[band]
            lines.append(f'  <Item name="DESCRIPTION" {at} role="description">{text}</Item>')
        if kind.scale:
            lines.append(f'  <Item name="OFFSET" {at} role="offset">-0.1</Item>')
            lines.append(f'  <Item name="SCALE" {at} role="scale">{kind.scale}</Item>')
        lines += [f'  <Item name="{name}" {at}>{value}</Item>' for name, value in item.band_tags]
    return "\n".join(["<GDALMetadata>", *lines, "</GDALMetadata>", ""])


def _ghost() -> bytes:
    """Make the area behind the header in which GDAL says that a file has the COG layout."""
    body = (
        "LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
        "BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
    )
    return f"GDAL_STRUCTURAL_METADATA_SIZE={len(body):06d} bytes\n{body}".encode()


def encode(item: Scene, big_tags: int) -> tuple[list[tuple[int, bytes]], int]:
    """Make a TIFF: its pieces as (position, bytes), and the size of the file, else a hole."""
    kind = item.kind
    layout = layout_of(kind, item.width, item.height, big_tags)
    ghost = _ghost() if kind.layout == "cog" else b""
    front = (16 if kind.big else 8) + len(ghost)
    start = -(-(layout.data_end if kind.layout == "tail" else front) // 8) * 8
    if kind.big:
        head = b"II+\0" + struct.pack("<HHQ", 8, 0, start)
    else:
        head = b"II*\0" + struct.pack("<I", start)

    body = b""
    for number, level in enumerate(layout.levels):
        entries = _image_entries(kind, level)
        if number:
            entries.append((254, 4, 1, struct.pack("<I", 1)))
        else:
            entries.append(_double(33550, kind.res, kind.res, 0.0))
            entries.append(_double(33922, 0.0, 0.0, 0.0, item.left, item.top, 0.0))
            entries += _geo_entries(item.epsg, kind.point)
            entries.append(_ascii(42112, _metadata_xml(item)))
            if kind.software:
                entries.append(_ascii(305, kind.software))
                entries.append(_ascii(306, f"{item.tags[0][1][:10].replace('-', ':')} 12:00:00"))
        last = number == len(layout.levels) - 1
        body += _directory(entries, start + len(body), kind.big, last)
    if kind.layout == "tail":
        return [(0, head), (start, body)], start + len(body)
    front_bytes = (head + ghost).ljust(start, b"\0") + body
    if len(front_bytes) > layout.index_at:
        raise ValueError(f"{kind.name}: {len(front_bytes)} bytes in front of {layout.index_at}")
    return [(0, front_bytes.ljust(layout.index_at, b"\0") + layout.index)], layout.data_end
