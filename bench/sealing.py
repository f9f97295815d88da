"""What sealing a catalog and making footprints cost, apart from all else.

    python -m bench.sealing --rows 1000000

Rows are those of an archive's files under as many other paths as it takes, in parts of 5,000.
Each case is a process of its own; its memory is what it takes more than before sealing.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from bench import archive
from bench.common import DEFAULT_DIR, MIB, ROOT, context, write_report
from bench.scenes import Spec

PART_ROWS = 5000
FILES = 10_000
CHUNK = 256
ROUNDS = 5
ORDERS = ("none", "path", "spatial")


def read_rows(directory: Path) -> Any:
    """Return the rows of all files of an archive, as a table."""
    from rastermeta_async import Settings, extract_to

    paths = sorted(str(path) for path in directory.rglob("*.tif"))
    with tempfile.TemporaryDirectory() as folder:
        catalog = Path(folder) / "rows.parquet"
        asyncio.run(extract_to(catalog, paths, Settings(workers=2, concurrency=2)))
        import pyarrow.parquet as pq

        return pq.read_table(catalog)


def renamed(rows: Any, number: int) -> Any:
    """Return the rows under other paths."""
    import pyarrow as pa
    import pyarrow.compute as pc

    paths = pc.binary_join_element_wise(pa.scalar(f"/{number:05d}"), rows["filepath"], "")
    return rows.set_column(0, rows.schema.field(0), paths)


def parts_of(rows: Any, count: int) -> Iterator[Any]:
    """Yield tables of `PART_ROWS` rows, `count` in all."""
    left = count
    for number in itertools.count():
        for start in range(0, rows.num_rows, PART_ROWS):
            if left <= 0:
                return
            part = renamed(rows.slice(start, min(PART_ROWS, left)), number)
            left -= part.num_rows
            yield part


def make_parts(output: Path, rows: Any, count: int) -> None:
    """Leave an output as it is just before it is sealed."""
    from rastermeta_async.catalog.output import Output

    target = Output(str(output))
    for part in parts_of(rows, count):
        target.log.append(target.sink.commit(part))
    target.close()


def seal(output: str, order: str) -> dict[str, float]:
    """Seal an output; return seconds, and MiB more than before at the peak (Linux, proc(5))."""
    from rastermeta_async.model.machine import spare_memory

    spare_memory()
    from rastermeta_async.catalog.output import Output
    from rastermeta_async.model.settings import Order

    target = Output(output, order=Order(order))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _memory("VmRSS")
    start, cpu = time.perf_counter(), time.process_time()
    target.seal()
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    target.close()
    return {"wall_s": wall, "cpu_s": cpu, "grown_mib": (_memory("VmHWM") - before) / MIB}


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status tells no {name}")


def measure_seal(parts: Path, order: str, count: int) -> dict[str, float]:
    """Seal a copy of an output in a process of its own."""
    with tempfile.TemporaryDirectory(dir=parts.parent) as folder:
        output = Path(folder) / parts.name
        shutil.copytree(f"{parts}.parts", f"{output}.parts", copy_function=os.link)
        shutil.copy(f"{parts}.checkpoint", f"{output}.checkpoint")
        command = [sys.executable, "-m", "bench.sealing", "--seal", str(output), "--order", order]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        found: dict[str, float] = json.loads(done.stdout)
        found["rows_per_s"] = count / found["wall_s"]
        found["bytes"] = output.stat().st_size
        return found


def measure_footprints(rows: Any) -> dict[str, float]:
    """Return CPU microseconds a file, in chunks as a worker has them: with footprints, without."""
    import rasterio

    from rastermeta_async.footprints.rows import rows_with_footprints
    from rastermeta_async.model.record import from_batch, to_batch

    bare = [row._replace(geometry=None, bbox=None, footprint=None) for row in from_batch(rows)]
    chunks = [bare[start : start + CHUNK] for start in range(0, len(bare), CHUNK)]
    times: dict[str, list[float]] = {"with": [], "without": []}
    with rasterio.Env():  # entered once, as a worker does
        for _ in range(ROUNDS):
            for name, convert in (("with", rows_with_footprints), ("without", to_batch)):
                start = time.process_time()
                for chunk in chunks:
                    convert(chunk)
                times[name].append((time.process_time() - start) / len(bare) * 1e6)
    found = {name: median(values) for name, values in times.items()}
    return found | {"footprint": found["with"] - found["without"]}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="bench.sealing", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dir", type=Path, default=DEFAULT_DIR, help="archives are kept here")
    parser.add_argument("--out", type=Path, help="JSON; default bench/results/sealing-DATE.json")
    parser.add_argument("--seal", metavar="OUTPUT", help=argparse.SUPPRESS)
    parser.add_argument("--order", default="path", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.seal:
        print(json.dumps(seal(args.seal, args.order)))
        return
    directory = args.dir.resolve() / f"archive-{FILES}-1-0"
    archive.make(directory, Spec(FILES))
    rows = read_rows(directory)
    report: dict[str, Any] = {
        "benchmark": "sealing",
        "context": context(),
        "settings": {"rows": args.rows, "files": FILES, "part_rows": PART_ROWS},
        "footprints_us_per_file": measure_footprints(rows),
    }
    report["sealing"] = {}
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        parts = Path(folder) / "catalog.parquet"
        make_parts(parts, rows, args.rows)
        for order in ORDERS:
            report["sealing"][order] = measure_seal(parts, order, args.rows)
    print(json.dumps(report, indent=2))
    print(write_report(report, args.out, "sealing"))


if __name__ == "__main__":
    main()
