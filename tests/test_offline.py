"""Files whose content is on tape are left there where that is asked for."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from command import run, write_raster

WAYS = {"workers": ["--workers", "1"], "no workers": ["--workers", "0"]}


def away(path: Path) -> Path:
    """Make a file as one that was moved to tape: a size, and no blocks."""
    with open(path, "wb") as file:
        file.truncate(100_000)
    if os.stat(path).st_blocks:
        pytest.fail("the disk of the tests gives blocks to holes")
    return path


def rows_of(arguments: list[str | Path]) -> dict[str, tuple[str, str | None]]:
    done = run(["extract", *arguments, "-o", "-"])
    rows = map(json.loads, done.stdout.splitlines())
    return {Path(row["filepath"]).name: (row["status"], row["error_type"]) for row in rows}


@pytest.mark.campaign
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reader", ["auto", "rasterio"])
def test_a_file_that_is_away_is_not_read_where_that_is_asked_for(
    tmp_path: Path, way: str, reader: str
) -> None:
    here, empty = write_raster(tmp_path / "here.tif"), tmp_path / "empty.tif"
    empty.touch()
    paths = [here, empty, away(tmp_path / "away.tif"), tmp_path / "missing.tif", tmp_path]
    options = [*WAYS[way], "--reader", reader]
    as_always = rows_of([*paths, *options])
    skipping = rows_of([*paths, *options, "--skip-offline"])
    assert skipping.pop("away.tif") == ("error", "Offline")
    assert as_always.pop("away.tif") == ("error", "RasterioIOError")
    assert skipping == as_always
    assert skipping["here.tif"][0] == "success"


def test_a_file_that_has_come_back_is_read_by_retry_failed(tmp_path: Path) -> None:
    path, catalog = away(tmp_path / "a.tif"), tmp_path / "catalog.parquet"
    run(["extract", path, "-o", catalog, "--skip-offline"])
    path.unlink()
    write_raster(path)
    done = run(["extract", path, "-o", catalog, "--skip-offline", "--retry-failed"])
    assert done.returncode == 0, done.stderr
