"""A finished catalog to look at from Python: in a notebook, as a summary, as rows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import pyarrow as pa

from rastermeta_async.catalog.completed import batches_of
from rastermeta_async.cli.summary import Summary, summary_of
from rastermeta_async.model.record import SCHEMA
from rastermeta_async.model.urls import local_name


def summary(catalog: str | os.PathLike[str]) -> Summary:
    """Return the summary of a finished catalog; a notebook shows it.

    Raises:
        SettingsError: a catalog cannot have this name.
        OutputError: it is no catalog, or damaged, or of another version.
    """
    return summary_of(local_name(os.fsdecode(catalog)))


def open_catalog(catalog: str | os.PathLike[str]) -> Catalog:
    """Return a finished catalog; a notebook shows its summary.

    Raises:
        SettingsError, OutputError: see `summary`.
    """
    return Catalog(local_name(os.fsdecode(catalog)))


class Catalog:
    """A finished catalog.

    Args:
        path: of a local file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        next(self.batches(["status"]), None)  # raises if it is no catalog

    def batches(self, columns: Sequence[str] = SCHEMA.names) -> Iterator[pa.RecordBatch]:
        """Yield its rows in its order, in batches, with these columns."""
        return batches_of(self.path, columns)

    def summary(self) -> Summary:
        """Return its summary."""
        return summary_of(self.path)

    def __repr__(self) -> str:
        return f"open_catalog({self.path!r})"

    def _repr_html_(self) -> str:
        """Return the summary for a notebook."""
        return self.summary()._repr_html_()
