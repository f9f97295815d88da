"""The reference reader: takes a path, asks rasterio, returns a record."""

from __future__ import annotations

import datetime as dt
import logging
import os
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from typing import Any, TypeVar

import rasterio
from rasterio._env import del_gdal_config
from rasterio.env import hasenv, setenv
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.session import DummySession

from rastermeta_async.footprints.crs import (
    NO_CRS,
    crs_of_wkt,
    crs_strings,
    depends_on_history,
    learn_ensembles,
)
from rastermeta_async.footprints.points import outline_of
from rastermeta_async.model.file_state import (
    CHANGED,
    TIMES_CHANGED,
    is_unchanged,
    leads_nowhere,
    likely_mistake,
    record_time,
    settled,
    time_of,
)
from rastermeta_async.model.gdal_options import (
    GDAL_OPTIONS,
    SAFE_DRIVERS,
    drivers_here,
    parsed_options,
)
from rastermeta_async.model.raster_folders import StoreUrl, folder_time, is_raster_folder
from rastermeta_async.model.record import (
    INVALID_NAME,
    MISSING,
    UNPLACED,
    Band,
    BandTags,
    Bounds,
    Record,
    Tags,
    failure,
    path_columns,
    readable,
    words_for_row,
)
from rastermeta_async.model.settings import REQUEST_SECONDS, Access
from rastermeta_async.model.urls import is_url, redacted, without_secrets
from rastermeta_async.readers.cf_times import Times, times_of
from rastermeta_async.readers.databases import UNFINISHED, database_options
from rastermeta_async.readers.geotiff.structure import (
    GTIFF,
    Structure,
    has_more_images,
    structure_of,
)
from rastermeta_async.readers.nodata import nodata_of, told
from rastermeta_async.readers.sidecars import Folders, Listing
from rastermeta_async.readers.subdatasets import (
    MAX_PARTS,
    NONE,
    NOT_A_PART,
    PartPath,
    Subdatasets,
    subdatasets_of,
)
from rastermeta_async.readers.turns import turn_of
from rastermeta_async.readers.undecodable import ReadableDataset, message_of
from rastermeta_async.readers.vrt_sources import missing_sources
from rastermeta_async.stores.archive_names import MemberPath, name_inside
from rastermeta_async.stores.credentials import gdal_name, gdal_options

T = TypeVar("T")

MAX_TAG_BYTES = 16 * 1024 * 1024
"""Tags of one file above this size are left out, and its row says so."""

_NETCDF = "netCDF"

_MAX_FILES = 64
"""Files of a subdataset among which that of its container is looked for."""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class _Discreet(logging.Filter):
    """Removes the signatures of URLs from rasterio's logs: GDAL names URLs when it retries."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Remove secrets from the record's message."""
        record.msg, record.args = redacted(record.getMessage(), remote=True), ()
        return True


_DISCREET = _Discreet()


