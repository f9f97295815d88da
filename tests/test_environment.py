"""What a row says does not depend on the environment of who runs the program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import rasterio
from command import run
from rasterio.transform import from_origin

from rastermeta_async.api import pool_for
from rastermeta_async.cli.show import to_json
from rastermeta_async.model.errors import SettingsError
from rastermeta_async.model.gdal_options import options_as_json, options_in_words, own_environment
from rastermeta_async.model.settings import Settings
from rastermeta_async.one_file import read_record
from rastermeta_async.pools.processes import WorkerPool

BY_API = "import sys, json; from rastermeta_async import *; from rastermeta_async.cli.show import *"
READ = f"{BY_API}; print(to_json(read_record(sys.argv[1])))"
EXTRACT = f"""{BY_API}
import asyncio
async def main():
    async for record in extract([sys.argv[1]], Settings(workers=0)):
        print(to_json(record))
asyncio.run(main())
"""


def in_a_program_of_ones_own(program: str) -> Callable[[Path, Mapping[str, str]], Any]:
    def read(path: Path, environment: Mapping[str, str]) -> Any:
        done = subprocess.run(
            [sys.executable, "-c", program, str(path)],
            env={**os.environ, **environment}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return read


def by_command(*arguments: str) -> Callable[[Path, Mapping[str, str]], Any]:
    def read(path: Path, environment: Mapping[str, str]) -> Any:
        done = run([arguments[0], path, *arguments[1:]], b"", subprocess.PIPE, **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return read


def compared(path: Path, environment: Mapping[str, str]) -> Any:
    return by_command("show", "--compare", "--json")(path, environment)["rasterio"]


WAYS = {
    "workers": by_command("extract", "-o", "-", "--workers", "1"),
    "no workers": by_command("extract", "-o", "-", "--workers", "0"),
    "rasterio": by_command("extract", "-o", "-", "--workers", "1", "--reader", "rasterio"),
    "show": by_command("show", "--json"),
    "compare": compared,
    "read_record": in_a_program_of_ones_own(READ),
    "extract": in_a_program_of_ones_own(EXTRACT),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Callable[[Path, Mapping[str, str]], Any]:
    return WAYS[request.param]


def point_raster(path: Path, crs: str = "EPSG:4326") -> Path:
    kind = {"width": 8, "height": 8, "count": 1, "dtype": "uint8"}
    transform = from_origin(-100, 40, 0.1, 0.1)
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **kind) as dataset:
        dataset.update_tags(AREA_OR_POINT="Point")
    return path


class Grids(ThreadingHTTPServer):
    """Counts who asks for a grid."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), BaseHTTPRequestHandler)
        self.asked = 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def verify_request(self, request: object, client_address: object) -> bool:
        self.asked += 1
        return False


@pytest.fixture
def grids() -> Iterator[Grids]:
    with Grids() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def proj_data(folder: Path, ini: str) -> str:
    """Make a data folder like rasterio's, but for ``proj.ini``."""
    folder.mkdir()
    for file in (Path(rasterio.__file__).parent / "proj_data").iterdir():
        if file.name != "proj.ini":
            (folder / file.name).symlink_to(file)
    (folder / "proj.ini").write_text(ini)
    return str(folder)


def by_variables(folder: Path, grids: Grids) -> dict[str, str]:
    return {
        "GTIFF_POINT_GEO_IGNORE": "YES", "GTIFF_REPORT_COMPD_CS": "YES", "PROJ_NETWORK": "ON",
        "PROJ_NETWORK_ENDPOINT": grids.url, "CPL_DEBUG": "ON",
    }  # fmt: skip


def by_files(folder: Path, grids: Grids) -> dict[str, str]:
    (folder / ".gdal").mkdir()
    (folder / ".gdal" / "gdalrc").write_text("[configoptions]\nGTIFF_POINT_GEO_IGNORE=YES\n")
    ini = f"[general]\nnetwork = on\ncdn_endpoint = {grids.url}\n"
    return {"HOME": str(folder), "PROJ_DATA": proj_data(folder / "proj", ini)}


@pytest.mark.campaign
@pytest.mark.parametrize("environment_of", [by_variables, by_files])
def test_no_option_in_the_environment_changes_a_row_or_fetches_a_grid(
    tmp_path: Path,
    grids: Grids,
    way: Callable[[Path, Mapping[str, str]], Any],
    environment_of: Callable[[Path, Grids], dict[str, str]],
) -> None:
    path, environment = (
        point_raster(tmp_path / "a.tif", "EPSG:4267"),
        environment_of(tmp_path, grids),
    )
    expected = json.loads(to_json(read_record(path)))
    found = way(path, environment)
    assert found | {"reader": None} == expected | {"reader": None}
    assert grids.asked == 0
    with rasterio.open(path) as dataset:
        assert found["transform"] == list(dataset.transform.to_gdal())
        assert found["crs"] == dataset.crs.to_string()


