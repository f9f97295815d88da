"""Whether a file stays as it is while it is read, told by its status before and after.

A file system notes changes by a clock that ticks some hundred times a second. A change in the tick
of the one before leaves no trace, so a file that has just changed is left alone for a moment: any
change from then on is told by the time of the last status change, which no program can set.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

TICK_SECONDS = 0.02
"""More than two ticks of the slowest usual clock (100 Hz)."""

TIMES_CHANGED = 3
"""Reads of one file that changes meanwhile."""

CHANGED = "it was changed each time that it was read: a program writes it"


def settled(ask: Callable[[], os.stat_result]) -> os.stat_result:
    """Return a file's status, once its last change is so long ago that a further one is told."""
    status = ask()
    if 0 <= time.time() - status.st_ctime < TICK_SECONDS:
        time.sleep(TICK_SECONDS)
        status = ask()
    return status


def is_unchanged(before: os.stat_result, after: os.stat_result) -> bool:
    """Tell whether two statuses are of one file in one state."""
    return _version(before) == _version(after)


def _version(status: os.stat_result) -> tuple[int, ...]:
    return (
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
    )  # fmt: skip
