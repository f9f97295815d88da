"""JP2 headers on one core: the decoder against rasterio, and against GDAL's own rate.

    python -m bench.jp2

Writes small JP2 files of four products into a folder, and reads all of them in alternating rounds:
with the decoder, with rasterio for the same records, and with a bare loop that opens them, with
GDAL told that there are no sidecars. Fails if a record of the decoder is not rasterio's.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil

from bench.baseline import read_fields
from bench.common import context, in_rounds, write_report
from rastermeta_async.model.record import JP2_HEADER, Record, differing_columns
from rastermeta_async.readers.rasterio_reader import RasterioReader
from rastermeta_async.readers.router import Router
from rastermeta_async.readers.sidecars import Folders

_TILES = {"BLOCKXSIZE": "256", "BLOCKYSIZE": "256"}
PRODUCTS: list[dict[str, Any]] = [
    {"crs": "EPSG:32633", "dtype": "uint16", "options": {"GeoJP2": "NO", **_TILES}},
    {"crs": "EPSG:32631", "count": 3, "options": {"TLM": "YES", **_TILES}},
    {"crs": "EPSG:3035", "dtype": "int16", "options": {"GMLJP2": "NO"}},
    {"crs": "EPSG:4326", "scale": 1e-4, "options": {"WRITE_METADATA": "YES"}},
]
"""Placed by GML alone as scenes of Sentinel-2 are, by both forms, and by a GeoTIFF in a box."""

SIDE = 300


def write(path: Path, number: int) -> None:
    """Write a file; files of one product differ in place, height and tags."""
    kind: dict[str, Any] = {"count": 1, "dtype": "uint8", "scale": 10.0}
    kind |= PRODUCTS[number % len(PRODUCTS)]
    scale, options = kind.pop("scale"), kind.pop("options")
    left, top = 12_345 * scale + number * scale, 400_000 * scale
    shape = kind["count"], SIDE + number % 7, SIDE
    profile = kind | {"driver": "GTiff", "height": shape[1], "width": shape[2]}
    transform = rasterio.Affine(scale, 0, left, 0, -scale, top)
    with rasterio.MemoryFile() as memory:
        with memory.open(**profile, transform=transform) as dataset:
            dataset.write(np.ones(shape, kind["dtype"]))
            dataset.update_tags(SCENE=f"scene {number}")
        with rasterio.Env(GDAL_PAM_ENABLED=False):
            rasterio.shutil.copy(memory.name, path, driver="JP2OpenJPEG", **options)


def files_per_s(read: Callable[[bytes], object], paths: list[bytes]) -> float:
    """Read all files; return the rate."""
    start = time.perf_counter()
    for path in paths:
        read(path)
    return len(paths) / (time.perf_counter() - start)


def bare(paths: list[bytes]) -> float:
    """Open all files and read the usual fields, without looking for sidecars; return the rate."""
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
        return files_per_s(lambda path: read_fields(os.fsdecode(path)), paths)


def check(ours: Record, right: Record) -> None:
    """Check that the decoder made a record, and that it is rasterio's."""
    wrong = differing_columns(ours, right)
    if ours.reader != JP2_HEADER or wrong:
        raise SystemExit(f"{ours.filepath}: read by {ours.reader}; columns that differ: {wrong}")


def main() -> None:
    """Print rates and their ratios."""
    parser = argparse.ArgumentParser(prog="bench.jp2", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=400, help="files")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON; default bench/results/jp2-DATE.json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    folders = Folders()
    rasterio_reader = RasterioReader(None, folders)
    router = Router(rasterio_reader, folders)
    router.enter()
    with tempfile.TemporaryDirectory(prefix="rastermeta-bench-") as place:
        for number in range(args.count):
            write(Path(place, f"{number}.jp2"), number)
        paths = [os.fsencode(path) for path in sorted(Path(place).iterdir())]
        time.sleep(0.1)  # a file that was written just now is looked at twice
        for path in paths:
            check(router.read(path), rasterio_reader.read(path))
        cases: dict[str, Callable[[], float]] = {
            "decoder": partial(files_per_s, router.read, paths),
            "rasterio": partial(files_per_s, rasterio_reader.read, paths),
            "bare loop": partial(bare, paths),
        }
        found = in_rounds(cases, args.rounds)
    rates = {name: case["median"] for name, case in found.items()}
    ratios = {name: rates["decoder"] / rate for name, rate in rates.items() if name != "decoder"}
    for name, ratio in ratios.items():
        print(f"the decoder is {ratio:.1f} x the rate of {name}")
    report = {"benchmark": "jp2", "context": context(), "settings": {"count": args.count},
              "cases": found, "decoder_over": ratios}  # fmt: skip
    print(write_report(report, args.out, "jp2"))


if __name__ == "__main__":
    main()
