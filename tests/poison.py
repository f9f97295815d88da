"""A reader for worker processes that does what a path's name says; imported by them."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence

from factory import record

from rastermeta_async.config import Access
from rastermeta_async.record import Record

MAKE = "poison:make"


def _crash() -> None:
    ctypes.string_at(0)


def _eat() -> None:
    eaten = []
    while True:
        eaten.append(bytearray(64 * 1024 * 1024))


DEEDS: dict[bytes, Callable[[], object]] = {
    b"crash": _crash,
    b"exit": lambda: os._exit(3),
    b"kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    b"eat": _eat,
    b"nap": lambda: time.sleep(0.01),
    b"hang": lambda: threading.Event().wait(),
    b"freeze": lambda: ctypes.PyDLL(None).pause(),  # with Python's lock held
}


class PoisonReader:
    """Answers with a made-up record, unless a path is called ``DEED-anything``."""

    def enter(self) -> None: ...

    def read(self, path: bytes) -> Record:
        deed = DEEDS.get(path.rpartition(b"/")[2].split(b"-")[0])
        if deed is not None:
            try:
                deed()
            except MemoryError:
                return record(path, status="fatal", error_type="MemoryError")
        return record(path)


def make(drivers: Sequence[str] | None, access: Access) -> PoisonReader:
    return PoisonReader()
