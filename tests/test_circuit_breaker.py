"""When a run over object stores is given up: no answer says anything about an object any more."""

from __future__ import annotations

import pytest

from rastermeta_async.model.errors import MissingExtraError, StoreError
from rastermeta_async.model.record import failure, to_batch
from rastermeta_async.stores.circuit_breaker import ALIKE, CircuitBreaker


def note(breaker: CircuitBreaker, count: int, kind: str | None, host: str = "s3://bucket") -> None:
    for number in range(count):
        row = failure(f"{host}/{number}.tif".encode(), "fatal", kind or "", "no")
        breaker.note(to_batch([row if kind else row._replace(error_type=None)]))


def test_the_first_objects_all_fail_alike() -> None:
    breaker = CircuitBreaker()
    note(breaker, ALIKE - 1, "AccessDenied")
    with pytest.raises(StoreError, match="none of the first 100 objects"):
        note(breaker, 1, "AccessDenied")


@pytest.mark.parametrize(
    "kind", ["Connection", "ExpiredToken", "NameResolution", "NoCredentials", "Timeout"]
)
def test_a_store_is_lost_on_the_way(kind: str) -> None:
    breaker = CircuitBreaker()
    note(breaker, 1000, None)
    note(breaker, ALIKE - 1, kind)
    note(breaker, 1, None)
    note(breaker, ALIKE - 1, kind)
    with pytest.raises(StoreError, match="none of the last 100 objects"):
        note(breaker, 1, kind)


def test_what_is_of_the_objects_goes_on() -> None:
    breaker = CircuitBreaker()
    note(breaker, 1, None)
    note(breaker, 3 * ALIKE, "AccessDenied")
    note(breaker, 3 * ALIKE, "NotFound")
    for _ in range(3):
        for host in ("https://a", "https://b"):
            note(breaker, ALIKE - 1, "Connection", host)


def test_different_failures_at_first_are_of_the_objects() -> None:
    breaker = CircuitBreaker()
    note(breaker, 1, "NoBucket")
    note(breaker, 3 * ALIKE, "AccessDenied")


def test_what_no_object_can_be_read_without_is_said_at_once() -> None:
    with pytest.raises(MissingExtraError, match="no"):
        note(CircuitBreaker(), 1, "MissingExtraError")


def test_only_objects_count_and_only_those_in_a_row() -> None:
    breaker = CircuitBreaker()
    note(breaker, ALIKE - 1, "Timeout")
    local = failure(b"/disk/a.tif", "fatal", "Timeout", "no")
    breaker.note(to_batch([local] * ALIKE))
    breaker.note(to_batch([local, failure(b"s3://b/a.tif", "error", "NotFound", "no"), local]))
    for _ in range(3):
        note(breaker, ALIKE - 1, "Timeout")
        note(breaker, 1, "NotFound")
    note(breaker, ALIKE - 1, "Timeout")
    with pytest.raises(StoreError, match="none of the last 100 objects"):
        note(breaker, 1, "Timeout")
