"""Assemble the items of a catalog's rows: an item a file, or an item a scene.

A file of a scene that makes no asset is left out, and the scene is made of its other files. Of a
scene that has an asset twice nothing tells which file is meant: all its files are left out.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rastermeta_async.stac.assets import Asset, LeftOut, name_of
from rastermeta_async.stac.items import ItemMaker, id_with_digest, is_plain
from rastermeta_async.stac.products import PER_FOLDER, SceneFile
from rastermeta_async.stac.scenes import Row

NO_SCENE = "no --scene matches its path"
DOUBLED = "its scene has an asset twice"

_MOST_FILES = 1000
_MOST_BANDS = 100_000
"""Limits of a scene, which is in memory at once; a file alone may have more bands."""

_MOST_SETS = 200
"""Sets of assets that are told apart in each product; with more, no asset is said to be missing."""


class Omitted(NamedTuple):
    """A row that makes no item, nor a part of one."""

    path: str
    reason: str


@dataclass
class Notes:
    """What to tell about scenes: counts, each with an example."""

    doubled: int = 0
    doubled_example: str = ""
    mixed: int = 0
    """Scenes with assets in several CRSs."""
    mixed_example: str = ""
    copies: int = 0
    """Scenes with the name of another scene."""
    copies_example: str = ""
    _sets: dict[str, dict[frozenset[str], tuple[int, str]] | None] = field(default_factory=dict)
    """Number of scenes, and the first one, by product and set of assets; None: too many sets."""

    def add_doubled(self, scene: str, key: str, paths: tuple[str, str]) -> None:
        """Note a scene with two files for an asset."""
        self.doubled += 1
        self.doubled_example = self.doubled_example or f"{scene}, {key}: {' and '.join(paths)}"

    def add_copy(self, scene: str, root: str) -> None:
        """Note a scene whose name an earlier one has."""
        self.copies += 1
        self.copies_example = self.copies_example or f"{scene} in {root or '.'}"

    def add(self, scene: str, product: str, assets: Iterable[Asset]) -> None:
        """Note the CRSs and the set of assets of a scene."""
        assets = list(assets)
        crs = {
            asset.place["proj:code"] or asset.place.get("proj:wkt2", "no code")
            for asset in assets
            if asset.place
        }
        if len(crs) > 1:
            self.mixed += 1
            names = sorted(str(one)[:80] for one in crs)
            self.mixed_example = self.mixed_example or f"{scene}: {', '.join(names)}"
        sets = self._sets.setdefault(product, {})
        if sets is None:
            return
        keys = frozenset(asset.key for asset in assets)
        count, first = sets.get(keys, (0, scene))
        sets[keys] = count + 1, first
        if len(sets) > _MOST_SETS:
            self._sets[product] = None

    def lacking(self) -> Iterator[tuple[int, str, list[str]]]:
        """Yield for each product the number of scenes without an asset that most scenes have.

        With it comes the first such scene, and what it lacks.
        """
        for sets in self._sets.values():
            usual = _usual(sets or {})
            short = [
                (count, first, usual - keys) for keys, (count, first) in (sets or {}).items()
                if usual - keys
            ]  # fmt: skip
            if short:
                _, first, missing = short[0]
                yield sum(count for count, _, _ in short), first, sorted(missing)


def _usual(sets: Mapping[frozenset[str], tuple[int, str]]) -> set[str]:
    """Return the assets that more than half of the scenes have."""
    number: Counter[str] = Counter()
    for keys, (count, _) in sets.items():
        number.update(dict.fromkeys(keys, count))
    total = sum(count for count, _ in sets.values())
    return {key for key, count in number.items() if 2 * count > total}


class Assembler:
    """Makes the items of rows.

    Args:
        maker: makes assets and items.
        others_alone: whether a file of no scene is an item of its own.
    """

    def __init__(self, maker: ItemMaker, *, others_alone: bool = True) -> None:
        self._maker = maker
        self._others_alone = others_alone
        self._last_scene: str | None = None
        self.notes = Notes()

    def items(self, rows: Iterable[Row]) -> Iterator[dict[str, Any] | Omitted]:
        """Yield the items of rows, and the rows that are in none.

        Args:
            rows: the rows of a scene, which have the same scene and root, follow one another;
                scenes of the same name, too.
        """
        for (scene, _), files in itertools.groupby(rows, key=_scene_of):
            if scene is None:
                for row, _ in files:
                    yield self._alone(row)
            else:
                yield from self._of_scene(files)

    def _alone(self, row: Mapping[str, Any]) -> dict[str, Any] | Omitted:
        if not self._others_alone:
            return Omitted(name_of(row), NO_SCENE)
        try:
            return self._maker.item_of_row(row)
        except LeftOut as finding:
            return Omitted(name_of(row), str(finding))

    def _of_scene(self, files: Iterator[Row]) -> Iterator[dict[str, Any] | Omitted]:
        assets: list[Asset] = []
        bands = 0
        for row, file in files:
            try:
                assets.append(self._maker.asset(row, file))
            except LeftOut as finding:
                yield Omitted(name_of(row), str(finding))
            bands += row["count"] or 0
            if len(assets) > _MOST_FILES or (bands > _MOST_BANDS and len(assets) > 1):
                reason = f"its scene has more than {_MOST_FILES:,} files or {_MOST_BANDS:,} bands"
                yield from _all_omitted(assets, reason)
                yield from (Omitted(name_of(other), reason) for other, _ in files)
                return
        if assets and file:
            yield from self._assembled(file, assets)

    def _assembled(
        self, file: SceneFile, assets: list[Asset]
    ) -> Iterator[dict[str, Any] | Omitted]:
        seen: dict[str, str] = {}
        for asset in assets:
            if asset.key in seen:
                self.notes.add_doubled(file.scene, asset.key, (seen[asset.key], asset.path))
                yield from _all_omitted(assets, DOUBLED)
                return
            seen[asset.key] = asset.path
        try:
            yield self._maker.item(self._id_of(file), assets)
        except LeftOut as finding:
            yield from _all_omitted(assets, str(finding))
        else:
            self.notes.add(file.scene, file.product, assets)

    def _id_of(self, file: SceneFile) -> str:
        """Return the scene's name; for one that is not unique, or odd, with a digest."""
        is_copy = file.scene == self._last_scene
        self._last_scene = file.scene
        if is_copy and file.rule != PER_FOLDER:
            self.notes.add_copy(file.scene, file.root)
        if not is_copy and file.rule != PER_FOLDER and is_plain(file.scene):
            return file.scene
        return id_with_digest(file.scene, f"{file.root}\0{file.scene}".encode())


def _scene_of(row: Row) -> tuple[str | None, str]:
    file = row[1]
    return (file.scene, file.root) if file else (None, "")


def _all_omitted(assets: Iterable[Asset], reason: str) -> Iterator[Omitted]:
    for asset in assets:
        yield Omitted(asset.path, reason)
