"""Find and limit what this process may use: cores and memory, with control groups."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

_PROC = "/proc/self"
_BASE_BYTES = 200 * 1024 * 1024
_WORKER_BYTES = 75 * 1024 * 1024
"""Memory of a run with one worker, and of each further worker; `bench.memory` measures it."""

_LEAST_ALLOWANCE = 256 * 1024 * 1024
_MOST_ALLOWANCE = 1024 * 1024 * 1024
_USABLE_SHARE = 0.8
"""Share of the memory limit; the rest is for the kernel's page cache and other processes."""


def usable_cores(proc: str = _PROC) -> int:
    """Return the number of cores that this process may use, at least 1.

    This is the smallest of its CPU affinity and the CPU quotas of its control groups, rounded up
    to whole cores (Linux, "CFS bandwidth control": ``cpu.max`` in version 2, ``cpu.cfs_quota_us``
    in version 1).

    Args:
        proc: folder of the process's ``cgroup`` and ``mountinfo``.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quotas = [math.ceil(quota) for folder in _groups(proc, "cpu") for quota in _cpu_quota(folder)]
    return max(1, min([affinity or 1, *quotas]))


def own_cpus(workers: int) -> tuple[int, ...]:
    """Return one CPU for each worker to run on, if there are as many as workers; else none.

    Otherwise Linux sometimes lets two workers share a CPU while another CPU is idle. The fixed
    assignment loses nothing: the next work goes to the worker that is done first.
    """
    if not hasattr(os, "sched_getaffinity"):
        return ()
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    return cpus if len(cpus) == workers == usable_cores() else ()


def usable_memory(proc: str = _PROC) -> int | None:
    """Return the bytes of memory that this process may use; None: unknown.

    This is the smallest of the machine's memory and the limits of its control groups
    (``memory.max`` in version 2, ``memory.limit_in_bytes`` in version 1).
    """
    limits = [limit for folder in _groups(proc, "memory") for limit in _memory_limit(folder)]
    if "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(limits, default=None)


def default_workers(cores: int, memory: int | None) -> int:
    """Return how many worker processes to run: one a core, if memory allows it.

    Args:
        cores: see `usable_cores`.
        memory: see `usable_memory`.

    Returns:
        0 if there is no memory for one: then headers are opened in this process.
    """
    if memory is None:
        return cores
    spare = int(memory * _USABLE_SHARE) - _BASE_BYTES
    return min(cores, max(0, spare // _WORKER_BYTES + 1))


def worker_allowance(workers: int, memory: int | None) -> int:
    """Return how many bytes a worker may allocate after its start.

    With much memory it is enough for any header; with little memory it is less, so that one file
    leaves enough for the other workers.
    """
    if memory is None:
        return _MOST_ALLOWANCE
    share = (int(memory * _USABLE_SHARE) - _BASE_BYTES) // max(workers, 1)
    return max(_LEAST_ALLOWANCE, min(share, _MOST_ALLOWANCE))


def _groups(proc: str, controller: str) -> Iterator[str]:
    """Yield the folders of this process's control group and of its parents."""
    for names, path in _memberships(proc):
        for root, point, kind in _mounts(proc):
            version_2 = not names and kind == "cgroup2"
            version_1 = controller in names and kind == "cgroup"  # other mounts lack the file
            if version_1 or version_2:
                yield from _up(point, os.path.relpath(path, root))


def _memberships(proc: str) -> Iterator[tuple[set[str], str]]:
    """Yield (controllers, path) of ``/proc/PID/cgroup``; version 2 names no controllers."""
    for line in _lines(os.path.join(proc, "cgroup")):
        _, names, path = line.split(":", 2)
        yield {name for name in names.split(",") if name}, path


def _mounts(proc: str) -> Iterator[tuple[str, str, str]]:
    """Yield (root, mount point, type) of every mount (proc(5), mountinfo)."""
    for line in _lines(os.path.join(proc, "mountinfo")):
        mount, _, source = line.partition(" - ")
        root, point = mount.split()[3:5]
        yield root, point, source.split(maxsplit=1)[0]


def _up(point: str, path: str) -> Iterator[str]:
    """Yield the folders from `path` below a mount point up to the mount point."""
    inside = "" if path.startswith("..") else path.removeprefix(".")
    while inside:
        yield os.path.join(point, inside)
        inside = os.path.dirname(inside)
    yield point


def _cpu_quota(folder: str) -> Iterator[float]:
    version_2 = _numbers(folder, "cpu.max")
    version_1 = _numbers(folder, "cpu.cfs_quota_us") + _numbers(folder, "cpu.cfs_period_us")
    for numbers in (version_2, version_1):
        match numbers:
            case [int(quota), int(period)] if quota > 0 and period > 0:
                yield quota / period


