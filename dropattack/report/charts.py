"""Figures of the page: the charts of `dropattack.analysis`, each alone, in the page's colours."""

import math
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import pandas as pd
from markupsafe import Markup

from dropattack.analysis import figures, heatmap
from dropattack.analysis.along import by_context, with_number
from dropattack.analysis.curves import NOTE, learning_panels, norm_panels
from dropattack.analysis.drawing import Key, Panel, alone, keys
from dropattack.analysis.training_gradients import with_norms
from dropattack.report.colours import css_class, variable
from dropattack.report.elements import Facets, Figure

PIXELS = 90  # per inch: text of 9 points has 11 pixels


def chart(panel: Panel) -> Markup:
    """Draw a panel as part of the page, with its description for screen readers."""
    root = alone(panel, variable)
    title = ElementTree.Element(f"{root.tag.removesuffix('svg')}title")
    title.text = f"{panel.y or panel.title}: {panel.says}"
    root.insert(0, title)
    width, height = panel.width * PIXELS, panel.height * PIXELS
    for name, value in {"class": "panel", "role": "img", "width": f"{width:g}", "height": f"{height:g}"}.items():
        root.set(name, value)
    if panel.method:
        root.set("data-method", panel.method)
    for group in root.iter(f"{root.tag.removesuffix('svg')}g"):
        if method := group.get("data-method"):
            group.set("class", css_class(method))
    text = ElementTree.tostring(root, encoding="unicode")
    return Markup(text.replace(' xmlns="http://www.w3.org/2000/svg"', "", 1))  # escaped by the library


def figure(
    caption: str, panels: Sequence[Panel], legend: tuple[Key, ...], facets: Facets, note: str, *, dense: bool = False
) -> Figure:  # fmt: skip
    """Draw panels that share a legend."""
    return Figure(caption, tuple(map(chart, panels)), legend, facets, f"{note[0].upper()}{note[1:]}.", dense)


def gain_against_cost(compared: pd.DataFrame, baseline: str = "none") -> list[Figure]:
    """Draw each method's gain against its cost per step, one figure per data set and model with several seeds."""
    made = []
    for (dataset, model), rows in figures.by_data(compared):
        pairs = rows[(rows["method"] != baseline) & (rows["pairs"] > 1)]
        if not pairs.empty:
            legend = keys((row.method, str(row.method_label)) for row in pairs.itertuples())
            note = "small mark: one seed · large mark: mean · line: 95 % interval"
            made.append(figure(f"{dataset} · {model}: gain against cost", [figures.gain_panel(pairs, baseline)], legend,
                               Facets(rows.iloc[0]["dataset"], model), note))  # fmt: skip
    return made


def accuracy_against(frame: pd.DataFrame, setting: str) -> list[Figure]:
    """Draw test accuracy against a setting: one curve per method, one figure per data set and model."""
    made = []
    for dataset, model, rows in by_context(with_number(frame, setting), setting):
        panel, legend = figures.accuracy_panel(rows, setting, f"{dataset} · {model}")
        caption = f"{dataset} · {model}: accuracy against {setting.rpartition('.')[2]}"
        made.append(figure(caption, [panel], legend, Facets(rows.iloc[0]["dataset"], model), figures.NOTE))
    return made


def heat_map(compared: pd.DataFrame, x: str, y: str, baseline: str = "none") -> list[Figure]:
    """Draw the mean paired difference over two settings; a framed square is significant after Holm's correction."""
    made = []
    others = compared[compared["method"] != baseline]
    for (dataset, model), rows in others.groupby(["dataset_label", "model"], sort=True):
        rows = rows[[_is_number(own.get(x)) and _is_number(own.get(y)) for own in rows["settings"]]]
        if rows.empty:
            continue
        cells = heatmap.same_settings(rows, x, y)
        facets = Facets(
            cells.iloc[0]["dataset"], model, cells.iloc[0]["method"] if cells["method"].nunique() == 1 else ""
        )
        made.append(figure(f"{dataset} · {model}: gain over two settings", [heatmap.square_panel(cells, x, y)], (),
                           facets, heatmap.NOTE.format(baseline=baseline)))  # fmt: skip
    return made


def over_epochs(frame: pd.DataFrame, compared: pd.DataFrame) -> list[Figure]:
    """Draw the learning curves, and the norms of gradients where runs measured them, per data set and model."""
    made = []
    measured = with_norms(frame)
    for (dataset, model), rows in figures.by_data(compared):
        facets = Facets(rows.iloc[0]["dataset"], model)
        panels, legend = learning_panels(frame, rows)
        if all(panel.says for panel in panels):
            made.append(figure(f"{dataset} · {model}: learning curves", panels, legend, facets, NOTE))
        panels, legend = norm_panels(measured, rows)
        if all(panel.says for panel in panels):
            made.append(figure(f"{dataset} · {model}: gradient norms while training", panels, legend, facets, NOTE))
    return made


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
