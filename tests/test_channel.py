from __future__ import annotations

import asyncio

import pytest
from conftest import Run

from rastermeta_async.model.channels import Receiver, Sender, channel


async def turns(count: int = 20) -> None:
    """Let every other task get as far as it can."""
    for _ in range(count):
        await asyncio.sleep(0)


def ends(size: int) -> tuple[Sender[int], Receiver[int]]:
    return channel(size)


async def take(receiver: Receiver[int]) -> list[int]:
    return [item async for item in receiver]


def test_items_come_out_in_order_and_then_it_ends(run: Run) -> None:
    async def work() -> list[int]:
        sender, receiver = ends(2)
        taking = asyncio.create_task(take(receiver))
        for item in range(5):
            await sender.send(item)
        sender.close()
        return await taking

    assert run(work()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("size", [1, 3])
def test_a_full_channel_makes_the_sender_wait(run: Run, size: int) -> None:
    async def work() -> tuple[int, int]:
        sender, receiver = ends(size)
        sent = 0

        async def send() -> None:
            nonlocal sent
            for item in range(10):
                await sender.send(item)
                sent += 1

        sending = asyncio.create_task(send())
        await turns()
        before = sent
        await anext(aiter(receiver))
        await turns()
        after = sent
        sending.cancel()
        await asyncio.wait({sending})
        return before, after

    assert run(work()) == (size, size + 1)


def test_items_sent_before_closing_are_received(run: Run) -> None:
    async def work() -> list[int]:
        sender, receiver = ends(3)
        await sender.send(1)
        await sender.send(2)
        sender.close()
        return await take(receiver)

    assert run(work()) == [1, 2]


def test_closing_ends_every_receiver(run: Run) -> None:
    async def work() -> list[list[int]]:
        sender, receiver = ends(1)
        takers = [asyncio.create_task(take(receiver)) for _ in range(4)]
        for item in range(6):
            await sender.send(item)
        sender.close()
        return await asyncio.gather(*takers)

    taken = run(work())
    assert len(taken) == 4
    assert sorted(item for items in taken for item in items) == list(range(6))


def test_a_receiver_that_comes_late_ends_at_once(run: Run) -> None:
    async def work() -> list[list[int]]:
        sender, receiver = ends(1)
        sender.close()
        return [await take(receiver), await take(receiver)]

    assert run(work()) == [[], []]


def test_a_cancelled_receiver_loses_nothing(run: Run) -> None:
    async def work() -> list[int]:
        sender, receiver = ends(2)
        waiting = asyncio.create_task(take(receiver))
        await turns()
        waiting.cancel()
        await asyncio.wait({waiting})
        await sender.send(1)
        sender.close()
        return await take(receiver)

    assert run(work()) == [1]


def test_a_cancelled_sender_puts_nothing_in(run: Run) -> None:
    async def work() -> list[int]:
        sender, receiver = ends(1)
        await sender.send(1)
        waiting = asyncio.create_task(sender.send(2))
        await turns()
        waiting.cancel()
        await asyncio.wait({waiting})
        sender.close()
        return await take(receiver)

    assert run(work()) == [1]
