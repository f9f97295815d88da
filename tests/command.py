"""Running the real command: to its end, for a while, into faults; and looking at what it left."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any, Self

import numpy as np
import pyarrow.parquet as pq
import rasterio
from rasterio.transform import from_origin

COMMAND = [sys.executable, "-m", "rastermeta_async"]
PATIENCE = 30.0
"""Seconds after which something that hangs fails its test."""

_ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")
} | {"PYTHONDONTWRITEBYTECODE": "1", "TERM": "xterm-256color"}

Arguments = Sequence[str | bytes | Path]
Input = bytes | IO[bytes] | int


def run(
    arguments: Arguments,
    stdin: Input = b"",
    stdout: int = subprocess.PIPE,
    *,
    command: Sequence[str] = COMMAND,
    **environment: str,
) -> subprocess.CompletedProcess[bytes]:
    """Run the command to its end; `stdin` is what it reads, or where from."""
    given: dict[str, Any] = {"input" if isinstance(stdin, bytes) else "stdin": stdin}
    return subprocess.run(
        [*command, *arguments],
        **given,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=_ENVIRONMENT | environment,
        timeout=PATIENCE,
        check=False,
    )


def in_shell(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    """Run a shell script in which ``"$@"`` is the command with its arguments."""
    return run([script, "sh", *COMMAND, *arguments], command=["sh", "-c"])


class Running:
    """The command while it runs, its standard input a pipe that stays open until `finish`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def give(self, *paths: str | Path) -> None:
        """Write paths, one a line, to its standard input."""
        stdin = self._stream(self.process.stdin)
        stdin.write(b"".join(os.fsencode(path) + b"\n" for path in paths))
        stdin.flush()

    def line(self) -> bytes:
        """Return the next line of its standard output, without the newline."""
        return self._stream(self.process.stdout).readline().rstrip(b"\n")

    def message(self, text: str) -> None:
        """Return when `text` came on its standard error."""
        stderr = self._stream(self.process.stderr).fileno()
        said = b""
        while text.encode() not in said:
            assert select.select([stderr], [], [], PATIENCE)[0], f"did not say {text!r}: {said!r}"
            some = os.read(stderr, 65536)
            assert some, f"ended without saying {text!r}: {said!r}"
            said += some

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Return the exit status; standard input stays open."""
        return self.process.wait(PATIENCE)

    def finish(self) -> tuple[bytes, bytes]:
        """Close standard input; return what else came on standard output and standard error."""
        return self.process.communicate(timeout=PATIENCE)

    @staticmethod
    def _stream(stream: IO[bytes] | None) -> IO[bytes]:
        assert stream is not None
        return stream


@contextlib.contextmanager
def running(*arguments: str | bytes | Path) -> Iterator[Running]:
    """Start the command; it is killed on leaving."""
    with subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_ENVIRONMENT,
    ) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


def killed_when(condition: Callable[[], bool], arguments: Arguments) -> bool:
    """Run the command, kill it as soon as the condition holds; tell whether it was still running.

    The condition is asked some hundred times a second, the first time right after the start.
    """
    with subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=_ENVIRONMENT,
    ) as process:
        while process.poll() is None and not condition():
            time.sleep(0.002)
        process.kill()
        return process.wait() < 0


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


class SlowFile:
    """A raster whose opening takes as long as the test wants.

    This process has a lease on it (fcntl(2), "Leases"): whoever opens the file waits until the
    lease is given up, and this process gets a signal. To be used in the main thread.
    """

    def __init__(self, folder: Path) -> None:
        self.path = write_raster(folder / "slow.tif")
        self._wanted = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGIO, self._on_signal)
        self._lease = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.fcntl(self._lease, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        signal.signal(signal.SIGIO, self._before)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._wanted = True

    def wait_until_opened(self) -> None:
        """Return when something waits for the file to open."""
        wait_until(lambda: self._wanted)

    def release(self) -> None:
        """Let who opens it get on, now and from now on."""
        if self._lease >= 0:
            os.close(self._lease)
            self._lease = -1


class HangingFile:
    """A raster that opens and then hangs: a VRT whose source is a named pipe."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "hanging.vrt"
        os.mkfifo(folder / "source")
        self.path.write_text(
            '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1">'
            '<SimpleSource><SourceFilename relativeToVRT="1">source</SourceFilename>'
            "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
        )


def write_raster(path: Path, **profile: Any) -> Path:
    """Write a small GeoTIFF."""
    plain = {"driver": "GTiff", "width": 4, "height": 4, "count": 1, "dtype": "uint8"}
    placed = {"crs": "EPSG:32633", "transform": from_origin(5e5, 5e6, 10, 10)}
    with rasterio.open(path, "w", **(plain | placed | profile)) as dataset:
        dataset.write(np.zeros((1, 4, 4), np.uint8))
    return path


def write_pages(path: Path, count: int) -> Path:
    """Write a TIFF of so many images of a pixel, which follow each other."""
    tags = [
        (256, 1),
        (257, 1),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 1),
        (279, 1),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    content = bytearray(b"II*\0" + struct.pack("<I", 16) + bytes(8))
    for number in range(count):
        following = len(content) + 2 + len(entries) + 4 if number < count - 1 else 0
        content += struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)
    path.write_bytes(content)
    return path


