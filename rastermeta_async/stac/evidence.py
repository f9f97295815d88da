"""Find when a raster was taken, by a rule, from its tags or its path only.

Ambiguous evidence gives None. The time of the file and the present time are never used.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from rastermeta_async.stac.dates import Interval, bare, between, interval_of, month_after, whole

AUTO = "auto"
"""Name of the rule that reads the common tags."""


class Evidence(NamedTuple):
    """Path and tags, which may hold the date when a raster was taken."""

    path: str
    tags: Mapping[str, str]
    """Values by name in upper case."""
    product: Interval | None = None
    """What the name of its product tells."""
    coordinate: Interval | None = None
    """What the time coordinate of its pixels tells, from the first to the last value."""


_NOT_PARSED = frozenset(["1970-01-01 00:00:00", "1969-12-31 23:59:59"])
_MIDNIGHT = " 00:00:00"


def coordinate_of(start: dt.datetime | None, end: dt.datetime | None) -> Interval | None:
    """Return the interval of the columns time_start and time_end."""
    return None if start is None or end is None else Interval(start, end)


def evidence_of(
    path: str, dataset_tags: Mapping[str, str] | None, imagery_tags: Mapping[str, str] | None
) -> Evidence:
    """Return the evidence in a row's columns of tags.

    A tag of the domain IMAGERY replaces one of its name. In that domain, GDAL's readers of product
    metadata (``gcore/mdreader``) write the epoch, or the second before it, for a time that they
    cannot parse, and midnight if they know only the day.
    """
    tags = {name.upper(): value for name, value in (dataset_tags or {}).items()}
    for name, value in (imagery_tags or {}).items():
        if value not in _NOT_PARSED:
            tags[name.upper()] = value.removesuffix(_MIDNIGHT)
    return Evidence(path, tags)


When = Callable[[Evidence], "Interval | None"]
"""Returns when a raster was taken; None: unknown."""


class _DateTags(NamedTuple):
    """Names of date tags in upper case; `clock` is the tag of a separate time of day."""

    start: str
    end: str = ""
    clock: str = ""
    end_clock: str = ""


_OF_ACQUISITION = (
    _DateTags("ACQUISITIONDATETIME"),
    _DateTags("ACQUISITION_DATETIME"),
    _DateTags("DATE_ACQUIRED", clock="SCENE_CENTER_TIME"),  # Landsat
    _DateTags("ACQUISITION_DATE", clock="ACQUISITION_TIME"),
    _DateTags("SENSING_TIME"),
    _DateTags("DATATAKE_1_DATATAKE_SENSING_START"),
    # MODIS, VIIRS
    _DateTags("RANGEBEGINNINGDATE", "RANGEENDINGDATE", "RANGEBEGINNINGTIME", "RANGEENDINGTIME"),
    # Attribute Convention for Data Discovery 1.3
    _DateTags("TIME_COVERAGE_START", "TIME_COVERAGE_END"),
    _DateTags("NC_GLOBAL#TIME_COVERAGE_START", "NC_GLOBAL#TIME_COVERAGE_END"),
    _DateTags("PRODUCT_START_TIME", "PRODUCT_STOP_TIME"),
    _DateTags("START_DATETIME", "END_DATETIME"),
    _DateTags("START_TIME", "STOP_TIME"),
    _DateTags("START_TIME", "END_TIME"),
    _DateTags("START_DATE", "END_DATE", "START_TIME", "END_TIME"),
    _DateTags("START_DATE", "STOP_DATE", "START_TIME", "STOP_TIME"),
    _DateTags("EXIF_DATETIMEORIGINAL"),
    _DateTags("NITF_IDATIM"),
    _DateTags("IMAGE_DATE"),
    _DateTags("FLIGHT_DATE"),
)
_OF_WRITING = (
    _DateTags("DATETIME"),
    _DateTags("TIFFTAG_DATETIME"),
)
"""Tags that often hold the time of writing the file, or of processing the image."""

SOURCES = _OF_ACQUISITION + _OF_WRITING
"""Tags to search for a date, the most reliable first."""

TAGS = frozenset(name for source in SOURCES for name in source if name)
"""All tags of `SOURCES`, in upper case."""


_OF_NO_IMAGE = ("NITF_IDATIM", "20021216151629")
"""Default that GDAL's NITF driver writes for a missing time (``NITFCreateEx``)."""


def from_tags(evidence: Evidence) -> Interval | None:
    """Return when a raster was taken according to its tags, or to its time coordinate."""
    return evidence.coordinate or _from_acquisition(evidence) or _from_writing(evidence)


