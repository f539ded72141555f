"""The first sections of the page: the answer with one picture, and the claims."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from dropattack.analysis.tables import difference_and_interval, p_value
from dropattack.report.answer import MINI, ScaleAnswer, answers, cost, headline, interval, sentences
from dropattack.report.claim_page import effect, headline_scale, seeds, tally
from dropattack.report.claims import CONTRADICTED, SUPPORTED, Claims, Outcome, decide
from dropattack.report.elements import Cell, Figure, Grid, Group, Part, Row
from dropattack.report.gather import Found
from dropattack.report.svg import BOTTOM, LEFT, RIGHT, TOP, Axis, Panel, around, signed

TONES = {SUPPORTED: "better", CONTRADICTED: "worse"}


def opening(claims: Claims, found: Sequence[Found]) -> list[Part]:
    """Return the sections `answer` and `claims`."""
    answer, outcomes = answers(claims, found), decide(claims, found)
    part = Part("answer", "The answer")
    words = [*sentences(answer), cost(answer)]
    lead = Markup('<p><strong>{}</strong> {}</p>\n<p><a href="#claims">{}</a></p>')
    part.html = lead.format(headline(answer), " ".join(filter(None, words)), "Every claim with its verdict")
    if answer:
        part.figures.append(forest(headline_scale(answer)))
    listed = Part("claims", "Claims", lead=tally(outcomes), grids=[_grid(outcomes)])
    return [part, listed]


def forest(one: ScaleAnswer) -> Figure:
    """Draw the difference on each data set and the pooled one."""
    names = [cell.name for cell in one.cells]
    columns = [(cell.difference.mean, cell.difference.low, cell.difference.high) for cell in one.cells]
    said = [f"{cell.name} {difference_and_interval(cell.difference)}" for cell in one.cells]
    methods = ["dropattack"] * len(columns)
    if one.pooled:
        names.append("pooled")
        columns.append((one.pooled.mean, one.pooled.low, one.pooled.high))
        said.append(f"pooled {interval(one.pooled)}")
        methods.append("none")
    count = len(columns)
    x = Axis(0, count, "", at=tuple(i + 0.5 for i in range(count)), names=tuple(names))
    y = around([0.0, *(value for column in columns for value in column if math.isfinite(value))], form=signed)
    panel = Panel("DropAttack − plain training, points", x, y, width=LEFT + RIGHT + 100 * count,
                  height=TOP + BOTTOM + 200)  # fmt: skip
    panel.rule(0.0)
    for i, ((mean, low, high), method) in enumerate(zip(columns, methods, strict=True)):
        panel.interval(i + 0.5, low, high, method)
        panel.mark(i + 0.5, mean, method, size=5, says=said[i])
    note = "Mark: mean over the seeds, paired with plain training; line: 95 % interval, not corrected."
    if one.scale == "mini":
        note += f" {MINI[0].upper()}{MINI[1:]}."
    return Figure(f"DropAttack against plain training at {one.scale}", (panel.svg("; ".join(said)),), note=note)


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