def _memory_limit(folder: str) -> Iterator[int]:
    for name in ("memory.max", "memory.limit_in_bytes"):
        for limit in _numbers(folder, name):
            if limit is not None:
                yield limit


def _numbers(folder: str, name: str) -> list[int | None]:
    """Return the numbers in a control file; None for ``max``."""
    text = " ".join(_lines(os.path.join(folder, name)))
    return [int(word) if word.lstrip("-").isdigit() else None for word in text.split()]


def _lines(path: str) -> list[str]:
    """Return the lines of a file; none if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError:
        return []


# malloc.h
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_OWN_MAPPING_BYTES = 1024 * 1024
"""Blocks of this size or more go back to the system when they are freed (mallopt(3))."""


class _LeftOut:
    """An import hook that reports optional modules of libraries as not installed.

    rasterio imports boto3 for credentials (60 MiB, 0.3 s), pyarrow imports pandas to accept data
    frames (50 MiB, 0.4 s), if they are installed. Most runs need neither: see `allow_import`.
    """

    def __init__(self) -> None:
        self.names = {"boto3", "pandas"}

    def find_spec(self, name: str, *_: object) -> None:
        """Raise ModuleNotFoundError for a module of `names` (importlib, "The meta path")."""
        if name in self.names:
            raise ModuleNotFoundError(f"{name} is left out to spare memory", name=name)


_left_out = _LeftOut()
_trim: Callable[[int], int] | None = None
"""glibc's malloc_trim(3), after a call of `spare_memory`."""


def spare_memory(arenas: int = 8) -> None:
    """Make this process give freed memory back to the system.

    Arrow's own allocator and glibc's arenas (one a thread) keep freed memory; without them the
    peak of a run is 50 MiB lower. Call it in programs, not in libraries: it changes the whole
    process.

    Args:
        arenas: parts of the heap, each with a lock. Where some threads write a catalog, two cost a
            fifth of the speed; where hundreds wait for a store, each arena costs memory.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    if _left_out not in sys.meta_path:
        sys.meta_path.insert(0, _left_out)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # Arrow's CPU threads, each with buffers
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # glibc; musl has no arenas
            libc.mallopt(_M_ARENA_MAX, arenas)
            # Setting it keeps glibc from raising it, up to 32 MiB, when large blocks are freed.
            libc.mallopt(_M_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)
            global _trim  # it belongs to the process, like the settings above
            _trim = libc.malloc_trim


def give_back() -> None:
    """Give freed memory back to the system now; see `spare_memory`.

    Otherwise glibc keeps the free memory between used blocks: 20 MiB after some batches of rows.
    """
    if _trim is not None:
        _trim(0)


STACK_BYTES = 1024 * 1024
"""Stack size of a worker's thread. It is twice that of a thread on macOS, where GDAL also runs.
The size of ``ulimit -s`` may be a thousand times larger, and counts as data."""

_limited = False


def limit_data(allowance: int, threads: int) -> None:
    """Make this process's allocations fail beyond an allowance (Linux, setrlimit(2)).

    Args:
        allowance: bytes in addition to its present data.
        threads: number of threads that it may start in addition, with stacks of `STACK_BYTES`.
    """
    threading.stack_size(STACK_BYTES)
    if sys.platform != "linux":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = memory_bytes().data + allowance + threads * STACK_BYTES
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
        global _limited  # it belongs to the process, like the limit
        _limited = True


def allow_data(more: int) -> None:
    """Raise the limit of `limit_data` by some bytes, at most up to the system's hard limit."""
    if not _limited:
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = soft + more if hard == resource.RLIM_INFINITY else min(soft + more, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


class MemoryBytes(NamedTuple):
    """Memory of a process in bytes (proc(5), ``statm``); zeros: unknown."""

    resident: int
    data: int


def memory_bytes() -> MemoryBytes:
    """Return the memory that this process uses now."""
    page = os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError), open("/proc/self/statm") as file:
        pages = [int(column) for column in file.read().split()]
        return MemoryBytes(pages[1] * page, pages[5] * page)
    return MemoryBytes(0, 0)


def collect_seldom() -> None:
    """Have Python collect cycles rarely: imported modules stay, and rows have no cycles."""
    gc.freeze()
    gc.set_threshold(20_000)


def allow_import(name: str) -> None:
    """Allow imports of a module again that `spare_memory` leaves out."""
    _left_out.names.discard(name)
