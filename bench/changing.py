"""How soon the rate follows a far disk that becomes slow, and quick again, in the middle of a run.

python -m bench.changing
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import median

from bench import archive, slowfs
from bench.common import DEFAULT_DIR, context, rastermeta, write_report
from bench.far import make_job

SAMPLE_SECONDS = 0.5
PHASE_SECONDS = {"1 ms": 6.0, "100 ms": 10.0, "1 ms again": 6.0}
SIGNALS = {"100 ms": signal.SIGUSR1, "1 ms again": signal.SIGUSR2}
"""That the server gets at the begin of a phase."""

SETTLED = 0.8
"""Of the median rate in the later half of a phase; from then on a phase's rate is reached."""


def opened(mount: Path) -> int:
    """Return how many files were opened so far."""
    return int(json.loads((mount / ".count").read_text())["open"])


def rates(mount: Path, seconds: float) -> Iterator[float]:
    """Yield files a second, sample by sample."""
    last, before = time.monotonic() + seconds, (opened(mount), time.monotonic())
    while time.monotonic() < last:
        time.sleep(SAMPLE_SECONDS)
        now = opened(mount), time.monotonic()
        yield (now[0] - before[0]) / (now[1] - before[1])
        before = now


def seconds_to(rate: float, found: list[float]) -> float:
    """Return after how many seconds samples reach a rate."""
    return SAMPLE_SECONDS * next(
        (number for number, one in enumerate(found, 1) if one >= SETTLED * rate), len(found)
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="bench.changing", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--count", type=int, default=100_000, help="files in the archive")
    parser.add_argument("--dir", type=Path, default=DEFAULT_DIR, help="archives are kept here")
    parser.add_argument("--out", type=Path, help="JSON; default bench/results/changing-DATE.json")
    args = parser.parse_args()
    if reason := slowfs.missing():
        print(f"not run: {reason}")
        return
    spec, root = archive.geotiffs(args.dir, args.count)
    phases: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        work = Path(name).resolve()
        mount = work / "far"
        mount.mkdir()
        with slowfs.mounted(slowfs.build(work), root, mount, 1.0) as server:
            job = make_job(root, server, mount, work)
            command = [rastermeta(), "extract", "-q", "-o", str(work / "catalog.parquet")]
            with job.listing.open() as listing, subprocess.Popen(command, stdin=listing) as run:
                time.sleep(2)  # it starts
                for phase, seconds in PHASE_SECONDS.items():
                    if phase in SIGNALS:
                        server.send_signal(SIGNALS[phase])
                    found = list(rates(mount, seconds))
                    rate = median(found[len(found) // 2 :])
                    reached = seconds_to(rate, found)
                    print(f"{phase:<12}{rate:>8.0f} files/s, after {reached:.1f} s")
                    phases[phase] = {"samples": found, "rate": rate, "reached_after_s": reached}
                if run.poll() is not None:
                    raise SystemExit("the run ended too early: give a higher --count")
                run.terminate()
    settings = {"archive": asdict(spec), "sample_s": SAMPLE_SECONDS, "phases_s": PHASE_SECONDS}
    report = {"benchmark": "changing", "context": context(), "settings": settings, "phases": phases}
    print(write_report(report, args.out, "changing"))


if __name__ == "__main__":
    main()
