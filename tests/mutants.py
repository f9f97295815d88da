"""Broken GeoTIFFs, and what both readers make of them: ``python mutants.py FOLDER SEED FILES``.

A program of its own, as GDAL and libtiff write to standard error about nearly all of them. It
prints an `Outcome` as JSON; files that are read wrong stay in the folder.
"""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import rasterio
from tiff_variants import (
    ASCII,
    BYTE_ORDERS,
    COMPRESSIONS,
    COUNTS,
    CRS_OPTIONS,
    DOUBLE,
    ITEM_BYTES,
    LAYOUTS,
    MASKS,
    METADATA_TAG,
    PHOTOMETRICS,
    RPCS,
    Counted,
    Ifd,
    Option,
    Value,
    Variant,
    by_points,
    colours,
    differing,
    edited,
    form_of,
    having,
    ifds_of,
    many_tags,
    north_up,
    overviews,
    pixel_is_point,
    plain_about_bands,
    plain_band_tags,
    plain_tags,
    south_up,
    tiff_tags,
    with_data,
    write_variant,
)

from rastermeta_async.model import file_state
from rastermeta_async.readers.base import Unsupported
from rastermeta_async.readers.rasterio_reader import RasterioReader
from rastermeta_async.readers.router import Router
from rastermeta_async.readers.sidecars import Folders

BASES: list[tuple[str, list[Option]]] = [
    ("plain", [north_up, with_data]),
    ("projected", [CRS_OPTIONS[2], north_up, with_data, plain_tags]),
    ("point", [CRS_OPTIONS[1], north_up, pixel_is_point, plain_band_tags, COMPRESSIONS[3]]),
    ("tiled", [CRS_OPTIONS[2], north_up, LAYOUTS[9], COMPRESSIONS[3], overviews(2, 4), COUNTS[2]]),
    ("masked", [CRS_OPTIONS[1], north_up, COMPRESSIONS[3], *MASKS[2:], overviews(2), LAYOUTS[7]]),
    ("cog", [CRS_OPTIONS[2], north_up, having(driver="COG", compress="deflate"), with_data]),
    ("bigtiff", [CRS_OPTIONS[2], north_up, having(bigtiff="yes"), plain_tags, LAYOUTS[7]]),
    ("big-endian", [CRS_OPTIONS[2], north_up, BYTE_ORDERS[1], plain_about_bands, LAYOUTS[3]]),
    ("both-big", [CRS_OPTIONS[7], north_up, BYTE_ORDERS[1], having(bigtiff="yes"), with_data]),
    ("vertical", [CRS_OPTIONS[8], north_up, having(dtype="float32", nodata=-9999), LAYOUTS[3]]),
    ("south-up", [CRS_OPTIONS[2], south_up, having(dtype="float64"), COMPRESSIONS[5]]),
    ("points", [by_points, having(dtype="int16", compress="lzw", predictor=2)]),
    ("rpcs", [having(rpcs=RPCS, dtype="uint16", nodata=0), LAYOUTS[3]]),
    ("ycbcr", [COMPRESSIONS[14], CRS_OPTIONS[2], north_up, LAYOUTS[10]]),
    ("palette", [PHOTOMETRICS[9], north_up, COMPRESSIONS[4]]),
    ("alpha", [having(count=4, photometric="rgb", alpha="yes"), CRS_OPTIONS[3], north_up, colours]),
    ("planes", [having(count=3, interleave="band", blockysize=50), north_up, plain_about_bands]),
    ("lerc", [COMPRESSIONS[11], CRS_OPTIONS[1], north_up, having(nodata=float("nan"))]),
    ("bits", [having(nbits=1), north_up, COMPRESSIONS[4], LAYOUTS[3]]),
    ("tiff-tags", [tiff_tags, plain_tags, north_up, LAYOUTS[3]]),
    ("many-tags", [many_tags, north_up, LAYOUTS[3]]),
    ("bands", [having(count=13, dtype="uint16"), plain_about_bands, plain_band_tags, north_up,
               COMPRESSIONS[3]]),
    ("own-crs", [CRS_OPTIONS[14], north_up, with_data, having(geotiff_keys_flavor="ESRI_PE")]),
    ("complex", [having(dtype="complex64"), CRS_OPTIONS[1], north_up, LAYOUTS[4]]),
    ("empty", [with_data]),
    ("overviews", [having(width=500, height=300), overviews(2, 4, 8, 16, 32), COMPRESSIONS[3]]),
]  # fmt: skip


