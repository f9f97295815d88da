"""How many files are read at once: found out from how it goes."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from rastermeta_async.pools.concurrency import Tuner

LOOK = 0.025
CPU = 65e-6
"""Seconds of a CPU that a header takes."""


@dataclass
class Disk:
    """Files that are read: how fast, with so many at once."""

    seconds: float
    """That a file waits for the disk."""
    most: float = float("inf")
    """Files a second that the disk can give."""
    cpu: float = CPU
    share: float = 1.0
    """Of a CPU that the process gets."""
    contention: float = 0.002
    """Loss by each further thread, where they compute."""

    def costs(self, limit: int) -> float:
        """Return the seconds of a CPU for a file, where so many threads compute."""
        return self.cpu * (1 + self.contention * (limit - 1))

    def rate(self, limit: int) -> float:
        computing = self.share / self.costs(limit)
        return min(limit / (self.seconds + self.cpu / self.share), self.most, computing)

    def idle(self, limit: int) -> float:
        """Return the share of its time that a thread waits, but not for a CPU."""
        return 1 - self.rate(limit) / limit * self.cpu / self.share

    def best(self, ceiling: int) -> float:
        return max(self.rate(limit) for limit in range(1, ceiling + 1))


class Run:
    """A tuner over time."""

    def __init__(self, ceiling: int = 256) -> None:
        self.now = 0.0
        self.tuner = Tuner(ceiling, lambda: self.now)
        self._random = random.Random(1)
        self._rest = 0.0

    def read(self, disk: Disk, seconds: float) -> float:
        """Read for some time; return files a second."""
        total, end = 0.0, self.now + seconds
        while self.now < end:
            self.now += LOOK
            done = LOOK * disk.rate(self.tuner.limit) * self._random.uniform(0.95, 1.05)
            self._rest += done
            files, self._rest = int(self._rest), self._rest % 1
            limit = self.tuner.limit
            self.tuner.note(LOOK, files, done * disk.costs(limit), LOOK * disk.idle(limit))
            total += done
        return total / seconds


DISKS = {
    "warm": Disk(0),
    "warm, the CPU is shared": Disk(0, share=0.7),
    "warm, the CPU is wanted by many": Disk(0, share=0.2),
    "warm, and threads hinder each other": Disk(0, share=0.3, contention=0.2),
    "cold, local": Disk(0.0004),
    "1 ms": Disk(0.002),
    "10 ms": Disk(0.02),
    "50 ms": Disk(0.1),
    "369 ms": Disk(0.369),
    "far, by GDAL": Disk(0.03, cpu=600e-6),
    "a server of 16 threads": Disk(0.01, most=1600),
    "one arm": Disk(0.008, most=300),
}


@pytest.mark.parametrize("name", DISKS)
def test_nearly_as_fast_as_the_best_fixed_number(name: str) -> None:
    run, disk = Run(), DISKS[name]
    run.read(disk, 3)
    assert run.read(disk, 10) > 0.85 * disk.best(256)


@pytest.mark.parametrize("name", DISKS)
def test_no_more_at_once_than_help(name: str) -> None:
    run, disk = Run(), DISKS[name]
    run.read(disk, 30)
    needed = min(limit for limit in range(1, 257) if disk.rate(limit) > 0.85 * disk.best(256))
    assert run.tuner.limit <= 3 * needed + 1


def test_a_far_disk_is_read_at_once_by_many_within_half_a_second() -> None:
    run = Run()
    run.read(Disk(0.02), 0.5)
    assert run.tuner.limit > 100


@pytest.mark.parametrize("after", [5.0, 50.0])
def test_a_disk_that_becomes_slow_and_fast_again_is_followed_within_seconds(after: float) -> None:
    run, fast, slow = Run(), Disk(0.002), Disk(0.2)
    run.read(fast, after)
    run.read(slow, 3)
    assert run.read(slow, 3) > 0.8 * slow.best(256)
    run.read(slow, after)
    run.read(fast, 3)
    assert run.read(fast, 3) > 0.8 * fast.best(256)


def test_files_that_do_not_answer_are_read_beside_others() -> None:
    run = Run()
    run.read(Disk(1e9), 3.5)
    assert run.tuner.limit == 256


@pytest.mark.parametrize("ceiling", [1, 7, 64])
def test_the_ceiling_holds(ceiling: int) -> None:
    run = Run(ceiling)
    run.read(Disk(0.02), 5)
    assert run.tuner.limit == ceiling


def test_what_is_forgotten_decides_nothing() -> None:
    tuner = Tuner(256)
    for _ in range(100):
        assert tuner.note(0.04, 100, 0.0, 0.04) == 1
        tuner.forget()
