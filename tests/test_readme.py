"""The README and the help are promises: their commands run, their tables and examples are true."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import geopandas
import pyarrow.parquet as pq
import pytest
import yaml

from bench.figures import feeding, table
from rastermeta_async.cli.sample import write_sample
from rastermeta_async.cli.topics import topic, topics
from rastermeta_async.model.record import describe_columns

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
TOPICS = {name: topic(name) for name in topics()}
BLOCK = re.compile(r"(?:<!-- ([^>]*) -->\n)?```(\w+)\n(.*?)```", re.DOTALL)
BLOCKS = [match.groups() for text in (README, *TOPICS.values()) for match in BLOCK.finditer(text)]
USAGE, SOME_FAILED = 2, 3


def blocks(kind: str) -> list[tuple[str | None, str]]:
    return [(mark, text) for mark, found, text in BLOCKS if found == kind]


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    write_sample("archive")
    return tmp_path


def run(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )


def commands() -> list[str]:
    """The commands that need no set-up of their own; .ci/run runs the other two."""
    return [
        line for mark, text in blocks("sh") if mark is None for line in text.splitlines() if line
    ]


def test_figures_are_those_of_the_benchmarks() -> None:
    assert table() in TOPICS["speed"]
    assert feeding() in " ".join(TOPICS["shards"].split())


def test_the_front_page_is_one() -> None:
    assert len(README.splitlines()) <= 180
    named = set(re.findall(r"rastermeta help (\w+)", README)) - {"lists"}
    assert named <= set(TOPICS)
    assert {
        "crashes",
        "columns",
        "updating",
        "stores",
        "shards",
        "stac",
        "python",
        "limits",
        "speed",
    } <= named


def test_topics_are_listed_and_shown(archive: Path) -> None:
    listed = run("rastermeta help").stdout
    for name, text in TOPICS.items():
        assert f"{name:<10}{text[2:].splitlines()[0]}\n" in listed
        assert run(f"rastermeta help {name}").stdout == text
    done = run("rastermeta help nonesuch")
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert "there is no topic nonesuch: rastermeta help lists them" in done.stderr


def test_a_terminal_gets_no_marks_of_markdown(archive: Path) -> None:
    done = run("script -qec 'rastermeta help crashes' /dev/null")
    assert "Kill -9" in done.stdout
    assert "**" not in done.stdout


def test_there_are_commands() -> None:
    assert len(commands()) >= 4
    marks = [mark for mark, _ in blocks("sh") if mark]
    assert marks[:2] == ["command: sample", "command: tests"]
    assert set(marks[2:]) == {"catalog", "gis", "store", "nightly", "shards", "pgstac"}
    set_up = [text for mark, text in blocks("sh") if mark and mark.startswith("command")]
    assert all(len(text.splitlines()) == 1 for text in set_up), "set-up is one line each"


@pytest.mark.parametrize("command", commands())
def test_commands_run(archive: Path, command: str) -> None:
    done = run(command)
    assert done.returncode in (0, SOME_FAILED), done.stderr


@pytest.fixture
def catalog(archive: Path) -> Path:
    run("rastermeta extract archive -o catalog.parquet")
    return archive / "catalog.parquet"


def of_a_catalog(kind: str) -> list[str]:
    return [text for mark, text in blocks(kind) if mark == "catalog"]


def test_a_catalog_can_be_looked_at(catalog: Path) -> None:
    lines = [line for text in of_a_catalog("sh") for line in text.splitlines()]
    assert len(set(lines)) == 14
    for line in dict.fromkeys(lines):
        done = run(line)
        assert done.returncode == 0, (line, done.stderr)
        assert done.stdout, line
    assert pq.read_metadata("items.parquet").num_rows == 12
    assert len(Path("by-path.ndjson").read_text().splitlines()) == 12
    assert Path("items.parquet.left-out.txt").exists()


def test_a_catalog_is_opened_by_gis_programs(catalog: Path) -> None:
    lines = [line for mark, text in blocks("sh") if mark == "gis" for line in text.splitlines()]
    for line in dict.fromkeys(lines):
        done = run(line)
        assert done.returncode == 0, (line, done.stderr)
    assert (len(os.listdir("mosaics")), len(os.listdir("tiled"))) == (8, 4)
    assert len(Path("catalog.csv").read_text().splitlines()) == 44
    cogs = "select count(*) from 'catalog.parquet' where cog and file_size > 1000"
    features = json.loads(Path("cogs.geojson").read_text())["features"]
    assert [(len(features),)] == duckdb.execute(cogs).fetchall() != [(0,)]
    assert len(geopandas.read_file("catalog.fgb")) == 39
    assert len(geopandas.read_file("catalog.gpkg")) == 43


def test_a_catalog_can_be_asked(catalog: Path) -> None:
    for text in of_a_catalog("sql"):
        questions = [question for question in text.split(";") if question.strip()]
        answers = [duckdb.execute(question).fetchall() for question in questions]
        assert answers[0][0][:2] == ("GTiff", 38)
        assert [len(answer) for answer in answers[1:]] == [3, 2, 12, 4, 40][: len(answers) - 1]
    endings = ["km²", "F34"]
    for example, ending in zip(of_a_catalog("python"), endings, strict=True):
        done = subprocess.run(
            [sys.executable, "-c", example], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.rstrip().endswith(ending)


@pytest.mark.campaign
@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java")
def test_a_catalog_can_be_asked_by_spark(catalog: Path) -> None:
    (example,) = [text for mark, text in blocks("python") if mark == "catalog: spark"]
    of_flights = duckdb.execute(
        "select filepath, tag.value from 'catalog.parquet', unnest(dataset_tags) as t(tag) "
        "where tag.key = 'FLIGHT' order by all"
    ).fetchall()
    kinds = duckdb.execute(
        "select distinct driver, dataset_tags, band_tags from 'catalog.parquet'"
    ).fetchall()
    before, _ = ENGINES["spark"]
    after = (
        f"assert sorted(map(tuple, tags.collect())) == {of_flights}\n"
        f"assert len(kinds.collect()) == {len(kinds)}\n"
        f"found = [tuple(row) for row in flights.collect() if row.flight]\n"
        f"assert sorted(found) == {of_flights}\nspark.stop()\n"
    )
    run_with_spark(f"{before}{example}{after}")


def test_a_catalog_is_kept_up_to_date(archive: Path) -> None:
    """One command after the other, and again."""
    nightly = [text for mark, text in blocks("sh") if mark == "nightly"]
    for command in [line for text in nightly for line in text.splitlines()] * 2:
        done = run(command)
        assert done.returncode in (0, SOME_FAILED), done.stderr


def test_transcript(archive: Path) -> None:
    """The first screen, but for times, rates and what follows the cut."""
    (transcript,) = (text for mark, text in blocks("console") if mark == "transcript")
    Path("archive").rename("elsewhere")
    for step in transcript.split("$ ")[1:]:
        command, *shown = step.removesuffix("…\n").splitlines()
        done = run(command)
        printed = [*done.stderr.splitlines(), *done.stdout.splitlines()]
        assert [_steady(line) for line in printed[: len(shown)]] == [_steady(x) for x in shown]


def _steady(line: str) -> str:
    line = re.sub(r"[\d,]+ files/s", "N files/s", line)
    line = re.sub(r"last      .* ago", "last", line)
    line = re.sub(r"(  size|changed) +.*", r"\1", line)
    return line.rstrip()


def test_python_example(archive: Path) -> None:
    ((_, example),) = [(mark, text) for mark, text in blocks("python") if mark == "example"]
    done = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "EPSG:3035 64 64"
    assert done.stdout.splitlines()[-1] == "40 2"


def test_the_first_python_example(archive: Path) -> None:
    ((_, example),) = [(mark, text) for mark, text in blocks("python") if mark is None]
    done = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == example.rpartition("# ")[2].strip(), done.stderr


def test_column_table() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", TOPICS["columns"], re.MULTILINE)
    assert rows == [(name, meaning) for name, _, meaning in describe_columns()]


def test_every_option_is_in_the_table(archive: Path) -> None:
    shown = run("rastermeta extract --help").stdout
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", shown)) - {"--help"}
    table = TOPICS["options"].split("| option |")[1].split("Exit status")[0]
    missing = {option for option in options if option not in table and option != "--no-progress"}
    assert not missing


def test_the_export_is_told_as_its_help_tells_it(archive: Path) -> None:
    shown = run("rastermeta export stac --help").stdout
    told = TOPICS["stac"].replace(marked("pgstac"), "")
    words = r"(?<![\w-])--[a-z][a-z-]+|FILE\.[a-z.-]+[a-z]"
    assert set(re.findall(words, told)) == set(re.findall(words, shown)) - {"--help", "--output"}


def test_the_other_exports_are_told_as_their_help_tells_them(archive: Path) -> None:
    shown = run(
        "rastermeta export --help; rastermeta export gti --help; rastermeta export ndjson -h"
    )
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", shown.stdout)) - {"--help", "--output"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TOPICS["gis"])) == options
    forms = set(re.findall(r"^  ([a-z]+) ", shown.stdout, re.MULTILINE)) - {"stac"}
    assert forms == set(re.findall(r"rastermeta export (\w+)", TOPICS["gis"]))


def marked(name: str) -> str:
    (text,) = [text for mark, _, text in BLOCKS if mark == name]
    return str(text)


def assert_merged_is_whole(shards: list[str]) -> None:
    run("rastermeta extract archive -o whole.parquet")
    done = run(f"rastermeta merge {' '.join(shards)} -o merged-here.parquet")
    assert done.returncode == 0, done.stderr
    assert Path("merged-here.parquet").read_bytes() == Path("whole.parquet").read_bytes()


def test_shards_make_the_catalog_of_one_run(archive: Path) -> None:
    for line in marked("shards").splitlines():
        assert run(line).returncode in (0, SOME_FAILED)
    assert_merged_is_whole(["shard-0.parquet", "shard-1.parquet"])
    assert Path("merged.parquet").read_bytes() == Path("whole.parquet").read_bytes()


def here(recipe: str) -> str:
    """Return a recipe that works in the current folder."""
    return recipe.replace("/archive ", "archive ").replace("/catalogs/", "")


@pytest.mark.campaign
def test_the_recipe_for_slurm(archive: Path) -> None:
    recipe = marked("slurm")
    first, last = re.findall(r"^#SBATCH --array=(\d+)-(\d+)$", recipe, re.MULTILINE)[0]
    count = int(last) - int(first) + 1
    Path("shards.sh").write_text(here(recipe))
    for index in range(count):
        numbers = f"SLURM_ARRAY_TASK_ID={index} SLURM_ARRAY_TASK_COUNT={count}"
        assert run(f"{numbers} bash shards.sh").returncode == 0
    assert_merged_is_whole([f"shard-{index}.parquet" for index in range(count)])


@pytest.mark.campaign
def test_the_recipe_for_kubernetes(archive: Path) -> None:
    job = yaml.safe_load(marked("kubernetes"))
    spec = job["spec"]
    assert (job["kind"], spec["completionMode"]) == ("Job", "Indexed")
    (container,) = spec["template"]["spec"]["containers"]
    claims = {volume["name"] for volume in spec["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == claims
    for index in range(spec["completions"]):
        done = subprocess.run(
            [*container["command"], here(container["args"][0])], capture_output=True,
            env=os.environ | {"JOB_COMPLETION_INDEX": str(index)}, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert_merged_is_whole([f"shard-{index}.parquet" for index in range(spec["completions"])])


@pytest.mark.campaign
@pytest.mark.skipif(shutil.which("parallel") is None, reason="GNU parallel is not installed")
def test_the_recipe_for_gnu_parallel(archive: Path) -> None:
    nodes = "-S node1,node2"
    assert nodes in marked("parallel")
    run(here(marked("parallel")).replace(nodes, "-S :"))
    assert_merged_is_whole([f"shard-{index}.parquet" for index in range(4)])


ENGINES = {
    "dask": (
        "import dask, pyarrow as pa\ndask.config.set(scheduler='threads')\n",
        "found = pa.concat_tables(tables)['filepath'].to_pylist()\n",
    ),
    "spark": (
        (
            "import pyspark.sql\nbuilder = pyspark.sql.SparkSession.builder.master('local[2]')\n"
            "spark = builder.config('spark.ui.enabled', 'false').getOrCreate()\n"
        ),
        "found = [row.filepath for row in rows.collect()]\nspark.stop()\n",
    ),
}


@pytest.mark.campaign
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java")
def test_an_engine_reads_tables(archive: Path, engine: str) -> None:
    before, after = ENGINES[engine]
    paths = "paths = sorted(map(str, Path('archive').rglob('*.tif'))) * 30\n"
    script = f"from pathlib import Path\nimport rastermeta_async as rm\n{paths}{before}"
    script += f"{marked(engine)}\n{after}assert sorted(found) == sorted(paths), found\n"
    run_with_spark(script)


def run_with_spark(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False,
        env=os.environ | {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
