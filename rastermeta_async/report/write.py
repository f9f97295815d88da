"""Make a report of a catalog, and write it: a page, and pictures of its charts."""

from __future__ import annotations

import datetime as dt
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from rastermeta_async.catalog.completed import batches_of
from rastermeta_async.catalog.difference import GONE, paired
from rastermeta_async.catalog.durable import Identity, folder_of, open_regular
from rastermeta_async.catalog.temporary import Temporary, file_at, unchanged_on_error
from rastermeta_async.model.errors import ForeignOutputError, SettingsError
from rastermeta_async.model.urls import is_url, shown_url
from rastermeta_async.report.charts import picture_names, pictures, vega
from rastermeta_async.report.content import ReportContent
from rastermeta_async.report.cube import Cube, Read, cube_of, exemplify, standing
from rastermeta_async.report.facts import CHANGE
from rastermeta_async.report.page import GENERATOR, fit_page, page_of

_ROWS = 16_384
_HEAD = 4096
"""Bytes at the start of a page that tell who made it."""


def report(
    catalog: str,
    output: str | None,
    folders: dict[str, str],
    *,
    older: str | None = None,
    overwrite: bool = False,
) -> list[str]:
    """Write the report of a finished catalog.

    Args:
        catalog: its name.
        output: the page, a name that ends in .html; None: no page.
        folders: where pictures go, by form (svg, png); a folder is made if it is missing.
        older: an older catalog, to tell what was added, has changed or is gone since.
        overwrite: also replace files that are no report.

    Returns:
        the names of the files that were written.

    Raises:
        SettingsError: a name cannot be used.
        MissingExtraError: vl-convert is not installed.
        OutputError: it is no catalog, or a damaged one.
        ForeignOutputError: a file that no report made has the name of one that would be written.
        WriteError: the disk refused a write.
    """
    bundle = vega().javascript_bundle  # before the work begins
    if output is not None:
        _check_page(output, overwrite=overwrite)
    if not overwrite:
        _check_pictures(folders)

    read = _rows_of(catalog) if older is None else _compared_rows(older, catalog)
    stood = file_at(output) if output is not None else None
    with (
        ThreadPoolExecutor(1) as beside,
        unchanged_on_error(output or next(iter(folders.values()))),
    ):
        library = beside.submit(bundle) if output is not None else None  # takes seconds
        cube = cube_of(read, folder_of(output) if output is not None else None)
        fit_page(cube)
        exemplify(cube, read)
    written = []
    if output is not None and library is not None:
        made = dt.datetime.now(dt.UTC)
        page = page_of(cube, os.path.basename(shown_url(catalog)), made, library.result())
        _put(output, page.encode("utf-8", "backslashreplace"), stood)
        written.append(output)
    for form, folder in folders.items():
        written += _draw(cube, form, folder)
    return written


def _rows_of(catalog: str) -> Read:
    return lambda columns: batches_of(catalog, columns, _ROWS)


def _compared_rows(older: str, catalog: str) -> Read:
    """Return rows with the further column `CHANGE`; those of files that are gone are among them."""

    def read(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for pairs in paired(older, catalog, tempfile.gettempdir()):
            gone = pairs.old.take(pa.array(pairs.gone()))
            for rows, kinds in ((pairs.new, pairs.kinds()), (gone, [GONE] * gone.num_rows)):
                some = rows.select(list(columns))
                yield some.append_column(CHANGE, pa.array(kinds, pa.string()))

    return read


def _check_page(output: str, *, overwrite: bool) -> None:
    if is_url(os.fsencode(output)):
        raise SettingsError(f"{output}: a report is written to a local file; copy it there then")
    if not output.endswith((".html", ".htm")):
        raise SettingsError(f"{output}: the name of a report ends in .html")
    if file_at(output) and not overwrite and not _is_report(output):
        raise ForeignOutputError(
            f"{output} exists and is no report; give --overwrite or another -o"
        )


def _is_report(path: str) -> bool:
    with open(open_regular(path), "rb") as file:
        return f'name="generator" content="{GENERATOR}'.encode() in file.read(_HEAD)


def _check_pictures(folders: Mapping[str, str]) -> None:
    for form, folder in folders.items():
        for path in (os.path.join(folder, name) for name in picture_names(form)):
            if file_at(path):
                raise ForeignOutputError(f"{path} exists; give --overwrite or another folder")


def _draw(cube: Cube, form: str, folder: str) -> Iterator[str]:
    with unchanged_on_error(folder):
        os.makedirs(folder, exist_ok=True)
    for name, content in pictures(ReportContent(standing(cube)), form):
        path = os.path.join(folder, name)
        _put(path, content, file_at(path))
        yield path


def _put(path: str, content: bytes, stood: Identity | None) -> None:
    with unchanged_on_error(path), Temporary(path) as temporary:
        temporary.file.write(content)
        temporary.publish(path, stood)
