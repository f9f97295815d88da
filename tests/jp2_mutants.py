"""Broken JP2 files, and what both readers make of them: ``jp2_mutants.py FOLDER SEED FILES``.

A program of its own, like `mutants`, whose `Outcome` it prints.
"""

from __future__ import annotations

import random
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jp2_variants import OWN_CRS, Node, assembled, leaf, replaced, tree, with_header_box, write_jp2
from mutants import FRAGMENTS, INTERESTING, REALS, Draw, main
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from tiff_variants import DOUBLE, Value, edited, ifds_of

TAGS = {"TITLE": "a title", "DATE": "2024-02-29"}
BASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "geojp2": {"options": {"GMLJP2": "NO"}},
    "gml": {"options": {"GeoJP2": "NO"}},
    "degrees": {"crs": "EPSG:4326", "options": {"GeoJP2": "NO"}},
    "gml2": {"options": {"GeoJP2": "NO", "GMLJP2V2_DEF": "YES"}},
    "own crs": {"crs": OWN_CRS, "options": {"GeoJP2": "NO"}},
    "tagged": {"tags": TAGS, "options": {"WRITE_METADATA": "YES"}},
    "point": {"tags": TAGS | {"AREA_OR_POINT": "Point"}, "options": {"WRITE_METADATA": "YES"}},
    "rgb": {"count": 3, "width": 300, "height": 200},
    "alpha": {
        "count": 4, "options": {"ALPHA": "YES", "1BIT_ALPHA": "YES"},
        "colours": [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha],
    },
    "tiles": {
        "dtype": "uint16", "width": 300, "height": 260,
        "options": {"BLOCKXSIZE": "64", "BLOCKYSIZE": "64", "TLM": "YES", "RESOLUTIONS": "4"},
    },
    "signed": {"dtype": "int16", "options": {"QUALITY": "100", "REVERSIBLE": "YES"}},
    "after": {"options": {"GEOBOXES_AFTER_JP2C": "YES", "COMMENT": "a comment"}},
    "420": {"count": 3, "options": {"YCBCR420": "YES"}},
    "nowhere": {"crs": None, "transform": None},
    "points": {
        "transform": None,
        "gcps": [GroundControlPoint(y, x, 10 + x, 50 - y) for y, x in ((0, 0), (0, 9), (9, 0))],
    },
}  # fmt: skip

PALETTE = Node(b"pclr", struct.pack(">HB3B", 4, 3, 7, 7, 7) + bytes(range(12)))
CHANNELS = Node(b"cdef", struct.pack(">H3H", 1, 0, 0, 1))
RESOLUTION = Node(b"res ", [Node(b"resd", struct.pack(">4H2b", 300, 1, 150, 2, 2, 2))])
XML = Node(b"xml ", b"<a>text</a>")
EXTRA = (
    PALETTE, CHANNELS, RESOLUTION, XML, Node(b"bpcc", b"\x07"), Node(b"free", b"1234"),
    Node(b"uuid", bytes(range(16)) + b"text"), Node(b"jp2i", b"<a/>"),
    Node(b"uuid", bytes.fromhex("96a9f1f1dc98402da7aed68e34451809") + b"MSIG/" + bytes(80)),
    Node(b"xml ", b"<GDALMultiDomainMetadata></GDALMultiDomainMetadata>"),
    Node(b"asoc", [Node(b"lbl ", b"gml.data\0")]), Node(b"cmap", b"\0\0\1\0"),
)  # fmt: skip
TEXTS = (
    *FRAGMENTS,
    "0",
    "9",
    "-",
    ".",
    "e",
    "e-5",
    "123456789",
    "gml:",
    "EPSG::4258",
    "EPSG::3857",
)


@dataclass
class Base:
    """A file to be broken."""

    name: str
    content: bytes
    nodes: list[Node] = field(init=False)
    spans: list[tuple[int, int]] = field(init=False)
    """(start, end) of what is worth breaking: all but the texts of GML and the pixels."""

    def __post_init__(self) -> None:
        self.nodes = tree(self.content)
        start = self.content.index(b"\xff\x4f\xff\x51")
        self.spans = [(start, min(start + 200, len(self.content))), (0, 120)] * 2
        at = self.content.find(b"II*\0")
        if at >= 0:
            self.spans.append((at, at + 350))
        self.spans.append((0, len(self.content)))

    def place(self, rng: random.Random) -> int:
        """Return where a byte of the header is."""
        return min(rng.randrange(*rng.choice(self.spans)), len(self.content) - 1)


