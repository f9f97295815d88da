"""Runs on a Dask cluster: a real scheduler and real workers, each a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import command
import psutil
import pyarrow.parquet as pq
import pytest
from command import write_raster
from distributed import KilledWorker
from factory import failed, records_of

import rastermeta_async as rm
from rastermeta_async.model.errors import SettingsError, WorkerError
from rastermeta_async.model.record import failure, to_batch
from rastermeta_async.model.settings import Settings
from rastermeta_async.pools import cluster, node
from rastermeta_async.pools.cluster import MAX_TASKS, ClusterPool

FILES = 4000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """A scheduler and workers, each in a process of its own."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self.port = free_port()
        self._host = host
        self.address = f"tcp://{host}:{self.port}"
        self._folder = folder
        self.workers: list[subprocess.Popen[bytes]] = []
        self.start_scheduler()

    def start_scheduler(self) -> None:
        self.scheduler = self._start(
            "scheduler", "--host", self._host, "--port", str(self.port), "--no-dashboard"
        )

    def start_worker(self, *, host: str | None = None, within: Sequence[str] = ()) -> None:
        """Start a worker; `within` is a command that runs it elsewhere."""
        at = ["--host", host] if host else []
        self.workers.append(
            self._start("worker", self.address, "--nthreads", "1", "--no-dashboard", *at,
                        "--local-directory", str(self._folder), within=within)
        )  # fmt: skip

    def _start(self, *arguments: str, within: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        with open(self._folder / "log", "ab") as log:
            return subprocess.Popen(
                [*within, sys.executable, "-m", "dask", *arguments], stdout=log, stderr=log,
                cwd=self._folder,
            )  # fmt: skip

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def close(self) -> None:
        for process in (self.scheduler, *self.workers):
            for child in children(process):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            process.kill()
            process.wait()


def children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def running(nanny: subprocess.Popen[bytes], text: str) -> list[psutil.Process]:
    """Return the processes below a nanny whose command holds a text."""
    found = []
    for child in children(nanny):
        with contextlib.suppress(psutil.NoSuchProcess):  # also of one that has just ended
            if text in " ".join(child.cmdline()):
                found.append(child)
    return found


COMPUTES, READS = "multiprocessing.spawn", "pools.worker"
"""In the commands of the process that a nanny watches, and of a run's process on a node."""


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Cluster]:
    folder = tmp_path / "dask"
    folder.mkdir()
    found = Cluster(folder)
    try:
        for _ in range(2):
            found.start_worker()
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    first = write_raster(folder / "0.tif")
    for number in range(1, FILES):
        shutil.copyfile(first, folder / f"{number}.tif")
    (folder / "broken.tif").write_bytes(b"II*\0")
    return folder


