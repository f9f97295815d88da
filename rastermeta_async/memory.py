"""What keeps the memory of a process down; to be called before pyarrow is imported."""

from __future__ import annotations

import ctypes
import os
import sys

# malloc.h
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_OWN_MAPPING_BYTES = 1024 * 1024
"""Blocks from this size on go back to the system when they are freed (mallopt(3))."""


def spare_memory() -> None:
    """Make this process give freed memory back instead of keeping it for later.

    Arrow's own allocator and glibc's arenas (one a thread) hold on to what was freed; without
    them the peak of a run is 50 MiB lower and its speed the same. For programs, not libraries:
    it changes the whole process.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    leave_out_boto3()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # Arrow's CPU threads, each with buffers
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:  # glibc; musl has no arenas
            mallopt(_M_ARENA_MAX, 2)
            # Set by hand it stays; else glibc raises it up to 32 MiB as large blocks are freed.
            mallopt(_M_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)


def leave_out_boto3() -> None:
    """Have rasterio not import boto3, which it does wherever that is installed.

    It would cost 60 MiB and 0.3 s a process, for sessions that are not used here.
    """
    sys.modules.setdefault("boto3", None)  # type: ignore[arg-type]  # "no such module" (import system, 5.3.1)


def allow_boto3() -> None:
    """Let boto3 be imported after all."""
    if sys.modules.get("boto3", sys) is None:
        del sys.modules["boto3"]
