"""Figures of loss landscapes, made from the files of `probes.landscape` alone: contours, surfaces, curves.

All networks in a figure share one colour scale and one height scale, both logarithmic.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dropattack.analysis.compare import ORDER
from dropattack.analysis.figures import COLOURS, FAINT, INK, STYLE, no_date, plain_log_ticks
from dropattack.errors import UserError
from dropattack.probes.landscape import read, values

MAP = "viridis"
LOWEST = 1e-4  # lower losses are clamped to it, because the scale is logarithmic


def draw(files: Sequence[Path], folder: Path, name: str) -> list[Path]:
    """Draw every figure that `files` allow, as `<name>-<figure>.png` and `.svg`, and return their paths.

    Planes give `contour`, `surface` and `curves` (cuts through the centre); rays and lines give `curves`.

    Raises:
        UserError: the files differ in kind or axes, or one is unfinished.
    """
    contents = [read(path) for path in files]
    if not contents:
        raise UserError("no landscape to draw")
    for path, content in zip(files, contents, strict=True):
        if not content["done"]:
            raise UserError(f"{path} is not finished: run the same command again")
        if (content["kind"], content["axes"]) != (contents[0]["kind"], contents[0]["axes"]):
            raise UserError(f"{path} differs in kind or axes from {files[0]}: draw them separately")
    rank = {method: place for place, method in enumerate(ORDER)}
    contents.sort(key=lambda c: (rank.get(c["description"]["method"], len(rank)), c["description"]["seed"]))
    kinds = (_contour, _surface, _curves) if contents[0]["kind"] == "plane" else (_curves,)
    folder.mkdir(parents=True, exist_ok=True)
    return [path for make in kinds for path in _save(make, contents, folder / f"{name}-{make.__name__[1:]}")]


def _save(make: Any, contents: Sequence[dict[str, Any]], stem: Path) -> list[Path]:
    import matplotlib

    paths = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".png", ".svg")]
    with matplotlib.rc_context(STYLE):
        figure = make(contents)
        title, note = _title(contents[0]["description"]), _note(contents[0], make is _curves)
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
        figure.supxlabel(note, x=0.01, ha="left", fontsize=7.5, color="#666666")
        for path in paths:
            figure.savefig(path, facecolor="white", metadata=no_date(path))
    return paths


def _contour(contents: Sequence[dict[str, Any]]) -> Figure:
    figure, panels = _panels(len(contents), 3.1)
    norm, levels = shared_scale(contents)
    for ax, content in zip(panels, contents, strict=False):
        b, a = content["axes"]
        loss = np.clip(values(content), LOWEST, None)
        filled = ax.contourf(a, b, loss, levels=levels, norm=norm, cmap=MAP)
        ax.contour(a, b, loss, levels=levels, colors="white", linewidths=0.3, alpha=0.6)
        ax.plot(0, 0, marker="+", color="white", ms=8, mew=1.5)
        ax.set_title(_label(content, contents), loc="left", color=INK, fontsize=10)
        ax.set_aspect("equal")
        ax.tick_params(length=0, colors="#555555")
    bar = figure.colorbar(filled, ax=list(panels), shrink=0.8, ticks=levels[::4], format=_plain)
    bar.set_label("loss", color=INK)
    return figure


def _surface(contents: Sequence[dict[str, Any]]) -> Figure:
    figure, panels = _panels(len(contents), 3.4, projection="3d")
    norm, levels = shared_scale(contents)
    low, high = np.log10(levels[0]), np.log10(levels[-1])
    for ax, content in zip(panels, contents, strict=False):
        b, a = content["axes"]
        loss = np.clip(values(content), LOWEST, levels[-1])
        height = np.log10(np.where(np.isfinite(loss), loss, levels[-1]))
        x, y = np.meshgrid(a, b)
        colours = _colour_map()(norm(10**height))
        ax.plot_surface(
            x, y, height, facecolors=colours, rstride=1, cstride=1, linewidth=0, antialiased=False, rasterized=True
        )
        ax.set_zlim(low, high)
        ax.set_zticks(np.log10(levels[::4]), [_plain(level) for level in levels[::4]])
        ax.tick_params(labelsize=6.5, colors="#555555", pad=-2)
        ax.set_title(_label(content, contents), loc="left", color=INK, fontsize=10)
    return figure


def _curves(contents: Sequence[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(8.6, 3.9), dpi=200, layout="constrained")
    panels = figure.subplots(1, 2)
    for ax, what, factor in zip(panels, ("loss", "accuracy"), (1, 100), strict=True):
        seen: set[str] = set()
        for content in contents:
            x, middle, low, high = cut(content, what)
            label = _label(content, contents)
            colour = COLOURS.get(content["description"]["method"], INK)
            ax.plot(x, factor * middle, color=colour, lw=1.8, label=None if label in seen else label)
            ax.fill_between(x, factor * low, factor * high, color=colour, alpha=0.15, lw=0)
            seen.add(label)
        ax.set_xlabel("t" if contents[0]["kind"] == "line" else "distance along the directions", color=INK)
        ax.set_ylabel("loss" if what == "loss" else "accuracy, %", color=INK)
        ax.grid(axis="y", color=FAINT, lw=0.6)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(length=0, colors="#555555")
    panels[0].set_yscale("log")
    plain_log_ticks(panels[0].yaxis)
    panels[0].legend(frameon=False, fontsize=8, labelcolor="linecolor", handlelength=1.2)
    return figure


def cut(content: dict[str, Any], what: str) -> tuple[Any, Any, Any, Any]:
    """Return the coordinates, and the mean, minimum and maximum over the directions at each."""
    found = values(content, what)
    if what == "loss":
        found = np.clip(found, LOWEST, None)
    if content["kind"] == "plane":  # the two cuts through the centre
        found = np.stack([found[found.shape[0] // 2], found[:, found.shape[1] // 2]])
    rows = np.atleast_2d(found)
    return content["axes"][-1], rows.mean(0), rows.min(0), rows.max(0)


def shared_scale(contents: Sequence[dict[str, Any]]) -> tuple[Any, np.ndarray]:
    from matplotlib.colors import LogNorm

    every = np.concatenate([values(content).ravel() for content in contents])
    every = np.clip(every[np.isfinite(every)], LOWEST, None)
    low, high = every.min(), max(every.max(), every.min() * 1.01)
    levels = np.geomspace(low, high, 21)
    levels[0], levels[-1] = 0.999 * low, 1.001 * high  # so that rounding excludes no point
    return LogNorm(levels[0], levels[-1]), levels


def _panels(count: int, side: float, **options: Any) -> tuple[Figure, Any]:
    columns = 3 if count in (5, 6) else min(count, 4)
    rows = -(-count // columns)
    figure = Figure(figsize=(1.3 + side * columns, 0.9 + side * rows), dpi=200, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, subplot_kw=options).ravel()
    for ax in axes[count:]:
        ax.remove()  # an invisible 3-D axes has no bounding box, which breaks the layout
    return figure, axes[:count]


def _colour_map() -> Any:
    import matplotlib

    return matplotlib.colormaps[MAP]


def _label(content: dict[str, Any], contents: Sequence[dict[str, Any]]) -> str:
    about = content["description"]
    seeds = {c["description"]["seed"] for c in contents}
    return about["method"] if len(seeds) == 1 else f"{about['method']}, seed {about['seed']}"


def _title(about: dict[str, Any]) -> str:
    return f"{about['dataset']} · {about['model']}: {about['split']} loss around the weights"


def _note(content: dict[str, Any], curves: bool) -> str:
    about, kind = content["description"], content["kind"]
    if kind == "line":
        return f"line from {about['from']} (t = 0) to {about['to']} (t = 1); {about['rows']} rows"
    band = {"plane": "the two cuts through the centre", "rays": "the directions"}[kind]
    way = f"; line and band: mean and range of {band}" if curves else "; the scale is shared, and logarithmic"
    normalised, seed = about["normalise"], about["direction_seed"]
    return f"random directions of seed {seed}, normalised by {normalised}; {about['rows']} rows{way}"


def _plain(value: float, _: Any = None) -> str:
    return f"{value:.2g}"
