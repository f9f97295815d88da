"""What is read reaches no network and changes no file, whatever a file names."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from command import COMMAND, run, running, write_raster
from formats_of_gdal import every_format
from rasterio.transform import from_origin

from rastermeta_async.readers.fence import fence_thread


class Listener:
    """Takes every connection to a port, and answers none."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.first_lines: list[bytes] = []
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                connection.settimeout(1)
                try:
                    line = connection.recv(200).split(b"\r\n")[0]
                except OSError as error:
                    line = str(error).encode()
                if line == b"stop":
                    return
                self.first_lines.append(line)
                answer = b"MARK-OF-THE-SERVER <html>no</html>"
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 34\r\n\r\n" + answer)

    def close(self) -> None:
        with socket.create_connection(self._socket.getsockname()) as connection:
            connection.sendall(b"stop")
        self._thread.join()
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


SOURCES = {
    "http": "http://HOST/a.tif",
    "vsicurl": "/vsicurl/http://HOST/a.tif",
    "vsicurl option": "/vsicurl?url=http://HOST/a.tif",
    "streaming": "/vsicurl_streaming/http://HOST/a.tif",
    "s3": "/vsis3/bucket/a.tif",
    "s3 streaming": "/vsis3_streaming/bucket/a.tif",
    "gs": "/vsigs/bucket/a.tif",
    "az": "/vsiaz/bucket/a.tif",
    "adls": "/vsiadls/bucket/a.tif",
    "oss": "/vsioss/bucket/a.tif",
    "swift": "/vsiswift/bucket/a.tif",
    "webhdfs": "/vsiwebhdfs/http://HOST/webhdfs/v1/a.tif",
    "hdfs": "/vsihdfs/hdfs://HOST/a.tif",
    "zip": "/vsizip//vsicurl/http://HOST/a.zip/a.tif",
    "netcdf": "NETCDF:&quot;http://HOST/a.nc&quot;:v",
    "netcdf bare": "NETCDF:http://HOST/a.nc:v",
    "netcdf bytes": "NETCDF:&quot;http://HOST/a.nc#mode=bytes&quot;:v",
    "netcdf s3": "NETCDF:&quot;s3://HOST/bucket/a.nc#mode=zarr&quot;:v",
    "hdf5": "HDF5:&quot;http://HOST/a.h5&quot;://v",
    "hdf5 vsi": "HDF5:&quot;/vsicurl/http://HOST/a.h5&quot;://v",
    "zarr": "ZARR:&quot;/vsicurl/http://HOST/a.zarr&quot;",
    "zarr bare": "ZARR:http://HOST/a.zarr",
    "gti": "GTI:http://HOST/a.gti",
    "gti json": "GTI:/vsicurl/http://HOST/a.geojson",
    "gti postgres": "GTI:PG:host=127.0.0.1 port=PORT",
    "postgis": "PG:host=127.0.0.1 port=PORT dbname=a table=b",
    "vrt": "vrt:///vsicurl/http://HOST/a.tif?bands=1",
    "derived": "DERIVED_SUBDATASET:LOGAMPLITUDE:/vsicurl/http://HOST/a.tif",
    "stacta": "STACTA:/vsicurl/http://HOST/a.json",
    "stacit": "STACIT:&quot;http://HOST/a.json&quot;",
    "wms": "&lt;GDAL_WMS&gt;&lt;Service name='TMS'&gt;&lt;ServerUrl&gt;http://HOST/${z}"
    "&lt;/ServerUrl&gt;&lt;/Service&gt;&lt;/GDAL_WMS&gt;",
    "wms url": "WMS:http://HOST/wms",
    "wcs": "WCS:http://HOST/wcs",
    "wmts": "WMTS:http://HOST/wmts.xml",
    "ogcapi": "OGCAPI:http://HOST/collections/a",
    "daas": "DAAS:http://HOST/a",
    "rasterlite": "RASTERLITE:/vsicurl/http://HOST/a.sqlite,table=a",
    "gpkg": "GPKG:/vsicurl/http://HOST/a.gpkg:a",
    "sentinel": "SENTINEL2_L1C:/vsicurl/http://HOST/a.xml:10m:EPSG_32632",
    "nitf": "NITF_IM:0:/vsicurl/http://HOST/a.ntf",
    "tiff": "GTIFF_DIR:1:/vsicurl/http://HOST/a.tif",
    "gzip": "/vsigzip//vsicurl/http://HOST/a.tif.gz",
    "subfile": "/vsisubfile/0_100,/vsicurl/http://HOST/a.tif",
    "cached": "/vsicached?file=/vsicurl/http://HOST/a.tif",
}
"""Names of a VRT's source that lead to a server."""

