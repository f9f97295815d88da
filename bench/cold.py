"""Time rastermeta on a local disk of which nothing is in memory.

python -m bench.cold --count 20000 --rounds 3
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from bench import archive
from bench.common import DEFAULT_DIR, context, files_per_s, find, in_rounds, write_report
from bench.far import FIXED

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
    drop_caches()
    return files_per_s(files, root.parent, *options, find=find(root))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="bench.cold", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=20_000, help="files in the archive")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=DEFAULT_DIR, help="archives are kept here")
    parser.add_argument("--out", type=Path, help="JSON; default bench/results/cold-DATE.json")
    args = parser.parse_args()
    try:
        drop_caches()
    except OSError as error:
        print(f"not run: {error}")
        return
    spec, root = archive.geotiffs(args.dir, args.count)
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
