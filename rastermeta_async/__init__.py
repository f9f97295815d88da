"""Stream the headers of huge raster archives into one catalog, crash-safe and in little memory.

`read_record` reads one header, `extract` streams records, `extract_to` makes a catalog.
Everything here is imported when it is first used, so that the command line starts quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rastermeta_async.api import Outcome, extract, extract_to, read_table
    from rastermeta_async.catalog.sink import Sink
    from rastermeta_async.merging import Merged, merge_to
    from rastermeta_async.model.errors import RastermetaError
    from rastermeta_async.model.record import SCHEMA, Band, Bounds, Record
    from rastermeta_async.model.settings import Access, Settings
    from rastermeta_async.one_file import read_record
    from rastermeta_async.opened import Catalog, open_catalog, summary
    from rastermeta_async.pools.base import Pool
    from rastermeta_async.progress import Progress
    from rastermeta_async.sources.paths import Source

__version__ = "0.1.0"

_HOMES = {
    "read_record": "one_file",
    "extract": "api",
    "extract_to": "api",
    "Outcome": "api",
    "merge_to": "merging",
    "read_table": "api",
    "summary": "opened",
    "open_catalog": "opened",
    "Catalog": "opened",
    "Merged": "merging",
    "Settings": "model.settings",
    "Access": "model.settings",
    "RastermetaError": "model.errors",
    "Progress": "progress",
    "Source": "sources.paths",
    "Pool": "pools.base",
    "Sink": "catalog.sink",
    "SCHEMA": "model.record",
    "Record": "model.record",
    "Band": "model.record",
    "Bounds": "model.record",
}

__all__ = [
    "read_record",
    "extract",
    "extract_to",
    "Outcome",
    "merge_to",
    "read_table",
    "summary",
    "open_catalog",
    "Catalog",
    "Merged",
    "Settings",
    "Access",
    "RastermetaError",
    "Progress",
    "Source",
    "Pool",
    "Sink",
    "SCHEMA",
    "Record",
    "Band",
    "Bounds",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
