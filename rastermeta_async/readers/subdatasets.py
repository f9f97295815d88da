"""The names under which ``rasterio.open`` opens the parts of a container.

A name is driver, file and part, with colons between them. If the file or the part holds a colon,
GDAL quotes it, but not for every driver. rasterio removes all quotes, also those of file names,
and turns ``NETCDF:`` into ``netcdf:``. Its names are right if neither file nor part holds a colon
or a quote. Otherwise GDAL's names are right if GDAL quotes, or takes all that follows for the
file. For all other parts, a test opens names to see whether the one with all quotes is right.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self

from rastermeta_async.model.text import plural

MAX_TRIED = 64
"""Most names of one file that are opened; all parts without a colon or a quote share one try."""

MAX_PARTS = 10_000
"""Most parts of a container that are listed."""

NOT_A_PART = "NotAPart"
"""Error type of a subdataset that is stored in another file than the one that names it."""

_SAME_UNQUOTED = re.compile(r'[^":]+(?::(?:[^":]*|"[^":]*"))+')
"""Names that mean the same without their quotes."""

_ONE_FIELD = frozenset({"GPKG", "HDF5", "netCDF", "TileDB", "Zarr"})
"""Drivers with one field after the file, so that a further colon belongs to the part. Only their
names are opened, as GDAL itself makes them; a GeoTIFF or a VRT may hold any name at all."""

_DRIVER_PREFIX = re.compile(r'(?:\w+:)+"?')
"""The part before the file in a name that GDAL makes."""


class PartPath(bytes):
    """The path or URL of a container, and a subdataset in it that GDAL is to open."""

    container: bytes
    """The same path; a `MemberPath` if the container is in an archive."""
    driver: str
    """GDAL's driver that opened the container."""
    name: str
    """Name of the subdataset, as in the column `subdatasets`."""

    def __new__(cls, container: bytes, driver: str, name: str) -> Self:
        """Return the path of a container with a subdataset."""
        made = super().__new__(cls, container)
        made.container, made.driver, made.name = container, driver, name
        return made


class Subdatasets(NamedTuple):
    """The parts of a container."""

    names: list[str]
    problems: list[str]
    """Messages about parts that are left out, or may not open."""


NONE = Subdatasets([], [])


def subdatasets_of(dataset: Any, given: str, opens: Callable[[str, str], bool]) -> Subdatasets:
    """Return the parts of an open dataset.

    Args:
        dataset: the container.
        given: its file as it was given; `dataset.name` is the name that was opened.
        opens: takes a name and a file; returns whether the name opens, and opens that file.
    """
    tags, left_out = dataset.tags_and_left_out(ns="SUBDATASETS")
    if not (tags or left_out):
        return NONE
    numbers = sorted({key.split("_")[1] for key in tags})  # sorted as texts, like rasterio
    of_gdal = [tags[key] for key in (f"SUBDATASET_{at}_NAME" for at in numbers) if key in tags]
    lost = sum(b"_NAME=" in item for _, item in left_out)
    of_rasterio = of_gdal if lost else dataset.subdatasets
    search = _Search(dataset.driver, dataset.name, given, opens)
    pairs = itertools.islice(zip(of_gdal, of_rasterio, strict=True), MAX_PARTS)
    found = [search.name(*pair) for pair in pairs]
    problems = list(search.problems())
    if (more := len(of_gdal) - MAX_PARTS) > 0:
        problems.append(f"{plural(more, 'name')} left out, as there are more than {MAX_PARTS:,}")
    if lost:
        words = "left out: rasterio.open takes no name that is not UTF-8"
        problems.append(f"{plural(lost, 'name')} {words}")
    return Subdatasets([name for name in found if name is not None], problems)


class _Search:
    """Finds the names of one file's parts."""

    def __init__(
        self, driver: str, file: str, given: str, opens: Callable[[str, str], bool]
    ) -> None:
        self._driver = driver
        self._file = file
        self._given = given
        self._opens = opens
        self._found: dict[str, int | None] = {}
        """Index of the form that opened, by part; all unambiguous parts share one entry."""
        self._failed: list[str] = []
        self._tries = self._untried = 0
        self._foreign: list[str] = []

    def name(self, of_gdal: str, of_rasterio: str) -> str | None:
        """Return the name of a part; None: no name opens it."""
        head, _, tail = of_gdal.partition(self._file)
        if not _DRIVER_PREFIX.fullmatch(head):
            self._foreign.append(of_gdal)
            return of_rasterio
        quoted = head.endswith('"') and tail.startswith('"')
        part = tail[quoted:].removeprefix(":")
        quoted_part = re.fullmatch('"([^"]*)"', part)
        one_field = self._driver in _ONE_FIELD
        odd_part = not quoted_part and ('"' in part or (":" in part and one_field))
        # GDAL strips blanks and its own prefixes from a relative name.
        sure = quoted and self._given == self._file
        odd_file = '"' in self._given or (not sure and re.search(r":|^\s", self._given) is not None)
        if self._driver not in _ONE_FIELD or (not odd_part and not (odd_file and tail)):
            same = '"' not in self._given and "NETCDF:" not in of_gdal[1:]
            name = of_rasterio if same and _SAME_UNQUOTED.fullmatch(of_gdal) else of_gdal
            return name.replace(self._file, self._given, 1)
        forms = []
        start, bare = head.removesuffix('"'), quoted_part[1] if quoted_part else part
        for file in dict.fromkeys((self._given, self._file)):
            forms.append((f"{start}{_quoted(file)}:{_quoted(bare)}", file))
            if not odd_part:  # otherwise this may be the name of another part
                forms.append((head + file + tail, file))
        form = self._form_that_opens(part if odd_part else "", forms)
        if form is None:
            self._failed.append(of_gdal)
            return None
        return forms[form][0]

    def _form_that_opens(self, part: str, forms: list[tuple[str, str]]) -> int | None:
        if part in self._found:
            return self._found[part]
        if self._tries == MAX_TRIED:
            self._untried += 1
            return 0
        self._tries += 1
        form = next((at for at, form in enumerate(forms) if self._opens(*form)), None)
        if form is not None or part:  # a plain part that fails says nothing about others
            self._found[part] = form
        return form

    def problems(self) -> Iterator[str]:
        """Yield the messages about the names."""
        if self._failed:
            yield (
                f"{plural(len(self._failed), 'name')} left out: GDAL cannot open the part by any "
                f"name, as a name holds a quote or a colon, e.g. {self._failed[0]}"
            )
        if self._foreign:
            yield (
                f"{plural(len(self._foreign), 'name')} not tried, as GDAL does not make such names "
                f"of this file, e.g. {self._foreign[0]}"
            )
        if self._untried:
            yield f"{plural(self._untried, 'name')} with a quote or a colon not tried"


def _quoted(text: str) -> str:
    """Return a text quoted so that GDAL's ``CSLTokenizeString2`` reads it as one field."""
    return '"' + re.sub(r'(\\*)"', r'\1\1\\"', text) + '"'
