"""Killed at any instant, the same command finishes the job: each path once, nothing left over."""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import pytest
from command import (
    calls_of,
    committed,
    killed_at,
    killed_when,
    leftovers,
    log_of,
    many_rasters,
    paths_of,
    rows_of,
    run,
    traced,
)
from mixed import no_rasters_of

Item = TypeVar("Item")
Result = TypeVar("Result")

AT_ONCE = 2
"""Runs side by side."""
SPREAD = 12
"""Calls out of all of a run that a quick test kills at."""


@dataclass(frozen=True)
class Archive:
    """Rasters, and how they are read."""

    folder: Path
    paths: list[bytes]
    batch_size: int
    order: str = "path"
    no_rasters: dict[bytes, str] = field(default_factory=dict)
    """Paths that are no rasters, and what they are; not among `paths`."""

    def command(self, catalog: Path) -> list[str | bytes | Path]:
        options = ["--batch-size", str(self.batch_size), "--sort", self.order]
        return ["extract", self.folder, "-o", catalog, *options]

    def check_paths(self, catalog: Path) -> None:
        """Fail unless all paths are in a catalog, or kept with its log, each once."""
        found = paths_of(catalog)
        assert (sorted(found) if self.order == "none" else found) == self.paths
        assert no_rasters_of(catalog) == self.no_rasters

    def finish(self, catalog: Path) -> None:
        """Run the command to its end and check that all is there, once, and nothing else."""
        done = run(self.command(catalog))
        assert done.returncode == 0, done.stderr
        self.check_paths(catalog)
        assert {row["error_message"] for row in rows_of(catalog)} == {None}
        assert leftovers(catalog) == ({f"{catalog.name}.parts"} if self.no_rasters else set())

    def seconds(self, folder: Path) -> float:
        """Return how long a whole run takes, side by side with another one."""

        def timed(number: int) -> float:
            started = time.monotonic()
            self.finish(folder / f"timed-{number}.parquet")
            return time.monotonic() - started

        return min(side_by_side(timed, range(AT_ONCE)))


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    with ThreadPoolExecutor(AT_ONCE) as executor:
        return list(executor.map(work, items))


def phase(catalog: Path, archive: Archive) -> str:
    """Return what a killed run was at, as what it left tells."""
    last = (log_of(catalog) or [{"kind": "none"}])[-1]
    parts = Path(f"{catalog}.parts")
    names = os.listdir(parts) if parts.is_dir() else []
    if last["kind"] == "sealed":
        return "after" if last["rows"] == len(archive.paths) else "before the first part"
    if last["kind"] == "sealing" or any(name.startswith("rastermeta-sealed") for name in names):
        return "sealing"
    return "parts" if last["kind"] == "part" else "before the first part"


def report(what: str, phases: Counter[str], capsys: pytest.CaptureFixture[str]) -> None:
    counts = ", ".join(f"{name} {number}" for name, number in sorted(phases.items()))
    with capsys.disabled():
        sys.stdout.write(f"\n{what}: {phases.total()} kills ({counts})\n")


# At random moments


def kill_at_random_moments(archive: Archive, folder: Path, runs: int) -> Counter[str]:
    """Kill so many runs; one in four is killed again while it resumes. Then finish them.

    Of half of them the moment is drawn from the time that a run takes, of the others from the
    parts that are still to come: most of a short run's time is its start.
    """
    seconds = archive.seconds(folder)

    def kill(seed: int) -> Counter[str]:
        moments = random.Random(seed)
        catalog = folder / f"catalog-{seed}.parquet"
        phases: Counter[str] = Counter()
        for resuming in ["", "resuming: "][: 2 if moments.random() < 0.25 else 1]:
            condition = (
                part_number(moments, archive, catalog)
                if seed % 2
                else time_passed(moments.uniform(0, seconds))
            )
            if killed_when(condition, archive.command(catalog)):
                phases[resuming + phase(catalog, archive)] += 1
        archive.finish(catalog)
        catalog.unlink()
        return phases

    phases = sum(side_by_side(kill, range(runs)), Counter[str]())
    assert {"parts", "sealing"} & set(phases), "no kill hit a run at work"
    return phases


