from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from factory import paths_of, record, records_of, some_paths
from hypothesis import given, settings
from hypothesis import strategies as st

from rastermeta_async.catalog import merge as merging
from rastermeta_async.catalog.merge import Run, merge, merge_many, overlap
from rastermeta_async.record import to_batch

Pieces = list[list[bytes]]
"""The batches of a run, as their paths."""


@st.composite
def some_runs(draw: st.DrawFn, most: int = 8) -> list[Pieces]:
    """Draw runs in path order, no path twice, cut into batches that may be empty."""
    runs = []
    for paths in draw(st.lists(st.sets(some_paths, max_size=8), max_size=most)):
        ordered = sorted(paths)
        cuts = sorted(draw(st.lists(st.integers(0, len(ordered)), max_size=4)))
        ends = [0, *cuts, len(ordered)]
        runs.append([ordered[a:b] for a, b in itertools.pairwise(ends)])
    return runs


class Opened:
    """A run in memory that counts how often it is open."""

    def __init__(self, number: int, pieces: Pieces) -> None:
        self._batches = [
            to_batch([record(path, width=number) for path in paths]) for paths in pieces
        ]
        self.open = 0
        self.opened = 0

        keys = _keys(pieces)
        self.run = Run(min(keys, default=b""), max(keys, default=b""), self.read)

    def read(self) -> Iterator[pa.RecordBatch]:
        self.open += 1
        self.opened += 1
        try:
            yield from self._batches
        finally:
            self.open -= 1


def opened(runs: Sequence[Pieces]) -> list[Opened]:
    return [Opened(number, pieces) for number, pieces in enumerate(runs)]


def runs_of(sources: Sequence[Opened]) -> list[Run]:
    return [source.run for source in sources]


def _keys(pieces: Pieces) -> list[bytes]:
    return [path for paths in pieces for path in paths]


def model(runs: Sequence[Pieces]) -> list[tuple[bytes, int]]:
    """Return (path, run) of the rows that have to come out, in their order."""
    newest = {
        path: number for number, pieces in enumerate(runs) for paths in pieces for path in paths
    }
    return sorted(newest.items())


def outcome(batches: Sequence[pa.RecordBatch]) -> list[tuple[bytes, int | None]]:
    widths = [row.width for row in records_of(batches)]
    return list(zip(paths_of(batches), widths, strict=True))


@settings(deadline=None)
@given(some_runs())
def test_merge_takes_the_last_run_of_each_path_in_byte_order(runs: list[Pieces]) -> None:
    sources = opened(runs)
    assert outcome(list(merge(runs_of(sources)))) == model(runs)
    assert [source.open for source in sources] == [0] * len(runs)


@settings(deadline=None)
@given(some_runs(most=12), st.sampled_from([2, 3]))
def test_merging_in_passes_gives_the_same(
    tmp_path_factory: pytest.TempPathFactory, runs: list[Pieces], fan_in: int
) -> None:
    scratch = str(tmp_path_factory.mktemp("scratch"))
    sources = opened(runs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "FAN_IN", fan_in)
        assert outcome(list(merge_many(runs_of(sources), scratch))) == model(runs)
    assert os.listdir(scratch) == []
    assert [(source.open, source.opened) for source in sources] == [(0, 1)] * len(runs)


def test_paths_that_are_no_utf8_are_in_byte_order() -> None:
    paths = [b"a", b"a\xff", b"b", "ä".encode(), b"\\xff", b"\x7f", b"\x80", b"\xff", b"\xff\xff"]
    runs = [[[path]] for path in reversed(paths)]
    assert paths_of(list(merge(runs_of(opened(runs))))) == sorted(paths)


def test_a_path_and_the_readable_form_of_another_are_two_rows() -> None:
    assert outcome(list(merge(runs_of(opened([[[b"\xff"]], [[b"\\xff"]]]))))) == [
        (b"\\xff", 1),
        (b"\xff", 0),
    ]


@pytest.mark.parametrize("runs", [[], [[]], [[[]], [[], []]]], ids=["none", "empty", "no-rows"])
def test_no_rows(runs: list[Pieces], tmp_path: Path) -> None:
    assert list(merge_many(runs_of(opened(runs)), str(tmp_path))) == []


@pytest.mark.parametrize("number", [1, 3, 4, 9, 10, 28])
def test_at_most_fan_in_runs_are_open_at_once(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "FAN_IN", 3)
    sources = opened([[[b"%02d" % at, b"x"]] for at in range(number)])
    most = 0

    def watched(source: Opened) -> Run:
        def read() -> Iterator[pa.RecordBatch]:
            nonlocal most
            for batch in source.read():
                most = max(most, sum(other.open for other in sources))
                yield batch

        return Run(source.run.first, source.run.last, read)

    rows = outcome(list(merge_many([watched(source) for source in sources], str(tmp_path))))
    assert rows[-1] == (b"x", number - 1)
    assert len(rows) == number + 1
    assert min(number, 2) <= most <= 3


@settings(deadline=None)
@given(some_runs())
def test_a_run_is_open_only_while_rows_between_its_ends_are_merged(runs: list[Pieces]) -> None:
    sources = opened(runs)
    for batch in merge(runs_of(sources)):
        paths = paths_of([batch])
        for source in sources:
            assert not source.open or source.run.first <= paths[-1]
            assert source.opened or source.run.first > paths[-1]
    spans = [(min(keys), max(keys)) for keys in map(_keys, runs) if keys]
    among = [sum(a <= key <= b for a, b in spans) for pieces in runs for key in _keys(pieces)]
    assert overlap(
        [s.run for s, pieces in zip(sources, runs, strict=True) if _keys(pieces)]
    ) == max(among, default=0)


def test_runs_one_after_another_are_merged_without_a_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "FAN_IN", 2)
    monkeypatch.setattr(merging, "_store", pytest.fail)
    sources = opened([[[b"%02d" % at, b"%02d+" % (at + 1)]] for at in reversed(range(20))])
    assert len(outcome(list(merge_many(runs_of(sources), str(tmp_path))))) == 40


def test_a_merge_left_early_closes_every_run() -> None:
    sources = opened([[[b"a"], [b"b"]], [[b"a"], [b"c"]]])
    merged = merge(runs_of(sources))
    next(merged)
    assert any(source.open for source in sources)
    assert isinstance(merged, Iterator)
    merged.close()  # type: ignore[attr-defined]  # a generator
    assert [source.open for source in sources] == [0, 0]


def test_what_a_merge_holds_is_a_batch_a_run() -> None:
    taken = 0

    def counting(batches: int) -> Run:
        def read() -> Iterator[pa.RecordBatch]:
            nonlocal taken
            for at in range(batches):
                taken += 1
                yield to_batch([record(b"%04d" % at)])

        return Run(b"", None, read)

    merged = merge([counting(100), counting(100)])
    for number in range(50):
        next(merged)
        assert taken <= 2 * (number + 2)
