"""A record does not depend on what the process did before: not on other files, nor their order."""

from __future__ import annotations

import json
import random
import sqlite3
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import from_origin
from tiff_variants import ASCII, SHORT, Value, edited

from rastermeta_async.footprints.crs import ENSEMBLES, crs_of_wkt
from rastermeta_async.model.record import Record, as_rows
from rastermeta_async.model.settings import READERS, Access
from rastermeta_async.readers.base import load_reader

GEO_KEYS, GEO_ASCII = 34735, 34737
ELLIPSOIDAL = 4979
"""WGS 84 with heights above the ellipsoid; as the code of a vertical CRS it is damage."""

ORACLE = """
import json, sys, rasterio
with rasterio.open(sys.argv[1]) as dataset:
    crs = dataset.crs
    print(json.dumps([crs.to_string(), crs.to_wkt()] if crs else [None, None]))
"""
"""A process of its own that opens one file and nothing else."""


Answers = list[tuple[str | None, str | None]]
"""Text and WKT of CRSs."""

PROJECTED, GEOGRAPHIC = 1, 2
"""Kinds of a GeoTIFF's model."""


def write_raster(
    path: Path, crs: str, keys: Sequence[int] = (), citation: str = "", model: int = PROJECTED
) -> Path:
    """Write a GeoTIFF; with further GeoKeys (groups of four numbers) and a citation, if given."""
    profile = {"driver": "GTiff", "width": 4, "height": 4, "count": 1, "dtype": "uint8"}
    place = from_origin(500_000, 5_000_000, 10, 10)
    with rasterio.Env(), rasterio.open(path, "w", crs=crs, transform=place, **profile):
        pass
    if keys:
        text = f"{citation}|\0".encode()
        cited = [1026, GEO_ASCII, len(text) - 1, 0] if citation else []
        every = [1024, 0, 1, model, 1025, 0, 1, 1, *cited, *keys]
        numbers = [1, 1, 1, len(every) // 4, *every]
        path.write_bytes(
            edited(
                path.read_bytes(),
                {
                    GEO_KEYS: Value(
                        SHORT, len(numbers), struct.pack(f"<{len(numbers)}H", *numbers)
                    ),
                    GEO_ASCII: Value(ASCII, len(text), text),
                },
            )
        )
    return path


@pytest.fixture(scope="module")
def rasters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Write rasters whose CRS has no code and, of PROJ's caches, no answer of its own."""
    folder = tmp_path_factory.mktemp("history")
    heights = [4096, 0, 1, ELLIPSOIDAL]
    return [
        write_raster(folder / "cited.tif", "EPSG:32631", [3072, 0, 1, 32631, *heights],
                     "NAD27 / UTM zone 11N + WGS84 ellipsoid height"),
        write_raster(folder / "other.tif", "EPSG:32631", [3072, 0, 1, 32631, *heights]),
        write_raster(folder / "europe.tif", "EPSG:25832", [3072, 0, 1, 25832, *heights]),
        write_raster(folder / "usual.tif", "EPSG:32631"),
        write_raster(folder / "solid.tif", "EPSG:4937", [2048, 0, 1, 4937], model=GEOGRAPHIC),
        write_raster(folder / "angles.tif", "EPSG:4258", [2048, 0, 1, 4258, 2054, 0, 1, 9101],
                     model=GEOGRAPHIC),
        write_raster(folder / "heights.tif", "EPSG:4937", [2048, 0, 1, 4937, 4096, 0, 1, 5703],
                     model=GEOGRAPHIC),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def answers(rasters: list[Path]) -> Answers:
    """Return text and WKT that rasterio gives of each, in a process of its own."""
    found: Answers = []
    for path in rasters:
        command = [sys.executable, "-W", "ignore", "-c", ORACLE, str(path)]
        process = subprocess.run(command, capture_output=True, check=True)
        text, wkt = json.loads(process.stdout)
        found.append((text, wkt))
    return found


def in_new_thread(work: Callable[[], list[Record]]) -> list[Record]:
    found: list[Record] = []
    thread = threading.Thread(target=lambda: found.extend(work()))
    thread.start()
    thread.join()
    return found


def of_plain_datums(folder: Path) -> None:
    """Have PROJ asked for ensembles as plain datums, by GeoKeys."""
    for datum in (6258, 6326):
        keys = [2050, 0, 1, datum, 3072, 0, 1, 32767]
        with rasterio.open(write_raster(folder / f"{datum}.tif", "EPSG:32631", keys)) as dataset:
            assert dataset.crs


PASTS: dict[str, Callable[[Path], object]] = {
    "nothing": lambda _: None,
    "a CRS84": lambda _: CRS.from_user_input("OGC:CRS84"),
    "an EPSG:4326": lambda _: CRS.from_epsg(4326),
    "an EPSG:4258": lambda _: CRS.from_epsg(4258),
    "plain datums": of_plain_datums,
}


@pytest.mark.campaign
@pytest.mark.parametrize("past", PASTS)
@pytest.mark.parametrize("reader", READERS)
def test_a_crs_is_that_of_a_fresh_process_whatever_was_made_before(
    tmp_path: Path,
    rasters: list[Path],
    answers: Answers,
    reader: str,
    past: str,
) -> None:
    def read(order: Sequence[int]) -> list[Record]:
        made = load_reader(READERS[reader], None, Access())
        made.enter()
        PASTS[past](tmp_path)
        return [as_rows(made.read(bytes(rasters[at])))[0] for at in order]

    dice = random.Random(past)
    for _ in range(12):
        order = dice.sample(range(len(rasters)), len(rasters))
        for at, record in zip(order, in_new_thread(partial(read, order)), strict=True):
            text, wkt = answers[at]
            assert record.crs == text, rasters[at].name
            assert record.crs_wkt == (None if record.proj_code else wkt), rasters[at].name


def test_the_rasters_tell_histories_apart(answers: Answers) -> None:
    told = [wkt for text, wkt in answers if text and wkt and not text.startswith("EPSG:")]
    assert any("ENSEMBLE[" in wkt for wkt in told)
    assert any("ENSEMBLE[" not in wkt for wkt in told)


def test_every_ensemble_of_the_epsg_registry_is_known() -> None:
    database = Path(rasterio.__file__).parent / "proj_data" / "proj.db"
    with sqlite3.connect(database) as registry:
        names = [
            name
            for table in ("geodetic_datum", "vertical_datum")
            for (name,) in registry.execute(
                f"select name from {table} where ensemble_accuracy is not null"
            )
        ]
    assert {name.removesuffix(" ensemble") for name in names} <= set(ENSEMBLES)


def test_of_very_many_crss_some_are_remembered() -> None:
    """An archive may have a CRS of its own in each file."""

    class Made:
        """Stands for a CRS."""

    made: list[weakref.ref[Made]] = []

    def make(_: str) -> Made:
        crs = Made()
        made.append(weakref.ref(crs))
        return crs

    for number in range(2000):
        wkt = f'GEOGCS["{number}"]'
        assert crs_of_wkt(wkt, make) is crs_of_wkt(wkt, make)
    assert len(made) == 2000, "each is made once"
    assert sum(crs() is not None for crs in made) < 1000
