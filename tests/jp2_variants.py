"""JP2 files of all sorts, as GDAL's driver writes them, and the means to take their boxes apart."""

from __future__ import annotations

import itertools
import random
import struct
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import rasterio.shutil
from rasterio import Affine
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile
from rasterio.transform import from_origin
from tiff_variants import RPCS

GEOJP2 = bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03")
SUPER = frozenset({b"jp2h", b"asoc", b"res "})


class Node(NamedTuple):
    """A box: its type, and its content, or the boxes in it."""

    kind: bytes
    content: bytes | list[Node]


def tree(content: bytes) -> list[Node]:
    """Return the boxes of a file or a box that is in order."""
    found = []
    at = 0
    while at < len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        inner = content[at + 8 : at + length if length else None]
        found.append(Node(kind, tree(inner) if kind in SUPER else inner))
        at += length or len(content)
    return found


def assembled(nodes: Sequence[Node]) -> bytes:
    """Return boxes as bytes, the inverse of `tree`."""
    found = b""
    for kind, content in nodes:
        inner = content if isinstance(content, bytes) else assembled(content)
        found += struct.pack(">I4s", len(inner) + 8, kind) + inner
    return found


def leaf(nodes: Sequence[Node], kind: bytes) -> bytes:
    """Return the content of the first box of a type, at any depth."""
    for node in nodes:
        if node.kind == kind and isinstance(node.content, bytes):
            return node.content
        if not isinstance(node.content, bytes) and (found := leaf(node.content, kind)):
            return found
    return b""


def replaced(nodes: Sequence[Node], kind: bytes, *others: Node) -> list[Node]:
    """Return boxes with others in the place of each box of a type, at any depth."""
    found: list[Node] = []
    for node in nodes:
        if node.kind == kind:
            found += others
        elif isinstance(node.content, bytes):
            found.append(node)
        else:
            found.append(node._replace(content=replaced(node.content, kind, *others)))
    return found


def changed(content: bytes, kind: bytes, *others: Node) -> bytes:
    """Return a file with other boxes in the place of each box of a type."""
    return assembled(replaced(tree(content), kind, *others))


def with_header_box(content: bytes, *boxes: Node) -> bytes:
    """Return a file with further boxes at the end of its header box."""
    (header,) = (node.content for node in tree(content) if node.kind == b"jp2h")
    assert isinstance(header, list)
    return changed(content, b"jp2h", Node(b"jp2h", [*header, *boxes]))


def write_jp2(
    path: Path,
    *,
    gcps: Sequence[GroundControlPoint] = (),
    tags: dict[str, str] | None = None,
    domain: str | None = None,
    colours: Sequence[ColorInterp] = (),
    options: dict[str, Any] | None = None,
    **kind: Any,
) -> Path:
    """Write a JP2 in a UTM zone, of 64 x 48 pixels, unless `kind` says otherwise."""
    profile = {
        "driver": "GTiff", "width": 64, "height": 48, "count": 1, "dtype": "uint8",
        "crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 10, 10),
    } | kind  # fmt: skip
    shape = profile["count"], profile["height"], profile["width"]
    with warnings.catch_warnings(action="ignore"), MemoryFile() as memory:
        with memory.open(**profile) as dataset:
            dataset.write(np.ones(shape, profile["dtype"]))
            if colours:
                dataset.colorinterp = list(colours)
            if gcps:
                dataset.gcps = list(gcps), profile["crs"]
            if tags:
                dataset.update_tags(ns=domain, **tags)
        with rasterio.Env(GDAL_PAM_ENABLED=False):
            rasterio.shutil.copy(memory.name, path, driver="JP2OpenJPEG", **(options or {}))
    return path


def _points(rng: random.Random) -> dict[str, Any]:
    corners = [(0, 0), (0, 64), (48, 0), (48, 64)]
    size = rng.choice([0.01, 0.1])
    points = [GroundControlPoint(y, x, 10 + size * x, 50 - size * y) for y, x in corners]
    return {"crs": "EPSG:4326", "transform": None, "gcps": points}


def _placed(rng: random.Random) -> dict[str, Any]:
    step = rng.choice([10, 0.5, 1 / 3, 60, 0.1])
    return {"transform": from_origin(rng.uniform(1e5, 9e5), rng.uniform(1e6, 9e6), step, step)}


def _degrees(rng: random.Random) -> dict[str, Any]:
    step = rng.choice([0.1, 1 / 1200, 8.9e-05, 0.00025])
    return {
        "crs": rng.choice(["EPSG:4326", "EPSG:4258", "OGC:CRS84"]),
        "transform": from_origin(rng.uniform(-170, 170), rng.uniform(-80, 80), step, step),
    }


OWN_CRS = "+proj=laea +lat_0=52.5 +lon_0=7.5 +datum=WGS84 +units=m"