def time_passed(seconds: float) -> Callable[[], bool]:
    """Tell whether so much time has passed since now."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def part_number(moments: random.Random, archive: Archive, catalog: Path) -> Callable[[], bool]:
    """Tell whether one of the parts that are still to come, any, was committed."""
    rows = committed(catalog)
    left = len(archive.paths) - rows
    wanted = rows + moments.randint(1, max(left, 1))
    return lambda: committed(catalog) >= wanted


@pytest.mark.campaign
@pytest.mark.parametrize(("order", "runs"), [("path", 12), ("none", 6)])
def test_killed_at_random_moments(
    tmp_path: Path, order: str, runs: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "archive"
    archive = Archive(folder, many_rasters(folder, 300), batch_size=20, order=order)
    phases = kill_at_random_moments(archive, tmp_path, runs)
    report(f"{runs} runs over 300 files", phases, capsys)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_200_killed_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "archive"
    archive = Archive(folder, many_rasters(folder, 3000), batch_size=50)
    phases = kill_at_random_moments(archive, tmp_path, runs=200)
    report("200 runs over 3,000 files", phases, capsys)
    assert {"parts", "sealing", "resuming: parts"} <= set(phases), "the moments missed a phase"


# At system calls


def first_run(folder: Path) -> Archive:
    """Three files, a part each; then sealing."""
    return Archive(folder / "archive", many_rasters(folder / "archive", 3), batch_size=1)


def later_run(folder: Path) -> Archive:
    """A finished catalog of two files; two more came since."""
    archive = Archive(folder / "archive", many_rasters(folder / "archive", 4), batch_size=1)
    (folder / "before").mkdir()
    started_with = archive.paths[:2]
    assert (
        run(["extract", *started_with, "-o", folder / "before" / "catalog.parquet"]).returncode == 0
    )
    return archive


def later_run_in_no_order(folder: Path) -> Archive:
    """The same, with row groups put together as they are."""
    return replace(later_run(folder), order="none")


def first_mixed_run(folder: Path) -> Archive:
    """Rasters, a file that belongs to one, and a text, a part each; then sealing."""
    archive = first_run(folder)
    return with_no_rasters(archive, "000000.tfw", "notes.txt")


def later_mixed_run(folder: Path) -> Archive:
    """A finished catalog of a raster and of two others; more of both came since."""
    archive = with_no_rasters(first_run(folder), "000000.tfw", "notes.txt", "0.md5")
    (folder / "before").mkdir()
    started_with = b"\n".join([archive.paths[1], *archive.no_rasters][:3])
    catalog = folder / "before" / "catalog.parquet"
    assert run(["extract", "-o", catalog], started_with).returncode == 0
    return archive


def with_no_rasters(archive: Archive, *names: str) -> Archive:
    """Add files that are no rasters; world files are sidecars."""
    for name in names:
        (archive.folder / name).write_text("no raster")
    kinds = {name: "sidecar" if name.endswith("w") else "no_raster" for name in names}
    kept = {os.fsencode(archive.folder / name): kind for name, kind in kinds.items()}
    return replace(archive, no_rasters=kept)


KINDS = [first_run, later_run, later_run_in_no_order, first_mixed_run, later_mixed_run]


def begin(folder: Path, name: str) -> Path:
    """Return a new catalog's path, in the state that the run is to start from."""
    before = folder / "before"
    if before.is_dir():
        shutil.copytree(before, folder / name)
    else:
        (folder / name).mkdir()
    return folder / name / "catalog.parquet"


def all_calls(folder: Path, archive: Archive) -> list[tuple[str, int]]:
    """Return every call of a run that changes a file: its name, and its number among those."""
    catalog = begin(folder, "traced")
    done = traced(folder / "trace", archive.command(catalog))
    assert done.returncode == 0, done.stderr
    archive.check_paths(catalog)
    seen: Counter[str] = Counter()
    points = []
    for name in calls_of(folder / "trace"):
        seen[name] += 1
        points.append((name, seen[name]))
    assert {"write", "fsync", "fdatasync", "renameat2"} <= set(seen)
    return points


def kill_at_each(folder: Path, archive: Archive, points: Sequence[tuple[str, int]]) -> Counter[str]:
    def kill(point: tuple[str, int]) -> str:
        name, number = point
        catalog = begin(folder, f"{name}-{number}")
        assert killed_at(name, number, archive.command(catalog)), f"no {name} number {number}"
        found = phase(catalog, archive)
        archive.finish(catalog)
        return found

    return Counter(side_by_side(kill, points))


@pytest.mark.campaign
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_some_calls(
    tmp_path: Path, kind: Callable[[Path], Archive], capsys: pytest.CaptureFixture[str]
) -> None:
    """All calls but write, spread out, and as many writes."""
    archive = kind(tmp_path)
    points = all_calls(tmp_path, archive)
    writes = [point for point in points if point[0] == "write"]
    others = [point for point in points if point[0] != "write"]
    chosen = [*spread(writes, SPREAD // 4), *spread(others, SPREAD // 4)]
    report(kind.__name__, kill_at_each(tmp_path, archive, chosen), capsys)


def spread(points: Sequence[tuple[str, int]], count: int) -> list[tuple[str, int]]:
    """Return `count` of the points, evenly spread, the last one among them."""
    return [points[(number + 1) * len(points) // count - 1] for number in range(count)]


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_every_call(
    tmp_path: Path, kind: Callable[[Path], Archive], capsys: pytest.CaptureFixture[str]
) -> None:
    archive = kind(tmp_path)
    points = all_calls(tmp_path, archive)
    phases = kill_at_each(tmp_path, archive, points)
    calls = ", ".join(f"{count} {name}" for name, count in Counter(n for n, _ in points).items())
    report(f"{kind.__name__}, {calls}", phases, capsys)
