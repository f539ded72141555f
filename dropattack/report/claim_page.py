"""The page of claims, results/claims.md, and its picture."""

import math
from collections.abc import Sequence
from pathlib import Path

from dropattack.analysis.claim_figure import claim_figure
from dropattack.analysis.formats import (
    NOTHING,
    Table,
    difference_and_interval,
    markdown,
    p_value,
    p_words,
    save,
    seed_count,
)
from dropattack.report.answer import MINI, ScaleAnswer, answers, cost, headline, interval, sentences
from dropattack.report.claims import (
    NOT_TESTED,
    OUTCOMES,
    RATIOS,
    Claims,
    Evidence,
    Outcome,
    decide,
    scores,
)
from dropattack.report.gather import Found
from dropattack.statistics import MIN_SEEDS, UNKNOWN, PairedDifference
from dropattack.statistics.pooled import Pooled, Ranks, ranks
from dropattack.statistics.power import seeds_needed

PICTURE = "claims.png"
TESTS = {
    "cell": "paired t-test over the seeds, with the correction of that table",
    "less": "paired t-test over the seeds against plain training on all of the data, with the correction of that table",
    "pooled": "random-effects estimate over data sets of the differences paired by seed",
    "norm": "random-effects estimate over data sets of the ratio paired by seed, averaged over the epochs",
    "probe": "random-effects estimate over data sets of the ratio paired by seed, of the finished networks",
}
HOW = """\
Outcomes: **supported here** and **contradicted here** need a corrected p below 5 %; **equivalent** means that two
one-sided tests at 5 % show the difference to lie within ± {margin:g} points (for a claim of sameness that is
support); **not known** is everything else that has {least} seeds; **not tested** means that no run decides it.
“Here” is the setting named beside it, not the paper's.

A claim is decided at the most credible scale that has enough runs: full, then midi, then mini (a claim over data
sets needs two of them). The p-value of a claim about one row of a table has the correction of that table. All other
claims of one source are one family, corrected by Holm. Pooled: DerSimonian and Laird's estimate, with the modified
interval of Hartung and Knapp, which is never narrower than without their correction (Röver et al. 2015). Tests of
equivalence are not corrected. Ratios are of geometric means, with plain training at 1."""


def write(results: Path, claims: Claims, found: Sequence[Found]) -> list[Path]:
    """Write results/claims.md and its picture; return their paths."""
    made = [save(page(claims, found), results / "claims.md")]
    answer = answers(claims, found)
    if answer:
        shown = headline_scale(answer)
        names, ranked = ranking(claims, found, shown.scale)
        cells = [(cell.name, cell.difference) for cell in shown.cells]
        made += [
            claim_figure(cells, shown.pooled, claims.ranked, ranked, results / f"claims{suffix}", scale=shown.scale,
                 datasets=len(names))
            for suffix in (".png", ".svg")
        ]  # fmt: skip
    return made


def headline_scale(answer: Sequence[ScaleAnswer]) -> ScaleAnswer:
    """Return the most credible scale that has a pooled answer, or else the most credible one."""
    return next((one for one in answer if one.pooled), answer[0])


def page(claims: Claims, found: Sequence[Found]) -> str:
    """Return results/claims.md."""
    outcomes, answer = decide(claims, found), answers(claims, found)
    parts = [
        "# Claims\n\nMade by `make claims` from the records in this folder and "
        "[conf/claims.yaml](../conf/claims.yaml): what the paper and the papers of the other methods claim, and what "
        "the runs here say.",
        "\n".join(
            [f"**{headline(answer)}**\n", *(f"- {one}" for one in filter(None, [*sentences(answer), cost(answer)]))]
        ),
        tally(outcomes),
        markdown(summary(outcomes)).strip(),
        HOW.format(margin=claims.margin, least=MIN_SEEDS),
        "## Over all data sets",
        *([f"![DropAttack against plain training, and mean ranks]({PICTURE})"] if answer else []),
        markdown(pooled_table(answer)).strip(),
        *ranking_words(claims, found),
        "## Claim by claim",
        *(details(one, claims.margin) for one in outcomes),
    ]
    return "\n\n".join(parts) + "\n"


def tally(outcomes: Sequence[Outcome]) -> str:
    """Count the outcomes, and those that rest on mini alone."""
    counts = [f"{sum(one.outcome == word for one in outcomes)} {word}" for word in OUTCOMES]
    mini = sum(one.scale == "mini" for one in outcomes)
    tested = sum(bool(one.cells) for one in outcomes)
    return (
        f"Of {len(outcomes)} claims: {', '.join(counts)}. Of the {tested} that were tested, {mini} rest on mini alone "
        f"({MINI}). Each is decided at the most credible scale that has enough runs; others are listed below the claim "
        "as not counted, and the answer above has all of them."
    )


def summary(outcomes: Sequence[Outcome]) -> Table:
    """Return one row per claim."""
    columns = ("claim", "outcome", "scale", "difference [95 % interval]", "p", "data sets", "seeds")
    rows = tuple(
        (
            f"[{one.claim.claim}](#{one.claim.id})", one.outcome, one.scale or NOTHING, effect(one), p_value(one.p),
            str(len(one.cells)) if one.cells else NOTHING, seeds(one.cells),
        )
        for one in outcomes
    )  # fmt: skip
    return Table(columns, rows, 3)


