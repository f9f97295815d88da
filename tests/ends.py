"""A process that is killed, or a machine that loses power, before any step of its work."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from rastermeta_async.catalog import durable


class Killed(BaseException):
    """The process is gone: whatever runs afterwards changes nothing any more."""


class Machine:
    """A disk and the process that writes to it, which ends before its step number `last`.

    A write that is the last step is torn in half. Whatever is written after the end raises
    `Killed`, clean-up included. `cut_power` then leaves only what was synced.
    """

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path, last: int | None) -> None:
        self._folder = folder
        self._last = last
        self.steps = 0
        self._names: dict[Path, dict[str, int]] = {}
        self._contents: dict[int, bytes] = {}
        self._pins: dict[int, int] = {}  # open, so that no inode number is used again
        for at in [folder, *(found for found in folder.rglob("*") if found.is_dir())]:
            self._sync_names(at)
            for name in self._names[at]:
                if (at / name).is_file():
                    self._sync_content(at / name)
        write, mkdir = os.write, os.mkdir
        unlink, rmdir, open_ = os.unlink, os.rmdir, os.open

        def torn_write(fd: int, data: memoryview) -> int:
            self._step(lambda: write(fd, data[: len(data) // 2]))
            return write(fd, data)

        def fsync(fd: int) -> None:
            self._step()
            self._sync(fd)

        def checked_open(path: Any, flags: int, *args: Any, **options: Any) -> int:
            if flags & os.O_CREAT and not os.path.exists(path):
                self._step()
            return open_(path, flags, *args, **options)

        def stepping(call: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any, **options: Any) -> Any:
                self._step()
                return call(*args, **options)

            return run

        patch.setattr(os, "write", torn_write)
        patch.setattr(os, "fsync", fsync)
        patch.setattr(durable, "_sync_data", fsync)
        patch.setattr(os, "open", checked_open)
        patch.setattr(durable, "_renamed", stepping(durable._renamed))
        calls: dict[str, Callable[..., Any]] = {"mkdir": mkdir, "unlink": unlink, "rmdir": rmdir}
        for name, call in calls.items():
            patch.setattr(os, name, stepping(call))

    def _step(self, half: Callable[[], object] = lambda: None) -> None:
        self.steps += 1
        if self.steps == self._last:
            half()
        if self._last is not None and self.steps >= self._last:
            raise Killed

    def _sync(self, fd: int) -> None:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            folders = [self._folder, *(at for at in self._folder.iterdir() if at.is_dir())]
            self._sync_names(next(at for at in folders if os.path.samestat(at.stat(), status)))
        else:
            self._pin(status.st_ino, os.dup(fd))
            self._contents[status.st_ino] = self._by_inode(status.st_ino)

    def _by_inode(self, inode: int) -> bytes:
        files = (at for at in self._folder.rglob("*") if at.is_file())
        return next(at.read_bytes() for at in files if at.stat().st_ino == inode)

    def _sync_content(self, path: Path) -> None:
        self._contents[path.stat().st_ino] = path.read_bytes()

    def _sync_names(self, folder: Path) -> None:
        names: dict[str, int] = {}
        for at in folder.iterdir():
            names[at.name] = inode = at.stat().st_ino
            self._pin(inode, os.open(at, os.O_RDONLY))
        self._names[folder] = names

    def _pin(self, inode: int, fd: int) -> None:
        if inode in self._pins:
            os.close(fd)
        else:
            self._pins[inode] = fd

    def switch_off(self) -> None:
        for fd in self._pins.values():
            os.close(fd)

    def cut_power(self) -> None:
        """Leave the disk as it is when nothing that was not synced got there."""
        for at in sorted(self._folder.rglob("*"), reverse=True):
            if at.is_dir():
                at.rmdir()
            else:
                at.unlink()
        self._restore(self._folder)

    def _restore(self, folder: Path) -> None:
        for name, inode in self._names.get(folder, {}).items():
            if stat.S_ISDIR(os.fstat(self._pins[inode]).st_mode):
                (folder / name).mkdir()
                self._restore(folder / name)
            else:
                (folder / name).write_bytes(self._contents.get(inode, b""))
                status = os.fstat(self._pins[inode])
                os.utime(folder / name, ns=(status.st_atime_ns, status.st_mtime_ns))


def copies(top: Path, name: str, scene: Callable[[str], None]) -> Iterator[str]:
    """Yield the path of an output in a scene of its own, made once and copied."""
    template = top / "template"
    template.mkdir()
    scene(str(template / name))
    for number in count():
        folder = top / f"run-{number}"
        shutil.copytree(template, folder)
        yield str(folder / name)
