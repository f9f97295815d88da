"""A fence around the threads that read local files: they can neither connect nor change a file.

Libraries open what a file names: a VRT's source may be ``NETCDF:"http://…"``. SQLite writes the
content of a ``-wal`` file into the database that it reads. GDAL's options forbid this for each
driver separately. The kernel forbids it to the thread, whatever the driver is (Linux, seccomp(2)
with a filter, which applies to the calling thread and to the threads that it starts):

- no socket can be made, of any family;
- no file can be opened for writing or truncated, unless it is new (``O_EXCL``, as for temporary
  files) or is only appended to (``O_APPEND``, as for logs);
- no file gets another owner, mode, time or attribute: as root, SQLite gives journals the owner of
  their database.

Names can be made and removed, as temporary files need this.

On other systems only the options in `gdal_options.GDAL_OPTIONS` protect. Threads that read objects
in stores have no such fence, as GDAL has to connect for them; see `refuse_page_faults`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Callable
from typing import NamedTuple

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38  # linux/prctl.h
_SECCOMP_MODE_FILTER = 2  # linux/seccomp.h
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000

# linux/filter.h
_LOAD, _JUMP_EQUAL, _JUMP_SET, _AND, _RETURN = 0x20, 0x15, 0x45, 0x54, 0x06

_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16  # struct seccomp_data

# asm-generic/fcntl.h, the same on both machines
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_NEW = os.O_CREAT | os.O_EXCL
_TO_END = os.O_APPEND | os.O_TRUNC
_NAMELESS = 0o20000000  # __O_TMPFILE


_NEWER = (452, 463, 466, 469)
"""fchmodat2, setxattrat, removexattrat, file_setattr: each has the same number on all machines."""


class _Machine(NamedTuple):
    """Numbers of one architecture, from linux/audit.h and asm/unistd.h."""

    architecture: int
    socket: int
    io_uring_setup: int
    openat: int
    openat2: int
    truncate: int
    userfaultfd: int
    attributes: tuple[int, ...]
    """Calls that change owner, mode, times or extended attributes."""
    open: int | None = None
    creat: int | None = None


_MACHINES = {
    "x86_64": _Machine(
        0xC000003E, 41, 425, 257, 437, 76, 323,
        (*range(90, 95), 260, 268, 132, 235, 261, 280, *range(188, 191), *range(197, 200), *_NEWER),
        open=2, creat=85,
    ),
    "aarch64": _Machine(
        0xC00000B7, 198, 425, 56, 437, 45, 282,
        (*range(52, 56), 88, *range(5, 8), *range(14, 17), *_NEWER),
    ),
}  # fmt: skip


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def fence_thread() -> bool:
    """Fence the calling thread for the rest of its life; return whether this worked."""
    return _set_filter(_fence)


def refuse_page_faults() -> bool:
    """Refuse userfaultfd(2) to the calling thread from now on; return whether this worked.

    GDAL's netCDF driver maps an object into memory and fetches a page when it is touched, in a
    thread of its own (GDAL, cpl_userfaultfd.cpp). That thread does not have this thread's
    credentials, and where it cannot fetch a page, this thread waits for ever.
    """
    return _set_filter(lambda machine: _refused(machine.userfaultfd, errno.ENOSYS))


def _set_filter(rules: Callable[[_Machine], list[_Instruction]]) -> bool:
    if sys.platform != "linux" or sys.maxsize < 2**32:
        return False
    machine = _MACHINES.get(os.uname().machine)
    if machine is None:
        return False
    instructions = _filter(machine.architecture, rules(machine))
    program = ctypes.byref(_Filter(len(instructions) // 8, instructions))
    prctl = ctypes.CDLL(None).prctl
    # An unprivileged thread may only set a filter after PR_SET_NO_NEW_PRIVS.
    failed: int = prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program
    )
    return not failed


def _filter(architecture: int, rules: list[_Instruction]) -> bytes:
    """Return a filter of instructions (struct sock_filter) that allows what no rule refuses."""
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_EQUAL, 1, 0, architecture),
        _refusal(errno.ENOSYS),  # a call of another architecture, e.g. 32-bit
        (_LOAD, 0, 0, _NUMBER_AT),
        *rules,
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _fence(machine: _Machine) -> list[_Instruction]:
    rules = [
        *_refused(machine.socket, errno.EACCES),
        *_refused(machine.io_uring_setup, errno.ENOSYS),  # it does I/O without further calls
        *_refused(machine.openat2, errno.ENOSYS),  # a filter cannot see its flags
        *_refused(machine.truncate, errno.EROFS),
        *(line for call in machine.attributes for line in _refused(call, errno.EROFS)),
        *_open(machine.openat, 2),
    ]
    if machine.open is not None and machine.creat is not None:
        rules += [*_open(machine.open, 1), *_refused(machine.creat, errno.EROFS)]
        # x32 has its own numbers for calls, with this bit set (asm/unistd.h).
        rules += [(_JUMP_SET, 0, 1, 0x40000000), _refusal(errno.ENOSYS)]
    return rules


_Instruction = tuple[int, int, int, int]


def _refusal(error: int) -> _Instruction:
    return (_RETURN, 0, 0, _ERRNO | error)


def _refused(call: int, error: int) -> list[_Instruction]:
    return [(_JUMP_EQUAL, 0, 1, call), _refusal(error)]


def _open(call: int, flags: int) -> list[_Instruction]:
    """Return what refuses to open a file for writing; `flags` is the index of that argument."""
    flags_at = _ARGUMENTS_AT + 8 * flags  # the lower half: both machines are little-endian
    body = [
        (_LOAD, 0, 0, flags_at),
        (_JUMP_SET, 1, 0, _WRITES),
        (_RETURN, 0, 0, _ALLOW),
        (_JUMP_SET, 6, 0, _NAMELESS),
        (_AND, 0, 0, _NEW | _TO_END),
        (_JUMP_SET, 0, 1, os.O_APPEND),
        (_JUMP_SET, 2, 3, os.O_TRUNC),
        (_AND, 0, 0, _NEW),
        (_JUMP_EQUAL, 1, 0, _NEW),
        _refusal(errno.EROFS),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return [(_JUMP_EQUAL, 0, len(body), call), *body]
