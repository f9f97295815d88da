"""GDAL's own way to objects, tuned as its documentation advises: 128 threads, one open each.

    python -m bench.gdal_remote LIST ENDPOINT

LIST holds s3:// URLs; prints how many headers were opened a second.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import rasterio
from rasterio.session import DummySession

THREADS = 128


def main() -> None:
    """Open every object of the list."""
    urls = Path(sys.argv[1]).read_text().split()
    tuned = {
        "AWS_NO_SIGN_REQUEST": "YES", "AWS_S3_ENDPOINT": sys.argv[2].removeprefix("http://"),
        "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE", "AWS_REGION": "us-east-1",
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_INGESTED_BYTES_AT_OPEN": 32768,
        "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".tif", "GDAL_HTTP_MULTIPLEX": "YES",
        "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES", "VSI_CACHE": "TRUE",
    }  # fmt: skip

    def read(url: str) -> int:
        with (
            rasterio.Env(session=DummySession(), **tuned),
            rasterio.open(url.replace("s3://", "/vsis3/")) as dataset,
        ):
            return int(dataset.count)

    began = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as threads:
        assert all(threads.map(read, urls))
    print(len(urls) / (time.perf_counter() - began))


if __name__ == "__main__":
    main()
