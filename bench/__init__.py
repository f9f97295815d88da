"""Benchmarks: run them from the project root as `python -m bench.NAME`; see README.md."""
