"""async-tiff opening headers, 64 at once: IFDs only, no CRS, no record, no output.

    find DIR -name '*.tif' | python -m bench.async_tiff_headers

Prints one line of JSON: files, files/s and CPU µs a file of the loop alone (the start of
the interpreter is left out).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence

from async_tiff import TIFF
from async_tiff.store import LocalStore

IN_FLIGHT = 64


async def open_all(paths: Sequence[str]) -> int:
    """Open every file; return how many image directories there were."""
    store = LocalStore()
    directories = 0
    waiting = iter(paths)

    async def work() -> None:
        nonlocal directories
        for path in waiting:
            directories += len((await TIFF.open(path, store=store)).ifds)

    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return directories


def main() -> None:
    """Read the paths on stdin and print the rates."""
    paths = [line.rstrip("\n") for line in sys.stdin]
    wall, cpu = time.perf_counter(), time.process_time()
    asyncio.run(open_all(paths))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    files = len(paths)
    rates = {"files_per_s": files / wall, "cpu_us_per_file": cpu / max(files, 1) * 1e6}
    print(json.dumps({"files": files, **rates}), flush=True)
    os._exit(0)  # its threads abort an interpreter that ends while they run


if __name__ == "__main__":
    main()
