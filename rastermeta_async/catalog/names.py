"""Where an output is while it is being made: the names of all that stands next to it."""

from __future__ import annotations

import os
import re

_PART = re.compile(r"part-(\d+)\.parquet")


def behind_links(output: str) -> str:
    """Return an output's own path, where it is a link that of what it leads to."""
    return os.path.realpath(output) if os.path.islink(output) else output


def parts_folder(output: str) -> str:
    """Return the folder that holds an output's parts."""
    return behind_links(output) + ".parts"


def sealed_temporary(output: str) -> str:
    """Return the file that a catalog is written to before it takes its name."""
    return os.path.join(parts_folder(output), "sealed.tmp")


def log_path(output: str) -> str:
    """Return the path of an output's checkpoint log."""
    return behind_links(output) + ".checkpoint"


def part_name(number: int) -> str:
    """Return the name that the file of a part has in the parts folder."""
    return f"part-{number:08d}.parquet"


def part_number(name: str) -> int | None:
    """Return the number of the part whose file has this name; None: it is none's."""
    match = _PART.fullmatch(name)
    return int(match[1]) if match else None


def is_own(name: str) -> bool:
    """Tell whether this program gives such a name to something in a parts folder."""
    return name.endswith(".tmp") or part_number(name) is not None