def _from_acquisition(evidence: Evidence) -> Interval | None:
    relevant = {name: evidence.tags[name] for name in TAGS & evidence.tags.keys()}
    if _OF_NO_IMAGE in relevant.items():
        del relevant[_OF_NO_IMAGE[0]]
    return _surest(_OF_ACQUISITION, relevant) if relevant else None


def _from_coordinate(evidence: Evidence) -> Interval | None:
    return evidence.coordinate


def _from_product(evidence: Evidence) -> Interval | None:
    return evidence.product


def _from_writing(evidence: Evidence) -> Interval | None:
    return _surest(_OF_WRITING, evidence.tags)


def _surest(sources: Iterable[_DateTags], tags: Mapping[str, str]) -> Interval | None:
    # A start whose end tag is missing is only a moment: a source with both is better.
    partial = None
    for source in sources:
        if source.start not in tags or not (start := _date(tags, source.start, source.clock)):
            continue
        if not source.end:
            return start
        if source.end in tags:
            end = _date(tags, source.end, source.end_clock)
            if found := between(start, end):
                return found
        else:
            partial = partial or start
    return partial


def _date(tags: Mapping[str, str], date: str, clock: str) -> Interval | None:
    text = bare(tags[date])
    if time := bare(tags.get(clock, "")):
        both = interval_of(f"{text.rstrip('Z')} {time}")
        if both:
            return both
    return interval_of(text)


class Dated(NamedTuple):
    """When a raster was taken, and the number of the rule that tells it: 0 is the most reliable."""

    rank: int
    interval: Interval


def common_interval(dates: Iterable[Dated | None]) -> Interval | None:
    """Return the time of rasters taken together, from the start of the first to the last end.

    Only dates of the most reliable rule count: one band may tell when it was taken, and another
    one only when its file was written.
    """
    found = [date for date in dates if date]
    if not found:
        return None
    rank = min(date.rank for date in found)
    best = [date.interval for date in found if date.rank == rank]
    return Interval(min(one.start for one in best), max(one.end for one in best))


class Rules:
    """Tries rules in order, and notes which of them found a date.

    Args:
        texts: see `rule_of`; empty: `AUTO`.

    Raises:
        ValueError: a rule is invalid; the message names it.
    """

    def __init__(self, texts: Sequence[str] = ()) -> None:
        self._rules = [
            (text, rule) for text in dict.fromkeys(texts or (AUTO,)) for rule in _named_rules(text)
        ]
        self._asked: set[str] = set()
        self._found: set[str] = set()

    def date(self, evidence: Evidence) -> Dated | None:
        """Return the result of the first rule that finds when a raster was taken."""
        for rank, (text, rule) in enumerate(self._rules):
            self._asked.add(text)
            if found := rule(evidence):
                self._found.add(text)
                return Dated(rank, found)
        return None

    @property
    def in_vain(self) -> list[tuple[str, str]]:
        """Rules, except `AUTO`, that were tried and dated no raster, each with advice."""
        vain = self._asked - self._found - {AUTO}
        return [(text, _advice_on(text)) for text, _ in self._rules if text in vain]


def _named_rules(text: str) -> tuple[When, ...]:
    if text == AUTO:
        return _from_coordinate, _from_acquisition, _from_product, _from_writing
    try:
        return (rule_of(text),)
    except (ValueError, re.error) as error:
        raise ValueError(f"{text}: {error}") from error


def _advice_on(text: str) -> str:
    """Return advice for a rule that dates nothing."""
    if _is_pattern(text) or _is_expression(text):
        return "does it fit the files' names, and is what it finds a date, the year first?"
    return "is it spelt as in the files? `rastermeta show FILE` prints the tags that a catalog has"


def _is_pattern(text: str) -> bool:
    return re.search("%[A-Za-z]", text) is not None


def _is_expression(text: str) -> bool:
    return "(" in text


def rule_of(text: str | None) -> When:
    """Return the function that finds dates by a rule.

    Args:
        text: None or `AUTO`: it searches `TAGS`. With ``%`` and a letter: a `datetime.strptime`
            pattern for a part of the file name, e.g. ``%Y%m%d`` (with a slash: of the path). With
            ``(``: a regular expression for the path. Its joined groups are a date, or a year; or
            two groups are the first and the last date. Else the name of a tag; or two names with a
            slash between: the tags of the first and the last date.

    Raises:
        ValueError: the rule is invalid (also re.error).
    """
    if text is None or text == AUTO:
        return from_tags
    if _is_pattern(text):
        return _by_pattern(text)
    if _is_expression(text):
        return _by_expression(re.compile(text))
    names = [name.strip().upper() for name in text.split("/")]
    if len(names) > 2 or not all(names):
        raise ValueError(f"{text!r} is no tag, pattern or expression")
    return _by_tag(names)


