"""The limits of a footprint as a person, or RFC 7946, tells them: from west to east."""

from __future__ import annotations

from collections.abc import Mapping


def west_to_east(box: Mapping[str, float], geometry: bytes) -> list[float]:
    """Return the limits west, south, east, north; west is east of east across the antimeridian.

    Reference: RFC 7946, section 5.2. Such an outline is cut there, in parts that touch it from
    both sides: its limits are at the widest gap between the parts.

    Args:
        box: xmin, ymin, xmax, ymax in degrees, as the column bbox has them.
        geometry: the footprint as WKB.
    """
    west, south, east, north = box["xmin"], box["ymin"], box["xmax"], box["ymax"]
    if (west, east) == (-180, 180):
        import shapely

        shape = shapely.from_wkb(geometry, on_invalid="ignore")
        parts = list(shape.geoms) if shape and shape.geom_type == "MultiPolygon" else []
        widest, reached = 0.0, -180.0
        for start, _, end, _ in sorted(part.bounds for part in parts):
            if start - reached > widest:
                widest, west, east = start - reached, start, reached
            reached = max(reached, end)
    return [west, south, east, north]
