"""What is in an archive: eight products, and each file as a function of seed and number."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache

FILES_A_FOLDER = 750
_BIG_TAG_CHARS = 1000
UTM = tuple(range(32601, 32661))

LZW, DEFLATE, ZSTD = 5, 8, 50000
"""TIFF tag 259. No JPEG, no WebP: GDAL reads a tile of those on opening, here a tile is a hole."""


@dataclass(frozen=True)
class Kind:
    """One product: everything that its files have in common."""

    name: str
    weight: int
    """Folders of this kind in every 20."""
    folder: str
    filename: str
    parts: tuple[str, ...]
    """Files of one date, as the last part of the name."""
    epsg: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    """(width, height) in pixels."""
    res: float
    """Pixel size in units of the CRS."""
    dtype: str
    block: int
    """Tile side in pixels; 0: strips of one row."""
    bands: int = 1
    nodata: str | None = None
    compression: int = DEFLATE
    predictor: int = 1
    layout: str = "cog"
    """cog: with overviews, directories first, tile arrays behind them (GDAL's COG driver);
    plain: no overviews, directory first; tail: no overviews, directory behind the pixels."""
    big: bool = False
    """BigTIFF."""
    point: bool = False
    """GTRasterTypeGeoKey is RasterPixelIsPoint."""
    palette: bool = False
    software: str | None = None
    descriptions: tuple[str, ...] = ()
    scale: str | None = None
    statistics: bool = True


KINDS = (
    Kind(
        name="sentinel2", weight=6, epsg=UTM, sizes=((10980, 10980),), res=10.0, dtype="uint16",
        block=1024, nodata="0", predictor=2, scale="0.0001",
        folder="sentinel-2-l2a/T{zone:02d}U{area}",
        filename="S2A_MSIL2A_{day}T{time}_N0500_R{orbit:03d}_T{zone:02d}U{area}_{part}",
        parts=("B02", "B03", "B04", "B08", "B11", "SCL"),
    ),
    Kind(
        name="landsat", weight=5, epsg=UTM, res=30.0, dtype="uint16", block=256, nodata="0",
        sizes=((7601, 7731), (7641, 7771), (7681, 7811), (7581, 7701)), predictor=2, point=True,
        software="LPGS_16.4.0", statistics=False,
        folder="landsat-c2-l2/{orbit:03d}/{zone:03d}{area}",
        filename="LC08_L2SP_{orbit:03d}{zone:03d}_{day}_02_T1_{area}_{part}",
        parts=("SR_B2", "SR_B3", "SR_B4", "SR_B5", "ST_B10", "QA_PIXEL"),
    ),
    Kind(
        name="naip", weight=2, epsg=(26910, 26913, 26917), sizes=((10240, 12288), (9728, 12032)),
        res=0.6, dtype="uint8", bands=4, block=512, compression=ZSTD, predictor=2,
        descriptions=("Red", "Green", "Blue", "NIR"), statistics=False,
        folder="naip/{zone:02d}{area}", filename="m_{zone:02d}{orbit:03d}_{part}_60_{day}",
        parts=("ne", "nw", "se", "sw"),
    ),
    Kind(
        name="dem", weight=2, epsg=(4326,), sizes=((3600, 3600), (2400, 3600)), res=1 / 3600,
        dtype="float32", block=1024, predictor=3, point=True, nodata="-32767",
        folder="copernicus-dem/{zone:02d}{area}",
        filename="Copernicus_DSM_COG_10_{zone:02d}{area}_{day}_{part}", parts=("DEM", "EDM"),
    ),
    Kind(
        name="landcover", weight=1, epsg=(4326,), sizes=((36000, 36000),), res=1 / 12000,
        dtype="uint8", block=1024, nodata="0", palette=True, statistics=False,
        folder="worldcover/{zone:02d}{area}",
        filename="ESA_WorldCover_10m_{day}_v200_{zone:02d}{area}_{part}", parts=("Map",),
    ),
    Kind(
        name="mosaic", weight=1, epsg=(3857,), sizes=((16384, 16384),), res=0.29858214173896974,
        dtype="uint8", bands=3, block=512, descriptions=("red", "green", "blue"), nodata="0",
        folder="basemap/{zone:02d}-{area}", filename="{day}_{zone:02d}-{area}_{part}",
        parts=("rgb",),
    ),
    Kind(
        name="ortho", weight=2, epsg=(25832, 25833), sizes=((10000, 10000), (5000, 5000)), res=0.2,
        dtype="uint8", bands=3, block=512, compression=LZW, predictor=2, layout="plain", big=True,
        folder="dop20/{zone:02d}{area}", filename="dop20rgb_{zone:02d}_{day}_{area}_{part}",
        parts=("he", "nw", "th"),
    ),
    Kind(
        name="climate", weight=1, epsg=(5070, 3035), sizes=((1405, 621), (4650, 2905)), res=800.0,
        dtype="float32", block=0, compression=LZW, nodata="-9999", layout="tail",
        descriptions=("mean",), software="IDL 8.8", folder="climate/{zone:02d}{area}",
        filename="PRISM_{part}_stable_{day}_{zone:02d}{area}", parts=("ppt", "tmean", "tmax"),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Spec:
    """Settings of an archive; equal specs give equal bytes."""

    count: int
    """Rasters (sidecars are not counted)."""
    seed: int = 1
    gdal_share: float = 0.0
    """Share of the rasters, 0 to 1, that need GDAL: .jp2, .img, .tif with .aux.xml."""
    big_tags: int = 0
    """Characters of additional tags in the GDAL_METADATA of every TIFF."""

    def __post_init__(self) -> None:
        if self.count < 0 or self.big_tags < 0:
            raise ValueError("count and big_tags must not be negative")
        if not 0 <= self.gdal_share <= 1:
            raise ValueError("gdal_share is a fraction from 0 to 1")


@dataclass(frozen=True)
class Scene:
    """One file: what differs from the others of its kind, and so what a reader must find."""

    kind: Kind
    path: str
    """Relative to the archive."""
    form: str
    """tif, aux (a tif with an .aux.xml), jp2 or img."""
    epsg: int
    width: int
    height: int
    left: float
    """x of the left edge of the first pixel, in units of the CRS (point: of its centre)."""
    top: float
    """y of the upper edge of the first pixel, likewise."""
    tags: tuple[tuple[str, str], ...]
    band_tags: tuple[tuple[str, str], ...]
    """The same for every band."""


def scene(spec: Spec, number: int) -> Scene:
    """File `number` (from 0) of the archive."""
    folder, place = divmod(number, FILES_A_FOLDER)
    kind = _kind_of_folder(spec.seed, folder)
    rng = random.Random(f"{spec.seed}:{number}")
    high, low = divmod(folder // 60, 26)
    step, part = divmod(place, len(kind.parts))
    day = date(2015, 7, 4) + timedelta(days=5 * step)
    zone = folder * 7 % 60 + 1
    names = {
        "zone": zone,
        "area": chr(65 + high % 26) + chr(65 + low),
        "day": day.strftime("%Y%m%d"),
        "time": f"{10 + folder % 3:02d}{step % 60:02d}{folder % 60:02d}",
        "orbit": folder % 143 + 1,
        "part": kind.parts[part],
    }
    form = "tif"
    if (number + 1) * spec.gdal_share // 1 > number * spec.gdal_share // 1:
        form = ("jp2", "img", "aux")[rng.randrange(3)]
    epsg = UTM[zone - 1] if kind.epsg is UTM else kind.epsg[zone % len(kind.epsg)]
    width, height = kind.sizes[rng.randrange(len(kind.sizes))]
    if kind.res < 0.01:
        left, top = zone * 6.0 - 186, float(rng.randrange(-50, 60))
    else:
        left, top = rng.randrange(2000, 8000) * 100.0, rng.randrange(40000, 52000) * 100.0
    suffix = "tif" if form == "aux" else form
    return Scene(
        kind=kind,
        path=f"{kind.folder.format_map(names)}/{kind.filename.format_map(names)}.{suffix}",
        form=form,
        epsg=epsg,
        width=width,
        height=height,
        left=left,
        top=top,
        tags=_tags(kind, rng, day, spec.big_tags),
        band_tags=_band_tags(rng) if kind.statistics else (),
    )


@lru_cache(maxsize=64)
def _kind_of_folder(seed: int, folder: int) -> Kind:
    """Kinds take turns by weight, in a new order every 20 folders."""
    turn, place = divmod(folder, sum(kind.weight for kind in KINDS))
    deck = [kind for kind in KINDS for _ in range(kind.weight)]
    random.Random(f"{seed}:turn:{turn}").shuffle(deck)
    return deck[place]


def _tags(kind: Kind, rng: random.Random, day: date, big_tags: int) -> tuple[tuple[str, str], ...]:
    tags = [
        ("ACQUISITION_DATE", f"{day.isoformat()}T10:{rng.randrange(60):02d}:00Z"),
        ("CLOUD_COVER", f"{rng.random() * 100:.4f}"),
        ("PROCESSING_LEVEL", kind.name.upper()),
        ("PRODUCT_ID", f"{rng.getrandbits(64):016x}"),
    ]
    if kind.layout == "cog":
        tags.append(("OVR_RESAMPLING_ALG", "AVERAGE"))
    for start in range(0, big_tags, _BIG_TAG_CHARS):
        chars = min(_BIG_TAG_CHARS, big_tags - start)
        tags.append((f"LINEAGE_{start // _BIG_TAG_CHARS:05d}", rng.randbytes(chars).hex()[:chars]))
    return tuple(tags)


def _band_tags(rng: random.Random) -> tuple[tuple[str, str], ...]:
    return (
        ("STATISTICS_MAXIMUM", str(rng.randrange(4000, 16000))),
        ("STATISTICS_MEAN", repr(rng.uniform(500, 3000))),
        ("STATISTICS_MINIMUM", str(rng.randrange(1, 90))),
        ("STATISTICS_STDDEV", repr(rng.uniform(50, 900))),
        ("STATISTICS_VALID_PERCENT", f"{rng.uniform(60, 100):.2f}"),
    )
