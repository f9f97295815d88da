"""The fast reader against `RasterioReader`: the same record, or the file handed over.

A kind is learnt from one file and used for others, so files are read through one reader, in
several config: what is wrong shows where the second file of a kind differs from the first.
"""

from __future__ import annotations

import math
import os
import random
import re
import shutil
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import outcomes_of
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp, Resampling
from rasterio.rpc import RPC
from rasterio.transform import from_origin
from tiff_variants import (
    ASCII,
    DOUBLE,
    LONG,
    METADATA_TAG,
    NODATA_TAG,
    RATIONAL,
    RPCS,
    SHORT,
    Counted,
    Value,
    Written,
    differing,
    edited,
    form_of,
    number_value,
    text_value,
    told,
    write_variants,
)

from rastermeta_async.model.record import TIFF_HEADER, Record
from rastermeta_async.one_file import compare_readers
from rastermeta_async.readers.base import Unsupported
from rastermeta_async.readers.geotiff.decoder import GeoTiffDecoder
from rastermeta_async.readers.rasterio_reader import RasterioReader
from rastermeta_async.readers.router import Comparison, Router, make_reader
from rastermeta_async.readers.sidecars import GDAL_MAX_NAMES, MAX_KEPT, Folders, Neighbours

VARIANTS = 3600
LEAST_WRITTEN, LEAST_FAST, LEAST_UNASKED = 3000, 0.5, 800
MUTANTS = 100_000
MUTANT_SCRIPT = Path(__file__).with_name("mutants.py")
SEED = 20_240_229


pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


class Both:
    """A fast reader, and the one whose answers it is to give."""

    def __init__(self, drivers: list[str] | None = None) -> None:
        self.folders = Folders()
        self.counted = Counted(drivers, self.folders)
        self.reader = Router(self.counted, self.folders)
        self.reference = RasterioReader(drivers)
        self.right: dict[Path, Record] = {}

    @property
    def asked(self) -> int:
        """How often rasterio was asked."""
        return self.counted.asked

    @property
    def templates(self) -> dict[Hashable, Any]:
        """Templates of the kinds of GeoTIFFs so far."""
        return next(
            decoder.templates
            for decoder in self.reader.decoders
            if isinstance(decoder, GeoTiffDecoder)
        )

    def read(self, path: Path) -> Record:
        return self.reader.read(os.fsencode(path))

    def compare(self, path: Path) -> Comparison:
        return self.reader.compare(os.fsencode(path))

    def check(self, path: Path) -> Record:
        """Read a file with both; they must agree."""
        record, expected = self.read(path), self.reference.read(os.fsencode(path))
        assert differing(record, expected) == {}, path.name
        return record

    def readers_of(self, paths: Iterable[Path]) -> list[str | None]:
        return [self.check(path).reader for path in paths]


@pytest.fixture
def both() -> Iterator[Both]:
    found = Both()
    with found.reader.environment():
        yield found


# Files to be compared.


def write(path: Path, then: Callable[[Any], None] | None = None, **kind: Any) -> Path:
    """Write a small deflated GeoTIFF in a UTM zone unless `kind` says otherwise."""
    profile = {
        "driver": "GTiff", "width": 64, "height": 48, "count": 1, "dtype": "uint8",
        "crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 10, 10),
        "compress": "deflate",
    } | kind  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        if then:
            then(dataset)
        shape = profile["count"], profile["height"], profile["width"]
        dataset.write(np.ones(shape, profile["dtype"]))
    return path


def changed(path: Path, name: str, changes: dict[int, Value | None], ifd: int = 0) -> Path:
    """Return a copy of a file with other values in one of its IFDs."""
    copy = path.with_name(name)
    copy.write_bytes(edited(path.read_bytes(), changes, ifd))
    return copy


def item(value: str, **attributes: object) -> str:
    """Return an item of GDAL's metadata, attributes in GDAL's order."""
    head = "".join(f' {key}="{text}"' for key, text in attributes.items())
    return f"  <Item{head}>{value}</Item>\n"


def with_metadata(path: Path, name: str, items: str) -> Path:
    text = f"<GDALMetadata>\n{items}</GDALMetadata>\n"
    return changed(path, name, {METADATA_TAG: text_value(text)})


def doubles(*numbers: float) -> Value:
    return number_value(form_of(b"II*\0"), DOUBLE, *numbers)


def whole(kind: int, *numbers: int) -> Value:
    return number_value(form_of(b"II*\0"), kind, *numbers)


def overviews(*factors: int) -> Callable[[Any], None]:
    return lambda dataset: dataset.build_overviews(list(factors), Resampling.nearest)


def tagged(**tags: str) -> Callable[[Any], None]:
    return lambda dataset: dataset.update_tags(**tags)


# All sorts of files.


@pytest.fixture(scope="session")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    folder = tmp_path_factory.mktemp("variants")
    yield write_variants(folder, SEED, VARIANTS)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def right(variants: Written) -> dict[Path, Record]:
    """What rasterio says of each variant."""
    reference = RasterioReader()
    with reference.environment():
        return {path: reference.read(os.fsencode(path)) for path in variants.paths}


@pytest.mark.campaign
@pytest.mark.timeout(300)
def test_gdal_writes_most_variants(variants: Written) -> None:
    assert len(variants.paths) >= LEAST_WRITTEN
    assert len(variants.refused) < len(variants.paths) / 8


@pytest.mark.campaign
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(4))
def test_variants(
    variants: Written,
    right: dict[Path, Record],
    both: Both,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "rastermeta_async.readers.learning.MAX_TEMPLATES", 10_000
    )  # they are that mixed
    order = list(variants.paths)
    random.Random(seed).shuffle(order)
    wrong = {}
    fast = 0
    for path in order:
        record = both.read(path)
        fast += record.reader == TIFF_HEADER
        if found := differing(record, right[path]):
            wrong[path.name] = found
    assert wrong == {}
    assert fast > LEAST_FAST * len(order)
    assert len(order) - both.asked > LEAST_UNASKED


@pytest.mark.campaign
@pytest.mark.timeout(300)
def test_each_variant_by_itself(variants: Written, both: Both) -> None:
    """What this reader makes of a file alone is right, so that its kind can be learnt."""
    reasons: Counter[str | None] = Counter()
    wrong = {}
    for path in variants.paths:
        compared = both.compare(path)
        reasons[compared.reason] += 1
        if compared.differences:
            wrong[path.name] = compared.differences
    assert wrong == {}
    assert reasons[None] > LEAST_FAST * len(variants.paths)
    assert reasons["rotated"]
    assert reasons["one long strip"]


def test_corpus(corpus: Path) -> None:
    paths = [path for path in sorted(corpus.rglob("*")) if path.suffix.lower() in (".tif", ".tiff")]
    assert paths
    for order in (paths, paths[::-1]):
        both = Both()
        with both.reader.environment():
            for path in [*order, *order]:
                both.check(path)


# Typical files.


TYPICAL: dict[str, dict[str, Any]] = {
    "uint8 RGB COG": {
        "driver": "COG", "count": 3, "width": 1100, "height": 900, "overview_compress": "deflate"
    },
    "float32 DEM": {"dtype": "float32", "nodata": -9999, "predictor": 3},
    "uint16 tiled": {"dtype": "uint16", "tiled": True, "blockxsize": 32, "blockysize": 16},
    "pixel is point": {"then": tagged(AREA_OR_POINT="Point")},
    "BigTIFF": {"bigtiff": "yes"},
    "big-endian": {"endianness": "big"},
    "not compressed": {"compress": None, "height": 1000},
    "overviews": {"then": overviews(2, 4), "tiled": True, "blockxsize": 16, "blockysize": 16},
    "jpeg": {"count": 3, "compress": "jpeg", "photometric": "ycbcr"},
    "lzw in planes": {"count": 3, "compress": "lzw", "interleave": "band"},
    "zstd bands": {"count": 13, "dtype": "uint16", "compress": "zstd", "predictor": 2},
    "lerc": {"dtype": "float32", "compress": "lerc_zstd", "max_z_error": 0.01},
    "degrees": {"crs": "EPSG:4326", "transform": from_origin(10, 50, 0.1, 0.1)},
    "no georeferencing": {"crs": None, "transform": None},
    "rpcs": {"rpcs": RPCS},
}  # fmt: skip


