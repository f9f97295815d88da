"""Standard output and error of a program in whose process libraries read files."""

from __future__ import annotations

import os
import sys


def silence_libraries() -> None:
    """Give Python's output streams numbers of their own; 1 and 2 become ``/dev/null``.

    Libraries print by these numbers, for example what libnetcdf cannot parse: not for a terminal,
    nor for who reads the rows.
    """
    nothing = os.open(os.devnull, os.O_WRONLY)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:  # it was closed from the start
            continue
        stream.flush()
        own = open(  # noqa: SIM115  # it stays
            os.dup(number), "w", buffering=1 if stream.line_buffering else -1,
            encoding=stream.encoding, errors=stream.errors,
        )  # fmt: skip
        setattr(sys, name, own)
        os.dup2(nothing, number)
    os.close(nothing)
