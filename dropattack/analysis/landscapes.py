"""Charts of loss landscapes, made from the values of `probes.landscape` alone: contours, surfaces, curves.

All networks in a figure share one colour scale and one height scale, both logarithmic.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm

from dropattack.analysis.drawing import WHITE, Key, Panel, curves, keys, last_points, plain, rank, save, scale_bar
from dropattack.errors import UserError
from dropattack.probes.landscape import values
from dropattack.statistics import Estimate

MAP = "viridis"
LOWEST = 1e-4  # lower losses are clamped to it, because the scale is logarithmic
Contents = Sequence[dict[str, Any]]


def draw(contents: Contents, folder: Path, name: str) -> list[Path]:
    """Draw every figure that the landscapes allow, as `<name>-<figure>.png` and `.svg`.

    Planes give `contour`, `surface` and `curves` (cuts through the centre); rays and lines give `curves`.

    Returns:
        The paths of the files.

    Raises:
        UserError: the landscapes differ in kind or axes, or one is unfinished.
    """
    if not contents:
        raise UserError("no landscape to draw")
    for content in contents:
        named, first = f"the {content['kind']} of {content['run']}", contents[0]
        if not content["done"]:
            raise UserError(f"{named} is not finished: run the same command again")
        if (content["kind"], content["axes"]) != (first["kind"], first["axes"]):
            raise UserError(f"{named} differs in kind or axes from that of {first['run']}: draw them separately")
    contents = sorted(contents, key=lambda c: (rank(c["description"]["method"]), c["description"]["seed"]))
    figures = {"curves": cut_panels(contents)}
    if contents[0]["kind"] == "plane":
        figures = {"contour": contour_panels(contents), "surface": _surfaces(contents), **figures}
    made, about = [], contents[0]["description"]
    title = f"{about['dataset']} · {about['model']}: {about['split']} loss around the weights"
    for kind, panels in figures.items():
        way = f" · {BANDS[contents[0]['kind']]}" if kind == "curves" else " · one scale, logarithmic"
        columns = 2 if kind == "curves" else 3 if len(panels) in (5, 6) else min(len(panels), 4)
        options: dict[str, Any] = {"bar": scale(contents)} if kind == "contour" else {}
        made += [
            save(panels, folder / f"{name}-{kind}{suffix}", title=title, note=f"{directions(contents[0])}{way}",
                 columns=columns, **options)
            for suffix in (".png", ".svg")
        ]  # fmt: skip
    return made


BANDS = {
    "plane": "line and band: mean and range of the two cuts through the centre",
    "rays": "line and band: mean and range of the directions",
    "line": "line: the values",
}


def directions(content: dict[str, Any]) -> str:
    """Return where the values of a landscape are taken."""
    about = content["description"]
    if content["kind"] == "line":
        return f"line from {about['from']} (t = 0) to {about['to']} (t = 1); {about['rows']} rows"
    return (
        f"random directions of seed {about['direction_seed']}, normalised by {about['normalise']}; {about['rows']} rows"
    )


def contour_panels(contents: Contents) -> list[Panel]:
    """Describe one map of the loss per plane; the cross is the network."""
    return [
        Panel(key.label, "", partial(_contour, content=content, levels=_levels(contents)), _said(content),
              width=2.2, height=2.5, grid="", left=0.35, method=key.method)
        for key, content in zip(names(contents), contents, strict=True)
    ]  # fmt: skip


def _said(content: dict[str, Any]) -> str:
    loss = values(content)
    finite, centre = loss[np.isfinite(loss)], loss[loss.shape[0] // 2, loss.shape[1] // 2]
    if not finite.size:
        return "no finite value among 0"
    return f"loss {plain(centre)} at the weights, from {plain(finite.min())} to {plain(finite.max())} around"


def _contour(ax: Axes, content: dict[str, Any], levels: np.ndarray) -> None:
    b, a = content["axes"]
    loss = np.ma.masked_invalid(np.clip(values(content), levels[0], None))
    ax.contourf(a, b, loss, levels=levels, norm=LogNorm(levels[0], levels[-1]), cmap=MAP)
    ax.contour(a, b, loss, levels=levels, colors=WHITE, linewidths=0.3, alpha=0.6)
    ax.plot(0, 0, marker="+", color=WHITE, ms=8, mew=1.5)
    ax.set_aspect("equal")
    for axis, ends in ((ax.xaxis, a), (ax.yaxis, b)):
        axis.set_ticks(sorted({ends[0], 0.0, ends[-1]}))


def _surfaces(contents: Contents) -> list[Panel]:
    return [
        Panel(key.label, "", partial(_surface, content=content, levels=_levels(contents)), _said(content), width=3.4,
              height=3.4, grid="", solid=True)
        for key, content in zip(names(contents), contents, strict=True)
    ]  # fmt: skip


def _surface(ax: Any, content: dict[str, Any], levels: np.ndarray) -> None:
    import matplotlib

    b, a = content["axes"]
    loss = np.clip(values(content), levels[0], levels[-1])
    height = np.log10(np.where(np.isfinite(loss), loss, levels[-1]))
    x, y = np.meshgrid(a, b)
    colours = matplotlib.colormaps[MAP](LogNorm(levels[0], levels[-1])(10**height))
    ax.plot_surface(
        x, y, height, facecolors=colours, rstride=1, cstride=1, linewidth=0, antialiased=False, rasterized=True
    )
    ax.set_zlim(np.log10(levels[0]), np.log10(levels[-1]))
    ax.set_zticks(np.log10(levels[::4]), [f"{level:.2g}" for level in levels[::4]])
    ax.tick_params(labelsize=6.5, colors="#555555", pad=-2)


def cut_panels(contents: Contents) -> list[Panel]:
    """Describe the charts of loss and accuracy along the directions, or from one network to another."""
    x = "t" if contents[0]["kind"] == "line" else "distance along the directions"
    panels = []
    for what, label, factor in (("loss", "loss", 1.0), ("accuracy", "accuracy, %", 100.0)):
        lines = [(key, _points(content, what, factor)) for key, content in zip(names(contents), contents, strict=True)]
        lines = [(key, points) for key, points in lines if points]
        said = "; ".join(
            f"{key.label} {plain(min(points, key=lambda point: abs(point[0]))[1].mean)} at 0" for key, points in lines
        )
        draw = partial(curves, lines=lines, x=x, log=what == "loss", whole=True)
        panels.append(Panel("", label, draw, f"{said}; {last_points(lines, x)}" if lines else "no finite value"))
    return panels


def _points(content: dict[str, Any], what: str, factor: float) -> list[tuple[float, Estimate]]:
    return [
        (float(p), Estimate(factor * middle, 0.0, factor * low, factor * high, 1))
        for p, middle, low, high in zip(*cut(content, what), strict=True) if np.isfinite([middle, low, high]).all()
    ]  # fmt: skip


def names(contents: Contents) -> tuple[Key, ...]:
    """Return the key of each network: its method, with the seed if they differ."""
    about = [content["description"] for content in contents]
    alone = len({one["seed"] for one in about}) == 1
    return keys(
        (str(one["method"]), one["method"] if alone else f"{one['method']}, seed {one['seed']}") for one in about
    )


def scale(contents: Contents) -> ScalarMappable:
    """Return the colour scale that the networks share."""
    levels = _levels(contents)
    return ScalarMappable(LogNorm(levels[0], levels[-1]), MAP)


def bar_panel(contents: Contents) -> Panel:
    """Describe the colour scale as a chart of its own."""
    levels = _levels(contents)

    def draw(ax: Axes) -> None:
        scale_bar(ax.figure, scale(contents), cax=ax)

    said = f"The colours' scale: loss from {levels[0]:.2g} to {levels[-1]:.2g}, logarithmic"
    return Panel("loss", "", draw, said, width=0.8, height=2.5, grid="", left=0.35)


def cut(content: dict[str, Any], what: str) -> tuple[Any, Any, Any, Any]:
    """Return the coordinates, and the mean, minimum and maximum over the directions at each."""
    found = values(content, what)
    if what == "loss":
        found = np.clip(found, LOWEST, None)
    if content["kind"] == "plane":  # the two cuts through the centre
        found = np.stack([found[found.shape[0] // 2], found[:, found.shape[1] // 2]])
    rows = np.atleast_2d(found)
    return content["axes"][-1], rows.mean(0), rows.min(0), rows.max(0)


def _levels(contents: Contents) -> np.ndarray:
    every = np.concatenate([values(content).ravel() for content in contents])
    every = np.clip(every[np.isfinite(every)], LOWEST, None)
    low, high = every.min(), max(every.max(), every.min() * 1.01)
    levels: np.ndarray = np.geomspace(low, high, 21)
    levels[0], levels[-1] = 0.999 * low, 1.001 * high  # so that rounding excludes no point
    return levels