def base_files(folder: Path) -> dict[str, bytes]:
    """Return small files of different structure, by name."""
    found = {}
    with warnings.catch_warnings(action="ignore"), rasterio.Env():
        for name, options in BASES:
            variant = Variant(name, random.Random(name), {
                "width": 61, "height": 47, "count": 1, "dtype": "uint8"
            })  # fmt: skip
            for option in options:
                option(variant)
            path = write_variant(folder, variant)
            found[name] = path.read_bytes()
            path.unlink()
    return found


INTERESTING = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 127, 128, 255, 256, 2000, 2001, 4096, 32767, 32768, 65534,
    65535, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1,
)  # fmt: skip
REALS = (
    0.0, -0.0, 1.0, -1.0, 0.1, 1e-320, 1e-200, 1e200, 1e308, -1e308, 1e22, 2**53 + 2.0, 12345.678,
    float("nan"), float("inf"), -float("inf"),
)  # fmt: skip
FRAGMENTS = (
    ' domain=""', ' domain="X"', ' domain="IMAGE_STRUCTURE"', ' domain="xml:X"', ' sample="0"',
    ' sample="1"', ' sample="99"', ' role="scale"', ' role="offset"', ' role="description"',
    ' role="unittype"', ' role="colorinterp"', ' role="x"', "&amp;", "&amp;amp;", "&lt;", "&#65;",
    "&", "<", ">", "'", '"', " ", "\n", "\t", "\r", "=", ":", "é", "-0", "1e999", "1e-400", "0.1",
    "AREA_OR_POINT", "STATISTICS_MEAN", "TITLE", "</Item>\n", '  <Item name="TITLE">x</Item>\n',
    '  <Item name="title">y</Item>\n', "<!-- x -->", "<![CDATA[x]]>", "nan", "inf", "\0",
    "INTERNAL_MASK_FLAGS_1", "COMPRESSION", '  <Item name="Z" sample="0" role="scale">2</Item>\n',
    '  <Item name="Z" sample="0" role="unittype">m</Item>\n', "\v", "\x01", "\u00a0", "\u2028",
)  # fmt: skip
TAG_IDS = (
    254, 255, 256, 257, 258, 259, 262, 266, 269, 270, 273, 274, 277, 278, 279, 280, 281, 282, 283,
    284, 285, 286, 287, 296, 297, 305, 306, 315, 316, 317, 318, 319, 320, 322, 323, 324, 325, 330,
    338, 339, 347, 530, 532, 700, 32997, 33432, 33550, 33723, 33922, 34264, 34377, 34665, 34675,
    34735, 34736, 34737, 34853, 37724, 42112, 42113, 50674, 50844, 65000,
)  # fmt: skip
OFTEN = (256, 257, 278, 282, 296, 305, 322, 323, 33550, 33922, 34264, METADATA_TAG, METADATA_TAG)


@dataclass
class Base:
    """A file to be broken, and where in it the numbers are."""

    name: str
    content: bytes
    ifds: list[Ifd] = field(init=False)
    entries: list[int] = field(init=False)
    """Offsets of the entries of all IFDs."""
    links: list[int] = field(init=False)
    """Offsets of the offsets of the IFDs."""
    areas: list[tuple[int, int]] = field(init=False)
    """(start, end) of the values outside the IFDs."""

    def __post_init__(self) -> None:
        form = self.form = form_of(self.content)
        self.ifds = ifds_of(self.content)
        self.entries, self.areas, self.links = [], [], [len(form.head)]
        (offset,) = form.offset.unpack_from(self.content, self.links[0])
        while offset:
            (count,) = form.count.unpack_from(self.content, offset)
            at = offset + form.count.size
            for _ in range(count):
                self.entries.append(at)
                _, kind, values, field_ = form.entry.unpack_from(self.content, at)
                if (length := values * ITEM_BYTES[kind]) > len(field_):
                    (start,) = form.offset.unpack(field_)
                    self.areas.append((start, start + min(length, 4000)))
                at += form.entry.size
            self.links.append(at)
            (offset,) = form.offset.unpack_from(self.content, at)

    def place(self, rng: random.Random) -> int:
        """Return where a byte of the header is."""
        if self.areas and rng.random() < 0.3:
            return rng.randrange(*rng.choice(self.areas))
        if rng.random() < 0.9:
            return rng.choice(self.entries) + rng.randrange(self.form.entry.size)
        return rng.choice(self.links) + rng.randrange(-2, 4)


def mutant(base: Base, rng: random.Random) -> bytes:
    """Return the file with something wrong, most often in one place."""
    content = base.content
    if rng.random() < 0.6:
        content = rewritten(base, rng)
        if rng.random() < 0.9:
            return content
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 1, 2, 3])):
        rng.choice(DAMAGES)(base, damaged, rng)
    return bytes(damaged)


