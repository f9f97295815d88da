"""Headers decoded from bytes made by hand, sound and unsound."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiff_variants import (
    ASCII,
    BYTE,
    DOUBLE,
    LONG,
    LONG8,
    METADATA_TAG,
    NODATA_TAG,
    RATIONAL,
    SHORT,
    Form,
    Ifd,
    Value,
    assembled,
    form_of,
    number_value,
    text_value,
)

from rastermeta_async.readers.base import HEAD_BYTES, Unsupported
from rastermeta_async.readers.geotiff.buffer import MAX_ARRAY_BYTES
from rastermeta_async.readers.geotiff.gdal_metadata import MAX_METADATA_BYTES, NO_METADATA
from rastermeta_async.readers.geotiff.header import MAX_OVERVIEWS, Header, read_header
from rastermeta_async.readers.geotiff.ifd import MAX_IFDS
from rastermeta_async.readers.window import MAX_READS, READ_BYTES

FORMS = {
    "little": Form("<", big=False), "big": Form(">", big=False),
    "little BigTIFF": Form("<", big=True), "big BigTIFF": Form(">", big=True),
}  # fmt: skip
LITTLE = FORMS["little"]
MAX_REST = 4 * 1024 * 1024 + 64 * 1024
"""Bytes that may be read beyond the head: the metadata, and what is next to it."""


@dataclass
class Disk:
    """A file, and what is read of it after its head."""

    content: bytes
    reads: list[tuple[int, int]] = field(default_factory=list)

    def read_at(self, offset: int, size: int) -> bytes:
        assert offset >= 0
        assert size > 0
        self.reads.append((offset, size))
        return self.content[offset : offset + size]

    def header(self) -> Header:
        return read_header(self.content[:HEAD_BYTES], len(self.content), self.read_at)


def header_of(content: bytes) -> Header:
    return Disk(content).header()


def reason_of(content: bytes) -> str:
    with pytest.raises(Unsupported) as finding:
        header_of(content)
    return str(finding.value)


def image(form: Form = LITTLE, width: int = 30, height: int = 20, **other: int) -> Ifd:
    """Return an IFD of a deflated image in strips of five rows."""
    strips = -(-height // 5)
    ifd = {
        256: number_value(form, SHORT if width < 2**16 else LONG, width),
        257: number_value(form, LONG, height),
        258: number_value(form, SHORT, 8),
        259: number_value(form, SHORT, 8),
        262: number_value(form, SHORT, 1),
        273: number_value(form, LONG, *[8] * strips),
        277: number_value(form, SHORT, 1),
        278: number_value(form, SHORT, 5),
        279: number_value(form, LONG, *[1] * strips),
    }
    if subfile := other.get("subfile"):
        ifd[254] = number_value(form, LONG, subfile)
    return ifd


def tiled(form: Form = LITTLE, width: int = 100, height: int = 70, tile: int = 16) -> Ifd:
    ifd = image(form, width, height)
    for tag in (273, 278, 279):
        del ifd[tag]
    tiles = -(-width // tile) * -(-height // tile)
    return ifd | {
        322: number_value(form, SHORT, tile),
        323: number_value(form, SHORT, tile),
        324: number_value(form, LONG8 if form.big else LONG, *[8] * tiles),
        325: number_value(form, LONG, *[1] * tiles),
    }


def metadata(*items: str) -> Value:
    text = "".join(f"  <Item {item}</Item>\n" for item in items)
    return text_value(f"<GDALMetadata>\n{text}</GDALMetadata>\n")


def of(ifd: Ifd, form: Form = LITTLE) -> bytes:
    return assembled(form, [ifd])


def patched(content: bytes, at: int, layout: str, *numbers: int) -> bytes:
    changed = bytearray(content)
    struct.pack_into(layout, changed, at, *numbers)
    return bytes(changed)


def entry_at(content: bytes, tag: int) -> int:
    """Return the offset of an entry in the first IFD of a classic, little-endian file."""
    (offset,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, offset)
    places = range(offset + 2, offset + 2 + 12 * count, 12)
    return next(at for at in places if struct.unpack_from("<H", content, at) == (tag,))


# What is in order.


def test_texts_that_are_no_utf_8_are_readable() -> None:
    raw = metadata('name="TITLE">a').content.replace(b">a<", b">\xb5\xff<")
    ifd = image() | {
        305: Value(ASCII, 6, b"r\xe9sum\0"), METADATA_TAG: Value(ASCII, len(raw), raw),
    }  # fmt: skip
    header = header_of(of(ifd))
    assert header.tags == {"TIFFTAG_SOFTWARE": "r\\xe9sum"}
    assert header.metadata.dataset == {"TITLE": r"\xb5\xff"}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_fields(form: Form) -> None:
    ifd = image(form) | {
        305: text_value("made by hand"),
        306: text_value("abc"),
        282: number_value(form, RATIONAL, 300, 4),
        296: number_value(form, SHORT, 2),
        33550: number_value(form, DOUBLE, 0.5, 0.25, 0.0),
        33922: number_value(form, DOUBLE, 1.0, 2.0, 0.0, 100.0, 200.0, 0.0),
        NODATA_TAG: text_value("0"),
        METADATA_TAG: metadata(
            'name="TITLE">a &amp;lt; b', 'name="X" sample="0">y',
            'name="DESCRIPTION" sample="0" role="description">first',
            'name="SCALE" sample="0" role="scale">0.1', 'name="OFFSET" sample="0" role="offset">-3',
            'name="UNITTYPE" sample="0" role="unittype">K', 'name="Q" domain="OTHER">z',
        ),
    }  # fmt: skip
    parts = [image(form, 15, 10, subfile=1), image(form, 8, 5, subfile=1)]
    mask = image(form, subfile=4)
    header = header_of(assembled(form, [ifd, *parts, mask]))
    assert (header.width, header.height) == (30, 20)
    assert (header.block_width, header.block_height) == (30, 5)
    assert header.overviews == (2, 4)
    assert header.transform == (99.5, 0.5, 0.0, 200.5, 0.0, -0.25)
    assert list(header.tags.items()) == [
        ("TIFFTAG_SOFTWARE", "made by hand"), ("TIFFTAG_DATETIME", "abc"),
        ("TIFFTAG_XRESOLUTION", "75"), ("TIFFTAG_RESOLUTIONUNIT", "2 (pixels/inch)"),
    ]  # fmt: skip
    assert header.metadata == (
        {"TITLE": "a < b"}, {1: {"X": "y"}}, {1: "first"}, {1: 0.1}, {1: -3.0},
        ((1, "unittype", "K"),),
    )  # fmt: skip


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_tiles(form: Form) -> None:
    header = header_of(assembled(form, [tiled(form)]))
    assert (header.block_width, header.block_height) == (16, 16)
    assert (header.transform, header.tags, header.metadata) == (None, {}, NO_METADATA)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(("width", "height", "rows"), [
    (1000, 20, 8), (8192, 20, 1), (9000, 20, 1), (1, 20, 20), (1, 9000, 8192)
])  # fmt: skip
def test_one_strip_that_is_not_compressed_is_cut(
    form: Form, width: int, height: int, rows: int
) -> None:
    ifd = image(form, width, height) | {
        259: number_value(form, SHORT, 1),
        273: number_value(form, LONG, 8),
        278: number_value(form, LONG, height),
        279: number_value(form, LONG, width * height),
    }
    pixels = form.head.ljust(16, b"\0") + bytes(width * height)
    assert header_of(assembled(form, [ifd], pixels)).block_height == rows
    ifd[273] = number_value(form, LONG, 2**31)
    assert reason_of(assembled(form, [ifd], pixels)) == "odd blocks"  # it is not in the file


def test_a_matrix() -> None:
    matrix = (2.0, 0, 0, 100, 0, -3.0, 0, 200, 0, 0, 0, 0, 0, 0, 0, 1)
    header = header_of(of(image() | {34264: number_value(LITTLE, DOUBLE, *matrix)}))
    assert header.transform == (100.0, 2.0, 0.0, 200.0, 0.0, -3.0)


# What makes a kind.


def kind_of(**changes: Value) -> object:
    ifd = image() | {int(tag[1:]): value for tag, value in changes.items()}
    return header_of(of(ifd)).kind


def short(*numbers: int) -> Value:
    return number_value(LITTLE, SHORT, *numbers)


def real(*numbers: float) -> Value:
    return number_value(LITTLE, DOUBLE, *numbers)


@pytest.mark.parametrize("changes", [
    {"t256": short(31)}, {"t257": number_value(LITTLE, LONG, 19)}, {"t278": short(6)},
    {"t273": number_value(LITTLE, LONG, 8, 9, 10, 11)},
], ids=str)  # fmt: skip
def test_files_of_a_kind(changes: dict[str, Value]) -> None:
    assert kind_of(**changes) == kind_of()


@pytest.mark.parametrize("changes", [
    {"t258": short(16)}, {"t259": short(5)}, {"t262": short(0)}, {"t317": short(2)},
    {"t339": short(2)}, {"t42113": text_value("0")}, {"t34735": short(1, 1, 0, 0)},
    {"t34264": real(1, *[0] * 4, 1, *[0] * 10)}, {"t256": number_value(LITTLE, LONG, 30)},
], ids=str)  # fmt: skip
def test_files_of_another_kind(changes: dict[str, Value]) -> None:
    assert kind_of(**changes) != kind_of()


@pytest.mark.parametrize(("one", "other"), [("0", "1"), ("0", "-9999"), ("-9999", "-9998")])
def test_nodata_is_part_of_the_kind(one: str, other: str) -> None:
    assert kind_of(t42113=text_value(one)) != kind_of(t42113=text_value(other))
    assert kind_of(t42113=text_value(one)) == kind_of(t42113=text_value(one))


def test_geo_keys_are_part_of_the_kind() -> None:
    """Also where they are outside the IFD, however long they are."""
    keys = [short(1, 1, 0, 1, *rest) for rest in ((1024, 0, 1, 1), (1024, 0, 1, 2))]
    assert kind_of(t34735=keys[0]) != kind_of(t34735=keys[1])
    reals = [real(1.0, 2.0), real(1.0, 3.0)]
    assert kind_of(t34736=reals[0]) != kind_of(t34736=reals[1])


def test_the_order_of_bytes_is_part_of_the_kind() -> None:
    kinds = [header_of(assembled(form, [image(form)])).kind for form in FORMS.values()]
    assert len(set(kinds)) == len(FORMS)


def test_what_overviews_are_is_part_of_the_kind() -> None:
    def kind(*parts: Ifd) -> object:
        return header_of(assembled(LITTLE, [image(), *parts])).kind

    half, third = image(width=15, height=10, subfile=1), image(width=10, height=7, subfile=1)
    assert kind(half) == kind(half, third) == kind(third)
    assert kind(half) != kind(half | {262: short(0)})
    assert kind() != kind(half)
    assert kind(image(subfile=4)) != kind(image(width=15, height=10, subfile=4))


# What is out of order.


def without(tag: int) -> Ifd:
    ifd = image()
    del ifd[tag]
    return ifd


UNSOUND: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "no TIFF"),
    "text": (b"not a raster at all", "no TIFF"),
    "head alone": (b"II*\0\x08\0\0\0", "no TIFF"),
    "no IFD": (b"II*\0".ljust(16, b"\0"), "no IFD"),
    "BigTIFF of odd offsets": (
        b"II+\0\x04\0\0\0" + struct.pack("<Q", 16) + bytes(99), "an odd BigTIFF"
    ),
    "IFD past the end": (
        b"II*\0" + struct.pack("<I", 2**32 - 1) + bytes(50),
        "values outside the file or all over it",
    ),
    "IFD of BigTIFF past the end": (
        b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**64 - 1) + bytes(50),
        "values outside the file or all over it",
    ),
    "empty IFD": (b"II*\0\x08\0\0\0" + bytes(20), "an IFD of odd length"),
    "huge IFD": (b"II*\0\x08\0\0\0\xff\xff" + bytes(20), "an IFD of odd length"),
    "IFD of 2**64 entries": (
        b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**64 - 1) + bytes(50), "an IFD of odd length"
    ),
    "cut off": (of(image())[:100], "values outside the file or all over it"),
    "unknown tag": (of(image() | {65000: short(1)}), "tag 65000 of type 3"),
    "odd type": (of(image() | {256: Value(BYTE, 1, b"\x05")}), "tag 256 of type 1"),
    "long offsets in a classic TIFF": (
        of(image() | {273: number_value(LITTLE, LONG8, *[8] * 4)}), "tag 273 of type 16"
    ),
    "no width": (of(without(256)), "tags missing"),
    "no strips": (of(without(273)), "tags missing"),
    "strips and tiles": (of(image() | tiled()), "strips and tiles"),
    "width of nothing": (of(image() | {256: short(0)}), "an odd size"),
    "width of 2**31": (
        of(image() | {256: number_value(LITTLE, LONG, 2**31)}), "an odd size"
    ),
    "two widths": (
        of(image() | {256: short(1, 2)}), "several values where there should be one"
    ),
    "no width at all": (
        of(image() | {256: Value(SHORT, 0, b"")}), "several values where there should be one"
    ),
    "no bits": (of(image() | {258: Value(SHORT, 0, b"")}), "a value of no length"),
    "many bands": (of(image() | {277: short(65535)}), "many bands"),
    "odd compression": (
        of(image() | {259: short(6)}), "a compression of which a file must be looked into"
    ),
    "rows of nothing": (of(image() | {278: short(0)}), "odd blocks"),
    "strips missing": (of(image() | {273: number_value(LITTLE, LONG, 8)}), "odd blocks"),
    "tiles of nothing": (of(tiled() | {322: short(0)}), "odd blocks"),
    "scale alone": (of(image() | {33550: real(1, 1, 0)}), "odd georeferencing"),
    "scale of two": (
        of(image() | {33550: real(1, 1), 33922: real(*[0] * 6)}), "odd georeferencing"
    ),
    "scale of nan": (
        of(image() | {33550: real(1, float("nan"), 0), 33922: real(*[0] * 6)}),
        "odd georeferencing",
    ),
    "points of five": (of(image() | {33922: real(*[0] * 5)}), "odd georeferencing"),
    "many points": (of(image() | {33922: real(*[0] * 6 * 2000)}), "odd georeferencing"),
    "rotated": (of(image() | {34264: real(1, 1, *[0] * 14)}), "rotated"),
    "text without end": (of(image() | {305: Value(ASCII, 5, b"abcde")}), "an odd text"),
    "text of two": (of(image() | {305: Value(ASCII, 5, b"ab\0d\0")}), "an odd text"),
    "empty text": (of(image() | {305: Value(ASCII, 1, b"\0")}), "an odd text"),
    "long text": (of(image() | {305: text_value("x" * (MAX_ARRAY_BYTES + 1))}), "an odd text"),
    "long keys": (
        of(image() | {34735: short(*[1] * (MAX_ARRAY_BYTES // 2 + 1))}), "a long value"
    ),
    "metadata of no band": (
        of(image() | {METADATA_TAG: metadata('name="A" sample="1">b')}), "metadata of no band"
    ),
    "several pages": (assembled(LITTLE, [image(), image()]), "several pages"),
    "many overviews": (
        assembled(LITTLE, [image(), *[image(subfile=1)] * (MAX_OVERVIEWS + 1)]), "many overviews"
    ),
    "many IFDs": (assembled(LITTLE, [image()] * (MAX_IFDS + 1)), "IFDs without end"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "reason"), UNSOUND.values(), ids=UNSOUND)
def test_unsound_files(content: bytes, reason: str) -> None:
    assert reason_of(content) == reason


def test_as_many_ifds_as_gdal_looks_at() -> None:
    overviews = [image(subfile=1)] * MAX_OVERVIEWS
    assert header_of(assembled(LITTLE, [image(), *overviews])).overviews == (1,) * MAX_OVERVIEWS
    with pytest.raises(Unsupported):
        header_of(assembled(LITTLE, [image(), *overviews, image(subfile=1)]))


@pytest.mark.parametrize("bits", [0, 1, 7, 65535])
def test_any_bits(bits: int) -> None:
    """There may be an answer or none, but no other exception."""
    ifd = image() | {258: short(bits), 259: short(1), 273: short(8), 278: short(20), 279: short(9)}
    with suppress(Unsupported):
        header_of(of(ifd))


def link_of(content: bytes, ifd: int) -> int:
    """Return where an IFD of a classic, little-endian file has its successor's offset."""
    link = 4
    for _ in range(ifd + 1):
        (offset,) = struct.unpack_from("<I", content, link)
        (count,) = struct.unpack_from("<H", content, offset)
        link = offset + 2 + 12 * count
    return link


