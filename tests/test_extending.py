"""What CONTRIBUTING says of adding a decoder, or a pool, is enough to add one."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import write_raster
from factory import record
from range_server import serving

import rastermeta_async
from rastermeta_async import Pool, Record, Settings
from rastermeta_async.footprints.rows import rows_with_footprints
from rastermeta_async.model.errors import PoolError
from rastermeta_async.model.record import as_rows, path_columns
from rastermeta_async.readers import router
from rastermeta_async.readers.base import Facts, Foreign, ReadAt, Reader, Unsupported
from rastermeta_async.readers.rasterio_reader import RasterioReader
from rastermeta_async.readers.router import Router, make_reader
from rastermeta_async.readers.sidecars import Folders

T = TypeVar("T")

# A decoder


class ToyDecoder:
    """Decodes files that are the letters TOY and a width and height, each of 32 bits."""

    def __init__(self, rasterio: RasterioReader) -> None:
        self._rasterio = rasterio

    def decode(
        self,
        path: bytes,
        facts: Facts,
        head: bytes,
        read_at: ReadAt,
        reference: Record | None = None,
    ) -> Record:
        if not head.startswith(b"TOY") or facts.size < 11:
            raise Foreign("no toy")
        width, height = struct.unpack("<II", read_at(3, 8))
        shown, raw = path_columns(path)
        return Record(
            shown, raw, "success", None, None, driver="TOY", width=width, height=height, count=1,
            file_size=facts.size, mtime=facts.mtime, etag=facts.etag, reader="toy",
        )  # fmt: skip


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of a format that rasterio does not know, and the decoder for it at its place."""
    monkeypatch.setitem(router.DECODERS, "TOY", ToyDecoder)
    path = tmp_path / "bucket" / "a.toy"
    path.parent.mkdir()
    path.write_bytes(b"TOY" + struct.pack("<II", 640, 480))
    return path


