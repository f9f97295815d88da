"""A mount whose files hang: a FUSE file system, spoken to the kernel without a library.

References: Linux, ``include/uapi/linux/fuse.h`` (protocol 7.31) and ``Documentation/filesystems/
fuse.rst`` ("Aborting a filesystem connection"). Needs root and ``/dev/fuse``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _RELEASE, _INIT = 1, 2, 3, 14, 15, 18, 26
_OPENDIR, _READDIR, _RELEASEDIR, _INTERRUPT, _BATCH_FORGET = 27, 28, 29, 36, 42
_REQUEST = struct.Struct("<IIQQ16x")
"""Length, operation, number of the request, node."""
_REPLY = struct.Struct("<IiQ")
"""Length, error, number of the request."""
_ATTRIBUTES = struct.Struct("<QQQ24x12xIIIIIII")
"""Inode, size, blocks, mode, links, user, group, device, block size, flags."""
_DIRECT_IO, _KEEP_CACHE, _ASYNC_READ = 1, 2, 1
_ROOT = 1
_SIZE = 4096
_VALID = struct.Struct("<QQII")
"""For how long entry and attributes hold: seconds, seconds, nanoseconds, nanoseconds."""


class DeadMount:
    """A mounted folder of files of which no byte ever comes.

    Args:
        folder: where to mount.
        killable: names of files whose reader can be killed.
        unkillable: names of files whose reader is in uninterruptible sleep: the kernel waits for
            the answer to a request that it has handed over, whatever signal comes.
    """

    def __init__(self, folder: Path, killable: list[str], unkillable: list[str]) -> None:
        self.folder = folder
        self._names = [name.encode() for name in (*killable, *unkillable)]
        self._killable = len(killable)
        self.asked = 0
        """Reads so far."""

    def __enter__(self) -> Self:
        self.folder.mkdir(exist_ok=True)
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other"
        mount = ["mount", "-i", "-t", "fuse", "-o", options, "dead", str(self.folder)]
        subprocess.run(mount, check=True, pass_fds=[self._device])
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Abort the connection: whoever waits gets an error, also who could not be killed."""
        device = os.stat(self.folder).st_dev
        control = Path("/sys/fs/fuse/connections")
        if not any(control.iterdir()):
            subprocess.run(["mount", "-t", "fusectl", "none", str(control)], check=True)
        (control / str(os.minor(device)) / "abort").write_text("1")
        subprocess.run(["umount", "-l", str(self.folder)], check=True)
        self._thread.join()
        os.close(self._device)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # the end of the connection
            while True:
                request = os.read(self._device, 1 << 17)
                length, operation, number, node = _REQUEST.unpack_from(request)
                self.asked += operation == _READ
                if operation in (_FORGET, _BATCH_FORGET, _INTERRUPT, _READ):
                    continue
                answer = self._ANSWERS.get(operation)
                error, body = 0, b""
                try:
                    if answer is None:
                        raise OSError(errno.ENOSYS, "not there")
                    body = answer(self, node, request[_REQUEST.size : length])
                except OSError as failure:
                    error = -(failure.errno or errno.EIO)
                os.write(self._device, _REPLY.pack(_REPLY.size + len(body), error, number) + body)

    def _init(self, _node: int, body: bytes) -> bytes:
        major, _minor, ahead = struct.unpack_from("<III", body)
        return struct.pack(
            "<IIIIHHIIHHI28x", major, 31, ahead, _ASYNC_READ, 8, 8, 1 << 16, 1, 0, 0, 0
        )

    def _lookup(self, _node: int, body: bytes) -> bytes:
        name = body.rstrip(b"\0")
        if name not in self._names:
            raise FileNotFoundError(errno.ENOENT, "no such file")
        node = _ROOT + 1 + self._names.index(name)
        return struct.pack("<QQ", node, 0) + _VALID.pack(60, 60, 0, 0) + self._attributes(node)

    def _getattr(self, node: int, _body: bytes) -> bytes:
        return struct.pack("<QII", 60, 0, 0) + self._attributes(node)

    def _attributes(self, node: int) -> bytes:
        mode = stat.S_IFDIR | 0o755 if node == _ROOT else stat.S_IFREG | 0o644
        return _ATTRIBUTES.pack(node, _SIZE, 8, mode, 1, 0, 0, 0, _SIZE, 0)

    def _open(self, node: int, _body: bytes) -> bytes:
        # Of a direct read the kernel waits for the answer itself; else it waits for a page.
        unkillable = node - _ROOT > self._killable
        return struct.pack("<QII", 0, _DIRECT_IO if unkillable else _KEEP_CACHE, 0)

    def _readdir(self, _node: int, body: bytes) -> bytes:
        (offset,) = struct.unpack_from("<8xQ", body)
        entries = b""
        for at, name in enumerate(self._names[offset:], offset + 1):
            entry = struct.pack("<QQII", _ROOT + at, at, len(name), stat.S_IFREG >> 12) + name
            entry += bytes(-len(entry) % 8)
            if len(entries) + len(entry) > _SIZE:
                break
            entries += entry
        return entries

    def _nothing(self, _node: int, _body: bytes) -> bytes:
        return b""

    _ANSWERS: dict[int, Callable[[DeadMount, int, bytes], bytes]] = {  # noqa: RUF012  # constant
        _INIT: _init, _LOOKUP: _lookup, _GETATTR: _getattr, _OPEN: _open, _OPENDIR: _open,
        _READDIR: _readdir, _RELEASE: _nothing, _RELEASEDIR: _nothing,
    }  # fmt: skip
