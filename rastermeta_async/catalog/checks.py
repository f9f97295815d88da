"""What holds of every row that a run writes, and so of every row that is read back.

Whoever reads a catalog relies on it without a further look: what the types of a record say (see
`Record`; what is not optional is not null), and the ranges below.
"""

from __future__ import annotations

import datetime as dt
import types
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.footprints.shapes import MULTIPOLYGON, POLYGON, is_shape
from rastermeta_async.record import GONE, MAX_MESSAGE, SUCCESSES, BBox, Record


class Flaw(NamedTuple):
    """A row that no run writes."""

    at: int
    """Its place, from 0."""
    what: str


def first_flaw(rows: pa.RecordBatch) -> Flaw | None:
    """Return the first row that is not as a run writes it; None: there is none.

    Args:
        rows: some columns of `SCHEMA`.
    """
    if not (what := _flaw(rows)):
        return None
    first, count = 0, rows.num_rows
    while count > 1:
        half = count // 2
        if found := _flaw(rows.slice(first, half)):
            what, count = found, half
        else:
            first, count = first + half, count - half
    return Flaw(first, _flaw(rows.slice(first, count)) or what)


def _flaw(rows: pa.RecordBatch) -> str:
    """Return what is wrong with some of the rows; empty where nothing is."""
    for name, column in zip(rows.schema.names, rows.columns, strict=True):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            return f"{name} is damaged, or no UTF-8"
        if null := _null(name, column, _RULES[name]):
            return f"{null} is null"
        check = _CHECKS.get(name)
        if check and (what := check(column)):
            return f"{name} {what}"
    if {"count", "width", "height"} <= set(rows.schema.names):
        sides = pc.and_(pc.is_valid(rows["width"]), pc.is_valid(rows["height"]))
        if pc.any(pc.and_not(pc.greater(rows["count"], 0), sides)).as_py():
            return "there are bands, but width or height is null"
    return ""


# Nulls


class _Rule(NamedTuple):
    """What a type of `Record` says of nulls."""

    optional: bool
    inner: tuple[tuple[str, _Rule], ...]
    """Of fields, elements, or keys and values, by what they are called."""

    @property
    def is_void(self) -> bool:
        """Whether nothing is to be looked at."""
        return self.optional and all(rule.is_void for _, rule in self.inner)


def _rule(hint: Any) -> _Rule:
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if optional := get_origin(hint) is types.UnionType:
        (hint,) = (one for one in get_args(hint) if one is not types.NoneType)
    inner = get_args(hint)
    if hasattr(hint, "_fields"):
        named = get_type_hints(hint)
        return _Rule(optional, tuple((f".{name}", _rule(one)) for name, one in named.items()))
    if get_origin(hint) is dict:
        return _Rule(optional, ((" (a key)", _rule(inner[0])), (" (a value)", _rule(inner[1]))))
    return _Rule(optional, ((" (an element)", _rule(inner[0])),) if inner else ())


_RULES = {name: _rule(hint) for name, hint in get_type_hints(Record).items()}


def _null(name: str, values: pa.Array, rule: _Rule) -> str:
    """Return where there is a null that must not be; empty if nowhere."""
    if rule.is_void:
        return ""
    if values.null_count and not rule.optional:
        return name
    for (suffix, of_child), child in zip(rule.inner, children(values), strict=True):
        if found := _null(name + suffix, child, of_child):
            return found
    return ""


def children(values: pa.Array) -> list[pa.Array]:
    """Return what values that are not null consist of."""
    kind = values.type
    if pa.types.is_struct(kind):
        there = values.drop_null() if values.null_count else values
        return [there.field(index) for index in range(kind.num_fields)]
    if not (pa.types.is_list(kind) or pa.types.is_map(kind)):
        return []
    # A list that is null may hold something, but not where it was read from a file.
    start, end = (values.offsets[at].as_py() for at in (0, len(values))) if len(values) else (0, 0)
    children = [values.keys, values.items] if pa.types.is_map(kind) else [values.values]
    return [child.slice(start, end - start) for child in children]


# Ranges

_LONGEST = 20 * MAX_MESSAGE
"""Characters of a message: to look through one for secrets takes 10 s a million."""

_STATUSES = SUCCESSES | {"error", "fatal", GONE}
_FIRST, _LAST = (
    (moment - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1)
    for moment in (dt.datetime.min, dt.datetime.max)
)
_SHAPES = pa.array([POLYGON, MULTIPOLYGON])
_LIMITS = BBox(-180.0, -90.0, 180.0, 90.0)


def _known(values: pa.Array) -> str:
    return "" if _STATUSES.issuperset(values.unique().to_pylist()) else "is none that there is"


def _counted(values: pa.Array) -> str:
    least = pc.min(values).as_py()
    return "is negative" if least is not None and least < 0 else ""


def _of_length(length: int) -> Callable[[pa.Array], str]:
    def check(values: pa.Array) -> str:
        lengths = pc.list_value_length(values).unique().to_pylist()
        return "" if {length, None}.issuperset(lengths) else f"has not {length} numbers"

    return check


def _short(texts: pa.Array) -> str:
    longest = pc.max(pc.utf8_length(texts)).as_py() or 0
    return f"has more than {_LONGEST:,} characters" if longest > _LONGEST else ""


def _dated(values: pa.Array) -> str:
    ends = pc.min_max(values.cast(pa.int64()))
    known = [end for end in ends.as_py().values() if end is not None]
    inside = all(_FIRST <= end <= _LAST for end in known)
    return "" if inside else "is in no year from 1 to 9999"


def _on_earth(boxes: pa.Array) -> str:
    there = boxes.drop_null() if boxes.null_count else boxes
    west, south, east, north = (np.asarray(there.field(name)) for name in BBox._fields)
    inside = (
        (west >= _LIMITS.xmin) & (west <= east) & (east <= _LIMITS.xmax)
        & (south >= _LIMITS.ymin) & (south <= north) & (north <= _LIMITS.ymax)
    )  # fmt: skip
    return "" if inside.all() else "is no box of degrees, from -180 to 180 and from -90 to 90"


def _shaped(shapes: pa.Array) -> str:
    heads = pc.binary_slice(shapes, 0, len(POLYGON))
    known = pc.or_(pc.is_in(heads, _SHAPES), pc.is_null(heads))
    several = shapes.filter(pc.fill_null(pc.equal(heads, MULTIPOLYGON), False))
    fine = pc.all(known).as_py() is not False and all(map(is_shape, several.to_pylist()))
    return "" if fine else "is no WKB of a polygon or of several"


def _exact(bands: pa.Array) -> str:
    (there,) = children(bands)
    texts = there.field("nodata_text")
    if texts.null_count == len(texts):
        return ""
    numbers = pc.match_substring_regex(texts, r"^-?[0-9]{1,20}$")
    return "has a nodata_text that is no whole number" if pc.all(numbers).as_py() is False else ""


_CHECKS: dict[str, Callable[[pa.Array], str]] = {
    "status": _known, "res": _of_length(2), "transform": _of_length(6), "count": _counted,
    "width": _counted, "height": _counted, "gcp_count": _counted, "file_size": _counted,
    "mtime": _dated, "bbox": _on_earth, "geometry": _shaped, "bands": _exact,
    "error_message": _short,
}  # fmt: skip