@pytest.mark.parametrize("kind", TYPICAL.values(), ids=TYPICAL)
def test_a_typical_file_is_read_fast(tmp_path: Path, both: Both, kind: dict[str, Any]) -> None:
    paths = [write(tmp_path / f"{number}.tif", **kind) for number in range(3)]
    assert both.readers_of(paths) == [TIFF_HEADER] * 3
    assert both.asked == 1


HANDED_OVER: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "rotated": ("rotated", lambda path: write(
        path, transform=rasterio.Affine(1, 0.5, 0, 0.5, -1, 0)
    )),
    "webp": ("a compression of which a file must be looked into", lambda path: write(
        path, count=3, compress="webp"
    )),
    "empty value": ("a value that is empty or starts with a space", lambda path: write(
        path, tagged(A="")
    )),
    "value of spaces": ("a value that is empty or starts with a space", lambda path: with_metadata(
        write(path), "b.tif", item(" x", name="A")
    )),
    "own tag": ("tag 65000 of type 3", lambda path: changed(
        write(path), "a.tif", {65000: whole(SHORT, 1)}
    )),
    "one long strip": ("one long strip", lambda path: write(path, height=2001, blockysize=2001)),
    "sparse": ("odd blocks", lambda path: changed(
        write(path, compress=None), "a.tif", {279: whole(SHORT, 0)}
    )),
    "negative height": ("odd georeferencing", lambda path: changed(
        write(path), "a.tif", {33550: doubles(1, -1, 0)}
    )),
    "no resolution": ("an odd resolution", lambda path: changed(
        write(path), "a.tif", {282: whole(RATIONAL, 1, 0)}
    )),
    "imagery": ("metadata of effect", lambda path: with_metadata(
        write(path), "b.tif", item("WV02", name="SATELLITEID", domain="IMAGERY")
    )),
    "nodata values": ("metadata of effect", lambda path: write(path, tagged(NODATA_VALUES="1"))),
    "no xml": ("metadata that GDAL would not write", lambda path: changed(
        write(path), "a.tif", {METADATA_TAG: text_value("<GDALMetadata/>")}
    )),
    "png": ("no TIFF; no JP2", lambda path: write(path, driver="PNG", crs=None, transform=None)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("reason", "make"), HANDED_OVER.values(), ids=HANDED_OVER)
def test_a_file_handed_over(
    tmp_path: Path, both: Both, reason: str, make: Callable[[Path], Path]
) -> None:
    with rasterio.Env(GDAL_PAM_ENABLED=False):
        path = make(tmp_path / "a.tif")
    compared = both.compare(path)
    assert (compared.reason, compared.decoded, compared.differences) == (reason, None, [])
    assert both.readers_of([path]) == ["rasterio"]


def test_texts_that_are_no_utf_8_are_read_fast(tmp_path: Path, both: Both) -> None:
    """Also where the first file of the kind has none; and by GDAL's word, as a VRT has it."""

    def finish(dataset: Any) -> None:
        dataset.update_tags(TIFFTAG_ARTIST="~artist", TITLE="~ title", A="~~")
        dataset.update_tags(1, ORBIT="at ~")
        dataset.descriptions, dataset.units = ("~m",), ("~C",)

    plain = write(tmp_path / "a.tif", finish)
    odd = [tmp_path / "b.tif", tmp_path / "c.tif"]
    for path, byte in zip(odd, (b"\xb5", b"\xe2"), strict=True):
        path.write_bytes(plain.read_bytes().replace(b"~", byte))
    assert both.readers_of([plain, *odd, *odd]) == [TIFF_HEADER] * 5
    record = both.read(odd[0])
    vrt = tmp_path / "a.vrt"
    rasterio.shutil.copy(odd[0], vrt, driver="VRT")
    told = ElementTree.fromstring(vrt.read_bytes().decode("utf-8", "backslashreplace"))
    tags = {one.get("key"): one.text for one in told.iterfind("Metadata[1]/MDI")}
    assert (record.dataset_tags, record.error_message) == (tags, None)
    assert tags["TIFFTAG_ARTIST"] == r"\xb5artist"
    assert record.bands is not None
    (band,) = record.bands
    assert band.description == told.findtext("VRTRasterBand/Description") == r"\xb5m"
    assert band.unit == told.findtext("VRTRasterBand/UnitType") == r"\xb5C"
    assert record.band_tags == {1: {"ORBIT": told.findtext("VRTRasterBand/Metadata/MDI")}}


# What was wrong, or might have been: the second file is of the first one's kind, or was.


def in_order(both: Both, paths: list[Path]) -> None:
    for path in [*paths, *reversed(paths)]:
        both.check(path)
    again = Both()
    for path in reversed(paths):
        again.check(path)


def test_planes_of_one_long_strip_each(tmp_path: Path, both: Both) -> None:
    """GDAL shows strips of more than 2000 rows as rows, in planes too."""
    planes: dict[str, Any] = {"count": 3, "interleave": "band", "width": 8}
    in_order(both, [
        write(tmp_path / f"{rows}.tif", height=rows, blockysize=rows, **planes)
        for rows in (1000, 2000, 2001, 3000)
    ])  # fmt: skip


def test_strips_of_more_rows_than_there_are(tmp_path: Path, both: Both) -> None:
    path = write(tmp_path / "a.tif", blockysize=48)
    in_order(both, [path, *(
        changed(path, f"{rows}.tif", {278: whole(LONG, rows)})
        for rows in (48, 49, 2**31 - 1, 2**31, 2**32 - 48, 2**32 - 2, 2**32 - 1)
    )])  # fmt: skip


def test_tiles_of_many_rows(tmp_path: Path, both: Both) -> None:
    tiles: dict[str, Any] = {"tiled": True, "blockxsize": 16, "width": 16}
    in_order(both, [
        write(tmp_path / f"{rows}.tif", height=rows, blockysize=rows, **tiles)
        for rows in (16, 2000, 2512)
    ])  # fmt: skip


@pytest.mark.parametrize("width", [3, 5, 7, 9, 13, 17, 21, 29, 300])
def test_factors_of_overviews_half_way(tmp_path: Path, both: Both, width: int) -> None:
    """5 columns reduced to 2 are a factor of 2, 7 to 2 are one of 4: halves go to even."""
    in_order(both, [write(tmp_path / "a.tif", overviews(2, 4, 8), width=width, height=300)])
    assert both.compare(tmp_path / "a.tif").differences == []


def test_a_file_smaller_than_its_overviews(tmp_path: Path, both: Both) -> None:
    path = write(tmp_path / "a.tif", overviews(2, 4), blockysize=16)
    in_order(both, [path, *(
        changed(path, f"{width}.tif", {256: whole(SHORT, width)}) for width in (1, 8, 16, 24, 32)
    )])  # fmt: skip


def test_no_bits_a_sample(tmp_path: Path, both: Both) -> None:
    path = write(tmp_path / "a.tif", compress=None)
    in_order(both, [path, changed(path, "b.tif", {258: whole(SHORT, 0)})])