GTI = (
    "<GDALTileIndexDataset><IndexDataset>SOURCE</IndexDataset><IndexLayer>a</IndexLayer>"
    "<LocationField>location</LocationField></GDALTileIndexDataset>"
)


def band(source: str, number: int = 1) -> str:
    return (
        f'<VRTRasterBand dataType="Byte" band="{number}"><SimpleSource>'
        f"<SourceFilename>{source}</SourceFilename><SourceBand>1</SourceBand>"
        "</SimpleSource></VRTRasterBand>"
    )


def vrt(*sources: str) -> str:
    bands = "".join(band(source, number) for number, source in enumerate(sources, 1))
    return f'<VRTDataset rasterXSize="8" rasterYSize="8">{bands}</VRTDataset>'


def traps(folder: Path, listener: Listener) -> list[Path]:
    """Make files that name the listener: each source in a VRT, an overlay and a tile index."""
    folder.mkdir()
    made = []
    for name, source in SOURCES.items():
        leads = source.replace("HOST", listener.host).replace("PORT", listener.host.split(":")[1])
        contents = {".vrt": vrt(leads), ".gti": GTI.replace("SOURCE", leads)}
        for ending, content in contents.items():
            made.append(folder / f"{name}{ending}")
            made[-1].write_text(content)
    made.append(folder / "all of them.vrt")
    all_leads = [
        source.replace("HOST", listener.host).split("PORT")[0] for source in SOURCES.values()
    ]
    made[-1].write_text(vrt(*all_leads))
    return made


def stores(listener: Listener) -> dict[str, Any]:
    """Environment in which the listener is every store, and there are credentials."""
    url = f"http://{listener.host}"
    return {
        "AWS_S3_ENDPOINT": listener.host, "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "CPL_GS_ENDPOINT": f"{url}/",
        "GS_NO_SIGN_REQUEST": "YES", "CPL_AZURE_ENDPOINT": url, "AZURE_STORAGE_ACCOUNT": "a",
        "AZURE_NO_SIGN_REQUEST": "YES", "OSS_ENDPOINT": listener.host, "OSS_HTTPS": "NO",
        "OSS_ACCESS_KEY_ID": "a", "OSS_SECRET_ACCESS_KEY": "b", "OSS_VIRTUAL_HOSTING": "NO",
        "SWIFT_STORAGE_URL": url, "SWIFT_AUTH_TOKEN": "secret",
    }  # fmt: skip


WAYS = {
    "workers": ("extract", "--strict", "-o", "-", "--workers", "1"),
    "no workers": ("extract", "--strict", "-o", "-", "--workers", "0"),
    "all drivers": ("extract", "--strict", "-o", "-", "--workers", "1", "--drivers", "all"),
}


@pytest.mark.campaign
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("no_proxy", [None, "*"])
def test_no_name_in_a_file_leads_to_a_server(
    tmp_path: Path, listener: Listener, way: str, no_proxy: str | None
) -> None:
    paths = traps(tmp_path / "archive", listener)
    environment = stores(listener) | ({"NO_PROXY": no_proxy} if no_proxy else {})
    command, *options = WAYS[way]
    done = run([command, tmp_path / "archive", *options], **environment)
    assert done.returncode == 3, done.stderr
    assert len(done.stdout.splitlines()) == len(paths)
    assert listener.first_lines == []


@pytest.mark.campaign
@pytest.mark.parametrize("source", ["netcdf", "gti", "swift", None])
def test_to_show_a_file_leads_to_no_server(
    tmp_path: Path, listener: Listener, source: str | None
) -> None:
    traps(tmp_path / "archive", listener)
    path = tmp_path / "archive" / f"{source or 'all of them'}.vrt"
    done = run(["show", "--json", path], **stores(listener), NO_PROXY="*")
    json.loads(done.stdout)
    assert listener.first_lines == []
    assert b"MARK-OF-THE-SERVER" not in done.stdout + done.stderr
    assert done.stderr == b""


IN_PROCESS = "-o", "-", "--workers", "0"
WITHOUT = "import sys, rastermeta_async.readers.fence as fence; fence._MACHINES.clear()\n"
START = "from rastermeta_async.__main__ import main; main()"


