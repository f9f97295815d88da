"""Parses GDAL's own TIFF tag for metadata, if the text has the form that GDAL writes.

Reference: GDAL, "GTiff -- GeoTIFF File Format", ``GDAL_METADATA``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from rastermeta_async.readers.base import Unsupported
from rastermeta_async.readers.geotiff.buffer import MAX_ARRAY_BYTES

MAX_METADATA_BYTES = 4 * 1024 * 1024
MAX_REMEMBERED = 1024

USES_UNTIL_USUAL = 256
"""Uses of a plan before its pattern is compiled; compiling takes as long as so many files."""

MAX_PLANS = 256
MAX_USUAL = 32

Tags = dict[str, str]


class Metadata(NamedTuple):
    """The content of a ``GDAL_METADATA`` tag."""

    dataset: Tags
    """Tags of the dataset, default domain."""
    bands: dict[int, Tags]
    """Tags of the default domain by band (1-based), in order, for bands with tags."""
    descriptions: dict[int, str]
    scales: dict[int, float]
    offsets: dict[int, float]
    asked: tuple[tuple[int, str, str], ...]
    """(band, role, value) of the items that rasterio interprets: units and colours."""


NO_METADATA = Metadata({}, {}, {}, {}, {}, ())

_HEAD = re.compile(
    r'\n  <Item name="([^"&<>=:\s](?:[^"&<>=:\n]*[^"&<>=:\s])?)"(?: sample="([0-9]{1,4})")?'
    r'(?: role="([a-z]+)")?(?: domain="([^"&<>\n]*)")?'
)
"""An item as GDAL writes it, from the end of the line before it to the start of its value."""
_START, _ITEM_END, _END = "<GDALMetadata>\n", "</Item>\n", "</GDALMetadata>"
_BLANK = frozenset(["", *" \t\r\n\v\f"])
_VALUE = r"[^<>& \t\r\n\v\f][^<>&]*+"
"""A value that is not empty, does not start with a blank and has no escapes."""
_NUMBER = re.compile(r"[-+]?\d{1,300}(?:\.\d{0,300})?(?:[eE][-+]?\d{1,3})?", re.ASCII)
_ENTITY = re.compile(r"&(?:(lt|gt|amp|quot|apos);)?")
_ENTITIES = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}
_DOMAINS_OF_EFFECT = frozenset(
    ["color_profile", "exif", "imd", "imagery", "overviews", "proxyoverviewrequest", "rpc",
     "subdatasets", "tiff"]
)  # fmt: skip
_NAME_OF_EFFECT = re.compile(
    "area_or_point|tifftag_|internal_mask|nodata_values|overview_file|color_interp", re.IGNORECASE
)

_HARMLESS = re.compile(
    r'<GDALMetadata>\s*(?:<Item(?: [a-z]+="[\w ]*")+>[\w .,:-]*</Item>\s*)*</GDALMetadata>\s*',
    re.ASCII,
)


@lru_cache(MAX_REMEMBERED)
def is_harmless(metadata: str) -> bool:
    """Whether GDAL parses this metadata without a warning."""
    return _HARMLESS.fullmatch(metadata) is not None


def metadata_of(text: str, bands: int) -> Metadata:
    """Return the content of a ``GDAL_METADATA`` tag, if it has the form that GDAL writes."""
    plan = _USUAL.get(bands)
    match = plan.pattern.fullmatch(text) if plan and plan.pattern else None
    if plan is None or match is None:
        plan, values = _looked_at(text, bands)
    else:
        values = match.groups()
    metadata = Metadata(
        {name: values[at] for name, at in plan.dataset},
        {band: {name: values[at] for name, at in tags} for band, tags in plan.of_bands},
        {band: values[at] for band, at in plan.descriptions},
        {}, {}, (),
    )  # fmt: skip
    return _with_roles(metadata, plan.roles, values) if plan.roles else metadata


def _looked_at(text: str, bands: int) -> tuple[_MetadataPlan, Sequence[str]]:
    """Return the plan and the values of a text that does not match the usual pattern."""
    body = text.rstrip("\n")
    if not (body.startswith(_START) and body.endswith(_END)):
        raise Unsupported("metadata that GDAL would not write")
    remembered = len(body) <= MAX_ARRAY_BYTES
    body = body[len(_START) - 1 : -len(_END)]
    items = body.count(_ITEM_END)
    # Every bracket must belong to an item; then heads and values alternate in `pieces`.
    *pieces, rest = body.replace(_ITEM_END, ">\n").split(">")
    if rest != "\n" or not items or len(pieces) != 2 * items or body.count("<") != 2 * items:
        raise Unsupported("metadata that GDAL would not write")
    heads, values = tuple(pieces[::2]), pieces[1::2]
    if not _BLANK.isdisjoint([value[:1] for value in values]):
        raise Unsupported("a value that is empty or starts with a space")
    plan = _plan(heads) if remembered else _MetadataPlan(heads)
    if plan.bands > bands:
        raise Unsupported("metadata of no band")
    if remembered:
        plan.note_use(bands)
    if "&" in body:
        values = [unescaped(unescaped(value)) for value in values]  # GDAL unescapes twice
    return plan, values


class _MetadataPlan:
    """Meaning of each value in a ``GDAL_METADATA`` tag. Files of one product share a plan."""

    def __init__(self, heads: tuple[str, ...]) -> None:
        tags: dict[int, dict[str, tuple[str, int]]] = {}
        roles: dict[tuple[int, str], int] = {}
        found = most = 0
        for at, head in enumerate(heads):
            item = _HEAD.fullmatch(head)
            if item is None:
                raise Unsupported("metadata that GDAL would not write")
            name, sample, role, domain = item.groups()
            band = int(sample) + 1 if sample else 0
            most = max(band, most)
            if domain is not None:
                if role or _has_effect(domain.lower(), name.lower()):
                    raise Unsupported("metadata of effect")
                continue
            if is_tag_of_effect(name) or (role and not band):
                raise Unsupported("metadata of effect")
            found += 1
            if role:
                roles[band, role] = at
            else:
                tags.setdefault(band, {})[name.lower()] = (name, at)
        if sum(map(len, tags.values())) + len(roles) != found:
            raise Unsupported("a tag given twice")
        self._heads = heads
        self._uses = 0
        self.dataset = list(tags.pop(0, {}).values())
        """(name, index of the value) of the dataset's tags."""
        self.of_bands = [(band, list(items.values())) for band, items in sorted(tags.items())]
        """(band, list of (name, index of the value)) of the bands' tags, in the bands' order."""
        texts = {band: at for (band, role), at in roles.items() if role == "description"}
        self.descriptions = list(texts.items())
        """(band, index of the value) of the bands' descriptions."""
        self.roles = [(*key, at) for key, at in roles.items() if key[1] != "description"]
        """(band, role, index of the value) of the roles other than description."""
        self.bands = most
        """Highest band that an item names."""
        self.pattern: re.Pattern[str] | None = None
        """Matches texts with these heads and without escapes; its groups are the values."""

    def note_use(self, bands: int) -> None:
        """Count a use; make a frequent plan the first guess for files with `bands` bands."""
        self._uses += 1
        if self._uses < USES_UNTIL_USUAL:
            return
        if self.pattern is None:
            items = "".join(f"{re.escape(head)}>({_VALUE})</Item>" for head in self._heads)
            self.pattern = re.compile(f"{_START[:-1]}{items}\n{_END}\n")
        if len(_USUAL) >= MAX_USUAL:
            _USUAL.clear()
        _USUAL[bands] = self


