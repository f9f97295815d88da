"""Reads times from coordinates of NetCDF files, as GDAL's netCDF driver tells them in tags.

The driver puts the values of each dimension beyond x and y into a tag of the dataset, so no data
variable is read. Only the first and the last value count: those of a coordinate variable ascend or
descend.

References: CF conventions 1.11, sections 4.4 (units, reference times), 4.4.1 (calendars), 5
(coordinate variables); UDUNITS 2, names of units; GDAL, "NetCDF: Network Common Data Form",
"Dimensions".
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

from rastermeta_async.model.record import Tags


class Times(NamedTuple):
    """Values of the columns `time_start` and `time_end`: UTC, None where they are not told."""

    start: dt.datetime | None = None
    end: dt.datetime | None = None


_UNITS = {
    name: microseconds
    for names, microseconds in (
        ("days day d", 86_400_000_000),
        ("hours hour hrs hr h", 3_600_000_000),
        ("minutes minute mins min", 60_000_000),
        ("seconds second secs sec s", 1_000_000),
        ("milliseconds millisecond millisecs millisec msecs msec ms", 1_000),
        ("microseconds microsecond microsecs microsec", 1),
    )
    for name in names.split()
}
"""Microseconds of a unit. Months and years are none of a fixed length (CF 4.4)."""

_MIXED = frozenset({"", "standard", "gregorian"})
_KNOWN = _MIXED | {"proleptic_gregorian"}
"""Calendars whose dates are those of `datetime`; the mixed ones only from `_REFORM` on."""

_EPOCH = dt.datetime(1970, 1, 1)
_DAYS_TO_EPOCH = dt.timedelta(days=_EPOCH.toordinal())
_FARTHEST_ZONE = dt.timedelta(hours=14)
_JULIAN_LEADS = 2
"""Days by which 1 January of the year 1 is earlier in the Julian calendar."""

_REFORM = dt.datetime(1582, 10, 15)
"""First day of the Gregorian calendar; the day before it was the 4th, in the Julian one."""

_SINCE = re.compile(
    r"""
    \s*([A-Za-z]+) \s+ since \s+
    (\d{1,4})-(\d\d?)-(\d\d?)
    (?:(?:T|\s+)(\d\d?):(\d\d?)(?::(\d\d?)(?:\.(\d*))?)?)?
    \s*(?:Z|UTC|GMT|([+-])(\d\d?)(?::?(\d\d))?)?\s*
    """,
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)
_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,3})?\s*", re.ASCII | re.IGNORECASE)
_LONGEST = 100
"""Characters of units, or of a value, that are parsed."""

_MAX_DIMENSIONS = 64
_WHOLE_MILLISECONDS = 60_000_000
"""Fractions of this unit (microseconds), and of longer ones, are rounded to a millisecond."""


def times_of(tags: Tags) -> Times:
    """Return the first and the last time of a variable; both None if its tags tell none.

    A time coordinate is a dimension with units like ``days since 1950-01-01``. Of several, that
    with the standard name ``time``, or the axis ``T``, counts; if that leaves several, none does.

    Args:
        tags: of the dataset, as the driver gives them.
    """
    tags = _without_groups(tags)
    found = list(_time_dimensions(tags))
    if len(found) > 1:
        found = [name for name in found if _is_time(name, tags)]
    return _span(found[0], tags) if len(found) == 1 else Times()


def _without_groups(tags: Tags) -> Tags:
    """Return tags with the names that variables have in their groups: no name holds a slash.

    The tag of an attribute is ``/group/time#units``. A dimension has the name alone in its tags, so
    names of several groups that differ in their value are left out.
    """
    short: Tags = {}
    several = set()
    for name, value in tags.items():
        alone = name.rpartition("/")[2] if name.startswith("/") else name
        if short.setdefault(alone, value) != value:
            several.add(alone)
    return {name: value for name, value in short.items() if name not in several}


def _time_dimensions(tags: Tags) -> Iterator[str]:
    names = tags.get("NETCDF_DIM_EXTRA", "").strip("{}").split(",", _MAX_DIMENSIONS)
    for name in names[:_MAX_DIMENSIONS]:
        if f"NETCDF_DIM_{name}_VALUES" in tags and _since(tags.get(f"{name}#units", "")):
            yield name


def _is_time(name: str, tags: Tags) -> bool:
    return tags.get(f"{name}#standard_name") == "time" or tags.get(f"{name}#axis") == "T"


def _since(units: str) -> re.Match[str] | None:
    return _SINCE.fullmatch(units) if len(units) <= _LONGEST else None


def _span(name: str, tags: Tags) -> Times:
    """Return the times of a dimension."""
    calendar = tags.get(f"{name}#calendar", "").strip().lower()
    since = _since(tags[f"{name}#units"])
    unit = _UNITS.get(since[1].lower()) if since else None
    if since is None or unit is None or calendar not in _KNOWN:
        return Times()
    mixed = calendar in _MIXED
    try:
        reference = _reference(since, mixed=mixed)
        ends = sorted(_EPOCH + (reference + _length(text, unit)) for text in _ends(name, tags))
    except (ValueError, OverflowError):  # no such day or number, or beyond the years of `datetime`
        return Times()
    if mixed and ends[0] < _REFORM:  # a date of the Julian calendar
        return Times()
    return Times(*(end.replace(tzinfo=dt.UTC) for end in ends))


def _ends(name: str, tags: Tags) -> tuple[str, str]:
    """Return the first and the last value; the driver writes ``{1,2,3}``, or one without braces."""
    values = tags[f"NETCDF_DIM_{name}_VALUES"]
    begin, end = values[: _LONGEST + 2].lstrip("{ "), values[-_LONGEST - 2 :].rstrip("} ")
    return begin.rstrip("}").partition(",")[0], end.lstrip("{").rpartition(",")[2]


def _length(text: str, unit: int) -> dt.timedelta:
    """Return a number of units as a length of time.

    GDAL writes 16 digits of a double. So the fraction of a day some centuries after the reference
    time is known to some microseconds only.

    Raises:
        ValueError: it is no number.
        OverflowError: it is too long.
    """
    if len(text) > _LONGEST or not _NUMBER.fullmatch(text):
        raise ValueError(text)
    number = Decimal(text.strip())
    if number and number.adjusted() > 18:
        raise OverflowError(text)
    length = number * unit
    if unit >= _WHOLE_MILLISECONDS and number != number.to_integral_value():
        return dt.timedelta(milliseconds=int((length / 1000).to_integral_value()))
    return dt.timedelta(microseconds=int(length.to_integral_value()))


def _reference(since: re.Match[str], *, mixed: bool) -> dt.timedelta:
    """Return the reference time of units as the length since `_EPOCH`; it is UTC without a zone.

    Raises:
        ValueError: there is no such day or time.
    """
    year, month, day = map(int, since.group(2, 3, 4))
    hour, minute, second = (int(part or 0) for part in since.group(5, 6, 7))
    clock = dt.time(hour, minute, second, int(f"{since[8] or 0:0<6}"[:6]))
    offset = dt.timedelta(hours=int(since[10] or 0), minutes=int(since[11] or 0))
    if offset > _FARTHEST_ZONE:
        raise ValueError("no zone")
    midnight = dt.timedelta(days=_day_number(year, month, day, mixed=mixed)) - _DAYS_TO_EPOCH
    moment = midnight + (dt.datetime.combine(_EPOCH, clock) - _EPOCH)
    return moment + offset if since[9] == "-" else moment - offset


def _day_number(year: int, month: int, day: int, *, mixed: bool) -> int:
    """Return the number of a day, as `datetime.date.toordinal` counts; also of one before year 1.

    Raises:
        ValueError: there is no such day.
    """
    if not mixed or (year, month, day) >= (1582, 10, 15):
        return dt.date(year, month, day).toordinal()
    is_leap_day = (month, day) == (2, 29)
    if not year or (year, month, day) > (1582, 10, 4) or (is_leap_day and year % 4):
        raise ValueError("no such day in the Julian calendar")
    like = 2001 if year % 4 else 2000
    of_year = dt.date(like, month, day).timetuple().tm_yday
    return 365 * (year - 1) + (year - 1) // 4 + of_year - _JULIAN_LEADS
