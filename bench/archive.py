"""Write a seeded archive of sparse GeoTIFFs and COGs to measure on.

Every file is a function of the seed, its number and the settings alone: the same settings give the
same bytes on any machine.

    python -m bench.archive DIR --count 100000 --check 2000
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

from bench.gdal_files import copied_epsg, gdal_copy, sidecar
from bench.scenes import FILES_A_FOLDER, Spec, scene
from bench.tiff import encode

MANIFEST = "archive.json"
RASTER_SUFFIXES = (".tif", ".img", ".jp2")
"""What `find` has to look for: everything else in an archive is a sidecar or the manifest."""


def _write_folder(directory: str, spec: Spec, folder: int) -> None:
    first = folder * FILES_A_FOLDER
    made = ""
    for number in range(first, min(first + FILES_A_FOLDER, spec.count)):
        item = scene(spec, number)
        path = f"{directory}/{item.path}"
        if not made:
            made = os.path.dirname(path)
            os.makedirs(made)
        if item.form in ("jp2", "img"):
            data = gdal_copy(item.form, copied_epsg(item))
            pieces, size = [(0, data)], len(data)
        else:
            pieces, size = encode(item, spec.big_tags)
        _write(path, pieces, size)
        if item.form == "aux":
            data = sidecar(item)
            _write(path + ".aux.xml", [(0, data)], len(data))


def _write(path: str, pieces: list[tuple[int, bytes]], size: int) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        os.ftruncate(file, size)
        for position, data in pieces:
            written = os.pwrite(file, data, position)
            if written != len(data):
                raise OSError(f"{path}: wrote {written} of {len(data)} bytes")
    finally:
        os.close(file)


def folder_of(parent: Path, spec: Spec) -> Path:
    """Return where an archive is kept."""
    return parent.resolve() / f"archive-{spec.count}-{spec.seed}-{spec.gdal_share:g}"


def make(directory: Path, spec: Spec, *, processes: int = 2) -> bool:
    """Write the archive; False if it is there already.

    Raises FileExistsError if the directory holds anything else (also half an archive).
    """
    manifest = directory / MANIFEST
    if manifest.exists() and json.loads(manifest.read_text()) == asdict(spec):
        return False
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise FileExistsError(
            f"{directory} is not empty and holds no complete archive of these settings; "
            "delete it or name another directory"
        )
    folders = range(math.ceil(spec.count / FILES_A_FOLDER))
    with ProcessPoolExecutor(processes) as pool:
        jobs = [pool.submit(_write_folder, str(directory), spec, folder) for folder in folders]
        for job in jobs:
            job.result()
    manifest.write_text(json.dumps(asdict(spec)) + "\n")
    return True


def geotiffs(parent: Path, count: int) -> tuple[Spec, Path]:
    """Write an archive in which no file needs GDAL, unless it is there; return where it is."""
    spec = Spec(count, 1, 0.0)
    root = folder_of(parent, spec)
    make(root, spec)
    return spec, root


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="bench.archive", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "dir", type=Path, help="where to write; must be empty or hold the same archive"
    )
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gdal-share", type=float, default=0.0, metavar="FRACTION")
    parser.add_argument("--big-tags", type=int, default=0, metavar="BYTES")
    parser.add_argument(
        "--check", type=int, default=0, metavar="N", help="compare N files with rasterio"
    )
    args = parser.parse_args()
    spec = Spec(args.count, args.seed, args.gdal_share, args.big_tags)
    start = time.perf_counter()
    made = make(args.dir, spec)
    took = time.perf_counter() - start
    print(f"{spec.count} files written in {took:.1f} s" if made else "already there")
    if args.check:
        from bench.check import check

        print(f"{check(args.dir, spec, args.check)} files compared with rasterio, no difference")


if __name__ == "__main__":
    main()
