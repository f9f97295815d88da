"""Memory stays flat: the benchmark's own measure, with the contract's limit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
LIMIT_MIB = 200.0


def measured(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """Return the runs that ``bench.memory`` measured: rows and peak, PSS of all processes."""
    report = folder / "report.json"
    command = [sys.executable, "-m", "bench.memory", "--dir", str(folder), "--out", str(report)]
    subprocess.run([*command, *arguments], cwd=ROOT, check=True)
    runs: list[dict[str, Any]] = json.loads(report.read_text())["runs"]
    return runs


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_million_paths(tmp_path: Path) -> None:
    few, many = measured(tmp_path, "--count", "1000000", "--tag-files", "0")
    assert (few["rows"], many["rows"]) == (10_000, 1_000_000)
    assert many["peak_mib"] <= LIMIT_MIB


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_files_full_of_tags(tmp_path: Path) -> None:
    arguments = ["--count", "1000", "--tag-files", "2000", "--tag-bytes", "300000"]
    *_, tags = measured(tmp_path, *arguments)
    assert tags["rows"] == 2000
    assert tags["peak_mib"] <= LIMIT_MIB
