"""A set of paths, for example the finished ones, that takes 16 bytes a path.

It keeps a 128-bit fingerprint of a path: two outputs of Python's keyed SipHash (PEP 456), which
are valid in this process only. The fingerprint of a signed URL leaves out the signature. At 10^8
paths the chance that any two share a fingerprint is below 10^-22.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rastermeta_async.model.urls import all_without_secrets

_SALT = b"\0rastermeta"
_BUFFERED = 1 << 14
_SEGMENT = 1 << 21
_KEY = np.dtype("V16")
"""Type of both words of a path together, as bytes."""

Words = np.ndarray[Any, np.dtype[np.int64]]


def fingerprints(paths: Sequence[bytes]) -> Words:
    """Return the two 64-bit words of each path's fingerprint, shape (n, 2)."""
    words = np.empty((len(paths), 2), np.int64)
    words[:, 0] = np.fromiter(map(hash, paths), np.int64, len(paths))
    words[:, 1] = np.fromiter(map(hash, map(_SALT.__add__, paths)), np.int64, len(paths))
    return words


class PathSet:
    """A set of paths that grows by sorted segments: 10^7 paths take at most 160 MB.

    With `window`, it keeps only about that many of the latest paths.
    """

    def __init__(self, window: int | None = None) -> None:
        self._window = window
        self._recent: set[bytes] = set()
        self._segments: list[tuple[Words, Words]] = []

    def __len__(self) -> int:
        return len(self._recent) + sum(len(first) for first, _ in self._segments)

    def update(self, paths: Sequence[bytes]) -> None:
        """Add many paths at once; duplicates among them only cost memory."""
        if paths:
            self._add_segment(fingerprints(paths))

    def add_new(self, paths: Sequence[bytes]) -> list[bytes]:
        """Add `paths`, and return the new ones, in order, each once."""
        new = []
        for path, key in self._unknown(paths):
            if key not in self._recent:
                self._recent.add(key)
                new.append(path)
        if len(self._recent) >= _BUFFERED:
            words = np.frombuffer(b"".join(self._recent), np.int64).reshape(-1, 2)
            self._recent.clear()
            self._add_segment(words)
        return new

    def missing(self, paths: Sequence[bytes]) -> list[bytes]:
        """Return the paths that are not in the set, in order; add nothing."""
        if not len(self):
            return list(paths)
        return [path for path, key in self._unknown(paths) if key not in self._recent]

    def known(self, paths: Sequence[bytes]) -> list[bytes]:
        """Return the paths that are in the set, in order."""
        if not len(self):
            return []
        missing = set(self.missing(paths))
        return [path for path in paths if path not in missing]

    def _unknown(self, paths: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
        """Return the paths that are in no segment, with their fingerprints as bytes."""
        words = fingerprints(all_without_secrets(paths))
        keyed = zip(paths, words.view(_KEY).ravel().tolist(), strict=True)
        # Words in ascending order are near each other in a segment: in the processor's cache.
        order = np.argsort(words[:, 0])
        a, b = words[order].T.copy()
        is_new = np.ones(len(words), dtype=bool)
        for first, second in self._segments:
            is_new[order[_contains(first, second, a, b)]] = False
        return itertools.compress(keyed, is_new.tolist())

    def _add_segment(self, words: Words) -> None:
        self._segments.append(_sorted(words[:, 0], words[:, 1]))
        # Neighbours of similar size merge, so there are few segments.
        while len(self._segments) > 1 and _mergeable(*self._segments[-2:]):
            second, first = self._segments.pop(), self._segments.pop()
            merged = _sorted(*(np.concatenate(pair) for pair in zip(first, second, strict=True)))
            self._segments.append(merged)
        while self._window is not None and len(self) - len(self._segments[0][0]) >= self._window:
            del self._segments[0]


def _mergeable(older: tuple[Words, Words], newer: tuple[Words, Words]) -> bool:
    sizes = len(older[0]), len(newer[0])
    return sizes[0] < 2 * sizes[1] and sum(sizes) <= _SEGMENT


def _sorted(first: Words, second: Words) -> tuple[Words, Words]:
    order = np.argsort(first)
    return first[order], second[order]


def _contains(first: Words, second: Words, a: Words, b: Words) -> np.ndarray[Any, Any]:
    """Return for each pair (a, b) whether it is in the pairs (first, second), sorted by first."""
    start = np.searchsorted(first, a)
    inside = start < len(first)
    at = np.where(inside, start, 0)
    same = inside & (first[at] == a)
    found: np.ndarray[Any, Any] = same & (second[at] == b)
    for index in np.flatnonzero(same & ~found):  # equal first words are very rare
        stop = np.searchsorted(first, a[index], side="right")
        found[index] = bool((second[start[index] : stop] == b[index]).any())
    return found