def test_ifds_in_a_circle() -> None:
    content = assembled(LITTLE, [image(), image(subfile=1)])
    (first,) = struct.unpack_from("<I", content, 4)
    disk = Disk(patched(content, link_of(content, 1), "<I", first))
    with pytest.raises(Unsupported, match="IFDs without end"):
        disk.header()
    assert len(disk.reads) <= MAX_READS


def test_an_ifd_that_follows_itself() -> None:
    content = of(image())
    (offset,) = struct.unpack_from("<I", content, 4)
    assert reason_of(patched(content, link_of(content, 0), "<I", offset)) == "IFDs without end"


@pytest.mark.parametrize("tag", list(image()))
@pytest.mark.parametrize("count", [0, 2, 2**31, 2**32 - 1])
def test_counts(tag: int, count: int) -> None:
    content = of(image())
    disk = Disk(patched(content, entry_at(content, tag) + 4, "<I", count))
    if (tag, count) == (258, 2):  # rasterio is asked what that means
        assert disk.header().kind != header_of(content).kind
    else:
        with pytest.raises(Unsupported):
            disk.header()
    assert disk.reads == []


@pytest.mark.parametrize("tag", [33550, 33922, 34735, 305, 282, METADATA_TAG])
@pytest.mark.parametrize("offset", [2**32 - 1, 2**31, 100_000])
def test_values_past_the_end(tag: int, offset: int) -> None:
    content = of(image() | {
        33550: real(1, 1, 0), 33922: real(0, 0, 0, 0, 0, 0), 34735: short(1, 1, 0, 0),
        305: text_value("software"), 282: number_value(LITTLE, RATIONAL, 1, 1),
        METADATA_TAG: metadata('name="A">b'),
    })  # fmt: skip
    assert header_of(content).width == 30
    assert reason_of(patched(content, entry_at(content, tag) + 8, "<I", offset)) == (
        "values outside the file or all over it"
    )


