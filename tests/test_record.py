from __future__ import annotations

import pytest
from factory import exact, failed, path_bytes, record, some_records, table
from hypothesis import given
from hypothesis import strategies as st

from rastermeta_async.model.record import (
    COLUMNS,
    MAX_MESSAGE,
    SCHEMA,
    SCHEMA_VERSION,
    VERSION_KEY,
    Band,
    Bounds,
    Record,
    describe_columns,
    failure,
    from_batch,
    path_columns,
    readable,
    to_batch,
)

# The columns of the usual batch script, which its users expect under the same names.
FAMILIAR = [
    "filepath",
    "status",
    "error_message",
    "crs",
    "bounds",
    "res",
    "count",
    "dtype",
    "nodata",
    "transform",
    "dataset_tags",
    "band_tags",
]
LATER = [
    "imagery_tags",
    "driver",
    "width",
    "height",
    "bands",
    "compression",
    "interleave",
    "photometric",
    "tiled",
    "cog",
    "cog_problems",
    "area_or_point",
    "gcp_count",
    "has_rpcs",
    "subdatasets",
    "missing_sources",
    "file_size",
    "mtime",
    "etag",
    "proj_code",
    "crs_wkt",
    "geometry",
    "bbox",
    "footprint",
    "reader",
]


def test_familiar_columns_come_first_in_their_order_then_the_others() -> None:
    own = [
        "filepath_bytes",
        "error_type",
        "nodata_text",
        "member",
        "subdataset",
        "time_start",
        "time_end",
    ]
    assert [name for name in SCHEMA.names if name not in own] == FAMILIAR + LATER
    assert set(own) <= set(SCHEMA.names)


def test_schema_is_the_declaration() -> None:
    assert list(Record._fields) == SCHEMA.names == list(COLUMNS)
    assert [field.type for field in SCHEMA] == [column.type for column in COLUMNS.values()]
    assert SCHEMA.metadata == {VERSION_KEY: str(SCHEMA_VERSION).encode()}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("filepath", "string"),
        ("filepath_bytes", "binary"),
        ("bounds", "struct<left: double, bottom: double, right: double, top: double>"),
        ("res", "list<item: double>"),
        ("count", "int32"),
        ("nodata", "double"),
        ("transform", "list<item: double>"),
        ("dataset_tags", "list<item: struct<key: string, value: string>>"),
        ("band_tags", "list<item: struct<band: int32, key: string, value: string>>"),
        ("imagery_tags", "list<item: struct<key: string, value: string>>"),
        ("file_size", "int64"),
        ("mtime", "timestamp[us, tz=UTC]"),
    ],
)
def test_types_are_native(name: str, kind: str) -> None:
    assert str(SCHEMA.field(name).type).startswith(kind)


def test_nested_types_are_the_declarations_of_their_rows() -> None:
    bounds, bands = SCHEMA.field("bounds").type, SCHEMA.field("bands").type.value_type
    assert [field.name for field in bounds] == list(Bounds._fields)
    assert [field.name for field in bands] == list(Band._fields)


def test_every_column_has_a_meaning_of_one_line() -> None:
    described = list(describe_columns())
    assert [name for name, _, _ in described] == SCHEMA.names
    assert [kind for _, kind, _ in described] == [str(field.type) for field in SCHEMA]
    assert all(meaning and "\n" not in meaning for _, _, meaning in described)


@given(st.lists(some_records(), max_size=4))
def test_records_round_trip(records: list[Record]) -> None:
    batch = to_batch(records)
    batch.validate(full=True)
    assert batch.schema.equals(SCHEMA, check_metadata=True)
    assert exact(list(from_batch(batch))) == exact(records)
    assert exact(list(from_batch(table(records)))) == exact(records)


@given(st.lists(some_records(), min_size=1, max_size=6), st.data())
def test_a_slice_holds_the_same_records(records: list[Record], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(records)))
    assert exact(list(from_batch(to_batch(records).slice(start)))) == exact(records[start:])


def test_nan_and_absence_stay_different() -> None:
    rows = list(from_batch(to_batch([record(nodata=float("nan")), record(nodata=None)])))
    assert rows[0].nodata != rows[0].nodata
    assert rows[1].nodata is None


def test_empty_and_absent_collections_stay_different() -> None:
    empty = record(dataset_tags={}, band_tags={}, bands=[], subdatasets=[])
    absent = record(dataset_tags=None, band_tags=None, bands=None, subdatasets=None)
    first, second = from_batch(to_batch([empty, absent]))
    assert (first.dataset_tags, first.band_tags, first.bands) == ({}, {}, [])
    assert (second.dataset_tags, second.band_tags, second.bands) == (None, None, None)


def test_tags_are_rows_in_the_order_of_the_file() -> None:
    tags = {3: {"b": "1", "a": "2"}, 1: {}, 2: {"b": "3"}}
    batch = to_batch([record(dataset_tags={"z": "1", "Z": "2"}, band_tags=tags)])
    assert batch["dataset_tags"][0].as_py() == [
        {"key": "z", "value": "1"}, {"key": "Z", "value": "2"}
    ]  # fmt: skip
    rows = batch["band_tags"][0].as_py()
    assert [tuple(row.values()) for row in rows] == [(3, "b", "1"), (3, "a", "2"), (2, "b", "3")]
    (found,) = from_batch(batch)
    assert found.band_tags == {3: {"b": "1", "a": "2"}, 2: {"b": "3"}}, "of bands that have any"


@pytest.mark.parametrize(
    ("path", "shown", "raw"),
    [
        (b"/a b\n.tif", "/a b\n.tif", None),
        ("/ä.tif".encode(), "/ä.tif", None),
        (b"/\xe4.tif", "/\\xe4.tif", b"/\xe4.tif"),
        (b"/\\xe4.tif", "/\\xe4.tif", None),
        (b"\xed\xb3\xa4", "\\xed\\xb3\\xa4", b"\xed\xb3\xa4"),  # a surrogate is no UTF-8
    ],
)
def test_path_columns(path: bytes, shown: str, raw: bytes | None) -> None:
    assert path_columns(path) == (shown, raw)


@given(st.binary())
def test_every_path_is_kept_exactly(path: bytes) -> None:
    shown, raw = path_columns(path)
    assert shown.encode() == path if raw is None else raw == path
    assert path_bytes(failed(path)) == path


def test_failure_has_its_reason_and_nothing_else() -> None:
    row = failure(b"/\xff", "fatal", "PermissionError", "denied")
    assert row[:5] == ("/\\xff", b"/\xff", "fatal", "PermissionError", "denied")
    assert set(row[5:]) == {None}


def test_a_long_message_is_cut() -> None:
    assert failure(b"a", "error", "E", "é" * MAX_MESSAGE).error_message == "é" * MAX_MESSAGE
    assert failure(b"a", "error", "E", "é" * 10**6).error_message == "é" * MAX_MESSAGE


@given(st.binary(max_size=50))
def test_a_message_of_any_bytes_is_storable(message: bytes) -> None:
    row = failure(b"a", "error", "E", message.decode("utf-8", "surrogateescape"))
    assert list(from_batch(to_batch([row]))) == [row]


def test_readable_shows_undecodable_bytes() -> None:
    assert readable(b"caf\xe9 \xc3\xa9".decode("utf-8", "surrogateescape")) == "caf\\xe9 é"


@pytest.mark.parametrize(
    ("status", "ok"), [("success", True), ("no_georef", True), ("error", False), ("fatal", False)]
)
def test_ok(status: str, ok: bool) -> None:
    assert record(status=status).ok is ok
