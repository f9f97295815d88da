"""A disk that is full, fails or is read-only: a clear message, and the same command goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from command import KNOWN, leftovers, many_rasters, paths_of, run, with_fault

FAILED = 1
FULL = "No space left on device"
BROKEN = "Input/output error"


@dataclass(frozen=True)
class Job:
    """Six files in three parts, and the catalog that they make."""

    paths: list[bytes]
    catalog: Path

    @property
    def command(self) -> list[str | bytes | Path]:
        return ["extract", *self.paths, "-o", self.catalog, "--batch-size", "2"]

    def finish(self) -> None:
        """Run the command to its end and check that all is there, once, and nothing else."""
        done = run(self.command)
        assert done.returncode == 0, done.stderr
        assert paths_of(self.catalog) == self.paths
        assert leftovers(self.catalog) == set()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "out").mkdir()
    return Job(many_rasters(tmp_path / "archive", 6), tmp_path / "out" / "catalog.parquet")


def check_failure(done: subprocess.CompletedProcess[bytes], named: Path, reason: str) -> None:
    """Check that the run ended with one message, which names the file, why and what to do."""
    assert (done.returncode, done.stdout) == (FAILED, b""), done.stderr
    (message,) = done.stderr.decode().splitlines()
    assert message.startswith(f"rastermeta: {named}: ")
    assert reason in message
    assert "What was committed before is safe" in message
    assert "run the same command again" in message


PARTS = ".parts"
PART = f"{PARTS}/rastermeta-00000001.parquet"
NEW_PART = f"{PARTS}/rastermeta-{KNOWN}.tmp"
SEALED = f"{PARTS}/rastermeta-sealed-{KNOWN}.tmp"
LOG = ".checkpoint"
NEW_LOG = f"{LOG}.{KNOWN}.tmp"
CATALOG = ""


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("call", "error", "touched", "named"),
    [
        pytest.param("mkdir", "ENOSPC", PARTS, PART, id="parts folder"),
        pytest.param("openat", "ENOSPC", NEW_PART, PART, id="part: new file"),
        pytest.param("write", "ENOSPC", NEW_PART, PART, id="part: full"),
        pytest.param("fsync", "EIO", NEW_PART, PART, id="part: sync"),
        pytest.param("renameat2", "EIO", NEW_PART, PART, id="part: rename"),
        pytest.param("renameat2", "ENOSPC", NEW_PART, PART, id="part: full at rename"),
        pytest.param("write", "ENOSPC", LOG, LOG, id="log: full"),
        pytest.param("fdatasync", "EIO", LOG, LOG, id="log: sync"),
        pytest.param("write", "ENOSPC", NEW_LOG, LOG, id="new log: full"),
        pytest.param("fsync", "EIO", NEW_LOG, LOG, id="new log: sync"),
        pytest.param("write", "ENOSPC", SEALED, CATALOG, id="catalog: full"),
        pytest.param("fsync", "EIO", SEALED, CATALOG, id="catalog: sync"),
        pytest.param("renameat2", "EIO", SEALED, CATALOG, id="catalog: rename"),
        pytest.param("renameat2", "ENOSPC", SEALED, CATALOG, id="catalog: full at rename"),
        pytest.param("rmdir", "EIO", PARTS, PARTS, id="parts folder: removal"),
    ],
)
def test_one_call_fails(job: Job, call: str, error: str, touched: str, named: str) -> None:
    """It fails a single time: a second try would seem to succeed, and must not be made."""
    done = with_fault(call, error, Path(f"{job.catalog}{touched}"), job.command)
    check_failure(done, Path(f"{job.catalog}{named}"), {"EIO": BROKEN, "ENOSPC": FULL}[error])
    job.finish()


@pytest.mark.campaign
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_the_folder_of_the_parts_cannot_be_synced(job: Job, error: str) -> None:
    folder = Path(f"{job.catalog}{PARTS}")
    done = with_fault("fsync", error, folder, job.command)
    check_failure(
        done, folder / "rastermeta-00000001.parquet", {"EIO": BROKEN, "ENOSPC": FULL}[error]
    )
    job.finish()


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("error", "reason"), [("EROFS", "Read-only file system"), ("EACCES", "Permission denied")]
)
def test_a_folder_that_cannot_be_written(job: Job, error: str, reason: str) -> None:
    log = Path(f"{job.catalog}{LOG}")
    done = with_fault("openat", error, log, job.command)
    assert (done.returncode, done.stdout) == (FAILED, b"")
    (message,) = done.stderr.decode().splitlines()
    assert message.startswith(f"rastermeta: {log}: ")
    assert reason in message
    assert os.listdir(log.parent) == []


@pytest.mark.campaign
def test_an_old_catalog_survives(job: Job) -> None:
    """The new one cannot take its name."""
    job.finish()
    before = job.catalog.read_bytes()
    sealed = Path(f"{job.catalog}{SEALED}")
    done = with_fault("renameat2", "EIO", sealed, [*job.command, "--overwrite"])
    check_failure(done, job.catalog, BROKEN)
    assert job.catalog.read_bytes() == before
    job.finish()


@pytest.mark.campaign
@pytest.mark.parametrize("command", ["extract", "overwrite", "status"])
@pytest.mark.parametrize("name", ["catalog.parquet", "catalog.parquet.checkpoint"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(job: Job, name: str, command: str) -> None:
    planted = job.catalog.with_name(name)
    os.mkfifo(planted)
    if command == "status":
        done = run(["status", job.catalog])
    else:
        done = run([*job.command, *(["--overwrite"] if command == "overwrite" else [])])
    assert (done.returncode, done.stdout) == (FAILED, b"")
    (message,) = done.stderr.decode().splitlines()
    if command != "status" or planted != job.catalog:
        assert f"{planted} is a named pipe: move it away, or give another -o" in message
    assert os.listdir(planted.parent) == [name]


# A disk that is really full


class SmallDisk:
    """A folder on a disk of a few pages; where nothing may be mounted, strace plays the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._mounted = self._mount("size=96k")

    def run(self, job: Job) -> subprocess.CompletedProcess[bytes]:
        """Run the command while there is no space for all that it writes."""
        if self._mounted:
            return run(job.command)
        return with_fault("write", "ENOSPC", Path(f"{job.catalog}{NEW_PART}"), job.command)

    def grow(self) -> None:
        if self._mounted:
            self._mount("remount,size=16m")

    def close(self) -> None:
        if self._mounted:
            subprocess.run(["umount", str(self.folder)], check=True)

    def _mount(self, options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "small")
    yield disk
    disk.close()


@pytest.mark.campaign
def test_full_disk(tmp_path: Path, small_disk: SmallDisk) -> None:
    """Some parts fit; twice the run ends for want of space, then there is enough."""
    job = Job(many_rasters(tmp_path / "archive", 30), small_disk.folder / "catalog.parquet")
    for _ in range(2):
        done = small_disk.run(job)
        assert (done.returncode, done.stdout) == (FAILED, b""), done.stderr
        (message,) = done.stderr.decode().splitlines()
        assert message.startswith(f"rastermeta: {small_disk.folder}/catalog.parquet")
        assert FULL in message
        assert not job.catalog.exists()
    small_disk.grow()
    job.finish()
