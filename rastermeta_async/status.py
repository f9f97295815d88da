"""What a run has done, as its checkpoint log tells; works while the run goes on."""

from __future__ import annotations

import datetime as dt
import json
import os
import time
from dataclasses import asdict, dataclass

from rastermeta_async.checkpoint import History, Part, history, read_entries
from rastermeta_async.durable import is_locked
from rastermeta_async.errors import OutputError
from rastermeta_async.output import log_path


@dataclass(frozen=True)
class Status:
    """State of one output."""

    output: str
    state: str
    """running, stopped, complete; or missing or changed, of a catalog that was complete."""
    rows: int
    """Rows that are safe: those of the catalog and of the parts since."""
    failures: int
    parts: int
    """Parts that are not in the catalog yet."""
    rate: float | None
    """Rows a second between the first and the last of these parts."""
    last: float | None
    """Seconds since 1970 of the last commit or sealing."""

    def as_json(self) -> str:
        """Return the status as a JSON object."""
        return json.dumps(asdict(self))

    def as_text(self) -> str:
        """Return the status for a person."""
        lines = [f"{self.output}: {self.state}", f"  rows      {self.rows:,}"]
        lines.append(f"  failures  {self.failures:,}")
        lines.append(f"  parts     {self.parts:,} not yet in the catalog")
        if self.rate is not None:
            lines.append(f"  rate      {self.rate:,.0f} files/s")
        if self.last is not None:
            ago = dt.timedelta(seconds=round(max(time.time() - self.last, 0)))
            lines.append(f"  last      {ago} ago")
        return "\n".join(lines)


def status_of(output: str) -> Status:
    """Return what the log of an output says.

    Raises:
        OutputError: there is no log, or it is damaged.
    """
    path = log_path(output)
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        raise OutputError(
            f"{path} does not exist: no run has written {output}, or it was started elsewhere, or "
            "the log was removed"
        ) from None
    state = history(read_entries(content, path))
    sealed, parts = state.sealed, state.parts
    latest = parts[-1] if parts else sealed
    return Status(
        output=os.path.basename(output),
        state=_state(output, path, state),
        rows=(sealed.rows if sealed else 0) + sum(part.rows for part in parts),
        failures=(sealed.failures if sealed else 0) + sum(part.failures for part in parts),
        parts=len(parts),
        rate=_rate(parts),
        last=latest.time if latest else None,
    )


def _state(output: str, log: str, state: History) -> str:
    if is_locked(log):
        return "running"
    if state.sealed is None or state.parts:
        return "stopped"
    if not os.path.exists(output):
        return "missing"
    return "complete" if os.path.getsize(output) == state.sealed.size else "changed"


def _rate(parts: tuple[Part, ...]) -> float | None:
    if len(parts) < 2:
        return None
    seconds = parts[-1].time - parts[0].time
    return sum(part.rows for part in parts[1:]) / seconds if seconds > 0 else None