class _Path(str):
    """A file name that rasterio hands to GDAL byte for byte, also if it is not UTF-8."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:  # noqa: ARG002  # str's signature
        return str.encode(self, "utf-8", "surrogateescape")


class _Dataset(ReadableDataset):
    """A dataset that knows whether it is georeferenced."""

    unplaced = False

    def _handle_crswkt(self, wkt: str) -> Any:
        # rasterio's own step from WKT to CRS.
        return crs_of_wkt(wkt, super()._handle_crswkt)

    def read_transform(self) -> Sequence[float]:
        # If GDAL's GetGeoTransform() fails and there are no GCPs or RPCs, rasterio warns, and
        # returns memory that some drivers (PNM) leave uninitialised. The filter set in `enter`
        # makes the warning an error for this module alone.
        try:
            return super().read_transform()  # type: ignore[no-any-return]
        except NotGeoreferencedWarning:
            self.unplaced = True
            return UNPLACED


class RasterioReader:
    """Reads headers with rasterio; gives the answers of a plain ``rasterio.open``.

    Args:
        drivers: GDAL drivers that may open a file; None: `SAFE_DRIVERS`; empty: all.
        folders: what is known of folders; None: GDAL looks for each file's sidecars itself.
        access: how object stores are reached.
        gdal_config: see `Settings.gdal_config`.
    """

    def __init__(
        self,
        drivers: Sequence[str] | None = None,
        folders: Folders | None = None,
        access: Access | None = None,
        gdal_config: Sequence[str] = (),
    ) -> None:
        self._wanted = SAFE_DRIVERS if drivers is None else drivers
        self._folders = folders
        self._access = access or Access()
        self._options = GDAL_OPTIONS | parsed_options(gdal_config)
        for name in ("rasterio._base", "rasterio._env", "rasterio._err", "rasterio.env"):
            logging.getLogger(name).addFilter(_DISCREET)  # adding it again has no effect

    def enter(self) -> None:
        """Prepare this thread for the rest of its life: GDAL's environment and PROJ's cache."""
        if not hasenv():
            self._enter_environment()
            learn_ensembles()

    def _enter_environment(self) -> None:
        self._environment().__enter__()
        _filter_warnings()

    @contextmanager
    def environment(self) -> Iterator[None]:
        """Hold the GDAL environment in this thread while the context is open."""
        with self._environment(), warnings.catch_warnings():
            _filter_warnings()
            learn_ensembles()
            yield

    def _environment(self) -> rasterio.Env:
        return rasterio.Env.from_defaults(
            session=DummySession(), GDAL_DISABLE_READDIR_ON_OPEN=False, **self._options
        )

    @contextmanager
    def holding(self, path: bytes, driver: str) -> Iterator[None]:
        """Keep a file open, if that makes it faster to open its subdatasets in this thread.

        netCDF-C then has its structure: of 1000 variables, each opens in 3 ms, and not in 100.
        """
        if driver != _NETCDF or type(path) is not bytes or is_url(path):
            yield
            return
        container = None
        with turn_of(PartPath(path, driver, "")):
            self.enter()
            with suppress(Exception):  # the subdatasets tell what is wrong
                container = _Dataset(_name_for_gdal(path), driver=[driver])
            try:
                yield
            finally:
                if container is not None:
                    container.close()

    def read(self, path: bytes, *, is_ours: bool = False) -> Record:
        """Return the record of a file or object; see `Reader.read`.

        Args:
            path: of the file or object.
            is_ours: whether nobody else can write the file; then `settled` need not wait.
        """
        self.enter()
        with turn_of(path):
            record = self._read(path, is_ours)
        return self._read_afresh(path, is_ours) if depends_on_history(record.crs_wkt) else record

    def _read_afresh(self, path: bytes, is_ours: bool) -> Record:
        """Return the record that a new process gives: PROJ's cache is empty in a new thread."""

        def read() -> Record:
            self._enter_environment()
            with turn_of(path):
                return self._read(path, is_ours)

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(read).result()

    def _read(self, path: bytes, is_ours: bool) -> Record:
        if type(path) is PartPath:
            return self._open_part(path)
        if is_url(path):
            return self._open_url(path)
        if type(path) is MemberPath:
            return self._open_member(path)
        try:
            for _ in range(TIMES_CHANGED):
                status = os.stat(path) if is_ours else settled(path)
                if stat.S_ISDIR(status.st_mode):
                    return self._read_folder(path)
                if not stat.S_ISREG(status.st_mode):
                    what = _KINDS.get(stat.S_IFMT(status.st_mode), "no regular file")
                    return failure(path, "error", "NotAFile", f"this is {what}, not a file")
                record = self._open(path, status.st_size)
                if is_unchanged(status, os.stat(path)):
                    return record._replace(
                        file_size=status.st_size, mtime=record_time(status), reader="rasterio"
                    )
        except (OSError, ValueError) as error:
            return _unreachable(path, error)
        return failure(path, "fatal", "Changed", CHANGED)

    def _read_folder(self, path: bytes) -> Record:
        """Return the record of a folder that is one raster, or the row of any other folder."""
        if not is_raster_folder(path):
            return _folder_row(path)
        for _ in range(TIMES_CHANGED):
            changed = folder_time(path)
            record = self._open(path, 0)
            if not record.ok:
                message = f"{record.error_message} {_AS_ONE}"
                record = record._replace(error_message=message)
            if folder_time(path) == changed:
                return record._replace(mtime=time_of(changed), reader="rasterio")
        return failure(path, "fatal", "Changed", CHANGED)

    @cached_property
    def _drivers(self) -> list[str] | None:
        """Wanted drivers that GDAL has, in its order: GDAL searches this list for each driver."""
        wanted = {name.lower() for name in self._wanted}
        here = [name for name in drivers_here() if name.lower() in wanted]
        return here or list(self._wanted) or None

    @cached_property
    def _drivers_for_objects(self) -> list[str] | None:
        """The same without netCDF: the HDF5 driver opens its files (see `refuse_page_faults`)."""
        others = [name for name in self._drivers or drivers_here() if name != "netCDF"]
        return others or self._drivers

    def _open(self, path: bytes, size: int) -> Record:
        options = database_options(path, size)
        if options is None:
            return failure(path, "error", "NotWrittenToTheEnd", UNFINISHED)
        try:
            if self._folders is not None:
                setenv(GDAL_DISABLE_READDIR_ON_OPEN=self._folders.listing_on_open(path).value)
            with _Dataset(_name_for_gdal(path), driver=self._drivers, **options) as dataset:
                return _describe(path, dataset, path)
        except (RasterioError, UnicodeDecodeError) as error:
            return _access_problem(path) or failure(path, "error", *message_of(error))
        except Exception as error:  # noqa: BLE001  # a bad file gives a row, whatever it raises
            return failure(path, "fatal", type(error).__name__, str(error) or repr(error))

    def _open_member(self, path: MemberPath) -> Record:
        """Return the record of a member of an archive on a disk; its columns are of the member."""
        try:
            # GDAL has read the names in the archive anyway.
            setenv(GDAL_DISABLE_READDIR_ON_OPEN=Listing.LIST.value)
            name = name_inside(os.fsdecode(path), path.member)
            with _Dataset(name if name.isascii() else _Path(name), driver=self._drivers) as dataset:
                return _describe(path, dataset)._replace(reader="rasterio")
        except (RasterioError, UnicodeDecodeError) as error:
            return failure(path, "error", *message_of(error))
        except Exception as error:  # noqa: BLE001  # a bad file gives a row, whatever it raises
            return failure(path, "fatal", type(error).__name__, str(error) or repr(error))

    def _open_part(self, path: PartPath) -> Record:
        """Return the record of a subdataset; its columns about the file are those of no file."""
        container = path.container
        shown = _without_secrets(container)
        drivers = [path.driver, f"{path.driver}Image"]  # HDF5Image opens the parts of HDF5
        try:
            options = self._options_of_part(container)
            if options is None:
                return failure(shown, "error", "NotWrittenToTheEnd", UNFINISHED)
            name = _with_secrets(path.name, container)
            opened = name if name.isascii() else _Path(name)
            with (
                self._environment_of(container),
                _Dataset(opened, driver=drivers, **options) as dataset,
            ):
                if not _is_of(container, dataset):
                    return failure(shown, "error", NOT_A_PART, f"{path.name} is of another file")
                return _describe(shown, dataset)._replace(reader="rasterio")
        except (RasterioError, UnicodeDecodeError) as error:
            return failure(shown, "error", *message_of(error))
        except Exception as error:  # noqa: BLE001  # a bad part gives a row, whatever it raises
            return failure(shown, "fatal", type(error).__name__, str(error) or repr(error))

    def _options_of_part(self, container: bytes) -> dict[str, str] | None:
        """Prepare this thread to open a part of a container; see `database_options`."""
        if is_url(container):
            return {}
        if type(container) is MemberPath:
            setenv(GDAL_DISABLE_READDIR_ON_OPEN=Listing.LIST.value)
            return {}
        if self._folders is not None:
            setenv(GDAL_DISABLE_READDIR_ON_OPEN=self._folders.listing_on_open(container).value)
        return database_options(container, os.stat(container).st_size)

    @contextmanager
    def _environment_of(self, path: bytes) -> Iterator[None]:
        """Enter GDAL's environment for an object; for a file it is that of the thread."""
        if not is_url(path):
            yield
            return
        is_zarr = type(path) is StoreUrl
        options = gdal_options(path.decode(), self._access, REQUEST_SECONDS, is_zarr=is_zarr)
        if type(path) is MemberPath:
            options["GDAL_DISABLE_READDIR_ON_OPEN"] = Listing.LIST.value
        with rasterio.Env(session=DummySession(), **options):
            if is_zarr or self._access.sidecars:
                del_gdal_config("CPL_VSIL_CURL_ALLOWED_FILENAME")
            yield

    def _open_url(self, path: bytes) -> Record:
        """Return the record of an object; the store, not GDAL, gives size, time and etag."""
        shown = without_secrets(path)
        if type(path) is MemberPath:
            shown = MemberPath(shown, path.member)
        try:
            url = path.decode()
            name = gdal_name(url)
            if type(path) is MemberPath:
                name = name_inside(url, path.member)
            with (
                self._environment_of(path),
                _Dataset(name, driver=self._drivers_for_objects) as dataset,
            ):
                return _describe(shown, dataset)._replace(reader="rasterio")
        except (RasterioError, UnicodeDecodeError) as error:
            kind, message = message_of(error)
            return failure(shown, "error", kind, message.replace(name, shown.decode()))
        except Exception as error:  # noqa: BLE001  # a bad file gives a row, whatever it raises
            return failure(shown, "fatal", type(error).__name__, str(error) or repr(error))


