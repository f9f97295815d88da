"""Catalogs of many rows, made of the rows of a small one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rastermeta_async.catalog.formats import ParquetFormat
from rastermeta_async.model.record import SCHEMA

AT_ONCE = 16_384
WIDTH = 0.5
"""Degrees of a footprint."""

_POINTS = [(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)]


def write_catalog(path: Path, base: Path, rows: int, *, seed: int = 0) -> None:
    """Write a catalog of rows like those of another one, with other paths, places and sizes.

    A path tells the row that it was made of: ``/archive/COLLECTION/YEAR/TILE/NUMBER-NAME``.
    """
    random = np.random.default_rng(seed)
    table = pq.read_table(base).combine_chunks()

    def groups() -> Iterator[pa.Table]:
        for first in range(0, rows, AT_ONCE):
            yield _group(table, np.arange(first, min(rows, first + AT_ONCE)), random)

    with open(path, "wb") as file:
        ParquetFormat().write(file, groups())


def _group(base: pa.Table, numbers: Any, random: np.random.Generator) -> pa.Table:
    at = random.integers(0, len(base), len(numbers))
    rows = base.take(pa.array(at))
    names = [one.rpartition("/")[2] for one in rows["filepath"].to_pylist()]
    pairs = zip(numbers.tolist(), names, strict=True)
    paths = [f"/archive/c{n // 40_000:04}/y{n // 8_000 % 5}/t{n // 200 % 40:02}/{n:09}-{name}"
             for n, name in pairs]  # fmt: skip
    there = np.asarray(rows["bbox"].combine_chunks().is_valid())
    tile = numbers // 200 * 7
    west = -170 + tile * 1.3 % 339 + random.random(len(numbers))
    south = -80 + tile * 0.7 % 159 + random.random(len(numbers))
    sizes = np.where(there, (np.asarray(rows["file_size"]) * (1 + numbers % 3)), 0)
    columns = {
        "filepath": pa.array(paths),
        "filepath_bytes": pa.nulls(len(numbers), pa.binary()),
        "file_size": pa.array(sizes.astype(np.int64)),
        "geometry": _polygons(west, south, there),
        "bbox": pa.StructArray.from_arrays(
            [pa.array(one) for one in (west, south, west + WIDTH, south + WIDTH)],
            fields=list(SCHEMA.field("bbox").type), mask=pa.array(~there),
        ),
    }  # fmt: skip
    for name, column in columns.items():
        rows = rows.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), column)
    return rows.cast(SCHEMA).combine_chunks()


def _polygons(west: Any, south: Any, there: Any) -> pa.Array:
    """Return squares as WKB; null where there is none."""
    head = np.frombuffer(b"\x01\x03\0\0\0\x01\0\0\0\x05\0\0\0", np.uint8)
    points = np.array([[west + x * WIDTH, south + y * WIDTH] for x, y in _POINTS])
    body = np.ascontiguousarray(points.transpose(2, 0, 1)).astype("<f8").view(np.uint8)
    whole = np.concatenate([np.tile(head, (len(west), 1)), body.reshape(len(west), -1)], axis=1)
    shapes = [one.tobytes() if known else None for one, known in zip(whole, there, strict=True)]
    return pa.array(shapes, pa.binary())
