"""The layers of the package: what a module may import lies in its own folder or further down."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import rastermeta_async

ROOT = Path(rastermeta_async.__file__).parent

LAYERS = [
    "opened", "cli", "one_file", "merging", "api", "pipeline", "remaining", "progress", "report",
    "stac", "gis", "catalog", "pools", "sources", "readers", "stores", "footprints", "model",
]  # fmt: skip
"""Folders and modules, as the data's path is in ``CONTRIBUTING.md``: each may import those after
it. ``__init__`` and ``__main__`` of the package are the doors, and above all."""


def modules() -> dict[str, Path]:
    """Return the modules of the package by name, without its own."""
    found = {}
    for path in ROOT.rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if name not in ("__init__", "__main__"):
            found[name] = path
    return found


MODULES = modules()


def imports_of(module: str) -> Iterator[str]:
    """Yield the modules of the package that one imports, wherever in its code."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        assert not (isinstance(node, ast.ImportFrom) and node.level), "imports are absolute"
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in (*names, node.module):
                inner = name.removeprefix("rastermeta_async.")
                if name != inner and inner in MODULES:
                    yield inner


def layer(module: str) -> int:
    return LAYERS.index(module.partition(".")[0])


def test_every_module_has_its_layer() -> None:
    assert {module.partition(".")[0] for module in MODULES} == set(LAYERS)


def test_no_import_goes_up() -> None:
    up = {
        f"{module} imports {other}"
        for module in MODULES
        for other in imports_of(module)
        if layer(other) < layer(module)
    }
    assert not up


def test_no_modules_import_each_other() -> None:
    folders = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    graph = {module: {*imports_of(module)} - folders for module in MODULES}
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_class_names_are_unique() -> None:
    names = Counter(
        node.name
        for path in MODULES.values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert {name for name, count in names.items() if count > 1} == set()


def test_only_base_is_the_name_of_several_modules() -> None:
    names = Counter(path.name for path in MODULES.values())
    assert {name for name, count in names.items() if count > 1} == {"__init__.py", "base.py"}