@pytest.fixture(scope="module")
def whole(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    output = tmp_path_factory.mktemp("whole") / "whole.parquet"
    command.run(["extract", archive, "--reader", "rasterio", "-o", output])
    return output.read_bytes()


def arguments(archive: Path, output: Path, address: str) -> list[str]:
    return ["extract", str(archive), "-o", str(output), "--cluster", address,
            "--reader", "rasterio", "--batch-size", "200"]  # fmt: skip


def until(is_so: Callable[[], Any], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def more_than_none(output: Path) -> bool:
    return command.committed(output) > 0


def finish(run: command.Running) -> tuple[int, str]:
    _, said = run.finish()
    return run.wait(), said.decode()


@pytest.mark.campaign
def test_a_cluster_gives_the_same_catalog_and_leaves_nothing_running(
    two: Cluster, archive: Path, whole: bytes, tmp_path: Path
) -> None:
    output = tmp_path / "catalog.parquet"
    done = command.run(arguments(archive, output, two.address))
    assert done.returncode == 3, done.stderr
    assert output.read_bytes() == whole
    until(lambda: not [one for worker in two.workers for one in running(worker, READS)])
    again = command.run(arguments(archive, output, two.address))
    assert (again.returncode, output.read_bytes()) == (3, whole)


@pytest.mark.campaign
@pytest.mark.parametrize("victim", ["worker", "nanny", "process"])
def test_a_node_that_dies_costs_nothing(
    two: Cluster, archive: Path, whole: bytes, tmp_path: Path, victim: str
) -> None:
    output = tmp_path / "catalog.parquet"
    with command.running(*arguments(archive, output, two.address)) as run:
        until(lambda: command.committed(output) > 0)
        nanny = two.workers[0]
        of_run = victim == "process"  # that of the run, on the node
        victims = running(nanny, READS if of_run else COMPUTES)
        if victim == "nanny":
            nanny.kill()
        for one in victims:
            one.kill()
        assert victims
        status, said = finish(run)
    assert status == 3, said
    assert output.read_bytes() == whole


def workers_of(output: Path) -> list[str]:
    """Return the nodes that `status` names."""
    workers: list[str] = json.loads(command.run(["status", "--json", output]).stdout)["workers"]
    assert all(name.startswith("tcp://") and name.endswith("(1 thread)") for name in workers)
    return workers


@contextlib.contextmanager
def two_machines() -> Iterator[list[str]]:
    """Make two network namespaces that reach this one at 10.213.0.1; yield their names."""
    names = [f"rastermeta-{number}" for number in (2, 3)]
    commands = ["link add rmbridge type bridge", "addr add 10.213.0.1/24 dev rmbridge",
                "link set rmbridge up"]  # fmt: skip
    for number, name in zip((2, 3), names, strict=True):
        commands += [
            f"netns add {name}", f"link add rmhere{number} type veth peer name rmthere{number}",
            f"link set rmhere{number} master rmbridge up",
            f"link set rmthere{number} netns {name}",
            f"-n {name} addr add 10.213.0.{number}/24 dev rmthere{number}",
            f"-n {name} link set rmthere{number} up", f"-n {name} link set lo up",
        ]  # fmt: skip
    try:
        for one in commands:
            if subprocess.run(["ip", *one.split()], capture_output=True).returncode:
                pytest.skip("not run: this machine makes no network namespaces")
        yield names
    finally:
        for one in (*(f"netns del {name}" for name in names), "link del rmbridge"):
            subprocess.run(["ip", *one.split()], capture_output=True)


@pytest.mark.slow
@pytest.mark.parametrize("sees", [True, False])
def test_nodes_on_machines_of_their_own(
    archive: Path, whole: bytes, tmp_path: Path, sees: bool
) -> None:
    """The second time something else is mounted there in place of the archive."""
    output = tmp_path / "catalog.parquet"
    hide = 'exec "$@"' if sees else f'mount -t tmpfs none {archive} && exec "$@"'
    with two_machines() as names, contextlib.closing(Cluster(tmp_path, "10.213.0.1")) as cluster:
        for number, name in zip((2, 3), names, strict=True):
            within = ["ip", "netns", "exec", name, "sh", "-c", hide, "sh"]
            cluster.start_worker(host=f"10.213.0.{number}", within=within)
        done = command.run(arguments(archive, output, cluster.address))
    if sees:
        assert done.returncode == 3, done.stderr
        assert output.read_bytes() == whole
    else:
        assert done.returncode == 1
        assert b"do not see" in done.stderr
        assert len(done.stderr.splitlines()) < 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_kills_at_random_cost_nothing(
    two: Cluster, archive: Path, whole: bytes, tmp_path: Path
) -> None:
    dice = random.Random(5)
    kills: Counter[str] = Counter()
    for number in range(20):
        output = tmp_path / f"{number}.parquet"
        with command.running(*arguments(archive, output, two.address)) as run:
            until(partial(more_than_none, output))
            time.sleep(dice.uniform(0, 1))
            what = dice.choice([READS, COMPUTES, "nanny", "coordinator"])
            nanny = dice.choice(two.workers)
            victims = running(nanny, what) or running(nanny, COMPUTES)
            if what == "coordinator":
                run.process.kill()
            elif what == "nanny":
                nanny.kill()
                two.workers.remove(nanny)
                two.start_worker()
            for one in victims if what != "coordinator" else ():
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            kills[what] += 1
            status, said = finish(run)
        if status != 3:
            assert what == "coordinator", said
            assert command.run(arguments(archive, output, two.address)).returncode == 3
        assert output.read_bytes() == whole, (what, said)


@pytest.mark.campaign
def test_a_scheduler_that_is_started_again_is_gone_on_with(
    two: Cluster, archive: Path, whole: bytes, tmp_path: Path
) -> None:
    output = tmp_path / "catalog.parquet"
    with command.running(*arguments(archive, output, two.address)) as run:
        until(lambda: command.committed(output) > 0)
        two.scheduler.kill()
        two.scheduler.wait()
        two.start_scheduler()
        for worker in two.workers:  # workers end with their scheduler
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(5)
        two.start_worker()
        status, said = finish(run)
    assert status == 3, said
    assert output.read_bytes() == whole


@pytest.mark.campaign
def test_a_scheduler_that_stays_away_ends_the_run_and_what_was_read_is_kept(
    two: Cluster, archive: Path, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "catalog.parquet"
    script = (
        "import sys; from rastermeta_async.pools import cluster; cluster.SCHEDULER_SECONDS = 2\n"
        "from rastermeta_async.__main__ import main; sys.exit(main())"
    )
    options = arguments(archive, output, two.address)
    with subprocess.Popen(
        [sys.executable, "-c", script, *options], stderr=subprocess.PIPE
    ) as process:
        until(lambda: command.committed(output) > 0)
        two.scheduler.kill()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"does not answer any more" in said
    assert b"What was committed is safe" in said
    assert b"Traceback" not in said
    kept = command.committed(output)
    assert kept > 0
    done = command.run(["extract", archive, "-o", output, "--reader", "rasterio"])
    assert done.returncode == 3
    assert output.read_bytes() == whole


@pytest.mark.campaign
def test_a_run_is_stopped_and_gone_on_with(
    two: Cluster, archive: Path, whole: bytes, tmp_path: Path
) -> None:
    output = tmp_path / "catalog.parquet"
    with command.running(*arguments(archive, output, two.address)) as run:
        until(lambda: command.committed(output) > 0)
        run.signal(signal.SIGINT)
        status, said = finish(run)
    assert status == 130, said
    assert "what was read is safe" in said
    assert not output.exists()
    assert command.run(arguments(archive, output, two.address)).returncode == 3
    assert output.read_bytes() == whole


@pytest.mark.campaign
@pytest.mark.parametrize("seconds", [1.0, 3.0, 5.0])
def test_ctrl_c_in_a_terminal_is_for_the_run(
    archive: Path, whole: bytes, tmp_path: Path, seconds: float
) -> None:
    """It reaches all processes of the terminal's group, also while a cluster is started here."""
    output = tmp_path / "catalog.parquet"
    options = [*command.COMMAND, *arguments(archive, output, "local:2")]
    with subprocess.Popen(options, stderr=subprocess.PIPE, start_new_session=True) as process:
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert b"Traceback" not in said
    if process.returncode != 3:  # it was finished already
        assert process.returncode in (130, -signal.SIGINT), said
        assert not output.exists()
        assert command.run(arguments(archive, output, "local:2")).returncode == 3
    assert output.read_bytes() == whole


@pytest.mark.campaign
def test_a_node_that_is_frozen_does_not_hold_up_the_end(
    two: Cluster, archive: Path, tmp_path: Path
) -> None:
    output = tmp_path / "catalog.parquet"
    with command.running(*arguments(archive, output, two.address)) as run:
        until(partial(more_than_none, output))
        frozen = [one for nanny in two.workers for one in running(nanny, COMPUTES)]
        for one in frozen:
            one.suspend()
        until(lambda: len(workers_of(output)) == len(two.workers))
        run.signal(signal.SIGINT)
        status, said = finish(run)
        for one in frozen:
            one.resume()
    assert status == 130, said
    assert "what was read is safe" in said


@pytest.mark.campaign
def test_ctrl_c_ends_a_run_that_waits_for_a_worker(archive: Path, tmp_path: Path) -> None:
    alone = Cluster(tmp_path)
    try:
        output = tmp_path / "a.parquet"
        with command.running(*arguments(archive, output, alone.address)) as run:
            time.sleep(2)
            began = time.monotonic()
            run.signal(signal.SIGINT)
            status, said = finish(run)
        assert status == 130, said
        assert time.monotonic() < began + 10
    finally:
        alone.close()


@pytest.mark.campaign
def test_no_path_is_in_the_logs_of_the_cluster(two: Cluster, archive: Path, tmp_path: Path) -> None:
    signed = "https://127.0.0.1:1/a.tif?X-Amz-Signature=hidden"
    done = command.run(
        ["extract", "-o", tmp_path / "a.ndjson", "--cluster", two.address, "--keep-going"],
        f"{signed}\n{archive}/0.tif\n".encode(),
    )
    assert done.returncode == 3, done.stderr
    assert len((tmp_path / "a.ndjson").read_text().splitlines()) == 2
    assert not {"hidden", "0.tif"} & set(two.log.replace("/", " ").replace("=", " ").split())


@pytest.mark.campaign
def test_a_cluster_of_this_machine(archive: Path, whole: bytes, tmp_path: Path) -> None:
    output = tmp_path / "catalog.parquet"
    done = command.run(arguments(archive, output, "local:2"))
    assert done.returncode == 3, done.stderr
    assert output.read_bytes() == whole


# Without a cluster.


class _Scripted(ClusterPool):
    """A pool whose tasks are answered here."""

    def __init__(self, answer: Callable[[list[bytes]], node.Answer]) -> None:
        super().__init__("tcp://nowhere:1", Settings())
        self._nodes = {"tcp://a:1": 4}
        self._reply = answer
        self.sent: list[int] = []

    async def _sent(self, client: Any, paths: list[bytes]) -> node.Answer:
        self.sent.append(len(paths))
        return self._reply(paths)


def rows(paths: list[bytes]) -> node.Answer:
    return node.Answer(node.encoded([to_batch([failed(path) for path in paths])]))


def read(pool: ClusterPool, paths: list[bytes]) -> list[rm.Record]:
    async def collect() -> list[rm.Record]:
        return records_of([batch async for batch in pool.read(paths)])

    return asyncio.run(collect())


def test_a_file_that_ends_each_node_has_an_error_row_and_its_neighbours_have_theirs() -> None:
    def answer(paths: list[bytes]) -> node.Answer:
        if {b"/7", b"/250"} & set(paths):
            raise KilledWorker("task", None, 3)  # type: ignore[arg-type]  # Dask fills it in
        return rows(paths)

    paths = [b"/%d" % number for number in range(300)]
    pool = _Scripted(answer)
    found = {row.filepath: row.error_type for row in read(pool, paths)}
    assert found.pop("/7") == found.pop("/250") == "Crash"
    assert set(found) == {path.decode() for path in paths} - {"/7", "/250"}
    assert set(found.values()) == {"RasterioIOError"}
    assert len(pool.sent) < 40


def test_what_a_node_cannot_do_ends_the_run_with_its_words() -> None:
    with pytest.raises(WorkerError, match="on node1: no processes"):
        read(_Scripted(lambda _: node.Answer(b"", "on node1: no processes")), [b"/a"])


def test_what_dask_cannot_do_ends_the_run_with_a_message_and_no_secret() -> None:
    def answer(_paths: list[bytes]) -> node.Answer:
        raise RuntimeError("deserialization failed at https://me:hidden@host/\nTraceback ...")

    with pytest.raises(WorkerError, match="also where the scheduler runs") as raised:
        read(_Scripted(answer), [b"/a"])
    assert "deserialization failed" in str(raised.value)
    assert "hidden" not in str(raised.value)
    assert "Traceback" not in str(raised.value)


def test_versions_that_differ_are_both_named() -> None:
    ours = node.versions()
    theirs = {**ours, "GDAL": "3.0.0"}
    answer = node.read(node.Job("run", Settings()), theirs, node.Paths([b"/a"]))
    assert f"has GDAL {ours['GDAL']}, but this machine has GDAL 3.0.0" in answer.error
    assert "rasterio" not in answer.error.replace("rastermeta", "")


def test_paths_that_nodes_do_not_see_are_found_out_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"")
    here = [os.fsencode(tmp_path / "a.tif"), b"/nowhere"]

    def unseen(paths: list[bytes]) -> node.Answer:
        gone = [failure(path, "error", "FileNotFoundError", "no such file") for path in paths]
        return node.Answer(node.encoded([to_batch(gone)]))

    with pytest.raises(WorkerError, match=r"do not see .*a\.tif, which is on this machine"):
        read(_Scripted(unseen), here)
    assert len(read(_Scripted(unseen), [b"/nowhere", b"/nowhere else"])) == 2


def test_two_tasks_are_under_way_for_each_thread_that_the_cluster_has_now() -> None:
    pool = _Scripted(rows)
    for threads, capacity in ([3, 1], 8), ([64, 500], MAX_TASKS), ([], 1):
        pool._nodes = dict(zip("ab", threads, strict=False))
        assert pool.capacity == capacity


def test_logs_show_neither_paths_nor_settings() -> None:
    settings = Settings(access=rm.Access(endpoint_url="https://me:hidden@host"))
    text = repr((node.Job("1", settings), node.Paths([b"https://host/?sig=hidden"])))
    assert "hidden" not in text


@pytest.mark.parametrize(
    "address",
    [
        "host:8786",
        "local:",
        "local:0",
        "local:x",
        "local:99999",
        "tcp://host",
        "tcp://",
        "foo://x:1",
        "tcp://host:abc",
        "tcp://me:hidden@host:8786",
    ],
)
def test_an_address_that_makes_no_sense_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match="--cluster") as raised:
        ClusterPool(address, Settings())
    assert "hidden" not in str(raised.value)


def test_a_scheduler_that_is_not_there_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "SCHEDULER_SECONDS", 0.5)
    pool = ClusterPool(f"tcp://127.0.0.1:{free_port()}", Settings())
    with pytest.raises(WorkerError, match="does not answer, or has no worker"):
        asyncio.run(rm.extract_to(tmp_path / "a.parquet", ["/a"], pool=pool))


