"""The floor: open, read 16 KiB, close. No reader of headers can be faster on one core.

    find DIR -name '*.tif' | python -m bench.floor

Prints one line of JSON: files, files/s and CPU µs a file of the loop alone (the start of
the interpreter is left out).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable

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


def main() -> None:
    """Read the paths on stdin and print the rates."""
    print(timed([line.rstrip("\n") for line in sys.stdin], read_header))


if __name__ == "__main__":
    main()
