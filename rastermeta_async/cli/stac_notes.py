"""Say what a person should know about an export to STAC, besides its items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rastermeta_async.model.text import on_a_line

if TYPE_CHECKING:
    from rastermeta_async.stac.assembly import Notes
    from rastermeta_async.stac.export import Export

_SHOWN = 300
"""Characters of an example that are shown."""

_NAMES_SHOWN = 5


def notes_on(done: Export, output: str) -> Iterator[str]:
    """Yield sentences about an export to a file."""
    from rastermeta_async.stac.items import UNDATED

    for reason, count in done.left_out.items():
        remedy = "; name what does with --datetime" if reason == UNDATED else ""
        yield f"{_were(count, 'row')} left out: {reason}{remedy}"
    if done.left_out:
        yield f"{output}.left-out.txt lists them"
    yield from map(on_a_line, _on_scenes(done.notes))
    yield from _on_links(done, output)


def _on_scenes(notes: Notes) -> Iterator[str]:
    if notes.doubled:
        yield (
            f"{_were(notes.doubled, 'scene')} left out, with an asset twice, e.g. "
            f"{notes.doubled_example[:_SHOWN]}: let the group scene, or root, tell them apart"
        )
    if notes.mixed:
        yield (
            f"{_have(notes.mixed, 'scene')} assets in several CRSs, e.g. "
            f"{notes.mixed_example[:_SHOWN]}: proj:code is at the assets there"
        )
    if notes.copies:
        yield (
            f"{_have(notes.copies, 'scene')} the name of another one, e.g. "
            f"{notes.copies_example[:_SHOWN]}: the id of the later one ends in a digest"
        )
    for count, first, missing in notes.lacking():
        names = ", ".join(missing[:_NAMES_SHOWN]) + (", …" if missing[_NAMES_SHOWN:] else "")
        yield (
            f"{_have(count, 'scene')} not all assets that most others of the product have: e.g. "
            f"{first} lacks {names}"[:_SHOWN]
        )


def _on_links(done: Export, output: str) -> Iterator[str]:
    if done.relative_links:
        links = "1 link is" if done.relative_links == 1 else f"{done.relative_links:,} links are"
        yield (
            f"{links} relative to {output}: where items are moved, or loaded into an API, they "
            "lead nowhere; give --base-url, or absolute paths to extract"
        )
    if done.encoded_links:
        links = "1 link has" if done.encoded_links == 1 else f"{done.encoded_links:,} links have"
        yield (
            f"{links} percent-encoded characters, which rasterio and pystac do not decode in "
            "file:// URLs: `rastermeta help stac` tells how to open them"
        )


def _were(count: int, what: str) -> str:
    return f"{count:,} {what} was" if count == 1 else f"{count:,} {what}s were"


def _have(count: int, what: str) -> str:
    return f"{count:,} {what} has" if count == 1 else f"{count:,} {what}s have"
