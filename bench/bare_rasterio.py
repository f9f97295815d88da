"""A bare loop over rasterio: one thread, the environment set once, the usual fields, no output.

    find DIR -name '*.tif' | python -m bench.bare_rasterio

Prints one line of JSON: files, files/s and CPU µs a file of the loop alone (the start of
the interpreter is left out).
What one core can do at most where GDAL has to open the file; EMPTY_DIR leaves sidecar files out.
"""

from __future__ import annotations

import sys

import rasterio

from bench.baseline import read_fields
from bench.floor import timed


def main() -> None:
    """Read the paths on stdin and print the rates."""
    paths = [line.rstrip("\n") for line in sys.stdin]
    with rasterio.Env.from_defaults(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
        print(timed(paths, read_fields))


if __name__ == "__main__":
    main()