def apart(work: Callable[[], T]) -> T:
    """Return what `work` returns in a new thread: one that reads keeps GDAL's environment."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def read_one(path: Path, drivers: list[str] | None = None) -> Record:
    return apart(lambda: make_reader(drivers).read(bytes(path)))


def told(row: Record) -> tuple[object, ...]:
    return row.reader, row.status, row.width, row.height, row.file_size


def test_a_file_is_read_by_the_decoder_that_knows_it(toy: Path) -> None:
    raster = write_raster(toy.with_name("a.tif"))
    other = toy.with_name("b.toy")
    other.write_bytes(b"TOY")
    assert told(read_one(toy)) == ("toy", "success", 640, 480, 11)
    assert read_one(raster).reader == "tiff_header"
    assert read_one(other).status == "error"  # rasterio has the last word


def test_an_object_is_read_by_it_as_well(toy: Path) -> None:
    with serving(str(toy.parent.parent)) as server:
        (row,) = read([f"{server.url}/bucket/a.toy"], Settings(workers=0))
    assert told(row) == ("toy", "success", 640, 480, 11)
    assert row.etag


def test_why_no_decoder_reads_a_file_is_said_of_each(toy: Path) -> None:
    toy.write_bytes(b"text")
    with pytest.raises(Unsupported, match=r"^no TIFF; no JP2; no toy$"):
        Router(RasterioReader(), Folders()).decode_file(bytes(toy))


def test_a_decoder_keeps_to_the_drivers_that_are_allowed(toy: Path) -> None:
    assert read_one(toy, ["GTiff"]).reader != "toy"
    assert read_one(toy, ["TOY"]).reader == "toy"


def test_a_decoder_with_a_fault_ends_no_run(
    toy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> Record:
        raise ZeroDivisionError

    monkeypatch.setattr(ToyDecoder, "decode", fail)
    caplog.set_level("DEBUG", "rastermeta_async")
    (row,) = read([toy], Settings(workers=0))
    assert (row.error_type, row.reader) == ("RasterioIOError", "rasterio")
    assert f"{toy}: a decoder failed, so rasterio reads the file" in caplog.text


# A pool


class CallersThread:
    """Reads headers in the thread that runs the event loop, one after the other."""

    capacity = 1

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._stopping = False
        self.entered = 0

    async def __aenter__(self) -> Self:
        self.entered += 1
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.entered -= 1

    async def read(self, paths: Sequence[bytes]) -> AsyncIterator[pa.RecordBatch]:
        for path in paths:
            if self._stopping:
                return
            yield rows_with_footprints(as_rows(self._reader.read(path)))
            await asyncio.sleep(0)

    def stop(self) -> None:
        self._stopping = True


def read(
    paths: Sequence[str | Path], settings: Settings | None = None, pool: Pool | None = None
) -> list[Record]:
    async def collect() -> list[Record]:
        async with aclosing(rastermeta_async.extract(paths, settings, pool=pool)) as rows:
            return [row async for row in rows]

    return apart(lambda: asyncio.run(collect()))


class Faulty(CallersThread):
    """Breaks what a pool promises."""

    def __init__(self, how: str) -> None:
        super().__init__(make_reader(None))
        self._how = how

    async def read(self, paths: Sequence[bytes]) -> AsyncIterator[pa.RecordBatch]:
        rows = rows_with_footprints([record(path) for path in paths])
        match self._how:
            case "cancelled":  # as whoever waits for a future of an executor that was shut down
                raise asyncio.CancelledError
            case "too few":
                yield rows.slice(1)
            case "too many":
                yield rows
                yield rows.slice(0, 1)
            case "no batch":
                yield rows.to_pylist()
            case "other columns":
                yield rows.select(["filepath", "status"])


@pytest.mark.parametrize("files", [3, 30_000])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cancelled", "Faulty.read was cancelled, though the run was not"),
        ("too few", r"Faulty.read gave rows of \d+ paths for \d+ paths"),
        ("too many", r"Faulty.read gave rows of \d+ paths for \d+ paths"),
        ("no batch", "Faulty.read gave a list, not a record batch of SCHEMA"),
        ("other columns", "Faulty.read gave a RecordBatch with other columns than SCHEMA"),
    ],
)
def test_a_pool_that_breaks_its_promise_ends_the_run_and_no_row_is_lost_unseen(
    tmp_path: Path, how: str, message: str, files: int
) -> None:
    paths = [f"/none/{number}.tif" for number in range(files)]
    catalog = tmp_path / "c.parquet"
    with pytest.raises(PoolError, match=message):
        apart(lambda: asyncio.run(rastermeta_async.extract_to(catalog, paths, pool=Faulty(how))))
    assert not catalog.exists()


def test_headers_are_read_in_a_pool_of_ones_own(tmp_path: Path) -> None:
    raster, missing = write_raster(tmp_path / "a.tif"), tmp_path / "none.tif"
    pool: Pool = CallersThread(make_reader(None))
    by_pool, by_default = (sorted(read([raster, missing], pool=one)) for one in (pool, None))
    assert by_pool == by_default
    assert by_pool[0].geometry


def test_a_catalog_is_made_with_a_pool_of_ones_own_and_left_when_it_is_stopped(
    tmp_path: Path,
) -> None:
    raster, catalog = write_raster(tmp_path / "a.tif"), tmp_path / "c.parquet"

    async def work() -> None:
        pool, stop = CallersThread(make_reader(None)), asyncio.Event()
        stop.set()
        outcome = await rastermeta_async.extract_to(catalog, [raster], pool=pool, stop=stop)
        assert not outcome.complete
        assert pool.entered == 0
        pool = CallersThread(make_reader(None))
        assert (await rastermeta_async.extract_to(catalog, [raster], pool=pool)).complete

    apart(lambda: asyncio.run(work()))
    assert pq.read_table(catalog)["filepath"].to_pylist() == [str(raster)]
