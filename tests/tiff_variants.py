"""GeoTIFFs of all sorts, written by GDAL; TIFFs taken apart and put together; broken ones."""

from __future__ import annotations

import random
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.rpc import RPC
from rasterio.transform import Affine, from_origin

from rastermeta_async.model.record import Record
from rastermeta_async.readers.rasterio_reader import RasterioReader

# TIFFs taken apart and put together.

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, DOUBLE, LONG8 = 1, 2, 3, 4, 5, 7, 12, 16
ITEM_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
              16: 8, 17: 8, 18: 8}  # fmt: skip
METADATA_TAG, NODATA_TAG = 42112, 42113


@dataclass(frozen=True)
class Value:
    """What an entry says: its type, how many values, and their bytes in the file's order."""

    type: int
    count: int
    content: bytes


Ifd = dict[int, Value]


@dataclass(frozen=True)
class Form:
    """How a TIFF stores numbers."""

    sign: str
    big: bool

    @property
    def count(self) -> struct.Struct:
        return struct.Struct(self.sign + ("Q" if self.big else "H"))

    @property
    def offset(self) -> struct.Struct:
        return struct.Struct(self.sign + ("Q" if self.big else "I"))

    @property
    def entry(self) -> struct.Struct:
        """Tag, type, count and value."""
        return struct.Struct(self.sign + ("HHQ8s" if self.big else "HHI4s"))

    @property
    def head(self) -> bytes:
        """All up to the first offset."""
        magic, number = (b"II", 42) if self.sign == "<" else (b"MM", 42)
        if self.big:
            return magic + struct.pack(self.sign + "HHH", 43, 8, 0)
        return magic + struct.pack(self.sign + "H", number)


def form_of(content: bytes) -> Form:
    sign = "<" if content[:2] == b"II" else ">"
    return Form(sign, struct.unpack(sign + "H", content[2:4]) == (43,))


