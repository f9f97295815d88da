"""Files of netCDF and HDF5 take turns, and their threads never wait for each other for ever."""

from __future__ import annotations

import threading
import time

import pytest

from rastermeta_async.readers import turns
from rastermeta_async.readers.base import watch_progress
from rastermeta_async.readers.subdatasets import PartPath
from rastermeta_async.readers.turns import turn_of
from rastermeta_async.stores.archive_names import MemberPath


@pytest.mark.parametrize(
    ("path", "waits"),
    [
        (b"/a/b.nc", True), (b"B.HDF5", True), (b"https://host/a.nc?key=1.tif", True),
        (b"/a/b.tif", False), (b"https://host/a.tif?key=1.nc", False), (b"nc", False),
        (MemberPath(b"/a.zip", "x/y.nc4"), True), (MemberPath(b"/a.nc.zip", "x.tif"), False),
        (PartPath(b"/a.bin", "netCDF", "v"), True), (PartPath(b"/a.nc", "GPKG", "v"), False),
    ],
)  # fmt: skip
def test_files_of_these_libraries_take_turns(path: bytes, waits: bool) -> None:
    with turn_of(b"/other.nc"):
        entered = threading.Event()

        def enter() -> None:
            with turn_of(path):
                entered.set()

        thread = threading.Thread(target=enter)
        thread.start()
        assert entered.wait(0.2) is not waits
    thread.join()
    assert entered.is_set()


def test_a_thread_may_take_its_turn_twice() -> None:
    with turn_of(b"/a.nc"), turn_of(PartPath(b"/a.nc", "netCDF", "v")):
        pass


def test_the_time_of_a_file_that_waits_runs_only_while_nothing_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "_SECONDS", 0.01)
    noted: list[float] = []

    def wait() -> None:
        watch_progress("test", lambda: noted.append(time.monotonic()))
        with turn_of(b"/waits.nc"):
            pass

    with turn_of(b"/hangs.nc"):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.3)
    thread.join()
    assert len(noted) == 1  # the file before may have just begun