def test_without_the_extra_a_message_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "distributed").mkdir()
    (tmp_path / "distributed" / "__init__.py").write_text("raise ImportError")
    done = command.run(["extract", "-o", "-", "--cluster", "local:1"], b"/a\n",
                       PYTHONPATH=str(tmp_path))  # fmt: skip
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"pip install '.[dask]'" in done.stderr


# Tables for engines.


def test_a_table_has_a_row_for_each_path(sample_archive: Path) -> None:
    paths = sorted(sample_archive.rglob("*.tif"))
    table = rm.read_table([*paths, "/nowhere.tif"])
    assert table.schema.equals(rm.SCHEMA)
    assert sorted(table["filepath"].to_pylist()) == sorted([*map(str, paths), "/nowhere.tif"])
    assert rm.read_table([]).num_rows == 0

    async def inside() -> int:
        return int(rm.read_table(paths).num_rows)

    assert asyncio.run(inside()) == len(paths)


@pytest.mark.campaign
def test_tables_are_made_by_dask(two: Cluster, archive: Path, whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "whole.parquet").write_bytes(whole)
    paths = pq.read_table(tmp_path / "whole.parquet", columns=["filepath"])["filepath"].to_pylist()
    script = """
import sys, dask, distributed, pyarrow as pa
import rastermeta_async as rm
paths = sys.stdin.read().split()
client = distributed.Client(sys.argv[1])
parts = [dask.delayed(rm.read_table)(paths[at : at + 1000]) for at in range(0, len(paths), 1000)]
table = pa.concat_tables(dask.compute(*parts))
assert sorted(table["filepath"].to_pylist()) == sorted(paths)
assert table["driver"].null_count == 1
print(table.num_rows)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, two.address], input="\n".join(paths), text=True,
        capture_output=True, timeout=100, check=True,
    )  # fmt: skip
    assert done.stdout == f"{FILES + 1}\n"
