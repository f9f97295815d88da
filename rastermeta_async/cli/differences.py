"""Compare two catalogs for a person, or as a list for programs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rastermeta_async.catalog.difference import (
    ADDED,
    CHANGED,
    GONE,
    SAME,
    Difference,
    Pairs,
    listed,
    paired,
)
from rastermeta_async.catalog.temporary import (
    Temporary,
    check_is_no_catalog,
    file_at,
    unchanged_on_error,
)
from rastermeta_async.model.errors import ForeignOutputError
from rastermeta_async.model.text import bytes_in_words, plural

Put = Callable[[str], None]
"""Writes lines."""


@dataclass(frozen=True)
class Compared:
    """The counts of a comparison, to print."""

    counts: Difference

    @property
    def differs(self) -> bool:
        """Whether any file was added, is gone or has changed."""
        return bool(self.counts)

    def as_json(self) -> str:
        """Return the counts as a JSON object."""
        files = {kind: self.counts.files[kind] for kind in (ADDED, GONE, CHANGED, SAME)}
        sizes = {kind: self.counts.bytes[kind] for kind in (ADDED, GONE, CHANGED, SAME)}
        columns = dict(self.counts.columns.most_common())
        return json.dumps({"files": files, "bytes": sizes, "columns": columns}, indent=2)

    def as_line(self) -> str:
        """Return the counts in a line."""
        return ", ".join(
            f"{self.counts.files[kind]:,} {kind}" for kind in (ADDED, GONE, CHANGED, SAME)
        )

    def as_text(self) -> str:
        """Return the counts as text."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        counts = self.counts
        width = max(len(f"{files:,}") for files in [*counts.files.values(), 0])
        for kind in (ADDED, GONE, CHANGED, SAME):
            size = bytes_in_words(counts.bytes[kind])
            yield f"{kind:<10}{counts.files[kind]:>{width},}  {size}".rstrip()
        if counts.columns:
            yield "\nWhat has changed"
        for column, files in counts.columns.most_common():
            yield f"  {column:<16}{plural(files, 'file')}"


def compared(
    old: str, new: str, listing: str | None, put: Put | None, *, overwrite: bool = False
) -> Compared:
    """Compare two finished catalogs.

    Args:
        old: name of a catalog.
        new: name of another one.
        listing: name of the file for the list of what differs; None: no list.
        put: writes the list in place of a file.
        overwrite: replace a file with the name of the list.

    Raises:
        SettingsError, OutputError: one is no catalog, or is damaged; or the list is a catalog.
        ForeignOutputError: the list would replace a file.
        WriteError: the disk refused a write.
    """
    pairs = paired(old, new, tempfile.gettempdir())
    if listing is None or put is not None:
        return Compared(_counted(pairs, put))
    for catalog in (old, new):
        check_is_no_catalog(listing, catalog=catalog)
    stood = file_at(listing)
    if stood and not overwrite:
        raise ForeignOutputError(f"{listing} exists; give --overwrite or another --list")
    with unchanged_on_error(listing, "--list"), Temporary(listing) as temporary:
        counts = _counted(pairs, lambda text: _write(temporary, text))
        temporary.publish(listing, stood)
    return Compared(counts)


def _write(temporary: Temporary, text: str) -> None:
    temporary.file.write(text.encode("utf-8", "backslashreplace"))


def _counted(pairs: Iterator[Pairs], put: Put | None) -> Difference:
    counts = Difference()
    for some in pairs:
        counts.add(some)
        lines = [_as_line(one) for one in listed(some)] if put else []
        if put and lines:
            put("".join(lines))
    return counts


def _as_line(one: dict[str, object]) -> str:
    return json.dumps(one, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