def make_reader(
    drivers: Sequence[str] | None, access: Access | None = None, gdal_config: Sequence[str] = ()
) -> RasterioReader:
    """Return a reader for a run; one serves all threads of a process."""
    return RasterioReader(drivers, Folders(), access, gdal_config)


_AS_ONE = "This folder counts as one raster (rastermeta help files)."

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _filter_warnings() -> None:
    """Make missing georeferencing an error in this module, and ignore pending deprecations."""
    here = rf"{__name__}$".replace(".", r"\.")
    warnings.filterwarnings("ignore", category=PendingDeprecationWarning, module=here)
    warnings.filterwarnings("error", category=NotGeoreferencedWarning, module=here)


def _name_for_gdal(path: bytes) -> str:
    name = os.fsdecode(path)
    # A relative name must not be taken for a connection string (NETCDF:…, <VRTDataset>…).
    if not name.startswith(("/", ".")) and (":" in name or not name[0].isalnum()):
        name = os.path.join(".", name)
    return name if name.isascii() else _Path(name)


def _folder_row(path: bytes) -> Record:
    """Return the row of a folder that was given as a file."""
    try:
        os.scandir(path).close()
    except OSError as error:
        row = _unreachable(path, error)
        return row._replace(error_message=f"{row.error_message}; what is in this folder is missing")
    link = "a link to " if os.path.islink(path) else ""
    message = f"this is {link}a folder, not a file: to have it walked, give it as an argument"
    return failure(path, "error", "NotAFile", message)


