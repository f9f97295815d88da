"""Time rastermeta and its peers on a far disk: a mount in which every open and every read waits.

Of `--update` it is the states that wait: each file is asked for its size and time of change.

python -m bench.far --count 10000 --rounds 3
python -m bench.far --delay 1 --sweep
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from bench import archive, slowfs
from bench.common import (
    DEFAULT_DIR,
    ROOT,
    check_catalog,
    context,
    files_per_s,
    find,
    in_rounds,
    rastermeta,
    write_report,
)
from bench.measure import measure

FIXED = (8, 16, 32, 64, 128, 256)
"""Of `--concurrency`, to hold the default against."""

_FEW = 2000


@dataclass(frozen=True)
class Job:
    """What a case works on."""

    server: subprocess.Popen[bytes]
    """Of the mount."""
    mount: Path
    files: int
    listing: Path
    """Paths, one a line."""
    few: Path
    """The first of them."""
    work: Path


def bare(job: Job, threads: int) -> float:
    """Return the files a second of opening, reading 16 KiB and closing in so many threads."""
    command = [sys.executable, "-m", "bench.floor", "--threads", str(threads)]
    result = measure([command], stdin=job.listing, cwd=ROOT)
    return float(json.loads(result.stdout)["files_per_s"])


def script(job: Job, threads: int) -> float:
    """Return the files a second of the usual script."""
    catalog = job.work / "script.parquet"
    command = [sys.executable, "-m", "bench.baseline", "-o", str(catalog)]
    result = measure([[*command, "--threads", str(threads)]], stdin=job.few, cwd=ROOT)
    files = len(job.few.read_text().splitlines())
    check_catalog(catalog, files)
    return files / result.wall_s


def extract(job: Job, *options: str) -> float:
    """Return the files a second of the whole program; `find` makes the list."""
    return files_per_s(job.files, job.work, *options, find=find(job.mount))


def extract_few(job: Job, *options: str) -> float:
    """Return the same for the first files."""
    files = len(job.few.read_text().splitlines())
    return files_per_s(files, job.work, *options, stdin=job.few)


def walked(job: Job) -> float:
    """Return the files a second of the whole program, given the folder."""
    return files_per_s(job.files, job.work, "--suffix", ".tif", str(job.mount))


class Mount(Protocol):
    """Mounts the archive anew."""

    def __call__(self, *, only_states: bool = False) -> AbstractContextManager[Job]:
        """Have opens and reads wait, or only those who ask for the states of files."""


Case = Callable[[Mount], float]


def updated(mount: Mount) -> float:
    """Return the files a second of `--update` where no file has changed."""
    with mount(only_states=True) as job:
        catalog = job.work / "updated.parquet"
        command = [rastermeta(), "extract", "-q", "-o", str(catalog)]
        measure([[*command, "--overwrite"]], stdin=job.listing, cwd=job.work)
        job.server.send_signal(signal.SIGHUP)
        result = measure([[*command, "--update"]], stdin=job.listing, cwd=job.work)
        check_catalog(catalog, job.files)
        return job.files / result.wall_s


def on_one_mount(work: Callable[[Job], float]) -> Case:
    """Return the case of what needs one mount, in which opens and reads wait."""

    def case(mount: Mount) -> float:
        with mount() as job:
            return work(job)

    return case


CASES: dict[str, Case] = {
    "bare, 256 threads": on_one_mount(lambda job: bare(job, 256)),
    "script, 32 threads": on_one_mount(lambda job: script(job, 32)),
    "rastermeta": on_one_mount(extract),
    "rastermeta, a folder": on_one_mount(walked),
    "rastermeta, 2,000 files": on_one_mount(extract_few),
    "rastermeta, --reader rasterio": on_one_mount(
        lambda job: extract_few(job, "--reader", "rasterio")
    ),
    "rastermeta, --update": updated,
}


def sweep() -> dict[str, Case]:
    """Return the cases that hold the default against fixed ceilings."""

    def fixed(ceiling: int) -> Case:
        return on_one_mount(lambda job: extract(job, "--concurrency", str(ceiling)))

    return {"rastermeta": CASES["rastermeta"]} | {
        f"--concurrency {ceiling}": fixed(ceiling) for ceiling in FIXED
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="bench.far", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=10_000, help="files in the archive")
    parser.add_argument("--delay", type=float, default=10.0, metavar="MS", help="a open, a read")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sweep", action="store_true", help="against fixed ceilings instead")
    parser.add_argument("--only", action="append", metavar="CASE", help="repeatable")
    parser.add_argument("--dir", type=Path, default=DEFAULT_DIR, help="archives are kept here")
    parser.add_argument("--out", type=Path, help="JSON; default bench/results/far-DATE.json")
    args = parser.parse_args()
    if reason := slowfs.missing():
        print(f"not run: {reason}")
        return
    spec, root = archive.geotiffs(args.dir, args.count)
    cases = sweep() if args.sweep else CASES
    names = [name for name in cases if name in (args.only or cases)]
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        work = Path(name).resolve()
        program, mountpoint = slowfs.build(work), work / "far"
        mountpoint.mkdir()

        @contextmanager
        def mount(*, only_states: bool = False) -> Iterator[Job]:
            waits = (0.0, args.delay) if only_states else (args.delay, 0.0)
            with slowfs.mounted(program, root, mountpoint, waits[0], stat=waits[1]) as server:
                yield make_job(root, server, mountpoint, work)

        found = in_rounds({name: partial(cases[name], mount) for name in names}, args.rounds)
    settings = {"archive": asdict(spec), "delay_ms": args.delay, "rounds": args.rounds}
    report = {"benchmark": "far", "context": context(), "settings": settings, "cases": found}
    print(write_report(report, args.out, "far"))


def make_job(root: Path, server: subprocess.Popen[bytes], mount: Path, work: Path) -> Job:
    """List the archive under the names that it has in the mount."""
    paths = [mount / path.relative_to(root) for path in sorted(root.rglob("*.tif"))]
    lines = [f"{path}\n" for path in paths]
    listing, few = work / "all.txt", work / "few.txt"
    listing.write_text("".join(lines))
    few.write_text("".join(lines[:_FEW]))
    return Job(server, mount, len(paths), listing, few, work)


if __name__ == "__main__":
    main()
