"""Draw landscapes side by side: contours on one scale, and cuts through their centres."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from dropattack.analysis.landscapes import cut, shared_scale
from dropattack.probes.landscape import read, values
from dropattack.report.elements import Facets, Figure, Key, rank
from dropattack.report.svg import Axis, Panel, around, plain
from dropattack.statistics import Estimate

SIDE = 190  # side of a contour panel, in pixels


def together(paths: Sequence[Path]) -> list[list[dict[str, Any]]]:
    """Group the files that can be shown side by side: same data set, model, split, kind, axes and directions.

    Raises:
        UserError: a file is not a landscape.
    """
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for path in paths:
        content = read(path)
        about = content["description"]
        same = ("dataset", "model", "split", "rows", "normalise", "direction_seed", "from", "to")
        key = (*(str(about.get(name)) for name in same), str(content["kind"]), str(content["axes"]))
        groups.setdefault(key, []).append(content)
    for contents in groups.values():
        contents.sort(key=lambda c: (*rank(str(c["description"]["method"])), int(c["description"]["seed"])))
    return [groups[key] for key in sorted(groups)]


def draw(contents: Sequence[dict[str, Any]]) -> list[Figure]:
    """Draw the figures of one group of `together`."""
    about, kind = contents[0]["description"], contents[0]["kind"]
    facets = Facets(str(about["dataset"]), str(about["model"]))
    name = f"{about['dataset']} · {about['model']}: {about['split']} loss"
    note = _note(contents[0])
    figures = []
    if kind == "plane":
        panels = (*_contours(contents), _bar(contents))
        figures.append(
            Figure(f"{name} around the weights", panels, (), facets, f"{note} The cross is the network.", True)
        )
    keys = _keys(contents)
    panels = tuple(_cuts(contents, keys, what) for what in ("loss", "accuracy"))
    where = "from one network to another" if kind == "line" else "along the directions"
    said = {"plane": "Line and band: mean and range of the two cuts through the centre.", "line": "",
            "rays": "Line and band: mean and range of the directions."}[kind]  # fmt: skip
    figures.append(Figure(f"{name} {where}", panels, keys, facets, f"{note} {said}".strip()))
    return figures


def _contours(contents: Sequence[dict[str, Any]]) -> list[Markup]:
    import contourpy

    _, levels = shared_scale(contents)
    colours = _colours(len(levels) - 1)
    panels = []
    for content, key in zip(contents, _keys(contents), strict=True):
        b, a = content["axes"]
        loss = np.clip(values(content), levels[0], None)
        panel = Panel(key.label, _square(a), _square(b), width=SIDE, height=SIDE + 26, left=24)
        maker = contourpy.contour_generator(a, b, np.ma.masked_invalid(loss), fill_type="OuterOffset")
        fills = []
        for low, high, colour in zip(levels[:-1], levels[1:], colours, strict=True):
            outlines = _outlines(panel, *maker.filled(low, high))
            if outlines:
                shape = Markup('<path class="level" d="{}" fill="{}" stroke="{}"/>')
                fills.append(shape.format(outlines, colour, colour))
        cross = Markup('<path class="centre" d="M{:.1f},{:.1f}m-5,0h10m-5,-5v10"/>').format(panel.px(0), panel.py(0))
        panel.add(Markup("").join([*fills, cross]), key.method)
        finite = loss[np.isfinite(loss)]
        centre = values(content)[len(b) // 2, len(a) // 2]
        panels.append(
            panel.svg(
                f"loss {plain(centre)} at the weights, from {plain(finite.min())} to {plain(finite.max())} around"
            )
        )
    return panels


def _outlines(panel: Panel, polygons: Sequence[Any], offsets: Sequence[Any]) -> str:
    """Join all polygons of a level into one path; a hole is an outline inside another (even-odd rule)."""
    parts = []
    for points, cuts in zip(polygons, offsets, strict=True):
        for start, end in pairwise(cuts):
            ring = [f"{panel.px(x):.1f},{panel.py(y):.1f}" for x, y in points[start:end]]
            parts.append("M" + "L".join(p for p, q in zip(ring, [None, *ring], strict=False) if p != q) + "Z")
    return "".join(parts)


def _bar(contents: Sequence[dict[str, Any]]) -> Markup:
    """Draw the colour scale of the contours."""
    _, levels = shared_scale(contents)
    colours = _colours(len(levels) - 1)
    step, head = (SIDE - 36) / len(colours), 24
    parts = [Markup('<text class="tick" x="2" y="12">loss</text>')]
    for i, colour in enumerate(colours):
        y = head + step * (len(colours) - 1 - i)
        shape = Markup('<rect x="4" y="{:.1f}" width="14" height="{:.1f}" fill="{}"/>')
        parts.append(shape.format(y, step + 0.5, colour))
    for i in range(0, len(levels), 5):
        y = head + step * (len(colours) - i) + 4
        parts.append(Markup('<text class="tick" x="23" y="{:.1f}">{}</text>').format(y, f"{levels[i]:.2g}"))
    frame = Markup(
        '<svg class="panel bar" role="img" viewBox="0 0 64 {h}" width="64" height="{h}"><title>{}</title>{}</svg>'
    )
    says = f"The colours' scale: loss from {levels[0]:.2g} to {levels[-1]:.2g}, logarithmic"
    return frame.format(says, Markup("").join(parts), h=SIDE + 26)


def _cuts(contents: Sequence[dict[str, Any]], keys: Sequence[Key], what: str) -> Markup:
    factor = 100.0 if what == "accuracy" else 1.0
    curves = []
    for content, key in zip(contents, keys, strict=True):
        x, middle, low, high = cut(content, what)
        points = [
            (float(p), Estimate(factor * m, 0.0, factor * a, factor * b, 1))
            for p, m, a, b in zip(x, middle, low, high, strict=True) if np.isfinite([m, a, b]).all()
        ]  # fmt: skip
        if points:
            curves.append((key, points))
    ends = [v for _, points in curves for _, e in points for v in (e.low, e.high)]
    axis = "t" if contents[0]["kind"] == "line" else "distance along the directions"
    y = around(ends, log=what == "loss")
    panel = Panel("loss" if what == "loss" else "accuracy, %", around(contents[0]["axes"][-1], label=axis), y)
    if not curves:
        return panel.svg("no finite value")
    return _curves_with_range(panel, curves)


def _curves_with_range(panel: Panel, curves: Sequence[tuple[Key, Sequence[tuple[float, Estimate]]]]) -> Markup:
    for key, points in curves:
        panel.band([(x, e.low, e.high) for x, e in points], key.method)
    for key, points in curves:
        panel.line([(x, e.mean) for x, e in points], key.method, dash=key.dash)
    nearest = {key.label: min(points, key=lambda point: abs(point[0]))[1].mean for key, points in curves}
    ends = {key.label: max(points, key=lambda point: point[0])[1].mean for key, points in curves}
    return panel.svg("; ".join(f"{n} {plain(nearest[n])} at 0 and {plain(ends[n])} at the far end" for n in nearest))


def _keys(contents: Sequence[dict[str, Any]]) -> tuple[Key, ...]:
    seeds = {c["description"]["seed"] for c in contents}
    keys: list[Key] = []
    for about in (c["description"] for c in contents):
        method = str(about["method"])
        label = method if len(seeds) == 1 else f"{method}, seed {about['seed']}"
        keys.append(Key(method, label, sum(key.method == method for key in keys)))
    return tuple(keys)


def _note(content: dict[str, Any]) -> str:
    about = content["description"]
    rows = f"{about['rows']} rows."
    if content["kind"] == "line":
        return f"Line from {about['from']} (t = 0) to {about['to']} (t = 1); {rows}"
    seed, by = about["direction_seed"], about["normalise"]
    return f"Random directions of seed {seed}, normalised by {by}; {rows} Logarithmic in the loss."


def _square(axis: Sequence[float]) -> Axis:
    low, high = min(axis), max(axis)
    return Axis(low, high if high > low else low + 1, at=tuple(sorted({low, 0.0, high})))


def _colours(count: int) -> list[str]:
    import matplotlib
    from matplotlib.colors import to_hex

    return [to_hex(matplotlib.colormaps["viridis"](i / max(1, count - 1))) for i in range(count)]
