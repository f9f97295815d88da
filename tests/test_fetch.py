"""Ranged reads of objects: how much is read at first, and when it is given up."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from typing import Any

import pytest

from rastermeta_async.stores.fetch import MAX_HEAD_BYTES, TRIES, Fetcher, FetchError
from rastermeta_async.stores.oddkeys import Part
from rastermeta_async.tiff.header import HEAD_BYTES

SIZE = 1_000_000


class FakeStores:
    """Stores whose objects are all alike, and what was asked of them."""

    def __init__(self, *answers: Part | Exception) -> None:
        self.asked: list[tuple[int, int]] = []
        self._answers = itertools.cycle(answers or [Part(b"", SIZE, None, "tag")])

    def locate(self, _url: str) -> Any:
        return self

    async def get(self, start: int, end: int) -> Part:
        self.asked.append((start, end))
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


def fetcher_of(stores: FakeStores, timeout: float = 100) -> Fetcher:
    return Fetcher(stores, 8, timeout)  # type: ignore[arg-type]  # as far as it is used


def first_reads(missed: Iterable[int | None]) -> list[int]:
    """Return how many bytes of each object are read at first, given what is missed then."""
    stores = FakeStores()

    async def work() -> None:
        fetcher = fetcher_of(stores)
        for offset in missed:
            head = await fetcher.head("https://h/a.tif")
            if offset is not None:
                await fetcher.more(head, offset, 1000)

    asyncio.run(work())
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

    async def work() -> None:
        fetcher = fetcher_of(stores)
        await fetcher.more(await fetcher.head("https://h/a.tif"), SIZE - 10, 1000)

    asyncio.run(work())
    assert stores.asked[-1] == (SIZE - 10, SIZE)


@pytest.mark.parametrize(
    "other", [Part(b"", SIZE, None, "other"), Part(b"", SIZE + 1, None, "tag")]
)
@pytest.mark.parametrize("how", ["more", "again"])
def test_what_was_replaced_meanwhile_is_no_more_of_it(other: Part, how: str) -> None:
    stores = FakeStores(Part(b"x", SIZE, None, "tag"), other)

    async def work() -> None:
        fetcher = fetcher_of(stores)
        head = await fetcher.head("https://h/a.tif")
        await (fetcher.more(head, 50, 50) if how == "more" else fetcher.again(head, 1, 0))

    with pytest.raises(FetchError, match="it was replaced while it was being read"):
        asyncio.run(work())


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that are waited between tries; they take no time here."""
    waited: list[float] = []
    sleep = asyncio.sleep

    async def at_once(seconds: float) -> None:
        waited.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", at_once)
    return waited


BUSY = Exception("Server error with status code: 503")


@pytest.mark.parametrize("before", [0, 5])
def test_a_store_that_does_not_answer_well_is_asked_so_often_and_waited_for_longer_each_time(
    waits: list[float], before: int
) -> None:
    """Also where another reader has asked before."""
    stores = FakeStores(Part(b"x", SIZE, None, "tag"), *[BUSY] * TRIES)

    async def work() -> None:
        fetcher = fetcher_of(stores)
        head = await fetcher.head("https://h/a.tif")
        await (fetcher.again(head, before, 0) if before else fetcher.more(head, 50, 50))

    with pytest.raises(FetchError) as raised:
        asyncio.run(work())
    assert raised.value.tries == TRIES
    assert len(stores.asked) == 1 + TRIES - before
    assert len(waits) == TRIES - before - 1
    longest = [min(8.0, 0.2 * 2**number) for number in range(TRIES)][before:]
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=False))


def test_those_that_are_refused_together_do_not_come_back_together(waits: list[float]) -> None:
    async def work() -> None:
        fetcher = fetcher_of(FakeStores(BUSY, Part(b"x", SIZE, None, "tag")))
        for _ in range(20):
            await fetcher.head("https://h/a.tif")

    asyncio.run(work())
    assert len(set(waits)) == 20


def test_no_wait_is_longer_than_the_time_of_an_object(waits: list[float]) -> None:
    stores = FakeStores(BUSY)
    with pytest.raises(FetchError):
        asyncio.run(fetcher_of(stores, timeout=2).head("https://h/a.tif"))
    assert sum(waits) < 2
    assert len(stores.asked) < TRIES


def test_tries_that_fail_slowly_count_against_the_time_of_an_object() -> None:
    """The first wait takes a tenth of a second at the least, and less than that is left."""

    class Slow(FakeStores):
        async def get(self, start: int, end: int) -> Part:
            await asyncio.sleep(0.2)
            return await super().get(start, end)

    stores = Slow(BUSY)
    with pytest.raises(FetchError):
        asyncio.run(fetcher_of(stores, timeout=0.3).head("https://h/a.tif"))
    assert len(stores.asked) == 1


def test_what_another_reader_took_counts_against_the_time_of_an_object() -> None:
    async def work() -> float:
        fetcher = fetcher_of(FakeStores(), timeout=100)
        return (await fetcher.again(await fetcher.head("https://h/a.tif"), 1, 60)).left

    assert 30 < asyncio.run(work()) < 40


def test_good_answers_let_more_be_asked_at_once() -> None:
    async def work() -> tuple[float, float]:
        fetcher = Fetcher(FakeStores(), 100, 100)  # type: ignore[arg-type]  # as far as it is used
        before = fetcher.throttle.limit
        for _ in range(10):
            await fetcher.head("https://h/a.tif")
        return before, fetcher.throttle.limit

    before, after = asyncio.run(work())
    assert after > before
