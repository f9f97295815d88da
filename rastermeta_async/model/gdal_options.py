"""Set what GDAL reads besides the file: drivers, environment variables, configuration options.

Options that change what is read get the values that rasterio uses in an empty environment.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext

from rastermeta_async.model.errors import SettingsError
from rastermeta_async.model.text import on_a_line, shortened

# fmt: off
SAFE_DRIVERS: tuple[str, ...] = (
    "AAIGrid", "ACE2", "ADRG", "AIG", "AirSAR", "ARG", "BAG", "BIGGIF", "BLX", "BMP", "BSB", "BT",
    "BYN", "CAD", "CALS", "CEOS", "COASP", "COSAR", "CPG", "CTable2", "CTG", "DIMAP", "DIPEx",
    "DOQ1", "DOQ2", "DTED", "ECRGTOC", "EHdr", "EIR", "ELAS", "ENVI", "ERS", "ESAT", "ESRIC", "EXR",
    "FAST", "FIT", "FITS", "GenBin", "GFF", "GIF", "GPKG", "GRASSASCIIGrid", "GRIB", "GS7BG",
    "GSAG", "GSBG", "GSC", "GTiff", "GTX", "GXF", "HDF4", "HDF4Image", "HDF5", "HDF5Image", "HEIF",
    "HF2", "HFA", "ILWIS", "IRIS", "ISCE", "ISG", "ISIS2", "ISIS3", "JAXAPALSAR", "JDEM", "JP2ECW",
    "JP2KAK", "JP2Lura", "JP2MrSID", "JP2OpenJPEG", "JPEG", "JPEGXL", "JPIPKAK", "KEA",
    "KMLSUPEROVERLAY", "KRO", "L1B", "LAN", "LCP", "Leveller", "LIBERTIFF", "LOSLAS", "MAP",
    "MBTiles", "MFF", "MFF2", "MRF", "MrSID", "MSG", "MSGN", "NDF", "netCDF", "NGSGEOID", "NITF",
    "NOAA_B", "NSIDCbin", "NTv2", "NWT_GRC", "NWT_GRD", "OZI", "PAux", "PCIDSK", "PCRaster", "PDF",
    "PDS", "PDS4", "PNG", "PNM", "PRF", "R", "Rasterlite", "RDA", "RIK", "RMF", "ROI_PAC", "RPFTOC",
    "RRASTER", "RS2", "RST", "S102", "S104", "S111", "SAFE", "SAGA", "SAR_CEOS", "SDTS",
    "SENTINEL2", "SGI", "SIGDEM", "SNAP_TIFF", "SNODAS", "SRP", "SRTMHGT", "Terragen", "TGA", "TIL",
    "TileDB", "TSX", "USGSDEM", "VICAR", "VRT", "WEBP", "XPM", "XYZ", "Zarr", "ZMap",
)
# fmt: on
"""Drivers that may open a file by default: short names, as in GDAL's driver pages."""

NETWORK_DRIVERS: tuple[str, ...] = (
    "DAAS", "EEDAI", "HTTP", "NGW", "OGCAPI", "PLMOSAIC", "STACIT", "STACTA", "WCS", "WMS", "WMTS",
)  # fmt: skip
"""Drivers that are not even registered, as any registered driver may open a VRT's sources."""


def unknown_drivers(names: Sequence[str]) -> list[str]:
    """Return the `names` for which this GDAL build has no driver."""
    known = {name.lower() for name in drivers_here()}
    return [name for name in names if name.lower() not in known]


def drivers_without(names: Sequence[str]) -> tuple[str, ...]:
    """Return `SAFE_DRIVERS` but for some, whose case does not matter."""
    left_out = {name.lower() for name in names}
    return tuple(name for name in SAFE_DRIVERS if name.lower() not in left_out)


def drivers_here() -> list[str]:
    """Return the drivers of this GDAL build, in the order in which GDAL tries them."""
    import rasterio
    from rasterio.env import hasenv
    from rasterio.session import DummySession

    environment = rasterio.Env(session=DummySession())
    # Leaving a nested environment would set the options of the outer one again.
    with nullcontext() if hasenv() else environment:
        return list(environment.drivers())


