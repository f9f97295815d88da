"""How many requests are under way at once: more while all is well, fewer when a store objects."""

from __future__ import annotations

import asyncio

import pytest

from rastermeta_async.permits import Stopped
from rastermeta_async.stores.throttle import LEAST, START, Throttle


def test_it_grows_to_its_ceiling_while_answers_come_quickly() -> None:
    throttle = Throttle(100)
    assert throttle.limit == START
    for _ in range(1000):
        throttle.answered(0.03)
    assert throttle.limit == 100


def test_slow_answers_end_the_growth() -> None:
    throttle = Throttle(1000)
    for _ in range(50):
        throttle.answered(0.03)
    before = throttle.limit
    for _ in range(1000):
        throttle.answered(0.3)
    assert throttle.limit == before  # whatever their number


def test_refusals_halve_it_once_a_round_down_to_the_least() -> None:
    async def refuse() -> list[float]:
        throttle = Throttle(64)
        for _ in range(100):
            throttle.answered(0.001)
        limits = [throttle.limit]
        for _ in range(8):
            for _ in range(20):  # of one round: they were all sent before
                throttle.refused()
            limits.append(throttle.limit)
            await asyncio.sleep(0.06)
        return limits

    limits = asyncio.run(refuse())
    assert limits[:4] == [64, 32, 16, 8]
    assert limits[-1] == LEAST


def test_after_a_refusal_it_grows_slowly() -> None:
    """By one for as many answers as are under way at once, not by one for each."""
    throttle = Throttle(1000)
    for _ in range(50):
        throttle.answered(0.01)
    throttle.refused()
    before = throttle.limit
    for _ in range(int(before)):
        throttle.answered(0.01)
    assert before < throttle.limit <= before + 1


def test_a_store_that_has_become_slower_is_soon_asked_more_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr("rastermeta_async.stores.throttle.time.monotonic", lambda: now)
    throttle = Throttle(1000)
    for _ in range(10):
        throttle.answered(0.03)
    before = throttle.limit
    for _ in range(600):
        now += 1.0
        throttle.answered(0.3)
    assert throttle.limit > before


def test_never_more_than_the_ceiling_and_those_who_give_up_free_their_place() -> None:
    async def crowd() -> tuple[int, int]:
        throttle = Throttle(3)
        most = 0

        async def request() -> None:
            nonlocal most
            async with throttle:
                most = max(most, throttle.under_way)
                await asyncio.sleep(0.001)
            throttle.answered(0.001)

        tasks = [asyncio.create_task(request()) for _ in range(50)]
        await asyncio.sleep(0.002)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return most, throttle.under_way

    assert asyncio.run(crowd()) == (3, 0)


def test_stopped_it_sends_nobody_on() -> None:
    async def work() -> list[object]:
        throttle = Throttle(1)

        async def ask(seconds: float) -> str:
            async with throttle:
                await asyncio.sleep(seconds)
                return "answered"

        asking = [asyncio.create_task(ask(0.05)) for _ in range(3)]
        await asyncio.sleep(0.01)
        throttle.stop()
        asking.append(asyncio.create_task(ask(0)))
        return [*await asyncio.gather(*asking, return_exceptions=True)]

    first, *others = asyncio.run(work())
    assert first == "answered"
    assert [type(other) for other in others] == [Stopped] * 3


def test_who_gives_up_as_its_turn_comes_passes_it_on() -> None:
    async def work() -> int:
        throttle = Throttle(1)

        async def ask() -> None:
            async with throttle:
                pass

        async with throttle:
            first, second = (asyncio.create_task(ask()) for _ in range(2))
            await asyncio.sleep(0)
        first.cancel()  # it has the place, but has not run since
        await asyncio.wait_for(second, 5)
        assert first.cancelled()
        return throttle.under_way

    assert asyncio.run(work()) == 0