def test_values_that_share_bytes() -> None:
    """Two tags may have the same value at one place."""
    content = of(image() | {305: text_value("the same"), 315: text_value("another!")})
    (offset,) = struct.unpack_from("<I", content, entry_at(content, 305) + 8)
    header = header_of(patched(content, entry_at(content, 315) + 8, "<I", offset))
    assert header.tags == {"TIFFTAG_SOFTWARE": "the same", "TIFFTAG_ARTIST": "the same"}


@pytest.mark.parametrize("swapped", [(256, 257), (273, 279), (259, 262)])
def test_tags_out_of_order(swapped: tuple[int, int]) -> None:
    content = bytearray(of(image()))
    one, other = (entry_at(bytes(content), tag) for tag in swapped)
    first, second = content[one : one + 12], content[other : other + 12]
    content[one : one + 12], content[other : other + 12] = second, first
    assert reason_of(bytes(content)) == "tags out of order"


def test_a_tag_given_twice() -> None:
    content = of(image())
    assert reason_of(patched(content, entry_at(content, 257), "<H", 256)) == "tags out of order"


# What is read.


def far(content: bytes, start: int) -> bytes:
    """Return a file whose IFDs and values are behind `start` bytes of pixels."""
    return content[:8].ljust(start, b"\0")


def test_one_read_is_enough_for_a_header_at_the_start() -> None:
    parts = [tiled(width=50, height=35), tiled(width=25, height=18)]
    for part in parts:
        part[254] = number_value(LITTLE, LONG, 1)
    content = assembled(LITTLE, [tiled() | {METADATA_TAG: metadata('name="A">b')}, *parts])
    disk = Disk(content + bytes(100_000))
    assert disk.header().overviews == (2, 4)
    assert disk.reads == []