@pytest.mark.parametrize("unit", [0, 1, 2, 3, 4, 7, 65535])
def test_resolution_units(tmp_path: Path, both: Both, unit: int) -> None:
    """libtiff drops those that there are not."""
    path = write(tmp_path / "a.tif", tagged(
        TIFFTAG_XRESOLUTION="72", TIFFTAG_YRESOLUTION="72", TIFFTAG_RESOLUTIONUNIT="2"
    ))  # fmt: skip
    in_order(both, [path, changed(path, "b.tif", {296: whole(SHORT, unit)})])


@pytest.mark.parametrize("ratio", [
    (0, 1), (1, 3), (2**32 - 1, 1), (1, 2**32 - 1), (2**31, 3), (0, 0), (5, 0),
    (300_000_001, 1_000_000), (123_456_789, 1000), (72, 1), (1, 10),
])  # fmt: skip
def test_resolutions(tmp_path: Path, both: Both, ratio: tuple[int, int]) -> None:
    path = write(tmp_path / "a.tif", tagged(TIFFTAG_XRESOLUTION="72"))
    in_order(both, [path, changed(path, "b.tif", {282: whole(RATIONAL, *ratio)})])


ITEMS = {
    "empty domain": item("c", name="A", domain=""),
    "empty domain of a band": item("c", name="A", sample=0, domain=""),
    "scale in a domain": item("5", name="A", sample=0, role="scale", domain="X"),
    "offset in a domain": item("5", name="A", sample=0, role="offset", domain="X"),
    "description in a domain": item("5", name="A", sample=0, role="description", domain="X"),
    "unit in a domain": item("5", name="A", sample=0, role="unittype", domain="X"),
    "colour in a domain": item("red", name="A", sample=0, role="colorinterp", domain="X"),
    "compression": item("FOO", name="COMPRESSION", domain="IMAGE_STRUCTURE"),
    "interleave": item("FOO", name="INTERLEAVE", domain="IMAGE_STRUCTURE"),
    "colour space": item("FOO", name="SOURCE_COLOR_SPACE", domain="IMAGE_STRUCTURE"),
    "pixel type": item("SIGNEDBYTE", name="PIXELTYPE", sample=0, domain="IMAGE_STRUCTURE"),
    "bits": item("1", name="NBITS", sample=0, domain="IMAGE_STRUCTURE"),
    "other role": item("5", name="A", sample=0, role="statistics"),
    "leading zeros": item("5", name="A", sample="0000"),
    "two scales": item("5", name="A", sample=0, role="scale") * 2,
    "same name in other case": item("5", name="A") + item("6", name="a"),
    "nearly the same name": item("5", name="K") + item("6", name="\u212a"),
    "name with space": item("5", name="A B"),
    "name of a space": item("5", name=" "),
    "named entity": item("&amp;lt;&amp;amp;lt;", name="A"),
    "entity": item("&lt;", name="A"),
    "numbered entity": item("&#65;", name="A"),
    "capital entity": item("&AMP;", name="A"),
    "bare ampersand": item("a & b", name="A"),
    "trailing newline": item("a\n", name="A"),
    "carriage return": item("a\r\nb", name="A"),
    "no-break space": item("\u00a0a", name="A"),
    "control": item("\x01\x1f", name="A"),
    "vertical tab": item("\va", name="A"),
    "colon": item("5", name="a:b"),
    "resolution": item("5", name="TIFFTAG_XRESOLUTION"),
    "area": item("Point", name="AREA_OR_POINT"),
    "long": item("x" * 9000, name="A"),
    "comment": "<!-- x -->\n" + item("5", name="A"),
    "no value": '  <Item name="A"/>\n',
}


@pytest.mark.campaign
@pytest.mark.parametrize("items", ITEMS.values(), ids=ITEMS)
def test_items_of_metadata(tmp_path: Path, both: Both, items: str) -> None:
    path = write(tmp_path / "a.tif", tagged(A="b"))
    scaled = with_metadata(path, "s.tif", item("5", name="A", sample=0, role="scale"))
    in_order(both, [path, scaled, with_metadata(path, "b.tif", items)])


NUMBERS = ("5", "0", "-0", "1e400", "-1e400", "1e-400", "12345678901234567890123", "0.1",
           "4.9e-324", "2.4703282292062327e-324", "1.7976931348623159e308", "+5",
           "9007199254740993", "1e23", "8.5e-5", "1.", ".5", "nan", "inf", "0x10", "5 ", "1,5",
           "1d5", "1_0", "\u0665")  # fmt: skip


@pytest.mark.parametrize("role", ["scale", "offset"])
def test_numbers_in_metadata(tmp_path: Path, both: Both, role: str) -> None:
    path = write(tmp_path / "a.tif", tagged(A="b"))
    in_order(both, [
        with_metadata(path, f"{at}.tif", item(number, name="A", sample=0, role=role))
        for at, number in enumerate(NUMBERS)
    ])  # fmt: skip


def test_zeros_of_either_sign_under_a_vertical_crs(tmp_path: Path, both: Both) -> None:
    path = write(tmp_path / "a.tif", crs="EPSG:32633+5773")
    in_order(both, [
        changed(
            path, f"{at}.tif", {33550: doubles(10, 10, z), 33922: doubles(0, 0, k, 5, 5, height)}
        )
        for at, (z, k, height) in enumerate([
            (2, 0, 0.0), (2, 0, -0.0), (2, -0.0, 0.0), (0.0, 0, 7), (-0.0, 0, 7), (1, 3, 7),
            (-1, 3, 7), (1e308, 1e308, 0),
        ])
    ])  # fmt: skip


PLACES = [
    ((10, 10, 0), (0, 0, 0, 5, 5, 0)), ((-10, 10, 0), (0, 0, 0, 5, 5, 0)),
    ((10, 10, 0), (-0.0, -0.0, 0, -0.0, -0.0, 0)), ((10, 10, 0), (3.3, 4.7, 0, 0.1, 0.2, 0)),
    ((1, 1, 0), (0, 0, 0, 0, 0, 0)), ((2, 2, 0), (0, 0, 0, 1, 1, 0)),
    ((1e-320, 1e-320, 0), (0, 0, 0, 0, 0, 0)), ((1e-160, 1e160, 0), (0, 0, 0, 0, 0, 0)),
    ((1e300, 1e300, 0), (1e300, 1e300, 0, 1e300, 0, 0)),
    ((1e308, 1e308, 0), (0, 0, 0, 1e308, 0, 0)),
    ((0.1 + 0.2, 1 / 3, 0), (0.5, 0.5, 0, 1e7 / 3, 1e6 / 7, 0)), ((10, 0, 0), (0, 0, 0, 5, 5, 0)),
    ((0, 10, 0), (0, 0, 0, 5, 5, 0)), ((float("nan"), 1, 0), (0, 0, 0, 5, 5, 0)),
    ((1, 1, 0), (0, 0, 0, float("inf"), 5, 0)),
]  # fmt: skip
MATRICES = [
    (10, 0, 5, 0, -10, 5), (10, 0, 5, 0, 10, 5), (10, -0.0, 5, -0.0, 10, 5), (0, 0, 0, 0, 0, 0),
    (1, 0, 0, 0, 1, 0), (0, 0, 5, 0, 0, 5), (-1, 0, 5, 0, 1, 5), (1, 0, 0, 0, -1, 0),
    (2, 0, 1, 0, 2, 1), (1e200, 0, 0, 0, 1e-200, 0), (1, 1e-9, 0, 1e-9, 1, 0),
]  # fmt: skip


