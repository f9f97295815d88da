"""Time rastermeta on a local disk of which nothing is in memory.

python -m bench.cold --count 20000 --rounds 3
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from bench import archive
from bench.common import (
    DEFAULT_DIR,
    check_catalog,
    context,
    find,
    in_rounds,
    rastermeta,
    write_report,
)
from bench.far import FIXED
from bench.measure import measure
from bench.scenes import Spec

CACHES = Path("/proc/sys/vm/drop_caches")
"""Takes what the kernel is to forget (proc_sys_vm(5)): 3, pages, names and states of files."""


def drop_caches() -> None:
    """Have the kernel forget what it has read of files.

    Raises:
        OSError: this user may not.
    """
    os.sync()  # what is not written yet stays
    CACHES.write_text("3")


def extract(root: Path, files: int, *options: str) -> float:
    """Return the files a second of the whole program; `find` makes the list, cold as well."""
    with tempfile.TemporaryDirectory(dir=root.parent) as name:
        catalog = Path(name) / "catalog.parquet"
        command = [rastermeta(), "extract", "-q", "-0", "-o", str(catalog), *options]
        drop_caches()
        result = measure([find(root), command])
        check_catalog(catalog, files)
        return files / result.wall_s


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="bench.cold", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=20_000, help="files in the archive")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=DEFAULT_DIR, help="archives are kept here")
    parser.add_argument("--out", type=Path, help="JSON; default bench/results/cold-DATE.json")
    args = parser.parse_args()
    spec = Spec(args.count, 1, 0.0)
    root = archive.folder_of(args.dir, spec)
    try:
        drop_caches()
    except OSError as error:
        print(f"not run: {error}")
        return
    archive.make(root, spec)
    run = partial(extract, root, spec.count)
    cases: dict[str, Callable[[], float]] = {"rastermeta": run}
    for ceiling in FIXED:
        cases[f"--concurrency {ceiling}"] = partial(run, "--concurrency", str(ceiling))
    found = in_rounds(cases, args.rounds)
    settings = {"archive": asdict(spec), "rounds": args.rounds}
    report = {"benchmark": "cold", "context": context(), "settings": settings, "cases": found}
    print(write_report(report, args.out, "cold"))


if __name__ == "__main__":
    main()
