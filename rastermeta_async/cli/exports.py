"""The commands of ``rastermeta export`` for GIS programs and spreadsheets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rastermeta_async.cli.answers import say

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
    indexes = "1 index" if len(done.files) == 1 else f"{len(done.files):,} indexes"
    say(f"{output}: {indexes} of {plural(done.rasters, 'raster')}")


def _say_left_out(rows: LeftOutRows, console: Console) -> None:
    from rastermeta_async.model.urls import shown_url

    for reason, count in rows.counts.most_common():
        were = "row was" if count == 1 else "rows were"
        example = shown_url(rows.examples[reason])
        console.hint(f"{count:,} {were} left out, e.g. {example}: {reason}")