def base_files(folder: Path) -> list[Base]:
    """Return small files of different structure."""
    found = []
    path = folder / "base.jp2"
    with warnings.catch_warnings(action="ignore"):
        for name, kind in BASES.items():
            found.append(Base(name, write_jp2(path, **kind).read_bytes()))
            path.unlink()
    plain = found[0].content
    found += [
        Base("palette", with_header_box(plain, PALETTE)),
        Base("resolution", with_header_box(plain, RESOLUTION, CHANNELS)),
        Base("preview", with_tiles(plain, 16)),
        Base("xml", assembled([*found[0].nodes[:-1], XML, found[0].nodes[-1]])),
    ]
    return found


def with_tiles(content: bytes, size: int) -> bytes:
    """Return a file that says that its tiles are smaller than they are."""
    at = _in_codestream(content, b"\xff\x51") + 22
    return content[:at] + struct.pack(">2I", size, size) + content[at + 8 :]


def _in_codestream(content: bytes, marker: bytes) -> int:
    """Return the offset of a marker in a file that is in order."""
    return content.index(marker, content.index(b"\xff\x4f\xff\x51"))


def other_sizes(base: Base, rng: random.Random) -> bytes:
    """Change sizes of image or tiles, mostly in the codestream and the box alike."""
    content = bytearray(base.content)
    at = _in_codestream(base.content, b"\xff\x51")
    box = content.index(b"ihdr") + 4
    for _ in range(rng.choice([1, 1, 2])):
        which = rng.choice([0, 1, 0, 1, 2, 3, 4, 5, 4, 5, 6, 7])
        size = rng.choice([rng.randrange(1, 4000), rng.choice(INTERESTING), 64, 48, 1024, 2048])
        struct.pack_into(">I", content, at + 6 + 4 * which, size)
        if which < 2 and rng.random() < 0.9:
            struct.pack_into(">I", content, box + (4, 0)[which], size)
    return bytes(content)


def other_coding(base: Base, rng: random.Random) -> bytes:
    """Change bytes of the segments, or add, repeat, remove or swap segments."""
    start = _in_codestream(base.content, b"\xff\x51")
    end = _in_codestream(base.content, b"\xff\x90")
    parts = []
    at = start
    while at < end:
        (length,) = struct.unpack_from(">H", base.content, at + 2)
        parts.append(bytearray(base.content[at : at + 2 + length]))
        at += 2 + length
    what = rng.randrange(6)
    one = rng.randrange(len(parts))
    if what == 0:
        del parts[one]
    elif what == 1:
        parts.insert(rng.randrange(len(parts) + 1), parts[one])
    elif what == 2:
        other = rng.randrange(len(parts))
        parts[one], parts[other] = parts[other], parts[one]
    elif what == 3:
        code = rng.choice([0x50, 0x53, 0x55, 0x57, 0x58, 0x5E, 0x5F, 0x60, 0x63, 0x64, 0x30, 0x93])
        body = rng.randbytes(rng.choice([1, 2, 4, 9]))
        part = bytearray(struct.pack(">BBH", 255, code, len(body) + 2) + body)
        parts.insert(rng.randrange(len(parts) + 1), part)
    else:
        parts[one][rng.randrange(len(parts[one]))] = rng.choice([rng.randrange(256), 0, 1, 255])
    return base.content[:start] + b"".join(parts) + base.content[end:]


def other_text(base: Base, rng: random.Random) -> bytes:
    """Change a text: GML, or the metadata that GDAL wrote."""
    xml = leaf(base.nodes, b"xml ")
    if not xml:
        return other_boxes(base, rng)
    text = bytearray(xml)
    at = rng.randrange(len(text))
    if rng.random() < 0.6:  # where values are
        starts = [place for place in range(len(text)) if text[place : place + 1] == b">"]
        at = rng.choice(starts) + rng.choice([1, 1, 1, 2, 3])
    text[at : at + rng.choice([0, 0, 1, 1, 2, 9])] = rng.choice(TEXTS).encode()
    return assembled(replaced(base.nodes, b"xml ", Node(b"xml ", bytes(text))))