@pytest.mark.campaign
def test_without_the_kernel_settings_hold_most_names(tmp_path: Path, listener: Listener) -> None:
    """As on other systems; libnetcdf connects by itself, and what that leads to is not shown."""
    for path in traps(tmp_path / "archive", listener):
        if path.stem.startswith("netcdf") or path.stem == "all of them":
            path.unlink()
    command = [sys.executable, "-c", WITHOUT + START]
    archive = str(tmp_path / "archive")
    done = run(["extract", archive, "--strict", *IN_PROCESS], command=command, **stores(listener))
    assert done.returncode == 3, done.stderr
    assert listener.first_lines == []
    netcdf = tmp_path / "netcdf.vrt"
    netcdf.write_text(vrt(SOURCES["netcdf"].replace("HOST", listener.host)))
    for arguments in (["show", str(netcdf)], ["extract", str(netcdf), *IN_PROCESS]):
        listener.first_lines.clear()
        done = run(arguments, command=command)
        assert listener.first_lines, "else the tests above show nothing"
        assert b"MARK-OF-THE-SERVER" not in done.stdout + done.stderr


def children_of(pid: int) -> list[int]:
    return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def opened_by(pid: int) -> set[str]:
    """Return what the descriptors of a process lead to, as ``/proc`` names it."""
    return {os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()}


@pytest.mark.campaign
@pytest.mark.parametrize("way", WAYS)
def test_no_file_can_name_a_list_that_is_piped_in(tmp_path: Path, way: str) -> None:
    """As ``/proc/self/fd/9``: a VRT with that source would take paths from the list."""
    command, *options = WAYS[way]
    with running(command, *options) as run_:
        run_.give(write_raster(tmp_path / "a.tif"))
        run_.line()  # whoever reads files has begun
        assert run_.process.stdin
        pipe = os.readlink(f"/proc/self/fd/{run_.process.stdin.fileno()}")
        readers = children_of(run_.process.pid) if way != "no workers" else [run_.process.pid]
        assert readers
        assert not any(pipe in opened_by(reader) for reader in readers)


