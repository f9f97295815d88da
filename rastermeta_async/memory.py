"""How the program uses memory; `spare_memory` is for before pyarrow is imported."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import threading
from collections.abc import Callable
from typing import NamedTuple

# malloc.h
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_OWN_MAPPING_BYTES = 1024 * 1024
"""Blocks from this size on go back to the system when they are freed (mallopt(3))."""


class _LeftOut:
    """Says that modules are not installed which libraries import only to see whether they are.

    rasterio does so with boto3 (60 MiB, 0.3 s), pyarrow with pandas (50 MiB, 0.4 s): for
    credentials, and to be given data frames. The program has no use for either.
    """

    def __init__(self) -> None:
        self.names = {"boto3", "pandas"}

    def find_spec(self, name: str, *_: object) -> None:
        """Raise for a module that is left out (importlib, "The meta path")."""
        if name in self.names:
            raise ModuleNotFoundError(f"{name} is left out to spare memory", name=name)


_left_out = _LeftOut()
_trim: Callable[[int], int] | None = None
"""glibc's malloc_trim(3), once a program asked to spare memory."""


def spare_memory() -> None:
    """Make this process give freed memory back instead of keeping it for later.

    Arrow's own allocator and glibc's arenas (one a thread) hold on to what was freed; without
    them the peak of a run is 50 MiB lower and its speed the same. For programs, not libraries:
    it changes the whole process.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    if _left_out not in sys.meta_path:
        sys.meta_path.insert(0, _left_out)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # Arrow's CPU threads, each with buffers
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # glibc; musl has no arenas
            libc.mallopt(_M_ARENA_MAX, 2)
            # Set by hand it stays; else glibc raises it up to 32 MiB as large blocks are freed.
            libc.mallopt(_M_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)
            global _trim  # of the process, as the settings above
            _trim = libc.malloc_trim


def give_back() -> None:
    """Give freed memory back to the system now, after much was freed; see `spare_memory`.

    What lies between blocks in use is otherwise kept: 20 MiB after some batches of rows.
    """
    if _trim is not None:
        _trim(0)


STACK_BYTES = 1024 * 1024
"""Of the stack of a thread of a worker: twice that of a thread on macOS, where GDAL runs as well.
What ``ulimit -s`` says may be a thousand times that, and counts as data."""

_limited = False


def limit_data(allowance: int, threads: int) -> None:
    """Make this process's allocations fail beyond an allowance (Linux, setrlimit(2)).

    Args:
        allowance: bytes on top of what it has now.
        threads: that it may start besides; their stacks are small from now on.
    """
    threading.stack_size(STACK_BYTES)
    if sys.platform != "linux":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = memory_bytes().data + allowance + threads * STACK_BYTES
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
        global _limited  # of the process, as the limit
        _limited = True


def allow_data(more: int) -> None:
    """Raise the limit that `limit_data` has set by some bytes, as far as the system lets it."""
    if not _limited:
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = soft + more if hard == resource.RLIM_INFINITY else min(soft + more, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


class MemoryBytes(NamedTuple):
    """What a process takes (proc(5), ``statm``); zeros where nothing tells."""

    resident: int
    data: int


def memory_bytes() -> MemoryBytes:
    """Return what this process takes now."""
    page = os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError), open("/proc/self/statm") as file:
        pages = [int(column) for column in file.read().split()]
        return MemoryBytes(pages[1] * page, pages[5] * page)
    return MemoryBytes(0, 0)


def collect_seldom() -> None:
    """Have Python look for cycles seldom: what was imported stays, and rows have none."""
    gc.freeze()
    gc.set_threshold(20_000)


def allow_boto3() -> None:
    """Let boto3 be imported after all."""
    _left_out.names.discard("boto3")