@pytest.mark.parametrize("point", ["Area", "Point"])
def test_places(tmp_path: Path, both: Both, point: str) -> None:
    path = write(tmp_path / "a.tif", tagged(AREA_OR_POINT=point))
    paths = [
        changed(path, f"place-{at}.tif", {33550: doubles(*scale), 33922: doubles(*tie)})
        for at, (scale, tie) in enumerate(PLACES)
    ]
    for at, (a, b, x, d, e, y) in enumerate(MATRICES):
        matrix = doubles(a, b, 0, x, d, e, 0, y, 0, 0, 0, 0, 0, 0, 0, 1)
        changes = {33550: None, 33922: None, 34264: matrix}
        paths.append(changed(path, f"matrix-{at}.tif", changes))
    in_order(both, [path, *paths])


NO_OUTLINE = RPCS
AN_OUTLINE = RPC(**RPCS.to_dict() | {
    "line_num_coeff": [0.0, 0.0, -1.0] + [0.0] * 17, "samp_num_coeff": [0.0, 1.0] + [0.0] * 18
})  # fmt: skip


def test_outlines_of_rpcs(tmp_path: Path, both: Both) -> None:
    """They are no part of the kind, and some have no outline, or set off an error."""
    bare = {"crs": None, "transform": None}
    paths = [
        write(tmp_path / f"{at}.tif", rpcs=rpcs, **bare)
        for at, rpcs in enumerate([NO_OUTLINE, AN_OUTLINE])
    ]
    in_order(both, paths)
    assert [both.check(path).footprint for path in paths] == [None, "rpcs"]


def test_outlines_of_points(tmp_path: Path, both: Both) -> None:
    def points(size: float) -> list[GroundControlPoint]:
        corners = [(0, 0), (0, 64), (48, 0), (48, 64)]
        return [GroundControlPoint(y, x, 10 + size * x, 50 - size * y) for y, x in corners]

    paths = [
        write(tmp_path / f"{at}.tif", crs="EPSG:4326", transform=None, gcps=points(size))
        for at, size in enumerate([0, 0.001])
    ]
    in_order(both, paths)


def test_a_matrix_that_is_no_placement_beside_rpcs(tmp_path: Path, both: Both) -> None:
    path = write(tmp_path / "a.tif", rpcs=AN_OUTLINE)
    in_order(both, [
        changed(path, f"{size}.tif", {33550: None, 33922: None, 34264: doubles(
            size, 0, 0, 0, 0, size, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1
        )}) for size in (2, 1)
    ])  # fmt: skip
    assert both.compare(tmp_path / "1.tif").reason == "a matrix and RPCs"


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 2), (4, 2)])
def test_ycbcr_that_is_not_compressed(
    tmp_path: Path, both: Both, subsampling: tuple[int, int]
) -> None:
    paths = [
        changed(
            write(tmp_path / f"{at}.tif", count=3, compress=None, width=width, height=height),
            f"y{at}.tif",
            {262: whole(SHORT, 6), 530: whole(SHORT, *subsampling)},
        )
        for at, (width, height) in enumerate([(8, 8), (64, 64), (100, 500), (63, 3), (8, 2001)])
    ]
    in_order(both, paths)


def test_blocks_that_are_not_in_the_file(tmp_path: Path, both: Both) -> None:
    path = write(tmp_path / "a.tif", blockysize=8)
    nowhere = Value(LONG, 6, b"\xff" * 24)
    in_order(both, [path, changed(path, "b.tif", {273: nowhere}), changed(path, "c.tif", {
        273: nowhere, 279: nowhere
    })])  # fmt: skip


@pytest.mark.parametrize("text", ["0", "-0", "nan", "-nan", "1e400", "256", "0x1", " 1", "none"])
def test_nodata(tmp_path: Path, both: Both, text: str) -> None:
    path = write(tmp_path / "a.tif", nodata=1)
    in_order(both, [path, changed(path, "b.tif", {NODATA_TAG: text_value(text)})])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_metadata_of_overviews_that_is_broken(tmp_path: Path, both: Both) -> None:
    """GDAL parses that of each IFD; its complaints may not be UTF-8, and rasterio fails then."""
    path = write(tmp_path / "a.tif", overviews(2))
    in_order(both, [path, *(
        changed(path, f"{at}.tif", {METADATA_TAG: Value(ASCII, len(text), text)}, 1)
        for at, text in enumerate([b"<G\xc4></GDALMetadata>\0", b"<GDALMetadata>\0", b"\xff\0"])
    )])  # fmt: skip


# Broken files.


@pytest.mark.campaign
@pytest.mark.timeout(900)
def test_mutants(tmp_path: Path) -> None:
    outcomes = outcomes_of(MUTANT_SCRIPT, tmp_path, SEED, MUTANTS)
    wrong = [one for outcome in outcomes for one in outcome.wrong]
    assert wrong[:10] == [], f"{len(wrong)} files, see {tmp_path}"
    assert sum(outcome.files for outcome in outcomes) >= MUTANTS
    assert sum(outcome.unasked for outcome in outcomes) > MUTANTS / 10


# Sidecars.


WORLD_FILE = "2.0\n0.0\n0.0\n-2.0\n600001.0\n5000001.0\n"
PAM = (
    "<PAMDataset><SRS>EPSG:3035</SRS><GeoTransform>4e6, 0.1, 0, 3e6, 0, -0.1</GeoTransform>"
    "<Metadata><MDI key='ORIGIN'>beside</MDI></Metadata></PAMDataset>"
)
TAB = (
    '!table\n!version 300\nDefinition Table\n  File "a.tif"\n  Type "RASTER"\n'
    '  (600000,5000000) (0,0) Label "1",\n  (600064,5000000) (64,0) Label "2",\n'
    '  (600064,4999936) (64,64) Label "3"\n  Units "m"\n'
)
RPC_TEXT = "".join(
    f"{key}: {value}\n" for key, value in RPCS.to_gdal().items() if "COEFF" not in key
) + "".join(
    f"{key}_COEFF_{at}: {float(at == 1)}\n"
    for key in ("LINE_NUM", "LINE_DEN", "SAMP_NUM", "SAMP_DEN")
    for at in range(1, 21)
)
RPB = "BEGIN_GROUP = IMAGE\n" + "".join(
    f"{key} = {'(' + ', '.join(['1'] * 20) + ')' if key.endswith('Coef') else 1};\n"
    for key in (
        "lineOffset", "sampOffset", "latOffset", "longOffset", "heightOffset", "lineScale",
        "sampScale", "latScale", "longScale", "heightScale", "lineNumCoef", "lineDenCoef",
        "sampNumCoef", "sampDenCoef",
    )
) + "END_GROUP = IMAGE\nEND;\n"  # fmt: skip
IMD = 'BEGIN_GROUP = IMAGE_1\nsatId = "QB02";\nEND_GROUP = IMAGE_1\nEND;\n'
ISD = "<?xml version='1.0'?><isd><IMD><IMAGE><SATID>QB02</SATID></IMAGE></IMD></isd>"
MSP = "<MSP_ROOT>cCodeKA = 47\nb = 1</MSP_ROOT>"
RAPID_EYE = (
    "<re:EarthObservation><gml:using><eop:EarthObservationEquipment><eop:platform><eop:Platform>"
    "<eop:serialIdentifier>RE-1</eop:serialIdentifier></eop:Platform></eop:platform>"
    "</eop:EarthObservationEquipment></gml:using></re:EarthObservation>"
)
PASS = f"{'satellite':<20}EROS-B\n"
SUMMARY = 'Lbi_Satellite="ALOS"\n'
DIMAP = "<Dimap_Document><A>1</A></Dimap_Document>"
DIMAP_RPC = "<Global_RFM><RFM_Validity><LAT_OFF>1</LAT_OFF></RFM_Validity></Global_RFM>"
MTL = (
    'GROUP = L1_METADATA_FILE\nGROUP = PRODUCT_METADATA\nSPACECRAFT_ID = "LANDSAT_8"\n'
    "END_GROUP = PRODUCT_METADATA\nEND_GROUP = L1_METADATA_FILE\nEND\n"
)
ORDER = "===\nSource Image Metadata\n---\nSensor: GeoEye-1\n"
ALOS_RPC, ALOS_HEADER = "1" * 2000, "x"

