from __future__ import annotations

import pyarrow as pa
import pytest
from factory import failed, paths_of, record, records_of, some_paths, some_records, table
from hypothesis import given
from hypothesis import strategies as st

from rastermeta_async.model.record import SCHEMA, Record, to_batch
from rastermeta_async.model.row_ops import count_failures, newest, path_keys, row_bytes


@given(st.lists(st.binary() | some_paths, max_size=8), st.data())
def test_path_keys_are_the_bytes_given(paths: list[bytes], data: st.DataObject) -> None:
    batch = to_batch([failed(path) for path in paths])
    assert path_keys(batch).to_pylist() == paths
    assert path_keys(pa.Table.from_batches([batch, batch])).to_pylist() == paths * 2
    start = data.draw(st.integers(0, len(paths)))
    assert path_keys(batch.slice(start)).to_pylist() == paths[start:]


def test_path_keys_are_of_one_type() -> None:
    assert path_keys(to_batch([])).type == path_keys(to_batch([record()])).type == pa.binary()


@pytest.mark.campaign
@given(st.lists(some_records(), max_size=20), st.data())
def test_row_bytes_is_a_function_of_the_row_alone(
    records: list[Record], data: st.DataObject
) -> None:
    batch = to_batch(records)
    whole = row_bytes(batch).tolist()
    assert whole == [size for row in records for size in row_bytes(to_batch([row])).tolist()]
    start = data.draw(st.integers(0, len(records)))
    stop = data.draw(st.integers(start, len(records)))
    assert row_bytes(batch.slice(start, stop - start)).tolist() == whole[start:stop]


def test_row_bytes_does_not_depend_on_the_position() -> None:
    sizes = row_bytes(to_batch([record()] * 17)).tolist()
    assert sizes == sizes[:1] * 17


def test_row_bytes_after_selecting_rows() -> None:
    records = [record(b"%d" % at, dataset_tags={"k": "v" * at}) for at in range(20)]
    odd = to_batch(records).take(pa.array(range(1, 20, 2)))
    assert row_bytes(odd).tolist() == row_bytes(to_batch(records[1::2])).tolist()


@pytest.mark.parametrize(
    ("longer", "added"),
    [
        (record(b"/archive/a.tif" + b"x" * 1000), 1000),
        (record(dataset_tags={"AREA_OR_POINT": "Area" + "x" * 1000}), 1000),
        (record(band_tags={1: {"STATISTICS_MEAN": "1.5" + "x" * 1000}}), 1000),
        (record(imagery_tags={"SATELLITEID": "x" * 1000}), 1019),
        (record(error_message="x" * 1000), 1000),
        (record(subdatasets=["x" * 1000]), 1004),
    ],
)
def test_row_bytes_counts_what_is_long(longer: Record, added: int) -> None:
    plain, long = row_bytes(to_batch([record(), longer])).tolist()
    assert long - plain == added


def test_row_bytes_is_about_what_arrow_holds() -> None:
    batch = to_batch([record(b"%d" % at) for at in range(1000)])
    assert sum(row_bytes(batch).tolist()) == pytest.approx(batch.nbytes, rel=0.1)


@given(st.lists(st.lists(some_paths, max_size=6), max_size=4))
def test_newest_is_a_sorted_dictionary(chunks: list[list[bytes]]) -> None:
    numbered = list(enumerate(path for paths in chunks for path in paths))
    rows = [record(path, width=number) for number, path in numbered]
    batches, start = [], 0
    for paths in chunks:
        batches.append(to_batch(rows[start : start + len(paths)]))
        start += len(paths)
    ordered = newest(pa.Table.from_batches(batches, schema=SCHEMA))
    ordered.validate(full=True)
    found = [
        (path, row.width)
        for path, row in zip(paths_of([ordered]), records_of([ordered]), strict=True)
    ]
    assert found == sorted({path: number for number, path in numbered}.items())
    assert ordered.schema.equals(SCHEMA)


def test_newest_keeps_whole_rows() -> None:
    old, new, other = failed(b"/b"), record(b"/b"), record(b"/a\xff")
    assert records_of([newest(table([old, new, other]))]) == [other, new]


def test_failures_are_counted_by_status() -> None:
    rows = [record(), failed(), record(status="no_georef"), failed(status="fatal")]
    assert count_failures(table(rows)) == 2
    assert count_failures(table([])) == 0
