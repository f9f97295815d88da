"""Long campaigns against everything at once: killed in every mode, over files that change.

``pytest -m slow tests/test_campaigns.py`` prints what each of them did and found.
"""

from __future__ import annotations

import io
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import rasterio
from command import COMMAND, PATIENCE, leftovers, run, write_raster
from factory import exact, path_bytes, records_of

from rastermeta_async.catalog.formats import format_of
from rastermeta_async.model.record import Record

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

FILES = 400
KILLS = 25
"""In each mode."""
AT_ONCE = 2
"""Runs side by side."""

Change = Callable[[Path], object]


def rows_in(catalog: Path) -> Counter[str]:
    """Return how often each row is in a finished catalog, of any format."""
    with io.FileIO(catalog) as file:
        return Counter(repr(exact(row)) for row in records_of(format_of(str(catalog)).read(file)))


# Killed in every mode


def add_files(archive: Path, start: int = 0, count: int = FILES) -> None:
    """Write small rasters of three kinds, and a few files that are none."""
    for number in range(start, start + count):
        path = archive / f"{number:05d}.tif"
        if number % 40 == 7:
            path.write_bytes(b"no raster")
        else:
            write_raster(path, nodata=number % 3)


def change_files(archive: Path) -> None:
    for number in range(0, FILES, 3):
        write_raster(archive / f"{number:05d}.tif", nodata=9)


def mend_files(archive: Path) -> None:
    for number in range(7, FILES, 40):
        write_raster(archive / f"{number:05d}.tif")


def remove_files(archive: Path) -> None:
    for number in range(0, FILES, 5):
        (archive / f"{number:05d}.tif").unlink()


@dataclass(frozen=True)
class Mode:
    """A way to run: on what a run before left, if any, after the archive has changed."""

    options: tuple[str, ...] = ()
    catalog: str = "catalog.parquet"
    before: tuple[str, ...] | None = None
    """Options of the run before; None: there was none."""
    change: Change | None = None
    """Of the archive, since the run before."""
    victim: str = "the run"


MODES = {
    "first run": Mode(),
    "one process": Mode(("--workers", "0")),
    "by place": Mode(("--sort", "spatial")),
    "in no order": Mode(("--sort", "none")),
    "lines": Mode(catalog="catalog.ndjson"),
    "an array": Mode(catalog="catalog.json"),
    "more files": Mode(before=(), change=lambda archive: add_files(archive, FILES, FILES)),
    "update": Mode(("--update",), before=(), change=change_files),
    "retry": Mode(("--retry-failed",), before=(), change=mend_files),
    "prune": Mode(("--prune",), before=(), change=remove_files),
    "overwrite": Mode(("--overwrite",), before=("--sort", "none")),
    "a worker": Mode(victim="a worker"),
}


@dataclass
class Verdict:
    """What came of the kills in a mode."""

    kills: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    hung: int = 0
    left_over: int = 0
    seconds: float = field(default=0.0, repr=False)
    """That an undisturbed run takes."""


