"""Find the scene that each file of a catalog belongs to, and bring the files of a scene together.

Rules are regular expressions of RE2, which takes time linear in the length of a path, whatever the
expression and the path are. Rows are sorted by scene in scratch files: a scene's files are not
always neighbours in a catalog, which is in the order of paths, or of places, or in none.

Reference: RE2, "Syntax".
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rastermeta_async.catalog.completed import ROWS_AS_DICTS, batches_of
from rastermeta_async.catalog.no_rasters import as_error_rows
from rastermeta_async.catalog.resort import SAMPLE_KEYS, resorted
from rastermeta_async.model.errors import SettingsError
from rastermeta_async.model.record import SCHEMA
from rastermeta_async.model.row_ops import IDENTITY, row_keys
from rastermeta_async.stac.products import METADATA, OF_PRODUCTS, PRESETS, SceneFile

AUTO = "auto"
"""Rule that stands for all presets of products; it makes other files items of their own."""

_GROUPS = ("scene", "root", "asset")
_LONGEST = 1000
"""Characters of a rule; RE2 needs memory for each of them."""


class SceneRules:
    """Tells the scene and the asset of paths by rules, of which the first that matches counts.

    Args:
        texts: names of presets, `AUTO`, or regular expressions with the groups scene and asset.

    Raises:
        SettingsError: a rule is invalid; the message names it.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.others_alone = AUTO in texts
        """Whether a file that no rule matches is an item of its own."""
        self._patterns = [
            (name, pattern)
            for text in texts
            for name in (OF_PRODUCTS if text == AUTO else (text,))
            for pattern in PRESETS.get(name) or (_checked(name),)
        ]

    def of(self, rows: pa.RecordBatch | pa.Table) -> pa.RecordBatch:
        """Return the columns scene, root, asset and rule of rows; null where no rule matches.

        An empty scene or asset does not match, nor does a path that is not UTF-8: two of them may
        be shown alike.
        """
        odd = pc.is_valid(rows.column("filepath_bytes"))
        inside = pc.coalesce(pc.binary_join_element_wise("", rows.column("member"), "/"), "")
        names = pc.binary_join_element_wise(rows.column("filepath"), inside, "")
        paths = pc.if_else(odd, None, names)
        if isinstance(paths, pa.ChunkedArray):
            paths = paths.combine_chunks()
        found = [pa.nulls(len(paths), pa.string())] * (len(_GROUPS) + 1)
        for name, pattern in self._patterns:
            told = _told(paths, pattern, name)
            found = [pc.coalesce(*pair) for pair in zip(found, told, strict=True)]
        return pa.RecordBatch.from_arrays(found, names=SceneFile._fields)

    def keys(self, rows: pa.RecordBatch | pa.Table) -> pa.Array | pa.ChunkedArray:
        """Return the keys that sort rows by scene, root and path; without scene they come first."""
        told = self.of(rows)
        scene, root = (
            pc.cast(pc.fill_null(told.column(name), ""), pa.binary()) for name in ("scene", "root")
        )
        return pc.binary_join_element_wise(scene, root, row_keys(rows), b"\0")


def _told(paths: pa.Array, pattern: str, name: str) -> list[pa.Array]:
    matched = pc.extract_regex(paths, pattern=pattern)
    named = {field.name for field in matched.type}
    scene, root, asset = (
        pc.struct_field(matched, group) if group in named else pa.repeat("", len(paths))
        for group in _GROUPS
    )
    known = pc.and_(pc.not_equal(scene, ""), pc.not_equal(asset, ""))
    columns = [scene, root, asset, pa.repeat(name, len(paths))]
    return [pc.if_else(pc.fill_null(known, False), column, None) for column in columns]


