"""A mount that does not answer: rows in time, the other files unharmed, and an end to the run."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import leftovers, many_rasters, rows_of, run, running, wait_until
from deadmount import DeadMount

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not (os.access("/dev/fuse", os.R_OK | os.W_OK) and os.geteuid() == 0),
        reason="needs root and /dev/fuse",
    ),
]
TIMEOUT = 3.0
FILES = 15_000
KILLABLE, UNKILLABLE = ["sleeps-1.tif", "sleeps-2.tif"], ["stuck-1.tif", "stuck-2.tif"]


@pytest.fixture
def dead(tmp_path: Path) -> Iterator[DeadMount]:
    with DeadMount(tmp_path / "dead", KILLABLE, UNKILLABLE) as mount:
        yield mount


def timed(paths: list[bytes], catalog: Path, *options: str) -> tuple[int, float]:
    """Return the exit status, and the seconds that the run took."""
    start = time.monotonic()
    done = run(
        ["extract", "-0", "-o", catalog, "--reader", "rasterio", *options], b"\0".join(paths)
    )
    return done.returncode, time.monotonic() - start


def test_the_others_are_unharmed(
    tmp_path: Path, dead: DeadMount, capsys: pytest.CaptureFixture[str]
) -> None:
    good = many_rasters(tmp_path / "archive", FILES)
    bad = [os.fsencode(dead.folder / name) for name in (*KILLABLE, *UNKILLABLE)]
    mixed = list(good)
    for number, path in enumerate(bad):  # early, so that the run does not end with waiting
        mixed.insert(FILES // 10 * (number + 1), path)
    limit = ("--timeout", str(TIMEOUT), "--workers", "2")
    without = timed(good, tmp_path / "good.parquet", *limit)
    with_them = timed(mixed, catalog := tmp_path / "mixed.parquet", *limit)
    assert (without[0], with_them[0]) == (0, 3)
    rows = {row["filepath"].encode(): row for row in rows_of(catalog)}
    assert sorted(rows) == sorted(mixed)
    assert {path for path, row in rows.items() if row["status"] != "success"} == set(bad)
    assert {(rows[path]["status"], rows[path]["error_type"]) for path in bad} == {
        ("fatal", "Timeout")
    }
    assert leftovers(catalog) == set()
    with capsys.disabled():
        sys.stdout.write(f"\n{FILES} files: {without[1]:.2f} s; ")
        sys.stdout.write(f"with {len(bad)} more that hang: {with_them[1]:.2f} s\n")


# A program of its own cannot end while one of its threads is in uninterruptible sleep.
CASES = [("0", KILLABLE), ("2", KILLABLE + UNKILLABLE)]


@pytest.mark.parametrize(("workers", "names"), CASES)
def test_a_mount_of_which_no_file_answers(
    tmp_path: Path, dead: DeadMount, workers: str, names: list[str]
) -> None:
    bad = [os.fsencode(dead.folder / name) for name in names]
    options = ("--timeout", str(TIMEOUT), "--workers", workers)
    status, seconds = timed(bad, catalog := tmp_path / "c.parquet", *options)
    assert status == 3
    assert [row["error_type"] for row in rows_of(catalog)] == ["Timeout"] * len(bad)
    assert TIMEOUT <= seconds < 3 * TIMEOUT + 5


@pytest.mark.parametrize(("workers", "name"), [(at, name) for at, names in CASES for name in names])
def test_a_second_signal_ends_a_run_with_a_stuck_worker(
    tmp_path: Path, dead: DeadMount, workers: str, name: str
) -> None:
    good, catalog = many_rasters(tmp_path / "archive", 5), tmp_path / "c.parquet"
    options = ("--reader", "rasterio", "--batch-size", "5", "--workers", workers)
    with running("extract", "-o", catalog, *options) as process:
        process.give(*map(os.fsdecode, good))
        parts = Path(f"{catalog}.parts")
        wait_until(lambda: parts.is_dir() and any(parts.glob("part-*.parquet")))
        process.give(dead.folder / name)
        wait_until(lambda: dead.asked > 0)
        process.signal(signal.SIGINT)
        process.message("finishing")
        process.signal(signal.SIGINT)
        assert process.wait() == 128 + signal.SIGINT
    again = run(["extract", "-o", catalog, *options, *good])
    assert again.returncode == 0
    assert [row["filepath"].encode() for row in rows_of(catalog)] == good
