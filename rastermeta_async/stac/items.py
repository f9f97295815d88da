"""Make STAC items of assets, and the collection of these items.

References: STAC 1.1.0 (item and collection specification, common metadata); projection extension
v2.0.0 and v1.2.0; raster extension v2.0.0; electro-optical extension v2.0.0; file extension
v2.1.0; RFC 7946, section 3.1.6 (order of points) and 5 (bounding boxes).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rastermeta_async.footprints.limits import Limits, parsed, west_to_east
from rastermeta_async.model.record import tags_of
from rastermeta_async.stac.assets import (
    Asset,
    FieldChoice,
    Footprint,
    LeftOut,
    is_metadata,
    metadata_asset,
    name_of,
    raster_asset,
    unique_name_of,
)
from rastermeta_async.stac.dates import Interval, rfc3339
from rastermeta_async.stac.evidence import (
    Rules,
    common_interval,
    coordinate_of,
    evidence_of,
)
from rastermeta_async.stac.links import Links
from rastermeta_async.stac.products import SceneFile

STAC_VERSION = "1.1.0"
_EXTENSION = "https://stac-extensions.github.io/{}/schema.json"
PROJECTION = _EXTENSION.format("projection/v2.0.0")
LEGACY_PROJECTION = _EXTENSION.format("projection/v1.2.0")
"""The last version that has ``proj:epsg``, and the first that has ``proj:code``."""
RASTER = _EXTENSION.format("raster/v2.0.0")
ELECTRO_OPTICAL = _EXTENSION.format("eo/v2.0.0")
FILE = _EXTENSION.format("file/v2.1.0")

UNDATED = "nothing tells its date"
"""Reason for leaving out a row that lacks only a date."""

_COVERS = 0.999
"""Share of all footprints that the largest one covers, if it is that of the item: those of bands in
different resolutions differ by parts of a pixel."""


class ItemMaker:
    """Makes assets of rows, and items of assets.

    Args:
        rules: tell when a raster was taken.
        links: turns paths into links.
        choice: the fields of items.
        collection: id of the items' collection, and the link to it.
    """

    def __init__(
        self,
        rules: Rules,
        links: Links,
        choice: FieldChoice,
        collection: Mapping[str, str] | None = None,
    ) -> None:
        self._rules = rules
        self._links = links
        self._choice = choice
        self._collection = collection

    def asset(self, row: Mapping[str, Any], file: SceneFile | None = None) -> Asset:
        """Return the asset of a row, with its date.

        Args:
            row: plain values of `assets.COLUMNS`.
            file: what is known of it as a file of a scene; None: it is an item of its own.

        Raises:
            LeftOut: the row makes no asset.
        """
        if file and is_metadata(row):
            return metadata_asset(row, file, self._links)
        asset = raster_asset(row, file, self._links, self._choice)
        tags = tags_of(row["dataset_tags"]), tags_of(row["imagery_tags"])
        evidence = evidence_of(name_of(row), *tags)
        if coordinate := coordinate_of(row["time_start"], row["time_end"]):
            evidence = evidence._replace(coordinate=coordinate)
        if file:
            evidence = evidence._replace(product=file.taken)
        return asset._replace(dated=self._rules.date(evidence))

    def item_of_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the item of a row that is a file of no scene.

        Raises:
            LeftOut: the row was not read, or has no bands, or its time or place is unknown.
        """
        return self.item(_id_of_file(unique_name_of(row)), [self.asset(row)])

    def item(self, name: str, assets: Sequence[Asset]) -> dict[str, Any]:
        """Return the item of some assets, whose keys differ, for orjson: its geometry is encoded.

        Raises:
            LeftOut: no asset has a place, or a date.
        """
        placed = [asset for asset in assets if asset.footprint]
        if not placed:
            raise LeftOut("no raster of its scene has a place")
        interval = common_interval(asset.dated for asset in assets)
        if interval is None:
            raise LeftOut(UNDATED)
        geometry, bbox = _outline([asset.footprint for asset in placed if asset.footprint])
        shared = _shared([asset.place for asset in placed])
        item: dict[str, Any] = {
            "type": "Feature",
            "stac_version": STAC_VERSION,
            "stac_extensions": _extensions(assets, self._choice),
            "id": name,
            "geometry": geometry,
            "bbox": bbox,
            "properties": _times(interval) | shared,
            "links": [],
            "assets": {asset.key: asset.fields | _own(asset.place, shared) for asset in assets},
        }
        if self._collection:
            item["collection"] = self._collection["id"]
            item["links"].append(
                {
                    "rel": "collection",
                    "href": self._collection["href"],
                    "type": "application/json",
                }
            )
        return item


