"""What each command imports, and the processor time that small ones take."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import Any

import pytest
from command import COMMAND, run, write_raster

LOADED = (
    "import atexit, sys\n"
    "from rastermeta_async.__main__ import main\n"
    "atexit.register(lambda: print('loaded', *sys.modules, file=sys.stderr))\n"
    "main()"
)
"""The program, which names at its end the modules that it has loaded."""

CLOUDS = {"boto3", "botocore", "obstore"}
OF_RUNS = {"asyncio", "aiofiles", "uvloop", "multiprocessing", "rastermeta_async.pools.threads",
           "rastermeta_async.pipeline"}  # fmt: skip
NOT_NEEDED = CLOUDS | OF_RUNS | {"pandas", "rich", "shapely"}
NUMBERS = {"numpy", "pyarrow", "rasterio"}


@pytest.fixture(scope="module")
def catalog(sample_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalog of the sample, 43 rows."""
    made = tmp_path_factory.mktemp("startup") / "catalog.parquet"
    run(["extract", sample_archive, "-o", made])
    return made


@pytest.fixture(scope="module")
def raster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raster(tmp_path_factory.mktemp("startup") / "plain.tif")


@pytest.mark.parametrize(
    ("command", "unused"),
    [
        ("--help", NOT_NEEDED | NUMBERS | {"pydantic"}),
        ("extract --help", NOT_NEEDED | NUMBERS),
        ("schema", NOT_NEEDED | {"rasterio", "pyarrow.compute", "pyarrow.parquet"}),
        ("show RASTER", NOT_NEEDED | {"pyarrow.parquet", "numpy.random"}),
        ("show --compare RASTER", NOT_NEEDED | {"pyarrow.parquet", "numpy.random"}),
        ("status CATALOG", NOT_NEEDED | {"rasterio"}),
        ("summary CATALOG", NOT_NEEDED),
        ("diff CATALOG CATALOG", NOT_NEEDED | {"vl_convert"}),
        ("report CATALOG -o PAGE", NOT_NEEDED - {"shapely"}),
        ("sample DIR", NOT_NEEDED),
        ("export stac CATALOG -o ITEMS", NOT_NEEDED - {"shapely"}),
        ("export csv CATALOG -o -", NOT_NEEDED - {"shapely"} | {"duckdb", "pyogrio", "rasterio"}),
        ("export gti CATALOG -o DIR", NOT_NEEDED - {"shapely"} | {"duckdb"}),
    ],
)
def test_a_command_imports_what_it_uses(
    command: str, unused: set[str], raster: Path, catalog: Path, tmp_path: Path
) -> None:
    files = {"RASTER": raster, "CATALOG": catalog, "DIR": tmp_path / "made",
             "ITEMS": tmp_path / "items.ndjson", "PAGE": tmp_path / "page.html"}  # fmt: skip
    arguments = [files.get(word, word) for word in command.split()]
    done = run(arguments, command=[sys.executable, "-c", LOADED])
    assert done.returncode == 0, done.stderr
    loaded = done.stderr.decode().rpartition("loaded ")[2].split()
    assert unused.intersection(loaded) == set()


IMPORTS = [sys.executable, "-c", "import rasterio, pyarrow.parquet"]
"""What the processor time of small commands is held against; it takes 0.4 s on a quiet core."""


@pytest.mark.parametrize(
    ("command", "budget"), [("--help", 0.35), ("show RASTER", 1.25), ("summary CATALOG", 1.25)]
)
def test_a_small_command_takes_little_processor_time(
    command: str, budget: float, raster: Path, catalog: Path
) -> None:
    """The budget is a multiple of the time of `IMPORTS`, as machines and their loads differ."""
    files = {"RASTER": raster, "CATALOG": catalog}
    arguments = [files.get(word, word) for word in command.split()]
    _processor_time(arguments, COMMAND)  # compiles
    ratios = [_processor_time(arguments, COMMAND) / _processor_time([], IMPORTS) for _ in range(3)]
    assert statistics.median(ratios) <= budget, ratios


def _processor_time(arguments: list[Any], command: list[str]) -> float:
    """Return the seconds of processor time that a command takes, user and system."""
    before = getrusage(RUSAGE_CHILDREN)
    assert run(arguments, command=command, PYTHONDONTWRITEBYTECODE="").returncode == 0
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
