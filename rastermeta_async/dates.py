"""When a raster was taken, from evidence alone: its tags, or its name, by a pattern.

What is not sure of its day gives nothing. A time without a zone is taken for UTC, as satellite
products mean it; a date without a time is the whole day.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

TAGS = (
    "ACQUISITIONDATETIME", "ACQUISITION_DATETIME", "ACQUISITION_DATE", "DATE_ACQUIRED",
    "SENSING_TIME", "PRODUCT_START_TIME", "START_TIME", "DATATAKE_1_DATATAKE_SENSING_START",
    "RANGEBEGINNINGDATE", "TIME_COVERAGE_START", "NC_GLOBAL#TIME_COVERAGE_START", "DATETIME",
    "IMAGE_DATE", "FLIGHT_DATE", "TIFFTAG_DATETIME",
)  # fmt: skip
"""Tags that tell it, the surest first; the last one is often when the file was written."""

_DATE = r"(?P<year>(?:19|20)\d\d)(?P<gap>[-/:.]?)(?P<month>\d\d)(?P=gap)(?P<day>\d\d)"
_TIME = (
    r"(?:[T ](?P<hour>\d\d):?(?P<minute>\d\d)(?::?(?P<second>\d\d)(?:[.,](?P<part>\d{1,9}))?)?"
    r"\s*(?P<zone>Z|UTC|[+-]\d\d:?\d\d)?)?"
)
_TEXT = re.compile(_DATE + _TIME, re.ASCII)

When = Callable[[str, Mapping[str, str]], "Interval | None"]
"""From a path and the tags of a dataset to when it was taken."""


class Interval(NamedTuple):
    """From when to when, UTC; the same for an instant."""

    start: dt.datetime
    end: dt.datetime


def interval_of(text: str) -> Interval | None:
    """Return what a text says that is a date, or a date and a time, in a common form.

    ISO 8601 with or without separators, TIFF's ``2020:01:31 12:00:00``, and ``2020/01/31``.
    """
    found = _TEXT.fullmatch(text.strip())
    if not found:
        return None
    fields = found.groupdict()
    try:
        day = dt.datetime(
            int(fields["year"]), int(fields["month"]), int(fields["day"]), tzinfo=dt.UTC
        )
        if fields["hour"] is None:
            return Interval(day, day + dt.timedelta(days=1) - dt.timedelta(microseconds=1))
        moment = day.replace(
            hour=int(fields["hour"]),
            minute=int(fields["minute"]),
            second=int(fields["second"] or 0),
        )
    except ValueError:
        return None
    moment += dt.timedelta(microseconds=int(f"{fields['part'] or 0:0<6}"[:6]))
    moment -= _offset(fields["zone"])
    return Interval(moment, moment)


def _offset(zone: str | None) -> dt.timedelta:
    if zone is None or zone in ("Z", "UTC"):
        return dt.timedelta()
    digits = zone[1:].replace(":", "")
    offset = dt.timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return -offset if zone[0] == "-" else offset


def rule_of(text: str | None) -> When:
    """Return how dates are found.

    Args:
        text: None: in `TAGS`. With ``%``: a `datetime.strptime` pattern that the file's name
            holds, e.g. ``%Y%m%d``. With ``(``: a regular expression for the path, whose groups,
            joined, are a date. Else the name of a tag.

    Raises:
        ValueError: it is no regular expression, or one without a group.
    """
    if text is None:
        return _from_tags
    if "%" in text:
        return _by_pattern(text)
    if "(" in text:
        return _by_expression(re.compile(text))
    return lambda _path, tags: interval_of(_folded(tags).get(text.upper(), ""))


def _folded(tags: Mapping[str, str]) -> dict[str, str]:
    return {name.upper(): value for name, value in tags.items()}


def _from_tags(_path: str, tags: Mapping[str, str]) -> Interval | None:
    folded = _folded(tags)
    found = (interval_of(folded[name]) for name in TAGS if name in folded)
    return next((interval for interval in found if interval), None)


def _by_expression(expression: re.Pattern[str]) -> When:
    if not expression.groups:
        raise ValueError("the expression has no group that could be a date")

    def when(path: str, _tags: Mapping[str, str]) -> Interval | None:
        found = expression.search(path)
        return interval_of("".join(filter(None, found.groups()))) if found else None

    return when


_DIRECTIVES = {
    "Y": r"\d{4}", "m": r"\d\d", "d": r"\d\d", "H": r"\d\d", "M": r"\d\d", "S": r"\d\d",
    "j": r"\d{3}", "y": r"\d\d", "b": r"[A-Za-z]{3}", "f": r"\d{1,6}", "%": "%",
}  # fmt: skip


def _by_pattern(pattern: str) -> When:
    parts = re.split(r"%(.)", pattern)
    unknown = [letter for letter in parts[1::2] if letter not in _DIRECTIVES]
    if unknown:
        raise ValueError(f"%{unknown[0]} is not known; there are %{', %'.join(_DIRECTIVES)}")
    expression = "".join(
        _DIRECTIVES[part] if at % 2 else re.escape(part) for at, part in enumerate(parts)
    )
    # Not in the midst of a longer number.
    holds = re.compile(rf"(?<!\d){expression}(?!\d)", re.ASCII)
    whole_day = "H" not in parts[1::2]

    def when(path: str, _tags: Mapping[str, str]) -> Interval | None:
        for found in holds.finditer(path.rpartition("/")[2]):
            try:
                start = dt.datetime.strptime(found[0], pattern).replace(tzinfo=dt.UTC)
            except ValueError:
                continue
            day = dt.timedelta(days=1) - dt.timedelta(microseconds=1)
            return Interval(start, start + day if whole_day else start)
        return None

    return when
