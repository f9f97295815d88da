"""Catalogs made from a few records."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import shapely
from factory import record, table

from rastermeta_async.catalog.checkpoint import Part
from rastermeta_async.catalog.output import Output, Totals
from rastermeta_async.model.record import BBox, Record
from rastermeta_async.model.settings import Order


def at(path: bytes, west: float, south: float) -> Record:
    """Return the record of a raster of a tenth of a degree."""
    box = BBox(west, south, west + 0.1, south + 0.1)
    return record(path, bbox=box, geometry=shapely.to_wkb(shapely.box(*box), byte_order=1))


def some_rows(count: int) -> list[Record]:
    dice = random.Random(1)
    places = [(dice.uniform(-180, 179), dice.uniform(-90, 89)) for _ in range(count)]
    return [at(b"/%06d.tif" % number, *place) for number, place in enumerate(places)]


def commit(output: Output, *batches: Sequence[Record]) -> list[Part]:
    """Have an output keep some batches."""
    parts = []
    for rows in batches:
        part = output.sink.commit(table(rows))
        output.log.append(part)
        parts.append(part)
    return parts


def seal(catalog: Path, *batches: list[Record], order: Order | None = Order.NONE) -> Totals:
    """Add batches to a catalog, new or not, and finish it."""
    output = Output(str(catalog), order=order)
    try:
        commit(output, *batches)
        return output.seal()
    finally:
        output.close()
