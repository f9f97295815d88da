"""Object stores, against servers on the loopback: the same records, few requests, faults borne."""

from __future__ import annotations

import asyncio
import base64
import email.utils
import hashlib
import hmac
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import command
import numpy as np
import obstore
import pyarrow.parquet as pq
import pytest
import rasterio
import rasterio.shutil
from command import write_raster
from factory import exact, records_of
from formats_of_gdal import every_format
from jp2_variants import assembled, tree, write_jp2
from obstore.store import AzureStore
from range_server import Server, serving, serving_apart, some
from test_raster_folders import write_zarr

import rastermeta_async
from rastermeta_async import Access, Record, Settings
from rastermeta_async.catalog.completed import batches_of
from rastermeta_async.catalog.output import Output, Totals
from rastermeta_async.catalog.uploads import UPLOAD_SECONDS
from rastermeta_async.model.errors import ForeignOutputError, PruneError, StoreError
from rastermeta_async.model.record import SCHEMA
from rastermeta_async.model.urls import Listed
from rastermeta_async.one_file import read_record
from rastermeta_async.pools.header_pool import HeaderPool
from rastermeta_async.readers.fetch import Fetcher, FetchError
from rastermeta_async.readers.router import make_reader
from rastermeta_async.stores.clients import Found, Stores
from rastermeta_async.stores.credentials import endpoint_of, gdal_name, gdal_options
from rastermeta_async.stores.raw_keys import Key, ObjectBytes, S3Bucket

NOT_COMPARED = {"filepath", "filepath_bytes", "mtime", "etag", "reader", "error_message",
                "missing_sources", "subdatasets"}  # fmt: skip
AZURITE = shutil.which("azurite-blob")
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Of every emulator of Azure's storage; no secret (Microsoft, "Use the Azurite emulator")."""

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
               "AWS_DEFAULT_REGION": "us-east-1"}  # fmt: skip


