"""The first sections of the page: the answer with one picture, and the claims."""

from collections.abc import Sequence

from markupsafe import Markup

from dropattack.analysis.claim_figure import NOTE, forest_panel
from dropattack.analysis.formats import p_value
from dropattack.report.answer import MINI, ScaleAnswer, answers, headline, in_short
from dropattack.report.charts import figure
from dropattack.report.claim_page import effect, headline_scale, seeds, tally
from dropattack.report.claims import CONTRADICTED, SUPPORTED, Claims, Outcome, decide
from dropattack.report.elements import Cell, Facets, Figure, Grid, Group, Part, Row
from dropattack.report.gather import Found

TONES = {SUPPORTED: "better", CONTRADICTED: "worse"}


def opening(claims: Claims, found: Sequence[Found]) -> list[Part]:
    """Return the sections `answer` and `claims`."""
    answer, outcomes = answers(claims, found), decide(claims, found)
    part = Part("answer", "The answer")
    points = Markup("\n").join(Markup("<li>{}</li>").format(sentence) for sentence in in_short(answer))
    lead = Markup('<p><strong>{}</strong></p>\n<ul>\n{}\n</ul>\n<p><a href="#claims">{}</a></p>')
    part.html = lead.format(headline(answer), points, "Every claim with its verdict")
    if answer:
        part.figures.append(forest(headline_scale(answer)))
    listed = Part("claims", "Claims", lead=tally(outcomes), grids=[_grid(outcomes)])
    return [part, listed]


def forest(one: ScaleAnswer) -> Figure:
    """Draw the difference on each data set and the pooled one."""
    cells = [(cell.name, cell.difference) for cell in one.cells]
    panel = forest_panel(cells, one.pooled, title="DropAttack − plain training, points")
    note = NOTE if one.scale != "mini" else f"{NOTE} · {MINI}"
    return figure(f"DropAttack against plain training at {one.scale}", [panel], (), Facets(), note)


def _grid(outcomes: Sequence[Outcome]) -> Grid:
    rows = tuple(
        Row((
            Cell(one.claim.claim, "text"),
            Cell(one.outcome, "verdict", says=TONES.get(one.outcome, "")),
            Cell(one.scale or "–", "text"),
            Cell(effect(one)), Cell(p_value(one.p)), Cell(seeds(one.cells)), Cell(one.claim.source, "text"),
        ))
        for one in outcomes
    )  # fmt: skip
    columns = ("claim", "outcome here", "scale", "difference [95 % interval]", "p", "seeds", "source")
    note = "What decided each claim, and what would change it: results/claims.md, made by the command make claims."
    return Grid("Claims", columns, (Group("", rows),), (note,))
