"""The figures of the help, out of bench/results: ``python -m bench.figures`` prints them."""

from __future__ import annotations

import json
from typing import Any

from bench.common import RESULTS

PEERS = {
    "baseline": "the usual script",
    "gdaltindex": "`gdaltindex`",
    "async_tiff": "async-tiff",
    "bare_rasterio": "a bare rasterio loop",
    "bare_no_sidecars": "one that looks for no sidecar files",
}


def table() -> str:
    """Return the table of figures in ``rastermeta help speed``, in Markdown."""
    rows = [
        _speed("local-100000", "{:,} plain GeoTIFFs and COGs"),
        _speed("some-need-gdal", "{:,} files, one in twenty of which needs GDAL"),
        _speed("needs-gdal", "{:,} files that all need GDAL"),
        _speed("reader-rasterio", "{:,} GeoTIFFs and COGs with `--reader rasterio`"),
        _far(),
        _remote(),
        _coordinator(),
        _sealing(),
        *(_memory(workers) for workers in (0, 2)),
    ]
    return "\n".join(["| what | figure | against |", "| --- | --- | --- |", *rows])


def _speed(name: str, what: str) -> str:
    report = _report(name)
    case = report["cases"]["rastermeta"]
    ratios = report["rastermeta_files_per_s_over"]
    against = ", ".join(f"{PEERS[peer]} {ratios[peer]:.1f} x" for peer in PEERS if peer in ratios)
    rate = case["median"]["files_per_s"]
    return f"| {what.format(case['files'])} | {rate:,.0f} files/s | {against} |"


def _far() -> str:
    report = _report("far")
    rates = {name: case["median"] for name, case in report["cases"].items()}
    ours = rates["rastermeta"]
    files, delay = report["settings"]["archive"]["count"], report["settings"]["delay_ms"]
    what = f"{files:,} GeoTIFFs and COGs on a far disk, {delay:g} ms an open and a read"
    against = (
        f"the usual script with 32 threads {ours / rates['script, 32 threads']:.1f} x; bare reads "
        f"in 256 threads {ours / rates['bare, 256 threads']:.1f} x; an `--update` where each "
        f"`stat` takes as long: {rates['rastermeta, --update']:,.0f} files/s"
    )
    return f"| {what} | {ours:,.0f} files/s | {against} |"


def _remote() -> str:
    report = _report("remote")
    rates, files = report["files_per_s"], report["settings"]["files"]
    what = f"{files:,} GeoTIFFs and COGs in an object store, 30 ms a request"
    ratio = report["rastermeta_over_gdal"]
    return f"| {what} | {rates['rastermeta']:,.0f} files/s | tuned `/vsis3/` {ratio:.1f} x |"


def _coordinator() -> str:
    own, cluster = _taken_in("workers"), _taken_in("cluster")
    against = (
        f"from a cluster that does the same {cluster['rows_per_s']:,.0f} rows/s; CPU of the run's "
        f"own process {own['cpu_us_per_row']:.0f} and {cluster['cpu_us_per_row']:.0f} µs a row"
    )
    what = "rows from two workers that read nothing and answer at once"
    return f"| {what} | {own['rows_per_s']:,.0f} rows/s | {against} |"


def _taken_in(source: str) -> dict[str, float]:
    found: dict[str, float] = _report(f"coordinator-{source}")["medians"]["path"]
    return found


def feeding() -> str:
    """Return what ``rastermeta help shards`` says of how many nodes one run feeds."""
    own, cluster = _taken_in("workers"), _taken_in("cluster")
    local = _report("local-100000")["cases"]["rastermeta"]["median"]
    of_node = local["cpu_us_per_file"] - own["cpu_us_per_row"] - own["sealing_cpu_us_per_row"]
    a_core = 1e6 / of_node
    remote = _report("remote")
    of_store = remote["files_per_s"]["rastermeta"] / remote["context"]["cores"]
    rate, size = cluster["rows_per_s"], cluster["wire_bytes_per_row"]
    return (
        f"From nodes that read nothing and answer at once, a run takes in {rate:,.0f} rows a "
        f"second on the two cores that it shares with them: {cluster['cpu_us_per_row']:.0f} µs of "
        f"its CPU, and {size:,.0f} bytes on the network, a row. A core of a node reads "
        f"{a_core:,.0f} plain GeoTIFFs a second from a warm disk ({of_node:.0f} µs of CPU a file), "
        f"so {rate / a_core:.0f} cores of nodes feed one run fully; in an object store at 30 ms a "
        f"request a core reads {of_store:,.0f}, so {rate / of_store:.0f} cores do. Sealing takes "
        f"{cluster['sealing_cpu_us_per_row']:.0f} µs of CPU a row after that."
    )


def _sealing() -> str:
    report = _report("sealing")
    by_path, rows = report["sealing"]["path"], report["settings"]["rows"]
    by_place = report["sealing"]["spatial"]["rows_per_s"]
    footprint = report["footprints_us_per_file"]["footprint"]
    return (
        f"| sealing {rows:,} rows that were read | {by_path['rows_per_s']:,.0f} rows/s, "
        f"{by_path['grown_mib']:.0f} MiB | `--sort spatial` {by_place:,.0f} rows/s; a footprint, "
        f"while reading: {footprint:.0f} µs |"
    )


def _memory(workers: int) -> str:
    runs = _report(f"memory-workers-{workers}")["runs"]
    few, many = (run for run in runs if run["case"] == "paths")
    what = f"peak memory of {many['rows']:,} paths, `--workers {workers}`"
    return (
        f"| {what} | {many['peak_mib']:.0f} MiB | {few['rows']:,} paths {few['peak_mib']:.0f} MiB |"
    )


def _report(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


if __name__ == "__main__":
    print(table())
    print(feeding())
