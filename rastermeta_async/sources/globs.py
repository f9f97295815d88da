"""Chooses paths by patterns, as ``.gitignore`` has them, before anything is opened."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from rastermeta_async.model.errors import SettingsError
from rastermeta_async.model.urls import without_query
from rastermeta_async.sources.paths import Source

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec


class Globs:
    """Patterns of paths that are taken, and of paths that are left out.

    Args:
        only: patterns of which a path must match one; none: every path is taken.
        exclude: patterns of which it must match none. What is excluded may be taken again by a
            later pattern that begins with ``!``, but not below a folder that is excluded.

    Raises:
        SettingsError: a pattern is invalid.
    """

    def __init__(self, only: Sequence[str], exclude: Sequence[str]) -> None:
        self._only = _spec("--glob", only) if only else None
        self._exclude = _spec("--exclude", exclude)
        self._takes_back = any(pattern.startswith("!") for pattern in exclude)

    def take(self, path: bytes) -> bool:
        """Tell whether a file is taken; `path` is relative to what is walked."""
        name = os.fsdecode(path)
        if self._exclude.match_file(name):
            return False
        if self._takes_back:  # but not below a folder that is excluded (gitignore(5))
            ends = [at + 1 for at, char in enumerate(name) if char == "/" and at]
            if any(self._exclude.match_file(name[:end]) for end in ends):
                return False
        return self._only is None or self._only.match_file(name)

    def take_folder(self, path: bytes) -> bool:
        """Tell whether files below a folder may be taken; `path` as for `take`, without a slash."""
        return not self._exclude.match_file(f"{os.fsdecode(path)}/")


def _spec(option: str, patterns: Sequence[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec  # only runs with patterns need it

    try:
        return GitIgnoreSpec.from_lines(patterns)
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        raise SettingsError(f"{option}: no pattern as in .gitignore: {reason}") from error


class GlobSource:
    """The paths of another source that are chosen by patterns.

    Args:
        source: the other source.
        globs: the patterns.
        below: beginning of the paths that does not count.
    """

    def __init__(self, source: Source, globs: Globs, below: bytes = b"") -> None:
        self._source = source
        self._globs = globs
        self._below = below

    async def blocks(self) -> AsyncIterator[list[bytes]]:
        """See `Source.blocks`."""
        async for block in self._source.blocks():
            yield [path for path in block if self._takes(path)]

    def _takes(self, path: bytes) -> bool:
        return self._globs.take(without_query(path).removeprefix(self._below))

    def fraction(self) -> float | None:
        """See `Source.fraction`."""
        return self._source.fraction()
