"""Figures of landscapes on the page: networks that can be compared, side by side."""

from collections.abc import Sequence
from typing import Any

from dropattack.analysis.drawing import rank
from dropattack.analysis.landscapes import BANDS, bar_panel, contour_panels, cut_panels, directions, names
from dropattack.report.charts import figure
from dropattack.report.elements import Facets, Figure


def together(landscapes: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Group those that can be shown side by side: same data set, model, split, kind, axes and directions."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for content in landscapes:
        about = content["description"]
        same = ("dataset", "model", "split", "rows", "normalise", "direction_seed", "from", "to")
        key = (*(str(about.get(name)) for name in same), str(content["kind"]), str(content["axes"]))
        groups.setdefault(key, []).append(content)
    for contents in groups.values():
        contents.sort(key=lambda c: (*rank(str(c["description"]["method"])), int(c["description"]["seed"])))
    return [groups[key] for key in sorted(groups)]


def landscape_figures(contents: Sequence[dict[str, Any]]) -> list[Figure]:
    """Draw the figures of one group of `together`."""
    about, kind, note = contents[0]["description"], contents[0]["kind"], directions(contents[0])
    facets = Facets(str(about["dataset"]), str(about["model"]))
    name = f"{about['dataset']} · {about['model']}: {about['split']} loss"
    figures = []
    if kind == "plane":
        panels = [*contour_panels(contents), bar_panel(contents)]
        said = f"{note} · one scale, logarithmic · the cross is the network"
        figures.append(figure(f"{name} around the weights", panels, (), facets, said, dense=True))
    where = "from one network to another" if kind == "line" else "along the directions"
    figures.append(figure(f"{name} {where}", cut_panels(contents), names(contents), facets, f"{note} · {BANDS[kind]}"))
    return figures