SIDECARS = [
    ("a.tif", {"a.tif.aux.xml": PAM}), ("a", {"a.aux.xml": PAM}),
    ("x.y.tif", {"x.y.tif.aux.xml": PAM}),
    ("a.tif", {"a.imd": IMD}), ("x.y.tif", {"x.y.imd": IMD}), ("a.tif", {"a.rpb": RPB}),
    ("a.tif", {"a.xml": ISD}), ("a.tif", {"a.xml": MSP}), ("a.tif", {"a_metadata.xml": RAPID_EYE}),
    ("a.tif", {"a_rpc.txt": RPC_TEXT}), ("a.tif", {"a.rpc": RPC_TEXT}), ("a.tif", {"a.pass": PASS}),
    ("x.y.z.tif", {"x.pass": PASS}), ("x.y.z.tif", {"x.y.pass": PASS}), (".x.tif", {".pass": PASS}),
    ("a.tif", {"summary.txt": SUMMARY}), ("a.tif", {"metadata.dim": DIMAP}),
    ("a.tif", {"a_mtl.txt": MTL}), ("a_b4.tif", {"a_mtl.txt": MTL}), ("_B.TIF", {"_mtl.txt": MTL}),
    ("p_1.tif", {"p_1_metadata.txt": ORDER}), ("p_1_rgb_0.tif", {"p_1_metadata.txt": ORDER}),
    ("p_1_PAN_0.tif", {"p_1_metadata.txt": ORDER}),
    ("imgx.tif", {"rpcx.txt": ALOS_RPC, "hdrx.txt": ALOS_HEADER}),
    ("img123x.tif", {"rpcx.txt": ALOS_RPC, "hdrx.txt": ALOS_HEADER}),
    ("img.tif", {"rpc.txt": ALOS_RPC, "hdr.txt": ALOS_HEADER}),
    ("IMG_x_R1C2.tif", {"dim_x_r1c2.xml": DIMAP}), ("IMG_x_R1C2.tif", {"dim_x.xml": DIMAP}),
    ("IMG_x_R1C2.tif", {"rpc_x_r1c2.xml": DIMAP_RPC}), ("IMG_x_R 1C+2a", {"rpc_x.xml": DIMAP_RPC}),
    ("IMG__R1C1.tif", {"rpc_.xml": DIMAP_RPC}),
]  # fmt: skip
WORLD_FILES = [
    ("a.tif", "a.tfw", WORLD_FILE), ("a.tif", "a.tifw", WORLD_FILE), ("a.tif", "a.wld", WORLD_FILE),
    ("a.tif", "a.tab", TAB), ("x.y.tif", "x.y.tfw", WORLD_FILE), ("a.tiff", "a.tiffw", WORLD_FILE),
    ("a.dat", "a.dtw", WORLD_FILE), ("a.dat", "a.datw", WORLD_FILE), ("a", "a.wld", WORLD_FILE),
]  # fmt: skip
UNRELATED = [
    "scan.bmp", "Thumbs.db", "readme.docx", "x.laz", "old.bak", ".lock", "other.hgt", "other.hdr",
    "report.pdf", "preview.jpg", ".DS_Store", "desktop.ini", "a.hdr", "a.bak", "a.tif.bak", "a.laz",
    "README", "readme.txt", "a.json", "b.tif", "a.jp2", "a.zip", "license.txt", "a.JSON", "a",
    "a.tif.md5", "a.txt", "a.pvl", "a.tif.xml", "a.tif.tfw", "a.tif.imd", "a.ovr", "a.msk", "a.w",
    "a.fw", "a.twf", "a.aux.xml", "a_rpc.tif", "a_mtl.xml", "a_metadata.dim", "metadata.xml",
    "manifest.xml", "summary.txt.bak", "xsummary.txt", "xmetadata.dim", "dim_a.xml", "rpca.txt",
    "hdra.txt", "aa.tfw", "b.tfw", "b.imd", "b.tif.aux.xml", "b_mtl.txt", "b_metadata.txt",
    "b_rpc.txt", "ab_mtl.txt", "pass", "a.b.pass", "b.xml", "a.tif.rpc", "a.prj", "a.tif.wld",
]  # fmt: skip
"""Next to a.tif."""

NOT_PLACED = {"crs": None, "transform": None}


def with_and_without(
    folder: Path, raster: str, beside: dict[str, str], **kind: Any
) -> tuple[Path, dict[str, Any]]:
    """Return a raster next to other files, and what they change in rasterio's record."""
    folder.mkdir(exist_ok=True)
    path = folder / raster
    written = write(folder / "written.tif", **kind)
    written.rename(path)
    reader = RasterioReader(None)
    with reader.environment():
        alone = reader.read(os.fsencode(path))
        for name, content in beside.items():
            path.with_name(name).write_text(content)
        return path, differing(alone, reader.read(os.fsencode(path)))


def neighbours(path: Path) -> Neighbours:
    return Folders().neighbours(os.fsencode(path))


def in_any_spelling(
    folder: Path, both: Both, raster: str, beside: dict[str, str], concern: Neighbours, **kind: Any
) -> None:
    """Check that files are sidecars, which change what rasterio says in some spelling at least."""
    found = []
    for spelled in (str.lower, str.upper, str.title):
        named = {spelled(name): content for name, content in beside.items()}
        path, changes = with_and_without(folder / spelled.__name__, raster, named, **kind)
        found.append(changes)
        assert neighbours(path) is concern
        assert both.check(path).reader == "rasterio"
        reason = both.compare(path).reason or ""
        assert reason == f"sidecar file {spelled(next(iter(beside)))}"
    assert any(found)


@pytest.mark.campaign
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("raster", "beside"), SIDECARS)
def test_a_file_that_changes_what_gdal_says_is_a_sidecar(
    tmp_path: Path, both: Both, raster: str, beside: dict[str, str]
) -> None:
    in_any_spelling(tmp_path, both, raster, beside, Neighbours.SIDECARS)


@pytest.mark.parametrize(("raster", "beside", "content"), WORLD_FILES)
def test_world_files_count_for_rasters_that_do_not_say_where_they_are(
    tmp_path: Path, both: Both, raster: str, beside: str, content: str
) -> None:
    files = {beside: content}
    in_any_spelling(tmp_path, both, raster, files, Neighbours.WORLD_FILES, **NOT_PLACED)


@pytest.mark.parametrize("transform", [
    from_origin(500_000, 5_000_000, 10, 10), from_origin(0, 0, 1, 1), from_origin(0, 0, 1, -1),
    from_origin(0, 0, 1e-9, 1e-9),
])  # fmt: skip
@pytest.mark.parametrize(("raster", "beside", "content"), WORLD_FILES)
def test_world_files_say_nothing_of_rasters_that_say_where_they_are(
    tmp_path: Path, both: Both, raster: str, beside: str, content: str, transform: Any
) -> None:
    path, _ = with_and_without(tmp_path, raster, {beside: content}, transform=transform)
    both.check(path)
    if transform.a == 10:
        assert both.check(path).reader == TIFF_HEADER
        assert both.compare(path).reason is None