def _checked(text: str) -> str:
    """Return a valid regular expression.

    Raises:
        SettingsError: it is invalid, or a group is missing.
    """
    if "(" not in text:
        known = ", ".join([*PRESETS, AUTO])
        raise SettingsError(
            f"--scene: {text!r} is neither one of {known} nor a regular expression with the "
            "groups (?P<scene>…) and (?P<asset>…)"
        )
    if re.search(r"(?<!\\)(?:\\\\)*\\C", text):
        raise SettingsError(f"--scene: {text!r}: \\C takes half a letter; give a dot")
    if len(text) > _LONGEST:
        raise SettingsError(f"--scene: the expression has more than {_LONGEST} characters")
    try:
        groups = pc.extract_regex(pa.array([], pa.string()), pattern=text).type
        named = [field.name for field in groups]
    except pa.ArrowInvalid as error:
        raise SettingsError(
            f"--scene: {text!r}: {error}. The syntax is RE2's: no look-around, no back-references; "
            "a group without a name is (?:…)"
        ) from None
    if doubled := [name for name, count in Counter(named).items() if count > 1]:
        raise SettingsError(f"--scene: {text!r} has the group {doubled[0]} twice")
    if missing := {"scene", "asset"}.difference(named):
        raise SettingsError(
            f"--scene: {text!r} has no group (?P<{min(missing)}>…): scene is what becomes an "
            "item, asset tells its files apart"
        )
    if unknown := set(named).difference(_GROUPS):
        raise SettingsError(
            f"--scene: {text!r} has a group {min(unknown)}; there are scene, asset, and root, the "
            "folder before a scene, which tells copies of a scene apart"
        )
    return text


Row = tuple[dict[str, Any], SceneFile | None]
Rows = Generator[Row, None, None]


def rows_by_scene(catalog: str, columns: Sequence[str], rules: SceneRules, folder: str) -> Rows:
    """Yield the rows of a catalog as dicts, each with its scene; a scene's rows come together.

    Metadata files of scenes that have no rows, as they are no rasters, come with error rows.

    Args:
        catalog: a finished catalog.
        columns: the columns that a dict has.
        rules: tell the scenes.
        folder: existing folder for scratch files, which are removed in the end.

    Raises:
        SettingsError: see `batches_of`.
        OutputError: see `batches_of`.
    """
    sample, count = _sample(catalog, rules)
    metadata = _metadata(catalog, columns, rules)
    padded = map(_padded, itertools.chain(batches_of(catalog, columns), metadata))
    for batch in resorted(padded, sample, count, folder, rules.keys):
        wanted = batch.select(list(columns))
        scenes = rules.of(batch)
        for start in range(0, batch.num_rows, ROWS_AS_DICTS):
            rows = wanted.slice(start, ROWS_AS_DICTS).to_pylist()
            files = scenes.slice(start, ROWS_AS_DICTS).to_pylist()
            for row, file in zip(rows, files, strict=True):
                yield row, SceneFile(**file) if file["scene"] else None


def _metadata(catalog: str, columns: Sequence[str], rules: SceneRules) -> Iterator[pa.RecordBatch]:
    """Yield rows of the metadata files of scenes that a catalog keeps apart as no rasters."""
    endings = f"(?i)({'|'.join(map(re.escape, METADATA))})$"
    for batch in as_error_rows(catalog, columns):
        named = batch.filter(pc.match_substring_regex(batch.column("filepath"), endings))
        if named.num_rows:
            yield named.filter(pc.is_valid(rules.of(named).column("scene")))


def _sample(catalog: str, rules: SceneRules) -> tuple[list[bytes], int]:
    """Return the keys of evenly spaced rows, and the number of rows."""
    sample: list[bytes] = []
    count, step = 0, 1
    for batch in batches_of(catalog, IDENTITY):
        sample += rules.keys(batch)[-count % step :: step].to_pylist()
        count += batch.num_rows
        if len(sample) > 2 * SAMPLE_KEYS:
            sample, step = sample[::2], 2 * step
    return sample, count


def _padded(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return rows with all columns of a catalog, as sorting needs them; others are null."""
    named = set(batch.schema.names)
    columns = [
        batch.column(field.name) if field.name in named else pa.nulls(batch.num_rows, field.type)
        for field in SCHEMA
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
