"""What people run today: one future a file, rasterio as it comes, one Parquet at the end.

    find DIR -name '*.tif' | python -m bench.baseline -o catalog.parquet

Deliberately the script that one finds everywhere, not a tuned one.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
from rasterio.errors import RasterioError

SCHEMA = pa.schema(
    [
        ("filepath", pa.string()),
        ("status", pa.string()),
        ("error_message", pa.string()),
        ("crs", pa.string()),
        ("bounds", pa.list_(pa.float64())),
        ("res", pa.list_(pa.float64())),
        ("count", pa.int64()),
        ("dtype", pa.string()),
        ("nodata", pa.float64()),
        ("transform", pa.list_(pa.float64())),
        ("dataset_tags", pa.map_(pa.string(), pa.string())),
        ("band_tags", pa.map_(pa.string(), pa.map_(pa.string(), pa.string()))),
    ]
)


def read_fields(path: str) -> dict[str, Any]:
    """Read the fields of the usual script."""
    with rasterio.open(path) as src:
        return {
            "crs": src.crs.to_string() if src.crs else None,
            "bounds": list(src.bounds),
            "res": list(src.res),
            "count": src.count,
            "dtype": src.dtypes[0],
            "nodata": src.nodata,
            "transform": list(src.transform)[:6],
            "dataset_tags": src.tags(),
            "band_tags": {str(band): src.tags(band) for band in src.indexes},
        }


def extract(path: str) -> dict[str, Any]:
    """Make the row of one file; raise what is no error of rasterio's."""
    try:
        return {"filepath": path, "status": "success", "error_message": None, **read_fields(path)}
    except RasterioError as error:
        return {"filepath": path, "status": "error", "error_message": str(error)}


def main() -> None:
    """Read the paths on stdin and write the catalog."""
    parser = argparse.ArgumentParser(
        prog="bench.baseline", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT")
    parser.add_argument("--threads", type=int, metavar="N", help="default: Python's own")
    args = parser.parse_args()
    paths = [line.rstrip("\n") for line in sys.stdin]
    rows = []
    with ThreadPoolExecutor(args.threads) as pool:
        futures = {pool.submit(extract, path): path for path in paths}
        for future in as_completed(futures):
            error = future.exception()
            if error is None:
                rows.append(future.result())
            else:
                path = futures[future]
                rows.append({"filepath": path, "status": "fatal", "error_message": str(error)})
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), args.output)


if __name__ == "__main__":
    main()