def number_value(form: Form, kind: int, *numbers: float) -> Value:
    """Return numbers as a value; of rationals both parts are to be given."""
    letter = {1: "B", 3: "H", 4: "I", 5: "I", 12: "d", 16: "Q"}[kind]
    content = struct.pack(f"{form.sign}{len(numbers)}{letter}", *numbers)
    return Value(kind, len(content) // ITEM_BYTES[kind], content)


def text_value(text: str) -> Value:
    content = text.encode() + b"\0"
    return Value(ASCII, len(content), content)


def ifds_of(content: bytes) -> list[Ifd]:
    """Return the IFDs of a file that is in order."""
    form = form_of(content)
    found: list[Ifd] = []
    (offset,) = form.offset.unpack_from(content, len(form.head))
    while offset:
        (count,) = form.count.unpack_from(content, offset)
        at = offset + form.count.size
        ifd: Ifd = {}
        for _ in range(count):
            tag, kind, values, field_ = form.entry.unpack_from(content, at)
            length = values * ITEM_BYTES[kind]
            if length > len(field_):
                (start,) = form.offset.unpack(field_)
                ifd[tag] = Value(kind, values, content[start : start + length])
            else:
                ifd[tag] = Value(kind, values, field_[:length])
            at += form.entry.size
        found.append(ifd)
        (offset,) = form.offset.unpack_from(content, at)
    return found


def assembled(form: Form, ifds: Sequence[Ifd], start: bytes = b"") -> bytes:
    """Return a TIFF of these IFDs, one after the other, each followed by its values.

    What is in `start` (a file, whose first offset is replaced) stays where it is.
    """
    head = len(form.head) + form.offset.size
    content = bytearray(start or form.head.ljust(head, b"\0"))
    link = len(form.head)
    for ifd in ifds:
        content += bytes(-len(content) % 8)
        content[link : link + form.offset.size] = form.offset.pack(len(content))
        entries, values = bytearray(form.count.pack(len(ifd))), bytearray()
        length = form.count.size + form.entry.size * len(ifd) + form.offset.size
        for tag, value in sorted(ifd.items()):
            field_ = value.content
            if len(field_) > form.offset.size:
                values += bytes(-(len(content) + length + len(values)) % 8)
                field_ = form.offset.pack(len(content) + length + len(values))
                values += value.content
            entries += form.entry.pack(tag, value.type, value.count, field_)
        link = len(content) + len(entries)
        content += entries + bytes(form.offset.size) + values
    return bytes(content)


def edited(content: bytes, changes: dict[int, Value | None], ifd: int = 0) -> bytes:
    """Return a file with other values in one of its IFDs; None removes an entry."""
    ifds = ifds_of(content)
    for tag, value in changes.items():
        ifds[ifd].pop(tag, None)
        if value:
            ifds[ifd][tag] = value
    return assembled(form_of(content), ifds, content)


# What GDAL writes.

FILES_A_FOLDER = 250
"""Fewer than GDAL lists (GDAL_MAX_NAMES), as a small archive has."""


@dataclass
class Variant:
    """One file to be written: creation options, and what is to be done to the open dataset."""

    name: str
    rng: random.Random
    profile: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    steps: list[Callable[[Any], None]] = field(default_factory=list)
    data: bool = False
    """Whether there are pixels; else the file is sparse."""
    nodata: str = ""
    """Text to be put into the file afterwards: rasterio refuses what is out of range."""


Option = Callable[[Variant], None]


def having(**profile: Any) -> Option:
    """Return an option that is creation options alone."""
    return lambda variant: variant.profile.update(profile)


def under(**config: Any) -> Option:
    """Return an option that is GDAL configuration alone."""
    return lambda variant: variant.config.update(config)


def doing(step: Callable[[Any], None]) -> Option:
    """Return an option that is done to the open dataset."""
    return lambda variant: variant.steps.append(step)


def both(*options: Option) -> Option:
    def chosen(variant: Variant) -> None:
        for option in options:
            option(variant)

    return chosen


def nothing(variant: Variant) -> None:
    """Leave the file as it is."""


def with_data(variant: Variant) -> None:
    variant.data = True


DTYPES: list[Option] = [
    *(having(dtype=dtype) for dtype in (
        "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32",
        "float64", "complex64", "complex128", "complex_int16",
    )),
    *(having(dtype="uint8", nbits=bits) for bits in (1, 2, 4)),
    having(dtype="uint16", nbits=12),
    having(dtype="float32", nbits=16),
]  # fmt: skip
COUNTS: list[Option] = [having(count=count) for count in (1, 2, 3, 4, 5, 13)]
COMPRESSIONS: list[Option] = [
    nothing,
    both(nothing, with_data),
    *(having(compress=name) for name in ("lzw", "deflate", "packbits", "zstd", "lzma")),
    *(having(compress=name, predictor=2) for name in ("lzw", "deflate", "zstd")),
    having(compress="deflate", predictor=3, dtype="float32"),
    *(having(compress=name, max_z_error=0.01, dtype="float32")
      for name in ("lerc", "lerc_zstd", "lerc_deflate")),
    having(compress="jpeg", dtype="uint8"),
    both(having(compress="jpeg", dtype="uint8", count=3, photometric="ycbcr"), with_data),
    having(compress="jpeg", dtype="uint8", count=3, photometric="rgb"),
    both(having(compress="webp", dtype="uint8", count=3), with_data),
    having(compress="ccittfax4", dtype="uint8", nbits=1, count=1),
]  # fmt: skip
INTERLEAVES: list[Option] = [having(interleave="pixel"), having(interleave="band")]
LAYOUTS: list[Option] = [
    nothing,
    *(having(blockysize=rows) for rows in (1, 2, 7, 64, 1000, 100_000)),
    *(having(tiled=True, blockxsize=x, blockysize=y)
      for x, y in ((16, 16), (16, 64), (128, 32), (256, 256), (512, 16))),
]  # fmt: skip
SIZES: list[Option] = [
    having(width=width, height=height)
    for width, height in (
        (1, 1), (1, 2), (2, 1), (3, 3), (5, 7), (5, 300), (16, 16), (17, 15), (31, 33), (64, 64),
        (100, 80), (255, 257), (256, 256), (257, 255), (300, 5), (511, 512), (600, 400),
        (3, 1999), (3, 2000), (3, 2001), (20, 2512), (2500, 20), (9000, 3), (5, 5000), (1, 8193),
    )
]  # fmt: skip
BYTE_ORDERS: list[Option] = [nothing, having(endianness="big")]
SIZES_OF_OFFSETS: list[Option] = [nothing, having(bigtiff="yes")]
PHOTOMETRICS: list[Option] = [
    nothing,
    having(photometric="miniswhite", count=1),
    having(photometric="minisblack"),
    having(photometric="rgb", count=3, dtype="uint8"),
    having(photometric="rgb", count=4, dtype="uint8"),
    having(photometric="rgb", count=4, dtype="uint16", alpha="yes"),
    having(photometric="cmyk", count=4, dtype="uint8"),
    # GDAL 3.10 corrupts memory where these are in planes.
    having(photometric="cielab", count=3, dtype="uint8", interleave="pixel"),
    having(photometric="minisblack", count=2, alpha="premultiplied"),
    both(
        having(photometric="palette", count=1, dtype="uint8"),
        doing(lambda dataset: dataset.write_colormap(1, {0: (1, 2, 3, 255), 7: (9, 8, 7, 255)})),
    ),
    both(
        having(photometric="palette", count=1, dtype="uint16"),
        doing(lambda dataset: dataset.write_colormap(1, {300: (1, 2, 3, 255)})),
    ),
]

USER_DEFINED = (
    'PROJCS["own",GEOGCS["sphere",DATUM["own",SPHEROID["own",6371000,0]],PRIMEM["Greenwich",0],'
    'UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],'
    'PARAMETER["latitude_of_origin",1.5],PARAMETER["central_meridian",12.25],'
    'PARAMETER["scale_factor",0.9999],PARAMETER["false_easting",500000],'
    'PARAMETER["false_northing",0],UNIT["metre",1]]'
)
LOCAL = 'LOCAL_CS["a — map",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'
CRSES = (
    "EPSG:4326", "EPSG:32633", "EPSG:3857", "EPSG:3035", "EPSG:2230", "EPSG:4979", "EPSG:4978",
    "EPSG:32633+5773", "EPSG:27700+5701", "EPSG:4326+5703", "EPSG:2230+6360", "ESRI:102003",
    "ESRI:54009", USER_DEFINED, LOCAL, "+proj=laea +lat_0=10 +lon_0=20 +R=6370997 +units=m",
    "+proj=utm +zone=33 +ellps=bessel +towgs84=1,2,3,4,5,6,7 +units=m", "EPSG:5773",
    "+proj=longlat +a=6378273 +b=6356889",
)  # fmt: skip


@lru_cache
def crs_of(text: str) -> CRS:
    return CRS.from_user_input(text)


CRS_OPTIONS: list[Option] = [
    nothing,
    *(lambda variant, text=text: variant.profile.update(crs=crs_of(text)) for text in CRSES),
]

RPCS = RPC(
    height_off=150.0, height_scale=200.0, lat_off=41.5, lat_scale=0.1, line_off=32.0,
    line_scale=32.0, long_off=-70.1, long_scale=0.2, samp_off=32.0, samp_scale=32.0,
    line_num_coeff=[0.001 * i for i in range(20)], line_den_coeff=[1.0] + [0.0] * 19,
    samp_num_coeff=[0.002 * i for i in range(20)], samp_den_coeff=[1.0] + [0.0] * 19,
    err_bias=0.5, err_rand=0.25,
)  # fmt: skip


def a_place(rng: random.Random) -> tuple[float, float, float, float]:
    """Return x, y and the size of a pixel: round numbers, fractions, extremes."""
    x = rng.choice([0.0, -180.0, 500_000.0, 1e-7, rng.uniform(-1e7, 1e7), rng.uniform(-1, 1)])
    y = rng.choice([0.0, 90.0, 5_000_000.0, -1e9, rng.uniform(-1e7, 1e7), rng.uniform(-1, 1)])
    size = rng.choice([1.0, 10.0, 0.1, 1 / 3, 30.000000000000004, 1e-9, 1e12, rng.uniform(0, 99)])
    return x, y, size, rng.choice([size, size * 1.5, 1.0])


def north_up(variant: Variant) -> None:
    variant.profile["transform"] = from_origin(*a_place(variant.rng))


def south_up(variant: Variant) -> None:
    x, y, width, height = a_place(variant.rng)
    variant.profile["transform"] = Affine(width, 0, x, 0, height, y)


def mirrored(variant: Variant) -> None:
    x, y, width, height = a_place(variant.rng)
    variant.profile["transform"] = Affine(-width, 0, x, 0, -height, y)


def rotated(variant: Variant) -> None:
    x, y, width, height = a_place(variant.rng)
    turn = variant.rng.choice([0.5, 1e-12, -3.0])
    variant.profile["transform"] = Affine(width, turn, x, turn, -height, y)


def by_points(variant: Variant) -> None:
    variant.profile["gcps"] = [
        GroundControlPoint(row, col, variant.rng.uniform(0, 9), variant.rng.uniform(0, 9))
        for row, col in [(0, 0), (0, 9), (9, 0), (9, 9), (3, 4)][: variant.rng.choice([1, 4, 5])]
    ]
    variant.profile.setdefault("crs", crs_of("EPSG:4326"))


pixel_is_point = doing(lambda dataset: dataset.update_tags(AREA_OR_POINT="Point"))
PLACES: list[Option] = [
    nothing, north_up, both(north_up, pixel_is_point), both(south_up, pixel_is_point), south_up,
    mirrored, rotated, by_points, having(rpcs=RPCS), both(north_up, having(rpcs=RPCS)),
    pixel_is_point,
]  # fmt: skip
NODATA: list[Option] = [
    nothing, having(nodata=0), having(nodata=255, dtype="uint8"),
    *(having(nodata=value, dtype="float32") for value in (-9999, 0.1, float("nan"))),
    having(nodata=2**63 - 1, dtype="int64"),
    *(lambda variant, text=text: setattr(variant, "nodata", text) for text in (
        "-9999", "nan", "-nan", "inf", "-inf", "1e40", "-3.4028234663852886e+38",
        "-3.4028235e+38", "1.7976931348623157e+308", "0.1", "-1", "256", "9223372036854775807",
        "-9223372036854775808", "9223372036854775808", "18446744073709551615", "0x10", " 5", "5 ",
        "none", "1,5",
    )),
]  # fmt: skip

TEXTS = (
    "plain", "1.5", "wind — Föhn", "日本語", "<a href=\"x\">&amp;'b' & c</a>", " before", "after ",
    "two\nlines", "\ttab", "", "x" * 300, "&lt;", "a=b:c", "]]>", "\r\n", "x\ry", "&#65;", "NaN",
)  # fmt: skip
NAMES = (
    "TITLE", "lower", "Mixed Case", "a:b", "with:colons:", "é", "a&b", "quo'te", "STATISTICS_MEAN",
    "_", "9", "x.y-z/w", "NODATA_VALUES", "OVERVIEW_FILE", "METADATATYPE", "INTERLEAVE",
    "COMPRESSION", "Sample", "name", "TIFFTAG", "COLORINTERP", "AREA_OR_POINTS",
)  # fmt: skip
DOMAINS = ("MINE", "a — b", "IMAGERY", "GEOLOCATION", "RPC", "xml:X", "IMD", "json:X", "_")


def some_tags(rng: random.Random, most: int = 5) -> dict[str, str]:
    return {rng.choice(NAMES): rng.choice(TEXTS) for _ in range(rng.randint(1, most))}


def tags(variant: Variant) -> None:
    found = some_tags(variant.rng)
    variant.steps.append(lambda dataset: dataset.update_tags(**found))


def plain_tags(variant: Variant) -> None:
    """Tags as most files have them: same names, other values."""
    values = {name: f"{variant.rng.random()} of <{name}>" for name in ("TITLE", "DATE", "ORBIT")}
    variant.steps.append(lambda dataset: dataset.update_tags(**values))


def many_tags(variant: Variant) -> None:
    many = {f"KEY_{at}": variant.rng.choice(TEXTS) + "x" for at in range(200)}
    variant.steps.append(lambda dataset: dataset.update_tags(**many))


def domain_tags(variant: Variant) -> None:
    domain = variant.rng.choice(DOMAINS)
    found = some_tags(variant.rng)
    variant.steps.append(lambda dataset: dataset.update_tags(ns=domain, **found))


def band_tags(variant: Variant) -> None:
    each = [some_tags(variant.rng, 2) for _ in range(13)]

    def step(dataset: Any) -> None:
        for band in dataset.indexes:
            if band != 2:
                dataset.update_tags(band, **each[band - 1])

    variant.steps.append(step)


def plain_band_tags(variant: Variant) -> None:
    mean = str(variant.rng.random())

    def step(dataset: Any) -> None:
        for band in dataset.indexes:
            dataset.update_tags(band, STATISTICS_MEAN=mean, STATISTICS_STDDEV="0.5")

    variant.steps.append(step)


def tiff_tags(variant: Variant) -> None:
    rng = variant.rng
    found = {
        name: rng.choice(TEXTS)
        for name in ("TIFFTAG_SOFTWARE", "TIFFTAG_DATETIME", "TIFFTAG_IMAGEDESCRIPTION",
                     "TIFFTAG_ARTIST", "TIFFTAG_COPYRIGHT", "TIFFTAG_DOCUMENTNAME",
                     "TIFFTAG_HOSTCOMPUTER")
        if rng.random() < 0.5
    }  # fmt: skip
    if rng.random() < 0.5:
        found["TIFFTAG_XRESOLUTION"] = rng.choice(["72", "0.1", "300.5", "1e-5", "4294967295"])
        found["TIFFTAG_YRESOLUTION"] = rng.choice(["72", "96.333", "0", "100000"])
    if rng.random() < 0.5:
        found["TIFFTAG_RESOLUTIONUNIT"] = rng.choice(["1", "2", "3"])
    if rng.random() < 0.2:
        found["TIFFTAG_MINSAMPLEVALUE"] = found["TIFFTAG_MAXSAMPLEVALUE"] = "5"
    variant.steps.append(lambda dataset: dataset.update_tags(**found))


def about_bands(variant: Variant) -> None:
    """Descriptions, scales, offsets and units of some bands."""
    rng = variant.rng
    scales = [rng.choice([1.0, 0.1, 1e-300, -2.5, 1 / 3]) for _ in range(13)]
    offsets = [rng.choice([0.0, -273.15, 5e-324, 1e22]) for _ in range(13)]
    units = [rng.choice(["", "K", "m s-1", "µm", "<&>"]) for _ in range(13)]
    texts = [rng.choice([None, *TEXTS]) for _ in range(13)]
    which = rng.randrange(1, 16)

    def step(dataset: Any) -> None:
        count = dataset.count
        if which & 1:
            dataset.scales = scales[:count]
        if which & 2:
            dataset.offsets = offsets[:count]
        if which & 4:
            dataset.units = units[:count]
        if which & 8:
            dataset.descriptions = texts[:count]

    variant.steps.append(step)


def plain_about_bands(variant: Variant) -> None:
    """Every band with all of it, the numbers different from file to file."""
    scale, offset = variant.rng.uniform(0, 1), variant.rng.uniform(-9, 9)

    def step(dataset: Any) -> None:
        dataset.scales, dataset.offsets = (scale,) * dataset.count, (offset,) * dataset.count
        dataset.units = ("K",) * dataset.count
        dataset.descriptions = [f"band {at} {scale}" for at in dataset.indexes]

    variant.steps.append(step)


def colours(variant: Variant) -> None:
    found = [
        variant.rng.choice([ColorInterp.gray, ColorInterp.undefined, ColorInterp.alpha,
                            ColorInterp.red, ColorInterp.blue, ColorInterp.cyan])
        for _ in range(13)
    ]  # fmt: skip

    def step(dataset: Any) -> None:
        dataset.colorinterp = found[: dataset.count]

    variant.steps.append(step)


TAGS: list[Option] = [
    nothing, plain_tags, plain_tags, tags, many_tags, domain_tags, band_tags, plain_band_tags,
    plain_band_tags, tiff_tags, about_bands, plain_about_bands, colours,
    both(plain_tags, tiff_tags), both(tags, about_bands), both(plain_band_tags, colours),
]  # fmt: skip


def overviews(*factors: int) -> Option:
    def step(dataset: Any) -> None:
        most = max(dataset.width, dataset.height)
        # GDAL 3.10 does not come back from reducing some tall files of few columns.
        if dataset.height > 300 * dataset.width:
            return
        if levels := [factor for factor in factors if factor < most]:
            dataset.build_overviews(levels, Resampling.nearest)

    return doing(step)


def mask(dataset: Any) -> None:
    dataset.write_mask(np.ones((dataset.height, dataset.width), bool))


OVERVIEWS: list[Option] = [
    nothing, nothing, overviews(2), overviews(2, 4), overviews(2, 4, 8, 16), overviews(3, 7),
    overviews(2, 5, 9), overviews(*range(2, 11)),
    both(under(GDAL_TIFF_OVR_BLOCKSIZE=64), overviews(2, 4)),
]  # fmt: skip
MASKS: list[Option] = [
    nothing, nothing, both(under(GDAL_TIFF_INTERNAL_MASK=True), doing(mask))
]  # fmt: skip
FLAVOURS: list[Option] = [
    nothing, nothing, having(geotiff_keys_flavor="ESRI_PE"), having(geotiff_version="1.0"),
    having(geotiff_version="1.1"), having(profile="BASELINE"), having(profile="GeoTIFF"),
    both(having(driver="COG"), with_data), having(copy_src_overviews="yes"),
    having(discard_lsb=2), having(stats="yes", driver="COG"),
]  # fmt: skip

KIND_AXES = {
    "dtype": DTYPES, "count": COUNTS, "compression": COMPRESSIONS, "interleave": INTERLEAVES,
    "byteorder": BYTE_ORDERS, "bigtiff": SIZES_OF_OFFSETS, "photometric": PHOTOMETRICS,
    "crs": CRS_OPTIONS, "nodata": NODATA, "flavour": FLAVOURS, "place": PLACES,
}  # fmt: skip
"""What makes files differ in kind, more or less."""
FREE_AXES = {
    "size": SIZES, "layout": LAYOUTS, "tags": TAGS, "overviews": OVERVIEWS, "mask": MASKS,
}  # fmt: skip
"""What differs between the files of one product."""
AXES = KIND_AXES | FREE_AXES
USUAL: list[tuple[str, dict[str, int]]] = [
    ("uint8", {"dtype": 0, "crs": 2, "place": 1, "size": 9}),
    ("uint16", {"dtype": 2, "crs": 2, "place": 1, "size": 15, "compression": 3, "layout": 9,
                "count": 3, "tags": 1, "overviews": 3}),
    ("float32", {"dtype": 8, "crs": 1, "place": 2, "size": 12, "compression": 2, "nodata": 2}),
    ("planes", {"dtype": 3, "crs": 1, "place": 1, "size": 21, "compression": 5, "interleave": 1,
                "count": 2, "layout": 6}),
]  # fmt: skip
"""Options, by index, of the files of which one axis at a time is varied."""


def chosen(seed: int, files: int) -> Iterator[Variant]:
    """Yield variants: each axis by itself, then families of files of a kind, more or less."""
    number = 0

    def variant(name: str, choice: dict[str, int]) -> Variant:
        nonlocal number
        made = Variant(f"{number:05}-{name}", random.Random(f"{seed} {number}"))
        made.profile.update(width=64, height=64, count=1, dtype="uint8")
        for axis, options in AXES.items():
            options[choice.get(axis, 0)](made)
        made.data = made.data or choice.get("data", 0) > 0
        number += 1
        return made

    for base, usual in USUAL:
        for axis, options in AXES.items():
            for at in range(len(options)):
                yield variant(f"{base}-{axis}-{at}", usual | {axis: at})
    rng = random.Random(seed)
    while number < files:
        family: dict[str, int] = {}
        for axis, options in KIND_AXES.items():
            if rng.random() < 0.4:
                family[axis] = rng.randrange(len(options))
        if rng.random() < 0.8:
            family["place"] = rng.choice([1, 1, 2, 3, 4])
        family["tags"] = rng.randrange(len(TAGS))
        family["layout"] = rng.choice([0, *range(len(LAYOUTS))])
        family["data"] = rng.randrange(2)
        for _ in range(rng.choice([5, 10, 20])):
            each = dict(family, size=rng.randrange(len(SIZES)))
            for axis in ("layout", "tags", "overviews", "mask"):
                if rng.random() < 0.15:
                    each[axis] = rng.randrange(len(AXES[axis]))
            yield variant("family", each)


def write_variant(folder: Path, variant: Variant) -> Path:
    """Write a variant; raises what rasterio raises where GDAL refuses to."""
    path = folder / f"{variant.name}.tif"
    profile = {"driver": "GTiff", **variant.profile}
    if not variant.data:
        profile["sparse_ok"] = "TRUE"
    with (
        rasterio.Env(GDAL_PAM_ENABLED=False, **variant.config),
        rasterio.open(path, "w", **profile) as dataset,
    ):
        for step in variant.steps:
            step(dataset)
        if variant.data:
            pixel = profile["dtype"].replace("complex_int16", "int16")
            shape = profile["count"], profile["height"], profile["width"]
            dataset.write(np.ones(shape, pixel))
    if variant.nodata:
        path.write_bytes(edited(path.read_bytes(), {NODATA_TAG: text_value(variant.nodata)}))
    return path


@dataclass
class Written:
    """The variants that there are, and how many GDAL refused to write."""

    paths: list[Path]
    refused: list[str]


def write_variants(folder: Path, seed: int, files: int) -> Written:
    """Write variants into folders of a moderate size."""
    written = Written([], [])
    with warnings.catch_warnings(action="ignore"), rasterio.Env():
        for number, variant in enumerate(chosen(seed, files)):
            inside = folder / str(number // FILES_A_FOLDER)
            inside.mkdir(exist_ok=True)
            try:
                written.paths.append(write_variant(inside, variant))
            except Exception as error:  # noqa: BLE001  # rasterio's, GDAL's, NumPy's refusals
                (inside / f"{variant.name}.tif").unlink(missing_ok=True)
                written.refused.append(f"{variant.name}: {error}")
    for extra in folder.glob("*/*[!f]"):  # sidecars that options asked for
        extra.unlink()
    return written


# Both readers' answers.


class Counted(RasterioReader):
    """A reference reader that counts what it is asked."""

    asked = 0

    def read(self, path: bytes, *, is_ours: bool = False) -> Record:
        self.asked += 1
        return super().read(path, is_ours=is_ours)


def told(record: Record) -> dict[str, str]:
    """Return what is to be equal: every column but `reader`, to the last bit and in order."""
    return {name: repr(value) for name, value in record._asdict().items() if name != "reader"}


def differing(record: Record, expected: Record) -> dict[str, tuple[str, str]]:
    """Return the columns that differ, as (answer, right answer)."""
    if repr(record._replace(reader=None)) == repr(expected._replace(reader=None)):
        return {}
    ours, theirs = told(record), told(expected)
    return {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}
