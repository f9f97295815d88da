"""Memory stays flat: the benchmark's own measure, with the contract's limit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from rastermeta_async.model.machine import memory_bytes

ROOT = Path(__file__).parent.parent
LIMITS_MIB = {0: 200.0, 2: 275.0}
"""By worker processes."""


def measured(folder: Path, workers: int, *arguments: str) -> list[dict[str, Any]]:
    """Return the runs that ``bench.memory`` measured: rows and peak, PSS of all processes."""
    report = folder / "report.json"
    command = [sys.executable, "-m", "bench.memory", "--dir", str(folder), "--out", str(report)]
    pool = ["--extract-args", f"--workers {workers}"]
    subprocess.run([*command, *pool, *arguments], cwd=ROOT, check=True)
    runs: list[dict[str, Any]] = json.loads(report.read_text())["runs"]
    return runs


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("workers", LIMITS_MIB)
def test_a_million_paths(tmp_path: Path, workers: int) -> None:
    few, many = measured(tmp_path, workers, "--count", "1000000", "--tag-files", "0")
    assert (few["rows"], many["rows"]) == (10_000, 1_000_000)
    assert many["peak_mib"] <= LIMITS_MIB[workers]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("workers", LIMITS_MIB)
def test_files_full_of_tags(tmp_path: Path, workers: int) -> None:
    arguments = ["--count", "1000", "--tag-files", "2000", "--tag-bytes", "300000"]
    *_, tags = measured(tmp_path, workers, *arguments)
    assert tags["rows"] == 2000
    assert tags["peak_mib"] <= LIMITS_MIB[workers]


def test_a_limit_that_was_set_can_be_raised() -> None:
    script = (
        "from resource import RLIMIT_DATA, getrlimit\n"
        "from rastermeta_async.model.machine import allow_data, limit_data\n"
        "free = getrlimit(RLIMIT_DATA)[0]\n"
        "allow_data(1 << 20)\n"
        "assert getrlimit(RLIMIT_DATA)[0] == free, 'a limit of others'\n"
        "limit_data(1 << 30, threads=0)\n"
        "before = getrlimit(RLIMIT_DATA)[0]\n"
        "allow_data(1 << 20)\n"
        "print(getrlimit(RLIMIT_DATA)[0] - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b"1048576\n"


def test_a_limit_counts_stacks_and_keeps_to_that_of_others() -> None:
    script = (
        "from resource import RLIMIT_DATA, getrlimit, setrlimit\n"
        "from rastermeta_async.model.machine import STACK_BYTES, allow_data, limit_data\n"
        "from rastermeta_async.model.machine import memory_bytes\n"
        "now = memory_bytes().data\n"
        "hard = now + (1 << 30)\n"
        "setrlimit(RLIMIT_DATA, (hard, hard))\n"
        "limit_data(1 << 28, threads=64)\n"
        "soft = getrlimit(RLIMIT_DATA)[0]\n"
        "assert abs(soft - now - (1 << 28) - 64 * STACK_BYTES) < 1 << 24, soft - now\n"
        "allow_data(1 << 30)\n"
        "assert getrlimit(RLIMIT_DATA) == (hard, hard)\n"
        "limit_data(1 << 31, threads=0)\n"
        "assert getrlimit(RLIMIT_DATA) == (hard, hard)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_this_process_takes_is_what_the_system_says() -> None:
    before = psutil.Process().memory_info()
    taken = memory_bytes()
    assert taken.resident == pytest.approx(before.rss, rel=0.1)
    assert taken.data == pytest.approx(before.data, rel=0.1)


def test_cycles_are_still_looked_for() -> None:
    """Seldom, but a run of days would grow without."""
    script = (
        "import gc, weakref\n"
        "from rastermeta_async.model.machine import collect_seldom\n"
        "collect_seldom()\n"
        "class Ring: pass\n"
        "def ring():\n"
        "    one = Ring()\n"
        "    one.other = one\n"
        "    return weakref.ref(one)\n"
        "first = ring()\n"
        "rings = [ring() for _ in range(100_000)]\n"
        "assert first() is None\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
