"""A reader for worker processes that does what a path's name says; imported by them."""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from factory import record

from rastermeta_async.model.record import Record
from rastermeta_async.model.settings import Access
from rastermeta_async.model.streams import write_all
from rastermeta_async.pools import worker
from rastermeta_async.pools.protocol import ReplyKind, encode_reply

MAKE = "poison:make"
MAKE_MORTAL = "poison:make_mortal"
MAKE_LATE = "poison:make_late"
MAKE_MUTE = "poison:make_mute"

DEATHS = "PYTHON_TEST_DEATHS"
"""Environment variable that workers get: how they die, a `Death` as a JSON list."""


def _crash() -> None:
    ctypes.string_at(0)


def _talk() -> None:
    os.write(1, b"one thing and another\n")
    assert os.read(0, 1) == b""


def _eat() -> None:
    eaten = []
    while True:
        eaten.append(bytearray(64 * 1024 * 1024))


def _yell() -> None:
    write_all(2, b"x" * 1_000_000)
    os._exit(3)


def _rave() -> None:
    write_all(2, b"x" * 1_000_000 + b"\n")
    write_all(1, b"printed by a library\n  |  \n\n")
    os._exit(3)


DEEDS: dict[bytes, Callable[[], object]] = {
    b"crash": _crash,
    b"exit": lambda: os._exit(3),
    b"kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    b"rave": _rave,
    b"yell": _yell,
    b"eat": _eat,
    b"talk": _talk,
    b"nap": lambda: time.sleep(0.01),
    b"hang": lambda: threading.Event().wait(),
    b"freeze": lambda: ctypes.PyDLL(None).pause(),  # with Python's lock held
}


class PoisonReader:
    """Answers with a made-up record, unless a path is called ``DEED-anything``.

    One called ``DEED-THEN-anything`` does the deed once, which the file system remembers, and from
    then on what THEN says.
    """

    def enter(self) -> None: ...

    def read(self, path: bytes) -> Record:
        first, *then = path.rpartition(b"/")[2].split(b"-")
        deed = DEEDS.get(first)
        if len(then) > 1:
            try:
                open(path, "xb").close()
            except FileExistsError:
                deed = DEEDS.get(then[0])
        if deed is not None:
            try:
                deed()
            except MemoryError:
                return record(path, status="fatal", error_type="MemoryError")
        return record(path)


class Death(NamedTuple):
    """When a worker kills itself."""

    folder: str
    """Holds a file for each death; there are no more than `times`."""
    times: int
    write: int
    """Number of the worker's write to the run, from 1."""
    sent: float
    """Share of that write which still arrives."""

    @property
    def is_due(self) -> bool:
        """Whether there was none so far; from now on there was."""
        for number in range(self.times):
            with suppress(FileExistsError):
                open(os.path.join(self.folder, str(number)), "x").close()
                return True
        return False


def make_mortal(*arguments: Any) -> PoisonReader:
    """Have this worker die in the middle of what it says."""
    death = Death(*json.loads(os.environ[DEATHS]))
    writes = itertools.count(1)

    def write_and_die(fd: int, data: bytes) -> None:
        if next(writes) == death.write and death.is_due:
            write_all(fd, data[: round(len(data) * death.sent)])
            os.kill(os.getpid(), signal.SIGKILL)
        write_all(fd, data)

    worker.write_all = write_and_die  # type: ignore[attr-defined,assignment]  # as the worker imported it
    return make(*arguments)


def make_mute(*arguments: Any) -> PoisonReader:
    """Have this worker end whenever it has rows, with no file open."""

    def end_with_rows(kind: ReplyKind, *rest: Any) -> bytes:
        if kind is ReplyKind.ROWS:
            os._exit(3)
        return encode_reply(kind, *rest)

    worker.encode_reply = end_with_rows  # type: ignore[attr-defined,assignment]  # as the worker imported it
    return make(*arguments)


def make_late(*arguments: Any) -> PoisonReader:
    """Have this worker never start."""
    threading.Event().wait()
    return make(*arguments)


def make(
    drivers: Sequence[str] | None, access: Access, gdal_config: Sequence[str] = ()
) -> PoisonReader:
    return PoisonReader()
