"""What a report shows, made of a cube: the same for the page and for pictures."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rastermeta_async.catalog.difference import GONE
from rastermeta_async.report.advice import advice_on
from rastermeta_async.report.cube import Cube
from rastermeta_async.report.dimensions import described
from rastermeta_async.report.facts import CHANGE, NOT_COMPARED, SEPARATOR
from rastermeta_async.report.places import FINEST, Codes, coarser

TITLES = {
    "place": "Place", "time": "Taken", "folder": "Folder", "size": "File size", "state": "State",
    "driver": "Driver", "crs": "CRS", "pixel": "Pixel size", "dtype": "Data type",
    "bands": "Number of bands", "compression": "Compression", "layout": "Layout",
    "cog": "Cloud-optimised GeoTIFF", CHANGE: "Since the older catalog",
}  # fmt: skip

_CHARTED = ("place", "time", "folder")
"""Dimensions that have a chart of their own; the others are lists of bars."""

_MARGIN = 0.35
"""Room around the outermost cells of a map, as a share of what they span."""

_LEAST = 3.0
"""Degrees that a map shows at least."""


@dataclass(frozen=True)
class Facet:
    """Bars of a dimension: files by value."""

    name: str
    title: str
    labels: list[str]
    files: list[int]
    ordered: bool
    """Whether the values have an order of their own."""
    whole: int
    """All files; the sum of `files` is more where a file has several values."""


@dataclass(frozen=True)
class FolderFiles:
    """Files in the folders of the tree."""

    labels: list[str]
    parents: list[int]
    own: list[int]
    """Files in a folder, or in one below it that is not in the tree."""

    @cached_property
    def whole(self) -> list[int]:
        """Files in a folder and all below it."""
        whole = list(self.own)
        for folder in sorted(range(len(whole)), key=self._depth, reverse=True):
            if self.parents[folder] >= 0:
                whole[self.parents[folder]] += whole[folder]
        return whole

    def _depth(self, folder: int) -> int:
        depth = 0
        while (folder := self.parents[folder]) >= 0:
            depth += 1
        return depth

    def below(self, folder: int) -> list[int]:
        """Return the folders in a folder, those with the most files first."""
        found = [one for one, parent in enumerate(self.parents) if parent == folder]
        return sorted(found, key=lambda one: -self.whole[one])

    @property
    def top(self) -> int:
        """The deepest folder that holds all files."""
        folder = self.parents.index(-1)
        while not self.own[folder] and len(below := self.below(folder)) == 1:
            (folder,) = below
        return folder

    def name(self, folder: int) -> str:
        """Return the path of a folder from the one around it."""
        around = self.labels[self.parents[folder]] if self.parents[folder] >= 0 else ""
        return self.labels[folder][len(around) :].lstrip("/") or "/"


class ReportContent:
    """What a report shows.

    Args:
        cube: of the catalog.
    """

    def __init__(self, cube: Cube) -> None:
        self.cube = cube
        self.dimensions = [self._dimension(name) for name in cube.dimensions]
        self._by_name = {one["name"]: one for one in self.dimensions}

    def _dimension(self, name: str) -> dict[str, Any]:
        found = described(self.cube.dimensions[name])
        shown = name not in _CHARTED and found["labels"] != [NOT_COMPARED]
        found |= {"title": TITLES[name], "facet": shown, "ordered": name == "size"}
        if name == "state":
            _describe_states(found)
        if name == "cog":
            _describe_cogs(found)
        return found

    def files(self, name: str) -> Codes:
        """Return the files of each bucket of a dimension."""
        count = len(self.cube.dimensions[name])
        weights = np.asarray(self.cube.rows["files"])
        return np.bincount(self.cube.codes(name), weights, count).astype(np.int64)

    @property
    def chosen(self) -> dict[str, list[int]]:
        """The values that a page selects at first: all files but those that are gone."""
        labels = self._by_name[CHANGE]["labels"]
        if GONE not in labels:
            return {}
        return {CHANGE: [at for at, label in enumerate(labels) if label != GONE]}

    @property
    def outlined(self) -> bool:
        """Whether the map shows outlines, not cells."""
        return self.cube.outlines.are_few

    def outlines(self) -> list[tuple[int, list[Any]]]:
        """Return the bucket and the polygons of each outline; empty if there are too many."""
        shapes = self.cube.outlines.shapes()
        place = self.cube.dimensions["place"]
        buckets = {key: at for at, key in enumerate(place.keys)}
        cells = coarser(np.array([cell for cell, _ in shapes], dtype=np.int64), FINEST - place.step)
        pairs = zip(cells.tolist(), (shape for _, shape in shapes), strict=True)
        return [(buckets[cell], shape) for cell, shape in pairs if cell in buckets]

    @cached_property
    def cells(self) -> list[dict[str, Any]]:
        """Cells with their shapes, for a map."""
        outlines: dict[int, list[Any]] = {}
        for bucket, polygons in self.outlines():
            outlines.setdefault(bucket, []).extend(polygons)
        return [
            {"bucket": at, "shape": _shape(box, outlines.get(at)),
             "lon": (box[0] + box[2]) / 2, "lat": (box[1] + box[3]) / 2}
            for at, box in enumerate(self._by_name["place"]["boxes"])
            if box
        ]  # fmt: skip

    @property
    def bins(self) -> list[dict[str, Any]]:
        """Spans of time with their files, start and end in milliseconds since 1970."""
        time = self._by_name["time"]
        pairs = zip(time["starts"], self.files("time").tolist(), strict=True)
        return [
            {"start": _milliseconds(start, 0), "end": _milliseconds(start, time["months"]),
             "value": files, "on": 1}
            for start, files in pairs
            if start
        ]  # fmt: skip

    @property
    def folders(self) -> FolderFiles:
        """Files in the folders of the tree."""
        folder = self._by_name["folder"]
        return FolderFiles(folder["labels"], folder["parents"], self.files("folder").tolist())

    @property
    def facets(self) -> list[Facet]:
        """Bars of all dimensions without a chart of their own."""
        return [self._facet(one) for one in self.dimensions if one["facet"]]

    def _facet(self, dimension: dict[str, Any]) -> Facet:
        files = self.files(dimension["name"]).tolist()
        whole = sum(files)
        labels = dimension.get("values", dimension["labels"])
        if members := dimension.get("members"):
            sums = [0] * len(labels)
            for some, count in zip(members, files, strict=True):
                for value in some:
                    sums[value] += count
            files = sums
        name, title = dimension["name"], dimension["title"]
        return Facet(name, title, labels, files, dimension["ordered"], whole)

    @cached_property
    def _arc(self) -> tuple[float, float, float, float]:
        """West, south, east, north of all cells; east is up to 540 across the antimeridian."""
        boxes = [box for box in self._by_name["place"]["boxes"] if box]
        if not boxes:
            return -180.0, -90.0, 180.0, 90.0
        west, south, east, north = np.array(boxes).T
        order = np.argsort(west)
        # The arc lies beside the widest gap between neighbours.
        reach = np.maximum.accumulate(east[order])
        gaps = np.append(west[order][1:] - reach[:-1], west.min() + 360 - reach[-1])
        after = int(gaps.argmax())
        start = float(west[order][(after + 1) % len(boxes)])
        end = float(reach[after])
        return start, float(south.min()), end if end > start else end + 360, float(north.max())

    @property
    def centre(self) -> float:
        """Longitude of the middle of a map, degrees; 0 where the cells go all around."""
        west, _, east, _ = self._arc
        return 0.0 if east - west > _ALL_AROUND else ((west + east) / 2 + 180) % 360 - 180

    @property
    def frame(self) -> dict[str, Any]:
        """What a map shows, as GeoJSON: all cells and some room around them."""
        west, south, east, north = self._arc
        if east - west > _ALL_AROUND:
            return {"type": "Sphere"}
        middle = (south + north) / 2
        wide = max((east - west) * (1 + _MARGIN), _LEAST) / 2
        high = max((north - south) * (1 + _MARGIN), _LEAST) / 2
        low, top = max(-89.9, middle - high), min(89.9, middle + high)
        centre = (west + east) / 2
        points = [
            [(centre + x * wide + 180) % 360 - 180, y]
            for x in (-1, 0, 1)
            for y in (low, middle, top)
        ]
        return {"type": "MultiPoint", "coordinates": points}


_ALL_AROUND = 200.0
"""Degrees; a map of what spans more shows the whole Earth."""


def _milliseconds(start: tuple[int, int], months: int) -> float:
    year, month = start
    month += months - 1
    moment = dt.datetime(year + month // 12, month % 12 + 1, 1, tzinfo=dt.UTC)
    return moment.timestamp() * 1000


def _shape(box: tuple[float, float, float, float], outline: list[Any] | None) -> dict[str, Any]:
    """Return an outline or a cell as GeoJSON, clockwise, as D3 wants it on a sphere."""
    if outline:
        return {"type": "MultiPolygon", "coordinates": outline}
    west, south, east, north = box
    across = np.linspace(west, east, max(2, int((east - west) / 2) + 2))  # no great circles
    ring = [[x, north] for x in across.tolist()] + [[x, south] for x in across[::-1].tolist()]
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}


def _describe_states(state: dict[str, Any]) -> None:
    """Give the states of a dimension their words, and advice on errors."""
    words = {"success": "read", "no_georef": "read, but not georeferenced"}
    parts = [label.split(SEPARATOR, 1) for label in state["labels"]]
    state["labels"] = [words.get(one[0], ": ".join(filter(None, one))) for one in parts]
    state["advice"] = [advice_on(one[0]) if len(one) > 1 else None for one in parts]


def _describe_cogs(cog: dict[str, Any]) -> None:
    """Say which values a bucket has: a file that is no COG may have several problems."""
    values: dict[str, int] = {}
    cog["members"] = [
        [values.setdefault(part, len(values)) for part in label.split(SEPARATOR) if part]
        for label in cog["labels"]
    ]
    cog["labels"] = [": ".join(filter(None, label.split(SEPARATOR))) for label in cog["labels"]]
    cog["values"] = list(values)
