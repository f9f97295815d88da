"""Which GDAL drivers may open a file when nobody says otherwise.

The list names raster formats that are files in their own right. Left out, with reasons:

- WMS, WMTS, WCS, HTTP, EEDA, EEDAI, DAAS, PLMOSAIC, OGCAPI, STACIT, STACTA, NGW,
  PostGISRaster: the file is only a description of a service; opening it asks the network.
- GTI: its index is opened by any vector driver, some of which fetch ``http://`` by themselves.
- MEM, DERIVED, GDALG and other drivers of connection strings: no files. MEM reads memory at
  an address that the name gives, ``.gdalg.json`` runs a pipeline.
- vector formats.

VRT stays in: archives hold VRTs, and what they say about themselves is metadata like any
other. GDAL opens a VRT's sources when the VRT leaves out their properties; these may be local
files only, see `rastermeta_async.fence`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

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
"""Short names, as GDAL's driver pages list them."""

NETWORK_DRIVERS: tuple[str, ...] = (
    "DAAS", "EEDAI", "HTTP", "NGW", "OGCAPI", "PLMOSAIC", "STACIT", "STACTA", "WCS", "WMS", "WMTS",
)  # fmt: skip
"""Drivers that are not even registered: a VRT's sources are opened by any driver there is."""


def unknown_drivers(names: Sequence[str]) -> list[str]:
    """Return those of `names` that this GDAL build has no driver for."""
    known = {name.lower() for name in drivers_here()}
    return [name for name in names if name.lower() not in known]


def drivers_here() -> list[str]:
    """Return the drivers that this GDAL build has, in the order in which it asks them."""
    import rasterio
    from rasterio.env import hasenv
    from rasterio.session import DummySession

    environment = rasterio.Env(session=DummySession())
    # To leave an environment inside another one sets the options of that one anew.
    with nullcontext() if hasenv() else environment:
        return list(environment.drivers())
