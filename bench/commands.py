"""What the commands over finished catalogs cost: rows a second, CPU time a row, and memory.

    python -m bench.commands --rows 1000000

Rows are those of an archive's files under as many other paths as it takes. Each case is the whole
command. The catalogs of `merge` are the shards of one catalog, so that their paths interleave.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from bench import archive
from bench.common import DEFAULT_DIR, MIB, context, rastermeta, write_report
from bench.measure import measure
from bench.scenes import Spec
from bench.sealing import parts_of, read_rows

FILES = 10_000
SHARDS = 4
_BY_DATE = r"(?P<root>.*/)(?P<scene>[^/]+)_(?P<asset>[A-Za-z][A-Za-z0-9]*)\.tif$"
"""The parts of one date are a scene; each copy of the archive has a folder of its own."""

_SCENES = ["--scene", _BY_DATE, "--scene", "auto"]
CASES: dict[str, list[str]] = {
    "stac as lines": ["export", "stac", "ALL", "-o", "items.ndjson"],
    "stac as parquet": ["export", "stac", "ALL", "-o", "items.parquet"],
    "scenes as lines": ["export", "stac", "ALL", "-o", "items.ndjson", *_SCENES],
    "scenes as parquet": ["export", "stac", "ALL", "-o", "items.parquet", *_SCENES],
    "tile indexes": ["export", "gti", "ALL", "-o", "tiles"],
    "csv": ["export", "csv", "ALL", "-o", "rows.csv", "--columns", "filepath,crs,width,height"],
    "report": ["report", "ALL", "-o", "report.html"],
    "summary": ["summary", "ALL"],
    "diff": ["diff", "ALL", "ALL"],
    "merge": ["merge", "SHARDS", "-o", "merged.parquet"],
}
"""Arguments of each case; ALL stands for the catalog, SHARDS for those that it is split into."""


def make_catalogs(folder: Path, rows: Any, count: int) -> None:
    """Write a catalog of `count` rows, and its shards."""
    import pyarrow as pa

    from rastermeta_async.sources.paths import Shard

    shards = [Shard(index, SHARDS) for index in range(SHARDS)]
    _write(folder / "all.parquet", parts_of(rows, count))

    def of(shard: Shard) -> Iterable[Any]:
        for part in parts_of(rows, count):
            paths = part["filepath"].to_pylist()
            yield part.filter(pa.array([shard.holds(path.encode()) for path in paths]))

    for shard in shards:
        _write(_shard(folder, shard.index), of(shard))


def _shard(folder: Path, index: int) -> Path:
    return folder / f"shard-{index}.parquet"


def _write(path: Path, parts: Iterable[Any]) -> None:
    """Write a catalog in the row groups that sealing makes."""
    from rastermeta_async.catalog.formats import format_of, grouped
    from rastermeta_async.catalog.output import (
        SEALED_GROUP_BYTES,
        SEALED_GROUP_GROWTH,
        SEALED_GROUP_ROWS,
    )

    batches = (batch for part in parts for batch in part.combine_chunks().to_batches())
    groups = grouped(batches, SEALED_GROUP_ROWS, SEALED_GROUP_BYTES, SEALED_GROUP_GROWTH)
    with path.open("wb") as file:
        format_of(str(path)).write(file, groups)


def arguments_of(case: str, folder: Path) -> list[str]:
    """Return a case's arguments, with the catalogs' names in place of ALL and SHARDS."""
    shards = [str(_shard(folder, index)) for index in range(SHARDS)]
    names = {"ALL": [str(folder / "all.parquet")], "SHARDS": shards}
    return [name for word in CASES[case] for name in names.get(word, [word])]


def run(case: str, folder: Path, count: int) -> dict[str, float]:
    """Run a case in a folder of its own; return what it took."""
    command = [rastermeta(), *arguments_of(case, folder)]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        taken = asdict(measure([command], cwd=Path(scratch)))
    return {
        "wall_s": taken["wall_s"],
        "rows_per_s": count / taken["wall_s"],
        "cpu_us_per_row": taken["cpu_s"] / count * 1e6,
        "peak_mib": taken["peak_pss"] / MIB,
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="bench.commands", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--limit-mib", type=float, help="fail above this peak")
    parser.add_argument("--dir", type=Path, default=DEFAULT_DIR, help="archives are kept here")
    parser.add_argument("--out", type=Path, help="JSON; default bench/results/commands-DATE.json")
    args = parser.parse_args()
    directory = args.dir.resolve() / f"archive-{FILES}-1-0"
    archive.make(directory, Spec(FILES))
    found: dict[str, list[dict[str, float]]] = {case: [] for case in args.cases}
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        folder = Path(name).resolve()
        make_catalogs(folder, read_rows(directory), args.rows)
        for _ in range(args.rounds):
            for case, rounds in found.items():
                rounds.append(run(case, folder, args.rows))
                print(f"{case}: {rounds[-1]}", file=sys.stderr)
    report: dict[str, Any] = {
        "benchmark": "commands",
        "context": context(),
        "settings": {"rows": args.rows, "files": FILES, "shards": SHARDS, "rounds": args.rounds},
        "commands": {case: _medians(rounds) for case, rounds in found.items()},
    }
    print(json.dumps(report["commands"], indent=2))
    print(write_report(report, args.out, "commands"))
    peak = max(one["peak_mib"] for rounds in found.values() for one in rounds)
    if args.limit_mib and peak > args.limit_mib:
        raise SystemExit(f"the peak of {peak:.0f} MiB is above {args.limit_mib:.0f}")


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: median(one[name] for one in rounds) for name in rounds[0]}


if __name__ == "__main__":
    main()
