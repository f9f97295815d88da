"""Recognises all IFDs after the first at once, if an earlier file had the same ones.

GDAL writes the IFDs of overviews and masks, and their values, one after the other. The files of a
product have the same bytes there, with two exceptions. The offsets of the blocks differ, but do
not matter. The offsets of the values and IFDs move together with the bytes. So one comparison of
large integers replaces the decoding of each IFD.
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
    """Bits of the piece, as one little-endian number, that must be equal, offsets included."""
    offsets: int = 0
    """Number with a 1 at each offset of another piece; n times this number moves them by n."""


class CachedIfds:
    """The relevant bits of IFDs and their values, independent of where they are in a file."""

    def __init__(self, plan: _IfdPlan, number: int) -> None:
        self._plan = plan
        self._number = number
        self._last = 0, number
        """The last file's start, and the relevant bits there: most files have the same start."""

    @classmethod
    def of(cls, head: bytes, start: int, parts: Iterable[Piece]) -> Self | None:
        """Return the IFDs and values from `start` on in the head of a little-endian file.

        Args:
            head: first bytes of the file.
            start: offset of the first piece.
            parts: the pieces; offsets in them point to other pieces.

        Returns:
            None if the pieces reach beyond the head, or if two pieces overlap: bytes of one may
            then be offsets of the other, which move.
        """
        moved = (part._replace(start=part.start - start) for part in parts)
        plan = _plan(tuple(sorted(moved)))
        if plan is None or start + plan.length > len(head):
            return None
        return cls(plan, plan.number(head, start))

    def is_at(self, start: int, head: bytes) -> bool:
        """Whether the head of a file has the same IFDs at `start`, moved as a whole."""
        plan = self._plan
        last, bits = self._last  # one attribute, as threads share this
        if last != start:
            bits = plan.moved(self._number, start)
            self._last = start, bits
        return start + plan.length <= len(head) and plan.bits(head, start) == bits


class _IfdPlan:
    """How to convert IFDs to one number. Files of one product share a plan."""

    def __init__(self, parts: tuple[Piece, ...]) -> None:
        self.length = parts[-1].start + parts[-1].length
        self._mask = sum(part.mask << 8 * part.start for part in parts)
        self._offsets = sum(part.offsets << 8 * part.start for part in parts)

    def number(self, head: bytes, start: int) -> int:
        """Return the relevant bits from `start` on, offsets relative: equal for equal IFDs."""
        return self.bits(head, start) - start * self._offsets

    def bits(self, head: bytes, start: int) -> int:
        """Return the relevant bits from `start` on, as they are."""
        return int.from_bytes(head[start : start + self.length], "little") & self._mask

    def moved(self, number: int, start: int) -> int:
        """Return the bits from `start` on of IFDs that have this number."""
        return number + start * self._offsets


@lru_cache(MAX_PLANS)
def _plan(parts: tuple[Piece, ...]) -> _IfdPlan | None:
    end = 0
    for part in parts:
        if part.start < end:
            return None
        end = part.start + part.length
    return _IfdPlan(parts) if parts and end <= MAX_CACHED_BYTES else None
