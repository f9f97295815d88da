"""The floor: open, read 16 KiB, close. No reader of headers can be faster on one core.

    find DIR -name '*.tif' | python -m bench.floor

Prints one line of JSON: files, files/s and CPU µs a file of the loop alone (the start of
the interpreter is left out).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

HEADER_BYTES = 16 * 1024


def timed(paths: Iterable[str], read: Callable[[str], object]) -> str:
    """Call `read` for each path; JSON with `files`, `files_per_s` and `cpu_us_per_file`."""
    files = 0
    wall, cpu = time.perf_counter(), time.process_time()
    for path in paths:
        read(path)
        files += 1
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    rates = {"files_per_s": files / wall, "cpu_us_per_file": cpu / max(files, 1) * 1e6}
    return json.dumps({"files": files, **rates})


def read_header(path: str) -> bytes:
    """Read the first 16 KiB."""
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, HEADER_BYTES)
    finally:
        os.close(file)


def in_threads(paths: list[str], threads: int) -> str:
    """Read the header of each path, so many at once; as `timed`."""
    wall, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(read_header, paths):
            pass
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    rates = {"files_per_s": len(paths) / wall, "cpu_us_per_file": cpu / max(len(paths), 1) * 1e6}
    return json.dumps({"files": len(paths), **rates})


def main() -> None:
    """Read the paths on stdin and print the rates."""
    parser = argparse.ArgumentParser(prog="bench.floor", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=1, help="files at once")
    args = parser.parse_args()
    paths = [line.rstrip("\n") for line in sys.stdin]
    print(timed(paths, read_header) if args.threads == 1 else in_threads(paths, args.threads))


if __name__ == "__main__":
    main()
