"""Two catalogs compared: what was added, is gone, or has changed."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import command
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from factory import MODIFIED, band, failed, record, some_records
from hypothesis import given, settings
from hypothesis import strategies as st

from rastermeta_async.catalog.difference import COMPARED, Difference, Pairs, paired
from rastermeta_async.catalog.formats import format_of
from rastermeta_async.catalog.order import keys_of
from rastermeta_async.footprints.rows import rows_with_footprints
from rastermeta_async.model.record import Record, differing_columns, to_batch
from rastermeta_async.model.settings import Order


def written(path: Path, records: Sequence[Record], order: Order = Order.PATH) -> Path:
    """Write a catalog of rows, sorted."""
    rows = rows_with_footprints(list(records))
    rows = rows.take(pc.array_sort_indices(keys_of(order)(rows)))
    with open(path, "wb") as file:
        format_of(str(path)).write(file, [pa.Table.from_batches([rows])], order)
    return path


def counted(old: Path, new: Path, scratch: Path) -> Difference:
    found = Difference()
    for pairs in paired(str(old), str(new), str(scratch)):
        found.add(pairs)
    return found


LATER = MODIFIED + dt.timedelta(seconds=1)
OLD = [record(b"/a"), record(b"/b"), record(b"/c", nodata=math.nan), record(b"/d"), failed(b"/e")]
NEW = [
    record(b"/a", reader="rasterio"), record(b"/b", file_size=99, mtime=LATER),
    record(b"/c", nodata=math.nan), record(b"/e"), record(b"/f", file_size=7),
    record(b"/\xff"),
]  # fmt: skip


@pytest.mark.parametrize("ending", [".parquet", ".ndjson", ".json"])
@pytest.mark.parametrize("order", [Order.PATH, Order.SPATIAL])
def test_files_are_added_gone_and_changed(tmp_path: Path, ending: str, order: Order) -> None:
    if order is Order.SPATIAL and ending != ".parquet":
        return
    old = written(tmp_path / f"old{ending}", OLD)
    new = written(tmp_path / f"new{ending}", NEW, order)
    found = counted(old, new, tmp_path)
    assert found.files == {"added": 2, "gone": 1, "changed": 2, "unchanged": 2}
    assert found.bytes["added"] == 7 + 1234
    assert found.bytes["gone"] == 1234
    assert (found.columns["file_size"], found.columns["mtime"], found.columns["crs"]) == (2, 2, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"new{ending}", f"old{ending}"]


def plain(value: Any) -> Any:
    """Return a value with one kind of NaN in it: bits are compared."""
    if isinstance(value, float):
        return math.nan if math.isnan(value) else value
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [plain(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


@settings(max_examples=40)
@given(st.lists(st.tuples(some_records(), some_records(), st.sampled_from(COMPARED)), max_size=5))
def test_rows_are_compared_as_records_are(rows: list[tuple[Record, Record, str]]) -> None:
    old = [plain(one._replace(filepath=f"{at}", filepath_bytes=None))
           for at, (one, _, _) in enumerate(rows)]  # fmt: skip
    new = [
        one._replace(**{name: plain(getattr(other, name))})
        for one, (_, other, name) in zip(old, rows, strict=True)
    ]
    partners = np.arange(len(rows), dtype=np.int64)
    found = Pairs(to_batch(old), to_batch(new), partners).changes
    expected: dict[str, list[int]] = {}
    for at, (one, other) in enumerate(zip(old, new, strict=True)):
        for name in differing_columns(one, other):
            expected.setdefault(name, []).append(at)
    assert {name: at.tolist() for name, at in found.items()} == expected


def test_a_difference_deep_in_a_row_is_found(tmp_path: Path) -> None:
    old = [record(b"/%03d" % n, bands=[band(), band(nodata=math.nan)]) for n in range(300)]
    new = list(old)
    new[123] = record(b"/123", bands=[band(), band(nodata=-0.0)])
    new[299] = record(b"/299", band_tags={1: {"STATISTICS_MEAN": "1.6"}}, bands=old[299].bands)
    found = counted(written(tmp_path / "o.parquet", old), written(tmp_path / "n.parquet", new),
                    tmp_path)  # fmt: skip
    assert found.files == {"changed": 2, "unchanged": 298}
    assert found.columns == {"bands": 1, "band_tags": 1}


def test_the_command_counts_lists_and_has_the_status_of_diff(tmp_path: Path) -> None:
    old, new = written(tmp_path / "old.parquet", OLD), written(tmp_path / "new.parquet", NEW)
    same = command.run(["diff", old, old])
    assert same.returncode == 0
    assert same.stdout.splitlines()[-1].split()[:2] == [b"unchanged", b"5"]
    done = command.run(["diff", old, new, "--json", "--list", tmp_path / "list.ndjson"])
    assert done.returncode == 1
    assert json.loads(done.stdout)["files"] == {"added": 2, "gone": 1, "changed": 2, "unchanged": 2}
    lines = [json.loads(line) for line in (tmp_path / "list.ndjson").read_text().splitlines()]
    by_path: dict[str, Any] = {line["filepath"]: line for line in lines}
    assert by_path["/b"]["old"]["file_size"] == 1234
    assert by_path["/b"]["new"] == {"file_size": 99, "mtime": "2024-02-29T12:30:16.123456Z"}
    assert by_path["/d"]["change"] == "gone"
    assert by_path["/\\xff"]["filepath_bytes"]
    again = command.run(["diff", old, new, "--list", tmp_path / "list.ndjson"])
    assert (again.returncode, b"exists; give --overwrite" in again.stderr) == (2, True)
    piped = command.run(["diff", old, new, "--list", "-"])
    assert len(piped.stdout.splitlines()) == len(lines) == 5
    assert b"2 added, 1 gone, 2 changed, 2 unchanged" in piped.stderr


@pytest.mark.parametrize("taken", ["old.parquet", "new.ndjson", "link.ndjson"])
def test_the_list_never_replaces_a_catalog(tmp_path: Path, taken: str) -> None:
    old, new = written(tmp_path / "old.parquet", OLD), written(tmp_path / "new.ndjson", NEW)
    (tmp_path / "link.ndjson").hardlink_to(new)
    before = old.read_bytes(), new.read_bytes()
    done = command.run(["diff", old, new, "--overwrite", "--list", tmp_path / taken])
    assert (done.returncode, b"is a catalog: give the output another name" in done.stderr) == (
        2,
        True,
    )
    assert (old.read_bytes(), new.read_bytes()) == before


def test_trouble_has_a_status_of_its_own(tmp_path: Path) -> None:
    old = written(tmp_path / "old.parquet", OLD)
    for other in (tmp_path / "none.parquet", tmp_path / "x.txt"):
        assert command.run(["diff", old, other]).returncode == 2
