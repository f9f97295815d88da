"""Ranged reads of objects: how much is read at first, and when it is given up."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable
from typing import Any

import pytest

from rastermeta_async.model.timeouts import Stopped
from rastermeta_async.readers.base import HEAD_BYTES, Unsupported
from rastermeta_async.readers.fetch import MAX_HEAD_BYTES, TRIES, Fetcher, FetchError
from rastermeta_async.readers.window import MAX_READS
from rastermeta_async.stores.raw_keys import ObjectBytes

SIZE = 1_000_000
BUSY = Exception("Server error with status code: 503")


class FakeStores:
    """Stores whose objects are all alike, and what was asked of them."""

    def __init__(self, *answers: ObjectBytes | Exception) -> None:
        self.asked: list[tuple[int, int]] = []
        self._answers = itertools.cycle(answers or [ObjectBytes(b"", SIZE, None, "tag")])

    def locate(self, _url: str) -> Any:
        return self

    def get(self, start: int, end: int) -> ObjectBytes:
        self.asked.append((start, end))
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


def fetcher_of(stores: FakeStores, timeout: float = 100) -> Fetcher:
    return Fetcher(stores, timeout)  # type: ignore[arg-type]  # as far as it is used


def first_reads(missed: Iterable[int | None]) -> list[int]:
    """Return how many bytes of each object are read at first, given what is missed then."""
    stores = FakeStores()

    fetcher = fetcher_of(stores)
    for offset in missed:
        found = fetcher.open("https://h/a.tif")
        if offset is not None:
            found.read_at(offset, 1000)
    return [end for start, end in stores.asked if start == 0]


def test_where_headers_are_longer_more_is_read_at_first() -> None:
    reads = first_reads([HEAD_BYTES] * 50)
    assert reads[0] == HEAD_BYTES
    assert set(reads[10:]) == {MAX_HEAD_BYTES}


@pytest.mark.parametrize(
    "missed",
    [[SIZE // 2] * 500, [HEAD_BYTES, *[None] * 99] * 20],
    ids=["at the end", "one in a hundred"],
)
def test_where_that_would_not_help_no_more_is_read_at_first(missed: list[int | None]) -> None:
    assert set(first_reads(missed)) == {HEAD_BYTES}


def test_no_more_is_asked_for_than_there_is() -> None:
    stores = FakeStores()
    fetcher_of(stores).open("https://h/a.tif").read_at(SIZE - 10, 1000)
    assert stores.asked[-1] == (SIZE - 10, SIZE)


@pytest.mark.parametrize(
    "other", [ObjectBytes(b"", SIZE, None, "other"), ObjectBytes(b"", SIZE + 1, None, "tag")]
)
@pytest.mark.parametrize("how", ["read on", "ask again"])
def test_what_was_replaced_meanwhile_is_no_more_of_it(other: ObjectBytes, how: str) -> None:
    stores = FakeStores(ObjectBytes(b"x", SIZE, None, "tag"), other)
    found = fetcher_of(stores).open("https://h/a.tif")
    with pytest.raises(FetchError, match="it was replaced while it was being read"):
        found.read_at(50, 50) if how == "read on" else found.ask_again(1, 0)


def test_bytes_that_are_all_over_an_object_are_not_fetched_one_by_one() -> None:
    stores = FakeStores(ObjectBytes(b"x" * 8, SIZE, None, "tag"))
    found = fetcher_of(stores).open("https://h/a.tif")
    with pytest.raises(Unsupported):
        for offset in range(0, SIZE, 100):
            found.read_at(offset, 8)
    assert len(stores.asked) == MAX_READS


def test_what_was_fetched_is_not_asked_for_again() -> None:
    stores = FakeStores(ObjectBytes(bytes(range(100)), SIZE, None, "tag"))
    found = fetcher_of(stores).open("https://h/a.tif")
    assert [found.read_at(10, 3), found.read_at(97, 3)] == [b"\x0a\x0b\x0c", b"abc"]
    found.read_at(5000, 100)
    found.read_at(5010, 90)
    assert [start for start, _ in stores.asked] == [0, 5000]


def test_stopped_it_sends_no_further_request_and_waits_for_none() -> None:
    stores = FakeStores(ObjectBytes(b"x", SIZE, None, "tag"), BUSY)
    fetcher = fetcher_of(stores)
    found = fetcher.open("https://h/a.tif")
    threading.Timer(0.05, fetcher.stop).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        while True:  # it is refused, and waits for longer each time
            found.read_at(50, 50)
    assert time.monotonic() - began < 3
    before = len(stores.asked)
    with pytest.raises(Stopped):
        fetcher.open("https://h/b.tif")
    assert len(stores.asked) == before


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that are waited between tries; they take no time here."""
    waited: list[float] = []
    monkeypatch.setattr(Fetcher, "wait", lambda _, seconds: waited.append(seconds))
    return waited


@pytest.mark.parametrize("before", [0, 5])
def test_a_store_that_does_not_answer_well_is_asked_so_often_and_waited_for_longer_each_time(
    waits: list[float], before: int
) -> None:
    """Also where another reader has asked before."""
    stores = FakeStores(ObjectBytes(b"x", SIZE, None, "tag"), *[BUSY] * TRIES)
    found = fetcher_of(stores).open("https://h/a.tif")
    with pytest.raises(FetchError) as raised:
        found.ask_again(before, 0) if before else found.read_at(50, 50)
    assert raised.value.tries == TRIES
    assert len(stores.asked) == 1 + TRIES - before
    assert len(waits) == TRIES - before - 1
    longest = [min(8.0, 0.2 * 2**number) for number in range(TRIES)][before:]
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=False))


def test_those_that_are_refused_together_do_not_come_back_together(waits: list[float]) -> None:
    fetcher = fetcher_of(FakeStores(BUSY, ObjectBytes(b"x", SIZE, None, "tag")))
    for _ in range(20):
        fetcher.open("https://h/a.tif")
    assert len(set(waits)) == 20


def test_no_wait_is_longer_than_the_time_of_an_object(waits: list[float]) -> None:
    stores = FakeStores(BUSY)
    with pytest.raises(FetchError):
        fetcher_of(stores, timeout=2).open("https://h/a.tif")
    assert sum(waits) < 2
    assert len(stores.asked) < TRIES


def test_tries_that_fail_slowly_count_against_the_time_of_an_object() -> None:
    """The first wait takes a tenth of a second at the least, and less than that is left."""

    class Slow(FakeStores):
        def get(self, start: int, end: int) -> ObjectBytes:
            time.sleep(0.2)
            return super().get(start, end)

    stores = Slow(BUSY)
    with pytest.raises(FetchError):
        fetcher_of(stores, timeout=0.3).open("https://h/a.tif")
    assert len(stores.asked) == 1


def test_what_another_reader_took_counts_against_the_time_of_an_object() -> None:
    found = fetcher_of(FakeStores(), timeout=100).open("https://h/a.tif")
    found.ask_again(1, 60)
    assert 30 < found.left < 40
