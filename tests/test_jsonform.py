from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from factory import MODIFIED, band, exact, failed, record, records_of, some_records
from hypothesis import given
from hypothesis import strategies as st

from rastermeta_async.catalog.json_rows import from_lines, row_objects, to_lines
from rastermeta_async.model.record import SCHEMA, Bounds, Record, to_batch


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def only_row(row: Record) -> dict[str, Any]:
    (line,) = to_lines(to_batch([row]))
    fields = strict(line)
    assert isinstance(fields, dict)
    return fields


@given(st.lists(some_records(), max_size=3))
def test_lines_round_trip(records: list[Record]) -> None:
    lines = list(to_lines(to_batch(records)))
    assert len(lines) == len(records)
    batch = from_lines(lines)
    assert batch.schema.equals(SCHEMA, check_metadata=True)
    assert exact(records_of([batch])) == exact(records)


@given(some_records())
def test_lines_are_strict_json_on_one_line_and_in_utf8(row: Record) -> None:
    (line,) = to_lines(to_batch([row]))
    assert "\n" not in line
    assert "\r" not in line
    fields = strict(line.encode().decode())
    assert list(fields) == SCHEMA.names


@pytest.mark.parametrize(
    ("number", "text"), [(float("nan"), "nan"), (float("inf"), "inf"), (float("-inf"), "-inf")]
)
def test_numbers_that_json_lacks_are_strings(number: float, text: str) -> None:
    fields = only_row(record(res=(number, 1.0), bounds=Bounds(0.0, number, 1.0, 2.0)))
    assert fields["res"] == [text, 1.0]
    assert fields["bounds"]["bottom"] == text


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_a_nodata_is_a_number_or_null_and_a_text_tells_which(text: str) -> None:
    nodata: dict[str, Any] = {"nodata": float(text), "nodata_text": text}
    row = record(bands=[band(**nodata), band()], **nodata)
    fields = only_row(row)
    shown = [(one["nodata"], one["nodata_text"]) for one in (fields, *fields["bands"])]
    assert shown == [(None, text), (None, text), (255.0, None)]
    assert exact(records_of([from_lines(to_lines(to_batch([row])))])) == exact([row])
    absent = only_row(record(nodata=None))
    assert (absent["nodata"], absent["nodata_text"]) == (None, None)
    (found,) = from_lines(to_lines(to_batch([row])), ["nodata"]).to_pylist()
    assert repr(found["nodata"]) == text


def test_a_nodata_that_is_no_double_is_a_text_beside_it() -> None:
    """A JSON number is a double to most that read it, so the text is what keeps the value."""
    fields = only_row(record(bands=[band(nodata=2.0**64, nodata_text=str(2**64 - 1))]))
    assert fields["bands"][0]["nodata"] == 2**64
    assert fields["bands"][0]["nodata_text"] == "18446744073709551615"


def test_floats_keep_every_bit() -> None:
    transform = (0.1 + 0.2, 1e-300, -0.0, 5e-324, 1 / 3, 1.7976931348623157e308)
    assert exact(tuple(only_row(record(transform=transform))["transform"])) == exact(transform)


def test_structs_and_tags_are_objects() -> None:
    fields = only_row(
        record(dataset_tags={"b": "1", "a": "2"}, band_tags={2: {"k": "v"}, 10: {"a": ""}})
    )
    assert fields["bounds"] == {
        "left": 300000.0, "bottom": 5000000.0, "right": 300010.5, "top": 5000021.0
    }  # fmt: skip
    assert list(fields["dataset_tags"].items()) == [("b", "1"), ("a", "2")]
    assert fields["band_tags"] == {"2": {"k": "v"}, "10": {"a": ""}}
    assert fields["bands"][0]["overviews"] == [2, 4]


def test_exact_bytes_of_a_path_are_base64() -> None:
    fields = only_row(failed(b"/\xff\x00\n"))
    assert base64.b64decode(fields["filepath_bytes"], validate=True) == b"/\xff\x00\n"
    assert fields["filepath"] == "/\\xff\x00\n"
    assert only_row(failed("/ä".encode()))["filepath_bytes"] is None


def test_times_are_iso_8601_in_utc() -> None:
    assert only_row(record(mtime=MODIFIED))["mtime"] == "2024-02-29T12:30:15.123456Z"
    assert (
        only_row(record(mtime=MODIFIED.replace(microsecond=0)))["mtime"] == "2024-02-29T12:30:15Z"
    )


def test_absent_is_null_and_still_there() -> None:
    fields = only_row(failed())
    assert list(fields) == SCHEMA.names
    assert {fields[name] for name in SCHEMA.names[5:]} == {None}


def test_text_is_not_escaped_beyond_need() -> None:
    (line,) = to_lines(to_batch([record("/ä\u2028.tif".encode())]))
    assert "/ä\u2028.tif" in line


def test_row_objects_are_what_the_lines_hold() -> None:
    batch = to_batch([record(), failed()])
    assert [strict(line) for line in to_lines(batch)] == list(row_objects(batch))
