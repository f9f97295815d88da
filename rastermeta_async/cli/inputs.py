"""Turns the inputs of a command, as they were typed, into one source of paths."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from rastermeta_async.model.errors import SettingsError
from rastermeta_async.model.settings import Settings
from rastermeta_async.model.urls import is_prefix, is_url, local_path
from rastermeta_async.sources.globs import Globs, GlobSource
from rastermeta_async.sources.paths import (
    ChainedSource,
    IterableSource,
    ListSource,
    Shard,
    ShardSource,
    Source,
    StoreSource,
    SuffixSource,
)
from rastermeta_async.sources.walk import InputKind, kinds_of, walk

STDIN = "-"


class Given:
    """The inputs of a command.

    Args:
        names: of files, folders, objects and prefixes; `STDIN` stands for standard input.
        lists: files that hold paths.
        null: whether paths in lists and on standard input end in NUL bytes, not in line feeds.
        suffixes: endings of the names that are taken, also several with commas between; none: all.
        globs: patterns of the paths that are taken, see `Globs`; none: all.
        excluded: patterns of the paths that are left out.
        shard: take only the paths of this shard, e.g. ``0/4``; None: all.
        timeout: seconds that the disk may take to tell whether a name is a file or a folder.

    Raises:
        SettingsError: a list or shard does not exist, or a pattern is invalid.
    """

    def __init__(
        self,
        names: Sequence[str],
        lists: Sequence[str],
        *,
        null: bool,
        suffixes: Sequence[str],
        globs: Sequence[str] = (),
        excluded: Sequence[str] = (),
        shard: str | None,
        timeout: float,
    ) -> None:
        self._shard = Shard.of(shard) if shard is not None else None
        for path in lists:
            if not os.path.exists(path):
                raise SettingsError(f"--from-file: {path} does not exist")
        self._globs = Globs(globs, excluded) if globs or excluded else None
        self._lists = lists
        self._stdin = STDIN in names or not (names or lists)
        self._prefixes = [name for name in names if is_prefix(name)]
        others = [name for name in names if name != STDIN and not is_prefix(name)]
        self._named = [local_path(os.fsencode(name)) for name in others]
        self._separator = b"\0" if null else b"\n"
        endings = [one.strip().lstrip("*").lower() for one in ",".join(suffixes).split(",")]
        self._suffixes = tuple(os.fsencode(ending) for ending in endings if ending)
        local = [name for name in self._named if not is_url(name)]
        kinds = kinds_of(local, timeout)
        self.missing = [
            name for name, kind in zip(local, kinds, strict=True) if kind is InputKind.MISSING
        ]
        """Names of local files and folders that do not exist."""
        # Files come first, as a path that is named counts as such also if it is found, too.
        is_file = dict(zip(local, kinds, strict=True))
        self._named.sort(key=lambda name: is_file.get(name) is InputKind.FOLDER)
        self._plain = all(kind in (InputKind.FILE, InputKind.MISSING) for kind in kinds)

    def source(self, settings: Settings, stdin: Callable[[bytes], Source]) -> Source:
        """Return the source of all paths.

        Args:
            settings: of the run.
            stdin: takes a separator; returns the source of the paths on standard input.
        """
        streams: list[Source] = [ListSource(path, self._separator) for path in self._lists]
        sources = [*map(self._chosen, streams)]
        endings = tuple(map(os.fsdecode, self._suffixes))
        for url in self._prefixes:
            listed: Source = StoreSource(url, endings, settings.access)
            below = os.fsencode(url.rstrip("/") + "/")
            sources.append(GlobSource(listed, self._globs, below) if self._globs else listed)
        if self._named:
            walked = walk(self._named, self._suffixes, settings.timeout, self._globs)
            sources.append(IterableSource(self._named if self._plain else walked))
        if self._stdin:
            sources.append(self._chosen(stdin(self._separator)))
        source = sources[0] if len(sources) == 1 else ChainedSource(sources)
        return ShardSource(source, self._shard) if self._shard else source

    def _chosen(self, source: Source) -> Source:
        source = SuffixSource(source, self._suffixes) if self._suffixes else source
        return GlobSource(source, self._globs) if self._globs else source