_USUAL: dict[int, _MetadataPlan] = {}
"""The latest plan with enough uses (`USES_UNTIL_USUAL`), by number of bands."""


@lru_cache(MAX_PLANS)
def _plan(heads: tuple[str, ...]) -> _MetadataPlan:
    return _MetadataPlan(heads)


def _has_effect(domain: str, name: str) -> bool:
    """Whether GDAL uses metadata of this domain and name, both in lower case, for the record."""
    of_pixels = domain == "image_structure" and name == "interleave"
    return of_pixels or not domain or domain in _DOMAINS_OF_EFFECT or domain[:4] == "xml:"


def _with_roles(
    metadata: Metadata, roles: list[tuple[int, str, int]], values: Sequence[str]
) -> Metadata:
    """Return the metadata with the bands' properties that are not tags: scale, offset, `asked`."""
    asked = []
    for band, role, at in roles:
        if role == "scale":
            metadata.scales[band] = _number(values[at])
        elif role == "offset":
            metadata.offsets[band] = _number(values[at])
        elif role in ("unittype", "colorinterp"):
            asked.append((band, role, values[at]))
        else:
            raise Unsupported("metadata of effect")
    return metadata._replace(asked=tuple(asked)) if asked else metadata


@lru_cache(MAX_REMEMBERED)
def _number(text: str) -> float:
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(number) or (number == 0 and text[0] == "-"):
        raise Unsupported("an odd number")
    return number


def is_tag_of_effect(name: str) -> bool:
    """Whether GDAL itself sets a tag of this name, or uses it."""
    return _NAME_OF_EFFECT.match(name) is not None


def unescaped(value: str) -> str:
    """Return a text with its entities replaced; raise Unsupported if GDAL would not write one."""

    def replaced(match: re.Match[str]) -> str:
        if match[1] is None:
            raise Unsupported("an odd entity")
        return _ENTITIES[match[1]]

    return _ENTITY.sub(replaced, value)