def other_tiff(base: Base, rng: random.Random) -> bytes:
    """Change a number in the GeoTIFF of the file, or take a tag out of it."""
    uuid = leaf(base.nodes, b"uuid")
    if uuid[16:18] != b"II":
        return other_text(base, rng)
    tiff = uuid[16:]
    (ifd,) = ifds_of(tiff)
    tag = rng.choice(list(ifd))
    value: Value | None = None
    if rng.random() < 0.85:
        numbers = bytearray(ifd[tag].content)
        if ifd[tag].type == DOUBLE:
            real = rng.choice([*REALS, rng.uniform(-1e6, 1e6)])
            struct.pack_into("<d", numbers, 8 * rng.randrange(len(numbers) // 8), real)
        else:
            numbers[rng.randrange(len(numbers))] = rng.randrange(256)
        value = Value(ifd[tag].type, ifd[tag].count, bytes(numbers))
    box = Node(b"uuid", uuid[:16] + edited(tiff, {tag: value}))
    return assembled(replaced(base.nodes, b"uuid", box))


def other_boxes(base: Base, rng: random.Random) -> bytes:
    """Add, repeat, remove or swap boxes."""
    nodes = list(base.nodes)
    what = rng.randrange(5)
    one, other = rng.randrange(len(nodes)), rng.randrange(len(nodes))
    if what == 0:
        del nodes[one]
    elif what == 1:
        nodes.insert(other, nodes[one])
    elif what == 2:
        nodes[one], nodes[other] = nodes[other], nodes[one]
    elif what == 3:
        nodes.insert(rng.randrange(1, len(nodes) + 1), rng.choice(EXTRA))
    else:
        return with_header_box(base.content, rng.choice(EXTRA))
    return assembled(nodes)


def damaged(base: Base, rng: random.Random) -> bytes:
    """Change, cut, insert or delete some bytes."""
    content = bytearray(base.content)
    for _ in range(rng.choice([1, 1, 1, 1, 2, 3])):
        at = base.place(rng)
        what = rng.randrange(8)
        if what < 2:
            content[at : at + 1] = bytes([base.content[at] ^ 1 << rng.randrange(8)])
        elif what < 4:
            content[at : at + 1] = bytes([rng.randrange(256)])
        elif what == 4:
            size = rng.choice([2, 4])
            word = rng.choice(INTERESTING) % 256**size
            content[at : at + size] = word.to_bytes(size, "big")
        elif what == 5:
            del content[max(0, rng.choice([len(content) - rng.randrange(1, 40), at])) :]
        elif what == 6:
            content[at:at] = rng.randbytes(rng.choice([1, 2, 4, 12]))
        else:
            del content[at : at + rng.choice([1, 2, 4, 12])]
    return bytes(content)


MUTATIONS: list[Callable[[Base, random.Random], bytes]] = [
    other_sizes, other_sizes, other_coding, other_text, other_tiff, other_tiff, other_boxes,
    damaged, damaged, damaged,
]  # fmt: skip


def jp2_mutants(folder: Path) -> Draw:
    """Return what draws broken JP2 files; the folder is for their bases."""
    bases = base_files(folder)

    def draw(rng: random.Random) -> tuple[str, bytes]:
        base = rng.choice(bases)
        if rng.random() < 0.02:
            return base.name, base.content
        content = rng.choice(MUTATIONS)(base, rng)
        if rng.random() < 0.1:  # two things are wrong
            content = damaged(Base(base.name, content), rng) if _is_whole(content) else content
        return base.name, content

    return draw


def _is_whole(content: bytes) -> bool:
    """Whether `Base` can take a mutant apart."""
    try:
        Base("", content)
    except (struct.error, ValueError):
        return False
    return True


if __name__ == "__main__":
    main("mutant.jp2", jp2_mutants)
