"""The decoder of JP2 headers against `RasterioReader`: the same record, or the file handed over."""

from __future__ import annotations

import os
import random
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from jp2_variants import (
    GEOJP2,
    OWN_CRS,
    Node,
    assembled,
    changed,
    leaf,
    replaced,
    tree,
    with_header_box,
    write_jp2,
    write_variants,
)
from mutants import outcomes_of
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin
from test_tiff_reader import Both, write
from tiff_variants import DOUBLE, Value, differing, edited, ifds_of

from rastermeta_async.model.record import JP2_HEADER, TIFF_HEADER, Record
from rastermeta_async.readers.base import Foreign, Unsupported
from rastermeta_async.readers.geotiff.decoder import GeoTiffDecoder
from rastermeta_async.readers.jpeg2000.codestream import main_header
from rastermeta_async.readers.jpeg2000.jp2_decoder import Jp2Decoder
from rastermeta_async.readers.jpeg2000.jp2_header import read_header
from rastermeta_async.readers.rasterio_reader import RasterioReader
from rastermeta_async.readers.router import Router, make_reader
from rastermeta_async.readers.window import Window

VARIANTS, LEAST_FAST = 800, 0.7
MUTANTS = 20_000
MUTANT_SCRIPT = Path(__file__).with_name("jp2_mutants.py")
SEED = 20_240_229

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture
def both() -> Iterator[Both]:
    found = Both()
    with found.reader.environment():
        yield found


@cache
def written(**kind: Any) -> bytes:
    """Return a JP2 as `write_jp2` writes it; `kind` has its arguments and creation options."""
    options = {name: kind.pop(name) for name in list(kind) if name[0].isupper()}
    tags = {"AREA_OR_POINT": kind.pop("point")} if "point" in kind else {}
    with TemporaryDirectory() as place:
        return write_jp2(Path(place, "a.jp2"), tags=tags, options=options, **kind).read_bytes()