GDAL_OPTIONS: dict[str, object] = {
    # A VRT may name remote sources. For kernels without a fence (see `fence`): network drivers are
    # skipped if this process has not registered drivers yet, the curl file systems see no file but
    # this one, and any other HTTP request goes to a proxy that does not exist (GDAL,
    # "Configuration options").
    "GDAL_SKIP": ",".join(NETWORK_DRIVERS),
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "/vsicurl/none",
    "GDAL_HTTP_PROXY": "http://127.0.0.1:9",
    "GDAL_HTTP_CONNECTTIMEOUT": 1,
    "GDAL_HTTP_TIMEOUT": 1,
    "GDAL_HTTP_MAX_RETRY": 0,
    "GDAL_VRT_ENABLE_PYTHON": False,
    "GDAL_CACHEMAX": 16,  # MB; no pixel is read
    "GDAL_NUM_THREADS": 1,  # JP2OpenJPEG starts this many for each file that it opens
    "GDAL_PAM_ENABLED": True,
    "CPL_VSIL_GZIP_WRITE_PROPERTIES": "NO",  # else a file appears next to what /vsigzip/ reads
}
"""GDAL configuration of header opens, in addition to rasterio's own defaults."""

_OWN = {"GDAL_CONFIG_FILE": os.devnull, "PROJ_NETWORK": "OFF", "NCRCENV_IGNORE": "1"}
"""Variables that forbid options from files (GDAL, ``gdalrc``; netCDF, ``.ncrc``), and grids from
the network, even if ``proj.ini`` allows them (PROJ, "Environment variables")."""

_CREDENTIALS = "AWS AZURE GOOGLE GS GCE CLOUDSDK BOTO IDENTITY MSI CPL_AWS CPL_AZURE CPL_GS CPL_GCE"

_KEPT = re.compile(
    "|".join(
        [
            # The system, Python, terminals, memory and threads.
            r"PATH|HOME|USER|LOGNAME|USERNAME|SHELL|PWD|TMPDIR|TEMP|TMP|TZ|LANG|LANGUAGE|LC_\w+",
            r"(?:XDG|LD|DYLD|MALLOC|CONDA|OMP|OPENBLAS|MKL|ARROW|RUST|TOKIO|DBUS|KRB5)_?\w*",
            r"GLIBC_TUNABLES|PYTHON(?!SO$)\w*|VIRTUAL_ENV|SSH_AUTH_SOCK|GNUPGHOME",
            r"TERM|COLORTERM|COLUMNS|LINES|NO_COLOR|FORCE_COLOR|CLICOLOR\w*|TTY_\w+",
            r"SYSTEMROOT|SYSTEMDRIVE|WINDIR|COMSPEC|PATHEXT|APPDATA|LOCALAPPDATA|USERPROFILE",
            # Data folders, plugins, and file locking.
            r"GDAL_DATA|GDAL_DRIVER_PATH|PROJ_DATA|PROJ_LIB|PROJ_USER_WRITABLE_DIRECTORY",
            r"HDF5_PLUGIN_PATH|HDF5_USE_FILE_LOCKING",
            # Access to stores.
            rf"(?:{_CREDENTIALS.replace(' ', '|')})_\w+|STORAGE_EMULATOR_HOST|CPL_MACHINE_IS_GCE",
            r"GDAL_HTTP_\w+|GDAL_CURL_CA_BUNDLE|GDAL_PROXY_AUTH|NETRC",
            r"SSL_CERT_\w+|(?:PROJ_)?CURL_CA_BUNDLE|REQUESTS_CA_BUNDLE|(?i:\w+_proxy)",
        ]
    )
)
"""Names of variables that the program's processes keep from the user's environment."""