@pytest.mark.parametrize("name", UNRELATED)
def test_unrelated_files_cost_nothing(tmp_path: Path, both: Both, name: str) -> None:
    path, changes = with_and_without(tmp_path, "a.tif", {name: IMD + WORLD_FILE}, **NOT_PLACED)
    assert changes == {}
    assert neighbours(path) is Neighbours.FILES
    assert both.readers_of([path, path]) == [TIFF_HEADER] * 2
    assert both.compare(path).reason is None


def test_overviews_and_masks_beside(tmp_path: Path, both: Both) -> None:
    path = write(tmp_path / "a.tif")
    shutil.copy(path, tmp_path / "a.tif.ovr")
    masked = write(tmp_path / "b.tif")
    mask = write(tmp_path / "m.tif", tagged(INTERNAL_MASK_FLAGS_1="2"), crs=None, transform=None)
    mask.rename(tmp_path / "b.tif.msk")
    assert both.readers_of([path, masked]) == ["rasterio"] * 2
    bands = both.read(path).bands
    assert bands is not None
    assert bands[0].overviews == [1]


def test_overviews_in_an_aux_file(tmp_path: Path, both: Both) -> None:
    """As of old: in a file of another format that names the raster."""
    path = write(tmp_path / "a.tif")
    with rasterio.Env(USE_RRD=True), rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2], Resampling.nearest)
    assert (tmp_path / "a.aux").exists()
    assert neighbours(path) is Neighbours.SIDECARS
    bands = both.check(path).bands
    assert bands is not None
    assert bands[0].overviews == [2]


SCENES = {
    "Landsat, collection 1": (
        {"LC08_L1_MTL.txt": MTL, "LC08_L1_ANG.txt": "x", "LC08_L1_T.jpg": "x", "README.GTF": "x"},
        {"LC08_L1_B1.TIF": False, "LC08_L1_BQA.TIF": False},
    ),
    "Landsat, collection 2": (
        {"LC09_L2_MTL.txt": MTL, "LC09_L2_MTL.xml": "<x/>", "LC09_L2_MTL.json": "{}",
         "LC09_L2_thumb_large.jpeg": "x", "LC09_L2_SR_stac.json": "{}", "LC09_L2_ANG.txt": "x"},
        {"LC09_L2_SR_B1.TIF": True, "LC09_L2_QA_PIXEL.TIF": True, "LC09_L2_ST_QA.TIF": True},
    ),
    "Sentinel-2": (
        {"MTD_MSIL2A.xml": "<x/>", "manifest.safe": "x", "INSPIRE.xml": "<x/>", "tile.kml": "x",
         "S2_B02.tif.md5": "x", "S2-ql.jpg": "x", "MTD_TL.xml": "<x/>"},
        {"S2_B02.tif": True, "S2_SCL.tif": True},
    ),
    "PDFs and previews": (
        {"report.pdf": "x", "a.pdf": "x", "a.png": "x", "a.bmp": "x", "a_preview.gif": "x",
         "a.docx": "x", "readme.txt": "x", "a.laz": "x", "a.txt": "x", "a.tif.xml": "<x/>"},
        {"a.tif": True, "b.tif": True},
    ),
    "SPOT": ({"METADATA.DIM": DIMAP, "ICON.JPG": "x"}, {"IMAGERY.TIF": False, "a.tif": False}),
}  # fmt: skip


@pytest.mark.parametrize(("beside", "rasters"), SCENES.values(), ids=SCENES)
def test_scenes_are_read_the_fastest_way_that_is_right(
    tmp_path: Path, both: Both, beside: dict[str, str], rasters: dict[str, bool]
) -> None:
    for name, content in beside.items():
        (tmp_path / name).write_text(content)
    paths = [write(tmp_path / name) for name in rasters]
    assert both.readers_of(paths) == [
        TIFF_HEADER if decoded else "rasterio" for decoded in rasters.values()
    ]


@pytest.mark.parametrize("name", ["x\\a.tif", "IMAGERY.TIF"])
def test_rasters_for_which_gdal_looks_elsewhere_are_rasterio_s(
    tmp_path: Path, both: Both, name: str
) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x\\METADATA.DIM").write_text(DIMAP)
    (tmp_path / "x" / "a.tfw").write_text(WORLD_FILE)
    for path in (tmp_path / name, tmp_path / "x" / name):
        write(tmp_path / "written", **NOT_PLACED).rename(path)
        assert both.check(path).reader == "rasterio"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("both")  # its environment
def test_sidecars_in_a_folder_that_gdal_does_not_list(tmp_path: Path) -> None:
    """It asks for each name there, in some spellings."""
    for number in range(GDAL_MAX_NAMES):
        (tmp_path / f"{number}.bmp").touch()
    for number, (raster, beside) in enumerate(SIDECARS):
        if raster.startswith("a") and len(beside) == 1 and not raster.startswith("a_"):
            path = write(tmp_path / "written").rename(tmp_path / f"n{number}{raster[1:]}")
            ((name, content),) = beside.items()
            spelled = name.upper() if number % 2 else name
            path.with_name(spelled.replace("a", f"n{number}", 1)).write_text(content)
            alone = write(tmp_path / "alone").rename(tmp_path / f"m{number}.tif")
            for one in (path, alone):
                Both().check(one)  # which knows nothing of the folder as it was


WORDS = st.sampled_from(
    ["a", "b", "IMG", "rpc", "hdr", "dim", "_", "_B1", "_b", "_rgb_", "_PAN_0", "_R1C2", ".", "12"]
)
STEMS = st.lists(WORDS, min_size=1, max_size=4).map("".join)
BESIDE = {
    **dict.fromkeys([".aux.xml", ".tif.aux.xml", ".tif.AUX.XML"], PAM),
    **dict.fromkeys([".tfw", ".TFW", ".wld", ".tifw", ".Wld"], WORLD_FILE),
    **dict.fromkeys(["_rpc.txt", "_RPC.TXT", ".rpc", ".tif.rpc"], RPC_TEXT),
    ".imd": IMD, ".IMD": IMD, ".rpb": RPB, ".RPB": RPB, ".xml": ISD, ".XML": MSP, ".tif.xml": ISD,
    "_metadata.xml": RAPID_EYE, "_metadata.txt": ORDER, "_METADATA.txt": ORDER, "_MTL.txt": MTL,
    "_mtl.TXT": MTL, ".pass": PASS, ".PASS": PASS, ".txt": ALOS_RPC, ".pvl": IMD, ".bmp": "x",
    ".hdr": "x", ".bak": PAM,
}  # fmt: skip
OTHERS = st.sampled_from(
    [("Thumbs.db", "x"), ("summary.txt", "x"), ("SUMMARY.TXT", SUMMARY), ("metadata.dim", DIMAP)]
)


@st.composite
def folders_of_names(draw: st.DrawFn) -> tuple[list[str], dict[str, str]]:
    """Return names of rasters, and names and contents of files that look like sidecars of them."""
    stems = draw(st.lists(STEMS, min_size=1, max_size=3, unique_by=str.lower))
    rasters = [stem + draw(st.sampled_from([".tif", ".TIF", ".tiff"])) for stem in stems]
    beside = dict(draw(st.lists(OTHERS, max_size=1)))
    for _ in range(draw(st.integers(0, 4))):
        stem = draw(st.sampled_from(stems) | STEMS)
        before = draw(st.sampled_from(["", "", "", "DIM_", "RPC_", "rpc", "hdr"]))
        stem = stem[draw(st.sampled_from([3, 4, 6])) :] if before else stem
        stem = stem[: draw(st.sampled_from([len(stem), len(stem), stem.rfind("_"), 2]))]
        ending = draw(st.sampled_from(sorted(BESIDE)))
        content = DIMAP if before == "DIM_" else DIMAP_RPC if before == "RPC_" else BESIDE[ending]
        beside[before + stem + ending] = content
    return rasters, {name: text for name, text in beside.items() if name not in rasters}


