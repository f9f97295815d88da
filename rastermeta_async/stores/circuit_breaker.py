"""Whether a run over an object store is worth going on with, judged by its answers."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.model.errors import MissingExtraError, StoreError
from rastermeta_async.model.urls import is_url

ALIKE = 100
"""Objects in a row that must all fail alike."""

_HOPELESS = frozenset(
    {"AccessDenied", "Connection", "ExpiredToken", "NameResolution", "NoBucket", "NoCredentials",
     "NoRanges", "StoreError", "TLS", "Timeout", "WrongRegion"}
)  # fmt: skip
"""Problems that are not of one object."""

_LOST = frozenset({"Connection", "ExpiredToken", "NameResolution", "NoCredentials", "Timeout"})
"""Those of them that may begin later, and then be no matter of some objects: each takes its time,
and none says anything about the object."""

_AT_ONCE = MissingExtraError.__name__


class CircuitBreaker:
    """Looks at the rows of a run: if no object can be reached, somebody should be told."""

    def __init__(self) -> None:
        self._alike = 0
        self._kind: str | None = None
        self._settled = False
        """Whether the first objects did not all fail alike."""

    def note(self, rows: pa.RecordBatch) -> None:
        """Take notice of some rows.

        Raises:
            MissingExtraError: no object can be read in this installation.
            StoreError: the first hundred objects, or the last hundred of one host, all failed for
                one reason that is not theirs.
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
        if self._settled:  # from now on it is a host that may be lost
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
    # For local files, of all of which it is asked: far quicker than to look at each row.
    found: bool = pc.any(pc.match_substring(rows.column("filepath"), "://")).as_py()
    return found
