"""Writes a catalog as one table: CSV, JSON lines, GeoJSON, FlatGeobuf or GeoPackage.

References: RFC 4180 (CSV); RFC 7946 (GeoJSON); GDAL, "FlatGeobuf" and "GPKG -- GeoPackage vector".
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import shapely

from rastermeta_async.catalog.durable import Identity
from rastermeta_async.catalog.json_rows import encoder
from rastermeta_async.catalog.reading import NotRowsError, footer_of
from rastermeta_async.catalog.temporary import (
    Temporary,
    TemporaryFolder,
    check_is_no_catalog,
    file_at,
    unchanged_on_error,
)
from rastermeta_async.footprints.limits import parsed
from rastermeta_async.gis.conditions import chosen_rows, condition_of
from rastermeta_async.gis.flat import flattened, for_csv, for_layer, json_text
from rastermeta_async.gis.layers import (
    FLATGEOBUF,
    GEOMETRY,
    GPKG,
    Layer,
    write_layer,
)
from rastermeta_async.model.errors import ForeignOutputError, SettingsError
from rastermeta_async.model.record import SCHEMA
from rastermeta_async.model.settings import JsonTags
from rastermeta_async.model.urls import is_url

Batches = Iterable[pa.RecordBatch]

_LAYER = "rasters"
_CRS = "EPSG:4326"
"""The CRS of footprints; in these formats, longitude comes before latitude."""

MOST_INDEXED = 1_000_000
"""Rows up to which a FlatGeobuf gets a spatial index: making it takes 170 bytes of memory a row."""

_LEAST_LINE_BYTES = 400
"""Size of the smallest JSON object of a row: the names of the columns take as much."""


_ROWS = 64
"""Rows that are converted at once; a row with thousands of bands takes megabytes."""


class Form(NamedTuple):
    """A form in which a catalog can be written."""

    endings: tuple[str, ...]
    texts_of: Callable[[Table], Iterator[str]] | None = None
    """Yields the file's text in pieces; None: GDAL writes the file."""
    driver: str = ""
    """Name of GDAL's driver."""
    is_spatial: bool = True
    """Whether the footprints are always a part of it."""


class Table:
    """A catalog in another form.

    Args:
        form: a key of `FORMS`.
        catalog: a finished catalog.
        columns: names of the columns to write, in this order; None: all.
        where: an SQL expression; only rows for which it is true are taken.
        json_tags: what tags are in JSON lines and GeoJSON.

    Raises:
        SettingsError: a catalog has no such column.
    """

    def __init__(
        self,
        form: str,
        catalog: str,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        json_tags: JsonTags = JsonTags.MAP,
    ) -> None:
        self.form = FORMS[form]
        self.json_tags = json_tags
        self.catalog = catalog
        self._where = where
        self._columns = _checked_columns(columns, is_spatial=self.form.is_spatial)
        self.schema = pa.schema([SCHEMA.field(name) for name in self._columns])
        self.rows = 0
        """Number of rows so far."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows as the catalog has them, a few at a time.

        Raises:
            SettingsError: `where` is invalid.
            MissingExtraError: DuckDB, for `where`, is not installed.
            OutputError: the catalog is none.
        """
        with condition_of(self._where) as condition:
            for batch in chosen_rows(self.catalog, self._columns, condition):
                self.rows += batch.num_rows
                for start in range(0, batch.num_rows, _ROWS):
                    yield batch.slice(start, _ROWS)

    def texts(self) -> Iterator[str]:
        """Yield the text of the file in pieces, none of it before the first rows are there.

        Raises:
            SettingsError: the form is no text.
            Exception: as `batches` raises.
        """
        if self.form.texts_of is None:
            (ending,) = self.form.endings
            raise SettingsError(
                f"-o -: such a file cannot be written in one go: give -o FILE{ending}, or export "
                "csv, ndjson or geojson"
            )
        yield from self.form.texts_of(self)


def _checked_columns(columns: Sequence[str] | None, *, is_spatial: bool) -> list[str]:
    """Return the names of the columns to write, each once."""
    names = list(dict.fromkeys(SCHEMA.names if columns is None else columns))
    if unknown := [name for name in names if name not in SCHEMA.names]:
        raise SettingsError(
            f"--columns: a catalog has no column {', '.join(unknown)}; `rastermeta schema` lists "
            "the columns"
        )
    return list(dict.fromkeys([*names, GEOMETRY])) if is_spatial else names


def csv_texts(table: Table) -> Iterator[str]:
    """Yield rows as CSV. An absent value is empty; an empty text is a pair of quotes."""
    has_header = False
    for batch in itertools.chain(table.batches(), [pa.RecordBatch.from_pylist([], table.schema)]):
        text = io.BytesIO()
        options = pyarrow.csv.WriteOptions(include_header=not has_header)
        pyarrow.csv.write_csv(flattened(batch, for_csv), text, options)
        yield text.getvalue().decode()
        has_header = True


