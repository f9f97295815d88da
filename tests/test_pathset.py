from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rastermeta_async.model import path_set
from rastermeta_async.model.path_set import PathSet, Words

paths = st.integers(0, 40).map(lambda number: b"%d" % number)
blocks = st.lists(paths, max_size=12)
steps = st.lists(st.tuples(st.sampled_from(["add_new", "missing", "update"]), blocks), max_size=25)


def colliding(paths: Sequence[bytes]) -> Words:
    """Few first words, extreme ones among them; the second tells paths apart."""
    ends = [-(2**63), 0, 2**63 - 1]
    words = [(ends[len(path) % 2 + path[-1] % 2], int.from_bytes(path, "big")) for path in paths]
    return np.array(words, np.int64).reshape(-1, 2)


def follow(steps: list[tuple[str, list[bytes]]]) -> PathSet:
    """Do the same to a PathSet and a plain set, comparing every answer."""
    tested, model = PathSet(), set[bytes]()
    for method, block in steps:
        if method == "update":
            tested.update(block)
            model.update(block)
            continue
        expected = [path for path in block if path not in model]
        if method == "add_new":
            expected = list(dict.fromkeys(expected))
            model.update(expected)
            assert tested.add_new(block) == expected
        else:
            assert tested.missing(block) == expected
    everything = [b"%d" % number for number in range(41)]
    assert tested.missing(everything) == [path for path in everything if path not in model]
    assert len(tested) >= len(model)
    return tested


@given(steps, st.integers(1, 8), st.sampled_from([1, 4, 16, 1 << 21]))
def test_is_a_set(steps: list[tuple[str, list[bytes]]], buffered: int, segment: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(path_set, "_BUFFERED", buffered)
        patch.setattr(path_set, "_SEGMENT", segment)
        follow(steps)


@given(steps, st.integers(1, 8))
def test_colliding_first_words_are_told_apart(
    steps: list[tuple[str, list[bytes]]], buffered: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(path_set, "_BUFFERED", buffered)
        patch.setattr(path_set, "fingerprints", colliding)
        follow(steps)


@given(st.lists(blocks, max_size=40), st.integers(1, 20), st.integers(1, 6))
def test_a_window_holds_at_least_the_latest_and_not_much_more(
    given_blocks: list[list[bytes]], window: int, buffered: int
) -> None:
    segment = 16
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(path_set, "_BUFFERED", buffered)
        patch.setattr(path_set, "_SEGMENT", segment)
        tested = PathSet(window=window)
        added: list[bytes] = []
        for block in given_blocks:
            new = tested.add_new(block)
            assert len(set(new)) == len(new)
            assert not set(new) & set(added[-window:])
            added += new
            assert tested.missing(added[-window:]) == []
            assert len(tested) <= window + segment + buffered + max(map(len, given_blocks))


def test_a_window_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_set, "_BUFFERED", 10)
    tested = PathSet(window=20)
    for number in range(1000):
        tested.add_new([b"%d" % number])
    assert tested.missing([b"0", b"1", b"999"]) == [b"0", b"1"]
    assert tested.add_new([b"0"]) == [b"0"]


def test_duplicates_in_a_block_count_once() -> None:
    tested = PathSet()
    assert tested.add_new([b"b", b"a", b"b"]) == [b"b", b"a"]
    assert tested.missing([b"c", b"c", b"a"]) == [b"c", b"c"]
    assert len(tested) == 2


def test_empty_blocks_change_nothing() -> None:
    tested = PathSet()
    tested.update([])
    assert (tested.add_new([]), tested.missing([]), len(tested)) == ([], [], 0)


def test_a_fingerprint_has_two_words_that_differ() -> None:
    prints = path_set.fingerprints([b"%d" % number for number in range(1000)]).tolist()
    assert len({first for first, _ in prints}) == len({second for _, second in prints}) == 1000
    assert all(first != second for first, second in prints)


@pytest.mark.parametrize("block", [1, 8192], ids=["add_new", "update"])
def test_a_million_paths_take_16_bytes_each(block: int) -> None:
    total, tested = 1_000_000, PathSet()
    if block == 1:
        for start in range(0, total, 1000):
            tested.add_new([b"/archive/%d.tif" % at for at in range(start, start + 1000)])
    else:
        for start in range(0, total, block):
            stop = min(start + block, total)
            tested.update([b"/archive/%d.tif" % at for at in range(start, stop)])
    assert len(tested) == total
    held = [words for segment in tested._segments for words in segment]
    assert all(words.base is None for words in held), "a view keeps a larger array alive"
    assert sum(words.nbytes for words in held) <= 16 * total
    assert len(tested._recent) < path_set._BUFFERED
    assert len(held) <= 2 * np.log2(total)
    assert tested.missing([b"/archive/0.tif", b"/archive/999999.tif", b"x"]) == [b"x"]


def test_a_url_that_is_signed_anew_is_the_same_path() -> None:
    signed = [b"https://h/a.tif?Expires=%d&Signature=s%d" % (number, number) for number in range(3)]
    paths = PathSet()
    assert paths.add_new(signed[:2]) == signed[:1]
    assert paths.add_new(signed[2:]) == paths.missing(signed) == []
    assert paths.known(signed[2:]) == signed[2:]
    committed = PathSet()
    committed.update([b"https://h/a.tif"])  # as the row has it
    assert committed.missing(signed) == []
