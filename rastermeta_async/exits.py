"""Exit statuses of the program."""

from __future__ import annotations

OK = 0
"""All inputs were read."""
FAILED = 1
"""The run failed; its message says what to do."""
USAGE = 2
"""Options or arguments make no sense."""
SOME_FAILED = 3
"""The run finished, but some inputs have error rows."""
READER_GONE = 141
"""The reader of standard output has gone, as if SIGPIPE had ended the program."""


def interrupted(signal: int) -> int:
    """Return the status of a run that was stopped by a signal, as shells have it."""
    return 128 + signal
