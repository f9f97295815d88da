"""Peak memory of `rastermeta extract`: with few and many paths, and with files full of tags.

    python -m bench.memory --count 1000000

The many paths are 1,000 files behind as many symbolic links to their folder as it takes.
"""

from __future__ import annotations

import argparse
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import archive
from bench.common import DEFAULT_DIR, MIB, check_catalog, context, find, rastermeta, write_report
from bench.measure import measure
from bench.scenes import Spec

FARM_FILES = 1000
FEW_PATHS = 10_000


@dataclass(frozen=True)
class Peak:
    """One run."""

    case: str
    rows: int
    peak_mib: float
    """PSS of all processes but `find`."""
    wall_s: float
    cpu_s: float
    samples: int
    """Looks at the memory."""


def make_farm(directory: Path, paths: int) -> Path:
    """Make a folder below which `find -L` sees at least `paths` rasters."""
    archive.make(directory / "files", Spec(FARM_FILES))
    farm = directory / "farm"
    farm.mkdir(exist_ok=True)
    for number in range(-(-paths // FARM_FILES)):
        link = farm / f"{number:06d}"
        if not link.is_symlink():
            link.symlink_to("../files", target_is_directory=True)
    return farm


def run(
    case: str, source: Sequence[Sequence[str]], rows: int, args: Sequence[str], work: Path
) -> Peak:
    """Measure one run; raise ValueError unless the catalog has `rows` rows and distinct paths."""
    with tempfile.TemporaryDirectory(dir=work) as fresh:
        catalog = Path(fresh) / "catalog.parquet"
        extract = [rastermeta(), "extract", "-0", "-o", str(catalog), *args]
        result = measure([*source, extract], cwd=Path(fresh))
        check_catalog(catalog, rows)
    peak = Peak(case, rows, result.peak_pss / MIB, result.wall_s, result.cpu_s, result.samples)
    print(f"{case:<24}{rows:>10} rows{peak.peak_mib:>9.1f} MiB{peak.wall_s:>9.1f} s", flush=True)
    return peak


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="bench.memory", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--count", type=int, default=1_000_000, help="paths in the long run")
    parser.add_argument("--tag-files", type=int, default=2000, help="files full of tags; 0: none")
    parser.add_argument("--tag-bytes", type=int, default=300_000, help="tags in each of them")
    parser.add_argument(
        "--dir", type=Path, default=DEFAULT_DIR, help="archives are made and kept here"
    )
    parser.add_argument("--out", type=Path, help="JSON; default bench/results/memory-DATE.json")
    parser.add_argument("--extract-args", type=shlex.split, default=[], metavar="ARGS")
    parser.add_argument("--limit-mib", type=float, help="exit with status 1 above this peak")
    args = parser.parse_args()
    if args.count < 1 or args.tag_files < 0:
        parser.error("--count must be at least 1, --tag-files at least 0")

    rastermeta()  # say that it is missing before an archive is written
    base = args.dir.resolve()
    base.mkdir(parents=True, exist_ok=True)
    peaks = []
    for count in sorted({min(FEW_PATHS, args.count), args.count}):
        farm = make_farm(base / "memory", args.count)
        source = [find(farm, follow=True), ["head", "-z", "-n", str(count)]]
        peaks.append(run("paths", source, count, args.extract_args, base))
    growth = peaks[-1].peak_mib / peaks[0].peak_mib
    print(f"{peaks[-1].rows / peaks[0].rows:g} times the paths: {growth:.2f} times the memory")
    if args.tag_files:
        spec = Spec(args.tag_files, big_tags=args.tag_bytes)
        tagged = base / f"tags-{args.tag_files}-{args.tag_bytes}"
        archive.make(tagged, spec)
        case = f"{args.tag_bytes} bytes of tags"
        peaks.append(run(case, [find(tagged)], args.tag_files, args.extract_args, base))
    report = {
        "benchmark": "memory",
        "context": context(),
        "settings": {"extract_args": args.extract_args, "tag_bytes": args.tag_bytes},
        "runs": [asdict(peak) for peak in peaks],
        "growth": growth,
    }
    print(write_report(report, args.out, "memory"))
    highest = max(peak.peak_mib for peak in peaks)
    if args.limit_mib is not None and highest > args.limit_mib:
        raise SystemExit(f"peak of {highest:.1f} MiB is above the limit of {args.limit_mib:g} MiB")


if __name__ == "__main__":
    main()
