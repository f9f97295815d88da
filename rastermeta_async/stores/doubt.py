"""Whether a run over an object store is worth going on with, judged by its first answers."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.errors import MissingExtraError, StoreError
from rastermeta_async.urls import is_url

FIRST = 100
"""Objects that must all fail alike."""

_HOPELESS = frozenset(
    {"AccessDenied", "Connection", "ExpiredToken", "NameResolution", "NoBucket", "NoCredentials",
     "NoRanges", "StoreError", "TLS", "Timeout", "WrongRegion"}
)  # fmt: skip
"""Problems that are not of one object."""

_AT_ONCE = MissingExtraError.__name__


class Doubt:
    """Looks at the first rows of a run: if no object can be reached, somebody should be told."""

    def __init__(self) -> None:
        self._left = FIRST
        self._kind: str | None = None

    def hear(self, rows: pa.RecordBatch) -> None:
        """Take notice of some rows.

        Raises:
            MissingExtraError: no object can be read in this installation.
            StoreError: the first hundred objects all failed for one reason that is not theirs.
        """
        if not self._left or not _in_store(rows):
            return
        for row in rows.select(["filepath", "error_type", "error_message"]).to_pylist():
            if not is_url(row["filepath"].encode()):
                continue
            if row["error_type"] == _AT_ONCE:
                raise MissingExtraError(row["error_message"])
            self._kind = self._kind or row["error_type"]
            if self._kind not in _HOPELESS or row["error_type"] != self._kind:
                self._left = 0
                return
            self._left -= 1
            if not self._left:
                raise StoreError(
                    f"none of the first {FIRST} objects can be read, e.g. {row['filepath']}: "
                    f"{row['error_message']}. Mend that and run the same command again, or give "
                    "--keep-going to have a row for each."
                )


def _in_store(rows: pa.RecordBatch) -> bool:
    # For local files, of all of which it is asked: far quicker than to look at each row.
    found: bool = pc.any(pc.match_substring(rows.column("filepath"), "://")).as_py()
    return found
