"""How a TIFF that rasterio reads is stored: also of files that are large, sparse or broken."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window
from rio_cogeo.cogeo import cog_validate
from tiff_variants import Form, Value, assembled, form_of, ifds_of

from rastermeta_async.model.record import Record
from rastermeta_async.readers.base import Unsupported
from rastermeta_async.readers.geotiff.cog import EXTERNAL_OVERVIEWS
from rastermeta_async.readers.geotiff.structure import (
    MAX_READS,
    Structure,
    has_more_images,
    structure_of_bytes,
)
from rastermeta_async.readers.rasterio_reader import RasterioReader
from rastermeta_async.readers.sidecars import Folders

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

LITTLE = Form("<", big=False)


def read(path: Path) -> Record:
    reader = RasterioReader(None, Folders())
    with reader.environment():
        return reader.read(os.fsencode(path))


def write(path: Path, size: int = 64, *, sparse: bool = False) -> Path:
    """Write a tiled TIFF with an overview, all of it or only its last block."""
    with (
        rasterio.Env(),
        rasterio.open(
            path, "w", driver="GTiff", width=size, height=size, count=1, dtype="uint8",
            tiled=True, blockxsize=16, blockysize=16, sparse_ok=sparse,
        ) as dataset,
    ):  # fmt: skip
        last = Window(size - 16, size - 16, 16, 16) if sparse else Window(0, 0, size, size)
        pixels = np.random.default_rng(1).integers(1, 255, (last.height, last.width), np.uint8)
        dataset.write(pixels, 1, window=last)
        dataset.build_overviews([2])
    return path


def structure(content: bytes, *factors: int) -> Structure:
    """Return what the bytes tell; a file of some kilobytes is read but so often."""
    left = iter(range(MAX_READS + 1))

    def read_at(offset: int, size: int) -> bytes:
        assert next(left, None) is not None
        return content[offset : offset + size]

    return structure_of_bytes(len(content), read_at, factors)


def broken(content: bytes) -> Iterator[bytes]:
    """Yield a file with each entry of each IFD changed, in each of its fields."""
    ifds = ifds_of(content)
    for at, ifd in enumerate(ifds):
        for tag, value in ifd.items():
            others: list[Value | None] = [None]
            others += [Value(kind, value.count, value.content) for kind in (0, 1, 2, 4, 5, 12, 99)]
            others += [Value(value.type, count, value.content) for count in (0, 2, 2**32 - 1)]
            others += [
                Value(value.type, value.count, bytes([byte]) * len(value.content))
                for byte in (0, 1, 0x7F, 0xFF)
            ]
            for other in others:
                changed = [*ifds]
                changed[at] = {**ifd, tag: other} if other else {**ifd}
                if other is None:
                    del changed[at][tag]
                yield assembled(form_of(content), changed, content)


def test_a_broken_file_has_an_answer_or_none(tmp_path: Path) -> None:
    content = write(tmp_path / "a.tif").read_bytes()
    assert structure(content, 2).tiled
    for number, other in enumerate(broken(content)):  # and no other exception
        with suppress(Unsupported):
            structure(other, 2)
        path = tmp_path / "b.tif"
        if number % 10 == 0:
            path.write_bytes(other)
            has_more_images(os.fsencode(path), 100)


def test_overviews_that_gdal_does_not_find_so_are_not_believed(tmp_path: Path) -> None:
    content = write(tmp_path / "a.tif").read_bytes()
    with pytest.raises(Unsupported, match="other overviews than GDAL finds"):
        structure(content, 4)


@pytest.mark.parametrize(
    ("tag", "value"), [(254, 5), (254, 4), (254, 0), (277, 3)],
    ids=["mask of an overview", "mask", "page", "other bands"],
)  # fmt: skip
def test_an_image_that_gdal_takes_for_no_overview_is_none(
    tmp_path: Path, tag: int, value: int
) -> None:
    path = write(tmp_path / "a.tif")
    first, second = ifds_of(path.read_bytes())
    other = {**second, 256: Value(3, 1, struct.pack("<H", 16)), tag: second[tag]}
    kind = "<I" if other[tag].type == 4 else "<H"
    other[tag] = Value(other[tag].type, 1, struct.pack(kind, value))
    content = assembled(LITTLE, [first, other, second], path.read_bytes())
    path.write_bytes(content)
    with rasterio.Env(), rasterio.open(path) as dataset:
        assert dataset.overviews(1) == [2]
    assert EXTERNAL_OVERVIEWS not in (structure(content, 2).cog_problems or [])


def test_images_that_follow_each_other_in_a_ring_are_looked_at_once(tmp_path: Path) -> None:
    content = bytearray(write(tmp_path / "a.tif").read_bytes())
    first, second = ifds_of(bytes(content))
    second = {**second, 254: Value(4, 1, struct.pack("<I", 0))}  # a page, no overview
    ring = bytearray(assembled(LITTLE, [first, second], bytes(content)))
    (start,) = struct.unpack_from("<I", ring, 4)
    (count,) = struct.unpack_from("<H", ring, start)
    (other,) = struct.unpack_from("<I", ring, start + 2 + 12 * count)
    (count,) = struct.unpack_from("<H", ring, other)
    for leads_to in (start, other):
        struct.pack_into("<I", ring, other + 2 + 12 * count, leads_to)
        problems = structure(bytes(ring), 2).cog_problems
        assert problems is not None
        assert EXTERNAL_OVERVIEWS in problems  # where GDAL finds one, and it is in no IFD


def named(folder: Path, name: bytes) -> Path:
    return Path(os.fsdecode(os.path.join(os.fsencode(folder), name)))


@pytest.mark.parametrize("name", [b"a.tif", b"\xff.tif"])
@pytest.mark.parametrize("ending", [".ovr", ".OVR"])
def test_overviews_in_a_file_beside_are_external_also_where_others_are_inside(
    tmp_path: Path, name: bytes, ending: str
) -> None:
    made, path = write(tmp_path / "made.tif"), named(tmp_path, name)
    with rasterio.Env(), rasterio.open(made) as dataset:
        assert dataset.overviews(1) == [2]
    shutil.copy(made, path.with_name(path.name + ending))
    os.rename(made, path)
    assert EXTERNAL_OVERVIEWS in (read(path).cog_problems or [])


@pytest.mark.parametrize("name", [b"a.tif", b"\xff.tif"])
def test_a_file_beside_that_has_no_overviews_makes_none_external(
    tmp_path: Path, name: bytes
) -> None:
    made, path = tmp_path / "made.tif", named(tmp_path, name)
    profile = {"driver": "COG", "width": 128, "height": 128, "count": 1, "dtype": "uint8"}
    with rasterio.Env(), rasterio.open(made, "w", **profile) as dataset:
        dataset.write(np.ones((128, 128), np.uint8), 1)
    path.with_name(path.name + ".ovr").write_bytes(b"nothing")
    os.rename(made, path)
    assert read(path).cog_problems == []


def test_images_that_are_far_from_each_other_are_counted(tmp_path: Path) -> None:
    """Each takes a read of its own."""
    path = tmp_path / "a.tif"
    with path.open("wb") as file:
        file.write(b"II*\0" + struct.pack("<I", 16384))
        for number in range(1, 3002):
            file.seek(16384 * number)
            file.write(struct.pack("<HI", 0, 16384 * (number + 1) if number < 3001 else 0))
        file.write(bytes(10_000))
    assert has_more_images(os.fsencode(path), 3000)
    assert not has_more_images(os.fsencode(path), 3001)


def test_of_sparse_images_the_first_block_that_is_written_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", 1280, sparse=True)
    is_cog, errors, _ = cog_validate(path, quiet=True)
    record = read(path)
    assert (record.tiled, record.cog) == (True, is_cog)
    assert len(record.cog_problems or []) == len(errors)
