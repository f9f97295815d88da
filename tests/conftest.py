"""Archives to read, and event loops to run on."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import hypothesis
import pytest
import uvloop
from rasterio.env import delenv, getenv, hasenv

from rastermeta_async.cli.sample import write_sample

# How fast a machine is at the moment is nothing that a test is about.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")

T = TypeVar("T")
SHARED_CORPUS = Path(__file__).parent.parent.parent / "shared" / "corpus"
PATIENCE = 30
"""Seconds after which a coroutine that hangs fails its test."""
GRACE = 1
"""Seconds that tasks, or threads of others, may take to end by themselves."""


QUICK = {
    "catalog", "channel", "checkpoint", "circuit_breaker", "concurrency", "config",
    "credentials", "databases", "dates", "dedupe", "errors", "fetch", "fields", "foreign",
    "formats", "ifd_cache", "jsonform", "layers", "limits", "machine", "merge", "objects", "opened",
    "order",
    "pathset", "pipeline", "problems", "rate_limit", "record", "resort", "rows", "sifting", "sink",
    "sources", "structure", "summary", "tiff_header", "undecodable", "unsorted", "urls",
    "verified", "versions", "wire",
}  # fmt: skip
"""Modules of tests that start no program, no server and no worker: a minute for all of them."""


@pytest.hookimpl(tryfirst=True)  # before those that are not asked for are taken out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the quick tests."""
    for item in items:
        is_long = item.get_closest_marker("slow") or item.get_closest_marker("campaign")
        if item.path.stem.removeprefix("test_") in QUICK and not is_long:
            item.add_marker("quick")


@pytest.fixture(autouse=True)
def no_gdal_environment_is_left() -> Iterator[None]:
    """A test that reads in its own thread leaves GDAL's options there for all later tests."""
    yield
    if hasenv() and "GDAL_HTTP_PROXY" in getenv():  # one of ours; other libraries leave theirs
        delenv()  # so that the tests after this one do not fail, too
        pytest.fail("read in another thread, e.g. by read_record")


class Run(Protocol):
    """Runs a coroutine to its end in a new event loop and returns its result."""

    def __call__(self, work: Coroutine[Any, Any, T]) -> T: ...


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine on asyncio and on uvloop; it must leave no task behind and no error unseen.

    Tasks that were cancelled last may take a moment to end, as threads cannot be cancelled.
    """

    def run(work: Coroutine[Any, Any, T]) -> T:
        unseen: list[dict[str, Any]] = []

        async def watched() -> T:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: unseen.append(context))
            try:
                async with asyncio.timeout(PATIENCE):
                    return await work
            finally:
                if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
                    _, tasks = await asyncio.wait(tasks, timeout=GRACE)
                unseen.extend({"task left behind": task} for task in tasks)

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            result = runner.run(watched())
        assert not unseen
        return result

    return run


@pytest.fixture
def nothing_stays_open(tmp_path: Path) -> Iterator[None]:
    """Hold that no file or folder below the test's own is open once the test has ended.

    A descriptor that nobody closes gives no warning, unlike a file object, and may hold a lock.
    Threads of pyarrow may close theirs a moment later.
    """
    yield
    end = time.monotonic() + GRACE
    while (left := _opened_below(tmp_path)) and time.monotonic() < end:
        gc.collect()
        time.sleep(0.01)
    assert not left


def _opened_below(folder: Path) -> list[str]:
    names = (os.path.realpath(at) for at in Path("/proc/self/fd").iterdir())
    return [name for name in names if Path(name).is_relative_to(folder)]


@pytest.fixture(scope="session")
def sample_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sample archive: not to be written to."""
    folder = tmp_path_factory.mktemp("sample") / "archive"
    write_sample(str(folder))
    return folder


@pytest.fixture(scope="session")
def corpus(sample_archive: Path) -> Path:
    """A folder of real rasters where there is one, else the sample archive."""
    return SHARED_CORPUS if SHARED_CORPUS.is_dir() else sample_archive
