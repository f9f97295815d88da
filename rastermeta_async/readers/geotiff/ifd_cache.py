"""Several parts of a header that lie together, recognised as a whole in the next file.

GDAL writes the IFDs of overviews and masks, and what belongs to them, one after the other. From
file to file of a product that stretch is the same, but for where the blocks are, which does not
matter, and for offsets within it, which have moved by as much as the stretch itself. So one
comparison of large numbers stands for looking at each of the parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple, Self

MAX_STRETCH_BYTES = 8 * 1024
MAX_PLANS = 128


class Part(NamedTuple):
    """An IFD, or values outside one."""

    start: int
    length: int
    mask: int
    """What of it, as one little-endian number, must be the same, offsets included."""
    offsets: int = 0
    """Number that has a 1 where an offset of another part is: times n, it moves them by n."""


class Stretch:
    """A stretch of bytes, wherever it is in a file, in all that matters of it."""

    def __init__(self, plan: _Plan, number: int) -> None:
        self._plan = plan
        self._number = number

    @classmethod
    def of(cls, head: bytes, start: int, parts: Iterable[Part]) -> Self | None:
        """Return the stretch from `start` on that consists of some parts of a little-endian file.

        Offsets in them are to be those of other parts. None: they are not all in one stretch of
        the head, or one overlaps with another, so that its bytes may be offsets that move.
        """
        moved = (part._replace(start=part.start - start) for part in parts)
        plan = _plan(tuple(sorted(moved)))
        if plan is None or start + plan.length > len(head):
            return None
        return cls(plan, plan.number(head, start))

    def is_at(self, start: int, head: bytes) -> bool:
        """Whether the same stretch, moved there as a whole, is in the head of a file."""
        plan = self._plan
        return start + plan.length <= len(head) and plan.number(head, start) == self._number


class _Plan:
    """How to take a stretch for a number. Files of one product share one."""

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self.length = parts[-1].start + parts[-1].length
        self._mask = sum(part.mask << 8 * part.start for part in parts)
        self._offsets = sum(part.offsets << 8 * part.start for part in parts)

    def number(self, head: bytes, start: int) -> int:
        """Return what is at `start`, less that in each offset: equal if and only if it matters."""
        content = int.from_bytes(head[start : start + self.length], "little")
        return (content & self._mask) - start * self._offsets


@lru_cache(MAX_PLANS)
def _plan(parts: tuple[Part, ...]) -> _Plan | None:
    end = 0
    for part in parts:
        if part.start < end:
            return None
        end = part.start + part.length
    return _Plan(parts) if parts and end <= MAX_STRETCH_BYTES else None