def test_a_header_at_the_end_takes_one_read_more() -> None:
    ifd = image() | {33550: real(1, 1, 0), 33922: real(*[0] * 6), 305: text_value("software")}
    disk = Disk(assembled(LITTLE, [ifd], far(b"II*\0", 1_000_000)))
    assert disk.header().transform is not None
    ((offset, size),) = disk.reads
    assert offset >= 1_000_000
    assert size == READ_BYTES


@pytest.mark.parametrize("make", [tiled, image])
def test_places_of_blocks_are_never_read(make: type) -> None:
    """They are the bulk of a large file's header."""
    size = 40_000
    ifd: Ifd = make(LITTLE, size, size) if make is image else tiled(LITTLE, size // 10, size // 10)
    content = assembled(LITTLE, [ifd])
    arrays = [tag for tag in (273, 279, 324, 325) if tag in ifd]
    places = []
    for tag in arrays:
        (offset,) = struct.unpack_from("<I", content, entry_at(content, tag) + 8)
        places.append(range(offset, offset + len(ifd[tag].content)))
    assert all(len(place) > HEAD_BYTES for place in places)
    disk = Disk(content)
    assert disk.header().width in (size, size // 10)
    assert disk.reads == []
    # With them at the end, or not there at all, it is the same.
    assert header_of(content[:HEAD_BYTES] + bytes(len(content) - HEAD_BYTES)).width > 0
    assert header_of(content[: places[0].start]).width > 0


def test_values_all_over_a_file() -> None:
    """IFDs far from each other take a read each, up to a bound."""
    content = far(b"II*\0", 50_000)
    link = 4
    for ifd in [image(), *[image(subfile=1)] * MAX_OVERVIEWS]:
        placed = assembled(LITTLE, [ifd], content.ljust(len(content) + 50_000, b"\0"))
        (offset,) = struct.unpack_from("<I", placed, 4)
        content = patched(content[:8] + placed[8:], link, "<I", offset)
        link = offset + 2 + 12 * len(ifd)
    disk = Disk(content)
    assert len(disk.header().overviews) == MAX_OVERVIEWS
    assert MAX_OVERVIEWS < len(disk.reads) <= MAX_READS
    assert sum(size for _, size in disk.reads) <= MAX_READS * READ_BYTES


def test_no_more_is_read_of_a_file_than_is_worth_it() -> None:
    """Its IFDs take nearly all the reads that there are, and its texts are far from each other."""
    texts = dict.fromkeys((269, 270, 305, 306, 315, 316), text_value("x" * 19))
    content = far(b"II*\0", 50_000)
    link = 4
    for ifd in [image() | texts, *[image(subfile=1)] * MAX_OVERVIEWS]:
        placed = assembled(LITTLE, [ifd], content.ljust(len(content) + 50_000, b"\0"))
        (offset,) = struct.unpack_from("<I", placed, 4)
        content = patched(content[:8] + placed[8:], link, "<I", offset)
        link = offset + 2 + 12 * len(ifd)
    for tag, value in texts.items():
        content += bytes(50_000)
        content = patched(content, entry_at(content, tag) + 8, "<I", len(content)) + value.content
    disk = Disk(content)
    with pytest.raises(Unsupported, match="all over it"):
        disk.header()
    assert len(disk.reads) == MAX_READS


def test_long_metadata() -> None:
    value = "x" * (MAX_METADATA_BYTES - 1000)
    disk = Disk(of(image() | {METADATA_TAG: metadata(f'name="A">{value}')}))
    assert disk.header().metadata.dataset == {"A": value}
    assert sum(size for _, size in disk.reads) <= MAX_REST
    longer = of(image() | {METADATA_TAG: metadata(f'name="A">{value}{value}')})
    assert reason_of(longer) == "an odd text"


def test_a_file_that_is_shorter_than_it_was() -> None:
    content = assembled(LITTLE, [image()], far(b"II*\0", 100_000))
    with pytest.raises(Unsupported, match="values outside the file"):
        read_header(content[:HEAD_BYTES], len(content), lambda *_: b"")


def test_only_the_head_and_what_it_names_are_trusted() -> None:
    """A size that is not that of the content sets off nothing but Unsupported."""
    content = of(image())
    assert read_header(content, 10**15, lambda *_: b"").width == 30


# Anything at all.


def only_not_plain(content: bytes) -> None:
    disk = Disk(content)
    with suppress(Unsupported):
        hash(disk.header().kind)
    assert len(disk.reads) <= MAX_READS
    assert sum(size for _, size in disk.reads) <= MAX_REST + MAX_READS * READ_BYTES


@settings(max_examples=500)
@given(st.sampled_from(list(FORMS.values())), st.binary(max_size=400))
def test_any_bytes(form: Form, rest: bytes) -> None:
    only_not_plain(rest)
    only_not_plain(form.head + form.offset.pack(16) + rest)


def _fields() -> Iterator[bytes]:
    """Yield files with a bit of everything."""
    for form in FORMS.values():
        ifd = image(form) | {
            305: text_value("software"),
            33550: number_value(form, DOUBLE, 1, 1, 0),
            33922: number_value(form, DOUBLE, *[0] * 6),
            282: number_value(form, RATIONAL, 300, 4),
            34735: number_value(form, SHORT, 1, 1, 0, 0),
            METADATA_TAG: metadata('name="A">b', 'name="X" sample="0" role="scale">2'),
        }
        yield assembled(form, [ifd, image(form, 15, 10, subfile=1)])
        yield assembled(form, [tiled(form)])


SOUND = list(_fields())
changes = st.lists(
    st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=8) | st.sampled_from([
        b"\0\0", b"\xff\xff", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\x01\0\0\0", bytes(8)
    ])),
    min_size=1, max_size=4,
)  # fmt: skip


@settings(max_examples=1500)
@given(st.sampled_from(SOUND), changes, st.integers(0, 2000))
def test_any_change(content: bytes, places: list[tuple[int, bytes]], length: int) -> None:
    damaged = bytearray(content)
    for at, new in places:
        at %= len(content)
        damaged[at : at + len(new)] = new
    only_not_plain(bytes(damaged))
    only_not_plain(bytes(damaged[: length % len(damaged)]))


@settings(max_examples=500)
@given(st.text(max_size=60), st.text(max_size=20))
def test_any_metadata(items: str, head: str) -> None:
    for text in (
        f"<GDALMetadata>\n{items}</GDALMetadata>\n",
        f'<GDALMetadata>\n  <Item name="{head}">{items}</Item>\n</GDALMetadata>\n',
        f'<GDALMetadata>\n  <Item name="A" {head}>{items}</Item>\n</GDALMetadata>\n',
    ):
        only_not_plain(of(image() | {METADATA_TAG: text_value(text)}))


def test_the_sound_files_are_sound() -> None:
    """Or the tests above would show nothing."""
    assert {header_of(content).width for content in SOUND} == {30, 100}
    assert {form_of(content) for content in SOUND} == set(FORMS.values())
