"""What the export to STAC costs: rows a second, and memory.

    python -m bench.exporting --rows 1000000

Rows are those of an archive's files under as many other paths as it takes. Each case is a process
of its own, and its peak is that of the whole process.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from bench import archive
from bench.common import DEFAULT_DIR, ROOT, context, write_report
from bench.scenes import Spec
from bench.sealing import parts_of, read_rows

FILES = 10_000
_BY_DATE = r"(?P<root>.*/)(?P<scene>[^/]+)_(?P<asset>[A-Za-z][A-Za-z0-9]*)\.tif$"
"""The parts of one date are a scene; each copy of the archive has a folder of its own."""

_SCENES = ["--scene", _BY_DATE, "--scene", "auto"]
CASES: dict[str, tuple[str, list[str]]] = {
    "lines": ("items.ndjson", []),
    "parquet": ("items.parquet", []),
    "lines of scenes": ("items.ndjson", _SCENES),
    "parquet of scenes": ("items.parquet", _SCENES),
}
"""File of the items, and options, of each case."""


def make_catalog(path: Path, rows: Any, count: int) -> None:
    """Write a catalog of `count` rows."""
    from rastermeta_async.catalog.formats import format_of

    with path.open("wb") as file:
        groups = (part.combine_chunks() for part in parts_of(rows, count))
        format_of(str(path)).write(file, groups)


def export(catalog: str, output: str, options: list[str]) -> dict[str, float]:
    """Export a catalog by the command; return seconds and the peak of memory in MiB."""
    from rastermeta_async.cli.app import app

    start, cpu = time.perf_counter(), time.process_time()
    app(["export", "stac", catalog, "-o", output, *options], standalone_mode=False)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"wall_s": wall, "cpu_s": cpu, "peak_mib": peak}


def measure(catalog: Path, case: str, count: int) -> dict[str, float]:
    """Export a catalog in a process of its own."""
    name, options = CASES[case]
    with tempfile.TemporaryDirectory(dir=catalog.parent) as folder:
        output = Path(folder) / name
        command = [sys.executable, "-m", "bench.exporting", "--export", str(catalog), str(output)]
        done = subprocess.run(
            [*command, *options], cwd=ROOT, check=True, capture_output=True, text=True
        )
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        found["rows_per_s"] = count / found["wall_s"]
        found["cpu_us_per_row"] = found["cpu_s"] / count * 1e6
        found["bytes"] = output.stat().st_size
        return found


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["--export"]:
        print(json.dumps(export(sys.argv[2], sys.argv[3], sys.argv[4:])))
        return
    parser = argparse.ArgumentParser(
        prog="bench.exporting", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--limit-mib", type=float, help="fail above this peak")
    parser.add_argument("--dir", type=Path, default=DEFAULT_DIR, help="archives are kept here")
    parser.add_argument("--out", type=Path, help="JSON; default bench/results/exporting-DATE.json")
    args = parser.parse_args()
    directory = args.dir.resolve() / f"archive-{FILES}-1-0"
    archive.make(directory, Spec(FILES))
    found: dict[str, list[dict[str, float]]] = {case: [] for case in args.cases}
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        catalog = Path(folder) / "catalog.parquet"
        make_catalog(catalog, read_rows(directory), args.rows)
        for _ in range(args.rounds):
            for case, rounds in found.items():
                rounds.append(measure(catalog, case, args.rows))
                print(f"{case}: {rounds[-1]}", file=sys.stderr)
    report: dict[str, Any] = {
        "benchmark": "exporting",
        "context": context(),
        "settings": {"rows": args.rows, "files": FILES, "rounds": args.rounds},
        "exporting": {case: _medians(rounds) for case, rounds in found.items()},
    }
    print(json.dumps(report["exporting"], indent=2))
    print(write_report(report, args.out, "exporting"))
    peak = max(one["peak_mib"] for rounds in found.values() for one in rounds)
    if args.limit_mib and peak > args.limit_mib:
        raise SystemExit(f"the peak of {peak:.0f} MiB is above {args.limit_mib:.0f}")


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: median(one[name] for one in rounds) for name in rounds[0]}


if __name__ == "__main__":
    main()
