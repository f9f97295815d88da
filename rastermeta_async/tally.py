"""How many GeoTIFFs GDAL read because of files next to them, and an example."""

from __future__ import annotations

import json
from threading import Lock


class Tally:
    """A count and its first example; several threads may add to it."""

    def __init__(self) -> None:
        self.count = 0
        self.example = ""
        """The first one, and which file was the reason."""
        self._lock = Lock()

    def add(self, count: int, example: str) -> None:
        """Add some, of which one is told."""
        with self._lock:
            self.count += count
            self.example = self.example or example

    def take(self) -> bytes:
        """Return what is new since the last time, for `add_taken` in another process."""
        with self._lock:
            count, self.count = self.count, 0
        return json.dumps((count, self.example)).encode() if count else b""

    def add_taken(self, content: bytes) -> None:
        """Add what another process took."""
        if content:
            self.add(*json.loads(content))


SIDECARS = Tally()
"""Those of this process; in that of a run, also those of its workers."""
