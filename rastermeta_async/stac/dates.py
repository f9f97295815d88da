"""Read dates in metadata texts: an unambiguous date becomes an interval, any other text None.

A time without a zone is UTC, as in satellite products. A date without a time is the whole day, a
month the whole month. This does not guess the order of day and month in ``01/02/2020``, years of
two digits, and bare numbers that may be seconds since some epoch.

References: ISO 8601-1:2019 (calendar, ordinal and week dates, intervals); RFC 3339, section 5.6;
RFC 5322, section 3.3; TIFF 6.0, section 8 (DateTime); MIL-STD-2500C (NITF's IDATIM).
"""

from __future__ import annotations

import datetime as dt
import re
from functools import lru_cache
from typing import NamedTuple

_MOMENT = dt.timedelta(microseconds=1)
_DAY = dt.timedelta(days=1)
_LONGEST = 80
"""Length of the longest text that is parsed, in characters."""


class Interval(NamedTuple):
    """Start and end, UTC; both are equal for an instant."""

    start: dt.datetime
    end: dt.datetime


_YEAR = r"(?P<year>(?:1[89]|20|21)\d\d)"
_CLOCK = r"(?P<hour>\d\d):?(?P<minute>\d\d)(?::?(?P<second>\d\d)(?:[.,](?P<part>\d{1,12}))?)?"
_ZONE = r"\s*(?P<zone>Z|UTC?|GMT|[+-]\d\d(?::?\d\d)?)?"
_TIME = rf"(?:(?:T|_|\s+){_CLOCK}{_ZONE})?"
_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    r"(?P<name>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_WEEKDAY = r"(?:mon|tue|wed|thu|fri|sat|sun)[a-z]{0,6}"

_FORMS = tuple(
    re.compile(form, re.ASCII | re.IGNORECASE)
    for form in (
        # 2020-01-31, 2020:01:31 (TIFF), 2020/1/31, 2020.01.31
        rf"{_YEAR}(?P<gap>[-/:.])(?P<month>\d\d?)(?P=gap)(?P<day>\d\d?){_TIME}",
        rf"{_YEAR}(?P<month>\d\d)(?P<day>\d\d){_TIME}",
        # 20200131123456 (NITF)
        rf"{_YEAR}(?P<month>\d\d)(?P<day>\d\d)(?=\d{{6}}){_CLOCK}{_ZONE}",
        rf"{_YEAR}-(?P<month>\d\d)",
        # 2020-031, 2020:031:12:34:56: day of the year
        rf"{_YEAR}-(?P<ordinal>\d\d\d){_TIME}",
        rf"{_YEAR}:(?P<ordinal>\d\d\d):{_CLOCK}{_ZONE}",
        rf"{_YEAR}-?W(?P<week>\d\d)(?:-?(?P<weekday>[1-7]){_TIME})?",
        # Fri, 31 Jan 2020 12:34:56 GMT; 31-JAN-2020
        rf"(?:{_WEEKDAY},?\s+)?(?P<day>\d\d?)(?P<gap>[-\s/.])\s*{_MONTH}(?P=gap)\s*{_YEAR},?{_TIME}",
        # January 31, 2020
        rf"{_MONTH}\s+(?P<day>\d\d?),?\s+{_YEAR},?{_TIME}",
        # 2020-JAN-31
        rf"{_YEAR}(?P<gap>[-\s/.]){_MONTH}(?P=gap)(?P<day>\d\d?){_TIME}",
        # Fri Jan 31 12:34:56 2020 (C's asctime)
        rf"{_WEEKDAY}\s+{_MONTH}\s+(?P<day>\d\d?)\s+{_CLOCK}{_ZONE}\s+{_YEAR}",
    )
)


def interval_of(text: str) -> Interval | None:
    """Return the interval of a date, a date and time, or two of them with a slash; else None."""
    text = bare(text)
    return _of_stripped(text) if 7 <= len(text) <= _LONGEST else None


def bare(text: str) -> str:
    """Return a text without surrounding blanks and quotes."""
    return text.strip(" \t\r\n\0\"'")


@lru_cache(8192)
def _of_stripped(text: str) -> Interval | None:
    if moment := _usual(text):
        return Interval(moment, moment)
    if found := _one(text):
        return found
    ends = text.split("/")
    if len(ends) != 2:
        return None
    return between(*(_one(end.strip()) for end in ends))


