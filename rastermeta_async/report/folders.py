"""The folders of an archive that are worth showing: the tree of those that hold the most.

An archive may have millions of folders. While paths are counted, small folders are folded into the
folders around them, so memory is bounded. A row belongs to the deepest folder of the tree that
holds it, so the counts of the tree are exact, whichever folders it has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.report.places import Codes

MAX_COUNTED = 50_000
"""Folders that are counted at once, before the small ones are folded into those around them."""

MAX_SHOWN = 1_000
"""Folders of the tree."""

MAX_NAME = 1_000
"""Characters of a folder's path; a longer one counts as the folder around it."""

ROOT = ""
"""The folder of all paths."""


class _Held(NamedTuple):
    """What a folder holds."""

    files: int
    bytes: float

    def plus(self, other: _Held) -> _Held:
        return _Held(self.files + other.files, self.bytes + other.bytes)


_NOTHING = _Held(0, 0)
_Counts = dict[str, _Held]


def parent_of(folder: str) -> str:
    """Return the folder around a folder; `ROOT` for the first one of a path or URL."""
    around = folder.rpartition("/")[0].rstrip("/")
    return ROOT if around.endswith(":") else around  # the scheme of a URL


def folders_of(paths: pa.Array) -> pa.DictionaryArray:
    """Return the folder of each path, without a slash at its end."""
    names = pc.replace_substring_regex(paths, r"/+[^/]*$", "")
    return pc.if_else(pc.match_substring(paths, "/"), names, ROOT).dictionary_encode()


class FolderCounter:
    """Counts the files and bytes of folders; `add` takes rows in any order."""

    def __init__(self) -> None:
        self._counts: _Counts = {}
        """What is in a folder itself, or in a small one below it."""

    def add(self, paths: pa.Array, sizes: pa.Array) -> None:
        """Count rows.

        Args:
            paths: column filepath.
            sizes: column file_size.
        """
        rows = pa.table(
            {
                "folder": folders_of(paths),
                "size": pc.fill_null(sizes, 0).cast(pa.float64(), safe=False),
            }
        )
        sums = rows.group_by("folder").aggregate([([], "count_all"), ("size", "sum")])
        for folder, files, size in zip(*(one.to_pylist() for one in sums.columns), strict=True):
            self._put(_short(folder), _Held(files, size))
            if len(self._counts) > MAX_COUNTED:
                self._fold()

    def _put(self, folder: str, held: _Held) -> None:
        self._counts[folder] = self._counts.get(folder, _NOTHING).plus(held)

    def _fold(self) -> None:
        """Add the smaller half of the folders to the folders around them."""
        by_size = sorted(self._counts, key=_share_in(self._counts), reverse=True)
        for folder in by_size[MAX_COUNTED // 2 :]:
            self._put(parent_of(folder), self._counts.pop(folder))

    def largest(self, most: int) -> list[tuple[str, int, float]]:
        """Return path, files and bytes of a few folders that together hold most of the archive.

        They start with the deepest folder that holds all; the largest is opened while there is
        room for what is in it.
        """
        whole = self._whole()
        below: dict[str, list[str]] = {}
        for folder in whole:
            if folder != ROOT:
                below.setdefault(parent_of(folder), []).append(folder)
        shown = [ROOT]
        while (opened := _to_open(shown, below, whole, most)) is not None:
            shown.remove(opened)
            shown += below[opened]
        shown.sort(key=lambda folder: (-whole[folder].files, folder))
        return [(folder, whole[folder].files, whole[folder].bytes) for folder in shown]

    def tree(self) -> FolderTree:
        """Return the tree of the folders that hold the most files or the most bytes."""
        whole = self._whole()
        # A folder holds what those below it hold. Of equals the shorter path is the one around.
        share = _share_in(whole)
        return FolderTree(sorted(whole, key=lambda one: (-share(one), len(one), one))[:MAX_SHOWN])

    def _whole(self) -> _Counts:
        """Return what each folder holds with all below it."""
        whole: _Counts = {ROOT: _NOTHING}
        for folder, held in self._counts.items():
            for one in _upwards(folder):
                whole[one] = whole.get(one, _NOTHING).plus(held)
        return whole


def _to_open(
    shown: list[str], below: dict[str, list[str]], whole: _Counts, most: int
) -> str | None:
    """Return the largest folder whose inner folders hold all of it and leave the list short."""
    for folder in sorted(shown, key=lambda one: -whole[one].files):
        inner = below.get(folder, [])
        if not inner or sum(whole[one].files for one in inner) != whole[folder].files:
            continue
        if len(shown) - 1 + len(inner) <= most:
            return folder
    return None


def _short(folder: str) -> str:
    while len(folder) > MAX_NAME:
        folder = parent_of(folder[: MAX_NAME + 1])
    return folder


def _upwards(folder: str) -> list[str]:
    """Return a folder and all folders around it, the nearest first."""
    found = [folder]
    while folder != ROOT:
        folder = parent_of(folder)
        found.append(folder)
    return found


def _share_in(counts: _Counts) -> Callable[[str], float]:
    """Return the function that tells a folder's share of all, in files or in bytes."""
    files = max(1, max((held.files for held in counts.values()), default=1))
    size = max(1, max((held.bytes for held in counts.values()), default=1))
    return lambda folder: max(counts[folder].files / files, counts[folder].bytes / size)


class FolderTree:
    """Folders, each with the folder around it.

    Args:
        folders: paths; with each folder, the one around it is there, and comes before it.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self.folders = list(folders)
        self._places = {folder: at for at, folder in enumerate(self.folders)}

    @property
    def parents(self) -> list[int]:
        """Index of the folder around each folder; -1 for `ROOT`."""
        return [-1, *(self._places[parent_of(folder)] for folder in self.folders[1:])]

    def codes(self, paths: pa.Array) -> Codes:
        """Return for each path the index of the deepest folder that holds it."""
        encoded = folders_of(paths)
        known = [self._code_of(_short(folder)) for folder in encoded.dictionary.to_pylist()]
        codes: Codes = np.array(known or [0], dtype=np.int64)[np.asarray(encoded.indices)]
        return codes

    def _code_of(self, folder: str) -> int:
        while (code := self._places.get(folder)) is None:
            folder = parent_of(folder)
        return code
