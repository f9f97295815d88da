"""Catalogs of a few records, and the items that an export makes of them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pystac.validation
import pytest
import shapely
import stac_geoparquet.arrow
import stac_pydantic
from specs import check_by_schema

from rastermeta_async import read_record
from rastermeta_async.catalog.formats import format_of
from rastermeta_async.footprints.rows import rows_with_footprints
from rastermeta_async.model.record import Record
from rastermeta_async.stac.items import ELECTRO_OPTICAL, FILE, PROJECTION, RASTER


def write_catalog(path: Path, records: Sequence[Record]) -> Path:
    with open(path, "wb") as file:
        groups = [pa.Table.from_batches([rows_with_footprints(records)])] if records else []
        format_of(str(path)).write(file, groups)
    return path


def catalog_of_files(path: Path, *files: Path | str) -> Path:
    """Return a catalog of files, which are read here."""
    return write_catalog(path, [read_record(os.fsencode(file)) for file in files])


def read_items(output: Path) -> list[dict[str, Any]]:
    if output.suffix == ".parquet":
        found = stac_geoparquet.arrow.stac_table_to_items(pq.read_table(output))
        return [_without_nulls(item) for item in found]
    # Not splitlines: it takes other characters for line ends, too.
    return [
        json.loads(line, parse_constant=pytest.fail) for line in output.read_text().split("\n")[:-1]
    ]


def _without_nulls(value: Any, name: str = "") -> Any:
    """Return what Parquet, which has each field in all rows, can tell of an item."""
    if isinstance(value, dict):
        kept = {"datetime", "proj:code"} if name == "properties" else set()
        return {
            key: _without_nulls(one, key)
            for key, one in value.items()
            if one is not None or key in kept
        }
    if isinstance(value, list):
        return [_without_nulls(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value


def check_item(item: dict[str, Any]) -> None:
    pystac.validation.validate_dict(item, extensions=[])  # the core schemas, which it brings along
    parsed = pystac.Item.from_dict(item)
    assert parsed.id == item["id"]
    stac_pydantic.Item.model_validate(item)
    check_by_schema(item, "stac-projection-2.0.0.schema.json")
    bands = [band for asset in item["assets"].values() for band in asset.get("bands", ())]
    used = {name.partition(":")[0] for band in bands for name in band if ":" in name}
    sized = any("file:size" in asset for asset in item["assets"].values())
    assert item["stac_extensions"] == [
        PROJECTION, *[RASTER] * ("raster" in used), *[ELECTRO_OPTICAL] * ("eo" in used),
        *[FILE] * sized,
    ]  # fmt: skip
    for prefix in used:
        check_by_schema(item, f"stac-{prefix}-2.0.0.schema.json")
    assert shapely.geometry.shape(item["geometry"]).is_valid
