"""Write items as a table: stac-geoparquet.

The columns are the fields in use, and only they; so the items are written after all were seen.

References: stac-geoparquet 1.0.0 ("Schema", "Metadata"); GeoParquet 1.1.0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from rastermeta_async.catalog.formats import Extent
from rastermeta_async.model.errors import MissingExtraError, SettingsError
from rastermeta_async.model.machine import allow_import

PARQUET_KEY = "stac-geoparquet"
"""Key in a Parquet file's metadata; if present, the rows are items."""

_GROUP_ROWS, _GROUP_BYTES = 4096, 8 * 1024 * 1024

_MOST_ASSETS = 500
"""Most names of assets; each one is a column of some thirty fields."""

_EXAMPLE = {
    "type": "Feature", "stac_version": "", "stac_extensions": [""], "id": "",
    "geometry": {"type": "Point", "coordinates": [0, 0]}, "bbox": [0.0, 0.0, 0.0, 0.0],
    "properties": {"datetime": "1970-01-01T00:00:00Z"}, "links": [], "assets": {},
}  # fmt: skip
"""An item with the fields that every item has."""

_ASSET = {"href": "", "roles": [""]}
"""An asset with the fields that every asset has."""


class ItemTable:
    """Collects the fields of items, then writes the items.

    Raises:
        MissingExtraError: stac-geoparquet is not installed.
    """

    def __init__(self) -> None:
        self._parse = _parser()
        self._examples: list[dict[str, Any]] = [_EXAMPLE]
        """Items with all fields in use, and all types of their values."""
        self._known: set[tuple[str, str, type]] = set()
        """Where a field is in the examples, its name, and the type of its value."""
        self._assets: set[str] = set()

    def add(self, item: dict[str, Any]) -> None:
        """Note the fields of an item.

        Raises:
            SettingsError: the items have too many names of assets for a table.
        """
        parts = {"item": item, "properties": item["properties"]}
        news = sum(self._is_new(*part) for part in parts.items())  # of each: no `any`
        assets = {}
        for key, asset in item["assets"].items():
            bands = [b for b in asset.get("bands", ()) if self._is_new(f"band {key}", b)]
            if self._is_new(f"asset {key}", asset) or bands:
                # An item may have 10^5 bands.
                assets[key] = {**asset, "bands": bands} if "bands" in asset else asset
        if news or assets:
            self._examples.append({**item, "assets": assets})
            self._check_assets(assets)

    def _check_assets(self, assets: dict[str, Any]) -> None:
        self._assets.update(assets)
        if len(self._assets) > _MOST_ASSETS:
            raise SettingsError(
                f"the scenes have more than {_MOST_ASSETS} different assets, and in Parquet each "
                "is a column: give -o NAME.ndjson, or a --scene whose assets have the same names "
                "in all scenes"
            )

    def _is_new(self, where: str, part: dict[str, Any]) -> bool:
        kinds = {(where, name, type(value)) for name, value in part.items()} - self._known
        self._known |= kinds
        return bool(kinds)

    def write(self, lines: IO[bytes], output: IO[bytes], collection: dict[str, Any] | None) -> None:
        """Write items, one a line as JSON, as Parquet; all of them were added before."""
        import orjson

        extent = Extent()
        schema = self._schema()
        (nothing,) = self._rows(self._examples[:1], schema)
        # No `with`: after an exception it would close the file as if it were complete.
        writer = pq.ParquetWriter(output, nothing.schema, version="2.6", compression="zstd")
        for some in _groups(lines):
            for batch in self._rows([_for_parquet(orjson.loads(line)) for line in some], schema):
                table = pa.Table.from_batches([batch])
                extent.add(table)
                writer.write_table(table, row_group_size=len(table))
        about: dict[str, Any] = {"version": "1.0.0"}
        if collection:
            about["collections"] = {collection["id"]: collection}
        writer.add_key_value_metadata({"geo": extent.metadata(), PARQUET_KEY: json.dumps(about)})
        writer.close()

    def _schema(self) -> pa.Schema:
        """Return the Arrow schema of the items as JSON, with binary geometries."""
        examples = self._examples
        if not self._assets:
            examples = [{**_EXAMPLE, "assets": {"data": _ASSET}}]
        rows = pa.array([{**_for_parquet(item), "geometry": b""} for item in examples])
        return pa.schema([field.with_type(_known_type(field.type)) for field in rows.type])

    def _rows(self, items: list[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Return items as rows; `schema` is that of their JSON."""
        yield from self._parse(map(_Item, items), chunk_size=len(items), schema=schema)


class _Item(dict[str, Any]):
    """An item that is not copied deeply.

    stac-geoparquet copies each item to replace its geometry, which takes longer than all else.
    """

    def __deepcopy__(self, _: object) -> dict[str, Any]:
        return dict(self)


def _known_type(kind: pa.DataType) -> pa.DataType:
    """Return a type in which fields that are null in all items are texts, not of the type null."""
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_known_type(field.type)) for field in kind])
    return kind


def _parser() -> Any:
    """Return the function of stac-geoparquet that makes rows of items.

    Raises:
        MissingExtraError: stac-geoparquet is not installed.
    """
    allow_import("pandas")
    try:
        from stac_geoparquet.arrow import parse_stac_items_to_arrow
    except ImportError:
        raise MissingExtraError(
            "items as Parquet need the extra stac, in a clone: pip install '.[stac]'; "
            "-o NAME.ndjson needs none"
        ) from None
    return parse_stac_items_to_arrow


def _groups(file: IO[bytes]) -> Iterator[list[bytes]]:
    """Yield lines in groups bounded by number and by size."""
    group: list[bytes] = []
    size = 0
    for line in file:
        if group and (len(group) == _GROUP_ROWS or size + len(line) > _GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(line)
        size += len(line)
    if group:
        yield group


def _for_parquet(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item with a planar bounding box, and with NaN and infinity as numbers.

    The nodata column has doubles: a whole number beyond ±2**53 becomes the nearest double.
    """
    west, south, east, north = item["bbox"]
    if west > east:  # the covering is planar: it spans both sides of the antimeridian
        west, east = -180.0, 180.0
    assets = {
        key: {**asset, "bands": list(map(_with_real_nodata, asset["bands"]))}
        if "bands" in asset
        else asset
        for key, asset in item["assets"].items()
    }
    return {**item, "bbox": [west, south, east, north], "assets": assets}


def _with_real_nodata(band: dict[str, Any]) -> dict[str, Any]:
    return band | {"nodata": float(band["nodata"])} if "nodata" in band else band