AXES: dict[str, list[Any]] = {
    "size": [
        {"width": w, "height": h}
        for w, h in [(64, 48), (1, 1), (129, 127), (128, 128), (257, 200), (300, 700), (1025, 30),
                     (1100, 1030), (1024, 1024), (17, 2050)]
    ],
    "count": [{"count": count} for count in (1, 1, 1, 2, 3, 3, 4, 12)],
    "dtype": [{"dtype": dtype} for dtype in ("uint8", "uint8", "uint16", "uint16", "int16")],
    "place": [
        _placed, _placed, _placed, _placed, _degrees, _degrees,
        lambda rng: _placed(rng) | {"crs": OWN_CRS},
        lambda rng: _placed(rng) | {"crs": rng.choice(["EPSG:3035", "EPSG:3857", "EPSG:2193"])},
        lambda rng: _placed(rng) | {"crs": None},
        lambda rng: {"crs": None, "transform": None},
        lambda rng: {"transform": None},
        lambda rng: {"transform": Affine(10, 1, 5e5, 1, -10, 5e6)},
        lambda rng: {"transform": Affine(10, 0, 5e5, 0, 10, 5e6)},
        _points,
        lambda rng: {"rpcs": RPCS, "crs": None, "transform": None},
    ],
    "tags": [
        {}, {},
        lambda rng: {"tags": {"TITLE": f"{rng.random()}", "B": "x <y> & 'z'", "a b": "é ü"}},
        lambda rng: {"tags": {"AREA_OR_POINT": "Point"}},
        lambda rng: {"tags": {"AREA_OR_POINT": "Point", "A": f"{rng.random()}"}},
        {"tags": {"TIFFTAG_XRESOLUTION": "72", "TIFFTAG_YRESOLUTION": "72",
                  "TIFFTAG_RESOLUTIONUNIT": "2"}},
        {"tags": {"SATELLITEID": "X"}, "domain": "IMAGERY"},
        {"tags": {"A": "X"}, "domain": "MINE"},
    ],
    "geo": [
        {}, {}, {}, {"GMLJP2": "NO"}, {"GMLJP2": "NO"}, {"GeoJP2": "NO"}, {"GeoJP2": "NO"},
        {"GMLJP2V2_DEF": "YES"}, {"GMLJP2V2_DEF": "YES", "GeoJP2": "NO"},
        {"GMLJP2": "NO", "GeoJP2": "NO"}, {"GEOBOXES_AFTER_JP2C": "YES"}, {"JPX": "NO"},
    ],
    "quality": [
        {}, {"QUALITY": "100", "REVERSIBLE": "YES"}, {"QUALITY": "10,50"}, {"YCC": "NO"},
        {"YCBCR420": "YES"}, {"ALPHA": "YES"}, {"ALPHA": "YES", "1BIT_ALPHA": "YES"},
        {"NBITS": "1"}, {"NBITS": "12"}, {"INSPIRE_TG": "YES"},
    ],
    "tiles": [
        {}, {}, {"BLOCKXSIZE": "64", "BLOCKYSIZE": "64"}, {"BLOCKXSIZE": "16", "BLOCKYSIZE": "16"},
        {"BLOCKXSIZE": "128", "BLOCKYSIZE": "256"}, {"BLOCKXSIZE": "127", "BLOCKYSIZE": "128"},
        {"BLOCKXSIZE": "2048", "BLOCKYSIZE": "2048"},
    ],
    "coding": [
        {}, {}, {"RESOLUTIONS": "1"}, {"RESOLUTIONS": "3"}, {"RESOLUTIONS": "6"},
        {"PROGRESSION": "RPCL"}, {"SOP": "YES", "EPH": "YES"}, {"PLT": "YES", "TLM": "YES"},
        {"TLM": "YES"}, {"TILEPARTS": "RESOLUTIONS"}, {"PRECINCTS": "{128,128},{64,64}"},
        {"CODEBLOCK_WIDTH": "32", "CODEBLOCK_HEIGHT": "32"}, {"CODEBLOCK_STYLE": "BYPASS"},
        {"COMMENT": "a comment"}, {"CODEC": "J2K"},
    ],
}  # fmt: skip
"""Ways in which files differ. The last four are creation options of the driver."""

OPTIONS = ("geo", "quality", "tiles", "coding")
KIND_AXES = ("count", "dtype", "quality", "geo")


def chosen(seed: int, files: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield names and arguments of `write_jp2`: each axis by itself, then families of files."""
    rng = random.Random(seed)
    number = itertools.count()

    def made(choice: dict[str, int]) -> tuple[str, dict[str, Any]]:
        options: dict[str, Any] = {"WRITE_METADATA": "YES"}
        kind: dict[str, Any] = {"options": options}
        for axis, values in AXES.items():
            value = values[choice.get(axis, 0)]
            found = value(rng) if callable(value) else value
            (options if axis in OPTIONS else kind).update(found)
        return f"{next(number):05}", kind

    for base in ({}, {"count": 4, "size": 7}, {"dtype": 2, "size": 5, "tiles": 2}):
        for axis, values in AXES.items():
            for at in range(len(values)):
                yield made(base | {axis: at})
    while next(number) < files:
        family = {axis: rng.randrange(len(AXES[axis])) for axis in KIND_AXES if rng.random() < 0.4}
        for _ in range(8):
            each = dict(family, size=rng.randrange(len(AXES["size"])))
            for axis in AXES:
                if rng.random() < 0.2:
                    each[axis] = rng.randrange(len(AXES[axis]))
            yield made(each)


def write_variants(folder: Path, seed: int, files: int) -> tuple[list[Path], list[str]]:
    """Write variants; return their paths, and what GDAL refused to write."""
    paths, refused = [], []
    for name, kind in chosen(seed, files):
        path = folder / f"{name}.jp2"
        try:
            paths.append(write_jp2(path, **kind))
        except Exception as error:  # noqa: BLE001  # rasterio's, GDAL's, NumPy's refusals
            path.unlink(missing_ok=True)
            refused.append(f"{name}: {error}")
    for extra in folder.glob("*.aux.xml"):
        extra.unlink()
    return paths, refused
