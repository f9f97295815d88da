"""Objects that rasterio reads: a few at once, each with a time limit of its own."""

from __future__ import annotations

import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from test_remote import header_at_the_end

from rastermeta_async.model.record import Record, as_rows, failure
from rastermeta_async.model.settings import Settings
from rastermeta_async.model.timeouts import Stopped
from rastermeta_async.readers import objects
from rastermeta_async.readers.fetch import MAX_HEAD_BYTES
from rastermeta_async.readers.objects import ObjectReader
from rastermeta_async.readers.router import Router, make_reader
from rastermeta_async.stores.raw_keys import ObjectBytes

SHORT = 0.1


class FakeStores:
    """Stores whose objects are all alike."""

    def __init__(self, *_: Any) -> None:
        pass

    def locate(self, _url: str) -> Any:
        return self

    def get(self, _start: int, _end: int) -> ObjectBytes:
        return ObjectBytes(b"no TIFF", 7, None, "tag")


class FakeRasterio:
    """Takes its time for each object, or hangs; counts how many are open at once."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.release = threading.Event()
        self.most = 0
        self._open = 0
        self._seconds = seconds
        self._lock = threading.Lock()

    def enter(self) -> None:
        pass

    def read(self, path: bytes) -> Record:
        with self._lock:
            self._open += 1
            self.most = max(self.most, self._open)
        time.sleep(self._seconds)
        if b"hangs" in path:
            self.release.wait()
        with self._lock:
            self._open -= 1
        return failure(path, "success", "", "")._replace(error_type=None)


@pytest.fixture(autouse=True)
def few_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "Stores", FakeStores)
    monkeypatch.setattr(objects, "REMOTE_OPENS", 2)


def test_few_are_open_at_once_and_who_waits_for_its_turn_loses_no_time() -> None:
    rasterio = FakeRasterio(SHORT)
    reader = ObjectReader(rasterio, None, Settings(timeout=3 * SHORT))
    urls = [b"s3://bucket/%d" % number for number in range(12)]
    with ThreadPoolExecutor(len(urls)) as threads:
        rows = [row for some in threads.map(reader.read, urls) for row in as_rows(some)]
    assert [row.error_type for row in rows] == [None] * 12
    assert rasterio.most == 2


def test_those_that_hang_have_their_rows_in_time_and_others_are_read() -> None:
    rasterio = FakeRasterio()
    reader = ObjectReader(rasterio, None, Settings(timeout=SHORT))
    try:
        began = time.monotonic()
        urls = [*(b"s3://bucket/hangs-%d" % number for number in range(3)), b"s3://bucket/1"]
        rows = [row for url in urls for row in as_rows(reader.read(url))]
        assert time.monotonic() - began < 20 * SHORT
        assert [row.error_type for row in rows] == ["Timeout"] * 3 + [None]
        assert rows[0].error_message == "no answer in time"
        assert reader.stuck == 3
    finally:
        rasterio.release.set()


def test_stopped_nobody_waits_for_a_turn() -> None:
    rasterio = FakeRasterio()
    reader = ObjectReader(rasterio, None, Settings(timeout=50))
    urls = [b"s3://bucket/hangs-%d" % number for number in range(3)]
    with ThreadPoolExecutor(len(urls)) as threads:
        reading = [threads.submit(reader.read, url) for url in urls]
        while rasterio.most < 2:
            time.sleep(0.01)
        reader.stop()
        time.sleep(2 * SHORT)
        rasterio.release.set()
        stopped = [isinstance(done.exception(5), Stopped) for done in reading]
    assert sorted(stopped) == [False, False, True]


def test_where_the_system_starts_no_further_thread_those_there_are_read_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where a container may have few processes."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("rastermeta-opens"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    reader = ObjectReader(FakeRasterio(), None, Settings())
    assert as_rows(reader.read(b"s3://bucket/a.jp2"))[0].error_type is None


def test_an_object_that_has_no_time_left_by_its_requests_is_no_hang(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    get = FakeStores.get

    def slow(stores: FakeStores, start: int, end: int) -> ObjectBytes:
        time.sleep(1.2 * SHORT)
        return get(stores, start, end)

    monkeypatch.setattr(FakeStores, "get", slow)
    reader = ObjectReader(FakeRasterio(SHORT / 5), None, Settings(timeout=SHORT))
    assert as_rows(reader.read(b"s3://bucket/a.jp2"))[0].error_type is None
    assert reader.stuck == 0


def test_of_a_longer_first_read_all_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values right before its end are not asked for again together with what follows."""
    content = bytearray(header_at_the_end(64))
    content[4:8] = struct.pack("<I", at := MAX_HEAD_BYTES - 1000)
    content[at : at + 1000] = content[100_000:].ljust(1000, b"\0")
    asked: list[tuple[int, int]] = []

    def get(_: FakeStores, start: int, end: int) -> ObjectBytes:
        asked.append((start, end))
        return ObjectBytes(bytes(content[start:end]), len(content), None, "tag")

    monkeypatch.setattr(FakeStores, "get", get)
    decoder = make_reader(None)
    assert isinstance(decoder, Router)
    reader = ObjectReader(decoder, decoder, Settings())
    for _ in range(20):
        reader.fetcher.note_short_head()
    assert as_rows(reader.read(b"s3://bucket/a.tif"))[0].width == 64
    assert asked == [(0, MAX_HEAD_BYTES)]


def test_closed_it_leaves_no_thread() -> None:
    reader = ObjectReader(FakeRasterio(), None, Settings())
    reader.read(b"s3://bucket/a.jp2")
    reader.close()
    deadline = time.monotonic() + 10
    while any(thread.name.startswith("rastermeta-opens") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
