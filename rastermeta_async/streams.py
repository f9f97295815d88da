"""Standard streams of a program in whose process libraries read files."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from stat import S_ISFIFO

from rastermeta_async.console import Console
from rastermeta_async.errors import SourceError
from rastermeta_async.sources import StdinSource

_CLOSED = "standard input is closed: pipe paths in, name inputs, or give --from-file"


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


def paths_on_stdin(separator: bytes, console: Console, *, read_here: bool) -> StdinSource:
    """Return the paths on standard input; descriptor 0 becomes ``/dev/null``.

    A raster may name ``/vsistdin/`` or ``/proc/self/fd/…`` as its source: GDAL would then read the
    list of paths. Where files are read in this process, a process of its own carries what comes
    through a pipe on, over a socket, which has no name to be opened by (open(2), ENXIO).

    Args:
        separator: what each path ends in.
        console: for what a person should know.
        read_here: files are read in this process, not in workers.

    Raises:
        SourceError: there is no standard input, or no process can be started.
    """
    if sys.stdin is None:
        raise SourceError(_CLOSED)
    try:
        own = os.dup(0)
    except OSError as error:
        raise SourceError(_CLOSED) from error
    if os.isatty(own):
        console.hint("reading paths from the terminal, one a line; Ctrl-D ends the list")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    if read_here and S_ISFIFO(os.fstat(own).st_mode):
        return _carried(own, separator)
    return StdinSource(own, separator)


def _carried(pipe: int, separator: bytes) -> StdinSource:
    """Return the paths of a pipe that this process no longer has open."""
    here, there = socket.socketpair()
    try:
        carrier = subprocess.Popen(
            ["cat"], stdin=pipe,  # noqa: S607  # wherever the system has it
            stdout=there.fileno(), stderr=subprocess.DEVNULL,
            start_new_session=True,  # the terminal's Ctrl-C is the run's alone
        )  # fmt: skip
    except OSError as error:
        raise SourceError(
            f"the process that is to carry the list (cat) cannot be started: {error.strerror}. "
            "Give the list as a file (--from-file), or read with workers."
        ) from error
    finally:
        os.close(pipe)
        there.close()
    return StdinSource(here.detach(), separator, carrier)
