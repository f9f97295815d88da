"""The files of satellite products: how paths name scene and asset, and what an asset is.

An asset's name is the product's own, as in its file names. Patterns are in the syntax of RE2, with
the groups `root` (the folder before the scene), `scene` and `asset`.

References: Sentinel-2 Products Specification Document, S2-PDGS-TAS-DI-PSD 14.9 and later, section
3 (names since December 2016); Earth Search by Element 84, collections sentinel-2-l2a and
sentinel-2-c1-l2a (the layout of COGs in open data buckets); Landsat Collection 2 Data Format
Control Books LSDS-1414, LSDS-1415 (Landsat 1-5, 7) and LSDS-1822, LSDS-1328 (Landsat 8, 9),
section 3; HLS Product User Guide 2.0, sections 5 and 6; STAC electro-optical extension 2.0.0,
"Common Band Names".
"""

from __future__ import annotations

import datetime as dt
import re
from typing import NamedTuple

from rastermeta_async.stac.dates import Interval, whole

PER_FOLDER = "per-folder"
"""Preset in which a folder is a scene, and the name of a file without its ending is an asset."""

_ROOT = r"(?s)^(?P<root>(?:.*/)?)"
_TIFF = r"\.(?i:tiff?)$"

_SAFE = (
    r"(?P<scene>S2[A-D]_MSIL(?:1C|2A)_\d{8}T\d{6}_N\d{4}_R\d{3}_T[0-9A-Z]{5}_\d{8}T\d{6})"
    r"(?:\.SAFE)?/"
)
_COGS = r"(?P<scene>S2[A-D]_T?\d{1,2}[C-X][A-Z]{2}_\d{8}(?:T\d{6})?(?:_\d+)?_L(?:1C|2A))/"
_LANDSAT = (
    r"(?P<scene>L[CEMOT]0[1-9]_L(?:1TP|1GT|1GS|2SP|2SR)_\d{6}_\d{8}_\d{8}_02_(?:T1|T2|RT|A1|A2))_"
)
_HLS = r"(?P<scene>HLS\.[LS]30\.T[0-9A-Z]{5}\.\d{7}T\d{6}\.v\d+\.\d+)"

_SAFE_IMAGE = (
    rf"{_ROOT}{_SAFE}GRANULE/[^/]+/(?:IMG|QI)_DATA/(?:R\d\dm/)?"
    r"(?:(?:L2A_)?T[0-9A-Z]{5}_\d{8}T\d{6}_)?(?P<asset>\w+)\.(?i:jp2|tiff?)$"
)
_SAFE_METADATA = (
    rf"{_ROOT}{_SAFE}(?:(?:GRANULE|DATASTRIP)/[^/]+/)?"
    r"(?P<asset>MTD_\w+\.xml|INSPIRE\.xml|manifest\.safe)$"
)

PRESETS = {
    "sentinel2": (
        _SAFE_IMAGE,
        _SAFE_METADATA,
        rf"{_ROOT}{_COGS}(?P<asset>\w+)\.(?i:jp2|tiff?|jpe?g)$",
        rf"{_ROOT}{_COGS}(?P<asset>\w+\.(?:xml|json))$",
    ),
    "landsat": (
        rf"{_ROOT}{_LANDSAT}(?P<asset>[A-Z0-9]+(?:_[A-Z0-9]+)*){_TIFF}",
        rf"{_ROOT}{_LANDSAT}(?P<asset>(?:MTL|ANG|GCP|VER|SR_stac|ST_stac|stac)\.(?:txt|xml|json))$",
        rf"{_ROOT}{_LANDSAT}(?P<asset>thumb_(?:small|large))\.jpe?g$",
    ),
    "hls": (
        rf"{_ROOT}{_HLS}\.(?P<asset>\w+){_TIFF}",
        rf"{_ROOT}{_HLS}[._](?P<asset>cmr\.xml|stac\.json)$",
    ),
    PER_FOLDER: (
        rf"{_ROOT}(?P<scene>[^/]+)/(?P<asset>[^/]+\.(?i:txt|xml|json))$",
        rf"{_ROOT}(?P<scene>[^/]+)/(?P<asset>[^/]+?)(?:\.[^./]*)?$",
    ),
}  # fmt: skip
"""Patterns of each preset; the first that matches counts."""

OF_PRODUCTS = tuple(name for name in PRESETS if name != PER_FOLDER)
"""Presets that recognise the names of a product, and nothing else."""