def _usual(text: str) -> dt.datetime | None:
    """Return the moment of a text in the most frequent form; this only saves time."""
    if len(text) != 19 or text[10] not in "T " or text[4] != text[7] or text[4] not in ":-":
        return None
    try:
        moment = dt.datetime.fromisoformat(f"{text[:10].replace(':', '-')}T{text[11:]}")
    except ValueError:
        return None
    return moment.replace(tzinfo=dt.UTC) if 1800 <= moment.year < 2200 else None


def between(start: Interval | None, end: Interval | None) -> Interval | None:
    """Return the interval from one date to another; None if one is None, or in wrong order."""
    if start is None or end is None or end.end < start.start:
        return None
    return Interval(start.start, end.end)


def _one(text: str) -> Interval | None:
    for form in _FORMS:
        if found := form.fullmatch(text):
            try:
                return _interval(found.groupdict())
            except (ValueError, OverflowError):  # no such day, no such time
                return None
    return None


def _interval(fields: dict[str, str | None]) -> Interval:
    """Return the interval of the groups of a form.

    Raises:
        ValueError: there is no such day or time.
    """
    year = int(fields["year"] or 0)
    if week := fields.get("week"):
        weekday = fields["weekday"]
        first = dt.date.fromisocalendar(year, int(week), int(weekday or 1))
        length = _DAY if weekday else 7 * _DAY
    elif ordinal := fields.get("ordinal"):
        first, length = dt.date(year, 1, 1) + _DAY * (int(ordinal) - 1), _DAY
        if first.year != year:
            raise ValueError(ordinal)
    else:
        name = fields.get("name")
        month = _NAMES.index(name[:3].lower()) + 1 if name else int(fields["month"] or 0)
        day = fields.get("day")
        first = dt.date(year, month, int(day or 1))
        length = _DAY if day else month_after(first) - first
    midnight = dt.datetime.combine(first, dt.time(), dt.UTC)
    if fields.get("hour") is None:
        return whole(midnight, length)
    moment = midnight + _since_midnight(fields) - _offset(fields.get("zone"))
    if fields["second"] == "60":
        _check_leap(moment)
    return Interval(moment, moment)


def whole(start: dt.datetime, length: dt.timedelta) -> Interval:
    """Return the interval of a whole day, month or year, up to its last microsecond."""
    return Interval(start, start + length - _MOMENT)


def rfc3339(moment: dt.datetime) -> str:
    """Return a time in the form of RFC 3339, in UTC, with six digits of a second's fraction.

    Times of the same length sort as text, as pypgstac sorts them: "56.5Z" comes before "56Z".
    """
    return moment.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def month_after(first: dt.date) -> dt.date:
    """Return the first day of the next month; `first` is the first day of a month."""
    return (first + 31 * _DAY).replace(day=1)


def _since_midnight(fields: dict[str, str | None]) -> dt.timedelta:
    hour, minute = int(fields["hour"] or 0), int(fields["minute"] or 0)
    second = int(fields["second"] or 0)
    part = int(f"{fields['part'] or 0:0<6}"[:6])
    # 24:00 is the end of the day; later times do not exist (ISO 8601-1:2019, section 4.3.8).
    if hour > 24 or (hour == 24 and (minute or second or part)) or minute > 59 or second > 60:
        raise ValueError("no time of day")
    return dt.timedelta(hours=hour, minutes=minute, seconds=second, microseconds=part)


def _check_leap(moment: dt.datetime) -> None:
    """Raise ValueError unless second 60 is a leap second, which ends a day (RFC 3339, 5.7).

    `datetime` has no leap seconds, so `moment` is the second after it.
    """
    if moment.time().replace(microsecond=0) != dt.time():
        raise ValueError("no leap second")


def _offset(zone: str | None) -> dt.timedelta:
    if zone is None or zone[0] not in "+-":
        return dt.timedelta()
    digits = zone[1:].replace(":", "")
    hours, minutes = int(digits[:2]), int(digits[2:] or 0)
    if hours > 14 or minutes > 59:
        raise ValueError("no zone")
    offset = dt.timedelta(hours=hours, minutes=minutes)
    return -offset if zone[0] == "-" else offset
