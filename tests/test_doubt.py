"""When a run over object stores is given up: no answer says anything about an object any more."""

from __future__ import annotations

import pytest

from rastermeta_async.errors import MissingExtraError, StoreError
from rastermeta_async.record import failure, to_batch
from rastermeta_async.stores.doubt import ALIKE, Doubt


def hear(doubt: Doubt, count: int, kind: str | None, host: str = "s3://bucket") -> None:
    for number in range(count):
        row = failure(f"{host}/{number}.tif".encode(), "fatal", kind or "", "no")
        doubt.hear(to_batch([row if kind else row._replace(error_type=None)]))


def test_the_first_objects_all_fail_alike() -> None:
    doubt = Doubt()
    hear(doubt, ALIKE - 1, "AccessDenied")
    with pytest.raises(StoreError, match="none of the first 100 objects"):
        hear(doubt, 1, "AccessDenied")


@pytest.mark.parametrize("kind", ["Timeout", "ExpiredToken"])
def test_a_store_is_lost_on_the_way(kind: str) -> None:
    doubt = Doubt()
    hear(doubt, 1000, None)
    hear(doubt, ALIKE - 1, kind)
    hear(doubt, 1, None)
    hear(doubt, ALIKE - 1, kind)
    with pytest.raises(StoreError, match="none of the last 100 objects"):
        hear(doubt, 1, kind)


def test_what_is_of_the_objects_goes_on() -> None:
    doubt = Doubt()
    hear(doubt, 1, None)
    hear(doubt, 3 * ALIKE, "AccessDenied")
    hear(doubt, 3 * ALIKE, "NotFound")
    for _ in range(3):
        for host in ("https://a", "https://b"):
            hear(doubt, ALIKE - 1, "Connection", host)


def test_different_failures_at_first_are_of_the_objects() -> None:
    doubt = Doubt()
    hear(doubt, 1, "NoBucket")
    hear(doubt, 3 * ALIKE, "AccessDenied")


def test_what_no_object_can_be_read_without_is_said_at_once() -> None:
    with pytest.raises(MissingExtraError, match="no"):
        hear(Doubt(), 1, "MissingExtraError")


def test_only_objects_count_and_only_those_in_a_row() -> None:
    doubt = Doubt()
    hear(doubt, ALIKE - 1, "Timeout")
    local = failure(b"/disk/a.tif", "fatal", "Timeout", "no")
    doubt.hear(to_batch([local] * ALIKE))
    doubt.hear(to_batch([local, failure(b"s3://b/a.tif", "error", "NotFound", "no"), local]))
    for _ in range(3):
        hear(doubt, ALIKE - 1, "Timeout")
        hear(doubt, 1, "NotFound")
    hear(doubt, ALIKE - 1, "Timeout")
    with pytest.raises(StoreError, match="none of the last 100 objects"):
        hear(doubt, 1, "Timeout")