@pytest.mark.campaign
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60)
@given(names=folders_of_names(), placed=st.booleans())
def test_any_names_next_to_rasters(names: tuple[list[str], dict[str, str]], placed: bool) -> None:
    rasters, beside = names
    both = Both()
    with TemporaryDirectory() as place, both.reader.environment():
        folder = Path(place)
        for name, content in beside.items():
            (folder / name).write_text(content)
        for name in rasters:
            written = write(folder / "written", **({} if placed else NOT_PLACED))
            both.check(written.rename(folder / name))


ASKING = """
import sys, warnings, rasterio
warnings.simplefilter("ignore")
with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE"), rasterio.open(sys.argv[1]) as file:
    file.tags(), file.tags(ns="IMAGERY"), file.tags(ns="RPC"), file.gcps, file.rpcs
    file.overviews(1), file.mask_flag_enums
"""
ONLY_WITH_OTHERS = re.compile(r"(?i)hdr.*\.txt|.*\.pvl")
"""What metadata GDAL takes only together with a file that is a sidecar by itself; the other ending
of that sort is that of ``a.txt``."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [
    "a.tif", "x.y.z.TIF", "IMG_x_R1C2_B3.tif", "IMG_x_R1C2.tif", "p_1_rgb_0.tiff", "b.dat", "c",
    "d.t",
])  # fmt: skip
def test_each_name_that_gdal_asks_for_is_a_sidecar(tmp_path: Path, name: str) -> None:
    """As strace(1) tells."""
    path = write(tmp_path / "written.tif", **NOT_PLACED).rename(tmp_path / name)
    trace = ["strace", "-f", "-e", "trace=file", sys.executable, "-c", ASKING, str(path)]
    done = subprocess.run(trace, stderr=subprocess.PIPE, check=True)
    asked = set(re.findall(re.escape(f'"{tmp_path}/') + '([^"/]+)"', done.stderr.decode())) - {name}
    assert len(asked) > 30
    place = tmp_path / "one"
    for other in asked:
        place.mkdir()
        (place / other).touch()
        alone = other.lower() == f"{path.stem}.txt".lower() or ONLY_WITH_OTHERS.fullmatch(other)
        assert (neighbours(place / name) is Neighbours.FILES) == bool(alone), other
        shutil.rmtree(place)


def test_sidecars_of_others_cost_a_file_nothing(tmp_path: Path, both: Both) -> None:
    (tmp_path / "b.tfw").write_text(WORLD_FILE)
    (tmp_path / "b.tif.aux.xml").write_text(PAM)
    path, other = write(tmp_path / "a.tif"), write(tmp_path / "b.tif")
    assert both.readers_of([path, other, path]) == [TIFF_HEADER, "rasterio", TIFF_HEADER]


def test_nothing_concerns_a_file_alone(tmp_path: Path) -> None:
    (tmp_path / "b.tif").touch()
    (tmp_path / "a.tif.d").mkdir()
    path = os.fsencode(tmp_path / "a.tif")
    assert Folders().neighbours(path) is Neighbours.FILES
    (tmp_path / "link.tif").symlink_to("b.tif")
    assert Folders().neighbours(path) is Neighbours.OTHERS


def test_links_are_followed(tmp_path: Path, both: Both) -> None:
    path = write(tmp_path / "a.tif")
    links = [tmp_path / "link.tif", tmp_path / "folder.tif", tmp_path / "nowhere.tif"]
    for link, target in zip(links, ("a.tif", ".", "missing"), strict=True):
        link.symlink_to(target)
    assert both.readers_of([path, links[0], links[0]]) == [TIFF_HEADER] * 3
    assert [both.check(link).status for link in links[1:]] == ["error"] * 2


def test_a_folder_that_cannot_be_listed_may_hold_anything(tmp_path: Path) -> None:
    assert neighbours(tmp_path / "missing" / "a.tif") is Neighbours.SIDECARS


def test_a_folder_of_many_sidecars_concerns_all(tmp_path: Path) -> None:
    for number in range(MAX_KEPT // 4):
        (tmp_path / f"{number}.tfw").touch()
    assert neighbours(tmp_path / "c.tif") is Neighbours.FILES
    (tmp_path / "more.tfw").touch()
    assert neighbours(tmp_path / "c.tif") is Neighbours.SIDECARS


def test_a_bare_name_is_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, both: Both
) -> None:
    write(tmp_path / "a.tif")
    (tmp_path / "b.tfw").touch()
    monkeypatch.chdir(tmp_path)
    assert both.readers_of([Path("a.tif")] * 2) == [TIFF_HEADER] * 2
    assert Folders().neighbours(b"b.tif") is Neighbours.WORLD_FILES
    assert Folders().neighbours(b"/nowhere/at/all.tif") is Neighbours.SIDECARS


# Learning.


def test_rasterio_is_asked_once_a_kind(tmp_path: Path, both: Both) -> None:
    first = [write(tmp_path / f"a{at}.tif", width=10 + at, height=20 * at + 1) for at in range(5)]
    second = [write(tmp_path / f"b{at}.tif", dtype="int16", nodata=at) for at in (1, 1, 2)]
    records = [both.read(path) for path in [*first, *second, *first]]
    assert {record.reader for record in records} == {TIFF_HEADER}
    assert both.asked == 3
    assert [record.width for record in records[:5]] == [10, 11, 12, 13, 14]


def test_kinds_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, both: Both) -> None:
    monkeypatch.setattr("rastermeta_async.readers.learning.MAX_TEMPLATES", 3)
    paths = [write(tmp_path / f"{at}.tif", nodata=at) for at in range(8)]
    for path in paths:
        both.check(path)
        assert len(both.templates) <= 3
    assert both.asked == 8


def test_bands_kept_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, both: Both
) -> None:
    monkeypatch.setattr("rastermeta_async.readers.geotiff.template.MAX_BANDS_KEPT", 4)
    paths = [write(tmp_path / f"{at}.tif", width=10 + at, count=2) for at in range(8)]
    assert both.readers_of([*paths, *paths]) == [TIFF_HEADER] * 16
    (kind,) = both.templates.values()
    assert kind is not None
    assert len(kind._bands) <= 2


def test_a_kind_that_is_not_understood_is_never_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, both: Both
) -> None:
    paths = [write(tmp_path / f"{at}.tif", width=10 + at) for at in range(3)]
    read = RasterioReader.read

    def odd(self: RasterioReader, path: bytes, **options: bool) -> Record:
        return read(self, path, **options)._replace(height=7)

    monkeypatch.setattr(RasterioReader, "read", odd)
    assert [both.read(path).height for path in paths] == [7, 7, 7]
    assert list(both.templates.values()) == [None]
    assert both.compare(paths[0]).differences != []
    monkeypatch.undo()
    assert [both.read(path).reader for path in paths] == ["rasterio"] * 3


def test_what_rasterio_has_a_problem_with_is_not_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, both: Both
) -> None:
    path = write(tmp_path / "a.tif")
    read = RasterioReader.read

    def odd(self: RasterioReader, path: bytes, **options: bool) -> Record:
        return read(self, path, **options)._replace(error_type="PartlyRead")

    monkeypatch.setattr(RasterioReader, "read", odd)
    assert both.read(path).reader == "rasterio"
    assert list(both.templates.values()) == [None]
    compared = both.compare(path)
    assert (compared.decoded, compared.reason) == (None, "rasterio has a problem with the file")


def test_comparison(tmp_path: Path, both: Both) -> None:
    path = write(tmp_path / "a.tif", nodata=float("nan"), dtype="float32")
    compared = both.compare(path)
    assert compared.decoded is not None
    assert (compared.reason, compared.differences) == (None, [])
    assert (compared.rasterio.reader, compared.decoded.reader) == ("rasterio", TIFF_HEADER)
    assert told(compared.rasterio) == told(compared.decoded)
    other = compared._replace(decoded=compared.decoded._replace(width=1, crs=None))
    assert other.differences == ["crs", "width"]
    assert compared._replace(decoded=None).differences == []
    assert both.templates == {}


def test_nan_is_no_difference_and_minus_zero_is_one(tmp_path: Path) -> None:
    """Also in `bands`, and after a way through Arrow, which makes a new NaN of each."""
    path = write(tmp_path / "a.tif", nodata=float("nan"), dtype="float32", count=2)
    compared = compare_readers(path)
    assert compared.decoded is not None
    assert math.isnan(compared.decoded.nodata or 0)
    assert compared.differences == []
    band = (compared.decoded.bands or [])[0]
    for ours, theirs in ((0.0, -0.0), (math.nan, 0.0), (math.nan, None)):
        decoded = compared.decoded._replace(nodata=ours, bands=[band._replace(offset=ours)])
        rasterio = compared.rasterio._replace(nodata=theirs, bands=[band._replace(offset=theirs)])  # type: ignore[arg-type]
        assert Comparison(rasterio, decoded, None).differences == ["nodata", "bands"]


def test_a_kind_with_nan_in_its_bands_is_learnt(tmp_path: Path, both: Both) -> None:
    paths = [write(tmp_path / f"{at}.tif", nodata=math.nan, dtype="float32") for at in range(2)]
    assert both.readers_of(paths) == [TIFF_HEADER] * 2
    assert both.asked == 1


@pytest.mark.parametrize(("dtype", "text"), [
    ("float32", "-nan"), ("int64", "9223372036854775807"), ("uint64", "18446744073709551615")
])  # fmt: skip
def test_nodata_that_rasterio_gets_wrong_is_right_from_both_readers(
    tmp_path: Path, both: Both, dtype: str, text: str
) -> None:
    nodata: dict[int, Value | None] = {NODATA_TAG: text_value(text)}
    plain = [write(tmp_path / f"plain-{at}.tif", width=10 + at, dtype=dtype) for at in range(2)]
    paths = [changed(path, path.name[6:], nodata) for path in plain]
    assert both.readers_of(paths) == [TIFF_HEADER] * 2
    band = (both.read(paths[1]).bands or [])[0]
    assert (band.nodata_text, repr(band.nodata)) == (
        ("nan", "nan") if dtype == "float32" else (text, repr(float(text)))
    )


def folder(path: Path) -> None:
    path.mkdir()


def two_pages(path: Path) -> None:
    write(path)
    write(path, APPEND_SUBDATASET="YES")


def several_sidecars(path: Path) -> None:
    write(path)
    for name in ("a.tif.aux.xml", "a.IMD", "a.tfw", "a.ovr.txt", "notes.csv", "b.tfw"):
        path.with_name(name).touch()


def netcdf_with_sidecars(path: Path) -> None:
    rasterio.shutil.copy(str(write(path.with_name("of.tif"))), str(path), driver="netCDF")
    path.with_name("a.tif.aux.xml").touch()


NOT_DECODED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "missing": ("No such file or directory", lambda path: path.with_name("a.tfw").touch()),
    "folder": ("this is a folder, not a file: to have it walked, give it as an argument", folder),
    "pipe": ("this is a named pipe, not a file", os.mkfifo),
    "text": ("no TIFF; no JP2", lambda path: path.write_text("text")),
    "netCDF": ("no TIFF; no JP2", netcdf_with_sidecars),
    "pages": ("several pages", two_pages),
    "cut": ("values outside the file or all over it", lambda path: os.truncate(write(path), 100)),
    "sidecars": ("sidecar files a.IMD, a.tif.aux.xml", several_sidecars),
}  # fmt: skip


@pytest.mark.parametrize(("reason", "make"), NOT_DECODED.values(), ids=NOT_DECODED)
def test_why_a_file_is_not_decoded_is_told_truly(
    tmp_path: Path, reason: str, make: Callable[[Path], object]
) -> None:
    path = tmp_path / "a.tif"
    make(path)
    assert (compare_readers(path).reason, compare_readers(path).decoded) == (reason, None)


@pytest.mark.parametrize(("drivers", "kind"), [
    (None, Router), ([], Router), (["GTiff"], Router), (["PNG", "GTiff"], Router),
    (["PNG"], RasterioReader), (["COG"], RasterioReader),
])  # fmt: skip
def test_only_where_gtiff_may_open_files(drivers: list[str] | None, kind: type) -> None:
    assert type(make_reader(drivers)) is kind


def test_colours_and_units_are_part_of_the_kind(tmp_path: Path, both: Both) -> None:
    def about(colour: ColorInterp, unit: str) -> Callable[[Any], None]:
        def then(dataset: Any) -> None:
            dataset.colorinterp = [colour, ColorInterp.undefined]
            dataset.units = (unit, "")

        return then

    kinds = [(ColorInterp.red, "K"), (ColorInterp.gray, "K"), (ColorInterp.red, "m")]
    paths = [write(tmp_path / f"{at}.tif", about(*kind), count=2) for at, kind in enumerate(kinds)]
    in_order(both, paths)


# What cannot be read.


def test_errors_are_rasterio_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, both: Both) -> None:
    os.mkfifo(tmp_path / "pipe.tif")
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "empty.tif").touch()
    (tmp_path / "short.tif").write_bytes(b"II*\0\x08\0\0\0")
    (tmp_path / "text.tif").write_text("not a raster at all\n")
    path = write(tmp_path / "a.tif")
    (tmp_path / "cut.tif").write_bytes(path.read_bytes()[:60])
    names = ("missing", "pipe", "folder", "empty", "short", "text", "cut")
    assert both.readers_of([path]) == [TIFF_HEADER]
    for name in names:
        record = both.check(tmp_path / f"{name}.tif")
        assert record.status == "error"
    for name in ("a\0b.tif", "a\0b/c.tif"):
        assert both.read(Path(name)).error_type == "InvalidName"


def test_a_forbidden_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, both: Both) -> None:
    """As root, any file can be opened: so the system's answer is made up."""
    path = write(tmp_path / "a.tif")
    (tmp_path / "b.tif").touch()
    both.check(path)
    opened = os.open

    def refusing(given: Any, *args: Any, **options: Any) -> int:
        if os.fsencode(given).endswith(b"b.tif"):
            raise PermissionError(13, "Permission denied", given)
        return opened(given, *args, **options)

    monkeypatch.setattr(os, "open", refusing)
    record = both.check(tmp_path / "b.tif")
    assert (record.status, record.error_type) == ("fatal", "PermissionError")
    assert stat.S_ISREG((tmp_path / "b.tif").stat().st_mode)


def test_a_disk_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, both: Both
) -> None:
    path = write(tmp_path / "a.tif")
    both.check(path)

    def failing(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", failing)
    with pytest.raises(Unsupported, match="no answer from the disk"):
        both.reader.decode_file(os.fsencode(path))
    assert both.check(path).reader == "rasterio"


@pytest.mark.parametrize("name", [b"r\xff\xfe.tif", "räster.tif".encode(), b"new\nline.tif"])
def test_names(tmp_path: Path, both: Both, name: bytes) -> None:
    path = os.fsencode(write(tmp_path / "a.tif")).replace(b"a.tif", name)
    shutil.copy2(os.fsencode(tmp_path / "a.tif"), path)
    for _ in range(2):
        record = both.reader.read(path)
        assert differing(record, both.reference.read(path)) == {}
        assert record.reader == TIFF_HEADER
