"""A bare loop over rasterio: one thread, the environment set once, the usual fields, no output.

    find DIR -name '*.tif' | python -m bench.bare_rasterio [--no-sidecars]

Prints one line of JSON: files, files/s and CPU µs a file of the loop alone (the start of
the interpreter is left out).
What one core can do at most where GDAL has to open the file. With --no-sidecars GDAL is told that
there are none: faster, and right only where that is so.
"""

from __future__ import annotations

import sys

import rasterio

from bench.baseline import read_fields
from bench.floor import timed


def main() -> None:
    """Read the paths on stdin and print the rates."""
    paths = [line.rstrip("\n") for line in sys.stdin]
    looked_for = "EMPTY_DIR" if sys.argv[1:] == ["--no-sidecars"] else "FALSE"
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN=looked_for):
        print(timed(paths, read_fields))


if __name__ == "__main__":
    main()
