"""GDAL's way to an object: its name there, and the configuration to open it with."""

from __future__ import annotations

import os

from rastermeta_async.config import Access
from rastermeta_async.stores.credentials import for_gdal
from rastermeta_async.urls import parts_of, requested

CONNECT_SECONDS = 5
GDAL_RETRIES = 1
"""Of a request, so that a single fault does not cost an open; further ones are for the caller."""

_RETRIED = "408,429,500,502,503,504"
"""HTTP statuses; with a list at hand GDAL also retries lost connections, without it not all."""

_PREFIXES = {"s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}


def gdal_name(url: str) -> str:
    """Return the name under which GDAL opens a URL (GDAL, "Virtual File Systems")."""
    scheme, host, key = parts_of(url)
    prefix = _PREFIXES.get(scheme)
    return f"{prefix}{host}/{key}" if prefix else f"/vsicurl/{requested(url)}"


def gdal_options(url: str, access: Access, timeout: float) -> dict[str, object]:
    """Return the configuration with which GDAL opens a URL, and nothing else.

    Raises:
        StoreError: there are no credentials for it.
    """
    name = gdal_name(url)
    return {
        # It looks for each possible sidecar by its name: a listing may be without end.
        "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE" if access.sidecars else "EMPTY_DIR",
        "CPL_VSIL_CURL_ALLOWED_FILENAME": name,
        "CPL_VSIL_CURL_USE_HEAD": "NO",
        # GDAL remembers what failed, and would for the rest of the run.
        "CPL_VSIL_CURL_NON_CACHED": name,
        "CPL_VSIL_CURL_CACHE_SIZE": 4 * 1024 * 1024,
        "GDAL_INGESTED_BYTES_AT_OPEN": 32 * 1024,
        "GDAL_HTTP_PROXY": _proxy(url),
        "GDAL_HTTP_CONNECTTIMEOUT": CONNECT_SECONDS,
        "GDAL_HTTP_TIMEOUT": max(1, int(timeout)),
        "GDAL_HTTP_MAX_RETRY": GDAL_RETRIES,
        "GDAL_HTTP_RETRY_DELAY": 0.3,
        "GDAL_HTTP_RETRY_CODES": _RETRIED,
        **for_gdal(url.partition("://")[0], access),
    }


def _proxy(url: str) -> str:
    """Return the proxy that the environment names for a URL, as curl would find it; "": none."""
    name = "http_proxy" if url.startswith("http://") else "https_proxy"
    return os.environ.get(name) or os.environ.get(name.upper()) or ""