def effect(one: Outcome) -> str:
    """Format the difference that decided a claim: in points, or as a ratio such as `×0.55 [0.41, 0.72]`."""
    if not one.cells:
        return NOTHING
    found: Pooled | PairedDifference = one.pooled or one.cells[0].difference
    if one.claim.test in RATIOS:
        return _ratio(found)
    return interval(one.pooled) if one.pooled else difference_and_interval(one.cells[0].difference)


def _ratio(found: Pooled | PairedDifference) -> str:
    mean, low, high = (f"{math.exp(value):.2f}" for value in (found.mean, found.low, found.high))
    return f"×{mean} [{low}, {high}]"


def seeds(cells: Sequence[Evidence]) -> str:
    counts = sorted({cell.difference.n for cell in cells})
    return NOTHING if not counts else str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def pooled_table(answer: Sequence[ScaleAnswer]) -> Table:
    """Return one row per scale: pooled difference of DropAttack, heterogeneity, signed-rank probabilities."""
    columns = ("scale", "data sets", "pooled difference [95 % interval]", "p", "verdict", "between data sets (SD)",
               "I²", "p (heterogeneity)", "P(worse)", "P(equivalent)", "P(better)")  # fmt: skip
    rows = []
    for one in answer:
        names = ", ".join(cell.name for cell in one.cells)
        if one.pooled is None or one.posterior is None:
            rows.append((one.scale, names, "fewer than two data sets: not pooled", *[NOTHING] * 8))
            continue
        found, chances = one.pooled, one.posterior
        rows.append((
            one.scale, names, interval(found), p_value(found.p), one.verdict, f"{found.tau:.2f}",
            f"{100 * found.i2:.0f} %", p_value(found.p_heterogeneity),
            *(f"{chance:.2f}" for chance in (chances.worse, chances.equivalent, chances.better)),
        ))  # fmt: skip
    note = (
        "DropAttack minus plain training, in points. The last three columns: a Bayesian signed-rank test of the "
        "data sets' mean differences, which ignores their spread over seeds."
    )
    return Table(columns, tuple(rows), 2, (note,))


def ranking(claims: Claims, found: Sequence[Found], scale: str) -> tuple[list[str], Ranks | None]:
    """Return the data sets and models on which all ranked methods ran, and the mean ranks, if there are enough."""
    names, table = scores(claims, found, scale)
    return names, ranks(table) if len(table) > 1 and len(claims.ranked) > 2 else None


def ranking_words(claims: Claims, found: Sequence[Found]) -> list[str]:
    """Return a paragraph on mean ranks for each scale that has them."""
    said = []
    for scale in claims.scales:
        names, ranked = ranking(claims, found, scale)
        if ranked is not None:
            listed = sorted(zip(ranked.mean, claims.ranked, strict=True))
            said.append(
                f"Mean ranks at {scale} over {ranked.n} data sets and models ({', '.join(names)}; 1 is best): "
                f"{', '.join(f'{method} {mean:.2f}' for mean, method in listed)}. Friedman's test: "
                f"{p_words(ranked.p)}. Nemenyi's critical difference at 5 %: {ranked.critical:.2f}."
            )
    return said or ["Mean ranks need at least two data sets on which all methods ran; there are none."]


def details(one: Outcome, margin: float) -> str:
    """Return the section of one claim."""
    claim = one.claim
    result = f" ({one.scale}): {effect(one)}, {p_words(one.p)}, {seeds(one.cells)} seeds" if one.cells else ""
    quantity = f", `{claim.quantity}`" if claim.quantity else ""
    lines = [
        f"### {claim.id}\n",
        f"{claim.claim} Source: {claim.source}.\n",
        f"- **{one.outcome[0].upper()}{one.outcome[1:]}**{result}.",
        f"- Test: {TESTS[claim.test]}; {claim.method} against {claim.against}{quantity}; the claim expects: "
        f"{claim.says}.",
    ]
    if one.cells:
        lines.append(f"- Decided by: {'; '.join(_cell(cell, claim.test) for cell in one.cells)}.")
    if one.others:
        lines.append(f"- Not counted: {'; '.join(_cell(cell, claim.test) for cell in one.others)}.")
    lines.append(f"- What would change it: {_changes(one, margin)}")
    return "\n".join(lines)


def _cell(cell: Evidence, test: str) -> str:
    value = _ratio(cell.difference) if test in RATIOS and cell.difference.n > 1 else (
        difference_and_interval(cell.difference))  # fmt: skip
    rows = f", {cell.rows} training rows" if cell.rows else ""
    where = f"[{cell.table}]({cell.scale}/{cell.table}/table.md)"
    return f"{cell.name} in {where} ({cell.scale}{rows}): {value}, n = {cell.difference.n}"


def _changes(one: Outcome, margin: float) -> str:
    computed = ""
    if one.outcome == NOT_TESTED and one.others:
        computed = " So far there are fewer than three seeds, or only one data set."
    elif one.outcome == UNKNOWN and one.claim.test not in RATIOS:
        if one.pooled is None:
            needed = seed_count(seeds_needed(one.cells[0].difference, 1.0, 0.05))
            computed = f" With this spread, {needed} seeds would detect one point at 5 % without a correction."
        else:
            computed = f" The pooled interval must leave zero, or shrink to within ± {margin:g} points."
    return f"{one.claim.changes}{computed}"
