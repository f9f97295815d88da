"""Read from the checkpoint log what a run has done; works while the run goes on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from rastermeta_async.catalog.checkpoint import History, Part, history, log_content, read_entries
from rastermeta_async.catalog.durable import is_locked, open_regular
from rastermeta_async.catalog.formats import FORMATS
from rastermeta_async.catalog.names import log_path, parts_folder, sealed_temporaries
from rastermeta_async.catalog.workers import noted_workers
from rastermeta_async.model.errors import OutputError
from rastermeta_async.model.text import no_rasters_in_words, on_a_line, plural, seconds_in_words
from rastermeta_async.model.urls import local_name

PAUSE = 300.0
"""Longest usual time between two parts of a running run, seconds: a batch closes in a minute."""

_SHOWN_WORKERS = 10

RECENT = 60.0
"""The rate is of the parts in this many seconds before the last part, and of at least two."""


@dataclass(frozen=True)
class Status:
    """State of one output."""

    output: str
    state: str
    """running, stopped or complete; missing or changed: a complete catalog that was altered."""
    rows: int
    """Committed rows: those of the catalog and of the parts after it, without no rasters."""
    failures: int
    sidecars: int
    """Paths that are no rasters: files that belong to a raster."""
    others: int
    """Other paths that are no rasters."""
    several: bool
    """Whether a path may have several rows."""
    parts: int
    """Parts that are not in the catalog yet."""
    rate: float | None
    """Recent rows a second; None: there are fewer than two parts."""
    rate_seconds: float | None
    """Seconds over which the rate is measured."""
    first: float | None
    """Seconds since 1970 of the first commit since the last pause."""
    last: float | None
    """Seconds since 1970 of the last commit or sealing."""
    last_part: str | None
    """File name of the last part that is not in the catalog yet."""
    last_rows: int | None
    """Rows of the last part."""
    workers: list[str]
    """Processes or nodes that read for a running run."""
    sealing: bool
    """Whether the catalog is being written, or was being written when the run ended."""

    def as_json(self) -> str:
        """Return the status as a JSON object."""
        return json.dumps(asdict(self))

    def as_text(self, now: float | None = None) -> str:
        """Return the status for a person; `now` is in seconds since 1970."""
        return "\n".join(self._lines(time.time() if now is None else now))

    def _lines(self, now: float) -> Iterator[str]:
        yield f"{self.output}: {self.state}"
        yield f"  rows      {self.rows:,}"
        yield f"  failures  {self.failures:,}"
        if text := no_rasters_in_words(self.rows, self.sidecars, self.others, several=self.several):
            yield f"  besides   {text}"
        if self.parts:
            yield f"  parts     {self.parts:,} not yet in the catalog"
        if self.rate is not None and self.rate_seconds is not None:
            span = seconds_in_words(self.rate_seconds)
            yield f"  rate      {self.rate:,.0f} files/s over {span}"
        if self.first is not None and self.state == "running":
            yield f"  since     {seconds_in_words(now - self.first)}"
        if self.workers:
            some = ", ".join(map(on_a_line, self.workers[:_SHOWN_WORKERS]))
            further = len(self.workers) - _SHOWN_WORKERS
            yield f"  workers   {some}{f' and {further:,} more' if further > 0 else ''}"
        if self.last is None:
            yield "  last      nothing is committed yet"
            return
        ago = f"{seconds_in_words(now - self.last)} ago"
        what = f", {self.last_part}, {plural(self.last_rows or 0, 'row')}" if self.last_part else ""
        yield f"  last      {ago}{what}"
        if self.sealing and self.state in ("running", "stopped"):
            yield (
                "  now       writing the catalog"
                if self.state == "running"
                else ("  next      the catalog is to be written: run the same command again")
            )
        elif self.state == "running" and now - self.last > PAUSE:
            yield "  now       nothing has come for long: the source is slow, or a disk hangs"
        elif self.state == "stopped":
            yield "  next      run the same command again to go on"


def status_of(output: str) -> Status:
    """Return the status from the log of an output; for a URL, from that of its local file.

    Raises:
        SettingsError: the program cannot upload a file to this URL.
        OutputError: there is no log, or it is damaged, or not a regular file.
    """
    output = local_name(output)
    path = log_path(output)
    try:
        with open(open_regular(path), "rb") as file:
            content = log_content(file, path)
    except FileNotFoundError:
        if os.path.isfile(output) and output.endswith(tuple(FORMATS)):
            raise OutputError(
                f"{path} does not exist, so nothing tells of a run; `rastermeta summary` tells "
                f"what is in {output}"
            ) from None
        raise OutputError(
            f"{path} does not exist: no run has written {output}, or it was started elsewhere, or "
            "the log was removed"
        ) from None
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror}") from error
    state = history(read_entries(content, path))
    sealed, parts = state.sealed, state.parts
    last_part = parts[-1] if parts else None
    latest = last_part or sealed
    latest_run = _without_pause(parts)
    now = _state(output, path, state)
    recent = [part for part in latest_run if part.time >= latest_run[-1].time - RECENT]
    if len(recent) < 2:
        recent = latest_run[-2:]
    seconds = recent[-1].time - recent[0].time if len(recent) > 1 else 0.0
    return Status(
        output=os.path.basename(output),
        state=now,
        rows=(sealed.rows if sealed else 0) + sum(part.rows - part.no_rasters for part in parts),
        failures=(sealed.failures if sealed else 0) + sum(part.failures for part in parts),
        sidecars=(sealed.sidecars if sealed else 0) + sum(part.sidecars for part in parts),
        others=(sealed.others if sealed else 0) + sum(part.others for part in parts),
        several=bool(sealed and sealed.several),
        parts=len(parts),
        rate=sum(part.rows for part in recent[1:]) / seconds if seconds > 0 else None,
        rate_seconds=seconds if seconds > 0 else None,
        first=latest_run[0].time if latest_run else None,
        last=latest.time if latest else None,
        last_part=last_part.name if last_part else None,
        last_rows=last_part.rows if last_part else None,
        workers=noted_workers(parts_folder(output)) if now == "running" else [],
        sealing=state.sealing is not None or bool(sealed_temporaries(parts_folder(output))),
    )


def _without_pause(parts: tuple[Part, ...]) -> list[Part]:
    """Return the last parts without a pause between them: usually those of one run."""
    found: list[Part] = []
    for part in reversed(parts):
        if found and not 0 <= found[-1].time - part.time <= PAUSE:
            break
        found.append(part)
    return found[::-1]


def _state(output: str, log: str, state: History) -> str:
    if is_locked(log):
        return "running"
    if state.sealed is None or state.parts:
        return "stopped"
    if not os.path.exists(output):
        return "missing"
    return "complete" if os.path.getsize(output) == state.sealed.size else "changed"
