"""The IFDs after the first, recognised as a whole in the next file.

GDAL writes the IFDs of overviews and masks, and the values that belong to them, one after the
other. From file to file of a product these bytes are the same, but for where the blocks are, which
does not matter, and for offsets within them, which move as the bytes do. So one comparison of
large numbers stands for decoding each IFD.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple, Self

MAX_CACHED_BYTES = 8 * 1024
MAX_PLANS = 128


class Piece(NamedTuple):
    """An IFD, or values outside one."""

    start: int
    length: int
    mask: int
    """What of it, as one little-endian number, must be the same, offsets included."""
    offsets: int = 0
    """Number that has a 1 where an offset of another part is: times n, it moves them by n."""


class CachedIfds:
    """IFDs and their values, wherever they are in a file, in all that matters of them."""

    def __init__(self, plan: _IfdPlan, number: int) -> None:
        self._plan = plan
        self._number = number

    @classmethod
    def of(cls, head: bytes, start: int, parts: Iterable[Piece]) -> Self | None:
        """Return the IFDs and values from `start` on in the head of a little-endian file.

        Args:
            head: of the file.
            start: offset of the first piece.
            parts: the pieces; offsets in them point to other pieces.

        Returns:
            None where they reach beyond the head, or one overlaps with another, so that its bytes
            may be offsets that move.
        """
        moved = (part._replace(start=part.start - start) for part in parts)
        plan = _plan(tuple(sorted(moved)))
        if plan is None or start + plan.length > len(head):
            return None
        return cls(plan, plan.number(head, start))

    def is_at(self, start: int, head: bytes) -> bool:
        """Whether the same IFDs, moved there as a whole, are in the head of a file."""
        plan = self._plan
        return start + plan.length <= len(head) and plan.number(head, start) == self._number


class _IfdPlan:
    """How to take IFDs for one number. Files of one product share a plan."""

    def __init__(self, parts: tuple[Piece, ...]) -> None:
        self.length = parts[-1].start + parts[-1].length
        self._mask = sum(part.mask << 8 * part.start for part in parts)
        self._offsets = sum(part.offsets << 8 * part.start for part in parts)

    def number(self, head: bytes, start: int) -> int:
        """Return what is at `start`, less that in each offset: equal if and only if it matters."""
        content = int.from_bytes(head[start : start + self.length], "little")
        return (content & self._mask) - start * self._offsets


@lru_cache(MAX_PLANS)
def _plan(parts: tuple[Piece, ...]) -> _IfdPlan | None:
    end = 0
    for part in parts:
        if part.start < end:
            return None
        end = part.start + part.length
    return _IfdPlan(parts) if parts and end <= MAX_CACHED_BYTES else None