_FIRST_WORDS = frozenset(
    """
    ADRG ALLOW ALPHA AMIGOCLOUD ATTRIBUTES BAG BASISU BIGQUERY BIGTIFF BLOCKXSIZE BLOCKYSIZE BSB
    CARTO CARTODB CENTER CHECK COG COMPRESS CONVERT CPL CREATE CURL DGN DISABLE DTED DUMP DWG DXF
    ECW ECWP EEDA ES ESRI FGDB FORCE GDAL GDALWARP GEOJSON GEOL GEOREF GEOTIFF GML GMLJP2 GPKG GPX
    GRIB GTI GTIFF GXF HDF4 HDF5 HFA IDB IDRISIDIR INTERLEAVE ISG JP2KAK JP2OPENJPEG JPEG JPEGMEM
    JXL KML KTX2 L1B LIBKML MAX MBTILES MDBDRIVER MITAB MRF MVT NAS NC NCRCENV NETCDF NGW NITF OCI
    ODBC ODS OGR OGR2OGR OPENFILEGDB OPJ OSM OSR OZI PCIDSK PDF PDS PDS4 PHOTOMETRIC PL PLSCENES
    PREDICTOR PROJ PST QHULL RAW REPORT RESTRICT RL2 RMF RPC RPF RPFTOC S57 SENTINEL2 SHAPE SPARSE
    SPATIALITE SQLITE SRP SXF TAB THRESHOLD TIFF TILEDB USE VICAR VRT VSI VSIAZ VSICRYPT VSICURL
    VSIS3 WEBP WMS XYZ ZARR ZLEVEL ZSTD
    """.split()  # noqa: SIM905  # a list would be 120 lines
)
"""First words of option names of GDAL, PROJ, HDF5 and netCDF. A wrong one only costs a worker."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.]*")


def own_environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for the program's own processes, made from the user's."""
    return {name: value for name, value in given.items() if _KEPT.fullmatch(name)} | _OWN


def enter_program() -> None:
    """Replace this process's environment by `own_environment`; for programs, not libraries."""
    ours = own_environment(os.environ)
    for name in os.environ.keys() - ours.keys():
        del os.environ[name]
    os.environ.update(ours)


def may_change_answers() -> bool:
    """Tell whether GDAL may find options in this process's environment or in the user's files."""
    if os.environ.get("GDAL_CONFIG_FILE") != os.devnull and os.path.exists(
        os.path.expanduser("~/.gdal/gdalrc")
    ):
        return True
    return any(
        name.split("_")[0].upper() in _FIRST_WORDS
        and not _KEPT.fullmatch(name)
        and _OWN.get(name) != value
        for name, value in os.environ.items()
    )


def parsed_options(given: Iterable[str]) -> dict[str, str]:
    """Return options that are given as ``KEY=VALUE``; the last value of a key counts.

    Raises:
        SettingsError: an option is malformed or not allowed; the message names it.
    """
    options = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not (equals and _NAME.fullmatch(key)) or "\0" in value:
            raise SettingsError(f"gdal_config: {key!r} is no option: give KEY=VALUE")
        name = key.upper()
        if name in GDAL_OPTIONS or name in _SET_BY_US or name.startswith("CPL_VSIL_CURL_"):
            raise SettingsError(f"gdal_config: {key} cannot be given: rastermeta sets it itself")
        if _KEPT.fullmatch(name) or name.startswith("PROJ_") or _SECRET.search(name):
            raise SettingsError(
                f"gdal_config: {key} cannot be given, as the catalog would store it: folders, "
                "proxies and secrets are set in the environment"
            )
        options[name] = value
    return options


def options_as_json(given: Iterable[str]) -> str:
    """Return options as catalogs and logs keep them: sorted JSON; "" for no options."""
    options = parsed_options(given)
    return json.dumps(options, sort_keys=True) if options else ""


def options_in_words(kept: str) -> str:
    """Return options of `options_as_json` as command line options; a catalog's may be malformed."""
    if not kept:
        return "without --gdal-config"
    try:
        options = json.loads(kept)
        words = [f"--gdal-config {name}={value}" for name, value in options.items()]
    except (ValueError, RecursionError, AttributeError):
        return "with options that no run writes"
    return f"with {on_a_line(shortened(' '.join(words)))}"


_SET_BY_US = {*_OWN, "GDAL_DISABLE_READDIR_ON_OPEN", "GDAL_INGESTED_BYTES_AT_OPEN", "RASTERIO_ENV"}
_SECRET = re.compile("PWD|PASSWORD|SECRET|TOKEN|BEARER|KEY|CREDENTIAL")
