from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from rastermeta_async.model.errors import SettingsError
from rastermeta_async.model.settings import Settings
from rastermeta_async.pools.child import workers_for


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"batch_size": -5}, "batch_size must be at least 1, not -5"),
        ({"concurrency": 0}, "concurrency must be at least 1, not 0"),
        ({"queue_size": 0}, "queue_size must be at least 1, not 0"),
        ({"queue_size": -1}, "queue_size must be at least 1, not -1"),
        ({"workers": -1}, "workers must be at least 0, not -1"),
        ({"reader": "x"}, "reader must be one of auto, rasterio, not x"),
        ({"timeout": 0.0}, "timeout must be a positive number of seconds, not 0.0"),
        ({"timeout": -1.0}, "timeout must be a positive number of seconds, not -1.0"),
        ({"timeout": float("nan")}, "timeout must be a positive number of seconds, not nan"),
        ({"timeout": float("inf")}, "timeout must be a positive number of seconds, not inf"),
    ],
)
def test_bad_values_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(**fields)
    assert str(caught.value) == message


def test_smallest_values_are_fine() -> None:
    settings = Settings(batch_size=1, concurrency=1, queue_size=1, timeout=1e-9)
    assert settings.queued_paths == 1


def test_documented_defaults() -> None:
    settings = Settings()
    assert (settings.batch_size, settings.timeout, settings.queue_size) == (5000, 60.0, None)
    assert (settings.drivers, settings.retry_failed) == (None, False)


def test_the_queue_grows_with_the_processes_that_read() -> None:
    assert Settings(workers=8).queued_paths == 2 * Settings(workers=4).queued_paths > 8
    assert Settings().queued_paths == Settings(workers=1).queued_paths
    assert Settings(workers=8, queue_size=3).queued_paths == 3


@pytest.mark.parametrize("workers", [1, 2, 8, 64])
def test_the_ceiling_is_one_for_all_workers(workers: int) -> None:
    assert workers_for(Settings(workers=workers)) == (workers, 512 // workers)
    assert workers_for(Settings(workers=workers, concurrency=2 * workers)) == (workers, 2)
    assert workers_for(Settings(workers=workers, concurrency=2 * workers + 1)) == (workers, 3)


def test_no_more_workers_are_started_than_files_may_be_read_at_once() -> None:
    assert workers_for(Settings(workers=8, concurrency=3)) == (3, 1)


def test_frozen_and_checked_again_when_copied() -> None:
    settings = Settings()
    with pytest.raises(FrozenInstanceError):
        settings.batch_size = 1  # type: ignore[misc]  # that is the point
    with pytest.raises(SettingsError):
        replace(settings, batch_size=0)