@pytest.fixture(scope="module")
def bucket(sample_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a bucket of the sample's files; each file is alone in its folder."""
    folder = tmp_path_factory.mktemp("stores")
    for number, file in enumerate(sorted(sample_archive.rglob("*"))):
        if file.is_file() and file.stat().st_size and file.suffix in (".tif", ".txt", ".vrt"):
            place = folder / "bucket" / f"{number:03d} ä%20#?+&="
            place.mkdir(parents=True)
            shutil.copyfile(file, place / file.name)
    return folder


@pytest.fixture(scope="module")
def plain(bucket: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with plain GeoTIFFs only, some hundred."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "bucket").mkdir()
    local = read([os.fsencode(path) for path in keys(bucket).values()])
    chosen = [path for path, record in local.items() if record.reader == "tiff_header"]
    assert chosen
    for number in range(200):
        shutil.copyfile(chosen[number % len(chosen)], folder / "bucket" / f"{number}.tif")
    return folder


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's owner is used, and nothing beyond it asked."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "GS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def keys(folder: Path) -> dict[str, Path]:
    """Return the files of a bucket by key."""
    top = folder / "bucket"
    return {str(path.relative_to(top)): path for path in sorted(top.rglob("*")) if path.is_file()}


def anonymous(server: Server | str, **more: Any) -> Settings:
    """Return settings for a server or its address."""
    url = server if isinstance(server, str) else server.url
    access = Access(no_sign_request=True, endpoint_url=url, region="us-east-1")
    return Settings(access=access, **more)


def read(paths: list[bytes], settings: Settings | None = None) -> dict[str, Record]:
    async def collect() -> dict[str, Record]:
        return {
            record.filepath: record async for record in rastermeta_async.extract(paths, settings)
        }

    return asyncio.run(collect())


def read_bucket(folder: Path, settings: Settings, base: str = "s3://bucket/") -> dict[str, Record]:
    found = read([(base + key).encode() for key in keys(folder)], settings)
    return {name.removeprefix(base): record for name, record in found.items()}


def assert_as_from_disk(found: dict[str, Record], folder: Path) -> None:
    local = read([os.fsencode(path) for path in keys(folder).values()])
    assert found.keys() == keys(folder).keys()
    for key, path in keys(folder).items():
        ours, theirs = found[key], local[str(path)]
        differing = [
            name
            for name in Record._fields
            if name not in NOT_COMPARED
            and exact(getattr(ours, name)) != exact(getattr(theirs, name))
        ]
        assert (key, differing, ours.error_message if differing else None) == (key, [], None)


def extract_with_credentials(server: str, *arguments: str | Path) -> Any:
    environment: Any = {**CREDENTIALS, "AWS_ENDPOINT_URL": server}
    return command.run(["extract", *arguments], **environment)


def no_keys(server: Server) -> list[str]:
    """Return the options to read from a server without credentials."""
    return ["--no-sign-request", "--endpoint-url", server.url]


def json_rows(lines: bytes) -> list[dict[str, Any]]:
    return [command.from_json(line) for line in lines.splitlines()]


@contextmanager
def program(arguments: list[str], port: int, **environment: str) -> Iterator[None]:
    """Run a server until it is no longer needed."""
    process = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=os.environ | environment,
    )  # fmt: skip
    try:
        last = time.monotonic() + command.PATIENCE
        while True:
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    break
            assert process.poll() is None
            assert time.monotonic() < last
            time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    port = free_port()
    with program([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def s3(moto: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of an S3 server that holds one new bucket."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    reset = urllib.request.Request(f"{moto}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()
    client = boto3.client("s3", endpoint_url=moto)
    client.create_bucket(Bucket="bucket")
    return client


def test_records_are_as_from_disk_over_s3_without_credentials(bucket: Path) -> None:
    with serving(str(bucket)) as server:
        found = read_bucket(bucket, anonymous(server))
    assert_as_from_disk(found, bucket)
    assert {record.etag is None for record in found.values()} == {False}
    assert not any("authorization" in head.lower() for head in server.headers)


def test_records_are_as_from_disk_over_s3_with_credentials(bucket: Path, s3: Any) -> None:
    for key, path in keys(bucket).items():
        s3.upload_file(str(path), "bucket", key)
    assert_as_from_disk(read_bucket(bucket, Settings()), bucket)


def test_each_format_that_gdal_writes_is_read_as_from_disk(tmp_path: Path) -> None:
    every_format(tmp_path / "all")
    for file in sorted((tmp_path / "all").glob("*/a.*")):
        place = tmp_path / "bucket" / file.parent.name / file.suffix  # without the files beside it
        if file.is_file() and file.stat().st_size:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
    assert len(keys(tmp_path)) > 20
    with serving_apart(str(tmp_path)) as url:
        found = read_bucket(tmp_path, anonymous(url, timeout=20.0))
    only_local = [found.pop(key) for key in ("netCDF/.nc/a.nc", "PCRaster/.map/a.map")]
    for driver in ("netCDF/.nc", "PCRaster/.map"):
        shutil.rmtree(tmp_path / "bucket" / driver)
    assert {record.driver for record in found.values()} - {None} >= {"HFA", "JP2OpenJPEG", "NITF"}
    assert {record.error_type for record in only_local} == {"NotReadInStores"}
    assert_as_from_disk(found, tmp_path)


def test_netcdf_in_a_store_is_read_by_the_hdf5_driver_and_says_so(tmp_path: Path) -> None:
    place = tmp_path / "bucket"
    place.mkdir()
    source = write_raster(tmp_path / "a.tif")
    for name, kind in (("a.nc", "NC4"), ("b.nc", "NC"), ("c.nc", "NC2")):
        rasterio.shutil.copy(source, place / name, driver="netCDF", FORMAT=kind)
    shutil.copy(place / "a.nc", place / "A.NC4")
    with serving_apart(str(tmp_path)) as url:
        found = read_bucket(tmp_path, anonymous(url, timeout=20.0))
    classic = [found.pop(name) for name in ("b.nc", "c.nc")]
    assert {record.driver for record in found.values()} == {"HDF5Image"}
    assert {record.error_type for record in found.values()} == {"PartlyRead"}
    assert {"HDF5 driver" in (record.error_message or "") for record in found.values()} == {True}
    assert {record.error_type for record in classic} == {"NotReadInStores"}


def test_records_are_as_from_disk_over_http(bucket: Path) -> None:
    with serving(str(bucket)) as server:
        base = f"{server.url}/bucket/"
        found = read([(base + quote(key)).encode() for key in keys(bucket)])
    by_key = {key: found[base + quote(key)] for key in keys(bucket)}
    assert_as_from_disk(by_key, bucket)


def test_a_url_is_asked_for_as_it_was_given(tmp_path: Path) -> None:
    """A percent-encoded slash is no step: decoded, it may be another object."""
    with serving(str(tmp_path)) as server:
        read([f"{server.url}/bucket/a%2Fb.tif".encode()])
        assert {head.split()[1] for head in server.headers} == {"/bucket/a%2Fb.tif"}


needs_azurite = pytest.mark.skipif(
    not AZURITE, reason="azurite-blob is not on the PATH (npm install azurite)"
)


@pytest.fixture(scope="module")
def azure(bucket: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of an Azure server; its containers bucket and public hold the same."""
    assert AZURITE
    port = free_port()
    where = ["--location", str(tmp_path_factory.mktemp("azure")), "--blobPort", str(port)]
    with program([AZURITE, *where, "--silent", "--skipApiVersionCheck"], port):
        endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
        for container in ("bucket", "public"):
            make_container(endpoint, container)
            store = AzureStore(
                container, account_name=ACCOUNT, account_key=KEY, endpoint=endpoint,
                client_options={"allow_http": True},
            )  # fmt: skip
            for key, path in keys(bucket).items():
                obstore.put(store, key, path.read_bytes())
        yield endpoint


@pytest.mark.campaign
@needs_azurite
def test_records_are_as_from_disk_over_azure(
    bucket: Path, azure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={azure};"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", told)
    found = read_bucket(bucket, Settings(), "az://bucket/")
    everything = ["extract", "az://bucket/", "--strict", "-o", "-"]
    walked = command.run(everything, AZURE_STORAGE_CONNECTION_STRING=told)
    assert_as_from_disk(found, bucket)
    assert len(json_rows(walked.stdout)) == len(found)


def as_variables(name: str, endpoint: str) -> dict[str, str]:
    """Return the environment that a way to log in to Azure consists of."""
    account, sas = {"AZURE_STORAGE_ACCOUNT": ACCOUNT}, signature("bucket", "c")
    where = {"AZURE_STORAGE_ENDPOINT": endpoint}
    string = "AZURE_STORAGE_CONNECTION_STRING"
    return {
        "key": account | where | {"AZURE_STORAGE_KEY": KEY},
        "sas": account | where | {"AZURE_STORAGE_SAS_TOKEN": sas},
        "sas_alone": where | {"AZURE_STORAGE_SAS_TOKEN": f"?{sas}"},
        "sas_url": where | {"AZURE_STORAGE_SAS_TOKEN": f"{endpoint}/bucket?{sas}"},
        "key_string": {string: f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={endpoint}"},
        # As the portal makes it: without an account.
        "sas_string": {string: f"BlobEndpoint={endpoint}/;SharedAccessSignature={sas}"},
    }[name]


@needs_azurite
@pytest.mark.parametrize("way", ["key", "sas", "sas_alone", "sas_url", "key_string", "sas_string"])
def test_each_way_to_log_in_to_azure_is_gdals_too(
    bucket: Path, azure: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in as_variables(way, azure).items():
        monkeypatch.setenv(name, value)
    key = next(iter(keys(bucket)))
    for reader in ("auto", "rasterio"):
        (row,) = read([f"az://bucket/{key}".encode()], Settings(reader=reader)).values()
        assert (row.error_message, row.filepath) == (None, f"az://bucket/{key}")


@needs_azurite
@pytest.mark.parametrize("reader", ["auto", "rasterio"])
def test_public_containers_of_azure_need_nothing_but_an_endpoint(
    bucket: Path, azure: str, reader: str
) -> None:
    key = next(iter(keys(bucket)))
    settings = Settings(reader=reader, access=Access(no_sign_request=True, endpoint_url=azure))
    (row,) = read([f"az://public/{key}".encode()], settings).values()
    assert row.error_message is None


@needs_azurite
@pytest.mark.parametrize("reader", ["auto", "rasterio"])
def test_a_url_that_azure_has_signed_is_read_and_its_signature_kept_from_rows(
    bucket: Path, azure: str, reader: str
) -> None:
    key = next(iter(keys(bucket)))
    url = f"{azure}/bucket/{quote(key)}"
    sas = signature(f"bucket/{key}", "b")
    (row,) = read([f"{url}?{sas}".encode()], Settings(reader=reader)).values()
    assert (row.error_message, row.filepath) == (None, url)
    (refused,) = read([f"{url}?{sas}x".encode()], Settings(reader=reader)).values()
    assert (refused.error_type, refused.filepath) == ("AccessDenied", url)
    assert not any(part in repr((row, refused)) for part in sas.split("&"))


def test_an_endpoint_with_a_signature_says_where_that_belongs() -> None:
    access = Access(endpoint_url="https://me.blob.core.windows.net/?sv=2024&sig=hidden")
    (row,) = read([b"az://bucket/a.tif"], Settings(access=access)).values()
    assert "AZURE_STORAGE_SAS_TOKEN" in (row.error_message or "")
    assert "hidden" not in repr(row)


def test_azures_other_clouds_are_found_in_a_connection_string(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = f"AccountName=me;AccountKey={KEY};EndpointSuffix=core.chinacloudapi.cn"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", told)
    assert endpoint_of("az", Access()) == "https://me.blob.core.chinacloudapi.cn"


def signature(resource: str, kind: str) -> str:
    """Return a SAS as the portal makes it for a container (c) or a blob (b)."""
    start, end, version = "2024-01-01T00:00:00Z", "2099-01-01T00:00:00Z", "2021-08-06"
    resource = f"/blob/{ACCOUNT}/{resource}"
    to_sign = ["r", start, end, resource, "", "", "", version, kind, *[""] * 7]
    sig = quote(signed("\n".join(to_sign)), safe="")
    return f"sp=r&st={start}&se={end}&sv={version}&sr={kind}&sig={sig}"


def signed(text: str) -> str:
    """Sign as Azure does."""
    digest = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


def make_container(endpoint: str, name: str) -> None:
    """Create a container: obstore does not, so it is asked for with a signature of our own."""
    headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    if name == "public":
        headers = {"x-ms-blob-public-access": "blob", **headers}
    to_sign = ["PUT", *[""] * 11, *map(":".join, headers.items()),
               f"/{ACCOUNT}/{ACCOUNT}/{name}", "restype:container"]  # fmt: skip
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{signed(chr(10).join(to_sign))}"
    request = urllib.request.Request(
        f"{endpoint}/{name}?restype=container", method="PUT", headers=headers, data=b""
    )
    request.add_header("Content-Type", "")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 201


def test_a_plain_geotiff_costs_one_request(plain: Path) -> None:
    with serving(str(plain)) as server:
        found = read_bucket(plain, anonymous(server))
    assert {record.reader for record in found.values()} == {"tiff_header"}
    assert server.counts["GET"] == len(found)
    assert server.counts["HEAD"] == 0
    assert server.counts["bytes"] <= 32 * 1024 * len(found)


def test_a_jp2_costs_one_request(tmp_path: Path) -> None:
    """Each kind of header, once learned from the same bytes."""
    (tmp_path / "bucket").mkdir()
    for number in range(20):
        options = {"GMLJP2": "NO"} if number % 2 else {"GeoJP2": "NO"}
        path = write_jp2(tmp_path / "bucket" / f"{number}.jp2", width=20 + number, options=options)
        *others, pixels = tree(path.read_bytes())
        assert isinstance(pixels.content, bytes)
        longer = pixels._replace(content=pixels.content + bytes(100_000))
        path.write_bytes(assembled([*others, longer]))
    with serving(str(tmp_path)) as server:
        found = read_bucket(tmp_path, anonymous(server))
    assert_as_from_disk(found, tmp_path)
    assert {record.reader for record in found.values()} == {"jp2_header"}
    assert server.counts["GET"] == len(found)
    assert server.counts["HEAD"] == 0
    assert server.counts["bytes"] <= 32 * 1024 * len(found)


def test_gdal_is_kept_from_needless_requests(bucket: Path) -> None:
    key = next(key for key in keys(bucket) if key.endswith(".tif"))
    script = (
        "import rasterio, sys\nfrom rasterio.session import DummySession\n"
        "with rasterio.Env(session=DummySession()): rasterio.open(sys.argv[1]).close()"
    )
    counts = []
    for ours in (False, True):
        with serving(str(bucket)) as server:
            access = anonymous(server).access
            options = gdal_options(f"s3://bucket/{key}", access, 20)
            if not ours:
                options = {name: value for name, value in options.items() if name.startswith("AWS")}
            environment = {name: str(value) for name, value in options.items()}
            subprocess.run(
                [sys.executable, "-c", script, gdal_name(f"s3://bucket/{key}")],
                env=os.environ | environment, check=True,
            )  # fmt: skip
            counts.append(server.counts["GET"] + server.counts["HEAD"])
    bare, ours_sends = counts
    assert ours_sends <= 2 < bare


@pytest.mark.campaign
@pytest.mark.parametrize("fault", ["503", "429", "500", "reset", "short", "slow"])
def test_one_fault_in_ten_costs_no_row(plain: Path, fault: str) -> None:
    with serving(str(plain), fault=some(0.1, fault)) as server:
        settings = anonymous(server, timeout=15)
        found = read_bucket(plain, settings)
        assert server.counts[fault] > 5
    assert Counter(record.status for record in found.values() if not record.ok) == {}


@pytest.mark.campaign
@pytest.mark.parametrize("fault", ["503", "reset", "short"])
def test_faults_while_rasterio_reads_cost_no_row(bucket: Path, fault: str) -> None:
    with serving(str(bucket), fault=some(0.1, fault, seed=3)) as server:
        found = read_bucket(bucket, anonymous(server, reader="rasterio"))
    assert_as_from_disk(found, bucket)


@pytest.mark.campaign
def test_a_store_that_always_refuses_ends_in_rows_that_say_so(plain: Path) -> None:
    with serving(str(plain), fault=some(1, "503")) as server:
        began = time.monotonic()
        found = read_bucket(plain, anonymous(server, timeout=2))
        assert time.monotonic() - began < command.PATIENCE
    assert {record.error_type for record in found.values()} == {"Throttled"}
    assert all("HTTP 503" in (record.error_message or "") for record in found.values())


@pytest.mark.parametrize("name", ["a.tif", "a//b.tif"])
def test_an_endpoint_that_is_no_url_is_named(name: str) -> None:
    settings = Settings(access=Access(no_sign_request=True, endpoint_url="localhost:9000"))
    (row,) = read([f"s3://bucket/{name}".encode()], settings).values()
    assert row.error_type == "StoreError"
    assert "the endpoint localhost:9000 must begin with http" in (row.error_message or "")


def test_no_room_for_copies_is_a_row_that_says_so(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rasterio is asked about a copy of the first header of each kind."""
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with serving(str(plain)) as server:
        found = read([f"s3://bucket/{next(iter(keys(plain)))}".encode()], anonymous(server))
    (row,) = found.values()
    assert (row.status, row.error_type) == ("fatal", "StoreError")
    assert "into /nowhere" in (row.error_message or "")
    assert "TMPDIR" in (row.error_message or "")


class Refusing:
    """Stores that answer every request with the same error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def locate(self, _url: str) -> Any:
        return self

    def get(self, start: int, end: int) -> ObjectBytes:
        raise self._error


STATUS_503 = RuntimeError("Server returned error status code: 503")


def test_waits_between_tries_count_against_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one second 0.2 and 0.4 are waited; the next 0.8 would be too much."""
    waits: list[float] = []
    monkeypatch.setattr(Fetcher, "wait", lambda _, seconds: waits.append(seconds))
    monkeypatch.setattr(random, "uniform", lambda _least, most: most)
    fetcher = Fetcher(Refusing(STATUS_503), timeout=1.0)  # type: ignore[arg-type]  # as far as it is used
    with pytest.raises(FetchError) as failed:
        fetcher.open("https://h/a.tif")
    assert waits == [0.2, 0.4]
    assert failed.value.tries == 3


@pytest.mark.parametrize(
    ("error", "slower"),
    [
        (STATUS_503, True),
        (RuntimeError("Server returned error status code: 429"), True),
        (RuntimeError("Server returned error status code: 500"), True),
        (RuntimeError("operation timed out"), True),
        (RuntimeError("Server returned error status code: 403"), False),
        (FileNotFoundError("Object at location a.tif not found"), False),
    ],
)
def test_a_store_that_has_too_much_to_do_is_asked_less(error: Exception, slower: bool) -> None:
    noted: list[bool] = []
    fetcher = Fetcher(Refusing(error), 0.01, lambda: noted.append(True))  # type: ignore[arg-type]  # as far as it is used
    with pytest.raises(FetchError):
        fetcher.open("https://h/a.tif")
    assert any(noted) == slower


def test_all_requests_for_an_object_share_its_time() -> None:
    class Slow:
        def locate(self, _url: str) -> Any:
            return self

        def get(self, start: int, end: int) -> ObjectBytes:
            time.sleep(0.06)
            return ObjectBytes(b"", 100_000, None, None)

    found = Fetcher(Slow(), timeout=0.1).open("https://h/a.tif")  # type: ignore[arg-type]  # as far as it is used
    found.read_at(50_000, 10)
    with pytest.raises(FetchError, match=r"more than 0\.1 s"):
        found.read_at(60_000, 10)


def test_a_run_that_can_read_nothing_stops(plain: Path) -> None:
    with serving(str(plain), fault=some(1, "403")) as server:
        with pytest.raises(StoreError, match="none of the first 100 objects can be read"):
            read_bucket(plain, anonymous(server))
        found = read_bucket(plain, anonymous(server, keep_going=True))
    assert len(found) == len(keys(plain))


def test_a_redirect_is_followed(plain: Path) -> None:
    with serving(
        str(plain), fault=lambda _path, before: "redirect" if not before else None
    ) as server:
        (record,) = read([f"{server.url}/bucket/1.tif".encode()]).values()
    assert record.ok


def test_what_cannot_be_reached_says_why() -> None:
    settings = Settings(timeout=3, access=Access(no_sign_request=True))
    found = read([b"http://127.0.0.1:9/a.tif", b"https://nowhere.invalid/a.tif"], settings)
    assert [(record.status, record.error_type) for record in found.values()] in (
        [("fatal", "Connection"), ("fatal", "NameResolution")],
        [("fatal", "NameResolution"), ("fatal", "Connection")],
    )


def test_signatures_reach_no_row_log_or_message(plain: Path, tmp_path: Path) -> None:
    secret = "hidden-signature"
    with serving(str(plain)) as server:
        paths = [
            f"{server.url}/bucket/{name}?v=1&X-Amz-Signature={secret}{number}"
            for number, name in enumerate(["1.tif", "1.tif", "none.tif"])
        ]
        output = tmp_path / "catalog.parquet"
        listing = "\n".join(paths).encode()
        result = command.run(["extract", "-v", "-o", output], stdin=listing)
    assert result.returncode == 3
    rows = {row["filepath"]: row["status"] for row in pq.read_table(output).to_pylist()}
    assert rows == {f"{server.url}/bucket/1.tif?v=1": "success",
                    f"{server.url}/bucket/none.tif?v=1": "error"} or rows == {
        f"{server.url}/bucket/1.tif?v=1": "no_georef",
        f"{server.url}/bucket/none.tif?v=1": "error"}  # fmt: skip
    everything = result.stdout + result.stderr + output.read_bytes()
    everything += (tmp_path / "catalog.parquet.checkpoint").read_bytes()
    assert secret.encode() not in everything


@pytest.mark.campaign
def test_a_prefix_is_walked_page_by_page(plain: Path, s3: Any, moto: str) -> None:
    content = keys(plain)["1.tif"].read_bytes()
    for number in range(1005):  # few are read: this server takes its time
        ending = "xml" if 20 < number < 1000 else "TIF"
        s3.put_object(Bucket="bucket", Key=f"scenes/{number:04d}.{ending}", Body=content)
    s3.put_object(Bucket="bucket", Key="other/1.tif", Body=content)
    result = extract_with_credentials(
        moto, "s3://bucket/scenes/", "--suffix", ".tif", "-o", "-", "--requester-pays"
    )
    assert result.returncode == 0, result.stderr
    rows = json_rows(result.stdout)
    taken = [*range(21), *range(1000, 1005)]
    assert sorted(row["filepath"] for row in rows) == [
        f"s3://bucket/scenes/{n:04d}.TIF" for n in taken
    ]
    facts = {(row["file_size"], row["etag"] is None, row["mtime"] is None) for row in rows}
    assert facts == {(len(content), False, False)}


@pytest.fixture
def stores(s3: Any, tmp_path: Path) -> dict[str, Path]:
    """Zarr stores below a prefix, and a GeoTIFF inside one that is no ``.zarr``; by their URLs."""
    made = {
        "p/a.zarr": write_zarr(tmp_path / "a.zarr", count=3),
        "p/b.zarr": write_zarr(tmp_path / "b.zarr", "ZARR_V3"),
        "p/deep/v2": write_zarr(tmp_path / "v2"),
        "p/deep/v2/plain.tif": write_raster(tmp_path / "v2" / "plain.tif"),
    }
    for store in ("p/a.zarr", "p/b.zarr", "p/deep/v2"):
        for path in made[store].rglob("*"):
            if path.is_file():
                key = f"{store}/{path.relative_to(made[store])}"
                s3.upload_file(str(path), "bucket", key)
    made["p/deep/v2/plain.tif"].unlink()  # a walk of the disk would not take the store for one
    return {f"s3://bucket/{key}": path for key, path in made.items()}


def test_of_a_prefix_a_zarr_store_is_one_input_as_from_disk(
    stores: dict[str, Path], moto: str, tmp_path: Path
) -> None:
    catalog = tmp_path / "catalog.parquet"
    command_line: list[str | Path] = ["s3://bucket/p/", "-o", catalog, "--subdatasets"]
    result = extract_with_credentials(moto, *command_line)
    assert result.returncode == 0, result.stderr
    assert b"4 files read" in result.stderr  # no object inside was asked for
    rows = records_of(batches_of(str(catalog), SCHEMA.names))
    assert [row.filepath for row in rows] == sorted(stores)
    for row in rows:
        if row.driver == "Zarr":
            assert row.file_size is None
            assert row.mtime is not None
            local = read_record(stores[row.filepath])
            given = ("filepath", "filepath_bytes", "mtime")
            expected = local._replace(**{name: getattr(row, name) for name in given})
            assert exact(row) == exact(expected)
    again = extract_with_credentials(moto, *command_line, "--update")
    assert b"3 files read" in again.stderr  # nothing tells whether a store has changed


@pytest.mark.parametrize("given", ["s3://bucket/p/a.zarr", "s3://bucket/p/a.zarr/"])
def test_a_zarr_store_in_a_bucket_that_is_named_is_one_input(
    given: str, stores: dict[str, Path], moto: str
) -> None:
    result = extract_with_credentials(moto, given, "-o", "-")
    (row,) = json_rows(result.stdout)
    assert (row["filepath"], row["driver"], row["count"]) == ("s3://bucket/p/a.zarr", "Zarr", 3)


def test_an_object_without_an_ending_takes_one_request(plain: Path) -> None:
    content = keys(plain)["1.tif"].read_bytes()
    (plain / "bucket" / "scene").write_bytes(content)
    with serving(str(plain)) as server:
        (row,) = read([b"s3://bucket/scene"], anonymous(server)).values()
        assert (row.driver, server.counts["GET"]) == ("GTiff", 1)
    (plain / "bucket" / "scene").unlink()


def test_where_no_zarr_store_is_the_store_says_so(s3: Any, moto: str) -> None:
    result = extract_with_credentials(moto, "s3://bucket/none.zarr", "s3://bucket/none", "-o", "-")
    rows = json_rows(result.stdout)
    assert [row["error_type"] for row in rows] == ["NotFound"] * 2


def test_what_stands_for_a_folder_is_no_object_and_all_else_is(s3: Any) -> None:
    """Consoles make empty objects without an ending so that there seems to be a folder."""
    objects = {"p/a.TIF": b"x", "p/empty.tif": b"", "p/folder": b"", "p/README": b"x"}
    for key, content in objects.items():
        s3.put_object(Bucket="bucket", Key=key, Body=content)

    async def listed(*suffixes: str) -> list[tuple[bytes, int]]:
        pages = Stores(Access()).walk("s3://bucket/p/", suffixes)
        return [
            (bytes(one), one.size)
            async for page in pages
            for one in page
            if isinstance(one, Listed)
        ]

    everything = [(b"s3://bucket/p/README", 1), (b"s3://bucket/p/a.TIF", 1),
                  (b"s3://bucket/p/empty.tif", 0)]  # fmt: skip
    assert asyncio.run(listed()) == everything
    assert asyncio.run(listed(".tif")) == everything[1:]


def test_who_asks_pays_where_told_so(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with serving(str(plain)) as server:
        access = Access(endpoint_url=server.url, requester_pays=True)
        assert read([b"s3://bucket/1.tif"], Settings(access=access))["s3://bucket/1.tif"].ok
    assert "x-amz-request-payer: requester" in server.headers[0].lower()


def test_a_bucket_that_is_not_there_is_an_error_of_the_run(moto: str) -> None:
    result = extract_with_credentials(moto, "s3://no-such-bucket/", "-o", "-")
    assert result.returncode == 1
    assert b"s3://no-such-bucket/: cannot be listed: HTTP 404 NoSuchBucket" in result.stderr


def test_a_catalog_is_uploaded_when_it_is_finished(
    plain: Path, s3: Any, moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = keys(plain)["1.tif"]
    result = extract_with_credentials(moto, path, "-o", "s3://bucket/catalogs/c.parquet")
    assert result.returncode == 0, result.stderr
    there = s3.get_object(Bucket="bucket", Key="catalogs/c.parquet")["Body"].read()
    assert there == (tmp_path / "c.parquet").read_bytes()


def more_than(rows: int, output: Path) -> Callable[[], bool]:
    return lambda: command.committed(output) > rows


@pytest.mark.campaign
def test_killed_and_run_again_each_object_is_read_once(plain: Path, tmp_path: Path) -> None:
    with serving(str(plain), delay=0.05) as server:
        output = tmp_path / "catalog.parquet"
        options = ["--batch-size", "20", "--workers", "1", "--concurrency", "4"]
        arguments = ["extract", "s3://bucket/", "-o", str(output), *options, *no_keys(server)]
        kept = 0
        for _ in range(3):
            with command.running(*arguments):
                command.wait_until(more_than(kept, output))
            kept = command.committed(output)
        assert kept < len(keys(plain))
        asked = server.counts["GET"] - server.counts["listing"]
        assert command.run(arguments).returncode == 0
        rest = server.counts["GET"] - server.counts["listing"] - asked
    assert rest <= len(keys(plain)) - kept
    paths = pq.read_table(output, columns=["filepath"])["filepath"].to_pylist()
    assert sorted(paths) == sorted(f"s3://bucket/{key}" for key in keys(plain))


@pytest.mark.campaign
def test_workers_read_stores_too(plain: Path, tmp_path: Path) -> None:
    with serving(str(plain), delay=0.01) as server:
        listing = "\n".join(f"s3://bucket/{key}" for key in keys(plain)).encode()
        output = tmp_path / "catalog.ndjson"
        result = command.run(
            ["extract", "-o", output, "--workers", "2", "--no-sign-request", "--endpoint-url",
             server.url], stdin=listing,
        )  # fmt: skip
        assert server.most_at_once > 4
    assert result.returncode == 0, result.stderr
    assert len(json_rows(output.read_bytes())) == len(keys(plain))


def header_at_the_end(width: int) -> bytes:
    """Return a TIFF whose directory comes last."""
    entries = [(256, 3, 1, width), (257, 3, 1, width), (258, 3, 1, 8), (259, 3, 1, 1),
               (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, width),
               (279, 4, 1, width * width)]  # fmt: skip
    ifd = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", *entry) for entry in entries
    ) + struct.pack("<I", 0)  # fmt: skip
    return b"II*\0" + struct.pack("<I", 100_000) + bytes(100_000 - 8) + ifd


def test_a_header_at_the_end_of_an_object_costs_one_more_request(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    for number in range(3):
        (tmp_path / "bucket" / f"{number}.tif").write_bytes(header_at_the_end(64))
    with serving(str(tmp_path)) as server:
        found = read_bucket(tmp_path, anonymous(server))
        assert server.counts["GET"] == 2 * len(found)
    assert {record.reader for record in found.values()} == {"tiff_header"}
    assert_as_from_disk(found, tmp_path)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("reader", ["auto", "rasterio"])
def test_an_object_is_tiled_and_a_cog_as_the_file_is(tmp_path: Path, reader: Any) -> None:
    """Also where blocks as wide as the image do not tell whether they are tiles."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    for side in (256, 700):
        strips = {"width": side, "height": side, "count": 1, "dtype": "uint8"}
        tiles = strips | {"tiled": True, "blockxsize": 256, "blockysize": 256}
        for name, profile in (("strips", strips), ("tiles", tiles)):
            with rasterio.open(folder / f"{name}-{side}.tif", "w", **profile) as dataset:
                dataset.write(np.ones((1, side, side), np.uint8))
            with rasterio.open(
                folder / f"{name}-{side}-late.tif", "w", compress="deflate", **profile
            ) as dataset:
                dataset.write(np.ones((1, side, side), np.uint8))
                dataset.update_tags(A="b" * 50)
        rasterio.shutil.copy(
            folder / f"tiles-{side}.tif", folder / f"cog-{side}.tif", driver="COG", blocksize=256
        )
    with serving(str(tmp_path)) as server:
        found = read_bucket(tmp_path, anonymous(server, reader=reader))
    assert_as_from_disk(found, tmp_path)
    assert {key: record.tiled for key, record in found.items()} == {
        key: not key.startswith("strips") for key in found
    }
    assert all(record.cog for key, record in found.items() if key.startswith("cog"))


@pytest.mark.campaign
def test_commands_of_the_readme_run(
    plain: Path, s3: Any, moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_readme import blocks

    monkeypatch.chdir(tmp_path)
    for key, path in list(keys(plain).items())[:5]:
        s3.upload_file(str(path), "bucket", f"scenes/a {key}")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "aws").write_text(  # as the real one prints it
        '#!/bin/sh\nfor n in 0 1 10; do echo "2026-01-02 03:04:05  1234 scenes/a $n.tif"; done\n'
    )
    (programs / "aws").chmod(0o755)
    environment: Any = {**CREDENTIALS, "AWS_ENDPOINT_URL": moto}
    environment["PATH"] = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    commands = [text for mark, text in blocks("sh") if mark == "store"]
    for line in "".join(commands).splitlines():
        done = command.run([line], command=["bash", "-c"], **environment)
        assert done.returncode == 0, done.stderr
    listed = pq.read_table("listed.parquet").to_pylist()
    assert [(row["filepath"], row["error_type"]) for row in listed] == [
        (f"s3://bucket/scenes/a {name}.tif", None) for name in ("0", "1", "10")
    ]
    there = s3.get_object(Bucket="bucket", Key="catalogs/uploaded.parquet")["Body"].read()
    assert there == Path("uploaded.parquet").read_bytes()


@pytest.mark.campaign
@pytest.mark.parametrize("workers", ["0", "1"])
def test_without_the_extra_a_message_says_what_to_install(tmp_path: Path, workers: str) -> None:
    (tmp_path / "obstore").mkdir()
    (tmp_path / "obstore" / "__init__.py").write_text("raise ImportError")
    for arguments, given in ((["s3://bucket/"], b""), ([], b"s3://bucket/a.tif")):
        done = command.run(
            ["extract", *arguments, "-o", "-", "--workers", workers],
            given, PYTHONPATH=str(tmp_path),
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"pip install '.[cloud]'" in done.stderr


@pytest.mark.parametrize("workers", [0, 1])
def test_local_files_need_no_store(plain: Path, workers: int) -> None:
    path = next(iter(keys(plain).values()))
    script = (
        "import asyncio, sys, rastermeta_async as r\n"
        f"async def go(): return [x async for x in r.extract([{str(path)!r}], "
        f"r.Settings(workers={workers}))]\n"
        "assert asyncio.run(go())[0].ok\n"
        "print('obstore' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b"False\n"


# What stands in the way.


@pytest.mark.parametrize(
    ("fault", "kind", "status"),
    [("301", "WrongRegion", "3xx"), ("400", "ExpiredToken", "400"), ("401", "AccessDenied", "401"),
     ("403", "AccessDenied", "403"), ("404", "NotFound", "404")],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_what_will_not_change_is_asked_for_once(
    plain: Path, fault: str, kind: str, status: str, scheme: str
) -> None:
    with serving(str(plain), fault=some(1, fault)) as server:
        url = "s3://bucket/1.tif" if scheme == "s3" else f"{server.url}/bucket/1.tif"
        (record,) = read([url.encode()], anonymous(server)).values()
        assert server.counts["GET"] == 1
    assert (record.filepath, record.error_type) == (url, kind)
    assert (record.error_message or "").startswith(f"HTTP {status}")


def test_gdal_is_refused_once(bucket: Path) -> None:
    key = next(key for key in keys(bucket) if key.endswith(".txt"))
    with serving(str(bucket), fault=lambda _path, before: "404" if before else None) as server:
        (record,) = read([f"{server.url}/bucket/{quote(key)}".encode()]).values()
        assert server.counts["GET"] <= 1 + 2
    assert "404" in (record.error_message or "")


REFUSALS = ("403", "404", "416", "429", "500", "503", "reset", "short", "slow")


@pytest.mark.campaign
@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_what_gdal_meets_is_said_as_the_decoder_says_it(tmp_path: Path, scheme: str) -> None:
    """The first bytes arrive; what either reader asks for after them is refused for ever."""
    (tmp_path / "bucket").mkdir()
    for name in REFUSALS:
        (tmp_path / "bucket" / f"{name}.tif").write_bytes(header_at_the_end(64))

    def refused(path: str, before: int) -> str | None:
        return Path(path).stem if before and path.endswith(".tif") else None

    said = []
    for reader in ("auto", "rasterio"):
        with serving(str(tmp_path), fault=refused) as server:
            base = "s3://bucket/" if scheme == "s3" else f"{server.url}/bucket/"
            settings = anonymous(server, reader=reader, timeout=3)
            began = time.monotonic()
            rows = read_bucket(tmp_path, settings, base)
            assert time.monotonic() - began < 3 + 5
            assert {name: server.counts[name] for name in REFUSALS if server.counts[name] > 8} == {}
        said.append({
            name: (row.status, row.error_type, (row.error_message or "").partition(" (tried")[0])
            for name, row in rows.items()
        })  # fmt: skip
    by_decoder, by_gdal = said
    assert by_gdal == by_decoder
    statuses = [name for name in REFUSALS if name.isdigit()]
    assert [name for name in statuses if f"HTTP {name}" not in by_gdal[f"{name}.tif"][2]] == []


def test_a_certificate_that_nobody_knows_is_said_so(plain: Path, tmp_path: Path) -> None:
    with serving(str(plain), certificate=certificate(tmp_path)) as server:
        (record,) = read([f"{server.url}/bucket/1.tif".encode()]).values()
    said = "the server's certificate is not trusted"
    assert (record.error_type, record.error_message) == ("TLS", said)


def certificate(folder: Path) -> Path:
    """Return a file with a key and a certificate that it signed itself."""
    file = folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj",
         "/CN=127.0.0.1", "-keyout", file, "-out", folder / "only.pem"],
        check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    file.write_bytes(file.read_bytes() + (folder / "only.pem").read_bytes())
    return file


@pytest.mark.campaign
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_run_that_can_read_nothing_stops_with_a_message(
    plain: Path, tmp_path: Path, workers: str
) -> None:
    with serving(str(plain), fault=some(1, "403")) as server:
        common = ["extract", "s3://bucket/", *no_keys(server), "--workers", workers]
        arguments: list[Any] = [*common, "--concurrency", "8", "-o", tmp_path / "c.ndjson"]
        server.fault = lambda path, _before: "403" if path.count("/") > 1 else None
        done = command.run(arguments)
        assert done.returncode == 1
        assert b"none of the first 100 objects can be read, e.g. s3://bucket/" in done.stderr
        assert b"--keep-going" in done.stderr
        assert command.run([*arguments, "--keep-going"]).returncode == 3
    rows = json_rows((tmp_path / "c.ndjson").read_bytes())
    assert [row["error_type"] for row in rows] == ["AccessDenied"] * len(keys(plain))


def test_a_bad_bucket_among_good_ones_costs_its_own_rows(plain: Path) -> None:
    with serving(
        str(plain), fault=lambda path, _before: "403" if path.startswith("/bad/") else None
    ) as server:
        paths = [f"s3://{name}/{n}.tif" for n in range(150) for name in ("bad", "bucket")]
        paths += ["az://bucket/1.tif", "s3:///1.tif", "gs://bucket/1.tif"]
        found = read([path.encode() for path in paths], anonymous(server))
    failed = Counter(r.error_type for r in found.values() if not r.ok)
    assert failed == {"AccessDenied": 150, "StoreError": 2}


@pytest.mark.campaign
def test_a_store_that_says_when_to_come_back_is_left_alone_until_then(plain: Path) -> None:
    until = time.monotonic() + 3
    with serving(
        str(plain), fault=lambda _path, _before: "429" if time.monotonic() < until else None
    ) as server:
        found = read_bucket(plain, anonymous(server))
        assert server.counts["429"] < 8 * len(found)
    assert [record.error_message for record in found.values() if not record.ok] == []


@pytest.mark.campaign
def test_waiting_for_its_turn_costs_an_object_no_try(plain: Path) -> None:
    with serving(
        str(plain), delay=0.1, fault=lambda _path, before: None if before else "503"
    ) as server:
        paths = [f"s3://bucket/{number}.tif".encode() for number in range(60)]
        found = read(paths, anonymous(server, concurrency=4, timeout=1.0))
        assert server.most_at_once <= 4
    assert [record.error_message for record in found.values() if not record.ok] == []


def test_where_it_is_stopped_no_request_is_sent_that_waits_for_its_turn(plain: Path) -> None:
    paths = [f"s3://bucket/{number}.tif".encode() for number in range(60)]

    async def stopped(server: Server) -> int:
        settings = anonymous(server, concurrency=4)
        reader = make_reader(None, settings.access)
        async with HeaderPool(reader, reader, settings) as pool:

            async def rows() -> int:
                return sum([batch.num_rows async for batch in pool.read(paths)])

            reading = asyncio.create_task(rows())
            while server.counts["GET"] < 4:
                await asyncio.sleep(0.01)
            pool.stop()
            return await reading

    with serving(str(plain), delay=0.5) as server:
        assert asyncio.run(stopped(server)) == 4
        assert server.counts["GET"] == 4


@pytest.mark.parametrize("reader", ["auto", "rasterio"])
def test_concurrency_is_the_ceiling(bucket: Path, reader: str) -> None:
    with serving(str(bucket), delay=0.02) as server:
        read_bucket(bucket, anonymous(server, reader=reader, concurrency=3))
        assert server.most_at_once == 3


def test_an_empty_object_says_so(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / "empty.tif").touch()
    with serving(str(tmp_path)) as server:
        found = read_bucket(tmp_path, anonymous(server))
    assert_as_from_disk(found, tmp_path)
    assert found["empty.tif"].error_message == "the object is empty"


def test_an_object_that_is_replaced_meanwhile_is_read_anew(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    path = tmp_path / "bucket" / "1.tif"
    path.write_bytes(header_at_the_end(64))

    def replace(_path: str, before: int) -> None:
        if before == 1:
            path.write_bytes(header_at_the_end(32))

    with serving(str(tmp_path), fault=replace) as server:
        found = read_bucket(tmp_path, anonymous(server))
    assert found["1.tif"].width == 32
    assert_as_from_disk(found, tmp_path)


def test_an_object_that_is_replaced_by_one_of_equal_size_is_no_mixture(tmp_path: Path) -> None:
    """Where one has its directory, the other has one that nothing leads to."""
    (tmp_path / "bucket").mkdir()
    path = tmp_path / "bucket" / "1.tif"
    little, big = header_at_the_end(64), bytearray(header_at_the_end(48))
    big[4:8] = struct.pack("<I", 50_000)
    big[50_000:] = header_at_the_end(32)[100_000:] + big[50_000 + len(big) - 100_000 :]
    assert len(big) == len(little)
    path.write_bytes(little)

    def replace(_path: str, before: int) -> None:
        if before == 1:
            path.write_bytes(big)

    with serving(str(tmp_path), fault=replace) as server:
        found = read_bucket(tmp_path, anonymous(server))
    assert_as_from_disk(found, tmp_path)


def test_a_server_without_ranges_is_said_so(plain: Path) -> None:
    with serving(str(plain)) as server:
        server.ranges = False
        (record,) = read([f"{server.url}/bucket/1.tif".encode()]).values()
    assert (record.error_type, record.status) == ("NoRanges", "fatal")


def test_no_signature_is_in_the_names_of_subdatasets(tmp_path: Path) -> None:
    pages = tmp_path / "bucket" / "pages.tif"
    pages.parent.mkdir()
    for options in ({}, {"APPEND_SUBDATASET": "YES"}):
        command.write_raster(pages, **options)
    with serving(str(tmp_path)) as server:
        url = f"{server.url}/bucket/pages.tif?v=1"
        (record,) = read([f"{url}&X-Amz-Signature=hidden".encode()]).values()
    assert record.filepath == url
    assert record.subdatasets == [f"GTIFF_DIR:{page}:/vsicurl/{url}" for page in (1, 2)]


@pytest.mark.parametrize("fault", ["503", "reset"])
def test_no_signature_is_in_what_gdal_says(
    bucket: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    key = next(key for key in keys(bucket) if key.endswith(".txt"))
    with serving(str(bucket), fault=lambda _path, before: fault if before else None) as server:
        url = f"{server.url}/bucket/{quote(key)}?v=1&X-Amz-Signature=hidden"
        (record,) = read([url.encode()], Settings(timeout=3)).values()
    assert not record.ok
    assert caplog.text
    assert "hidden" not in caplog.text + repr(record)


def test_an_output_with_a_signature_is_refused_without_it() -> None:
    done = command.run(["extract", "a.tif", "-o", "https://h/c.parquet?X-Amz-Signature=hidden"])
    assert done.returncode == 2
    assert b"https://h/c.parquet: a catalog can be uploaded to" in done.stderr
    assert b"hidden" not in done.stderr


# Keys, sidecars, other clouds.


@pytest.mark.campaign
@pytest.mark.parametrize("reader", ["auto", "rasterio"])
def test_keys_that_are_no_paths_are_read_and_listed(
    plain: Path, s3: Any, moto: str, reader: str
) -> None:
    file = keys(plain)["1.tif"]
    odd = ["p/./a.tif", "p//b.tif", "p/c/../d.tif", "p/e/", "p/e/f.tif", "p/g.tif", "p/h", "p/z/"]
    for key in odd:
        s3.put_object(Bucket="bucket", Key=key, Body=b"" if key == "p/e/" else file.read_bytes())
    done = extract_with_credentials(moto, "s3://bucket/p/", "-o", "-", "--reader", reader)
    rows = {row.pop("filepath"): row for row in json_rows(done.stdout)}
    assert rows.keys() == {f"s3://bucket/{key}" for key in odd if key != "p/e/"}
    local = command.run(["extract", file, "-o", "-", "--reader", reader])
    (expected,) = json_rows(local.stdout)
    dots = ("p/./a.tif", "p/c/../d.tif") if reader == "auto" else ()  # curl leaves them out
    for key in ("p//b.tif", "p/h", *dots):
        found = rows[f"s3://bucket/{key}"]
        assert [n for n in found if n not in NOT_COMPARED and found[n] != expected[n]] == [], key
        assert found["etag"]


@pytest.mark.campaign
@pytest.mark.parametrize("reader", ["auto", "rasterio"])
def test_any_key_is_read_whether_listed_or_piped_in(
    plain: Path, tmp_path: Path, reader: str
) -> None:
    (tmp_path / "bucket").mkdir()
    for name in ("new\nline", "tab\t", "one\x01", "del\x7f", "return\r", "a%41", "a%", "a+b", "a#b",
                 "a?b", " led", "back\\slash", "quote\"'", "<&amp;>", "\u00a0", "ä"):  # fmt: skip
        shutil.copyfile(keys(plain)["1.tif"], tmp_path / "bucket" / f"{name}.tif")
    shutil.copyfile(keys(plain)["1.tif"], tmp_path / "bucket" / "trailing.tif ")
    with serving(str(tmp_path)) as server:
        piped = read_bucket(tmp_path, anonymous(server, reader=reader))
        everything = ["extract", "s3://bucket/", "-o", "-", "--reader", reader]
        listed = command.run([*everything, *no_keys(server)])
    assert_as_from_disk(piped, tmp_path)
    rows = {row["filepath"]: row["error_message"] for row in json_rows(listed.stdout)}
    assert rows == {f"s3://bucket/{key}": None for key in keys(tmp_path)}


def test_a_key_that_cannot_be_read_in_a_cloud_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    found = read([b"gs://bucket/a\tb.tif", b"gs://bucket/a//b.tif"])
    assert len(found) == 2
    assert all("is read in s3:// only" in (row.error_message or "") for row in found.values())


@pytest.mark.parametrize("reader", ["auto", "rasterio"])
@pytest.mark.parametrize("query", ["", "?v=1 2&X-Amz-Signature=hidden"])
def test_a_url_is_asked_for_as_it_is_meant_and_kept_as_it_is_given(
    plain: Path, tmp_path: Path, query: str, reader: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    names = {"a b": b"a b", "b%20b": b"b b", "a+b": b"a+b", "ä": "ä".encode(), "a%25b": b"a%b",
             "100%": b"100%", "a%zz": b"a%zz", "a%ff": b"a\xff", "b%0Ab": b"b\nb", "a\nb": b"a\nb",
             "a\tb": b"a\tb", "a\x01b": b"a\x01b", "a%23b": b"a#b", "a\\b": b"a\\b",
             'a"b': b'a"b', "<a>": b"<a>", "[a]{b}": b"[a]{b}", " a": b" a"}  # fmt: skip
    (tmp_path / "c d").mkdir()
    for name in names.values():
        content = keys(plain)["1.tif"].read_bytes()
        (tmp_path / "c d" / os.fsdecode(name + b".tif")).write_bytes(content)
    with serving(str(tmp_path)) as server:
        urls = [f"{server.url}/c d/{name}.tif" for name in names]
        missing = f"{server.url}/c d/none here.tif"
        given = [f"{url}{query}".encode() for url in (*urls, missing)]
        found = read(given, Settings(reader=reader))
    kept = query.partition("&")[0]
    assert found.pop(missing + kept).error_type == "NotFound"
    assert {path: row.error_message for path, row in found.items()} == {
        url + kept: None for url in urls
    }
    leaks = [line for line in (repr(found), *caplog.messages) if "hidden" in line]
    assert leaks == []


def test_an_empty_page_in_a_listing_of_odd_keys_is_not_its_end(
    monkeypatch: pytest.MonkeyPatch, s3: Any
) -> None:
    s3.put_object(Bucket="bucket", Key="p//odd.tif", Body=b"some")
    pages = [[Key("p//odd.tif", 4, None)], [], [Key("p/later.tif", 4, None)]]
    monkeypatch.setattr(S3Bucket, "pages", lambda *_: iter(pages))

    async def walk() -> list[bytes]:
        return [url async for page in Stores(Access()).walk("s3://bucket/p/") for url in page]

    assert asyncio.run(walk()) == [b"s3://bucket/p//odd.tif", b"s3://bucket/p/later.tif"]


def test_sidecars_are_looked_for_when_asked(plain: Path, s3: Any) -> None:
    # Not the server in this process: rasterio asks for a sidecar while it holds Python's lock.
    sidecar = '<PAMDataset><Metadata><MDI key="seen">yes</MDI></Metadata></PAMDataset>'
    s3.upload_file(str(keys(plain)["1.tif"]), "bucket", "1.tif")
    s3.put_object(Bucket="bucket", Key="1.tif.aux.xml", Body=sidecar.encode())
    tags = []
    for sidecars in (False, True):
        settings = Settings(access=Access(sidecars=sidecars))
        (record,) = read([b"s3://bucket/1.tif"], settings).values()
        tags.append((record.dataset_tags or {}).get("seen"))
    assert tags == [None, "yes"]


def test_records_are_as_from_disk_over_gs(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(str(bucket)) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        found = read_bucket(bucket, Settings(), "gs://bucket/")
    assert_as_from_disk(found, bucket)


def test_each_cloud_has_an_endpoint_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", "http://azure.example")
    assert "AWS_S3_ENDPOINT" not in gdal_options("s3://bucket/a.tif", Access(), 20)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.example:9000/")
    options = gdal_options("s3://bucket/a.tif", Access(), 20)
    assert (options["AWS_S3_ENDPOINT"], options["AWS_HTTPS"]) == ("s3.example:9000", "YES")


def test_gdal_gets_the_credentials_of_a_profile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "credentials").write_text(
        "[mine]\naws_access_key_id = A\naws_secret_access_key = B\naws_session_token = C\n"
        "region = eu-north-1\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    options = gdal_options("s3://bucket/a.tif", Access(profile="mine"), 20)
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION")
    assert [options[name] for name in names] == ["A", "B", "C", "eu-north-1"]


# Listings.


@pytest.mark.campaign
def test_an_unchanged_prefix_costs_its_listing_only(plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain / "bucket", tmp_path / "bucket")
    files = sorted((tmp_path / "bucket").iterdir())
    for number in range(850):
        os.link(files[0], tmp_path / "bucket" / f"more-{number:03d}.tif")
    output = tmp_path / "catalog.parquet"

    def update(status: int = 0) -> tuple[int, int]:
        with serving(str(tmp_path)) as server:
            arguments: list[Any] = [
                "extract",
                "s3://bucket/",
                "-o",
                output,
                "--update",
                *no_keys(server),
            ]
            done = command.run(arguments)
            assert done.returncode == status, done.stderr
            assert b"no file could be read" not in done.stderr
            assert server.counts["HEAD"] == 0
            listings = server.counts["listing"]
            return listings, server.counts["GET"] - listings

    assert update() == (2, 1050)
    assert update() == (2, 0)
    shutil.copyfile(files[1], files[2])
    shutil.copyfile(files[1], tmp_path / "bucket" / "new.tif")
    assert update() == (2, 2)
    assert len(pq.read_table(output)) == 1051
    (tmp_path / "bucket" / "empty.tif").touch()
    assert update(3) == (2, 1)
    assert update(3) == (2, 0)
    shutil.copyfile(files[1], tmp_path / "bucket" / "empty.tif")
    assert update() == (2, 1)


@pytest.mark.campaign
@pytest.mark.parametrize("fault", ["503", "reset"])
def test_a_listing_bears_faults(plain: Path, fault: str) -> None:
    with serving(
        str(plain), fault=lambda path, n: fault if path.count("/") < 2 and n < 2 else None
    ) as server:
        done = command.run(["extract", "s3://bucket/", "-o", "-", *no_keys(server)])
        assert server.counts[fault] == 2
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_listing_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / "0").touch()
    script = (
        "import asyncio, resource, sys\n"
        "from rastermeta_async.stores.clients import Stores\n"
        "from rastermeta_async import Access\n"
        "async def walk(most):\n"
        "    count = 0\n"
        "    async for page in Stores(Access(True, sys.argv[1])).walk('s3://bucket/'):\n"
        "        count += len(page)\n"
        "        if count >= most: break\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "print(asyncio.run(walk(5000)), asyncio.run(walk(10**9)))"
    )
    with serving(str(tmp_path)) as server:
        server.keys = [f"{number:07d}.tif" for number in range(300_000)]
        done = subprocess.run(
            [sys.executable, "-c", script, server.url], capture_output=True, check=True
        )
    few, many = map(int, done.stdout.split())
    assert many < few + 10


# Catalogs on their way to a store.


def test_an_upload_that_failed_is_made_up_for_by_the_same_command(
    plain: Path, s3: Any, moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments: list[Any] = [keys(plain)["1.tif"], "-o", "s3://later/c.parquet"]
    done = extract_with_credentials(moto, *arguments)
    assert done.returncode == 1
    assert b"s3://later/c.parquet: the catalog cannot be uploaded: HTTP 404 NoSuchBucket" in (
        done.stderr
    )
    assert b"run the same command again" in done.stderr
    s3.create_bucket(Bucket="later")
    done = extract_with_credentials(moto, *arguments)
    assert (done.returncode, b"0 files read, 1 skipped" in done.stderr) == (0, True)
    there = s3.get_object(Bucket="later", Key="c.parquet")["Body"].read()
    assert there == (tmp_path / "c.parquet").read_bytes()


URL = "s3://bucket/catalogs/c.parquet"


@pytest.fixture
def raster(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file to make a catalog of, in a folder of one's own."""
    monkeypatch.chdir(tmp_path)
    return keys(plain)["1.tif"]


def make(*rasters: Path, overwrite: bool = False, **more: Any) -> None:
    """Make a catalog that is copied to `URL`."""
    asyncio.run(rastermeta_async.extract_to(URL, rasters, Settings(**more), overwrite=overwrite))


def replace(s3: Any, content: bytes) -> None:
    s3.put_object(Bucket="bucket", Key="catalogs/c.parquet", Body=content)


def there(s3: Any) -> bytes:
    content: bytes = s3.get_object(Bucket="bucket", Key="catalogs/c.parquet")["Body"].read()
    return content


def test_what_was_read_is_uploaded_though_nothing_is_dropped_as_a_folder_is_gone(
    raster: Path, s3: Any, moto: str, tmp_path: Path
) -> None:
    (tmp_path / "gone").mkdir()
    shutil.copy(raster, tmp_path / "gone" / "a.tif")
    make(tmp_path / "gone" / "a.tif")
    shutil.rmtree(tmp_path / "gone")
    with pytest.raises(PruneError, match="whole folders are gone"):
        make(raster, prune=True)
    assert there(s3) == Path("c.parquet").read_bytes()
    assert pq.read_metadata("c.parquet").num_rows == 2


def test_nothing_is_replaced_where_a_store_does_not_tell_whose_it_is(
    raster: Path, s3: Any, moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As some servers give no entity tag."""
    look = Stores.look

    async def without_etag(self: Stores, url: str) -> Found | None:
        found = await look(self, url)
        return found and found._replace(etag=None)

    monkeypatch.setattr(Stores, "look", without_etag)
    replace(s3, b"theirs")
    with pytest.raises(ForeignOutputError, match="was not uploaded by runs in this folder"):
        make(raster)
    assert there(s3) == b"theirs"


def test_nothing_of_others_is_replaced_in_a_store(raster: Path, s3: Any, moto: str) -> None:
    replace(s3, b"theirs")
    refused = extract_with_credentials(moto, raster, "-o", URL)
    assert refused.returncode == 1
    assert (
        b"was not uploaded by runs in this folder, or was changed since. Run in" in refused.stderr
    )
    assert b"--overwrite" in refused.stderr
    assert (there(s3), Path("c.parquet").exists()) == (b"theirs", False)
    make(raster, overwrite=True)
    make(raster)
    ours = Path("c.parquet").read_bytes()
    assert there(s3) == ours
    replace(s3, bytes(len(ours)))  # as long as ours
    with pytest.raises(ForeignOutputError, match=URL):
        make(raster)
    assert not any(there(s3))


class Meanwhile:
    """Does something to the store after the opening check of a run, right before the upload."""

    def __init__(self, patch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
        seal = Output.seal

        def sealing(output: Output) -> Totals:
            totals = seal(output)
            act()
            return totals

        patch.setattr(Output, "seal", sealing)


UPLOADS = pytest.mark.parametrize("most", [1 << 30, 0], ids=["one-request", "parts"])


@UPLOADS
@pytest.mark.parametrize("before", ["nothing", "ours", "theirs"])
def test_an_object_that_is_put_there_in_mid_run_is_left_alone(
    raster: Path, s3: Any, monkeypatch: pytest.MonkeyPatch, before: str, most: int
) -> None:
    monkeypatch.setattr("rastermeta_async.stores.clients.ONE_REQUEST_BYTES", most)
    if before == "ours":
        make(raster)
    elif before == "theirs":
        replace(s3, b"theirs")
    with monkeypatch.context() as patch, pytest.raises(ForeignOutputError) as caught:
        Meanwhile(patch, lambda: replace(s3, b"newer"))
        make(raster, Path("more.tif"), overwrite=before == "theirs")
    assert there(s3) == b"newer"
    assert str(caught.value).startswith(
        f"{URL} was put there or changed by another program while this one was at work, and is "
        "left as it is. The catalog is complete in c.parquet: move that object away, then run"
    )
    assert pq.read_metadata("c.parquet").num_rows == 2
    assert not s3.list_multipart_uploads(Bucket="bucket").get("Uploads")
    s3.delete_object(Bucket="bucket", Key="catalogs/c.parquet")
    make(raster, Path("more.tif"))
    assert there(s3) == Path("c.parquet").read_bytes()


@UPLOADS
def test_an_object_that_is_removed_in_mid_run_is_uploaded_again(
    raster: Path, s3: Any, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr("rastermeta_async.stores.clients.ONE_REQUEST_BYTES", most)
    make(raster)
    with monkeypatch.context() as patch:
        Meanwhile(patch, lambda: s3.delete_object(Bucket="bucket", Key="catalogs/c.parquet"))
        make(raster, Path("more.tif"))
    assert there(s3) == Path("c.parquet").read_bytes()
    make(raster, Path("more.tif"))


def test_an_upload_whose_answer_was_lost_is_known_by_its_content(
    raster: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is sent again then, and refused, as the object is there already."""
    with monkeypatch.context() as patch:
        Meanwhile(patch, lambda: replace(s3, Path("c.parquet").read_bytes()))
        make(raster)
    make(raster, Path("more.tif"))
    assert there(s3) == Path("c.parquet").read_bytes()


def test_where_a_store_knows_no_conditions_it_is_looked_at_last(
    raster: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise OSError("Server returned non-2xx status code: 501 Not Implemented: ")

    monkeypatch.setattr(obstore, "put_async", refuse)
    make(raster)
    make(raster, Path("more.tif"))
    assert there(s3) == Path("c.parquet").read_bytes()
    with monkeypatch.context() as patch, pytest.raises(ForeignOutputError, match=URL):
        Meanwhile(patch, lambda: replace(s3, b"newer"))
        make(raster, Path("more.tif"), Path("most.tif"))
    assert there(s3) == b"newer"


@UPLOADS
def test_who_may_write_but_not_look_may_overwrite(
    raster: Path, s3: Any, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr("rastermeta_async.stores.clients.ONE_REQUEST_BYTES", most)

    async def refuse(*_: object) -> None:
        raise StoreError("no")

    replace(s3, b"theirs")
    with monkeypatch.context() as patch:
        patch.setattr(Stores, "look", refuse)
        make(raster, overwrite=True)
    assert there(s3) == Path("c.parquet").read_bytes()


def test_an_upload_that_nobody_noted_is_known_by_its_content(
    raster: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Output, "note_uploaded", lambda *_: None)  # killed before that
        make(raster)
    make(raster)
    make(raster, Path("more.tif"))
    assert there(s3) == Path("c.parquet").read_bytes()


def test_leave_to_replace_outlives_an_upload_that_failed(
    raster: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise StoreError("no")

    replace(s3, b"theirs")
    with monkeypatch.context() as patch, pytest.raises(StoreError, match="no"):
        patch.setattr(Stores, "upload", fail)
        make(raster, overwrite=True)
    make(raster)
    assert there(s3) == Path("c.parquet").read_bytes()


def test_a_store_that_does_not_tell_what_is_there_ends_the_run_at_once(
    raster: Path, plain: Path, tmp_path: Path
) -> None:
    with serving(str(plain), fault=some(1, "403")) as server:
        output = ["-o", "s3://bucket/c.parquet", *no_keys(server)]
        done = command.run(["extract", raster, *output])
        odd = command.run(
            ["extract", raster, "-o", "s3://bucket//c.parquet", "--overwrite", *no_keys(server)]
        )
    assert (done.returncode, odd.returncode) == (1, 1)
    assert b"it cannot be told whether a catalog stands there: HTTP 403" in done.stderr
    assert b"no catalog can be uploaded under a key with an empty" in odd.stderr
    assert not (tmp_path / "c.parquet").exists()


def test_the_time_for_a_file_is_not_that_for_a_catalog(
    raster: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[float] = []
    real = Stores.__init__

    def note(self: Stores, access: Access, timeout: float = 30.0, retries: int = 0) -> None:
        made.append(timeout)
        real(self, access, timeout, retries)

    monkeypatch.setattr(Stores, "__init__", note)
    make(raster, timeout=7.0)
    assert UPLOAD_SECONDS in made
    assert 7.0 not in made


@pytest.mark.campaign
def test_commands_find_a_catalog_by_its_url(raster: Path, s3: Any, moto: str) -> None:
    own = Path("own.tif")
    shutil.copyfile(raster, own)
    make(raster, own)
    own.unlink()
    for view in ("status", "summary"):
        there, here = (command.run([view, name]) for name in (URL, "c.parquet"))
        steady = [re.sub(rb"last .*", b"last", done.stdout) for done in (there, here)]
        assert (there.returncode, steady[0]) == (0, steady[1])
    listed = command.run(["extract", "--prune", "--dry-run", "-o", URL])
    assert (listed.returncode, listed.stdout) == (0, b"own.tif\n")


def test_show_of_an_object_is_the_row_that_a_run_gives(plain: Path, s3: Any, moto: str) -> None:
    s3.upload_file(str(keys(plain)["1.tif"]), "bucket", "1.tif")
    (row,) = read([b"s3://bucket/1.tif"]).values()
    assert row.reader == "tiff_header"
    assert exact(rastermeta_async.read_record("s3://bucket/1.tif")) == exact(row)
    environment: Any = {**CREDENTIALS, "AWS_ENDPOINT_URL": moto}
    assert command.run(["show", "s3://bucket/1.tif"], **environment).returncode == 0
    done = command.run(["show", "--compare", "s3://bucket/1.tif"])
    assert (done.returncode, b"--compare is for local files" in done.stderr) == (2, True)


def test_show_without_credentials_says_what_a_run_says(plain: Path) -> None:
    with serving(str(plain), fault=some(1, "403")) as server:
        record = rastermeta_async.read_record(f"{server.url}/bucket/1.tif")
    said = "HTTP 403 AccessDenied: access is denied, with these credentials or for want of any"
    assert (record.status, record.error_message) == ("fatal", said)


@pytest.mark.campaign
def test_catalogs_in_a_store_are_merged_into_one_there(
    plain: Path, tmp_path: Path, s3: Any, moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    names = []
    for index in range(2):
        name = f"shards/{index}.parquet"
        command.run(["extract", plain, "--shard", f"{index}/2", "-o", name])
        s3.upload_file(name, "bucket", name)
        names.append(f"s3://bucket/{name}")
    shutil.rmtree(tmp_path / "shards")
    environment: Any = {**CREDENTIALS, "AWS_ENDPOINT_URL": moto, "TMPDIR": str(tmp_path)}
    done = command.run(["merge", *names, "-o", "s3://bucket/all.parquet"], **environment)
    assert done.returncode == 0, done.stderr
    s3.download_file("bucket", "all.parquet", "copy.parquet")
    command.run(["extract", plain, "-o", "whole.parquet"])
    whole = (tmp_path / "whole.parquet").read_bytes()
    assert (tmp_path / "copy.parquet").read_bytes() == whole
    assert (tmp_path / "all.parquet").read_bytes() == whole
    assert not list(tmp_path.glob("rastermeta-*"))
    again = command.run(["merge", *names, "-o", "s3://bucket/all.parquet"], **environment)
    assert b"all.parquet exists: give --overwrite" in again.stderr
    s3.put_object(Bucket="bucket", Key="all.parquet", Body=b"of somebody else")
    over = ["merge", *names, "-o", "s3://bucket/all.parquet", "--overwrite"]
    assert command.run(over, **environment).returncode == 0
    s3.download_file("bucket", "all.parquet", "copy.parquet")
    assert (tmp_path / "copy.parquet").read_bytes() == whole
    s3.put_object(Bucket="bucket", Key="bad.parquet", Body=whole[:-9])
    for name, why in (("bad.parquet", "s3://bucket/bad.parquet"), ("none.parquet", "404")):
        wrong = command.run(["merge", f"s3://bucket/{name}", "-o", "x.parquet"], **environment)
        assert wrong.returncode == 1
        assert why in wrong.stderr.decode()
        assert str(tmp_path) not in wrong.stderr.decode()
        assert not list(tmp_path.glob("rastermeta-*"))
    with serving(str(plain)) as server:
        url = f"{server.url}/bucket/none.parquet?X-Amz-Signature=hidden"
        signed = command.run(["merge", url, "-o", "x.parquet"])
        assert (signed.returncode, b"hidden" in signed.stderr) == (1, False)