METADATA = {
    ".txt": "text/plain", ".xml": "application/xml", ".json": "application/json",
    ".safe": "application/xml",
}  # fmt: skip
"""Endings of metadata files, in lower case, and their media types."""

_MSI = {
    "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge071",
    "B06": "rededge075", "B07": "rededge078", "B08": "nir", "B8A": "nir08", "B09": "nir09",
    "B10": "cirrus", "B11": "swir16", "B12": "swir22",
}  # fmt: skip
_OLI_TIRS = {
    "B1": "coastal", "B2": "blue", "B3": "green", "B4": "red", "B5": "nir08", "B6": "swir16",
    "B7": "swir22", "B8": "pan", "B9": "cirrus", "B10": "lwir11", "B11": "lwir12",
}  # fmt: skip
_TM = {"B1": "blue", "B2": "green", "B3": "red", "B4": "nir", "B5": "swir16", "B6": "lwir",
       "B7": "swir22", "B8": "pan"}  # fmt: skip
_LANDSAT_BANDS = {"C": _OLI_TIRS, "O": _OLI_TIRS, "E": _TM, "T": _TM | {
    "B10": "lwir11", "B11": "lwir12"}}  # fmt: skip
"""Bands by the letter of the sensor; T is TM, or TIRS alone, whose bands have other numbers. The
bands of MSS and the two gains of ETM+ band 6 have no common names of their own."""

_HLS_BANDS = {
    "S": _MSI,
    "L": {f"B{name[1:]:0>2}": common for name, common in _OLI_TIRS.items() if name != "B8"},
}
_NATIVE = {"B02": "10m", "B03": "10m", "B04": "10m", "B08": "10m",
           "B01": "60m", "B09": "60m", "B10": "60m"}  # fmt: skip
"""Resolution in which MSI takes a band where it is not 20 m; L2A products have further ones."""

_ROLES = {
    "TCI": "visual", "PVI": "overview", "L2A_PVI": "overview", "preview": "overview",
    "thumbnail": "thumbnail", "thumb_small": "thumbnail", "thumb_large": "overview",
}  # fmt: skip


_TAKEN = re.compile(r"[._](\d{7,8})(?:T(\d{6}))?(?:[._]|$)", re.ASCII)
"""First date in the name of a product: year, month and day, or (HLS) year and day of the year."""


class SceneFile(NamedTuple):
    """What a path tells of a file of a scene."""

    scene: str
    """Name of the scene."""
    root: str
    """Folder before the scene; scenes of one name in several folders are copies."""
    asset: str
    """Name of the asset."""
    rule: str
    """Preset, or regular expression, that told it."""

    @property
    def taken(self) -> Interval | None:
        """When the scene was taken by the name of its product; None: it tells no date."""
        found = _TAKEN.search(self.scene) if self.rule in OF_PRODUCTS else None
        if found is None:
            return None
        day, time = found.groups()
        try:
            of_day = "%Y%j" if len(day) == 7 else "%Y%m%d"
            start = dt.datetime.strptime(f"{day}{time or '000000'}+0000", f"{of_day}%H%M%S%z")
        except ValueError:  # no such day
            return None
        return Interval(start, start) if time else whole(start, dt.timedelta(days=1))

    @property
    def common_name(self) -> str | None:
        """The common name of the band, unique in a scene; None: nothing tells it."""
        if self.rule == "sentinel2":
            band, _, resolution = self.asset.partition("_")
            return _MSI.get(band) if resolution in ("", _NATIVE.get(band, "20m")) else None
        if self.rule == "landsat":
            band = self.asset.removeprefix("SR_").removeprefix("ST_")
            return _LANDSAT_BANDS.get(self.scene[1], {}).get(band)
        if self.rule == "hls":
            return _HLS_BANDS[self.scene[4]].get(self.asset)
        return None

    @property
    def role(self) -> str:
        """The role of the asset, if it is a raster."""
        if self.rule not in OF_PRODUCTS:
            return "data"
        return _ROLES.get(self.asset.partition("_")[0], _ROLES.get(self.asset, "data"))

    @property
    def product(self) -> str:
        """What scenes with the same assets have in common."""
        if self.rule == "sentinel2":
            return f"{self.rule} {self.scene[4:10] if '_MSIL' in self.scene else self.scene[-3:]}"
        length = {"landsat": len("LC08_L2SP"), "hls": len("HLS.L30")}.get(self.rule, 0)
        return f"{self.rule} {self.scene[:length]}".rstrip()