def _shared(places: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the fields in which all assets agree; gsd is the smallest, as searches look there."""
    first, *others = places
    if not others:
        return dict(first)
    shared = {
        name: value
        for name, value in first.items()
        if all(name in other and other[name] == value for other in others)
    }
    if sizes := [place["gsd"] for place in places if "gsd" in place]:
        shared["gsd"] = min(sizes)
    return shared


def _own(place: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an asset that differ from those of its item."""
    return {
        name: value for name, value in place.items() if name not in shared or shared[name] != value
    }


def _extensions(assets: Sequence[Asset], choice: FieldChoice) -> list[str]:
    """Return the extensions in use: an item that names one must have a field of it."""
    in_bands = {name for asset in assets for band in asset.fields.get("bands", ()) for name in band}
    found = [LEGACY_PROJECTION if choice.legacy_proj else PROJECTION]
    if any(name.startswith("raster:") for name in in_bands):
        found.append(RASTER)
    if "eo:common_name" in in_bands:
        found.append(ELECTRO_OPTICAL)
    if any("file:size" in asset.fields for asset in assets):
        found.append(FILE)
    return found


def _times(interval: Interval) -> dict[str, str | None]:
    """Return the fields of common metadata, "Date and Time"; `datetime` is null for a range."""
    start, end = map(rfc3339, interval)
    if start == end:
        return {"datetime": start}
    return {"datetime": None, "start_datetime": start, "end_datetime": end}


def _id_of_file(path: bytes) -> str:
    """Return the file name without its suffix, and a digest that makes it unique.

    The id depends only on the path. No character of it needs percent-encoding in a URL.
    """
    name = path.rpartition(b"/")[2].decode("utf-8", "replace")
    return id_with_digest(re.sub(r"(?<=.)\.[^.]*$", "", name), path)


def id_with_digest(name: str, unique: bytes) -> str:
    """Return a name in characters that a URL has unquoted, and the digest of `unique`."""
    stem = _plain(name)
    digest = hashlib.blake2b(unique, digest_size=8).hexdigest()
    return f"{stem}-{digest}" if stem else digest


def is_plain(name: str) -> bool:
    """Tell whether a name has only characters that a URL has unquoted."""
    return _plain(name) == name


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")


def _outline(footprints: Sequence[Footprint]) -> tuple[Any, list[float]]:
    """Return geometry and bbox of the largest footprint, or of all if they are larger by far."""
    shapes = parsed([one.geometry for one in footprints])
    known = [
        (shape, one)
        for shape, one in zip(shapes, footprints, strict=True)
        if shape is not None and not shape.is_empty
    ]
    if not known:
        raise LeftOut("its place on Earth is not known")
    largest, of_largest = max(known, key=lambda one: one[0].area)
    union = None
    if len({one.geometry for _, one in known}) > 1:
        union = _union([shape for shape, _ in known])
    if union is None or largest.area >= _COVERS * union.area:
        return _geojson(largest), _west_to_east(of_largest)
    limits = Limits()
    for _, one in known:
        limits.add(_west_to_east(one))
    return _geojson(union), limits.west_to_east() or list(union.bounds)


def _west_to_east(footprint: Footprint) -> list[float]:
    return west_to_east(footprint.bbox, footprint.geometry)


def _union(shapes: Sequence[Any]) -> Any:
    """Return the union with points in the order of RFC 7946; None if a shape is not valid."""
    import shapely
    from shapely.geometry import polygon

    if not shapely.is_valid(shapes).all():  # of a catalog of others
        return None
    parts = [polygon.orient(part) for part in shapely.get_parts(shapely.union_all(shapes))]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def _geojson(shape: Any) -> Any:
    """Return a shape as a part of JSON that is already encoded."""
    import orjson
    import shapely

    return orjson.Fragment(shapely.to_geojson(shape))


def collection_of(
    name: str, catalog: str, extent: Sequence[float], time: Interval
) -> dict[str, Any]:
    """Return the collection of items within an extent and a time interval.

    The user has to fill in what the catalog lacks: the licence is "other", there is no title.
    """
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "id": name,
        "description": f"Rasters of {catalog}",
        "license": "other",
        "extent": {
            "spatial": {"bbox": [list(extent)]},
            "temporal": {"interval": [[rfc3339(time.start), rfc3339(time.end)]]},
        },
        "links": [],
    }
