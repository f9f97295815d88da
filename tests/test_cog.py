"""Whether a file is a cloud-optimised GeoTIFF, and stored in tiles: against rio-cogeo.

Both readers are asked about every file, the fast one also about copies, which it may recognise.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rio_cogeo.cogeo import cog_validate
from tiff_variants import LONG, SHORT, Form, Ifd, assembled, ifds_of, number_value

from bench.scenes import FILES_A_FOLDER, Spec, scene
from bench.tiff import encode
from rastermeta_async.model.record import TIFF_HEADER, Record
from rastermeta_async.readers.geotiff.cog import (
    EARLY_DATA,
    EDITED_IN_PLACE,
    EXTERNAL_OVERVIEWS,
    LATE_IFD,
    NOT_REDUCED,
    NOT_TILED,
    OVERVIEW_NOT_TILED,
    UNSORTED_DATA,
    UNSORTED_IFDS,
    UNSORTED_OVERVIEWS,
)
from rastermeta_async.readers.rasterio_reader import RasterioReader
from rastermeta_async.readers.router import Router, make_reader
from rastermeta_async.readers.sidecars import Folders

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

TILED: dict[str, Any] = {"tiled": True, "blockxsize": 256, "blockysize": 256}
GHOST = (
    b"GDAL_STRUCTURAL_METADATA_SIZE=000140 bytes\nLAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\n"
    b"BLOCK_LEADER=SIZE_AS_UINT4\nBLOCK_TRAILER=LAST_4_BYTES_REPEATED\n"
    b"KNOWN_INCOMPATIBLE_EDITION=NO\n "
)


def told(record: Record) -> tuple[bool | None, bool | None, list[str] | None]:
    return record.tiled, record.cog, record.cog_problems


def check(path: Path) -> list[str]:
    """Return why a file is no COG, as rio-cogeo decides it and as both readers agree."""
    is_cog, errors, _ = cog_validate(path, quiet=True)
    folders = Folders()
    reference = RasterioReader(None, folders)
    fast = Router(reference, folders)
    name = os.fsencode(path)
    with fast.environment():
        expected = reference.read(name)
        compared = fast.compare(name)
        assert compared.differences == []
        assert [told(fast.read(name)) for _ in range(4)] == [told(expected)] * 4
    assert expected.cog_problems is not None
    assert (expected.cog, expected.error_type) == (is_cog, None), errors
    assert expected.cog == (expected.cog_problems == [])
    return expected.cog_problems


# Files that GDAL writes.


def write(
    path: Path, *factors: int, then: Callable[[Any], None] | None = None, **kind: Any
) -> Path:
    profile: dict[str, Any] = {
        "driver": "GTiff", "width": 700, "height": 600, "count": 1, "dtype": "uint8",
        "crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 10, 10),
    } | kind  # fmt: skip
    is_sparse = profile.get("sparse_ok")
    with rasterio.open(path, "w", **profile) as dataset:
        if not is_sparse:
            shape = profile["count"], profile["height"], profile["width"]
            dataset.write(np.full(shape, 7, profile["dtype"]))
        if factors:
            dataset.build_overviews(factors, Resampling.nearest)
        if then:
            then(dataset)
    return path


def cog(path: Path, *factors: int, options: dict[str, Any] | None = None, **kind: Any) -> Path:
    plain = write(path.with_name("plain.tif"), *factors, **kind)
    rasterio.shutil.copy(plain, path, driver="COG", **({"blocksize": 256} | (options or {})))
    plain.unlink()
    return path


def tagged_in_place(path: Path) -> Path:
    with rasterio.open(cog(path), "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
        dataset.update_tags(A="b")
    return path


def pixels_in_place(path: Path) -> Path:
    with rasterio.open(cog(path), "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
        random = np.random.default_rng(0).integers(0, 255, (1, 600, 700), np.uint8)
        dataset.write(random)
    return path


def with_external_overviews(path: Path) -> Path:
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(write(path, **TILED), "r+") as dataset:
        dataset.build_overviews([2, 4], Resampling.nearest)
    assert path.with_name(f"{path.name}.ovr").exists()
    return path


def with_mask(dataset: Any) -> None:
    dataset.write_mask(np.ones((dataset.height, dataset.width), bool))


def first_tile_empty(dataset: Any) -> None:
    dataset.write(np.ones((1, 256, 256), np.uint8), window=((256, 512), (256, 512)))


def in_strips(path: Path) -> Path:
    """Write overviews in strips: GDAL writes them in tiles only if told a size."""
    plain = write(path.with_name("plain.tif"), 2, width=1400, height=1200)
    rasterio.shutil.copy(plain, path, driver="GTiff", copy_src_overviews="yes", **TILED)
    plain.unlink()
    return path


def of_pages(path: Path) -> Path:
    for page in (1, 2):
        options: dict[str, Any] = {"append_subdataset": True} if page == 2 else {}
        write(path, **TILED, **options)
    return path


ZOO: dict[str, tuple[list[str], Callable[[Path], Path]]] = {
    "COG": ([], cog),
    "COG without overviews": ([], lambda path: cog(path, options={"overviews": "NONE"})),
    "COG with a mask": ([], lambda path: cog(path, then=with_mask)),
    "COG of bands": ([], lambda path: cog(path, count=3, options={"compress": "jpeg"})),
    "BigTIFF COG": ([], lambda path: cog(path, options={"bigtiff": "yes"})),
    "sparse COG": ([], lambda path: cog(path, options={"sparse_ok": True}, nodata=7)),
    "tile as wide as the image": ([], lambda path: cog(path, width=256, height=256)),
    "tile larger than the image": ([], lambda path: cog(path, width=100, height=100)),
    "tiles as wide as a tall image": ([NOT_TILED], lambda path: cog(path, width=256)),
    "tagged in place": ([EDITED_IN_PLACE, LATE_IFD], tagged_in_place),
    "pixels changed in place": ([EDITED_IN_PLACE], pixels_in_place),
    "overviews at the end": ([UNSORTED_DATA], lambda path: write(path, 2, 4, **TILED)),
    "overviews of masks": ([UNSORTED_DATA], lambda path: write(
        path, 2, then=with_mask, **TILED)),
    "overviews in another file": ([EXTERNAL_OVERVIEWS], with_external_overviews),
    "overviews copied": ([], in_strips),
    "tiles": ([], lambda path: write(path, **TILED)),
    "strips": ([NOT_TILED], write),
    "strips and overviews": ([NOT_TILED, UNSORTED_DATA], lambda path: write(path, 2)),
    "small strips": ([], lambda path: write(path, width=512, height=512)),
    "tiny": ([], lambda path: write(path, width=1, height=1)),
    "tiny with overviews": ([UNSORTED_DATA], lambda path: write(path, 2, width=60, height=60)),
    "compressed": ([LATE_IFD], lambda path: write(
        path, compress="deflate", then=lambda dataset: dataset.update_tags(A="b"), **TILED)),
    "planes": ([], lambda path: write(path, count=3, interleave="band", **TILED)),
    "planes with overviews": ([UNSORTED_DATA], lambda path: write(
        path, 2, count=3, interleave="band", **TILED)),
    "big-endian": ([], lambda path: write(path, endianness="big", **TILED)),
    "big-endian with overviews": ([UNSORTED_DATA], lambda path: write(
        path, 2, endianness="big", **TILED)),
    "big-endian BigTIFF": ([UNSORTED_DATA], lambda path: write(
        path, 2, endianness="big", bigtiff="yes", **TILED)),
    "sparse": ([], lambda path: write(path, sparse_ok=True, **TILED)),
    "sparse with overviews": ([], lambda path: write(path, 2, sparse_ok=True, **TILED)),
    "first tile empty": ([], lambda path: write(
        path, sparse_ok=True, then=first_tile_empty, **TILED)),
    "one strip": ([NOT_TILED], lambda path: write(path, blockysize=600, compress="lzw")),
    "one long strip": ([NOT_TILED], lambda path: write(
        path, height=2001, blockysize=2001, compress="lzw")),
    "pages": ([], of_pages),
    "rotated": ([], lambda path: write(
        path, transform=rasterio.Affine(1, 1, 0, 1, -1, 0), **TILED)),
}  # fmt: skip


@pytest.mark.campaign
@pytest.mark.parametrize(("problems", "make_file"), ZOO.values(), ids=ZOO)
def test_a_file_is_a_cog_if_rio_cogeo_says_so_and_the_reasons_are_named(
    tmp_path: Path, problems: list[str], make_file: Callable[[Path], Path]
) -> None:
    assert check(make_file(tmp_path / "a.tif")) == problems


@pytest.mark.campaign
@pytest.mark.parametrize("name", ZOO)
def test_a_file_is_tiled_if_it_has_a_tile_width(tmp_path: Path, name: str) -> None:
    _, make_file = ZOO[name]
    path = make_file(tmp_path / "a.tif")
    expected = 322 in ifds_of(path.read_bytes())[0]
    for reader in (RasterioReader(), make_reader(None)):
        with reader.environment():
            assert reader.read(os.fsencode(path)).tiled == expected


def test_what_is_no_tiff_is_neither_a_cog_nor_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", driver="PNG", crs=None, transform=None)
    reader = RasterioReader()
    with reader.environment():
        records = [reader.read(os.fsencode(name)) for name in (path, tmp_path / "none.tif")]
    assert [(record.cog, record.cog_problems) for record in records] == [(None, None)] * 2


def test_overviews_next_to_a_file_are_found_whatever_its_name(tmp_path: Path) -> None:
    made = with_external_overviews(tmp_path / "a.tif")
    name = os.fsencode(tmp_path) + b"/\xff.tif"
    shutil.copyfile(made, name)
    shutil.copyfile(f"{made}.ovr", name + b".ovr")
    reader = make_reader(None)
    with reader.environment():
        assert reader.read(name).cog_problems == [EXTERNAL_OVERVIEWS]


def test_overviews_next_to_a_file_are_external_whatever_their_format(tmp_path: Path) -> None:
    """Not only in an .ovr file, but also as Erdas Imagine has them."""
    path = write(tmp_path / "a.tif", **TILED)
    with rasterio.Env(USE_RRD=True), rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4], Resampling.nearest)
    assert sorted(os.listdir(tmp_path)) == ["a.aux", "a.tif"]
    reader = make_reader(None)
    with reader.environment():
        record = reader.read(os.fsencode(path))
    assert (record.cog, record.cog_problems) == (False, [EXTERNAL_OVERVIEWS])


@pytest.mark.campaign
def test_corpus(corpus: Path) -> None:
    found = set()
    for path in sorted(corpus.rglob("*")):
        reader = RasterioReader()
        with reader.environment():
            record = reader.read(os.fsencode(path))
        if record.ok and record.driver == "GTiff":
            check(path)
            found.add(record.cog)
    assert found == {True, False}


# Files made by hand, in every order.

FORMS = [Form(sign, big) for sign in "<>" for big in (False, True)]


def tile_entries(form: Form, width: int, height: int, tile: int, first: int, length: int) -> Ifd:
    tiles = -(-width // tile) * -(-height // tile)
    return {
        256: number_value(form, LONG, width), 257: number_value(form, LONG, height),
        258: number_value(form, SHORT, 8), 259: number_value(form, SHORT, 8),
        262: number_value(form, SHORT, 1), 277: number_value(form, SHORT, 1),
        322: number_value(form, SHORT, tile), 323: number_value(form, SHORT, tile),
        324: number_value(form, LONG, first, *[0] * (tiles - 1)),
        325: number_value(form, LONG, length, *[0] * (tiles - 1)),
    }  # fmt: skip


class Drawn(NamedTuple):
    """An image of a drawn file."""

    factor: int
    tile: int
    """0: as wide as the image."""
    first: int
    length: int


IMAGES = st.builds(
    Drawn,
    factor=st.sampled_from([1, 2, 2, 4, 8]),
    tile=st.sampled_from([128, 128, 256, 0]),
    first=st.sampled_from([0, 100, 2000, 6000, 9000, 9000, 12_000]),
    length=st.sampled_from([0, 9, 9, 9, 9]),
)
SHAPES = st.sampled_from([(512, 512), (1024, 768), (1536, 1024), (1024, 1536)])
GHOSTS = {"none": b"", "COG": GHOST, "edited": GHOST.replace(b"=NO\n ", b"=YES\n")}


def drawn(
    form: Form, shape: tuple[int, int], images: list[Drawn], ghost: str, before: int
) -> bytes:
    """Return a TIFF of tiles, the first its image whatever its factor, the others overviews."""
    ifds = []
    for number, image in enumerate(images):
        width, height = (side // (image.factor if number else 1) for side in shape)
        ifd = tile_entries(form, width, height, image.tile or width, image.first, image.length)
        if number:
            ifd[254] = number_value(form, LONG, 1)
        ifds.append(ifd)
    start = form.head + bytes(form.offset.size) + GHOSTS[ghost] + bytes(before)
    return assembled(form, ifds, start).ljust(15_000, b"\0")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layouts") / "a.tif"


@pytest.mark.campaign
@settings(max_examples=150)
@given(
    form=st.sampled_from(FORMS),
    shape=SHAPES,
    images=st.lists(IMAGES, min_size=1, max_size=4),
    ghost=st.sampled_from(sorted(GHOSTS)),
    before=st.sampled_from([0, 0, 0, 50, 400]),
)
def test_every_order_of_blocks_is_judged_as_rio_cogeo_does(
    place: Path,
    form: Form,
    shape: tuple[int, int],
    images: list[Drawn],
    ghost: str,
    before: int,
) -> None:
    place.write_bytes(drawn(form, shape, images, ghost, before))
    check(place)


@pytest.mark.parametrize(
    ("problems", "factors", "firsts"),
    [
        ([], (2, 4), (9000, 6000, 2000)),
        ([UNSORTED_DATA], (2, 4), (6000, 9000, 2000)),
        ([EARLY_DATA], (2, 4), (9000, 6000, 100)),
        ([UNSORTED_OVERVIEWS], (4, 2), (9000, 6000, 2000)),
        ([NOT_REDUCED], (1, 2), (9000, 6000, 2000)),
    ],
)
def test_what_is_wrong_with_blocks_and_overviews_is_said(
    tmp_path: Path, problems: list[str], factors: tuple[int, ...], firsts: tuple[int, ...]
) -> None:
    form = FORMS[0]
    sides = [1040 // factor for factor in (1, *factors)]
    ifds = [tile_entries(form, x, x, 128, at, 9) for x, at in zip(sides, firsts, strict=True)]
    for ifd in ifds[1:]:
        ifd[254] = number_value(form, LONG, 1)
    path = tmp_path / "a.tif"
    path.write_bytes(assembled(form, ifds).ljust(15_000, b"\0"))
    assert check(path) == problems


def test_an_overview_without_tiles_across_is_said(tmp_path: Path) -> None:
    form = FORMS[0]
    ifds = [
        tile_entries(form, 1408, 1408, 128, 9000, 9),
        tile_entries(form, 704, 704, 704, 6000, 9),
    ]
    ifds[1][254] = number_value(form, LONG, 1)
    path = tmp_path / "a.tif"
    path.write_bytes(assembled(form, ifds).ljust(15_000, b"\0"))
    assert check(path) == [OVERVIEW_NOT_TILED]


def test_an_overview_in_front_of_the_image_is_said(tmp_path: Path) -> None:
    """The first IFD is not the first in the file."""
    form = FORMS[0]
    image, overview = tile_entries(form, 512, 512, 128, 9000, 9), tile_entries(
        form, 256, 256, 128, 6000, 9)  # fmt: skip
    overview[254] = number_value(form, LONG, 1)
    alone = assembled(form, [{256: overview[256], 254: overview[254]}])
    content = bytearray(assembled(form, [image], assembled(form, [overview])))
    assert len(alone) < 300
    (first,) = form.offset.unpack_from(content, 4)
    (entries,) = form.count.unpack_from(content, first)
    form.offset.pack_into(content, first + 2 + 12 * entries, 8)  # on to what came before
    path = tmp_path / "a.tif"
    path.write_bytes(bytes(content).ljust(15_000, b"\0"))
    assert check(path) == [UNSORTED_IFDS]


# What it costs.


def test_a_cog_costs_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a large one, whose arrays of tiles lie beyond: GDAL's ghost area tells enough."""
    spec = Spec(40 * FILES_A_FOLDER)
    paths = []
    for number in range(0, spec.count, FILES_A_FOLDER // 2):
        path = tmp_path / f"{number}.tif"
        pieces, size = encode(scene(spec, number), 0)
        with path.open("wb") as file:
            for offset, content in pieces:
                file.seek(offset)
                file.write(content)
            file.truncate(size)
        paths.append(path)
    reader = make_reader(None)
    pread, reads = os.pread, []

    def counted(file: int, size: int, offset: int) -> bytes:
        reads.append(offset)
        return pread(file, size, offset)

    with reader.environment():
        first = [reader.read(os.fsencode(path)) for path in paths]
        monkeypatch.setattr(os, "pread", counted)
        for path, before in zip(paths, first, strict=True):
            reads.clear()
            record = reader.read(os.fsencode(path))
            assert record == before
            assert record.reader == TIFF_HEADER
            assert (
                len(reads) == 1
                or record.cog_problems == [NOT_TILED, LATE_IFD]
                or (record.cog_problems == [LATE_IFD])
            )
    assert {record.cog for record in first} == {True, False}
    for path in paths[:40]:
        check(path)
