"""Memory stays flat: the benchmark's own measure, with the contract's limit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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
        "from rastermeta_async.memory import allow_data, limit_data\n"
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
