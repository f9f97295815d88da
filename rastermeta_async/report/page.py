"""Write a report as one HTML page that needs nothing else: no network, no other file.

What comes from the catalog goes into one block of JSON, which no browser runs. The page's policy
(Content Security Policy Level 3) allows its two scripts, by their hashes, and no connection.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import html
import json
import zlib
from typing import Any

import numpy as np

from rastermeta_async import __version__
from rastermeta_async.report.charts import CHARTS, specification, text_of, vega
from rastermeta_async.report.content import ReportContent
from rastermeta_async.report.cube import Cube, reduced

GENERATOR = "rastermeta report"
"""Content of the page's meta tag `generator`: only such files are replaced without being asked."""

MAX_BYTES = 3 * 1024 * 1024
"""Size of a page."""

_MAX_CUBE = 1_150_000
"""Bytes of the deflated cube; as text it takes a third more."""

_POLICY = (
    "default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)


def fit_page(cube: Cube) -> None:
    """Make a cube coarser, if needed, so that its page is not too large."""
    while (size := len(_packed(cube)[0])) > _MAX_CUBE:
        reduced(cube, len(cube) * _MAX_CUBE // size * 9 // 10)


def page_of(cube: Cube, title: str, made: dt.datetime, library: str = "") -> str:
    """Return a report as HTML.

    Args:
        cube: of the catalog, see `fit_page`.
        title: of the page.
        made: time of the report.
        library: Vega's bundle; empty: it is made here, which takes seconds.
    """
    library = library or vega().javascript_bundle()
    packed, planes = _packed(cube)
    content = ReportContent(cube)
    data = _data(content) | {"cube": base64.b64encode(packed).decode(), "planes": planes}
    scripts = {"library": _script(library), "script": _script(text_of("page.js"))}
    parts = {
        "policy": html.escape(_policy(*scripts.values())),
        "generator": f"{GENERATOR} {__version__}",
        "title": html.escape(title),
        "about": f"as of {made:%Y-%m-%d %H:%M} UTC",
        "footer": "Made by rastermeta. Land: Natural Earth. Charts: Vega. This page loads nothing.",
        "style": text_of("page.css"),
        "data": _as_json(data),
    }
    return _filled(text_of("page.html"), parts | scripts)


def _filled(template: str, parts: dict[str, str]) -> str:
    """Return a template with its parts; what is in a part is not looked at again."""
    first, *rest = template.split("{")
    found = [first]
    for piece in rest:
        name, _, after = piece.partition("}")
        found.append(parts[name] + after)
    return "".join(found)


def _data(content: ReportContent) -> dict[str, Any]:
    cube = content.cube
    place = cube.dimensions["place"]
    return {
        "dimensions": content.dimensions,
        "rows": len(cube),
        "examples": [[example.row, example.path, example.size] for example in cube.examples],
        "outlines": content.outlines() if content.outlined else None,
        "frame": content.frame,
        "centre": content.centre,
        "cell": f"{180 / (1 << place.step):.3g}°",
        "land": json.loads(text_of("land-110m.json")),
        "specs": {name: specification(name) for name in CHARTS},
        "chosen": content.chosen,
    }


def _packed(cube: Cube) -> tuple[bytes, list[int]]:
    """Return the cube's columns, deflated, and the number of bytes of a value in each.

    A column is stored as planes: the lowest bytes of all values, then the next ones. Planes of
    equal bytes take nearly no space.
    """
    columns = [cube.codes(name) for name in cube.dimensions]
    columns += [np.asarray(cube.rows["files"]), np.asarray(cube.rows["bytes"])]
    planes, packed = [], zlib.compressobj()
    content = b""
    for column in columns:
        raw = column.astype("<u8").view(np.uint8).reshape(-1, 8)
        used = max(1, (int(column.max(initial=0)).bit_length() + 7) // 8)
        planes.append(used)
        content += packed.compress(np.ascontiguousarray(raw[:, :used].T).tobytes())
    return content + packed.flush(), planes


def _as_json(data: dict[str, Any]) -> str:
    """Return JSON for a script element: no character in it can end the element or start another."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _script(code: str) -> str:
    """Return JavaScript in which nothing ends the script element (HTML, section 4.12.1.3)."""
    return code.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _policy(*scripts: str) -> str:
    digests = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts]
    return _POLICY.format(hashes=" ".join(f"'sha256-{digest}'" for digest in digests))
