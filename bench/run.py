"""Time rastermeta and its peers over one archive, in alternating rounds, and print the ratios.

python -m bench.run --count 100000 --rounds 3
python -m bench.run --gdal-share 1 --extract-args "--workers 2"
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from bench import archive
from bench.common import (
    DEFAULT_DIR,
    MIB,
    ROOT,
    check_catalog,
    context,
    find,
    rastermeta,
    write_report,
)
from bench.measure import Measurement, measure
from bench.scenes import Spec

WARM_UPS = 3
"""Passes over all files before the first round; the third is the first at full speed."""


@dataclass(frozen=True)
class Job:
    """What the cases work on."""

    directory: Path
    """The archive."""
    listing: Path
    """Paths of all its files, one a line."""
    files: int
    slow_listing: Path
    """The sample for the slow cases."""
    slow_files: int
    extract_args: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rates:
    """One case in one round."""

    files_per_s: float
    cpu_us_per_file: float
    peak_mib: float
    """PSS of all processes but `find`."""
    wall_s: float
    """Of the whole pipeline."""
    cpu_s: float
    """Of the whole pipeline."""


@dataclass(frozen=True)
class Case:
    """One program to be timed."""

    run: Callable[[Job, Path], Rates]
    """Runs it in an empty folder; raises if the output is not what it has to be."""
    slow: bool
    """Takes the sample only."""
    scope: str
    """What the rates are taken over."""
    absent: Callable[[], bool] = lambda: False
    tiff_only: bool = False
    """Opens no other format."""


def _rates(result: Measurement, files: int) -> Rates:
    return Rates(
        files_per_s=files / result.wall_s,
        cpu_us_per_file=result.cpu_s / files * 1e6,
        peak_mib=result.peak_pss / MIB,
        wall_s=result.wall_s,
        cpu_s=result.cpu_s,
    )


def run_rastermeta(job: Job, work: Path) -> Rates:
    """Run the whole pipeline, from `find` to the sealed catalog."""
    catalog = work / "catalog.parquet"
    extract = [rastermeta(), "extract", "-0", "-o", str(catalog), *job.extract_args]
    result = measure([find(job.directory), extract], cwd=work)
    check_catalog(catalog, job.files)
    return _rates(result, job.files)


def run_baseline(job: Job, work: Path) -> Rates:
    """Run the usual script."""
    catalog = work / "catalog.parquet"
    command = [sys.executable, "-m", "bench.baseline", "-o", str(catalog)]
    result = measure([command], stdin=job.slow_listing, cwd=ROOT)
    check_catalog(catalog, job.slow_files)
    return _rates(result, job.slow_files)


def run_gdaltindex(job: Job, work: Path) -> Rates:
    """Run GDAL's own tile index, into a GeoPackage (which sqlite3 can check)."""
    index, options = work / "index.gpkg", work / "files.txt"
    quoted = (f'"{path}"\n' for path in job.slow_listing.read_text().splitlines())
    options.write_text("".join(quoted))
    command = ["gdaltindex", "-f", "GPKG", "-lyr_name", "tiles", "-src_srs_name", "srs", str(index)]
    result = measure([[*command, "--optfile", str(options)]], cwd=work)
    with sqlite3.connect(index) as database:
        ((rows, distinct),) = database.execute(
            "select count(*), count(distinct location) from tiles"
        )
    if (rows, distinct) != (job.slow_files, job.slow_files):
        raise ValueError(f"gdaltindex: {rows} rows, {distinct} paths; {job.slow_files} expected")
    return _rates(result, job.slow_files)


def gdaltindex_version() -> str | None:
    """Tell the GDAL of gdaltindex; None where it is not installed."""
    if shutil.which("gdaltindex") is None:
        return None
    said = subprocess.run(["gdaltindex", "--version"], capture_output=True, text=True, check=False)
    return said.stdout.strip()


def run_bare_rasterio(job: Job, _work: Path) -> Rates:
    """Run the bare loop over rasterio."""
    return _run_loop("bench.bare_rasterio", job.slow_listing, job.slow_files)


def run_bare_no_sidecars(job: Job, _work: Path) -> Rates:
    """Run the bare loop over rasterio, which then looks for no sidecar files."""
    return _run_loop("bench.bare_rasterio", job.slow_listing, job.slow_files, "--no-sidecars")


def run_async_tiff(job: Job, _work: Path) -> Rates:
    """Run async-tiff over the headers."""
    return _run_loop("bench.async_tiff_headers", job.listing, job.files)


def run_floor(job: Job, _work: Path) -> Rates:
    """Run the loop that only reads bytes."""
    return _run_loop("bench.floor", job.listing, job.files)


def _run_loop(module: str, listing: Path, files: int, *options: str) -> Rates:
    result = measure([[sys.executable, "-m", module, *options]], stdin=listing, cwd=ROOT)
    said = json.loads(result.stdout)
    if said["files"] != files:
        raise ValueError(f"{module}: {said['files']} files read, {files} expected")
    return Rates(
        files_per_s=said["files_per_s"],
        cpu_us_per_file=said["cpu_us_per_file"],
        peak_mib=result.peak_pss / MIB,
        wall_s=result.wall_s,
        cpu_s=result.cpu_s,
    )


_WHOLE = "the whole process"
_LOOP = "the loop alone, without the start of the interpreter"

