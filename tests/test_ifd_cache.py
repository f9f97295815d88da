"""What is taken for the same as in a file before: it is that, or is looked at after all."""

from __future__ import annotations

import struct

import pytest
from test_tiff_header import FORMS, LITTLE, Disk, metadata, patched, short, tiled
from tiff_variants import (
    LONG,
    METADATA_TAG,
    SHORT,
    Form,
    Ifd,
    assembled,
    form_of,
    ifds_of,
    number_value,
)

from rastermeta_async.readers.base import HEAD_BYTES, Unsupported
from rastermeta_async.readers.geotiff.gdal_metadata import metadata_of
from rastermeta_async.readers.geotiff.header import Header, read_header
from rastermeta_async.readers.geotiff.ifd_cache import CachedIfds


def with_overviews(form: Form = LITTLE, text: str = "a") -> bytes:
    """Return a file of five bands with two overviews, and values between the IFDs."""
    bands = {258: number_value(form, SHORT, *[8] * 5), 277: number_value(form, SHORT, 5)}
    parts = [tiled(form, 50, 35) | bands, tiled(form, 25, 18) | bands]
    for part in parts:
        part[254] = number_value(form, LONG, 1)
    first = tiled(form) | bands | {METADATA_TAG: metadata(f'name="A">{text}')}
    return assembled(form, [first, *parts])


def outcome_of(content: bytes, head_bytes: int = HEAD_BYTES) -> tuple[Header | str, object]:
    """Return what becomes of a file: its header and what was read, or why there is none."""
    disk = Disk(content)
    try:
        header = read_header(content[:head_bytes], len(content), disk.read_at)
    except Unsupported as reason:
        return str(reason), disk.reads
    return header, disk.reads


class Recognised:
    """Counts how often the IFDs after the first are taken for those of a file before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        self.may = True
        is_at = CachedIfds.is_at

        def counting(cached: CachedIfds, start: int, head: bytes) -> bool:
            found = self.may and is_at(cached, start, head)
            self.times += found
            return found

        monkeypatch.setattr(CachedIfds, "is_at", counting)

    def learn(self, content: bytes) -> Header:
        """Have a file recognised from now on; return its header."""
        for _ in range(3):
            outcome = outcome_of(content)
        before = self.times
        assert outcome_of(content) == outcome
        assert self.times == before + 1
        header, _ = outcome
        assert isinstance(header, Header)
        return header

    def check(self, content: bytes, head_bytes: int = HEAD_BYTES) -> bool:
        """Compare what becomes of a file with and without; tell whether it was recognised."""
        before = self.times
        outcome = outcome_of(content, head_bytes)
        found = self.times > before
        self.may = False
        assert outcome == outcome_of(content, head_bytes)
        self.may = True
        return found


@pytest.fixture
def recognised(monkeypatch: pytest.MonkeyPatch) -> Recognised:
    return Recognised(monkeypatch)


@pytest.fixture(params=[LITTLE, FORMS["little BigTIFF"]], ids=["classic", "BigTIFF"])
def form(request: pytest.FixtureRequest) -> Form:
    found: Form = request.param
    return found


def places_of(content: bytes) -> list[tuple[int, int]]:
    """Return where IFDs start and where their links are."""
    form = form_of(content)
    places, link = [], len(form.head)
    while offset := form.offset.unpack_from(content, link)[0]:
        (count,) = form.count.unpack_from(content, offset)
        link = offset + form.count.size + form.entry.size * count
        places.append((offset, link))
    return places


def bits_of(content: bytes, ifd: int) -> tuple[int, int]:
    """Return where the offset of an IFD's bits a sample is, and the offset."""
    form = form_of(content)
    at = places_of(content)[ifd][0] + form.count.size
    while struct.unpack_from(form.sign + "H", content, at) != (258,):
        at += form.entry.size
    at += form.entry.size - form.offset.size
    return at, form.offset.unpack_from(content, at)[0]


def with_offset(content: bytes, at: int, offset: int) -> bytes:
    form = form_of(content)
    return patched(content, at, form.sign + ("Q" if form.big else "I"), offset)


def test_overviews_are_recognised_wherever_they_are(form: Form, recognised: Recognised) -> None:
    header = recognised.learn(with_overviews(form))
    assert header.overviews == (2, 4)
    for length in (2, 8, 64, 1000, 9000):
        assert recognised.check(with_overviews(form, "b" * length))


def test_where_blocks_are_does_not_matter(form: Form, recognised: Recognised) -> None:
    content = with_overviews(form)
    recognised.learn(content)
    at, _ = bits_of(content, 1)
    at += form.entry.size * (
        sorted(ifds_of(content)[1]).index(324) - sorted(ifds_of(content)[1]).index(258)
    )
    assert ifds_of(content)[1][324] != ifds_of(with_offset(content, at, 8))[1][324]
    assert recognised.check(with_offset(content, at, 8))


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_any_byte_of_overviews_changed(form: Form, recognised: Recognised, mask: int) -> None:
    """Whatever it does to the outcome, it does so in what was learnt from another file, too."""
    content = with_overviews(form)
    outcomes = set()
    start = places_of(content)[1][0]
    for at in range(start, len(content)):
        recognised.learn(content)
        changed = bytearray(content)
        changed[at] ^= mask
        outcomes.add(recognised.check(bytes(changed)))
    assert outcomes == {True, False}


