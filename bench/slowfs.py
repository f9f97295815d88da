"""A far file server for the benchmarks: `slowfs.c`, built and mounted over a folder (FUSE)."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).with_name("slowfs.c")
_ANSWERS_AT_ONCE = 600
_MOUNT_SECONDS = 10.0


def missing() -> str | None:
    """Return what this machine lacks to mount one, in words; None: nothing."""
    if not os.path.exists("/dev/fuse"):
        return "no /dev/fuse"
    for program in ("gcc", "pkg-config", "fusermount3"):
        if shutil.which(program) is None:
            return f"no {program} (Debian: gcc, pkg-config, fuse3, libfuse3-dev)"
    found = subprocess.run(["pkg-config", "--exists", "fuse3"], check=False)
    return None if found.returncode == 0 else "no fuse3 (Debian: libfuse3-dev)"


def build(folder: Path) -> Path:
    """Compile the server; return the program."""
    flags = subprocess.run(
        ["pkg-config", "fuse3", "--cflags", "--libs"], check=True, capture_output=True, text=True
    ).stdout.split()
    program = folder / "slowfs"
    subprocess.run(["gcc", "-O2", "-o", str(program), str(SOURCE), *flags], check=True)
    return program


@contextmanager
def mounted(
    program: Path, root: Path, mountpoint: Path, milliseconds: float, *,
    stat: float = 0.0, listing: float = 0.0,
) -> Iterator[subprocess.Popen[bytes]]:  # fmt: skip
    """Mount a folder in which every open and every read takes so long; yield the server.

    Args:
        program: see `build`.
        root: the folder.
        mountpoint: an empty folder.
        milliseconds: that an open or a read takes.
        stat: milliseconds that it takes to ask for the state of a file, once the server got SIGHUP.
        listing: milliseconds that it takes to list a folder.

    Raises:
        RuntimeError: it is not mounted within some seconds.
    """
    options = ["-f", "-o", f"ro,max_threads={_ANSWERS_AT_ONCE}"]
    command = [str(program), str(root), str(milliseconds), *options, str(mountpoint)]
    environment = {**os.environ, "STAT_MS": str(stat), "LIST_MS": str(listing)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(mountpoint / ".count", process)
            yield process
        finally:
            subprocess.run(["fusermount3", "-uz", str(mountpoint)], check=False)
            process.terminate()


def _wait_for(name: Path, process: subprocess.Popen[bytes]) -> None:
    last = time.monotonic() + _MOUNT_SECONDS
    while not name.exists():
        if process.poll() is not None or time.monotonic() > last:
            raise RuntimeError(f"{name.parent}: slowfs was not mounted")
        time.sleep(0.02)