@pytest.mark.parametrize("environment_of", [by_variables, by_files])
def test_rasterio_by_itself_follows_those_options(
    tmp_path: Path, grids: Grids, environment_of: Callable[[Path, Grids], dict[str, str]]
) -> None:
    """Else the test above shows nothing."""
    path = point_raster(tmp_path / "a.tif", "EPSG:4267")
    program = (
        "import sys, rasterio, rasterio.warp\n"
        "print(rasterio.open(sys.argv[1]).transform.c)\n"
        "rasterio.warp.transform('EPSG:4267', 'EPSG:4326', [-100], [40])"
    )
    command = [sys.executable, "-c", program, str(path)]
    environment = {**os.environ, **environment_of(tmp_path, grids)}
    moved = subprocess.run(command, env=environment, capture_output=True).stdout
    with rasterio.open(path) as dataset:
        assert float(moved) != dataset.transform.c
    assert grids.asked > 0


PROCESSES = """
import asyncio, subprocess, sys
started = []
start = subprocess.Popen.__init__
subprocess.Popen.__init__ = lambda self, *a, **k: (started.append(a), start(self, *a, **k))[1]
from rastermeta_async import Settings, extract, read_record
async def main():
    return [one.status async for one in extract(sys.argv[1:], Settings(workers=0))]
read_record(sys.argv[1])
asyncio.run(main())
print(len(started))
"""


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("variable", "processes"), [("SOMETHING", 0), ("CURL_CA_BUNDLE", 0), ("GTIFF_LINEAR_UNITS", 2)]
)
def test_only_where_there_are_options_a_program_of_ones_own_gets_a_worker(
    tmp_path: Path, variable: str, processes: int
) -> None:
    """rasterio hands CURL_CA_BUNDLE to PROJ, by a variable of its own."""
    path = point_raster(tmp_path / "a.tif")
    environment = own_environment(os.environ) | {variable: "/dev/null"}
    command = [sys.executable, "-c", PROCESSES, str(path)]
    assert int(subprocess.check_output(command, env=environment)) == processes


def test_what_is_the_users_stays() -> None:
    kept = {
        "PATH": "/bin", "LC_ALL": "C", "HOME": "/root", "GDAL_DATA": "/a", "PROJ_DATA": "/b",
        "AWS_PROFILE": "me", "AZURE_STORAGE_KEY": "k", "GOOGLE_APPLICATION_CREDENTIALS": "/c",
        "STORAGE_EMULATOR_HOST": "h", "HTTPS_PROXY": "p", "no_proxy": "*", "CURL_CA_BUNDLE": "/d",
        "GDAL_HTTP_USERPWD": "a:b", "PYTHONPATH": "/e", "NO_COLOR": "1",
    }  # fmt: skip
    others = {
        "GTIFF_POINT_GEO_IGNORE": "YES", "USE_RRD": "YES", "THRESHOLD": "1", "PYTHONSO": "x",
        "OS_AUTH_TOKEN": "t", "SWIFT_AUTH_TOKEN": "t", "OGR_SQLITE_PRAGMA": "x", "CPL_LOG": "/f",
        "SOMETHING_OF_THE_NEXT_GDAL": "1", "HDF5_DRIVER": "x",
    }  # fmt: skip
    made = own_environment(kept | others)
    assert made.items() >= kept.items()
    assert not others.keys() & made.keys()


