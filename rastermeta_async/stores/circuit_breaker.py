"""Ends a run over an object store if its answers show that no object can be read."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.model.errors import MissingExtraError, StoreError
from rastermeta_async.model.urls import is_url

ALIKE = 100
"""Objects in a row that must all fail for the same reason."""

_HOPELESS = frozenset(
    {"AccessDenied", "Connection", "ExpiredToken", "NameResolution", "NoBucket", "NoCredentials",
     "NoRanges", "StoreError", "TLS", "Timeout", "WrongRegion"}
)  # fmt: skip
"""Problems that do not concern a single object only."""

_LOST = frozenset({"Connection", "ExpiredToken", "NameResolution", "NoCredentials", "Timeout"})
"""Those of them that may also begin later in a run, and do not concern some objects only: each
costs time, and none says anything about the object."""

_AT_ONCE = MissingExtraError.__name__


class CircuitBreaker:
    """Watches the rows of a run, and raises an error if no object can be reached."""

    def __init__(self) -> None:
        self._alike = 0
        self._kind: str | None = None
        self._settled = False
        """Whether the first objects did not all fail for the same reason."""

    def note(self, rows: pa.RecordBatch) -> None:
        """Note the successes and failures in some rows.

        Raises:
            MissingExtraError: no object can be read in this installation.
            StoreError: the first `ALIKE` objects, or the last `ALIKE` of one host, all failed for
                one reason that does not lie in the objects.
        """
        if not _in_store(rows):
            return
        if self._settled and rows.column("error_type").null_count == rows.num_rows:
            self._alike, self._kind = 0, None
            return
        for row in rows.select(["filepath", "error_type", "error_message"]).to_pylist():
            if is_url(row["filepath"].encode()):
                self._note_one(row["filepath"], row["error_type"], row["error_message"])

    def _note_one(self, path: str, kind: str | None, message: str) -> None:
        if kind == _AT_ONCE:
            raise MissingExtraError(message)
        if not self._settled:
            self._settled = kind not in _HOPELESS or self._kind not in (None, kind)
        if self._settled:  # from now on only a host may be lost
            kind = f"{kind} {path.split('/')[2]}" if kind in _LOST else None
        self._alike = self._alike + 1 if kind == self._kind else 1
        self._kind = kind
        if kind and self._alike == ALIKE:
            which = "last" if self._settled else "first"
            raise StoreError(
                f"none of the {which} {ALIKE} objects can be read, e.g. {path}: {message}. Mend "
                "that and run the same command again, or give --keep-going to have a row for each."
            )


def _in_store(rows: pa.RecordBatch) -> bool:
    # Also called for the rows of local files: it is far faster than a look at each row.
    found: bool = pc.any(pc.match_substring(rows.column("filepath"), "://")).as_py()
    return found
