"""Sorting rows anew: partitions by range of their keys, in bounded memory."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from catalogs import some_rows
from factory import paths_of, record, table

from rastermeta_async.catalog import resort
from rastermeta_async.catalog.merge import STORED_BYTES, Batches, Run, merge_many
from rastermeta_async.catalog.order import keys_of
from rastermeta_async.catalog.resort import resorted
from rastermeta_async.model.record import Record, to_batch
from rastermeta_async.model.row_ops import path_keys
from rastermeta_async.model.settings import Order


def in_order(rows: Sequence[Record], order: Order, folder: Path, sample: int = 1) -> list[bytes]:
    """Return the paths of rows as they are sorted; every so many keys are a sample."""
    keys = keys_of(order)
    some: list[bytes] = keys(table(rows)).to_pylist()[::sample]
    batches = table(rows).to_batches(max_chunksize=9)
    found = pa.Table.from_batches(resorted(batches, some, len(rows), str(folder), keys))
    assert [*folder.iterdir()] == []
    sorted_keys = keys(found).to_pylist()
    assert sorted_keys == sorted(sorted_keys)
    return paths_of([found])


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize(("partition", "sample"), [(7, 1), (7, 3), (1, 1), (40, 10), (1000, 1)])
def test_sorting_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: Order, partition: int, sample: int
) -> None:
    """In one partition and in many, some of which are partitioned again."""
    monkeypatch.setattr(resort, "PARTITION_ROWS", partition)
    monkeypatch.setattr(resort, "MAX_PARTITIONS", 4)
    rows = some_rows(100)
    random.Random(2).shuffle(rows)
    assert sorted(in_order(rows, order, tmp_path, sample)) == sorted(paths_of([table(rows)]))


@pytest.mark.parametrize("sample", [[], [b"zz"] * 9, [b"", b"00", b"05"]])
def test_a_poor_sample_costs_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample: list[bytes]
) -> None:
    monkeypatch.setattr(resort, "PARTITION_ROWS", 2)
    monkeypatch.setattr(resort, "RUN_ROWS", 3)
    names = [b"%02d" % (at * 7 % 20) for at in range(20)]
    rows = table([record(name) for name in names]).to_batches()
    assert paths_of([*resorted(rows, sample, 20, str(tmp_path), path_keys)]) == sorted(names)


def test_no_rows_are_none(tmp_path: Path) -> None:
    assert list(resorted([], [], 0, str(tmp_path), path_keys)) == []


def test_what_memory_may_not_hold_is_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where one place has more rows than a partition may, or rows are very large."""
    seen: list[Sequence[Run]] = []

    def spied(runs: Sequence[Run], *others: object) -> Batches:
        seen.append(runs)
        yield from merge_many(runs, *others)  # type: ignore[arg-type]  # as they are

    monkeypatch.setattr(resort, "merge_many", spied)
    monkeypatch.setattr(resort, "RUN_ROWS", 4)
    names = [b"%02d" % (at * 7 % 10) for at in range(10)]
    rows = [to_batch([record(name)]) for name in names]
    assert paths_of([*resorted(rows, [], 10, str(tmp_path), path_keys)]) == sorted(names)
    monkeypatch.setattr(resort, "RUN_ROWS", 100)
    monkeypatch.setattr(resort, "RUN_BYTES", 1)
    assert paths_of([*resorted(rows, [], 10, str(tmp_path), path_keys)]) == sorted(names)
    assert [[run.rows for run in runs] for runs in seen] == [[4, 4, 2], [1] * 10]
    assert os.listdir(tmp_path) == []


def test_a_row_larger_than_what_is_stored_at_once_is_sorted(tmp_path: Path) -> None:
    large = record(b"b", dataset_tags={"k": "v" * 2 * STORED_BYTES})
    rows = [to_batch([large]), to_batch([record(b"a")])]
    assert paths_of([*resorted(rows, [b"b"], 2, str(tmp_path), path_keys)]) == [b"a", b"b"]


def test_what_was_read_takes_no_room_on_the_disk_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resort, "PARTITION_ROWS", 4)
    names = [b"%02d" % at for at in range(12)]
    rows = [to_batch([record(name)]) for name in names]
    left = [
        sum(at.is_file() for at in tmp_path.rglob("*"))
        for _ in resorted(rows, names, 12, str(tmp_path), path_keys)
    ]
    assert left == [2, 1, 0]
