"""Many questions of a disk: one after the other where it is quick, many at once where it is far."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rastermeta_async.catalog import prune
from rastermeta_async.catalog.changes import stamp_of
from rastermeta_async.catalog.prune import Seen
from rastermeta_async.model.errors import PruneError, StuckError
from rastermeta_async.model.timeouts import AT_ONCE, BATCH, answers
from rastermeta_async.sources.walk import InputKind, kinds_of


class Disk:
    """Answers numbers with themselves; counts how many questions are under way at once."""

    def __init__(self, seconds: float = 0.0, hanging: set[int] | None = None) -> None:
        self.most = self.now = self.asked = 0
        self.threads: set[threading.Thread] = set()
        self.free = threading.Event()
        self._seconds = seconds
        self._hanging = hanging or set()
        self._lock = threading.Lock()

    def ask(self, number: int) -> int:
        with self._lock:
            self.now += 1
            self.asked += 1
            self.most = max(self.most, self.now)
            self.threads.add(threading.current_thread())
        if number in self._hanging:
            self.free.wait(20)
        if self._seconds:
            time.sleep(self._seconds)
        with self._lock:
            self.now -= 1
        return number


NUMBERS = range(BATCH)


def timed(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def test_a_quick_disk_is_asked_one_after_the_other_by_one_thread() -> None:
    def quick(number: int) -> int:
        threads.add(threading.current_thread())
        return number

    threads: set[threading.Thread] = set()
    assert answers(9, quick, NUMBERS) == [*NUMBERS]
    assert len(threads) == 1


def test_a_far_disk_is_asked_many_at_once_and_no_more_than_that() -> None:
    disk = Disk(0.01)
    assert timed(lambda: answers(9, disk.ask, NUMBERS)) < 0.01 * BATCH / 4
    assert AT_ONCE / 2 < disk.most <= AT_ONCE
    assert all(thread.daemon for thread in disk.threads)


def test_a_disk_that_becomes_slow_is_asked_many_at_once_from_then_on() -> None:
    disk = Disk(0.01)
    found = answers(9, lambda number: number if number < 500 else disk.ask(number), NUMBERS)
    assert found == [*NUMBERS]
    assert disk.most > AT_ONCE / 2


@pytest.mark.parametrize("hanging", [0, 1, 70, BATCH - 1])
def test_a_question_that_hangs_leaves_the_others_their_answers(hanging: int) -> None:
    disk = Disk(hanging={hanging})
    found: list[int | TimeoutError] = []
    assert timed(lambda: found.extend(answers(0.2, disk.ask, NUMBERS))) < 2
    assert [*map(str, found)] == [
        "no answer within 0.2 s" if number == hanging else str(number) for number in NUMBERS
    ]
    disk.free.set()


def test_questions_that_together_take_longer_than_one_may_are_answered() -> None:
    disk = Disk(0.03)
    assert answers(0.2, disk.ask, range(AT_ONCE * 9)) == [*range(AT_ONCE * 9)]


def test_where_all_hang_the_rest_is_not_asked_now_or_later() -> None:
    disk = Disk(hanging={*NUMBERS})
    assert timed(lambda: answers(0.05, disk.ask, NUMBERS)) < 2
    disk.free.set()
    for thread in disk.threads:
        thread.join(9)
    assert disk.asked == AT_ONCE


def test_where_the_system_starts_no_further_thread_those_there_are_ask_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starts, start = itertools.count(), threading.Thread.start

    def fail_from_the_third(thread: threading.Thread) -> None:
        if next(starts) > 1:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail_from_the_third)
    disk = Disk(0.001, hanging={3})
    found = answers(1, disk.ask, range(40))
    assert isinstance(found.pop(3), TimeoutError)
    assert found == [number for number in range(40) if number != 3]
    disk.free.set()


@pytest.mark.parametrize("seconds", [0.0, 0.01])
def test_what_a_question_raises_is_raised(seconds: float) -> None:
    def ask(number: int) -> int:
        time.sleep(seconds)
        if number == 100:
            raise MemoryError(number)
        return number

    with pytest.raises(MemoryError):
        answers(9, ask, NUMBERS)


def test_nothing_is_asked_of_nobody() -> None:
    assert answers(9, Disk().ask, []) == []


# Who asks.


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A disk that takes 10 ms to say what a name is, or to list a folder."""
    disk, stat, scandir = Disk(0.01), os.stat, os.scandir
    (tmp_path / "folder").mkdir()

    def slow_stat(path: bytes) -> os.stat_result:
        disk.ask(0)
        return stat(path)

    def slow_scandir(path: bytes) -> Iterator[os.DirEntry[bytes]]:
        disk.ask(0)
        return scandir(path)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "stat", slow_stat)
    monkeypatch.setattr(os, "scandir", slow_scandir)
    yield disk
    monkeypatch.undo()


MANY = 512
SECONDS = 0.01 * MANY / 2
"""Half of what it takes one after the other."""

ROWS = [Seen(b"%d/a.tif" % number, True, False) for number in range(MANY)]


def test_of_a_far_disk_many_files_are_asked_at_once_what_they_are(far: Disk) -> None:
    names = [b"folder", b"none"] * (MANY // 2)
    assert timed(lambda: kinds_of(names, 9)) < SECONDS
    assert kinds_of([b"folder", b"none"], 9) == [InputKind.FOLDER, InputKind.MISSING]


def test_of_a_far_disk_many_files_are_asked_at_once_whether_they_changed(far: Disk) -> None:
    assert timed(lambda: answers(9, stamp_of, [row.path for row in ROWS])) < SECONDS


def test_of_a_far_disk_many_files_are_asked_at_once_whether_they_are_gone(far: Disk) -> None:
    assert timed(lambda: [*prune.gone(ROWS, 9)]) < SECONDS
    there = Seen(os.path.abspath(b"."), True, True)
    assert [*prune.gone([ROWS[0], there, ROWS[1]], 9)] == [b"0/a.tif", b"1/a.tif"]


def test_of_a_far_disk_many_folders_are_asked_at_once_whether_they_are_lost(far: Disk) -> None:
    for number in range(MANY):
        os.mkdir(b"%d" % number)
        open(b"%d/b.tif" % number, "wb").close()
    assert timed(lambda: prune.check_folders(ROWS, 9)) < SECONDS
    asked = far.asked
    prune.check_folders([ROWS[0], ROWS[1]] * 99, 9)
    assert far.asked == asked + 2
    with pytest.raises(PruneError, match=r"e\.g\. none, nowhere\."):
        prune.check_folders([Seen(b"none/a", True, False), Seen(b"nowhere/a", True, False)], 9)


def test_a_disk_that_never_answers_ends_the_run_before_it_takes_all_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = threading.Event()
    before = threading.active_count()  # of earlier tests; they may end meanwhile
    monkeypatch.setattr("rastermeta_async.model.timeouts.MOST_THREADS", 20)
    try:
        with pytest.raises(StuckError, match="not answered"):
            for _ in range(10):
                answers(0.01, lambda _: free.wait(20), range(4))
        assert threading.active_count() <= before + 20
    finally:
        free.set()
