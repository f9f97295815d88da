from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from factory import paths_of, record, records_of, some_paths
from hypothesis import given
from hypothesis import strategies as st

from rastermeta_async.catalog import merge as merging
from rastermeta_async.catalog.merge import Batches, Pick, Run, crowded, merge, merge_many, overlap
from rastermeta_async.catalog.order import Keys
from rastermeta_async.model.record import to_batch
from rastermeta_async.model.row_ops import path_keys

Pieces = list[list[bytes]]
"""The batches of a run, as their paths."""

pytestmark = pytest.mark.usefixtures("nothing_stays_open")


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
        self.run = Run(min(keys, default=b""), max(keys, default=b""), len(keys), self.read)

    def read(self) -> Batches:
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


@given(some_runs())
def test_merge_takes_the_last_run_of_each_path_in_byte_order(runs: list[Pieces]) -> None:
    sources = opened(runs)
    assert outcome(list(merge(runs_of(sources)))) == model(runs)
    assert [source.open for source in sources] == [0] * len(runs)


def checked_merge(runs: Sequence[Run], keys_of: Keys = path_keys, *pick: Pick) -> Batches:
    """Merge, but not more runs at once than there may be."""
    assert overlap(runs)[0] <= merging.FAN_IN
    yield from merge(runs, keys_of, *pick)


@pytest.mark.campaign
@given(some_runs(most=12), st.sampled_from([2, 3]))
def test_merging_in_passes_gives_the_same(
    tmp_path_factory: pytest.TempPathFactory, runs: list[Pieces], fan_in: int
) -> None:
    scratch = str(tmp_path_factory.mktemp("scratch"))
    sources = opened(runs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "FAN_IN", fan_in)
        patch.setattr(merging, "merge", checked_merge)
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
        def read() -> Batches:
            nonlocal most
            for batch in source.read():
                most = max(most, sum(other.open for other in sources))
                yield batch

        return replace(source.run, open=read)

    rows = outcome(list(merge_many([watched(source) for source in sources], str(tmp_path))))
    assert rows[-1] == (b"x", number - 1)
    assert len(rows) == number + 1
    assert min(number, 2) <= most <= 3


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
    most, key = overlap([s.run for s, pieces in zip(sources, runs, strict=True) if _keys(pieces)])
    assert most == max(among, default=0)
    assert sum(a <= key <= b for a, b in spans) == most


def test_runs_one_after_another_are_merged_without_a_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "FAN_IN", 2)
    monkeypatch.setattr(merging, "stored", pytest.fail)
    sources = opened([[[b"%02d" % at, b"%02d+" % (at + 1)]] for at in reversed(range(20))])
    assert len(outcome(list(merge_many(runs_of(sources), str(tmp_path))))) == 40


def test_a_merge_left_early_closes_every_run() -> None:
    sources = opened([[[b"a"], [b"b"]], [[b"a"], [b"c"]]])
    merged = merge(runs_of(sources))
    next(merged)
    assert any(source.open for source in sources)
    assert isinstance(merged, Iterator)
    merged.close()
    assert [source.open for source in sources] == [0, 0]


def test_what_a_merge_holds_is_a_batch_a_run() -> None:
    taken = 0

    def counting(batches: int) -> Run:
        def read() -> Batches:
            nonlocal taken
            for at in range(batches):
                taken += 1
                yield to_batch([record(b"%04d" % at)])

        return Run(b"", None, batches, read)

    merged = merge([counting(100), counting(100)])
    for number in range(50):
        next(merged)
        assert taken <= 2 * (number + 2)


def sized(*rows: int, last: bytes | None = b"z") -> list[Run]:
    """Return runs that all lie over each other, of so many rows."""
    return [Run(b"a", last, number, lambda: pytest.fail("it is only planned")) for number in rows]


@pytest.mark.parametrize("number", [0, 1, merging.FAN_IN])
def test_few_runs_are_merged_as_they_are(number: int) -> None:
    assert crowded(sized(*[10] * number)) == []


def test_no_more_rows_are_written_again_than_has_to_be() -> None:
    catalog, updates = sized(10**8, last=None), sized(*[5000] * merging.FAN_IN)
    assert crowded(catalog + updates) == [slice(7, 9)]
    small = sized(*[5000] * 4, 10, 20, *[5000] * 2)
    assert crowded(catalog + small) == [slice(5, 7)]


def test_runs_that_lie_elsewhere_are_left_alone() -> None:
    folders = [
        Run(b"%03d" % at, b"%03d+" % at, 5000, lambda: pytest.fail("it is only planned"))
        for at in range(100)
    ]
    everywhere = [replace(run, first=b"") for run in sized(*[5000] * merging.FAN_IN)]
    slices = crowded(folders + everywhere)
    assert slices
    assert all(some.start >= len(folders) for some in slices)


@given(some_runs(most=30), st.sampled_from([2, 3, 5]))
def test_what_is_merged_first_are_slices_for_themselves(runs: list[Pieces], fan_in: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "FAN_IN", fan_in)
        planned = runs_of(opened(runs))
        slices = crowded(planned)
        assert bool(slices) == (overlap(planned)[0] > fan_in)
        taken = [at for some in slices for at in range(some.start, some.stop)]
        assert len(set(taken)) == len(taken)
        assert all(2 <= some.stop - some.start < len(planned) for some in slices)
        assert [some.start for some in slices] == sorted((s.start for s in slices), reverse=True)


def test_batches_do_not_grow_from_pass_to_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "FAN_IN", 2)
    monkeypatch.setattr(merging, "STORED_BYTES", 40_000)
    monkeypatch.setattr(merging, "STORED_ROWS", 3)
    sizes: list[tuple[int, int]] = []

    class Spied(merging._Cursor):
        def advance(self) -> None:
            super().advance()
            if self.batch is not None:
                sizes.append((self.batch.num_rows, self.batch.nbytes))

    monkeypatch.setattr(merging, "_Cursor", Spied)

    def run_of(at: int, tag: str) -> Run:
        rows = [record(b"%03d" % (40 * row + at), dataset_tags={"T": tag}) for row in range(2)]

        def read() -> Batches:
            yield to_batch(rows)

        return Run(b"", b"999", len(rows), read)

    for tag, most_rows in (("x" * 15_000, 2), ("x", 3)):
        sizes.clear()
        runs = [run_of(at, tag) for at in range(20)]
        assert len(outcome(list(merge_many(runs, str(tmp_path))))) == 40
        assert max(rows for rows, _ in sizes) == most_rows
        assert max(size for _, size in sizes) <= 40_000


@pytest.mark.parametrize("at", [0, 3, 9])
def test_a_merge_that_fails_leaves_nothing_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(merging, "FAN_IN", 2)

    def failing() -> Batches:
        yield to_batch([record(b"0")])
        raise OSError("no space left on device")

    runs = [replace(source.run, last=b"9") for source in opened([[[b"%d" % n]] for n in range(10)])]
    runs[at] = Run(b"", b"9", 1, failing)
    with pytest.raises(OSError, match="no space left"):
        list(merge_many(runs, str(tmp_path)))
    assert os.listdir(tmp_path) == []