def killed(arguments: list[str | Path], victim: str, after: float) -> bool:
    """Start the command, kill it, or one of its workers, after a time; tell whether that was so."""
    with subprocess.Popen(
        [*COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            if victim == "the run":
                process.kill()
                process.wait()
                return process.returncode == -signal.SIGKILL
            workers = psutil.Process(process.pid).children()
            for worker in workers[:1]:
                worker.kill()
            process.wait(PATIENCE)
            return bool(workers)
        return False


def judge(verdict: Verdict, found: Counter[str], expected: Counter[str]) -> None:
    """Count rows that are not as those of an undisturbed run."""
    verdict.doubled += sum(number - 1 for number in found.values())
    missing, other = expected - found, found - expected
    verdict.wrong += min(missing.total(), other.total())
    verdict.lost += max(0, missing.total() - other.total())


def kill_in(mode: Mode, folder: Path) -> Verdict:
    archive, before = folder / "archive", folder / "before"
    archive.mkdir(parents=True)
    before.mkdir()
    add_files(archive)
    command: list[str | Path] = ["extract", archive, "--batch-size", "40", *mode.options, "-o"]
    if mode.before is not None:
        done = run(["extract", archive, *mode.before, "-o", before / mode.catalog])
        assert done.returncode == 3, done.stderr  # some files are no rasters
    if mode.change is not None:
        mode.change(archive)
    undisturbed = folder / "undisturbed"
    shutil.copytree(before, undisturbed)
    start = time.monotonic()
    assert run([*command, undisturbed / mode.catalog]).returncode in (0, 3)
    verdict = Verdict(seconds=time.monotonic() - start)
    expected = rows_in(undisturbed / mode.catalog)
    dice = random.Random(str(mode))
    for number in itertools.count():
        if verdict.kills >= KILLS:
            return verdict
        catalog = folder / str(number) / mode.catalog
        shutil.copytree(before, catalog.parent)
        for _ in range(dice.choice([1, 1, 1, 2])):
            verdict.kills += killed(
                [*command, catalog], mode.victim, dice.uniform(0.2, verdict.seconds)
            )
        try:
            done = run([*command, catalog])
        except subprocess.TimeoutExpired:
            verdict.hung += 1
            continue
        assert done.returncode in (0, 3), done.stderr
        judge(verdict, rows_in(catalog), expected)
        verdict.left_over += len(leftovers(catalog))
        shutil.rmtree(catalog.parent)
    raise AssertionError("the kills are counted")


def test_300_kills_in_all_modes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as threads:
        verdicts = threads.map(lambda name: kill_in(MODES[name], tmp_path / name), MODES)
        found = dict(zip(MODES, verdicts, strict=True))
    with capsys.disabled():
        sys.stdout.write("\n")
        for name, verdict in found.items():
            sys.stdout.write(f"{name}: {verdict}\n")
    assert sum(verdict.kills for verdict in found.values()) >= 300
    assert {name: verdict for name, verdict in found.items() if bad(verdict)} == {}


def bad(verdict: Verdict) -> bool:
    return any((verdict.lost, verdict.doubled, verdict.wrong, verdict.hung, verdict.left_over))


# Over files that change


UNTOUCHED, TOUCHED = 150, 10
RUNS = 100


@contextmanager
def rewritten(paths: list[Path], versions: list[bytes], how: str) -> Iterator[Counter[str]]:
    """Give files other content all the time, of the same size and time, until the end."""
    ended = threading.Event()
    counts: Counter[str] = Counter()

    def rewrite() -> None:
        for version in itertools.cycle(versions):
            for path in paths:
                if ended.is_set():
                    return
                if how == "in place":
                    with path.open("r+b") as file:
                        file.write(version)
                        os.utime(path, (1e9, 1e9))
                else:
                    new = path.with_suffix(".new")
                    new.write_bytes(version)
                    os.utime(new, (1e9, 1e9))
                    new.replace(path)
                counts["rewritten"] += 1
                time.sleep(0.0005)

    thread = threading.Thread(target=rewrite)
    thread.start()
    try:
        yield counts
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("how", ["in place", "replaced"])
@pytest.mark.parametrize("reader", ["auto", "rasterio"])
def test_100_runs_over_files_that_are_rewritten(
    tmp_path: Path, how: str, reader: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two versions differ in CRS and tags: a row is of one of them, or says that it changed."""
    archive = tmp_path / "archive"
    archive.mkdir()
    versions = []
    for zone in (31, 32):
        path = write_raster(tmp_path / f"{zone}.tif", crs=f"EPSG:{32600 + zone}")
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(ZONE=str(zone))
        versions.append(path.read_bytes())
    assert len(versions[0]) == len(versions[1])
    for number in range(UNTOUCHED):
        (archive / f"untouched-{number}.tif").write_bytes(versions[0])
    touched = [archive / f"{place}-touched.tif" for place in range(TOUCHED)]
    for path in touched:
        path.write_bytes(versions[0])
    seen: Counter[str] = Counter()
    for number in range(RUNS // 4):
        catalog = tmp_path / f"{number}.parquet"
        with rewritten(touched, versions, how) as counts:
            done = run(["extract", archive, "--reader", reader, "--suffix", ".tif", "-o", catalog])
        assert done.returncode in (0, 3), done.stderr
        with io.FileIO(catalog) as file:
            rows = records_of(format_of(str(catalog)).read(file))
        assert len(rows) == UNTOUCHED + TOUCHED
        for row in rows:
            seen[verdict_on(row)] += 1
        seen += counts
    with capsys.disabled():
        sys.stdout.write(f"\n{how}, {reader}: {dict(seen)}\n")
    assert seen["wrong"] == seen["a mixture"] == 0


def verdict_on(row: Record) -> str:
    if b"untouched" in path_bytes(row):
        return "right" if row.crs == "EPSG:32631" else "wrong"
    if not row.ok:
        return f"{row.error_type}"
    zone = (row.dataset_tags or {}).get("ZONE")
    alike = row.crs == f"EPSG:326{zone}"
    return f"version {zone}" if alike else "a mixture"
