"""What the commands print on standard output, and their usage errors."""

from __future__ import annotations

import errno
import os
import sys
from typing import NoReturn

import typer

from rastermeta_async.cli.console import FAILED, READER_GONE
from rastermeta_async.model.text import json_on_lines, on_lines


def say(text: str, *, as_json: bool = False) -> None:
    """Print a result unchanged, or for a terminal without control characters."""
    show(f"{text}\n", as_json=as_json)


def show(text: str, *, as_json: bool = False) -> None:
    """Print a part of a result, as `say` does, but for the line end."""
    if is_terminal():
        text = json_on_lines(text) if as_json else on_lines(text)
    put(text.encode(sys.stdout.encoding if sys.stdout else "utf-8", "backslashreplace"))


def stream(text: str, *, as_json: bool = False) -> None:
    """Print a part of a file: on a terminal as `show` does, else in UTF-8."""
    if is_terminal():
        show(text, as_json=as_json)
    else:
        put(text.encode("utf-8", "backslashreplace"))


def is_terminal() -> bool:
    """Tell whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def put(content: bytes) -> None:
    """Write to standard output; on an error, end the program with a message."""
    try:
        if sys.stdout is None:
            raise OSError(errno.EBADF, "it is closed")
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os._exit(READER_GONE)
    except OSError as error:
        from rastermeta_async.cli.console import Console

        console = Console()
        console.error(f"standard output: {error.strerror}")
        console.close()
        os._exit(FAILED)


class WrongUsageError(typer.BadParameter):
    """A usage error whose message already names the options."""

    def format_message(self) -> str:
        """See `typer.BadParameter`."""
        return self.message


def usage(message: str) -> NoReturn:
    """End the program with status 2 and a message that names the options."""
    raise WrongUsageError(message)
