"""Draw the charts of a report with Vega, as pictures and for the page.

The specifications are files of this package. vl-convert brings Vega along: it bundles it for the
page, and draws pictures without a browser.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Any

from rastermeta_async.model.errors import MissingExtraError
from rastermeta_async.report.content import TITLES, Facet, ReportContent

CHARTS = ("map", "timeline", "folders")
"""Names of the charts with a specification of their own."""

_INK, _FAINT, _GROUND, _SEA = "#1f2933", "#c9d3dc", "#dcdfd9", "#f4f7fa"
_PALETTE = ("#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#8fa8d6", "#d55e00", "#a6a6a6")
"""Okabe and Ito's colours, which colour-blind people can tell apart."""

_BARS = 20
_SCALE = 2.0
"""Pixels of a picture for each unit of its specification."""


def vega() -> Any:
    """Return the module `vl_convert`.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import vl_convert
    except ImportError:
        raise MissingExtraError(
            "a report needs the extra report, in a clone: pip install '.[report]'"
        ) from None
    return vl_convert


def text_of(name: str) -> str:
    """Return the text of a file of this package."""
    return files("rastermeta_async").joinpath("report", name).read_text("utf-8")


def specification(name: str) -> dict[str, Any]:
    """Return the Vega specification of a chart."""
    found: dict[str, Any] = json.loads(text_of(f"{name}.vg.json"))
    return found


def picture_names(form: str) -> list[str]:
    """Return the names of all pictures that there may be in a form."""
    return [f"{name}.{form}" for name in ("map", "timeline", "folders", *TITLES)]


def pictures(content: ReportContent, form: str) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each chart as a picture.

    Args:
        content: what the charts show.
        form: svg or png.
    """
    draw = vega()
    for name, spec in _drawn(content):
        if form == "svg":
            yield f"{name}.svg", draw.vega_to_svg(spec, allowed_base_urls=[]).encode()
        else:
            yield f"{name}.png", draw.vega_to_png(spec, scale=_SCALE, allowed_base_urls=[])


def _drawn(content: ReportContent) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the specification of each chart, with its data in it."""
    yield "map", _map(content)
    if content.bins:
        yield "timeline", _with(specification("timeline"), {"bins": content.bins}, ink=_INK)
    yield "folders", _with(specification("folders"), {"nodes": _nodes(content)})
    for facet in content.facets:
        yield facet.name, _bars(facet)


def _with(spec: dict[str, Any], data: dict[str, Any], **signals: Any) -> dict[str, Any]:
    """Return a specification with data and signals put in, on white."""
    for source in spec["data"]:
        if source["name"] in data:
            source["values"] = data[source["name"]]
    for signal in spec["signals"]:
        if signal["name"] in signals:
            signal["value"] = signals[signal["name"]]
    return {"background": "white", **spec}


def _map(content: ReportContent) -> dict[str, Any]:
    land = json.loads(text_of("land-110m.json"))
    values = content.files("place").tolist()
    files = [values[cell["bucket"]] for cell in content.cells]
    signals = {"frame": content.frame, "centre": content.centre, "ground": _GROUND, "sea": _SEA,
               "outlined": content.outlined,
               "values": values, "chosen": [0] * len(values), "shades": [1] * len(values),
               "least": min(files, default=1), "most": max(files, default=1)}  # fmt: skip
    return _with(specification("map"), {"land": land, "cells": content.cells}, **signals)


def _nodes(content: ReportContent) -> list[dict[str, Any]]:
    """Return the folders below the first one that matters, two levels of them."""
    folders = content.folders
    nodes: list[dict[str, Any]] = [{"id": "0", "parent": None}]
    for at, child in enumerate(folders.below(folders.top)):
        below = folders.below(child)
        look: dict[str, Any] = {
            "color": _PALETTE[at % len(_PALETTE)],
            "value": folders.whole[child],
        }
        name = folders.name(child)
        nodes.append({"id": f"{child}", "parent": "0", "name": name, "inner": bool(below),
                      "area": 0 if below else folders.whole[child], **look})  # fmt: skip
        rest = folders.own[child] if below else 0
        parts = [(f"{one}", folders.name(one), folders.whole[one]) for one in below]
        parts += [(f"{child} own", "other files", rest)] if rest else []
        nodes += [
            {"id": key, "parent": f"{child}", "name": name, "area": files, "value": files,
             "color": look["color"]}
            for key, name, files in parts
        ]  # fmt: skip
    if own := folders.own[folders.top]:
        nodes.append({"id": "own", "parent": "0", "name": "other files", "area": own, "value": own,
                      "color": _PALETTE[-1]})  # fmt: skip
    return nodes


def _bars(facet: Facet) -> dict[str, Any]:
    spec = specification("bars")
    spec["title"]["text"] = facet.title
    whole = max(1, facet.whole)
    rows = [
        {"label": _cut(label), "value": files, "text": f"{files:,} ({100 * files / whole:.1f}%)"}
        for label, files in _most(facet)
    ]
    return _with(spec, {"bars": rows})


def _cut(label: str) -> str:
    return label if len(label) <= 60 else f"{label[:59]}…"


def _most(facet: Facet) -> list[tuple[str, int]]:
    """Return the labels and files of a facet's bars, at most `_BARS`."""
    pairs: Sequence[tuple[str, int]] = [
        (label, files) for label, files in zip(facet.labels, facet.files, strict=True) if files
    ]
    if facet.ordered:
        return list(pairs)[:_BARS]
    return sorted(pairs, key=lambda pair: -pair[1])[:_BARS]
