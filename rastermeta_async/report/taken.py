"""Tell the month in which each raster was taken, from the same evidence as STAC items.

Most rows have one tag that tells a time. Such values are cut to their day, as the time of day does
not change the month; so the many rows of an archive have few different texts to parse.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.report.places import Codes
from rastermeta_async.stac.evidence import TAGS, evidence_of, from_tags

UNDATED = -1
"""Month of a row without evidence."""

FIRST_YEAR = 1800
"""Months are counted from January of this year; no date is older, see `stac.dates`."""

_LAST_YEAR = 2199
"""The same for the last date."""

_PARTS = (pc.year, pc.month)

_PAIR, _FIELD = "\x1e", "\x1f"
"""Separators (ASCII) of tags, and of their parts, in the text that stands for a row's tags."""

_MOMENT = r"^(\d{4}[-:]\d\d[-:]\d\d)[ T](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d$"
"""A date with a time of day without a zone."""

_LONGEST = 256
"""Characters of a value; a longer text is no date."""

_TOO_LONG = "too long"
"""Stands for a longer text."""


def months_of(
    dataset_tags: pa.Array, imagery_tags: pa.Array, time_start: pa.Array | None = None
) -> Codes:
    """Return for each row the month in which it was taken, from January `FIRST_YEAR` on.

    Args:
        dataset_tags: column of that name.
        imagery_tags: the same.
        time_start: the same; where it tells a time, tags do not count.
    """
    months = _months_of_tags(dataset_tags, imagery_tags)
    if time_start is not None and time_start.null_count < len(time_start):
        times = time_start.cast(pa.timestamp("us"))  # with a zone, Arrow asks for its database
        years, of_year = (np.asarray(pc.fill_null(part(times), 0)) for part in _PARTS)
        known = (years >= FIRST_YEAR) & (years <= _LAST_YEAR)
        months[known] = ((years - FIRST_YEAR) * 12 + of_year - 1)[known]
    return months


def _months_of_tags(dataset_tags: pa.Array, imagery_tags: pa.Array) -> Codes:
    rows = len(dataset_tags)
    found = [_relevant(dataset_tags, "D"), _relevant(imagery_tags, "I")]
    row = np.concatenate([at for at, _ in found])
    months = np.full(rows, UNDATED, dtype=np.int64)
    if not len(row):
        return months
    texts = pa.concat_arrays([texts for _, texts in found])
    if all(len(at) for at, _ in found):
        order = np.argsort(row, kind="stable")
        row, texts = row[order], texts.take(pa.array(order))
    there, starts, counts = np.unique(row, return_index=True, return_counts=True)
    alone = np.repeat(counts == 1, counts)
    cut = pc.replace_substring_regex(texts, _FIELD + _MOMENT[1:], _FIELD + r"\1")
    of_dataset = pc.starts_with(texts, f"D{_FIELD}")
    texts = pc.if_else(pc.and_(pa.array(alone), of_dataset), cut, texts)
    ends = np.append(starts, len(row)).astype(np.int32)
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array(ends), texts), _PAIR)
    encoded = joined.dictionary_encode()
    known = np.array([_month_of(text) for text in encoded.dictionary.to_pylist()], dtype=np.int64)
    months[there] = known[np.asarray(encoded.indices)]
    return months


def date_tags(tags: pa.Array) -> tuple[Codes, pa.Array, pa.Array]:
    """Return the tags that can hold a date: the row, the name and the value of each.

    Args:
        tags: column dataset_tags or imagery_tags.
    """
    offsets = np.asarray(tags.offsets)
    first, last = (int(offsets[0]), int(offsets[-1])) if len(tags) else (0, 0)
    keys, values = tags.values.field("key"), tags.values.field("value")
    names = keys.slice(first, last - first).dictionary_encode()
    wanted = [name.upper() in TAGS for name in names.dictionary.to_pylist()]
    at = np.flatnonzero(np.asarray(pa.array(wanted, pa.bool_()).take(names.indices))) + first
    places = pa.array(at)
    row = np.searchsorted(offsets, at, "right") - 1
    return row.astype(np.int64), keys.take(places), values.take(places)


def _relevant(tags: pa.Array, domain: str) -> tuple[Codes, pa.Array]:
    """Return the tags that can hold a date: the row of each, and domain, name and value as text."""
    row, names, told = date_tags(tags)
    told = pc.if_else(pc.less(pc.utf8_length(told), _LONGEST), told, _TOO_LONG)
    return row, pc.binary_join_element_wise(domain, names, told, _FIELD)


@lru_cache(16_384)
def _month_of(text: str) -> int:
    """Return the month that the tags of a row tell."""
    tags: dict[str, dict[str, str]] = {"D": {}, "I": {}}
    for pair in text.split(_PAIR):
        domain, _, rest = pair.partition(_FIELD)
        name, _, value = rest.partition(_FIELD)
        if domain in tags:
            tags[domain][name] = value
    found = from_tags(evidence_of("", tags["D"], tags["I"]))
    return (found.start.year - FIRST_YEAR) * 12 + found.start.month - 1 if found else UNDATED
