"""Headers from an object store that takes 30 ms to answer: rastermeta against GDAL's /vsis3/.

    python -m bench.remote --count 40000

The store is the range server of the tests, on the same machine: it takes its share of the CPUs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from bench import archive
from bench.common import DEFAULT_DIR, ROOT, check_catalog, context, find, rastermeta, write_report
from bench.floor import read_header
from bench.scenes import KINDS, Spec

GDAL_SHARE = 20
"""GDAL opens one file in so many, as it takes its time."""


@contextmanager
def store(folder: Path, delay: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Serve a folder; yield the address and, when done, the requests by method and by folder."""
    counts: dict[str, Any] = {}
    program = [sys.executable, str(ROOT / "tests" / "range_server.py"), str(folder), str(delay)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        yield f"http://127.0.0.1:{process.stdout.readline().decode().strip()}", counts
        process.stdin.close()
        counts.update(json.loads(process.stdout.readline()))


def _requests_of_cogs(urls: list[str], requests: dict[str, int]) -> float:
    """Return the requests for a COG: in the others, the header may be at the end."""
    folders = {f"bucket/{kind.folder.partition('/')[0]}" for kind in KINDS if kind.layout == "cog"}
    files = sum("/".join(url.split("/")[2:4]) in folders for url in urls)
    return sum(requests[folder] for folder in folders & requests.keys()) / files


def _warm(files: list[str]) -> None:
    """Have the page cache hold what the store is asked for, so that its answers take `delay`."""
    for file in files:
        read_header(file)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="bench.remote", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--count", type=int, default=40_000)
    parser.add_argument("--delay", type=float, default=0.03, help="seconds before an answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=DEFAULT_DIR)
    parser.add_argument("--out", type=Path, help="JSON; default bench/results/remote-DATE.json")
    args = parser.parse_args()
    folder = args.dir.resolve() / f"remote-{args.count}"
    archive.make(folder / "bucket", Spec(args.count))
    listed = subprocess.run(find(folder / "bucket"), capture_output=True, check=True).stdout
    files = [path.decode() for path in listed.split(b"\0") if path]
    urls = [path.replace(str(folder), "s3:/") for path in files]
    cases: dict[str, list[float]] = {"rastermeta": [], "gdal": []}
    requests: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as work:
        every, few = Path(work, "all"), Path(work, "few")
        every.write_text("\n".join(urls))
        few.write_text("\n".join(urls[::GDAL_SHARE]))
        for number in range(args.rounds):
            _warm(files)
            with store(folder, args.delay) as (address, counts):
                catalog = Path(work, "catalog.parquet")
                began = time.perf_counter()
                subprocess.run(
                    [rastermeta(), "extract", "-q", "--overwrite", "-o", catalog, "--from-file",
                     every, "--no-sign-request", "--endpoint-url", address], check=True,
                )  # fmt: skip
                cases["rastermeta"].append(len(urls) / (time.perf_counter() - began))
                check_catalog(catalog, len(urls))
            requests = {
                "GET": counts["GET"] / len(urls),
                "GET, COGs": _requests_of_cogs(urls, counts["folders"]),
                "HEAD": counts.get("HEAD", 0) / len(urls),
                "bytes": counts["bytes"] / len(urls),
            }
            _warm(files)
            with store(folder, args.delay) as (address, _):
                command = [sys.executable, "-m", "bench.gdal_remote", str(few), address]
                done = subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
                cases["gdal"].append(float(done.stdout))
            rates = ", ".join(f"{case} {rounds[-1]:.0f} files/s" for case, rounds in cases.items())
            print(f"round {number + 1}: {rates}", flush=True)
    rates_of = {case: median(rounds) for case, rounds in cases.items()}
    report = {
        "benchmark": "remote",
        "context": context(),
        "settings": {"delay": args.delay, "files": len(urls)},
        "rounds": cases,
        "files_per_s": rates_of,
        "rastermeta_over_gdal": rates_of["rastermeta"] / rates_of["gdal"],
        "a_file": requests,
    }
    print(f"{report['rastermeta_over_gdal']:.1f} x GDAL; a file: {requests}")
    print(write_report(report, args.out, "remote"))


if __name__ == "__main__":
    main()
