"""Names of the files and folders that stand next to an output while a run writes it.

Names in a parts folder have the program's mark, as data sets of other programs have names like
``part-0.parquet``. A file without the mark is removed only if a log names it.
"""

from __future__ import annotations

import os
import re
import secrets

_MARK = "rastermeta-"
_PART = re.compile(rf"(?:{_MARK}|part-)(\d{{8,}})\.parquet")
"""Logs of version 2 name parts without the mark."""
_NO_RASTERS = re.compile(rf"{_MARK}no-rasters-[0-9a-f]{{16}}\.parquet")
_OWN = re.compile(rf"{_MARK}(?:\d{{8,}}\.parquet|[\w-]+\.tmp)|{_NO_RASTERS.pattern}")
_SEALED = re.compile(rf"{_MARK}sealed-[0-9a-f]{{16}}\.tmp")

SCRATCH_START, SCRATCH_END = _MARK, ".tmp"
"""Prefix and suffix of the names that `tempfile` gives in a parts folder."""


def behind_links(output: str) -> str:
    """Return an output's path; if it is a link, the path of its target."""
    return os.path.realpath(output) if os.path.islink(output) else output


def parts_folder(output: str) -> str:
    """Return the folder that holds an output's parts."""
    return behind_links(output) + ".parts"


def part_temporary(folder: str) -> str:
    """Return an unguessable temporary path for a part in a parts folder."""
    return os.path.join(folder, f"{_MARK}{secrets.token_hex(8)}.tmp")


def workers_note(folder: str) -> str:
    """Return the path of the note about a run's workers in a parts folder."""
    return os.path.join(folder, f"{_MARK}workers.tmp")


def sealed_temporary(folder: str) -> str:
    """Return an unguessable temporary path for a catalog in a parts folder."""
    return os.path.join(folder, f"{_MARK}sealed-{secrets.token_hex(8)}.tmp")


def sealed_temporaries(folder: str) -> list[str]:
    """Return the paths of temporary catalogs in a parts folder."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return [os.path.join(folder, name) for name in names if _SEALED.fullmatch(name)]


def log_path(output: str) -> str:
    """Return the path of an output's checkpoint log."""
    return behind_links(output) + ".checkpoint"


def part_name(number: int) -> str:
    """Return the file name of a part in the parts folder."""
    return f"{_MARK}{number:08d}.parquet"


def part_number(name: str) -> int | None:
    """Return the number of the part with this file name; None: it is not the name of a part."""
    match = _PART.fullmatch(name)
    return int(match[1]) if match else None


def no_rasters_name() -> str:
    """Return a new file name for the rows of no rasters in a parts folder."""
    return f"{_MARK}no-rasters-{secrets.token_hex(8)}.parquet"


def is_no_rasters(name: str) -> bool:
    """Tell whether a file in a parts folder holds rows of no rasters, by its name."""
    return _NO_RASTERS.fullmatch(name) is not None


def is_own(name: str) -> bool:
    """Tell whether a name in a parts folder has this program's mark."""
    return _OWN.fullmatch(name) is not None
