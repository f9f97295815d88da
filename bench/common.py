"""What the benchmarks share: the command under test, the check of its output, the report."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from bench.archive import RASTER_SUFFIXES
from bench.measure import measure

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
DEFAULT_DIR = Path(tempfile.gettempdir()) / "rastermeta-bench"
MIB = 1 << 20


def rastermeta() -> str:
    """Find the command that is installed beside this interpreter."""
    found = shutil.which("rastermeta", path=sysconfig.get_path("scripts"))
    if found is None:
        raise SystemExit(f"rastermeta is not installed for {sys.executable}: pip install {ROOT}")
    return found


def find(directory: Path, *, end: str = "-print0", follow: bool = False) -> list[str]:
    """Build a `find` command for the rasters below a directory, sidecars left out."""
    names = [word for suffix in RASTER_SUFFIXES for word in ("-o", "-name", f"*{suffix}")][1:]
    return ["find", *(["-L"] if follow else []), str(directory), "(", *names, ")", end]


def check_catalog(catalog: Path, rows: int) -> None:
    """Raise ValueError unless the catalog has `rows` rows and distinct paths, all successes."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(catalog, columns=["filepath", "status"])
    distinct = pc.count_distinct(table["filepath"]).as_py()
    good = pc.sum(pc.equal(table["status"], "success")).as_py() or 0
    if (table.num_rows, distinct, good) != (rows, rows, rows):
        raise ValueError(
            f"{catalog.name}: {table.num_rows} rows, {distinct} distinct paths and {good} "
            f"successes where {rows} of each were expected"
        )


def files_per_s(
    files: int, work: Path, *options: str, find: Sequence[str] = (), stdin: Path | None = None
) -> float:
    """Return the files a second of the whole program, from the start to a catalog of all.

    Args:
        files: how many there are.
        work: a folder for the catalog.
        options: of `extract`, and its inputs.
        find: a command whose output it reads; none: it reads `stdin`.
        stdin: a list of paths, one a line.
    """
    with tempfile.TemporaryDirectory(dir=work) as name:
        catalog = Path(name) / "catalog.parquet"
        command = [rastermeta(), "extract", "-q", "-o", str(catalog), *options]
        pipeline = [find, [*command, "-0"]] if find else [command]
        result = measure(pipeline, stdin=stdin, cwd=work)
        check_catalog(catalog, files)
        return files / result.wall_s


def context() -> dict[str, Any]:
    """Versions and machine, as far as they move the figures."""
    import rasterio

    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "rastermeta-async": _version("rastermeta-async"),
        "rasterio": rasterio.__version__,
        "gdal": rasterio.__gdal_version__,
        "pyarrow": _version("pyarrow"),
    }


def write_report(report: Mapping[str, Any], out: Path | None, name: str) -> Path:
    """Write JSON to `out`, by default to results/NAME-DATE.json."""
    if out is None:
        out = RESULTS / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n")
    return out


def in_rounds(cases: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, dict[str, Any]]:
    """Measure the files a second of all cases, so many times; print and return their medians."""
    found: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds):
        for name, case in cases.items():
            found[name].append(case())
            print(f"round {number + 1}: {name}: {found[name][-1]:.0f} files/s", file=sys.stderr)
    for name, values in found.items():
        print(f"{name:<32}{median(values):>8.0f} files/s")
    return {name: {"rounds": values, "median": median(values)} for name, values in found.items()}


def _git(*args: str) -> str | None:
    result = subprocess.run(["git", "-C", ROOT, *args], capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