CASES = {
    "rastermeta": Case(run_rastermeta, slow=False, scope=f"{_WHOLE}, find included"),
    "baseline": Case(run_baseline, slow=True, scope=_WHOLE),
    "gdaltindex": Case(
        run_gdaltindex, slow=True, scope=_WHOLE, absent=lambda: not shutil.which("gdaltindex")
    ),
    "bare_rasterio": Case(run_bare_rasterio, slow=True, scope=_LOOP),
    "bare_no_sidecars": Case(run_bare_no_sidecars, slow=True, scope=_LOOP),
    "async_tiff": Case(
        run_async_tiff,
        slow=False,
        scope=_LOOP,
        absent=lambda: find_spec("async_tiff") is None,
        tiff_only=True,
    ),
    "floor": Case(run_floor, slow=False, scope=_LOOP),
}


def make_job(
    directory: Path, work: Path, spec: Spec, slow_count: int, extract_args: Sequence[str]
) -> Job:
    """List the archive as `find` does; the sample is every n-th file."""
    listed = subprocess.run(
        find(directory, end="-print"), check=True, capture_output=True, text=True
    )
    paths = listed.stdout.splitlines(keepends=True)
    if len(paths) != spec.count:
        raise ValueError(f"find lists {len(paths)} files where {spec.count} were written")
    step = -(-len(paths) // slow_count)
    sample = paths[::step]
    listing, slow_listing = work / "all.txt", work / "sample.txt"
    listing.write_text("".join(paths))
    slow_listing.write_text("".join(sample))
    return Job(directory, listing, len(paths), slow_listing, len(sample), tuple(extract_args))


def run_rounds(job: Job, names: Sequence[str], rounds: int, work: Path) -> dict[str, list[Rates]]:
    """Every case once a round, with a warm page cache: some systems drop pages meanwhile."""
    os.sync()
    for _ in range(WARM_UPS):
        run_floor(job, work)
    results: dict[str, list[Rates]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            run_floor(job, work)
            with tempfile.TemporaryDirectory(dir=work) as fresh:
                rates = CASES[name].run(job, Path(fresh))
            print(f"round {number + 1}: {name}: {rates.files_per_s:.0f} files/s", file=sys.stderr)
            results[name].append(rates)
    return results


def middle(rounds: Sequence[Rates]) -> Rates:
    """Take the median of each figure over the rounds."""
    columns = {name: [asdict(rates)[name] for rates in rounds] for name in asdict(rounds[0])}
    return Rates(**{name: median(values) for name, values in columns.items()})


def table(medians: dict[str, Rates], ratios: dict[str, float], absent: Sequence[str]) -> str:
    """Format what is printed at the end."""
    lines = [f"{'case':<18}{'files/s':>10}{'CPU µs/file':>13}{'peak MiB':>10}{'rastermeta is':>16}"]
    for name, rates in medians.items():
        ratio = f"{ratios[name]:.2f} x" if name in ratios else ""
        lines.append(
            f"{name:<18}{rates.files_per_s:>10.0f}{rates.cpu_us_per_file:>13.1f}"
            f"{rates.peak_mib:>10.0f}{ratio:>16}"
        )
    lines += [f"{name:<18}{'absent':>10}" for name in absent]
    return "\n".join(lines)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="bench.run", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=100_000, help="files in the archive")
    parser.add_argument("--slow-count", type=int, default=10_000, help="at most, in the slow cases")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gdal-share", type=float, default=0.0, metavar="FRACTION")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=CASES, metavar="NAME", help="repeatable")
    parser.add_argument(
        "--dir", type=Path, default=DEFAULT_DIR, help="archives are made and kept here"
    )
    parser.add_argument("--out", type=Path, help="JSON; default bench/results/run-DATE.json")
    parser.add_argument("--extract-args", type=shlex.split, default=[], metavar="ARGS")
    args = parser.parse_args()
    if min(args.count, args.slow_count, args.rounds) < 1:
        parser.error("--count, --slow-count and --rounds must be at least 1")

    fit = [name for name, case in CASES.items() if not (case.tiff_only and args.gdal_share)]
    chosen = [name for name in CASES if name in (args.only or fit)]
    absent = [name for name in chosen if CASES[name].absent()]
    names = [name for name in chosen if name not in absent]
    if "rastermeta" in names:
        rastermeta()  # say that it is missing before an archive is written
    spec = Spec(args.count, args.seed, args.gdal_share)
    directory = archive.folder_of(args.dir, spec)
    archive.make(directory, spec)
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        work = Path(name).resolve()
        job = make_job(directory, work, spec, args.slow_count, args.extract_args)
        results = run_rounds(job, names, args.rounds, work)

    medians = {name: middle(rounds) for name, rounds in results.items()}
    ratios = {}
    if "rastermeta" in medians:
        own = medians["rastermeta"].files_per_s
        ratios = {name: own / m.files_per_s for name, m in medians.items() if name != "rastermeta"}
    print(table(medians, ratios, absent))
    report = {
        "benchmark": "run",
        "context": context() | {"gdaltindex": gdaltindex_version()},
        "settings": {
            "archive": asdict(spec),
            "rounds": args.rounds,
            "extract_args": args.extract_args,
            "order": names,
        },
        "cases": {
            name: {
                "files": job.slow_files if CASES[name].slow else job.files,
                "sampled": CASES[name].slow and job.slow_files < job.files,
                "rates_over": CASES[name].scope,
                "rounds": [asdict(rates) for rates in results[name]],
                "median": asdict(medians[name]),
            }
            for name in names
        },
        "absent": absent,
        "rastermeta_files_per_s_over": ratios,
    }
    print(write_report(report, args.out, "run"))


if __name__ == "__main__":
    main()
