"""The commands of ``rastermeta export``."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from rastermeta_async.cli.answers import say, stream, usage
from rastermeta_async.cli.console import SOME_FAILED
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


def stac(
    catalog: Catalog,
    output: Annotated[
        str,
        typer.Option("-o", "--output", metavar="FILE", help="Items: .parquet, .ndjson or .jsonl."),
    ],
    collection: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Also write their collection, of this id: FILE.collection.json."
        ),
    ] = None,
    datetime: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TAG|PATTERN|REGEX|auto",
            help="What tells when a raster was taken: the name of a tag, or of two, START/END; a "
            "pattern in the file's name, e.g. %Y%m%d (with a slash: in the path); a regular "
            "expression for the path, whose groups are a date, the year first, or two dates; or "
            "auto: common tags. Of several, given one by one, the first that can tell counts.  "
            "[default: auto]",
            show_default=False,
        ),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where local paths are found: links are this URL, a slash and the path.  "
            "[default: file:// URLs; a relative path gives a link relative to FILE]",
            show_default=False,
        ),
    ] = None,
    scene: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="Make one item of the files of a scene: sentinel2, landsat, hls, per-folder; "
            "auto: products by their names, other files as items of their own; or a regular "
            "expression for the path with the groups (?P<scene>…) and (?P<asset>…). Of several, "
            "given one by one, the first that matches counts.  [default: an item a file]",
            show_default=False,
        ),
    ] = None,
    legacy_proj: Annotated[
        bool, typer.Option("--legacy-proj", help="Also write proj:epsg, for older readers.")
    ] = False,
    finite_nodata: Annotated[
        bool,
        typer.Option(
            "--finite-nodata",
            help='Leave out a nodata of NaN or infinity, for readers that refuse the text "nan".',
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also replace a file that no export made.")
    ] = False,
) -> None:
    """Write STAC items.

    The rows that are in none are listed in FILE.left-out.txt.

    Exit status 3: done, but no row makes an item, or some --datetime could date no row that it was
    tried on.
    """
    from rastermeta_async.cli.console import Console, explained_exit
    from rastermeta_async.cli.stac_notes import notes_on
    from rastermeta_async.model.urls import local_name
    from rastermeta_async.stac.assets import FieldChoice
    from rastermeta_async.stac.evidence import Rules
    from rastermeta_async.stac.export import export as export_items

    console = Console()
    try:
        rules = Rules(datetime or ())
    except ValueError as error:
        usage(f"--datetime: {error}")
    with explained_exit(console):
        done = export_items(
            local_name(catalog),
            output,
            rules,
            collection,
            base_url,
            scenes=scene or (),
            choice=FieldChoice(legacy_proj, finite_nodata),
            overwrite=overwrite,
        )
    for note in notes_on(done, output):
        console.hint(note)
    if not collection and os.path.exists(f"{output}.collection.json"):
        console.hint(f"{output}.collection.json is of an earlier export and stays as it was")
    say(f"{output}: {done.items:,} {'item' if done.items == 1 else 'items'}")
    for rule, advice in rules.in_vain:
        console.error(f"--datetime {rule} dates none of the rows that it was asked about: {advice}")
    if rules.in_vain or (done.left_out and not done.items):
        raise typer.Exit(SOME_FAILED)


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