@pytest.mark.parametrize("byte", [0x00, 0x07, 0x10])
def test_overviews_of_other_bits(form: Form, recognised: Recognised, byte: int) -> None:
    content = with_overviews(form)
    recognised.learn(content)
    _, bits = bits_of(content, 2)
    assert not recognised.check(content[:bits] + bytes([byte]) + content[bits + 1 :])


def test_bits_of_an_overview_that_are_elsewhere(form: Form, recognised: Recognised) -> None:
    content = with_overviews(form)
    at, bits = bits_of(content, 1)
    _, others = bits_of(content, 2)
    for offset in (others, bits - 2, bits + 2, bits_of(content, 0)[1], 0, len(content) - 2):
        recognised.learn(content)
        assert not recognised.check(with_offset(content, at, offset))
    # Moved, while the values stay.
    longer = with_overviews(form, "b" * 64)
    recognised.learn(content)
    assert not recognised.check(with_offset(longer, bits_of(longer, 1)[0], bits))


def test_links_that_lead_elsewhere(form: Form, recognised: Recognised) -> None:
    content = with_overviews(form)
    (first, link), (second, to_third), (third, last) = places_of(content)
    for at, offset in [
        (link, third), (link, first), (link, 0), (link, second + 2), (to_third, 0),
        (to_third, second), (to_third, first), (last, first), (last, third), (last, second),
        (to_third, third + 2), (last, len(content)),
    ]:  # fmt: skip
        recognised.learn(content)
        assert not recognised.check(with_offset(content, at, offset))


def test_overviews_across_the_end_of_the_head(form: Form, recognised: Recognised) -> None:
    content = with_overviews(form)
    third = places_of(content)[2]
    end = max(third[1] + form.offset.size, bits_of(content, 2)[1] + 10)
    for head_bytes in (end - 1, third[1], third[0] + 1, third[0], third[0] - 1):
        recognised.learn(content)
        assert not recognised.check(content, head_bytes)
    recognised.learn(content)
    assert recognised.check(content, end)


def test_overviews_that_share_values_or_bytes_are_looked_at(
    form: Form, recognised: Recognised
) -> None:
    """An offset that is also a value does not stay the same value when it moves."""
    content = with_overviews(form)
    at, _ = bits_of(content, 1)
    for offset in (bits_of(content, 2)[1], bits_of(content, 0)[1], at, places_of(content)[2][0]):
        odd = with_offset(content, at, offset)
        for _ in range(3):
            assert not recognised.check(odd)


@pytest.mark.parametrize("other", [
    {METADATA_TAG: metadata('name="A">b')}, {320: short(*[0] * 768)},
])  # fmt: skip
def test_overviews_to_be_checked_in_each_file_are_looked_at(
    recognised: Recognised, other: Ifd
) -> None:
    half = tiled(LITTLE, 50, 35) | {254: number_value(LITTLE, LONG, 1)} | other
    for _ in range(4):
        assert not recognised.check(assembled(LITTLE, [tiled(), half]))


def test_big_endian_overviews_are_looked_at(recognised: Recognised) -> None:
    for _ in range(4):
        assert not recognised.check(with_overviews(Form(">", big=False)))


def test_what_is_cached_is_bounded(recognised: Recognised) -> None:
    def content(tiles: int) -> bytes:
        half = tiled(LITTLE, 16 * tiles, 16) | {254: number_value(LITTLE, LONG, 1)}
        quarter = tiled(LITTLE, 8, 8) | {254: number_value(LITTLE, LONG, 1)}
        return assembled(LITTLE, [tiled(LITTLE, 32, 32), half, quarter])

    recognised.learn(content(900))
    for _ in range(4):  # the places of its tiles lie in between
        assert not recognised.check(content(1100))


PRODUCT = [
    'name="A">1', 'name="B" sample="0">two', 'name="S" sample="1" role="scale">0.5',
    'name="D" sample="0" role="description">Red', 'name="C" domain="X">c',
]  # fmt: skip


def test_usual_metadata_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern made of metadata met before finds what looking at each item does."""

    def found(text: str, bands: int) -> object:
        try:
            return metadata_of(text, bands)
        except Unsupported as reason:
            return str(reason)

    monkeypatch.setattr("rastermeta_async.readers.geotiff.gdal_metadata.USES_UNTIL_USUAL", 2)
    text = metadata(*PRODUCT).content[:-1].decode()
    usual = metadata_of(text, 2)
    assert (usual.dataset, usual.scales, usual.descriptions) == ({"A": "1"}, {2: 0.5}, {1: "Red"})
    changed = [text, text + "\n", text[:-1], *(text[:end] for end in range(len(text)))]
    for at in range(len(text)):
        for new in (
            "",
            "x",
            "<",
            ">",
            "&",
            "&amp;",
            " ",
            "\n",
            "\v",
            "\u00a0",
            '"',
            "0",
            "</Item>\n",
        ):
            changed += [text[:at] + new + text[at:], text[:at] + new + text[at + 1 :]]
    for other in changed:
        for bands in (1, 2):
            monkeypatch.setattr("rastermeta_async.readers.geotiff.gdal_metadata._USUAL", {})
            expected = found(other, bands)
            monkeypatch.setattr("rastermeta_async.readers.geotiff.gdal_metadata._USUAL", {})
            for _ in range(3):
                found(text, bands)
            assert found(other, bands) == expected
    assert metadata_of(text, 2) == usual
    assert found(text, 1) == "metadata of no band"