def ndjson_texts(table: Table) -> Iterator[str]:
    """Yield rows as JSON, one a line."""
    for batch in table.batches():
        yield "".join(f"{row}\n" for row in _objects(batch, table.schema, table.json_tags))


def geojson_texts(table: Table) -> Iterator[str]:
    """Yield rows as a GeoJSON collection with a feature a line."""
    before = start = '{"type":"FeatureCollection","features":[\n'
    others = table.schema.remove(table.schema.get_field_index(GEOMETRY))
    for batch in table.batches():
        shapes = shapely.to_geojson(parsed(batch[GEOMETRY].to_pylist()))
        features = [
            f'{{"type":"Feature","geometry":{shape or "null"},"properties":{properties}}}'
            for shape, properties in zip(
                shapes, _objects(batch, others, table.json_tags), strict=True
            )
        ]
        yield before + ",\n".join(features)
        before = ",\n"
    yield f"{start if before is start else ''}\n]}}\n"


def _objects(rows: pa.RecordBatch, schema: pa.Schema, tags: JsonTags) -> Iterator[str]:
    """Yield these columns of each row as a JSON object."""
    encoded = encoder(pa.struct(list(schema)), tags)
    for row in rows.select(schema.names).to_pylist():
        yield json_text(encoded(row))


FORMS = {
    "csv": Form((".csv",), csv_texts, is_spatial=False),
    "ndjson": Form((".ndjson", ".jsonl"), ndjson_texts, is_spatial=False),
    "geojson": Form((".geojson", ".json"), geojson_texts),
    "flatgeobuf": Form((".fgb",), driver=FLATGEOBUF),
    "gpkg": Form((".gpkg",), driver=GPKG),
}


class Written(NamedTuple):
    """Counts of an export."""

    rows: int
    unplaced: int = 0
    """Number of rows left out because they have no footprint."""


def export_table(table: Table, output: str, *, overwrite: bool = False) -> Written:
    """Write a catalog as one file, which gets its name when it is complete.

    Memory does not depend on the number of rows.

    Args:
        table: what to write.
        output: the file.
        overwrite: replace a file of that name, unless it is a catalog.

    Raises:
        SettingsError: a name, a column or a condition is invalid.
        MissingExtraError: a library is not installed.
        OutputError: the catalog is none, or the output is one.
        ForeignOutputError: there is a file of that name.
        WriteError: the disk refused a write; the earlier file is unchanged.
    """
    if is_url(os.fsencode(output)):
        raise SettingsError(f"{output}: it is written to a local file; copy it there then")
    if not output.endswith(table.form.endings):
        raise SettingsError(f"{output}: the name must end in {' or '.join(table.form.endings)}")
    check_is_no_catalog(output, catalog=table.catalog)
    stood = file_at(output)
    if stood and not overwrite:
        raise ForeignOutputError(f"{output} exists; give --overwrite or another -o")
    with unchanged_on_error(output):
        write = _write_layer if table.form.driver else _write_texts
        return write(table, output, stood)


def _write_texts(table: Table, output: str, stood: Identity | None) -> Written:
    with Temporary(output) as temporary:
        for text in table.texts():
            temporary.file.write(text.encode())
        temporary.publish(output, stood)
    return Written(table.rows)


def _write_layer(table: Table, output: str, stood: Identity | None) -> Written:
    batches: Batches = table.batches()
    options = {"GEOMETRY_NAME": GEOMETRY}
    if table.form.driver == FLATGEOBUF:
        options = {"SPATIAL_INDEX": "YES" if _most_rows(table.catalog) <= MOST_INDEXED else "NO"}
        batches = map(_placed, batches)
    nothing = pa.RecordBatch.from_pylist([], table.schema)
    schema = flattened(nothing, for_layer).schema
    layer = Layer(table.form.driver, _LAYER, schema, _CRS, options=options)
    name = _LAYER + table.form.endings[0]
    with TemporaryFolder(output) as work:
        count = write_layer(
            work.file(name), layer, (flattened(batch, for_layer) for batch in batches)
        )
        work.publish(name, output, stood)
    return Written(count, table.rows - count)


def _placed(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return the rows with a footprint: no other can be in a FlatGeobuf with an index."""
    return rows.filter(pc.is_valid(rows[GEOMETRY]))


def _most_rows(catalog: str) -> int:
    """Return how many rows a catalog has, or an upper bound; 0 if it is no catalog."""
    with contextlib.suppress(pa.ArrowException, NotRowsError, OSError), open(catalog, "rb") as file:
        if catalog.endswith(".parquet"):
            return int(footer_of(file).num_rows)
        return os.path.getsize(catalog) // _LEAST_LINE_BYTES
    return 0
