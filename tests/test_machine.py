from __future__ import annotations

import os
from pathlib import Path

import pytest

from rastermeta_async.model import machine
from rastermeta_async.model.machine import (
    default_workers,
    own_cpus,
    usable_cores,
    usable_memory,
    worker_allowance,
)

MIB = 1024 * 1024
ENOUGH = 10**18
"""More memory than any machine has."""


class Groups:
    """A made-up ``/proc/self`` and the control groups that it points to."""

    def __init__(self, top: Path) -> None:
        self.proc = str(top / "proc")
        self._top = top
        (top / "proc").mkdir()
        self._memberships: list[str] = []
        self._mounts = ["1 1 0:1 / / rw - ext4 /dev/disk rw"]

    def mount(self, name: str, kind: str, options: str, root: str = "/") -> None:
        self._mounts.append(f"2 1 0:2 {root} {self._top / name} rw,a - {kind} none rw,{options}")
        (self._top / "proc" / "mountinfo").write_text("\n".join(self._mounts) + "\n")

    def join(self, controllers: str, path: str) -> None:
        self._memberships.append(f"1:{controllers}:{path}")
        (self._top / "proc" / "cgroup").write_text("\n".join(self._memberships) + "\n")

    def limit(self, name: str, file: str, content: str) -> None:
        folder = self._top / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(content + "\n")


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Groups:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.setattr(os, "sysconf", lambda name: 2**30)
    return Groups(tmp_path)


def test_this_machine() -> None:
    assert usable_cores() >= 1
    memory = usable_memory()
    assert memory is None or memory > 16 * MIB


def test_without_control_groups_affinity_and_memory_count(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "none")
    assert usable_cores(nowhere) == len(os.sched_getaffinity(0))
    assert usable_memory(nowhere) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(("quota", "cores"), [("200000", 2), ("150000", 2), ("10000", 1)])
def test_version_1_quota(groups: Groups, quota: str, cores: int) -> None:
    groups.mount("cpu", "cgroup", "cpu,cpuacct")
    groups.join("cpu,cpuacct", "/box/inner")
    groups.limit("cpu/box/inner", "cpu.cfs_quota_us", quota)
    groups.limit("cpu/box/inner", "cpu.cfs_period_us", "100000")
    assert usable_cores(groups.proc) == cores


def test_version_2_quota_of_an_outer_group(groups: Groups) -> None:
    groups.mount("unified", "cgroup2", "nsdelegate")
    groups.join("", "/box/inner")
    groups.limit("unified/box", "cpu.max", "300000 100000")
    groups.limit("unified/box/inner", "cpu.max", "max 100000")
    assert usable_cores(groups.proc) == 3


def test_no_quota(groups: Groups) -> None:
    groups.mount("cpu", "cgroup", "cpu")
    groups.join("cpu", "/")
    groups.limit("cpu", "cpu.cfs_quota_us", "-1")
    groups.limit("cpu", "cpu.cfs_period_us", "100000")
    assert usable_cores(groups.proc) == 64


def test_version_1_memory(groups: Groups) -> None:
    groups.mount("memory", "cgroup", "memory")
    groups.join("memory", "/box")
    groups.limit("memory", "memory.limit_in_bytes", "9223372036854771712")
    groups.limit("memory/box", "memory.limit_in_bytes", str(400 * MIB))
    assert usable_memory(groups.proc) == 400 * MIB


def test_version_2_memory(groups: Groups) -> None:
    groups.mount("unified", "cgroup2", "rw")
    groups.join("", "/box/inner")
    groups.limit("unified/box", "memory.max", str(300 * MIB))
    groups.limit("unified/box/inner", "memory.max", "max")
    assert usable_memory(groups.proc) == 300 * MIB


def test_inside_a_container_the_mount_shows_the_group_itself(groups: Groups) -> None:
    """The path in ``cgroup`` is the host's; the mount's root is this process's group."""
    groups.mount("memory", "cgroup", "memory", root="/docker/abc")
    groups.join("memory", "/docker/abc")
    groups.limit("memory", "memory.limit_in_bytes", str(128 * MIB))
    assert usable_memory(groups.proc) == 128 * MIB


def test_a_group_that_its_mount_does_not_show_is_not_looked_for_elsewhere(groups: Groups) -> None:
    groups.mount("memory", "cgroup", "memory", root="/box")
    groups.join("memory", "/other")
    groups.limit("memory", "memory.limit_in_bytes", str(512 * MIB))
    groups.limit("memory/other", "memory.limit_in_bytes", str(1 * MIB))  # of /box/other
    assert usable_memory(groups.proc) == 512 * MIB


@pytest.mark.parametrize(
    ("cores", "memory", "workers"),
    [(2, None, 2), (8, 64 * 1024 * MIB, 8), (8, 512 * MIB, 3), (2, 400 * MIB, 2), (8, 256 * MIB, 1),
     (8, 128 * MIB, 0)],
)  # fmt: skip
def test_as_many_workers_as_memory_allows(cores: int, memory: int | None, workers: int) -> None:
    assert default_workers(cores, memory) == workers


@pytest.mark.parametrize(
    ("workers", "memory", "allowance"),
    [(2, ENOUGH, 1024), (2, 400 * MIB, 256), (2, 2048 * MIB, 719), (2, None, 1024)],
)
def test_one_file_cannot_starve_the_rest(workers: int, memory: int | None, allowance: int) -> None:
    assert worker_allowance(workers, memory) // MIB == allowance


@pytest.mark.parametrize(("workers", "cores", "kept"), [
    (3, 3, (0, 2, 5)), (2, 3, ()), (4, 3, ()), (3, 2, ()),
])  # fmt: skip
def test_each_worker_keeps_to_a_cpu_where_there_is_one_for_each(
    monkeypatch: pytest.MonkeyPatch, workers: int, cores: int, kept: tuple[int, ...]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 0, 2})
    monkeypatch.setattr(machine, "usable_cores", lambda: cores)
    assert own_cpus(workers) == kept
