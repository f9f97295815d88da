"""Writes a catalog as tile indexes, which GDAL opens as mosaics: one for each kind of rasters.

    rows ──▶ tiles, each with the number of its mosaic ──▶ spool, sorted by number ──▶ GeoPackages

The number of open files and the memory depend neither on the number of rows nor, but for some
hundred bytes each, on that of mosaics.

Reference: GDAL, "GTI -- GDAL Raster Tile Index".
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from rastermeta_async.catalog.durable import (
    folder_of,
    identity,
    remove,
    rights_at,
    sync_folder,
)
from rastermeta_async.catalog.temporary import TemporaryFolder, unchanged_on_error
from rastermeta_async.gis.conditions import chosen_rows, condition_of
from rastermeta_async.gis.layers import (
    GEOMETRY,
    GPKG,
    Layer,
    UnknownCrsError,
    pyogrio_library,
    read_only,
    write_layer,
)
from rastermeta_async.gis.mosaics import COLUMNS, Mosaic, Mosaics, TooLargeError
from rastermeta_async.gis.tiles import LeftOutRows, Names, Reals, extents, rectangles, upright
from rastermeta_async.model.errors import (
    ForeignOutputError,
    OutputError,
    SettingsError,
    WriteError,
)
from rastermeta_async.model.urls import is_url

MOST_MOSAICS = 20_000
"""Limit of the number of indexes: each is a file of 100 KiB or more."""

ENDING = ".gti.gpkg"
_WORK = "index"
"""Begins the name of the folder with temporary files."""

_MARK = "RASTERMETA_EXPORT"
"""Item of layer metadata; a file with it was made here."""

_LAYER = "tiles"
_SCHEMA = pa.schema([("location", pa.string()), (GEOMETRY, pa.binary())])
_ROWS = 4096


@dataclass
class TileIndexes:
    """Result of an export."""

    files: list[str] = field(default_factory=list)
    """Names of the indexes, sorted."""
    removed: int = 0
    """Number of indexes of an earlier export that have no raster any more."""
    rasters: int = 0
    left_out: LeftOutRows = field(default_factory=LeftOutRows)


def export_gti(
    catalog: str, output: str, where: str | None = None, *, overwrite: bool = False
) -> TileIndexes:
    """Write the tile indexes of a catalog into a folder.

    There is one for each CRS, pixel size, number of bands, data types and nodata values. Indexes of
    an earlier export are replaced, and removed where they have no raster any more. Each index gets
    its name when it is complete; after a crash the same command writes all of them again.

    Args:
        catalog: a finished catalog.
        output: the folder; it is made if it does not exist. Other files in it stay.
        where: an SQL expression; only rows for which it is true are taken.
        overwrite: also replace indexes that no export made.

    Raises:
        SettingsError: `where` or a name is invalid.
        MissingExtraError: pyogrio, or DuckDB for `where`, is not installed.
        OutputError: `catalog` is not a catalog, or has too many kinds of rasters.
        ForeignOutputError: a file with the name of an index was not made by an export.
        WriteError: the disk refused a write; the earlier files are unchanged.
    """
    if is_url(os.fsencode(output)):
        raise SettingsError(
            f"{output}: indexes are written to a local folder; copy them there then"
        )
    pyogrio_library()  # before the work begins
    with (
        condition_of(where) as condition,
        unchanged_on_error(output),
        _made_folder(output),
        TemporaryFolder(os.path.join(output, _WORK)) as work,
        contextlib.closing(_Spool(work.file("spool"))) as spool,
    ):
        earlier = _earlier(output)
        done = TileIndexes()
        mosaics = _sorted_out(chosen_rows(catalog, COLUMNS, condition), Names(output), spool, done)
        if len(mosaics) > MOST_MOSAICS:
            raise OutputError(
                f"{catalog}: its rasters are of more than {MOST_MOSAICS:,} kinds, by CRS, pixel "
                "size, bands, types and nodata, and each would be a file: take some with --where"
            )
        for mosaic in mosaics:
            final = os.path.join(output, mosaic.kind.file_name)
            if rights_at(final) and mosaic.kind.file_name not in earlier and not overwrite:
                raise ForeignOutputError(
                    f"{final} exists and no export made it; give --overwrite or another -o"
                )
        for mosaic in mosaics:
            _write(mosaic, spool, work, output, done)
        for name in earlier.difference(done.files):
            remove(os.path.join(output, name))
            done.removed += 1
    done.files.sort()
    return done


@contextlib.contextmanager
def _made_folder(path: str) -> Iterator[None]:
    """Make a folder if it does not exist; after an error, remove it again if it is empty."""
    if os.path.exists(path) and not os.path.isdir(path):
        raise ForeignOutputError(
            f"{path} is a file, and the indexes need a folder: give another -o"
        )
    is_new = not os.path.exists(path)
    os.makedirs(path, exist_ok=True)
    try:
        yield
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):
                os.rmdir(path)
        raise
    sync_folder(folder_of(os.path.abspath(path)))


def _earlier(folder: str) -> set[str]:
    """Return the names of the indexes that exports have made in a folder."""
    with os.scandir(folder) as entries:
        return {
            entry.name
            for entry in entries
            if entry.name.endswith(ENDING)
            and entry.is_file(follow_symlinks=False)
            and _is_marked(entry.path)
        }


def _is_marked(path: str) -> bool:
    """Tell whether a file is an index that an export made."""
    with contextlib.closing(read_only(path)) as database:
        try:
            found = database.execute(
                "SELECT 1 FROM gpkg_metadata WHERE instr(metadata, ?)", [f'"{_MARK}"']
            )
            return found.fetchone() is not None
        except sqlite3.Error:  # no SQLite file, or one without metadata
            return False


def _sorted_out(
    batches: Iterable[pa.RecordBatch], names: Names, spool: _Spool, done: TileIndexes
) -> Mosaics:
    """Put all tiles into the spool; return their mosaics, at the most one above the limit."""
    mosaics = Mosaics()
    for rows in batches:
        tiles, locations = upright(rows, names, done.left_out)
        for start in range(0, tiles.num_rows, _ROWS):
            some = tiles.slice(start, _ROWS)
            spool.add(mosaics.numbers_of(some), locations[start : start + _ROWS], extents(some))
        if len(mosaics) > MOST_MOSAICS:
            break
    return mosaics


def _write(
    mosaic: Mosaic, spool: _Spool, work: TemporaryFolder, output: str, done: TileIndexes
) -> None:
    """Write the index of a mosaic and give it its name; count its rasters, or why not."""
    name = mosaic.kind.file_name
    final = os.path.join(output, name)
    count, example, bounds = spool.about(mosaic.number)
    stood = identity(final)
    try:
        about = mosaic.metadata(bounds) | {_MARK: "gti"}
        layer = Layer(GPKG, _LAYER, _SCHEMA, mosaic.kind.crs, about, {"GEOMETRY_NAME": GEOMETRY})
        write_layer(work.file(name), layer, spool.tiles(mosaic.number))
    except TooLargeError:
        reason = "the mosaic of its kind would have more than 2^31 columns or rows"
        done.left_out.add(reason, example, count)
    except UnknownCrsError:
        done.left_out.add("GDAL does not know its CRS", example, count)
    else:
        work.publish(name, final, stood)
        done.files.append(name)
        done.rasters += count


class _Spool:
    """Keeps tiles on disk, in the order of their mosaics.

    Args:
        path: of a new file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._count = 0
        self._database = sqlite3.connect(path, isolation_level=None)
        with self._explained():
            self._database.executescript(
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536;"
                "CREATE TABLE tiles (mosaic INTEGER, number INTEGER, location TEXT, xmin REAL,"
                " ymin REAL, xmax REAL, ymax REAL, PRIMARY KEY (mosaic, number)) WITHOUT ROWID;"
                "BEGIN"
            )

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def add(self, mosaics: Sequence[int], locations: Sequence[str], boxes: Reals) -> None:
        """Add tiles: the numbers of their mosaics, their names, their boxes, shape (tiles, 4)."""
        numbers = range(self._count, self._count + len(mosaics))
        self._count += len(mosaics)
        rows = zip(mosaics, numbers, locations, *boxes.T.tolist(), strict=True)
        with self._explained():
            self._database.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def about(self, mosaic: int) -> tuple[int, str, tuple[float, float, float, float]]:
        """Return of a mosaic the number of tiles, the first name, and left, bottom, right, top."""
        with self._explained():
            count, example, *bounds = self._database.execute(
                "SELECT count(*), min(location), min(xmin), min(ymin), max(xmax), max(ymax)"
                " FROM tiles WHERE mosaic = ?", [mosaic],
            ).fetchone()  # fmt: skip
        return count, example, tuple(bounds)

    def tiles(self, mosaic: int) -> Iterator[pa.RecordBatch]:
        """Yield the tiles of a mosaic, in the order in which they were added."""
        with self._explained():
            found = self._database.execute(
                "SELECT location, xmin, ymin, xmax, ymax FROM tiles WHERE mosaic = ?"
                " ORDER BY number", [mosaic],
            )  # fmt: skip
            while rows := found.fetchmany(_ROWS):
                locations, *boxes = zip(*rows, strict=True)
                shapes = rectangles(np.array(boxes, np.float64).T)
                yield pa.RecordBatch.from_arrays([pa.array(locations), shapes], schema=_SCHEMA)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise WriteError(
                f"{self._path}: {error}. What stood there before is as it was: free space, then "
                "run the same command again."
            ) from error