def test_an_option_that_is_given_holds_for_every_file_and_the_catalog_says_so(
    tmp_path: Path,
) -> None:
    path, catalog = point_raster(tmp_path / "a.tif"), tmp_path / "c.parquet"
    option = "GTIFF_POINT_GEO_IGNORE=YES"
    with rasterio.Env(GTIFF_POINT_GEO_IGNORE=True), rasterio.open(path) as dataset:
        expected = dataset.transform.to_gdal()
    for workers in ("0", "1"):
        given = ["--gdal-config", option, "--workers", workers, "--overwrite"]
        assert run(["extract", path, "-o", catalog, *given]).returncode == 0
        table = pq.read_table(catalog).to_pylist()
        assert (tuple(table[0]["transform"]), table[0]["reader"]) == (expected, "rasterio")
        metadata = pq.read_metadata(catalog).metadata
        assert json.loads(metadata[b"rastermeta:gdal_config"]) == {"GTIFF_POINT_GEO_IGNORE": "YES"}
    shown = run(["show", "--json", "--gdal-config", option, path])
    assert json.loads(shown.stdout)["transform"] == list(expected)
    record = read_record(path, gdal_config=(option,))
    assert record.transform == expected != read_record(path).transform


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("name", "sort"), [("c.parquet", []), ("c.parquet", ["--sort", "none"]), ("c.ndjson", [])]
)
def test_rows_that_were_read_with_other_options_are_not_mixed(
    tmp_path: Path, name: str, sort: list[str]
) -> None:
    catalog = tmp_path / name
    first, second = (point_raster(tmp_path / f"{at}.tif") for at in "ab")
    given = ["--gdal-config", "GTIFF_POINT_GEO_IGNORE=YES", *sort]
    assert run(["extract", first, "-o", catalog, *given]).returncode == 0
    if name == "c.parquet":  # which says it itself
        Path(f"{catalog}.checkpoint").unlink()
    before = catalog.read_bytes()
    refused = run(["extract", second, "-o", catalog])
    assert (refused.returncode, catalog.read_bytes()) == (1, before)
    message = refused.stderr.decode()
    assert "were read with --gdal-config GTIFF_POINT_GEO_IGNORE=YES" in message
    assert "this run is without --gdal-config: they would be mixed" in message
    listed = run(["extract", "-o", catalog, "--prune", "--dry-run"])  # reads nothing
    assert listed.returncode == 0, listed.stderr
    assert run(["extract", second, "-o", catalog, *given]).returncode == 0
    assert run(["extract", second, "-o", catalog]).returncode == 1
    if name == "c.parquet":
        assert b"rastermeta:gdal_config" in pq.read_metadata(catalog).metadata
    assert run(["extract", second, "-o", catalog, "--overwrite"]).returncode == 0
    assert b"gdal_config" not in catalog.read_bytes()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("GTIFF_POINT_GEO_IGNORE", "is no option: give KEY=VALUE"),
        ("=YES", "is no option: give KEY=VALUE"),
        ("gdal_http_proxy=http://proxy", "cannot be given: rastermeta sets it itself"),
        ("CPL_VSIL_CURL_ALLOWED_EXTENSIONS=.tif", "cannot be given: rastermeta sets it itself"),
        ("AWS_SECRET_ACCESS_KEY=abc", "cannot be given, as the catalog would store it"),
        ("PDF_USER_PWD=abc", "cannot be given, as the catalog would store it"),
        ("PROJ_NETWORK=ON", "cannot be given: rastermeta sets it itself"),
        ("proj_network=ON", "cannot be given: rastermeta sets it itself"),
        ("PROJ_DATA=/abc", "cannot be given, as the catalog would store it"),
        ("PROJ_ONLY_BEST_DEFAULT=abc", "cannot be given, as the catalog would store it"),
        ("GDAL_HTTP_HEADERS=abc", "cannot be given, as the catalog would store it"),
    ],
)
def test_options_that_make_no_sense_are_refused(option: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        Settings(gdal_config=(option,))
    assert "abc" not in str(caught.value)
    done = run(["extract", tmp_path, "-o", "-", "--gdal-config", option])
    assert (done.returncode, message in done.stderr.decode()) == (2, True)


def test_an_option_holds_no_nul_byte() -> None:
    with pytest.raises(SettingsError, match="is no option"):
        Settings(gdal_config=("GTIFF_POINT_GEO_IGNORE=YES\0NO",))


def test_of_options_only_the_last_of_a_key_counts_and_no_order() -> None:
    one = options_as_json(["USE_RRD=YES", "GTIFF_POINT_GEO_IGNORE=NO", "use_rrd=NO"])
    assert one == options_as_json(["GTIFF_POINT_GEO_IGNORE=NO", "USE_RRD=NO"])
    assert json.loads(one) == {"GTIFF_POINT_GEO_IGNORE": "NO", "USE_RRD": "NO"}


@pytest.mark.parametrize("kept", ["[1]", "1", "null", "{", '"a"', "[" * 100_000])
def test_options_that_no_run_writes_are_called_that(kept: str) -> None:
    assert options_in_words(kept) == "with options that no run writes"


def test_foreign_options_are_said_on_a_line_of_a_fitting_length() -> None:
    said = options_in_words(json.dumps({"A\x1b[2J": "\u202e\n" * 1000}))
    assert said.isprintable()
    assert len(said) < 2000


def test_options_in_the_environment_of_a_program_do_not_make_it_open_less_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = WorkerPool(Settings(workers=1)).capacity
    monkeypatch.setenv("GTIFF_POINT_GEO_IGNORE", "YES")
    assert pool_for(Settings()).capacity == expected