def rewritten(base: Base, rng: random.Random) -> bytes:
    """Return the file with other values, types, counts or tags, in an order that is sound."""
    number = rng.randrange(len(base.ifds))
    ifd = base.ifds[number]
    tag = rng.choice(list(ifd))
    if rng.random() < 0.4:  # what the kind leaves out, for the most part
        tag = rng.choice([at for at in OFTEN if at in ifd] or [tag])
    value = ifd[tag]
    what = rng.random()
    if what < 0.07:
        return edited(base.content, {tag: None}, number)
    if what < 0.14:
        moved = {tag: None, rng.choice(TAG_IDS): value}
        return edited(base.content, moved, number)
    if what < 0.21:
        other = rng.choice(
            rng.choice([base.ifds, *[b.ifds for b in rng.choices(_OTHERS or [base])]])
        )
        foreign = rng.choice(list(other))
        return edited(base.content, {foreign: other[foreign]}, number)
    if value.type == ASCII:
        text = bytearray(value.content)
        at = rng.randrange(len(text))
        fragment = rng.choice(FRAGMENTS).encode()
        if rng.random() < 0.4:  # where attributes are
            at = text.find(b'" ' if rng.random() < 0.5 else b">", at)
            at = at + 1 if text[at : at + 1] == b'"' else max(at, 0)
        text[at : at + rng.choice([0, 0, 0, 1, 2, 9])] = fragment
        return edited(base.content, {tag: Value(ASCII, len(text), bytes(text))}, number)
    items = bytearray(value.content)
    size = ITEM_BYTES[value.type]
    at = size * rng.randrange(max(1, len(items) // size))
    if value.type == DOUBLE:
        real = rng.choice([*REALS, rng.uniform(-1e6, 1e6)])
        items[at : at + 8] = struct.pack(base.form.sign + "d", real)
    else:
        size = min(size, 4)
        whole = rng.choice(INTERESTING) if rng.random() < 0.7 else rng.randrange(700)
        order = "little" if base.form.sign == "<" else "big"
        items[at : at + size] = (whole % 256**size).to_bytes(size, order)
    changed = Value(value.type, value.count, bytes(items))
    if rng.random() < 0.1:
        items += items[:size] * rng.choice([1, 2])
        changed = Value(value.type, len(items) // ITEM_BYTES[value.type], bytes(items))
    return edited(base.content, {tag: changed}, number)


_OTHERS: list[Base] = []
"""Files whose values are put into others."""


def flip(base: Base, content: bytearray, rng: random.Random) -> None:
    if content:
        content[min(base.place(rng), len(content) - 1)] ^= 1 << rng.randrange(8)


def set_byte(base: Base, content: bytearray, rng: random.Random) -> None:
    if content:
        content[min(base.place(rng), len(content) - 1)] = rng.randrange(256)


def set_word(base: Base, content: bytearray, rng: random.Random) -> None:
    size = rng.choice([2, 4])
    at = base.place(rng) & ~1
    value = rng.choice(INTERESTING) % 256**size
    content[at : at + size] = value.to_bytes(size, "little" if base.form.sign == "<" else "big")


def set_field(base: Base, content: bytearray, rng: random.Random) -> None:
    """Change tag, type, count or value of an entry."""
    form = base.form
    at = rng.choice(base.entries)
    if at + form.entry.size > len(content):
        return
    tag, kind, count, value = form.entry.unpack_from(content, at)
    what = rng.randrange(5)
    if what == 0:
        tag = rng.choice(TAG_IDS)
    elif what == 1:
        kind = rng.randrange(20)
    elif what == 2:
        count = rng.choice([0, 1, 2, 3, max(0, count - 1), count + 1, count * 2, *INTERESTING])
    elif what == 3:
        (offset,) = form.offset.unpack(value)
        offset += rng.choice([-1, 1, 2, -2, 4, 8, -8, 100, len(content)])
        value = form.offset.pack(offset % 256**form.offset.size)
    else:
        value = form.offset.pack(rng.choice([*INTERESTING, len(content), len(content) - 4]))
    content[at : at + form.entry.size] = form.entry.pack(tag, kind, count % 2**32, value)


def swap(base: Base, content: bytearray, rng: random.Random) -> None:
    one, other = rng.choice(base.entries), rng.choice(base.entries)
    size = base.form.entry.size
    first, second = content[one : one + size], content[other : other + size]
    content[one : one + size], content[other : other + size] = second, first


def cut(base: Base, content: bytearray, rng: random.Random) -> None:
    del content[max(0, rng.choice([len(content) - rng.randrange(1, 40), base.place(rng)])) :]


def insert(base: Base, content: bytearray, rng: random.Random) -> None:
    at = base.place(rng)
    content[at:at] = rng.randbytes(rng.choice([1, 2, 4, 12]))


def delete(base: Base, content: bytearray, rng: random.Random) -> None:
    at = base.place(rng)
    del content[at : at + rng.choice([1, 2, 4, 12])]


def relink(base: Base, content: bytearray, rng: random.Random) -> None:
    """Have an IFD's successor elsewhere."""
    at, size = rng.choice(base.links), base.form.offset.size
    others = [base.form.offset.unpack_from(base.content, link)[0] for link in base.links]
    offset = rng.choice([*others, *INTERESTING, len(content)])
    content[at : at + size] = base.form.offset.pack(offset)


DAMAGES: list[Callable[[Base, bytearray, random.Random], None]] = [
    flip, flip, set_byte, set_word, set_word, set_field, set_field, set_field, swap, cut, insert,
    delete, relink,
]  # fmt: skip


@dataclass
class Outcome:
    """What came of many mutants."""

    files: int = 0
    fast: int = 0
    """Records that `Router` made from bytes alone, or was found right in."""
    unasked: int = 0
    """Those of them for which rasterio was not asked at all."""
    wrong: list[tuple[str, dict[str, tuple[str, str]]]] = field(default_factory=list)


Draw = Callable[[random.Random], tuple[str, bytes]]
"""Returns the name of a base and a mutant of it."""


def tiff_mutants(folder: Path) -> Draw:
    """Return what draws broken GeoTIFFs; the folder is for their bases."""
    _OTHERS[:] = those = [Base(name, content) for name, content in base_files(folder).items()]

    def draw(rng: random.Random) -> tuple[str, bytes]:
        base = rng.choice(those)
        return base.name, base.content if rng.random() < 0.02 else mutant(base, rng)

    return draw


def check_mutants(path: Path, draw: Draw, seed: int, files: int) -> Outcome:
    """Compare both readers on mutants, each at one path; those that are wrong are kept beside."""
    found = Outcome()
    rng = random.Random(seed)
    path.touch()
    folders = Folders()
    counted, alone = Counted(folders=folders), RasterioReader(folders=folders)
    reader = Router(counted, folders)
    with reader.environment():
        for number in range(files):
            name, content = draw(rng)
            path.write_bytes(content)
            before = counted.asked
            found.files += 1
            try:
                # What is not plain need not be read to be right.
                record = reader.decode_file(os.fsencode(path))
                expected = alone.read(os.fsencode(path))
                differences = differing(record, expected)
            except Unsupported:
                continue
            except Exception as error:  # noqa: BLE001  # none is to come out
                differences = {"raised": (repr(error), "nothing")}
            found.fast += 1
            found.unasked += counted.asked == before
            if differences:
                kept = path.with_name(f"wrong-{name}-{seed}-{number}.bin")
                kept.write_bytes(content)
                found.wrong.append((kept.name, differences))
    return found


def silence() -> None:
    """Have this process write nothing: GDAL and its libraries complain of each mutant."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    logging.disable()


def main(name: str, draws: Callable[[Path], Draw]) -> None:
    """Run the command line; each mutant has the name `name`."""
    place, seed, files = sys.argv[1:]
    silence()
    file_state.TICK_SECONDS = 0.0  # nobody else writes the files, each of which is read at once
    folder = Path(place)
    folder.mkdir()
    outcome = check_mutants(folder / name, draws(folder), int(seed), int(files))
    json.dump(asdict(outcome), sys.stdout)


PROCESSES = 2


def outcomes_of(script: Path, kept: Path, seed: int, files: int) -> list[Outcome]:
    """Return what came of so many mutants in several processes; wrong ones are copied to `kept`."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as place:
        folders = [Path(place, str(seed + number)) for number in range(PROCESSES)]
        share = str(files // PROCESSES)
        jobs = [
            subprocess.Popen(
                [sys.executable, script, folder, folder.name, share], stdout=subprocess.PIPE
            )
            for folder in folders
        ]
        told = [job.communicate()[0] for job in jobs]
        assert [job.returncode for job in jobs] == [0] * PROCESSES
        for folder in folders:
            shutil.copytree(folder, kept / folder.name)
    return [Outcome(**json.loads(text)) for text in told]


if __name__ == "__main__":
    main("mutant.tif", tiff_mutants)