def test_a_list_whose_carrier_is_killed_is_not_taken_for_whole(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif")
    with running("extract", *IN_PROCESS) as run_:
        run_.give(path)
        assert b"a.tif" in run_.line()
        for child in children_of(run_.process.pid):
            os.kill(child, signal.SIGKILL)
        assert run_.wait() == 1
        _, said = run_.finish()
    assert b"standard input: the process that carries the list (cat) was ended" in said


PRINTING = """
import os, rastermeta_async.readers.rasterio_reader as reader
describe = reader._describe
def printing(*arguments):
    os.write(1, b"PRINTED")
    os.write(2, b"PRINTED")
    return describe(*arguments)
reader._describe = printing
"""


@pytest.mark.campaign
@pytest.mark.parametrize("way", ["show", "compare", "workers", "no workers"])
def test_what_libraries_print_is_not_shown(tmp_path: Path, way: str) -> None:
    path = write_raster(tmp_path / "a.tif")
    ways = WAYS | {"show": ("show", "--json"), "compare": ("show", "--compare")}
    command, *options = ways[way]
    arguments = [command, str(path), *options]
    done = run(arguments, command=[sys.executable, "-c", PRINTING + START])
    assert done.stdout == run(arguments).stdout
    assert done.returncode == 0
    assert b"PRINTED" not in done.stderr


def in_a_thread(work: Callable[[], object]) -> None:
    with ThreadPoolExecutor(1) as thread:
        thread.submit(work).result()


def refused(work: Callable[[], object]) -> int | None:
    with pytest.raises(OSError) as caught:
        work()
    return caught.value.errno


def test_the_fence_stands_round_a_thread_and_those_that_it_starts(tmp_path: Path) -> None:
    families = socket.AF_INET, socket.AF_INET6, socket.AF_UNIX

    def connect_nowhere() -> None:
        for family in families:
            assert refused(partial(socket.socket, family)) == errno.EACCES

    def behind() -> None:
        assert fence_thread()
        connect_nowhere()
        in_a_thread(connect_nowhere)

    in_a_thread(behind)
    for family in families:
        socket.socket(family).close()
    in_a_thread(lambda: socket.socket().close())


@pytest.mark.parametrize("flags", [
    os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_CREAT, os.O_RDONLY | os.O_CREAT,
    os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_EXCL, os.O_WRONLY | os.O_APPEND | os.O_TRUNC,
])  # fmt: skip
def test_no_file_is_opened_for_writing_behind_the_fence(tmp_path: Path, flags: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"kept")

    def behind() -> None:
        fence_thread()
        assert refused(lambda: os.open(path, flags)) == errno.EROFS
        assert refused(lambda: os.open(tmp_path / "new", flags)) in (errno.EROFS, errno.ENOENT)
        assert refused(lambda: os.truncate(path, 0)) == errno.EROFS
        assert path.read_bytes() == b"kept"

    in_a_thread(behind)
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert path.read_bytes() == b"kept"


def test_no_file_is_given_other_attributes_behind_the_fence(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"kept")
    before = path.stat()

    def behind() -> None:
        fence_thread()
        with open(path) as file:
            for change in (
                lambda: os.chmod(path, 0o600), lambda: os.chmod(file.fileno(), 0o600),
                lambda: os.chown(path, 1, 1), lambda: os.chown(file.fileno(), 1, 1),
                lambda: os.lchown(path, 1, 1), lambda: os.utime(path, (1, 1)),
                lambda: os.utime(file.fileno()), lambda: os.setxattr(path, "user.a", b"a"),
                lambda: os.setxattr(file.fileno(), "user.a", b"a"),
                lambda: os.removexattr(path, "user.a"),
            ):  # fmt: skip
                assert refused(change) == errno.EROFS

    in_a_thread(behind)
    assert path.stat() == before


WRITING = {
    "creat": 85, "truncate": 76, "chmod": 90, "fchmod": 91, "chown": 92, "fchown": 93, "lchown": 94,
    "utime": 132, "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "removexattr": 197,
    "lremovexattr": 198, "fremovexattr": 199, "utimes": 235, "fchownat": 260, "futimesat": 261,
    "fchmodat": 268, "utimensat": 280, "fchmodat2": 452, "setxattrat": 463, "removexattrat": 466,
    "file_setattr": 469,
}  # fmt: skip
"""Linux, arch/x86/entry/syscalls/syscall_64.tbl."""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are x86-64's")
def test_no_call_that_changes_a_file_is_left_out_of_the_fence() -> None:
    """Each is asked for nothing, so that without the fence it fails for another reason."""
    libc = ctypes.CDLL(None, use_errno=True)

    def errors() -> dict[str, int]:
        found = {}
        for name, number in WRITING.items():
            assert libc.syscall(number, -1, 0, 0, 0, 0) == -1, name
            found[name] = ctypes.get_errno()
        return found

    def behind() -> None:
        assert errno.EROFS not in errors().values()
        fence_thread()
        assert errors() == dict.fromkeys(WRITING, errno.EROFS)

    in_a_thread(behind)


def test_temporary_files_and_logs_are_written_behind_the_fence(tmp_path: Path) -> None:
    def behind() -> None:
        fence_thread()
        with tempfile.NamedTemporaryFile(dir=tmp_path) as one, tempfile.TemporaryFile() as other:
            one.write(b"a")
            other.write(b"a")
        with open(tmp_path / "log", "a") as log:
            log.write("a")
        os.close(os.open(tmp_path, os.O_TMPFILE | os.O_RDWR))

    in_a_thread(behind)
    assert (tmp_path / "log").read_text() == "a"


def test_calls_by_the_back_door_are_refused_behind_the_fence() -> None:
    """io_uring does what other calls do; openat2 hides its flags (asm-generic/unistd.h)."""

    def behind() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        for call in (425, 437):
            fence_thread()
            assert libc.syscall(call, 0, 0, 0, 0) == -1
            assert ctypes.get_errno() == errno.ENOSYS

    in_a_thread(behind)


USER = """
import asyncio, socket, sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from rastermeta_async import Settings, extract, read_record
threads = ThreadPoolExecutor(2)
threads.submit(socket.socket).result().close()
async def main():
    async for record in extract(sys.argv[1:], Settings(workers=0)):
        (await asyncio.to_thread(socket.socket)).close()
    (await asyncio.to_thread(socket.socket)).close()
read_record(sys.argv[1])
asyncio.run(main())
threads.submit(socket.socket).result().close()
socket.socket().close()
print("connected")
"""


def test_a_program_that_uses_the_library_can_connect(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif")
    done = subprocess.run([sys.executable, "-c", USER, path], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("connected\n", "")


Entry = tuple[int, tuple[int, int], bytes]


def state_of(folder: Path) -> dict[str, Entry]:
    """Return mode, times and content of all that is in a folder, and of it itself."""
    return {
        str(path): (
            path.stat().st_mode,
            (path.stat().st_mtime_ns, path.stat().st_ctime_ns),
            path.read_bytes() if path.is_file() else b"",
        )
        for path in [folder, *folder.rglob("*")]
    }


def databases(folder: Path) -> set[str]:
    """Make databases of which one is as it should be, and the others have changes elsewhere."""
    folder.mkdir()
    source = folder.parent / "source.tif"
    with rasterio.open(
        source, "w", driver="GTiff", width=256, height=256, count=3, dtype="uint8",
        crs="EPSG:3857", transform=from_origin(0, 0, 156543.03392804097, 156543.03392804097),
    ) as dataset:  # fmt: skip
        dataset.write(np.ones((3, 256, 256), np.uint8))
    unfinished = set()
    for name, driver in (("a.gpkg", "GPKG"), ("a.mbtiles", "MBTiles")):
        path = folder / name
        rasterio.shutil.copy(source, path, driver=driver)
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA wal_autocheckpoint = 0")
            database.execute("CREATE TABLE other (a)")
            database.commit()
            for suffix in ("", "-wal", "-shm"):  # as they are while it is open
                shutil.copy(f"{path}{suffix}", folder / f"open-{name}{suffix}")
        shutil.copy(folder / f"open-{name}", folder / f"alone-{name}")
        shutil.copy(folder / f"open-{name}-wal", folder / f"alone-{name}-wal")
        shutil.copy(path, folder / f"hot-{name}")
        (folder / f"hot-{name}-journal").write_bytes(bytes.fromhex("d9d505f920a163d7") + bytes(504))
        shutil.copy(path, folder / f"kept-{name}")
        (folder / f"kept-{name}-journal").write_bytes(bytes(512))
        (folder / f"link-{name}").symlink_to(f"open-{name}")
        unfinished |= {f"{kind}-{name}" for kind in ("open", "alone", "hot", "link")}
    return unfinished


@pytest.mark.campaign
@pytest.mark.parametrize("way", WAYS)
def test_databases_stay_as_they_are_and_changes_elsewhere_are_said(
    tmp_path: Path, way: str
) -> None:
    folder = tmp_path / "archive"
    unfinished = databases(folder)
    before = state_of(folder)
    command, *options = WAYS[way]
    done = run([command, folder, *options, "--suffix", ".gpkg,.mbtiles"])
    assert state_of(folder) == before
    rows = {Path(row["filepath"]).name: row for row in map(json.loads, done.stdout.splitlines())}
    assert {name for name, row in rows.items() if row["status"] == "error"} == unfinished
    for name in unfinished:
        assert rows[name]["error_message"].startswith("there are changes in a file next to it")
    assert {row["status"] for name, row in rows.items() if name not in unfinished} == {"success"}


def test_reading_every_format_that_gdal_writes_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    assert every_format(folder) > 25
    before = state_of(folder)
    command, *options = WAYS["all drivers"]
    done = run([command, folder, *options])
    assert state_of(folder) == before
    read = {row["driver"] for row in map(json.loads, done.stdout.splitlines())}
    assert len(read) > 25


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("read_only", [False, True])
def test_no_way_of_reading_changes_any_format(tmp_path: Path, read_only: bool) -> None:
    folder = tmp_path / "archive"
    every_format(folder)
    databases(folder / "databases")
    shown = [str(path) for path in folder.rglob("*") if path.is_file()]
    before = state_of(folder)
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
    first = ["unshare", "-m", "sh", "-c", script, "sh", str(folder)] if read_only else []
    if read_only and subprocess.run([*first, "true"], capture_output=True).returncode:
        pytest.skip("not run: this machine mounts nothing")
    rows = []
    for command, *options in WAYS.values():
        done = run([command, folder, *options], command=[*first, *COMMAND])
        rows.append(sorted(done.stdout.splitlines()))
        assert state_of(folder) == before
        assert len(rows[-1]) == len(shown)
    assert rows[0] == rows[1]
    for path in shown:
        run(["show", "--json", path], command=[*first, *COMMAND])
    assert state_of(folder) == before
