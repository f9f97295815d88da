"""A summary for a person, or as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from rastermeta_async.text import bytes_in_words, degrees, name_in_wkt, on_a_line, plural, shortened
from rastermeta_async.urls import redacted, shown_url
from rastermeta_async.views.dates import rfc3339
from rastermeta_async.views.summary import OTHER, Summary, as_pairs

_SHOWN = 8
"""Values of a column that are shown to a person."""

_ERRORS = 10
_BAR = 20
_NAME = 48


def to_json(summary: Summary) -> str:
    """Return everything as a JSON object."""
    content = {
        "rows": summary.rows,
        "failures": summary.failures,
        "bytes": summary.bytes,
        **{name: _pairs(name, counter) for name, counter in summary.counts.items()},
        "placed": summary.placed,
        "bbox": summary.limits.west_to_east(),
        "dated": summary.dated,
        "time": summary.time and [rfc3339(moment) for moment in summary.time],
        "errors": [
            {"type": kind, "message": redacted(message), "count": count,
             "example": shown_url(summary.examples[kind, message])}
            for (kind, message), count in summary.errors.most_common(_ERRORS)
        ],
    }  # fmt: skip
    return json.dumps(content, ensure_ascii=False, allow_nan=False, indent=2)


def _pairs(name: str, counter: Counter[Hashable]) -> list[dict[str, Any]]:
    if name != "resolution":
        return as_pairs(counter)
    return [
        {"value": dict(zip(("x", "y", "unit"), one["value"], strict=True))
                  if isinstance(one["value"], tuple) else one["value"], "count": one["count"]}
        for one in as_pairs(counter)
    ]  # fmt: skip


def as_text(summary: Summary) -> str:
    """Return what matters most for a person."""
    return "\n".join(_lines(summary))


def _lines(summary: Summary) -> Iterator[str]:
    yield f"{plural(summary.rows, 'row')}, {bytes_in_words(summary.bytes)}"
    if limits := summary.limits.west_to_east():
        west, south, east, north = limits
        yield f"  longitude  {degrees(west, 'EW')} to {degrees(east, 'EW')}"
        yield f"  latitude   {degrees(south, 'NS')} to {degrees(north, 'NS')}"
        yield f"             ({plural(summary.placed, 'row')} with a footprint)"
    if summary.time:
        start, end = (moment.date().isoformat() for moment in summary.time)
        yield f"  time       {start if start == end else f'{start} to {end}'}"
        yield f"             ({plural(summary.dated, 'row')} whose tags tell it)"
    width = len(f"{summary.rows:,}")
    tables = {
        title: _table(summary.counts[name], form)
        for name, (title, form) in _TITLES.items()
        if summary.counts[name]
    }
    names = max((len(name) for table in tables.values() for name, _ in table), default=0)
    for title, table in tables.items():
        yield f"\n{title}"
        whole = sum(count for _, count in table)
        for name, count in table:
            bar = "█" * round(_BAR * count / whole)
            line = f"  {name:<{names}}  {count:>{width},}  {_percent(count, whole):>6}  {bar}"
            yield line.rstrip()
    if problems := summary.counts["cog_problems"]:
        yield "\nWhy TIFFs are no COGs"
        for problem, count in problems.most_common():
            yield f"  {count:>{width},}  {on_a_line(str(problem))}"
    if summary.errors:
        yield "\nErrors"
        yield from _errors(summary, width)


def _table(counter: Counter[Hashable], form: Callable[[Any], str]) -> list[tuple[str, int]]:
    """Return the most frequent values in words, and all others together."""
    shown = [pair for pair in counter.most_common(_SHOWN + 1) if pair[0] != OTHER][:_SHOWN]
    lines = [("none" if value is None else form(value), count) for value, count in shown]
    if rest := counter.total() - sum(count for _, count in shown):
        more = len(counter) - len(shown)
        lines.append((f"{'at least ' if OTHER in counter else ''}{more:,} more", rest))
    return lines


def _errors(summary: Summary, width: int) -> Iterator[str]:
    shown = summary.errors.most_common(_ERRORS)
    for (kind, message), count in shown:
        text = redacted(f"{kind}: {message}" if kind else message)
        example = shown_url(summary.examples[kind, message])
        yield f"  {count:>{width},}  {on_a_line(text)}"
        yield f"  {'':>{width}}  e.g. {on_a_line(shortened(example))}"
    if rest := summary.failures - sum(count for _, count in shown):
        yield f"  {rest:>{width},}  of {len(summary.errors) - len(shown):,} more kinds"


def _percent(count: int, whole: int) -> str:
    share = 100 * count / whole
    if count < whole and share >= 99.95:  # not all, and not none
        return ">99.9%"
    return "<0.1%" if share < 0.05 else f"{share:.1f}%"


def _plain(value: Any) -> str:
    text = on_a_line(str(value))
    return text if len(text) <= _NAME else f"{text[: _NAME - 1]}…"


def _crs(value: str) -> str:
    """Return a code, or the name in WKT."""
    name = name_in_wkt(value)
    return _plain(f"{name} (no code)" if name else value)


def _resolution(value: Sequence[Any]) -> str:
    x, y, unit = value
    text = f"{x:.6g}" if x == y else f"{x:.6g} x {y:.6g}"
    return text + ("°" if unit == "°" else f" {unit or '(no unit)'}")


_TITLES: dict[str, tuple[str, Callable[[Any], str]]] = {
    "status": ("Status", _plain),
    "driver": ("Driver", _plain),
    "crs": ("CRS", _crs),
    "resolution": ("Pixel size", _resolution),
    "bands": ("Number of bands", "{:,}".format),
    "dtype": ("Data type", _plain),
    "compression": ("Compression", _plain),
    "layout": ("Layout", _plain),
    "cog": ("Cloud-optimised GeoTIFFs", _plain),
    "reader": ("Read by", _plain),
}
