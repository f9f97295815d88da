"""How many rows a second one run takes in: its workers answer at once, and read nothing.

    python -m bench.coordinator --rows 300000
    python -m bench.coordinator --rows 300000 --cluster

Rows are those of an archive's files, under the paths that are asked for. Each case is a process of
its own. Its workers are two processes, or two workers of a Dask cluster on this machine. They
speak the same protocol as those that read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import uvloop

from bench import archive
from bench.common import DEFAULT_DIR, MIB, ROOT, context, write_report
from bench.sealing import read_rows
from rastermeta_async.model.settings import CHUNK_PATHS, Order, Settings
from rastermeta_async.pools import node
from rastermeta_async.pools.child import Launched
from rastermeta_async.pools.cluster import ClusterPool
from rastermeta_async.pools.processes import WorkerPool
from rastermeta_async.pools.protocol import (
    OpenFiles,
    ReplyKind,
    WorkerConfig,
    encode_reply,
    read_job,
)

FILES = 2_000
WORKERS = 2
ROUNDS = 3
TEMPLATE = "RASTERMETA_BENCH_ROWS"
"""Environment variable with the Arrow file of the rows that workers answer with."""


@cache
def template() -> pa.RecordBatch:
    """Return the rows that workers answer with."""
    with pa.ipc.open_file(os.environ[TEMPLATE]) as file:
        return file.read_all().combine_chunks().to_batches()[0]


def answered(paths: Sequence[bytes]) -> pa.RecordBatch:
    """Return rows for paths, fewer than `template` has."""
    start = zlib.crc32(paths[0]) % (template().num_rows - len(paths))
    rows = template().slice(start, len(paths))
    columns = [pa.array(paths, pa.string()), *rows.columns[1:]]
    return pa.RecordBatch.from_arrays(columns, schema=rows.schema)


def read(job: node.Job, wanted: dict[str, str], paths: node.Paths) -> node.Answer:  # noqa: ARG001  # as `node.read`
    """Answer as `node.read` does."""
    return node.Answer(node.encoded([answered(paths.paths)]))


class _Input:
    """Standard input as a `protocol.Stream`."""

    async def readexactly(self, n: int) -> bytes:
        content = sys.stdin.buffer.read(n)
        if len(content) < n:
            raise asyncio.IncompleteReadError(content, n)
        return content


async def answer_jobs() -> None:
    """Be a worker process that answers at once."""
    out = sys.stdout.buffer
    out.write(encode_reply(ReplyKind.READY))
    out.flush()
    with suppress(asyncio.IncompleteReadError):
        while True:
            number, paths = await read_job(_Input())
            out.write(encode_reply(ReplyKind.ROWS, number, answered(paths).serialize()))
            out.write(encode_reply(ReplyKind.DONE, number))
            out.flush()


def launch(config: WorkerConfig) -> Launched:
    """Start a worker process that answers at once."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.coordinator", "--answer"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    return Launched(process, OpenFiles.create(config.slots))


def run_once(paths: Path, order: str, *, cluster: bool) -> dict[str, float]:
    """Make a catalog of the paths in a list; return what it took of this process."""
    from bench import coordinator  # nodes import what they call, and cannot from `__main__`
    from rastermeta_async import extract_to
    from rastermeta_async.progress import Progress
    from rastermeta_async.sources.paths import ListSource

    settings = Settings(workers=WORKERS, sort=Order(order))
    pool: Any = (
        ClusterPool(f"local:{WORKERS}", settings, coordinator.read)
        if cluster
        else WorkerPool(settings, launch=launch)
    )
    progress = Progress()

    async def work(catalog: str) -> tuple[int, float, float, float]:
        taken_in = asyncio.create_task(_taken_in(progress))
        source = ListSource(str(paths))
        outcome = await extract_to(catalog, source, settings, pool=pool, progress=progress)
        return outcome.rows, *await taken_in

    with tempfile.TemporaryDirectory(dir=paths.parent) as folder:
        cpu = time.process_time()
        rows, wall, cpu_end, intake_peak = uvloop.run(work(f"{folder}/catalog.parquet"))
        sealing = time.process_time() - cpu_end
    return {
        "rows": rows,
        "rows_per_s": rows / wall,
        "cpu_us_per_row": (cpu_end - cpu) / rows * 1e6,
        "sealing_cpu_us_per_row": sealing / rows * 1e6,
        "wire_bytes_per_row": _bytes_on_the_wire(cluster=cluster),
        "intake_peak_mib": intake_peak,
        "peak_mib": _peak_mib(),
    }


def _bytes_on_the_wire(*, cluster: bool) -> float:
    rows = answered([b"/archive/scene_%09d_B04.tif" % number for number in range(CHUNK_PATHS)])
    size: int = len(node.encoded([rows])) if cluster else rows.serialize().size
    return size / len(rows)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB


async def _taken_in(progress: Any) -> tuple[float, float, float]:
    """Return, when sealing begins, seconds since the first row, this process's CPU, its memory."""
    while not progress.sealing:  # noqa: ASYNC110  # nothing tells it
        await asyncio.sleep(0.005)
    return time.monotonic() - progress.started, time.process_time(), _peak_mib()


def main() -> None:
    """Measure all orders in alternating rounds, and write a report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--order", nargs="+", default=["none", "path"])
    parser.add_argument("--cluster", action="store_true")
    parser.add_argument("--dir", type=Path, default=DEFAULT_DIR)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.answer:
        asyncio.run(answer_jobs())
        return
    if args.once:
        from rastermeta_async.model.machine import spare_memory

        spare_memory()  # as the program does; it comes before pyarrow is imported
        print(json.dumps(run_once(args.once, args.order[0], cluster=args.cluster)))
        return
    args.dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        work = Path(folder)
        environment = os.environ | {TEMPLATE: str(_write_template(args.dir, work))}
        paths = work / "paths"
        with paths.open("w") as file:
            for number in range(args.rows):
                file.write(f"/archive/{number // 1000:06d}/scene_{number:09d}_B04.tif\n")
        measure = partial(_measured, paths, environment, cluster=args.cluster)
        rounds = {order: [measure(order) for _ in range(args.rounds)] for order in args.order}
    medians = {order: _medians(found) for order, found in rounds.items()}
    for order, found in medians.items():
        print(order, {name: round(value, 1) for name, value in found.items()})
    settings: dict[str, Any] = {"rows": args.rows, "workers": WORKERS, "cluster": args.cluster}
    report = {"context": context(), "settings": settings, "rounds": rounds, "medians": medians}
    print(write_report(report, args.out, "coordinator"))


def _write_template(directory: Path, work: Path) -> Path:
    spec, files = archive.geotiffs(directory, FILES)
    archive.make(files, spec)
    rows = read_rows(files).combine_chunks()
    path = work / "rows.arrow"
    with pa.ipc.new_file(path, rows.schema) as file:
        file.write_table(rows)
    return path


def _measured(
    paths: Path, environment: dict[str, str], order: str, *, cluster: bool
) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.coordinator", "--once", str(paths), "--order", order]
    done = subprocess.run(
        [*command, *["--cluster"][: int(cluster)]],
        cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _medians(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: median(one[name] for one in found) for name in found[0]}


if __name__ == "__main__":
    main()
