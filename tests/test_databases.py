"""Databases of SQLite: which have changes elsewhere, and how GDAL opens the others."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from rastermeta_async.readers.databases import database_options


def write(path: Path, mode: str = "delete") -> None:
    """Write a database that is closed."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"pragma journal_mode={mode}")
        database.execute("create table a (b)")
        database.commit()


def copied_while_written(path: Path, mode: str) -> None:
    """Write a database as it is found where a program writes it, or was killed meanwhile."""
    written = path.with_name("written")
    write(written, mode)
    with closing(sqlite3.connect(written)) as database:
        database.execute("pragma cache_size=1")  # so that pages reach the file at once
        database.execute("begin")
        database.executemany("insert into a values (?)", [("b" * 1000,)] * 100)
        if mode == "wal":
            database.commit()
        for file in path.parent.glob("written*"):
            shutil.copy(file, path.with_name(file.name.replace("written", path.name)))


def with_other(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def written(path: Path) -> None:
        write(path)
        make(path.with_name(path.name + name))

    return written


DATABASES: dict[str, tuple[Callable[[Path], object], dict[str, str] | None]] = {
    "written to its end": (write, {}),
    "with a write-ahead log that was closed": (lambda path: write(path, "wal"),
                                               {"IMMUTABLE": "YES"}),
    "with a write-ahead log": (lambda path: copied_while_written(path, "wal"), None),
    "with an empty log": (with_other("-wal", Path.touch), {}),
    "with a pipe for a log": (with_other("-wal", os.mkfifo), {}),
    "with a folder for a log": (with_other("-wal", Path.mkdir), {}),
    "with a journal to be played back": (lambda path: copied_while_written(path, "delete"), None),
    "with a journal that is kept": (lambda path: write(path, "persist"), {}),
    "with an empty journal": (with_other("-journal", Path.touch), {}),
    "no database": (lambda path: path.write_bytes(b"II*\0" + bytes(1020)), {}),
    "nothing": (lambda _: None, {}),
}  # fmt: skip


@pytest.mark.parametrize("linked", [False, True], ids=["itself", "behind a link"])
@pytest.mark.parametrize("name", DATABASES)
def test_a_database_is_read_as_it_is_or_has_changes_elsewhere(
    tmp_path: Path, name: str, *, linked: bool
) -> None:
    make, options = DATABASES[name]
    path = tmp_path / "there" / "a.gpkg"
    path.parent.mkdir()
    make(path)
    size = path.stat().st_size if path.exists() else 512
    assert not size % 512
    if linked:
        link = tmp_path / "link.gpkg"
        link.symlink_to(path)
        path = link
    assert database_options(os.fsencode(path), size) == options
