"""Folders that are walked: what is found, and what is said of folders that do not answer."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rastermeta_async.cli.inputs import Given
from rastermeta_async.model.errors import StuckError
from rastermeta_async.model.settings import MAX_STUCK, Settings
from rastermeta_async.model.timeouts import AT_ONCE
from rastermeta_async.sources.walk import InputKind, NotWalked, Walked, kinds_of, walk


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `top` with files in it and below, as the current folder's only entry."""
    monkeypatch.chdir(tmp_path)
    for name in ("top/a.tif", "top/b.TIF", "top/note.txt", "top/below/c.tif", "top/below/d/e.jp2"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "top"


EVERYTHING = [b"top/a.tif", b"top/b.TIF", b"top/below/c.tif", b"top/below/d/e.jp2", b"top/note.txt"]


def found(
    inputs: Sequence[bytes], suffixes: tuple[bytes, ...] = (), seconds: float = 0.1
) -> list[bytes]:
    """Return what a walk yields that is to be read, or said; it waits a tenth of a second."""
    return [path for path in walk(inputs, suffixes, seconds) if not isinstance(path, Walked)]


def found_at_last(inputs: Sequence[bytes]) -> list[bytes]:
    """Return the same where nothing hangs, however busy the machine is."""
    return found(inputs, seconds=20)


def walked(*inputs: bytes, suffixes: tuple[bytes, ...] = ()) -> list[bytes]:
    """Return the same in order, each path once: what was listed twice is no news to a run."""
    return sorted(set(found(inputs, suffixes)))


def notes(*inputs: bytes) -> list[tuple[bytes, str, str | None, str | None]]:
    """Return path, status, type and message of what was not walked."""
    paths = [path for path in walk(inputs, (), 0.1) if isinstance(path, NotWalked)]
    return [(path, *path.row()[2:5]) for path in paths]


class Trouble:
    """Calls on some path that hang, or fail, a number of times; `release` ends their waiting."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self._free = threading.Event()

    def release(self) -> None:
        self._free.set()

    def with_call(self, name: str, path: bytes, times: int, error: OSError | None = None) -> None:
        """Have ``os.NAME(path)`` wait, or raise, so many times."""
        call, left = getattr(os, name), iter(range(times))

        def troubled(given: Any, *args: Any, **more: Any) -> Any:
            if given == path and next(left, None) is not None:
                self.now(error)
            return call(given, *args, **more)

        self._patch.setattr(os, name, troubled)

    def with_listing(
        self, folder: bytes, after: int, times: int, error: OSError | None = None
    ) -> None:
        """Have the listing of a folder wait, or fail, after so many names, so many times."""
        scandir, left = os.scandir, iter(range(times))

        def names(entries: Any, *, troubled: bool) -> Iterator[Any]:
            for at, entry in enumerate(entries):
                if troubled and at == after:
                    self.now(error)
                yield entry

        def listing(path: bytes) -> Any:
            if path != folder:
                return scandir(path)
            return names(scandir(path), troubled=next(left, None) is not None)

        self._patch.setattr(os, "scandir", listing)

    def now(self, error: OSError | None) -> None:
        if error:
            raise error
        assert self._free.wait(20)


@pytest.fixture
def trouble(monkeypatch: pytest.MonkeyPatch) -> Iterator[Trouble]:
    some = Trouble(monkeypatch)
    yield some
    some.release()


FOR_EVER = 1000


def test_every_file_below(archive: Path) -> None:
    assert walked(b"top") == EVERYTHING


def test_only_names_with_an_ending(archive: Path) -> None:
    expected = [b"top/a.tif", b"top/b.TIF", b"top/below/c.tif"]
    assert walked(b"top", suffixes=(b".tif", b".tiff")) == expected


def test_inputs_that_are_no_folders_are_given_as_they_are(archive: Path) -> None:
    inputs = [b"top/note.txt", b"missing.tif", b"./top/a.tif"]
    assert found(inputs, (b".tif",)) == inputs


def test_names_that_are_not_utf8(archive: Path) -> None:
    open(b"top/\xff\n.tif", "wb").close()
    assert b"top/\xff\n.tif" in walked(b"top")


def test_links_to_files_are_followed(archive: Path) -> None:
    (archive / "link.tif").symlink_to("a.tif")
    assert walked(b"top") == sorted([*EVERYTHING, b"top/link.tif"])


def test_a_broken_link_is_a_path(archive: Path) -> None:
    (archive / "gone.tif").symlink_to("missing.tif")
    assert walked(b"top") == sorted([*EVERYTHING, b"top/gone.tif"])


def test_links_to_folders_are_not_followed(archive: Path) -> None:
    (archive / "below" / "up").symlink_to("..")
    assert walked(b"top") == EVERYTHING


def test_a_link_given_as_input_is_followed(archive: Path) -> None:
    Path("link").symlink_to("top/below")
    assert walked(b"link") == [b"link/c.tif", b"link/d/e.jp2"]


def test_a_link_to_itself_costs_no_other_file(archive: Path) -> None:
    for at in range(20):  # a folder is listed in no particular order
        (archive / f"loop{at}.tif").symlink_to(f"loop{at}.tif")
    found = walked(b"top")
    assert [path for path in EVERYTHING if path not in found] == []


def test_a_folder_is_marked_once_it_is_listed(archive: Path) -> None:
    marks = [path for path in walk([b"top", b"missing"]) if isinstance(path, Walked)]
    assert sorted(marks) == [b"top", b"top/below", b"top/below/d"]


# Disks that are slow, and folders that cannot be listed.

ERRORS = [
    None,
    OSError(errno.EIO, "Input/output error"),
    TimeoutError(errno.ETIMEDOUT, "Timed out"),
]


@pytest.mark.parametrize("error", ERRORS, ids=str)
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(
    ("call", "path"), [("stat", b"top"), ("scandir", b"top"), ("scandir", b"top/below")]
)
def test_a_folder_that_does_not_answer_at_first_is_walked_all_the_same(
    archive: Path, trouble: Trouble, call: str, path: bytes, times: int, error: OSError | None
) -> None:
    trouble.with_call(call, path, times, error)
    assert walked(b"top") == EVERYTHING


@pytest.mark.parametrize("error", ERRORS, ids=str)
@pytest.mark.parametrize("after", [0, 2, 3])
def test_a_listing_that_stops_half_way_is_begun_again(
    archive: Path, trouble: Trouble, after: int, error: OSError | None
) -> None:
    trouble.with_listing(b"top", after, 1, error)
    assert walked(b"top") == EVERYTHING


@pytest.mark.parametrize("call", ["stat", "scandir"])
def test_what_never_answers_is_said_with_what_to_do(
    archive: Path, trouble: Trouble, call: str
) -> None:
    trouble.with_call(call, b"top/below", FOR_EVER)
    said = (
        "no answer within 0.1 s: this was not walked, and what is in this folder is missing; once "
        "it answers, run the same command again with --retry-failed"
    )
    assert notes(b"top/below") == [(b"top/below", "fatal", "Timeout", said)]


def test_what_never_answers_costs_no_other_file(archive: Path, trouble: Trouble) -> None:
    trouble.with_call("scandir", b"top/below", FOR_EVER)
    others = [b"top/a.tif", b"top/b.TIF", b"top/below", b"top/note.txt"]
    assert walked(b"top") == others
    trouble.with_call("stat", b"dead", FOR_EVER)
    assert walked(b"dead", b"top") == [b"dead", *others]


def test_what_was_listed_before_a_folder_stopped_to_answer_is_not_lost(
    archive: Path, trouble: Trouble
) -> None:
    trouble.with_listing(b"top", 2, FOR_EVER)
    found = walked(b"top")
    assert b"top" in found
    assert len(found) > 1


def test_a_folder_that_cannot_be_listed_is_said(archive: Path, trouble: Trouble) -> None:
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    trouble.with_call("scandir", b"top/below", FOR_EVER, denied)
    ((path, status, kind, message),) = notes(b"top")
    assert (path, status, kind) == (b"top/below", "fatal", "PermissionError")
    assert str(message).startswith("Permission denied: this was not walked")
    assert walked(b"top") == [b"top/a.tif", b"top/b.TIF", b"top/below", b"top/note.txt"]


class FakeEntry:
    """An entry of a folder of which the system does not tell what it is."""

    def __init__(self, path: bytes) -> None:
        self.path, self.name = path, os.path.basename(path)

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        raise OSError(errno.EIO, "Input/output error")


def test_an_entry_that_may_be_a_folder_is_walked_though_its_name_has_another_ending(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir
    fake = [FakeEntry(b"top/below")]
    monkeypatch.setattr(
        os, "scandir", lambda path: (one for one in fake) if path == b"top" else scandir(path)
    )
    assert walked(b"top", suffixes=(b".tif",)) == [b"top/below/c.tif"]


def test_a_link_that_does_not_answer_costs_no_other_file(archive: Path, trouble: Trouble) -> None:
    (archive / "link.tif").symlink_to("elsewhere")
    trouble.with_call("stat", b"top/link.tif", FOR_EVER)
    assert walked(b"top") == sorted([*EVERYTHING, b"top/link.tif"])


def test_a_link_whose_name_has_another_ending_is_not_asked_for(
    archive: Path, trouble: Trouble
) -> None:
    (archive / "link").symlink_to("elsewhere")
    trouble.with_call("stat", b"top/link", FOR_EVER, AssertionError())  # type: ignore[arg-type]  # any error
    assert b"top/a.tif" in walked(b"top", suffixes=(b".tif",))


def test_many_inputs_that_do_not_answer_are_waited_for_together(
    archive: Path, monkeypatch: pytest.MonkeyPatch, trouble: Trouble
) -> None:
    dead, stat = {b"dead%d" % number for number in range(50)}, os.stat

    def troubled(path: Any, *args: Any, **more: Any) -> Any:
        if path in dead:
            trouble.now(None)
        return stat(path, *args, **more)

    monkeypatch.setattr(os, "stat", troubled)
    start = time.monotonic()
    assert walked(*dead, b"top") == sorted([*dead, *EVERYTHING])
    assert time.monotonic() - start < 0.1 * len(dead)


def test_no_more_is_asked_again_than_may_hang(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk on which much cannot be listed is not waited for three times as long as for that."""
    bad, stat = [b"bad%d" % number for number in range(MAX_STUCK + 6)], os.stat
    asked: Counter[bytes] = Counter()

    def troubled(path: Any, *args: Any, **more: Any) -> Any:
        if path in bad:
            asked[path] += 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return stat(path, *args, **more)

    monkeypatch.setattr(os, "stat", troubled)
    assert walked(*bad, b"top") == sorted([*bad, *EVERYTHING])
    assert sum(times > 1 for times in asked.values()) == MAX_STUCK


def test_folders_that_together_take_longer_than_one_may_are_walked(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def slow(path: bytes) -> Any:
        time.sleep(0.06)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", slow)
    assert found([b"top"]).count(b"top/below/c.tif") == 1
    assert sorted(found([b"top"])) == EVERYTHING


@pytest.mark.campaign
@pytest.mark.parametrize("hanging", [b"0", b"1", b"2", b"3"])
def test_folders_that_fail_or_hang_cost_only_what_is_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Trouble, hanging: bytes
) -> None:
    """Whichever is listed first."""
    monkeypatch.chdir(tmp_path)
    names = [b"%d" % number for number in range(4)]
    for name in map(os.fsdecode, names):
        (tmp_path / "top" / name).mkdir(parents=True)
        (tmp_path / "top" / name / "f.tif").touch()
    failing = names[(int(hanging) + 2) % 4]
    scandir = os.scandir

    def listing(path: bytes) -> Any:
        if path in (b"top/" + hanging, b"top/" + failing):
            trouble.now(OSError(errno.EIO, "no") if path.endswith(failing) else None)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", listing)
    paths = list(walk([b"top"], (), 0.01))
    notes = sorted(path for path in paths if isinstance(path, NotWalked))
    listed = {path for path in paths if isinstance(path, Walked)}
    files = sorted(path for path in paths if not isinstance(path, NotWalked | Walked))
    good = sorted({*names} - {hanging, failing})
    assert files == [b"top/%s/f.tif" % name for name in good]
    assert notes == sorted([b"top/" + hanging, b"top/" + failing])
    assert listed == {b"top", *(b"top/" + name for name in good)}


def test_of_a_large_folder_some_names_are_handed_on_before_the_next_are_listed(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[bytes] = []
    (entry,) = (one for one in os.scandir(b"top") if one.name == b"a.tif")

    def many(_: bytes) -> Iterator[Any]:
        for number in range(100_000):
            listed.append(b"%d" % number)
            yield entry

    monkeypatch.setattr(os, "scandir", many)
    paths = walk([b"top"])
    assert [next(paths) for _ in range(10)] == [b"top/a.tif"] * 10
    assert len(listed) <= 10_000
    paths.close()  # type: ignore[attr-defined]  # it is a generator


def test_what_an_input_is(archive: Path, trouble: Trouble) -> None:
    """A link that leads nowhere is a path that someone meant, and has a row that says so."""
    (archive / "link").symlink_to("elsewhere")
    trouble.with_call("stat", b"top/b.TIF", 1, PermissionError(errno.EACCES, "no"))
    file, folder, missing, link, unknown = kinds_of(
        [b"top/a.tif", b"top", b"top/none", b"top/link", b"top/b.TIF"], 1
    )
    assert [file, folder, missing, link] == [
        InputKind.FILE,
        InputKind.FOLDER,
        InputKind.MISSING,
        InputKind.FILE,
    ]
    assert isinstance(unknown, PermissionError)


def test_an_input_of_which_nothing_is_known_at_first_is_walked_if_it_is_a_folder(
    archive: Path, trouble: Trouble
) -> None:
    """As on a disk that has to spin up."""
    trouble.with_call("stat", b"top", 1, OSError(errno.EIO, "no answer"))
    given = Given(["top"], [], null=False, suffixes=[".tif"], shard=None, timeout=9)

    async def collect() -> list[bytes]:
        source = given.source(Settings(), lambda _: pytest.fail("nobody asked for it"))
        return [path async for paths in source.blocks() for path in paths]

    assert b"top/a.tif" in asyncio.run(collect())


# Far disks, on which several folders are listed at once.


class Far:
    """Listings that take a while each; counts how many are under way at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        self.now = self.most = 0
        self.threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        scandir = os.scandir

        def slow(path: bytes) -> Any:
            with self._lock:
                self.now += 1
                self.most = max(self.most, self.now)
                self.threads.add(threading.current_thread())
            if seconds:
                time.sleep(seconds)
            entries = list(self.entries(path)) or scandir(path)
            with self._lock:
                self.now -= 1
            return (entry for entry in entries)  # it can be closed, as the real one

        monkeypatch.setattr(os, "scandir", slow)

    def entries(self, path: bytes) -> list[NamedEntry]:
        """Return made-up entries of a folder; none: the real ones."""
        return []


class NamedEntry(FakeEntry):
    """An entry that is a file."""

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return False

    def is_symlink(self) -> bool:
        return False


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """10 folders with 30 folders each below `tree`, a file in each of these: the files."""
    monkeypatch.chdir(tmp_path)
    paths = [b"tree/%d/%02d/a.tif" % (number // 30, number % 30) for number in range(300)]
    for path in paths:
        os.makedirs(os.path.dirname(path))
        open(path, "wb").close()
    return paths


def test_on_a_quick_disk_one_thread_lists_all_folders(
    tree: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_PAUSE_SECONDS", "_SLOW_SECONDS"):  # the machine may be busy
        monkeypatch.setattr(f"rastermeta_async.sources.walk.{name}", 20)
    far = Far(monkeypatch, 0)
    assert sorted(found_at_last([b"tree"])) == tree
    assert len(far.threads) == 1


def test_on_a_far_disk_many_folders_are_listed_at_once_and_no_more_than_that(
    tree: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    far = Far(monkeypatch, 0.02)
    start = time.monotonic()
    assert sorted(found_at_last([b"tree"])) == tree
    assert time.monotonic() - start < 0.02 * 311 / 3
    assert 8 < far.most <= AT_ONCE
    assert all(thread.daemon for thread in far.threads)


def test_where_the_system_starts_no_further_thread_those_there_are_list_on(
    tree: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    far, starts, start = Far(monkeypatch, 0.005), itertools.count(), threading.Thread.start

    def fail_from_the_fourth(thread: threading.Thread) -> None:
        if next(starts) > 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail_from_the_fourth)
    assert sorted(found_at_last([b"tree"])) == tree
    assert far.most == 2


def test_many_far_folders_that_are_given_are_listed_at_once(
    tree: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    tops = sorted({os.path.dirname(path) for path in tree})[:60]
    far = Far(monkeypatch, 0.02)
    assert sorted(found_at_last(tops)) == tree[:60]
    assert far.most > 8


def test_the_names_of_a_far_folder_come_together(
    tree: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    far = Far(monkeypatch, 0.01)
    monkeypatch.setattr(far, "entries", lambda path: [
        NamedEntry(b"%b/%d" % (path, number)) for number in range(3500 * (path.count(b"/") == 2))
    ])  # fmt: skip
    tops = [b"tree/%d" % number for number in range(2)]
    folders = [key for key, _ in itertools.groupby(found_at_last(tops), os.path.dirname)]
    assert len(folders) == len(set(folders)) == 60


def test_of_large_far_folders_few_names_are_held(
    tree: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = itertools.count()

    def many(path: bytes) -> Iterator[NamedEntry]:
        time.sleep(0.01)
        for number in range(100_000):
            next(listed)
            yield NamedEntry(b"%b/%d" % (path, number))

    tops = sorted({os.path.dirname(path) for path in tree})[:60]
    monkeypatch.setattr(os, "scandir", many)
    paths = walk(tops)
    for _ in itertools.islice(paths, 10):
        time.sleep(0.02)
    assert next(listed) < 1000 * (len(tops) + 8)
    paths.close()  # type: ignore[attr-defined]  # it is a generator


def test_a_walk_that_is_given_up_leaves_no_thread(
    tree: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    far = Far(monkeypatch, 0.01)
    paths = walk([b"tree"])
    assert next(paths)
    paths.close()  # type: ignore[attr-defined]  # it is a generator
    for thread in [*far.threads]:
        thread.join(9)
        assert not thread.is_alive()


@pytest.mark.campaign
def test_where_many_folders_hang_one_more_at_a_time_is_asked_for(
    tree: list[bytes], monkeypatch: pytest.MonkeyPatch, trouble: Trouble
) -> None:
    """As on a dead mount: not as many threads as may hang are left behind after each time limit."""
    scandir, asking = os.scandir, set[threading.Thread]()

    def dead(path: bytes) -> Any:
        if path.count(b"/") == 2:
            asking.add(threading.current_thread())
            trouble.now(None)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", dead)
    monkeypatch.setattr("rastermeta_async.sources.walk._OWN_SECONDS", 0.0)
    paths = walk([b"tree"], (), 0.1)
    few = list(itertools.islice((path for path in paths if isinstance(path, NotWalked)), 10))
    assert len(few) == 10
    assert AT_ONCE < len(asking) <= MAX_STUCK + len(few) + 1
    monkeypatch.setattr("rastermeta_async.model.timeouts.MOST_THREADS", len(asking) + 3)
    with pytest.raises(StuckError, match=r"not answered: a disk or mount hangs.*or leave it out"):
        list(paths)
    assert len(asking) <= MAX_STUCK + len(few) + 4


def test_what_a_folder_that_hangs_has_beside_it_is_not_waited_for(
    tree: list[bytes], trouble: Trouble
) -> None:
    trouble.with_call("scandir", b"tree/4", FOR_EVER)
    paths = (path for path in walk([b"tree"], (), 20) if not isinstance(path, Walked))
    start = time.monotonic()
    assert len([*itertools.islice(paths, 270)]) == 270
    assert time.monotonic() - start < 9
    trouble.release()
    assert len([*paths]) == 30


def test_an_error_of_another_kind_is_raised(archive: Path, trouble: Trouble) -> None:
    trouble.with_call("scandir", b"top/below", 1, MemoryError())  # type: ignore[arg-type]  # any error
    with pytest.raises(MemoryError):
        walked(b"top")