def file_of(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def reads(content: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, size: content[offset : offset + size]


def header_of(content: bytes) -> Any:
    return read_header(b"a.jp2", content[:16384], len(content), reads(content))


# All sorts of files.


@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_variants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rastermeta_async.readers.learning.MAX_TEMPLATES", 10_000)
    paths, refused = write_variants(tmp_path, SEED, VARIANTS)
    assert len(refused) < len(paths) / 8
    wrong: dict[str, Any] = {}
    reasons: Counter[str | None] = Counter()
    for seed in range(2):
        both = Both()
        with both.reader.environment():
            order = random.Random(seed).sample(paths, len(paths))
            for path in order:
                both.right[path] = both.reference.read(os.fsencode(path))
                if found := differing(both.read(path), both.right[path]):
                    wrong[path.name] = found
            unasked = len(paths) - both.asked
            for path in order:
                compared = both.compare(path)
                reasons[compared.reason] += 1
                if compared.differences:
                    wrong[path.name] = compared.differences
        assert unasked > len(paths) / 4
    assert wrong == {}
    assert reasons[None] > LEAST_FAST * 2 * len(paths)


@pytest.mark.campaign
@pytest.mark.timeout(900)
def test_mutants(tmp_path: Path) -> None:
    outcomes = outcomes_of(MUTANT_SCRIPT, tmp_path, SEED, MUTANTS)
    wrong = [one for outcome in outcomes for one in outcome.wrong]
    assert wrong[:10] == [], f"{len(wrong)} files, see {tmp_path}"
    assert sum(outcome.files for outcome in outcomes) >= MUTANTS
    assert sum(outcome.unasked for outcome in outcomes) > MUTANTS / 10


RGBA = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
TYPICAL: dict[str, dict[str, Any]] = {
    "grey": {},
    "only GeoJP2": {"options": {"GMLJP2": "NO"}},
    "only GMLJP2": {"options": {"GeoJP2": "NO"}},
    "only GMLJP2 in degrees": {
        "crs": "EPSG:4326", "transform": from_origin(10, 50, 1 / 1200, 1 / 1200),
        "options": {"GeoJP2": "NO"},
    },
    "a CRS in GML": {"crs": OWN_CRS, "options": {"GeoJP2": "NO"}},
    "boxes after the pixels": {"options": {"GEOBOXES_AFTER_JP2C": "YES"}},
    "tiles": {
        "dtype": "uint16", "width": 300, "height": 260,
        "options": {"BLOCKXSIZE": "64", "BLOCKYSIZE": "128", "TLM": "YES", "PLT": "YES"},
    },
    "RGBA": {"count": 4, "colours": RGBA, "options": {"ALPHA": "YES", "1BIT_ALPHA": "YES"}},
    "int16, reversible": {"dtype": "int16", "options": {"QUALITY": "100", "REVERSIBLE": "YES"}},
    "tags, pixel is point": {
        "tags": {"TITLE": "x < y & 'z'", "AREA_OR_POINT": "Point"},
        "options": {"WRITE_METADATA": "YES"},
    },
    "nowhere": {"crs": None, "transform": None},
}  # fmt: skip


@pytest.mark.parametrize("kind", TYPICAL.values(), ids=TYPICAL)
def test_a_typical_file_is_read_fast(tmp_path: Path, both: Both, kind: dict[str, Any]) -> None:
    """Also files of other sizes, in other places, with other tags and comments."""
    kind = {"transform": from_origin(500_000, 5_000_000, 10, 10)} | kind
    paths = []
    for number in range(3):
        each = dict(kind, height=kind.get("height", 48) - number)
        if number and kind["transform"]:
            step = kind["transform"].a * (1 + number / 7)
            each["transform"] = from_origin(8.5 + number, 47.25 - number, step, step)
        if "tags" in kind:
            each["tags"] = dict(kind["tags"], TITLE=f"title & {number}")
        each["options"] = {"COMMENT": "x" * (number + 1), **kind.get("options", {})}
        paths.append(write_jp2(tmp_path / f"{number}.jp2", **each))
    assert both.readers_of([*paths, *reversed(paths)]) == [JP2_HEADER] * 6
    assert both.asked == 1
    assert [both.compare(path).differences for path in paths] == [[]] * 3


def palette(content: bytes) -> bytes:
    box = Node(b"pclr", struct.pack(">HB3B", 4, 3, 7, 7, 7) + bytes(range(12)))
    return with_header_box(content, box)


def resolution(content: bytes) -> bytes:
    box = Node(b"resd", struct.pack(">4H2b", 300, 1, 150, 2, 2, 2))
    return with_header_box(content, Node(b"res ", [box]))


def without_length(content: bytes) -> bytes:
    at = content.index(b"jp2c") - 4
    return content[:at] + bytes(4) + content[at + 4 :]


def with_long_length(content: bytes) -> bytes:
    *nodes, (_, pixels) = tree(content)
    assert isinstance(pixels, bytes)
    return assembled(nodes) + struct.pack(">I4sQ", 1, b"jp2c", 16 + len(pixels)) + pixels


def other_boxes(content: bytes) -> bytes:
    *nodes, pixels = tree(content)
    uuid = Node(b"uuid", bytes(range(16)) + b"anything")
    return assembled([*nodes, Node(b"xml ", b"<a>text</a>"), uuid, pixels])


MADE = [palette, resolution, without_length, with_long_length, other_boxes]


@pytest.mark.parametrize("make", MADE)
def test_boxes_that_gdal_does_not_write(
    tmp_path: Path, both: Both, make: Callable[[bytes], bytes]
) -> None:
    content = written(width=300, height=300)
    plain = file_of(tmp_path, "plain.jp2", content)
    path = file_of(tmp_path, "a.jp2", make(content))
    assert both.readers_of([plain, path, path, plain]) == [JP2_HEADER] * 4


def sized(content: bytes, width: int, height: int, tile_width: int, tile_height: int) -> bytes:
    """Return a file that says that it has other sizes."""
    found = bytearray(content)
    at = found.index(b"\xff\x4f\xff\x51") + 4
    struct.pack_into(">2I", found, at + 4, width, height)
    struct.pack_into(">2I", found, at + 20, tile_width, tile_height)
    struct.pack_into(">2I", found, found.index(b"ihdr") + 4, height, width)
    return bytes(found)


SIZES = [
    (100_000, 100_000, 8192, 8192), (70_000, 70_000, 70_000, 70_000), (2**31 - 1, 1, 2**31 - 1, 1),
    (2**31 - 1, 2**31 - 1, 2**31 - 1, 2**31 - 1), (255, 2, 1, 1),
    (10_980, 10_980, 1024, 1024), (10_980, 10_980, 10_980, 10_980), (343, 343, 16, 8),
    (343, 343, 31, 31), (343, 343, 32, 32), (1025, 5, 16, 16), (1830, 1830, 2048, 2048),
    (3000, 100, 2048, 2048), (5490, 5490, 8192, 8192), (20_971_519, 1, 20_971_519, 1),
    (20_971_520, 1, 20_971_520, 1), (2000, 1, 2000, 1), (1024, 1025, 1024, 1025),
    (200, 300, 100, 75), (129, 128, 129, 128), (128, 128, 64, 64), (3000, 3000, 3000, 1000),
    (3000, 3000, 6000, 2999), (1000, 1000, 2000, 2000), (5, 3000, 5, 3000),
]  # fmt: skip


def test_blocks_and_overviews_of_any_size(tmp_path: Path, both: Both) -> None:
    content = written(RESOLUTIONS="6")
    rng = random.Random(SEED)
    some = [[2 ** rng.randrange(5, 12) + rng.randrange(-1, 2) for _ in "1234"] for _ in range(20)]
    for number, sizes in enumerate([*SIZES, *some]):
        path = file_of(tmp_path, f"{number}.jp2", sized(content, *sizes))
        assert both.check(path).reader == JP2_HEADER, sizes
    assert both.asked <= 5  # as there are so many rules


# What is handed over.


def with_gml(content: bytes, old: bytes, new: bytes) -> bytes:
    """Return a file with other GML."""
    xml = leaf(tree(content), b"xml ")
    assert old in xml
    return changed(content, b"xml ", Node(b"xml ", xml.replace(old, new)))


def repeated(kind: bytes) -> Callable[[bytes], bytes]:
    def make(content: bytes) -> bytes:
        nodes = tree(content)
        (box,) = (node for node in nodes if node.kind == kind)
        return assembled([*nodes, box])

    return make


def moved_forward(content: bytes) -> bytes:
    nodes = tree(content)
    return assembled([*nodes[:2], nodes[-1], *nodes[2:-1]])


def metadata(text: str) -> Callable[[bytes], bytes]:
    box = Node(b"xml ", f"<GDALMultiDomainMetadata>{text}</GDALMultiDomainMetadata>".encode())
    return lambda content: assembled([*tree(content), box])


def segment(code: int, body: bytes) -> Callable[[bytes], bytes]:
    """Insert a segment before the first tile; the box of the codestream has its new length."""

    def make(content: bytes) -> bytes:
        pixels = leaf(tree(content), b"jp2c")
        at = pixels.index(b"\xff\x90")
        more = struct.pack(">BBH", 255, code, len(body) + 2) + body
        return changed(content, b"jp2c", Node(b"jp2c", pixels[:at] + more + pixels[at:]))

    return make


HANDED_OVER: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "cut": ("a box that is not all in the file", lambda content: content[:-1]),
    "more": ("values outside the file or all over it", lambda content: content + b"x"),
    "raw codestream": ("no TIFF; no JP2", lambda content: leaf(tree(content), b"jp2c")),
    "other box": ("a box free", lambda content: assembled([*tree(content), Node(b"free", b"")])),
    "two headers": ("boxes in an odd order", repeated(b"jp2h")),
    "two codestreams": ("boxes in an odd order", repeated(b"jp2c")),
    "two GeoTIFFs": ("odd georeferencing", repeated(b"uuid")),
    "pixels first": ("boxes in an odd order", moved_forward),
    "no header": ("boxes in an odd order", lambda content: changed(content, b"jp2h")),
    "no type": ("boxes missing", lambda content: changed(content, b"ftyp")),
    "no pixels": ("boxes missing", lambda content: changed(content, b"jp2c")),
    "MSIG": ("odd georeferencing", lambda content: assembled([*tree(content), Node(
        b"uuid", bytes.fromhex("96a9f1f1dc98402da7aed68e34451809") + b"MSIG/" + bytes(80)
    )])),
    "other size in the box": (
        "other sizes in the box than in the codestream",
        lambda content: content.replace(b"ihdr\0\0\0\x30", b"ihdr\0\0\0\x31"),
    ),
    "other domain": ("metadata of effect", metadata(
        '\n  <Metadata domain="IMAGERY">\n    <MDI key="SATELLITEID">X</MDI>\n  </Metadata>\n'
    )),
    "tag of effect": ("metadata of effect", metadata(
        '\n  <Metadata>\n    <MDI key="AREA_OR_POINT">Point</MDI>\n  </Metadata>\n'
    )),
    "tag given twice": ("a tag given twice", metadata(
        '\n  <Metadata>\n    <MDI key="a">1</MDI>\n    <MDI key="A">2</MDI>\n  </Metadata>\n'
    )),
    "packed packet headers": ("a segment ff60", segment(0x60, b"\0\0\0\0\0")),
    "capabilities": ("a segment ff50", segment(0x50, bytes(6))),
    "coding of a component": ("a segment ff53", segment(0x53, bytes(7))),
    "two coding styles": ("an odd coding style", segment(0x52, bytes(10))),
    "lengths of no tile": ("odd lengths of tiles", segment(0x55, b"\0\x50\x07" + bytes(4))),
    "lengths cut": ("odd lengths of tiles", segment(0x55, b"\0\x50" + bytes(4))),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("reason", "make"), HANDED_OVER.values(), ids=HANDED_OVER)
def test_a_file_handed_over(
    tmp_path: Path, both: Both, reason: str, make: Callable[[bytes], bytes]
) -> None:
    plain = file_of(tmp_path, "plain.jp2", written())
    path = file_of(tmp_path, "a.jp2", make(written()))
    compared = both.compare(path)
    assert (compared.reason, compared.decoded) == (reason, None)
    assert both.readers_of([plain, path]) == [JP2_HEADER, "rasterio"]


GML: dict[str, tuple[bytes, bytes]] = {
    "other place": (b"500005 4999995", b"412345.25 -1234.5"),
    "exponent": (b"500005 4999995", b"5.00005e5 4.999995e+06"),
    "many digits": (b"500005 4999995", b"500005.12345678901 4999995"),
    "no number": (b"500005 4999995", b"x 4999995"),
    "one number": (b"500005 4999995", b"500005"),
    "minus zero": (b"500005 4999995", b"-0 4999995"),
    "other axes": (b">10 0<", b">0 10<"),
    "rotated": (b">10 0<", b">10 1<"),
    "wide": (b">10 0<", b">12.5 0<"),
    "south up": (b">0 -10<", b">0 10<"),
    "identity": (b">0 -10<", b">0 1<"),
    "other CRS": (b'P0001" srsName="urn:ogc:def:crs:EPSG::32633"',
                  b'P0001" srsName="urn:ogc:def:crs:EPSG::3035"'),
    "no CRS": (b'P0001" srsName="urn:ogc:def:crs:EPSG::32633"', b'P0001"'),
    "axes named": (b"<gml:axisName>x", b"<gml:axisName>Easting"),
    "comment": (b"<gml:limits>", b"<!-- GDAL_JP2K_ALT_OFFSETVECTOR_ORDER=TRUE --><gml:limits>"),
    "two origins": (b"<gml:origin>", b"<gml:origin/><gml:origin>"),
    "other names": (b"gml:", b"g:"),
    "metadata": (b"<gml:limits>", b"<GDALMultiDomainMetadata/><gml:limits>"),
    "not XML": (b"</gml:limits>", b""),
    "zero inside": (b"<gml:limits>", b"\0<gml:limits>"),
    "entity": (b"Record Interleaved", b"Record &amp; Interleaved"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new"), GML.values(), ids=GML)
def test_gml(tmp_path: Path, both: Both, old: bytes, new: bytes) -> None:
    plain = file_of(tmp_path, "plain.jp2", written(GeoJP2="NO"))
    path = file_of(tmp_path, "a.jp2", with_gml(written(GeoJP2="NO"), old, new))
    other = file_of(tmp_path, "b.jp2", sized(path.read_bytes(), 100, 20, 100, 20))
    for one in (plain, path, other, path, plain):
        both.check(one)


def test_gml_does_not_count_beside_a_geotiff(tmp_path: Path, both: Both) -> None:
    plain = file_of(tmp_path, "plain.jp2", written())
    other = with_gml(written(), b"500005 4999995", b"1 2")
    path = file_of(tmp_path, "a.jp2", with_gml(other, b"</gml:limits>", b""))
    assert both.readers_of([plain, path]) == [JP2_HEADER] * 2
    assert both.asked == 1


def with_tiff(content: bytes, changes: dict[int, Value | None]) -> bytes:
    tiff = leaf(tree(content), b"uuid")[len(GEOJP2) :]
    box = Node(b"uuid", GEOJP2 + edited(tiff, changes))
    return assembled(replaced(tree(content), b"uuid", box))


def numbers(*values: float) -> Value:
    return Value(DOUBLE, len(values), struct.pack(f"<{len(values)}d", *values))


TIFFS: dict[str, dict[int, Value | None]] = {
    "other place": {33922: numbers(0, 0, 0, 1, 2, 0)},
    "not at the corner": {33922: numbers(3.5, 7.25, 0, 1, 2, 0)},
    "no scale": {33550: None},
    "no place": {33922: None},
    "neither": {33550: None, 33922: None},
    "identity": {33550: numbers(1, 1, 0), 33922: numbers(0, 0, 0, 0, 0, 0)},
    "nearly": {33550: numbers(1, 1, 0), 33922: numbers(0, 0, 0, 0, 1e-300, 0)},
    "negative": {33550: numbers(10, -10, 0)},
    "short": {33550: numbers(10, 10)},
    "two points": {33922: numbers(0, 0, 0, 1, 2, 0, 5, 5, 0, 3, 4, 0)},
    "nan": {33550: numbers(float("nan"), 10, 0)},
    "matrix": {33550: None, 33922: None, 34264: numbers(
        10, 0, 0, 5, 0, -20, 0, 6, 0, 0, 0, 0, 0, 0, 0, 1
    )},
    "no keys": {34735: None},
}  # fmt: skip


@pytest.mark.parametrize("point", ["Area", "Point"])
@pytest.mark.parametrize("changes", TIFFS.values(), ids=TIFFS)
def test_the_geotiff_in_a_box(
    tmp_path: Path, both: Both, changes: dict[int, Value | None], point: str
) -> None:
    content = written(point=point, GMLJP2="NO")
    plain = file_of(tmp_path, "plain.jp2", content)
    path = file_of(tmp_path, "a.jp2", with_tiff(content, changes))
    other = file_of(tmp_path, "b.jp2", sized(path.read_bytes(), 100, 20, 100, 20))
    for one in (plain, path, other, path, plain):
        both.check(one)


def test_numbers_of_a_geotiff_that_are_also_something_else(tmp_path: Path, both: Both) -> None:
    """The place is where the keys are: they would differ from file to file with it."""
    content = written(GMLJP2="NO")
    tiff = leaf(tree(content), b"uuid")[len(GEOJP2) :]
    (ifd,) = ifds_of(tiff)
    start = tiff.index(ifd[34735].content)
    tag = struct.pack("<HHI", 33922, DOUBLE, 6)
    at = tiff.index(tag) + len(tag)
    odd = tiff[:at] + struct.pack("<I", start) + tiff[at + 4 :]
    nodes = replaced(tree(content), b"uuid", Node(b"uuid", GEOJP2 + odd))
    path = file_of(tmp_path, "a.jp2", assembled(nodes))
    assert both.compare(path).reason == "values outside the file or all over it"
    both.check(path)


def test_a_name_for_which_gdal_changes_the_colours(tmp_path: Path, both: Both) -> None:
    grey = written(count=4).replace(b"colr\1\0\0\0\0\0\x10", b"colr\1\0\0\0\0\0\x11")
    channels = Node(b"cdef", struct.pack(">13H", 4, 0, 0, 1, 1, 0, 2, 2, 0, 3, 3, 65535, 65535))
    paths = [
        file_of(tmp_path, name, with_header_box(grey, channels))
        for name in ("b.jp2", "dop10rgbi_32.jp2", "c.jp2")
    ]
    assert both.readers_of(paths) == [JP2_HEADER, "rasterio", JP2_HEADER]
    colours = [[band.color_interp for band in both.read(path).bands or ()] for path in paths]
    assert colours[0] == colours[2]


# What is next to a file.


WORLD_FILE = "2.0\n0.0\n0.0\n-2.0\n600001.0\n5000001.0\n"


@pytest.mark.parametrize("name", ["a.j2w", "a.jp2w", "a.wld"])
def test_a_world_file_places_only_what_is_nowhere(tmp_path: Path, both: Both, name: str) -> None:
    (tmp_path / name).write_text(WORLD_FILE)
    path = write_jp2(tmp_path / "a.jp2")
    assert both.readers_of([path, path]) == [JP2_HEADER] * 2
    write_jp2(path, crs=None, transform=None)
    both = Both()
    record = both.check(path)
    assert (record.reader, record.transform) == ("rasterio", (600_000, 2, 0, 5_000_002, 0, -2))


def test_sidecars_are_rasterio_s(tmp_path: Path, both: Both) -> None:
    path, other = write_jp2(tmp_path / "a.jp2"), write_jp2(tmp_path / "b.jp2", width=300)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(1, ORIGIN="beside")
    write(tmp_path / "b.jp2.ovr", width=100, height=16)
    assert both.readers_of([path, other]) == ["rasterio"] * 2
    assert both.read(path).band_tags == {1: {"ORIGIN": "beside"}}
    assert [band.overviews for band in both.read(other).bands or ()] == [[3]]


# Learning, and choosing.


@pytest.mark.parametrize(("drivers", "kinds"), [
    (None, [GeoTiffDecoder, Jp2Decoder]), (["JP2OpenJPEG"], [Jp2Decoder]),
    (["GTiff"], [GeoTiffDecoder]),
])  # fmt: skip
def test_only_where_its_driver_may_open_files(drivers: list[str] | None, kinds: list[type]) -> None:
    reader = make_reader(drivers)
    assert isinstance(reader, Router)
    assert [type(decoder) for decoder in reader.decoders] == kinds


def test_a_kind_that_another_driver_opens_is_never_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, both: Both
) -> None:
    paths = [write_jp2(tmp_path / f"{width}.jp2", width=width) for width in (20, 30)]
    read = RasterioReader.read

    def other(self: RasterioReader, path: bytes, **options: bool) -> Record:
        return read(self, path, **options)._replace(driver="JP2KAK")

    monkeypatch.setattr(RasterioReader, "read", other)
    assert [both.read(path).reader for path in paths] == ["rasterio"] * 2
    assert both.compare(paths[0]).reason == "another driver opens it"


def test_both_formats_are_read_by_one_reader(tmp_path: Path, both: Both) -> None:
    tiff, jp2 = write(tmp_path / "a.tif"), write_jp2(tmp_path / "a.jp2")
    assert both.readers_of([tiff, jp2, tiff, jp2]) == [TIFF_HEADER, JP2_HEADER] * 2


# Bytes of any kind.


@given(st.binary(max_size=200))
def test_other_bytes_are_foreign(content: bytes) -> None:
    with pytest.raises(Foreign, match="no JP2"):
        header_of(content)


def tiled() -> bytes:
    return written(width=200, BLOCKXSIZE="64", TLM="YES")


@given(data=st.data())
def test_any_bytes_are_decoded_or_unsupported(data: st.DataObject) -> None:
    content = bytearray(tiled())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    try:
        header = header_of(bytes(content))
    except Unsupported:
        return
    assert header.width > 0
    assert header.height > 0
    assert header.block_width > 0


@pytest.mark.parametrize("cut", range(0, 120, 7))
def test_a_codestream_that_ends_early(cut: int) -> None:
    codestream = leaf(tree(tiled()), b"jp2c")
    short = codestream[:cut]
    assert main_header(Window(codestream, len(codestream), reads(b"")), 0, len(codestream))
    with pytest.raises(Unsupported):
        main_header(Window(short, len(short), reads(short)), 0, len(short))
