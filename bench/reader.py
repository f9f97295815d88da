"""What a header costs in a worker, against the bare floor, and how many take the fast way.

    find DIR -name '*.tif' | python -m bench.reader

Reads each file as a worker does, from the path to the bytes that go back to the run, in
alternating rounds with the floor; then names the reasons for which rasterio reads a file.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from bench.common import context, write_report
from bench.floor import read_header
from rastermeta_async.model.record import TIFF_HEADER, to_batch
from rastermeta_async.model.settings import CHUNK_PATHS
from rastermeta_async.readers.rasterio_reader import RasterioReader
from rastermeta_async.readers.router import Router
from rastermeta_async.readers.sidecars import Folders


def cpu_us(work: Callable[[Sequence[bytes]], None], paths: Sequence[bytes]) -> float:
    """CPU µs a file."""
    start = time.process_time()
    work(paths)
    return (time.process_time() - start) / len(paths) * 1e6


def main() -> None:
    """Read the paths on stdin and print CPU times, their ratio, and reasons."""
    parser = argparse.ArgumentParser(
        prog="bench.reader", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON; default bench/results/reader-DATE.json")
    args = parser.parse_args()
    paths = [os.fsencode(line.rstrip("\n")) for line in sys.stdin]
    folders = Folders()
    reader = Router(RasterioReader(None, folders), folders)
    reader.enter()
    warnings.simplefilter("ignore")

    def floor(paths: Sequence[bytes]) -> None:
        for path in paths:
            read_header(os.fsdecode(path))

    def worker(paths: Sequence[bytes]) -> None:
        for at in range(0, len(paths), CHUNK_PATHS):
            to_batch([reader.read(path) for path in paths[at : at + CHUNK_PATHS]]).serialize()

    floor(paths)
    worker(paths)
    rounds = [(cpu_us(floor, paths), cpu_us(worker, paths)) for _ in range(args.rounds)]
    ratio = median(ours / least for least, ours in rounds)
    floor_us, worker_us = (median(column) for column in zip(*rounds, strict=True))
    print(f"floor {floor_us:.1f} µs, worker {worker_us:.1f} µs a file: {ratio:.2f} x the floor")
    reasons = Counter(
        (record.error_type and "rasterio refuses it") or reader.compare(path).reason or TIFF_HEADER
        for path in paths
        for record in [reader.read(path)]
    )
    for reason, count in reasons.most_common():
        print(f"{count:>8}  {reason}")
    report = {
        "benchmark": "reader",
        "context": context(),
        "files": len(paths),
        "floor_us": floor_us,
        "worker_us": worker_us,
        "ratio": ratio,
        "ways": dict(reasons),
    }
    print(write_report(report, args.out, "reader"))


if __name__ == "__main__":
    main()
