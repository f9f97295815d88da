"""Format numbers, sizes, times and texts from files for a person at a terminal."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable

_UNSAFE = frozenset(["Cc", "Cf", "Cs", "Zl", "Zp"])
"""Categories of characters that move the cursor, change the direction of text, break the line, or
are invisible (Unicode, "General Category")."""

_NO_NAMES = ("", "unknown", "unnamed")
"""Names, in lower case, that GDAL and PROJ write for a CRS or datum without a name."""

_SHOWN = 200
"""Longest text of a path in a message: with a wrong separator, a whole list is one path."""

_WKT_SHOWN = 80
"""Number of characters shown of a WKT without any name."""

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")
_SPANS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def on_a_line(text: str) -> str:
    r"""Return a text for one line of a terminal: control characters become ``\xNN`` or similar."""
    return _escaped(text, lambda character: character.encode("unicode_escape").decode())


def on_lines(text: str) -> str:
    """Return a text for a terminal: as `on_a_line`, but line feeds stay."""
    return "\n".join(map(on_a_line, text.split("\n")))


def json_on_lines(text: str) -> str:
    """Return equal JSON for a terminal: control characters are escaped, line feeds stay."""
    return "\n".join(_escaped(line, lambda one: json.dumps(one)[1:-1]) for line in text.split("\n"))


def _escaped(text: str, escape: Callable[[str], str]) -> str:
    if text.isprintable():  # nearly always
        return text
    return "".join(escape(one) if unicodedata.category(one) in _UNSAFE else one for one in text)


def shortened(text: str) -> str:
    """Return a text cut to the length that fits into a message."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, e.g. ``2 files``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def no_rasters_in_words(rows: int, sidecars: int, others: int, *, several: bool = False) -> str:
    """Return how many files are no rasters, of those and the `rows` that are; "" if none.

    Args:
        rows: of the catalog.
        sidecars: files that belong to a raster.
        others: other files that are no rasters.
        several: whether a file may have several rows; then nothing tells how many files there are.
    """
    if not (count := sidecars + others):
        return ""
    kinds = [plural(sidecars, "sidecar")] if sidecars else []
    kinds += [plural(others, "other")] if others else []
    are = "is no raster" if count == 1 else "are no rasters"
    files = plural(count, "file") if several else f"{count:,} of {plural(rows + count, 'file')}"
    return f"{files} {are}: {', '.join(kinds)}"


def bytes_in_words(count: float) -> str:
    """Return a number of bytes in a suitable unit (powers of 1024), e.g. ``1.5 MiB``."""
    if count < 1024:
        return plural(int(count), "byte")
    power = 1
    while power < len(_UNITS) and count / 1024**power >= 1023.95:
        power += 1
    return f"{count / 1024**power:,.1f} {_UNITS[power - 1]}"


def seconds_in_words(seconds: float) -> str:
    """Return a duration in its two largest units, e.g. ``2 hours 5 minutes``."""
    left = max(round(seconds), 0)
    parts: list[str] = []
    for size, name in _SPANS:
        count, left = divmod(left, size)
        if count or (parts and len(parts) < 2):
            parts.append(plural(count, name) if count else "")
        if len(parts) == 2:
            break
    return " ".join(filter(None, parts)) or "0 seconds"


def degrees(value: float, names: str) -> str:
    """Return a longitude or latitude, e.g. ``9.5000° W``; `names`: letters for plus and minus."""
    return f"{abs(value):.4f}° {names[value < 0]}"


def name_in_wkt(wkt: str) -> str:
    """Return the name of a CRS, or its projection or datum if it has none; empty: it is no WKT."""
    named = re.match(r'\w+\["([^"]*)"', wkt)
    if not named or named[1].lower() not in _NO_NAMES:
        return named[1] if named else ""
    for what, keyword in (("projection", "PROJECTION|METHOD"), ("datum", "DATUM")):
        found = re.search(rf'\b(?:{keyword})\["([^"]+)"', wkt)
        if found and found[1].lower() not in _NO_NAMES:
            return f"custom (no name): {what} {found[1].replace('_', ' ')}"
    return f"custom (no name): {wkt[:_WKT_SHOWN]}"


def general_message(message: str, path: str) -> str:
    """Return a message without the parts that differ between files: names, offsets, addresses."""
    return without_numbers(without_names(message, path))


def without_names(message: str, path: str) -> str:
    """Return a message without the path and the name of its file."""
    for name in (path, path.rpartition("/")[2]):
        if len(name) > 3:  # shorter names occur in words
            message = message.replace(name, "…")
    return message


def without_numbers(message: str) -> str:
    """Return a message without offsets and addresses."""
    return re.sub(r"0x[0-9a-fA-F]+|\d{4,}", "…", message)


TIFFS = ("GTiff", "COG")
"""Drivers for which the functions below apply; other drivers do not report the pixel layout."""


def layout_of(tiled: bool | None, overviews: bool) -> str:
    """Return the layout of pixels in words."""
    blocks = "blocks" if tiled is None else "tiles" if tiled else "strips"
    return f"{blocks} and overviews" if overviews else f"{blocks}, no overviews"


def cog_in_words(cog: bool | None) -> str:
    """Return in words whether a TIFF is a cloud-optimised GeoTIFF."""
    return "not told" if cog is None else "yes" if cog else "no"
