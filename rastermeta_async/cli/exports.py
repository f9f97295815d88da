"""The commands of ``rastermeta export`` for GIS programs and spreadsheets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from rastermeta_async.cli.answers import say, stream
from rastermeta_async.model.settings import JsonTags

if TYPE_CHECKING:
    from rastermeta_async.cli.console import Console
    from rastermeta_async.gis.tiles import LeftOutRows

Catalog = Annotated[str, typer.Argument(metavar="CATALOG", help="A finished catalog.")]
Where = Annotated[
    str | None,
    typer.Option(
        metavar="SQL",
        help="Take only rows for which this expression is true, over the columns of the catalog, "
        "as it follows WHERE in DuckDB, e.g. \"driver = 'GTiff' and bbox.xmin > 10\".",
        show_default=False,
    ),
]


Columns = Annotated[
    str | None,
    typer.Option(metavar="LIST", help="Columns, e.g. filepath,crs,res.  [default: all]",
                 show_default=False),
]  # fmt: skip
Output = Annotated[
    str,
    typer.Option("-o", "--output", metavar="FILE",
                 help="File to write; - is standard output, for csv, ndjson and geojson."),
]  # fmt: skip
Replace = Annotated[bool, typer.Option("--overwrite", help="Replace a file of that name.")]

AsJson = Annotated[
    JsonTags,
    typer.Option("--json-tags", help="Tags as objects, or as lists of a key and a value each, "
                 "which Spark and BigQuery read."),
]  # fmt: skip

TABLES = {
    "csv": "Write a table for spreadsheets and the like: CSV in UTF-8.",
    "ndjson": "Write JSON lines, which engines read: a row a line.",
    "geojson": "Write GeoJSON: footprints with properties.",
    "flatgeobuf": "Write a FlatGeobuf: the rows that have a footprint.",
    "gpkg": "Write a GeoPackage with one layer, with a spatial index.",
}
"""Forms of tables, and what their commands do."""

_WITH_TAGS = ("ndjson", "geojson")
"""Forms in which tags are JSON."""


def table_command(form: str) -> Callable[..., None]:
    """Return the command that exports a catalog in a form of `TABLES`."""

    def command(
        catalog: Catalog,
        output: Output,
        columns: Columns = None,
        where: Where = None,
        overwrite: Replace = False,
    ) -> None:
        asked = _Asked(form, catalog, _names(columns), where)
        _export_table(asked, output, overwrite=overwrite)

    def json_command(
        catalog: Catalog,
        output: Output,
        columns: Columns = None,
        where: Where = None,
        json_tags: AsJson = JsonTags.MAP,
        overwrite: Replace = False,
    ) -> None:
        asked = _Asked(form, catalog, _names(columns), where, json_tags)
        _export_table(asked, output, overwrite=overwrite)

    chosen = json_command if form in _WITH_TAGS else command
    chosen.__doc__ = TABLES[form]
    return chosen


def _names(columns: str | None) -> list[str] | None:
    return None if columns is None else [name.strip() for name in columns.split(",")]


def gti(
    catalog: Catalog,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="DIR", help="Folder for the indexes.")
    ],
    where: Where = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also replace indexes that no export made.")
    ] = False,
) -> None:
    """Write tile indexes, which GDAL opens as mosaics.

    There is one for each CRS, pixel size, number of bands, data type and nodata value.
    """
    from rastermeta_async.cli.console import Console, explained_exit
    from rastermeta_async.gis.gti import export_gti
    from rastermeta_async.model.text import plural
    from rastermeta_async.model.urls import local_name

    console = Console()
    with explained_exit(console):
        done = export_gti(local_name(catalog), output, where, overwrite=overwrite)
    _say_left_out(done.left_out, console)
    if done.removed:
        console.hint(f"{output}: {_indexes(done.removed)} of an earlier export removed")
    say(f"{output}: {_indexes(len(done.files))} of {plural(done.rasters, 'raster')}")


def _indexes(count: int) -> str:
    return "1 index" if count == 1 else f"{count:,} indexes"


def _say_left_out(rows: LeftOutRows, console: Console) -> None:
    from rastermeta_async.model.urls import shown_url

    for reason, count in rows.counts.most_common():
        were = "row was" if count == 1 else "rows were"
        example = shown_url(rows.examples[reason])
        console.hint(f"{count:,} {were} left out, e.g. {example}: {reason}")


class _Asked(NamedTuple):
    """The arguments of `Table`."""

    form: str
    catalog: str
    columns: list[str] | None
    where: str | None
    json_tags: JsonTags = JsonTags.MAP


def _export_table(asked: _Asked, output: str, *, overwrite: bool) -> None:
    from rastermeta_async.cli.console import Console, explained_exit
    from rastermeta_async.gis.tables import Table, export_table
    from rastermeta_async.model.text import plural
    from rastermeta_async.model.urls import local_name

    console = Console()
    with explained_exit(console):
        table = Table(*asked._replace(catalog=local_name(asked.catalog)))
        if output == "-":
            for text in table.texts():
                stream(text, as_json=asked.form in _WITH_TAGS)
            return
        done = export_table(table, output, overwrite=overwrite)
    if done.unplaced:
        were = "row was" if done.unplaced == 1 else "rows were"
        console.hint(f"{done.unplaced:,} {were} left out: a FlatGeobuf has rows with a place only")
    say(f"{output}: {plural(done.rows, 'row')}")
