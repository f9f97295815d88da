"""Where an output is while it is being made: the names of all that stands next to it.

What is in a folder of parts has the program's mark in its name: other programs' data sets have
files of names like ``part-0.parquet``, and nothing without the mark is removed but what a log
names.
"""

from __future__ import annotations

import os
import re
import secrets

_MARK = "rastermeta-"
_PART = re.compile(rf"(?:{_MARK}|part-)(\d{{8,}})\.parquet")
"""Logs of version 2 name parts without the mark."""
_OWN = re.compile(rf"{_MARK}(?:\d{{8,}}\.parquet|[\w-]+\.tmp)")
_SEALED = re.compile(rf"{_MARK}sealed-[0-9a-f]{{16}}\.tmp")

SCRATCH_START, SCRATCH_END = _MARK, ".tmp"
"""Of the names that `tempfile` is to give in a folder of parts."""


def behind_links(output: str) -> str:
    """Return an output's own path, where it is a link that of what it leads to."""
    return os.path.realpath(output) if os.path.islink(output) else output


def parts_folder(output: str) -> str:
    """Return the folder that holds an output's parts."""
    return behind_links(output) + ".parts"


def part_temporary(folder: str) -> str:
    """Return an unguessable name for a part that is being written to a folder."""
    return os.path.join(folder, f"{_MARK}{secrets.token_hex(8)}.tmp")


def sealed_temporary(folder: str) -> str:
    """Return an unguessable name for a catalog that is being written to a folder of parts."""
    return os.path.join(folder, f"{_MARK}sealed-{secrets.token_hex(8)}.tmp")


def sealed_temporaries(folder: str) -> list[str]:
    """Return the catalogs that were being written to a folder of parts."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return [os.path.join(folder, name) for name in names if _SEALED.fullmatch(name)]


def log_path(output: str) -> str:
    """Return the path of an output's checkpoint log."""
    return behind_links(output) + ".checkpoint"


def part_name(number: int) -> str:
    """Return the name that the file of a part has in the parts folder."""
    return f"{_MARK}{number:08d}.parquet"


def part_number(name: str) -> int | None:
    """Return the number of the part whose file has this name; None: it is none's."""
    match = _PART.fullmatch(name)
    return int(match[1]) if match else None


def is_own(name: str) -> bool:
    """Tell whether something in a parts folder has a name with this program's mark."""
    return _OWN.fullmatch(name) is not None