def many_rasters(folder: Path, count: int) -> list[bytes]:
    """Make a folder with one small GeoTIFF under `count` names; return their paths in order."""
    folder.mkdir()
    first = write_raster(folder / "000000.tif")
    for number in range(1, count):
        os.link(first, folder / f"{number:06d}.tif")
    return [os.fsencode(folder / f"{number:06d}.tif") for number in range(count)]


def rows_of(catalog: Path) -> list[dict[str, Any]]:
    """Return the rows of a Parquet catalog."""
    rows: list[dict[str, Any]] = pq.read_table(catalog).to_pylist()
    return rows


def paths_of(catalog: Path) -> list[bytes]:
    """Return the exact paths of a Parquet catalog, in its order."""
    return [row["filepath_bytes"] or row["filepath"].encode() for row in rows_of(catalog)]


def from_json(text: bytes) -> Any:
    """Parse strict JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def log_of(catalog: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a catalog's checkpoint log; none where there is no log."""
    try:
        content = Path(f"{catalog}.checkpoint").read_bytes()
    except FileNotFoundError:
        return []
    return [json.loads(line[9:]) for line in content.split(b"\n")[:-1]]


def committed(catalog: Path) -> int:
    """Return how many rows are in the parts that the log names."""
    return sum(entry["rows"] for entry in log_of(catalog) if entry["kind"] == "part")


def leftovers(catalog: Path) -> set[str]:
    """Return the names that stand next to a finished catalog but should not."""
    own = {catalog.name, f"{catalog.name}.checkpoint"}
    return {name for name in os.listdir(catalog.parent) if name.startswith(catalog.name)} - own


ONE_THREAD = """
import asyncio
from concurrent import futures

async def at_once(function, /, *args, **kwargs):
    return function(*args, **kwargs)

class Executor(futures.ThreadPoolExecutor):
    def submit(self, function, /, *args, **kwargs):
        done = futures.Future()
        try:
            done.set_result(function(*args, **kwargs))
        except BaseException as error:
            done.set_exception(error)
        return done

asyncio.to_thread = at_once
futures.ThreadPoolExecutor = Executor
from rastermeta_async.__main__ import main
main()
"""
"""The command with all its work done in one thread. strace counts calls by thread: here the n-th
call of the thread is the n-th of the run, and the same one in every run."""

CHANGES = (
    "write", "pwrite64", "writev", "fsync", "fdatasync", "ftruncate", "fchown", "fchmod", "mkdir",
    "rename", "renameat", "renameat2", "link", "linkat", "rmdir", "unlink", "unlinkat",
)  # fmt: skip
"""System calls that change files, or make changes safe."""


def calls_of(trace: Path) -> Iterator[str]:
    """Yield the names of the system calls in a trace that strace wrote."""
    for line in trace.read_text(errors="replace").splitlines():
        call, bracket, _ = line.partition(" ")[2].lstrip().partition("(")
        if bracket and call.isidentifier():
            yield call


def traced(trace: Path, arguments: Arguments) -> subprocess.CompletedProcess[bytes]:
    """Run the command, all in one thread, and write its `CHANGES` to a file."""
    return run(
        [*arguments, "--workers", "0"],
        command=[*_strace(trace, f"trace={','.join(CHANGES)}"), sys.executable, "-c", ONE_THREAD],
    )


def killed_at(call: str, number: int, arguments: Arguments) -> bool:
    """Run the command, all in one thread, killed as it enters the n-th such system call.

    Tell whether it was: False when there is no such call.
    """
    strace = _strace(Path(os.devnull), f"trace={call}", f"inject={call}:signal=KILL:when={number}")
    alone = [*strace, sys.executable, "-c", ONE_THREAD]
    return run([*arguments, "--workers", "0"], command=alone).returncode < 0


KNOWN = "0123456789abcdef"
KNOWN_NAMES = f"""
import secrets
secrets.token_hex = lambda size: "{KNOWN}"
from rastermeta_async.__main__ import main
main()
"""
"""The command, with names that can be guessed."""


def with_fault(
    call: str, error: str, path: Path, arguments: Arguments
) -> subprocess.CompletedProcess[bytes]:
    """Run the command; the first such system call on that path fails.

    Temporaries have `KNOWN` in their names.

    Raises:
        AssertionError: there was no such call.
    """
    trace = path.parent.parent / "trace"
    expressions = [f"trace={call}", f"inject={call}:error={error}:when=1"]
    known = ["-P", str(path), sys.executable, "-c", KNOWN_NAMES]
    done = run(arguments, command=[*_strace(trace, *expressions), *known])
    assert "INJECTED" in trace.read_text(errors="replace"), f"no {call} on {path}"
    return done


def _strace(trace: Path, *expressions: str) -> list[str]:
    options: Iterable[str] = (word for text in expressions for word in ("-e", text))
    return ["strace", "-f", "-qq", "-o", str(trace), *options]


@contextlib.contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Let writes of this process fail beyond so many bytes of a file, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield  # Python ignores SIGXFSZ (signal, "General rules")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