def _by_tag(names: list[str]) -> When:
    def when(evidence: Evidence) -> Interval | None:
        found = [interval_of(evidence.tags.get(name, "")) for name in names]
        return between(found[0], found[-1])

    return when


def _by_expression(expression: re.Pattern[str]) -> When:
    if not expression.groups:
        raise ValueError("the expression has no group that could be a date")

    def when(evidence: Evidence) -> Interval | None:
        found = expression.search(evidence.path)
        if not found:
            return None
        groups = [group for group in found.groups() if group]
        # Year and month alone are a date only with a hyphen between them.
        joined = interval_of("".join(groups)) or interval_of("-".join(groups))
        if joined or len(groups) > 2:
            return joined
        found_of = [interval_of(group) or _year(group) for group in groups]
        return between(found_of[0], found_of[-1]) if found_of else None

    return when


def _year(text: str) -> Interval | None:
    """Return the year that four digits of a path name, where the user says that they are one."""
    return _parsed(text, "%Y", frozenset("Y")) if re.fullmatch(r"\d{4}", text, re.ASCII) else None


_DIRECTIVES = {
    "Y": r"\d{4}", "m": r"\d\d", "d": r"\d\d", "H": r"\d\d", "M": r"\d\d", "S": r"\d\d",
    "j": r"\d{3}", "y": r"\d\d", "b": r"[A-Za-z]{3}", "f": r"\d{1,6}", "%": "%",
}  # fmt: skip


def _by_pattern(pattern: str) -> When:
    parts = re.split(r"%(.)", pattern, flags=re.DOTALL)
    letters = parts[1::2]
    _check_pattern(letters, stray="%" in "".join(parts[::2]))
    expression = "".join(
        _DIRECTIVES[part] if at % 2 else re.escape(part) for at, part in enumerate(parts)
    )
    # Do not match inside a longer number.
    before = "" if parts[0] else r"(?<!\d)"
    after = "" if parts[-1] else r"(?!\d)"
    holds = re.compile(f"{before}(?=({expression}){after})", re.ASCII)
    in_path = "/" in pattern

    def when(evidence: Evidence) -> Interval | None:
        path = evidence.path
        for found in holds.finditer(path if in_path else path.rpartition("/")[2]):
            if interval := _parsed(found[1], pattern, frozenset(letters)):
                return interval
        return None

    return when


def _check_pattern(letters: list[str], *, stray: bool) -> None:
    unknown = [letter for letter in letters if letter not in _DIRECTIVES]
    if unknown:
        raise ValueError(f"%{unknown[0]} is not known; there are %{', %'.join(_DIRECTIVES)}")
    named = [letter for letter in letters if letter != "%"]
    if stray or len(set(named)) < len(named):
        raise ValueError(
            "the pattern has a stray % or a directive twice; for a start and an end give a regular "
            r"expression with two groups, e.g. (\d{8})_(\d{8})"
        )
    if len({"Y", "y"} & set(named)) != 1:
        raise ValueError("the pattern needs a year: %Y or %y")
    finer = [
        ("day", {"d"}, {"m", "b"}), ("hour", {"H"}, {"d", "j"}), ("minute", {"M"}, {"H"}),
        ("second", {"S"}, {"M"}), ("fraction", {"f"}, {"S"}),
    ]  # fmt: skip
    for what, fine, coarse in finer:
        if fine & set(named) and not coarse & set(named):
            raise ValueError(f"the pattern has a {what} without a %{' or %'.join(sorted(coarse))}")


@lru_cache(8192)
def _parsed(text: str, pattern: str, letters: frozenset[str]) -> Interval | None:
    """Return the year, month, day, hour or moment of a text by a pattern.

    None: there is no such time, or its end is after the year 9999, the last year of `datetime`.
    """
    try:
        start = dt.datetime.strptime(text, pattern).replace(tzinfo=dt.UTC)
        return _named(start, letters)
    except (ValueError, OverflowError):
        return None


def _named(start: dt.datetime, letters: frozenset[str]) -> Interval:
    """Return the interval that begins at `start`; the finest directive gives its length.

    Raises:
        ValueError: it ends after the year 9999 (also OverflowError).
    """
    if "M" in letters:
        return Interval(start, start)
    if "H" in letters:
        return whole(start, dt.timedelta(hours=1))
    if letters & {"d", "j"}:
        return whole(start, dt.timedelta(days=1))
    day = start.date()
    if letters & {"m", "b"}:
        return whole(start, month_after(day) - day)
    return whole(start, day.replace(year=day.year + 1) - day)
