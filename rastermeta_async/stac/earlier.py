"""Whether a file that has an output's name is of an earlier export, and so may be replaced."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

import pyarrow as pa

from rastermeta_async.catalog.durable import open_regular
from rastermeta_async.catalog.reading import NotRowsError, footer_of
from rastermeta_async.errors import ForeignOutputError

PARQUET_KEY = "stac-geoparquet"
"""In a Parquet file's metadata; its presence tells that the rows are items."""

_MOST_BYTES = 64 * 1024 * 1024
"""What is read of a file: an item takes less, however many bands it has."""


def check_items(path: str) -> None:
    """Raise ForeignOutputError unless items can take this name."""
    of_items = _is_parquet_of_items if path.endswith(".parquet") else _is_lines_of_items
    _check(path, "holds no STAC items", is_known=of_items(path))


def check_collection(path: str) -> None:
    """Raise ForeignOutputError unless a collection can take this name."""
    found = _object(_content(path))
    is_known = found.get("type") == "Collection" and "stac_version" in found
    _check(path, "is no STAC collection", is_known=is_known)


def check_left_out(path: str) -> None:
    """Raise ForeignOutputError unless the list of what was left out can take this name."""
    is_known = _first_line(path).count(b"\t") == 1
    _check(path, "is no list of what an export left out", is_known=is_known)


def _check(path: str, what: str, *, is_known: bool) -> None:
    if os.path.exists(path) and not is_known:
        raise ForeignOutputError(f"{path} exists and {what}; give --overwrite or another -o")


def _is_parquet_of_items(path: str) -> bool:
    try:
        with open(open_regular(path), "rb") as file:
            return PARQUET_KEY.encode() in (footer_of(file).metadata or {})
    except (pa.ArrowException, OSError, NotRowsError):
        return False


def _is_lines_of_items(path: str) -> bool:
    if os.path.isfile(path) and not os.path.getsize(path):  # so is an export without items
        return True
    return "stac_version" in _object(_first_line(path))


def _first_line(path: str) -> bytes:
    """Return the first line of a file; nothing where it cannot be read."""
    with contextlib.suppress(OSError), open(open_regular(path), "rb") as file:
        return file.readline(_MOST_BYTES)
    return b""


def _content(path: str) -> bytes:
    """Return what is in a file; nothing where it cannot be read."""
    with contextlib.suppress(OSError), open(open_regular(path), "rb") as file:
        return file.read(_MOST_BYTES)
    return b""


def _object(text: bytes) -> dict[str, Any]:
    """Return the JSON object that a text is; an empty one where it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