def _unreachable(path: bytes, error: OSError | ValueError) -> Record:
    """Return the row of a path that the system refuses."""
    kind, message = type(error).__name__, getattr(error, "strerror", None) or str(error)
    if not leads_nowhere(error):
        return failure(path, "fatal", kind, message)
    if kind not in MISSING:
        kind, message = INVALID_NAME, "no file can have this name"
    mistake = likely_mistake(path)
    return failure(path, "error", kind, f"{message}; {mistake}" if mistake else message)


def _access_problem(path: bytes) -> Record | None:
    """Return the row of a file that the system does not open, else None; GDAL gives no reason."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except OSError as error:
        return _unreachable(path, error)
    return None


def _without_secrets(path: bytes) -> bytes:
    """Return a path as rows have it; a `MemberPath` stays one."""
    shown = without_secrets(path)
    return MemberPath(shown, path.member) if type(path) is MemberPath else shown


def _with_secrets(name: str, container: bytes) -> str:
    """Return the name that opens a subdataset, which a row has without secrets.

    A file whose path is not UTF-8 has no such names: rasterio takes none.
    """
    if not is_url(container):
        return name
    shown = gdal_name(without_secrets(container).decode())
    return name.replace(shown, gdal_name(container.decode()))


def _is_of(container: bytes, part: Any) -> bool:
    """Tell whether a subdataset is stored in its container; a file may name anything as its own."""
    files: list[str] = part.files[:_MAX_FILES]
    if type(container) is MemberPath:
        return name_inside(os.fsdecode(container), container.member) in files
    if is_url(container):
        return gdal_name(container.decode()) in files
    ours = os.stat(container)
    for file in files:
        with suppress(OSError, ValueError):
            if os.path.samestat(os.stat(os.fsencode(file)), ours):
                return True
    return False


def _describe(path: bytes, dataset: Any, file: bytes | None = None) -> Record:
    """Return the record of an open dataset; `file` is its local path, None for an object."""
    problems = _Problems()
    ask = problems.unless
    count: int = dataset.count
    crs = ask("crs", lambda: crs_strings(dataset.crs)) or NO_CRS
    structure: Tags = ask("image structure", lambda: dataset.tags(ns="IMAGE_STRUCTURE")) or {}
    dataset_tags, band_tags, imagery_tags = _tags(dataset, problems)
    # To find overviews, masks and subdatasets, GDAL goes through all images, a kilobyte each.
    many = file is not None and dataset.driver == GTIFF and has_more_images(file, MAX_PARTS)
    if many:
        problems.append(f"bands, subdatasets: left out: there are more than {MAX_PARTS:,} images")
    subdatasets = None if many else ask("subdatasets", lambda: _subdatasets(path, dataset))
    problems += [f"subdatasets: {problem}" for problem in (subdatasets or NONE).problems]
    nodata = ask("nodata", lambda: nodata_of(dataset)) or [*map(told, dataset.nodatavals)]
    bands = None if many else ask("bands", lambda: _bands(dataset))
    if bands:
        pairs = zip(bands, nodata, strict=True)
        bands = [band._replace(nodata=one.value, nodata_text=one.text) for band, one in pairs]
    gcp_count = ask("gcps", lambda: len(dataset.gcps[0]))
    has_rpcs = bool(ask("rpcs", lambda: dataset.tags(ns="RPC")))
    stored = None if many else ask("structure", lambda: structure_of(dataset, file))
    stored = stored or Structure()
    # Control points or coefficients that give no footprint are no problem of the file.
    placed = _Problems().unless("footprint", lambda: outline_of(dataset))
    times = Times()
    if dataset.driver == _NETCDF and dataset_tags:
        times = times_of(dataset_tags)
    shown, raw = path_columns(path)
    return Record(
        filepath=shown,
        filepath_bytes=raw,
        status="no_georef" if dataset.unplaced and count else "success",
        error_type="PartlyRead" if problems else None,
        error_message=words_for_row(shown, "; ".join(problems)) if problems else None,
        crs=crs.text,
        bounds=Bounds(*dataset.bounds),
        res=dataset.res,
        count=count,
        dtype=dataset.dtypes[0] if count else None,
        nodata=nodata[0].value if count else None,
        nodata_text=nodata[0].text if count else None,
        transform=tuple(dataset.get_transform()),
        dataset_tags=dataset_tags,
        band_tags=band_tags,
        imagery_tags=imagery_tags,
        driver=dataset.driver,
        width=dataset.width,
        height=dataset.height,
        bands=bands,
        compression=_last_word(structure.get("COMPRESSION")),
        interleave=_last_word(structure.get("INTERLEAVE")),
        photometric=_last_word(structure.get("SOURCE_COLOR_SPACE")),
        tiled=stored.tiled,
        cog=stored.cog,
        cog_problems=stored.cog_problems,
        area_or_point=(dataset_tags or {}).get("AREA_OR_POINT"),
        gcp_count=gcp_count,
        has_rpcs=has_rpcs,
        subdatasets=[_shown_part(name, shown) for name in map(readable, subdatasets.names)]
        if subdatasets
        else None,
        missing_sources=ask("sources", lambda: _missing_sources(dataset, file)),
        proj_code=crs.code,
        crs_wkt=crs.wkt,
        geometry=placed.geometry if placed else None,
        bbox=placed.bbox if placed else None,
        footprint=placed.source if placed else None,
        time_start=times.start,
        time_end=times.end,
    )


def _missing_sources(dataset: Any, file: bytes | None) -> int | None:
    return missing_sources(file) if file is not None and dataset.driver == "VRT" else None


class _Problems(list[str]):
    """The fields of an open dataset that could not be read, and why."""

    def unless(self, name: str, question: Callable[[], T]) -> T | None:
        """Return the answer; if rasterio raises, note why and return None."""
        with suppress(Exception):
            return question()
        # GDAL may have kept an error from opening the file: then the second call succeeds.
        try:
            return question()
        except Exception as error:  # noqa: BLE001  # one odd field must not cost the others
            self.append(f"{name}: {type(error).__name__}: {error}")
            return None


def _subdatasets(path: bytes, dataset: Any) -> Subdatasets:
    """Return the parts of a container; their names have no URL signature, like `path`."""
    drivers = [dataset.driver, f"{dataset.driver}Image"]  # HDF5Image opens the parts of HDF5

    def opens(name: str, file: str) -> bool:
        try:
            with _Dataset(name, driver=drivers) as part:
                return file in part.files
        except Exception:  # noqa: BLE001  # a name of something else may raise anything
            return False

    if not is_url(path):
        given = dataset.name if type(path) is MemberPath else os.fsdecode(path)
        return subdatasets_of(dataset, given, opens)
    found, shown = subdatasets_of(dataset, dataset.name, opens), gdal_name(path.decode())
    if type(path) is MemberPath:
        shown = name_inside(path.decode(), path.member)
    return Subdatasets(*([text.replace(dataset.name, shown) for text in texts] for texts in found))


def _shown_part(name: str, container: str) -> str:
    """Return the name of a subdataset, without secrets if it names another file, as tags may."""
    return name if container in name else redacted(name)


def _tags(dataset: Any, problems: _Problems) -> tuple[Tags | None, BandTags | None, Tags | None]:
    """Return the tags of the dataset, of its bands that have any, and of the domain IMAGERY."""
    of_dataset: Tags | None = problems.unless("tags", dataset.tags)
    of_imagery: Tags | None = problems.unless("imagery tags", partial(dataset.tags, ns="IMAGERY"))
    of_bands: BandTags = {}
    for band in dataset.indexes:
        tags: Tags | None = problems.unless(f"tags of band {band}", partial(dataset.tags, band))
        if tags:
            of_bands[band] = tags
    size = sum(
        len(key) + len(value)
        for tags in (of_dataset or {}, of_imagery or {}, *of_bands.values())
        for key, value in tags.items()
    )
    if size > MAX_TAG_BYTES:
        problems.append(f"tags: left out, as their {size} characters are above {MAX_TAG_BYTES}")
        return None, None, None
    return of_dataset, of_bands, of_imagery


def _bands(dataset: Any) -> list[Band]:
    return [
        Band(
            dtype=dtype,
            nodata=nodata,
            nodata_text=None,
            description=description or None,
            color_interp=color_interp.name,
            scale=scale,
            offset=offset,
            unit=unit or None,
            block_height=block[0],
            block_width=block[1],
            mask_flags=[flag.name for flag in flags],
            overviews=list(dataset.overviews(band)),
        )
        for band, (
            dtype, nodata, description, color_interp, scale, offset, unit, block, flags,
        ) in enumerate(
            zip(
                dataset.dtypes,
                dataset.nodatavals,
                dataset.descriptions,
                dataset.colorinterp,
                dataset.scales,
                dataset.offsets,
                dataset.units,
                dataset.block_shapes,
                dataset.mask_flag_enums,
                strict=True,
            ),
            1,
        )
    ]  # fmt: skip


def _last_word(value: str | None) -> str | None:
    """Return e.g. ``jpeg`` for GDAL's ``YCbCr JPEG``, as rasterio's enumerations do."""
    return value.split()[-1].lower() if value and not value.isspace() else None
