"""The answer in a few sentences: per scale the primary comparisons and their pooled difference."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from dropattack.analysis.findings import Rival, rivals
from dropattack.analysis.formats import difference_and_interval, p_words, signed
from dropattack.report.claims import Claim, Claims, Evidence, cells
from dropattack.report.gather import Found
from dropattack.report.methods import without_methods
from dropattack.statistics import BETTER, EQUIVALENT, MIN_SEEDS, UNKNOWN, VERDICTS, verdict
from dropattack.statistics.pooled import Pooled, Posterior, pool, pooled_verdict, signed_rank

CREDIBLE = ("full", "midi")
MINI = (
    "mini: real data cut down for two CPU cores, and small networks that a bag of words with logistic regression beats "
    "on the text data sets; an indication, not a result"
)
CONTROL = "randomattack"
PRETRAINED = "pretrained"  # the claim on pretrained encoders
RECIPE = "midi_recipe"  # the table in which plain training has the learning rate of its recipe
EPOCHS = "Both sides of a comparison have the same number of epochs, so DropAttack took longer."
NAMES = {"imdb": "IMDB", "agnews": "AG News", "pheme": "PHEME", "mnist": "MNIST", "cifar10": "CIFAR-10"}


@dataclass(frozen=True)
class ScaleAnswer:
    """The comparisons of one scale that have enough seeds, and what they say together.

    Attributes:
        scale: the scale.
        cells: one comparison per data set and model.
        pooled: None with fewer than two data sets.
        verdict: on the pooled difference.
        posterior: of the Bayesian signed-rank test; None with fewer than two data sets.
        controls: for each of `cells` the random direction against plain training, None where it was not run.
        longer: for each of `cells` DropAttack against plain training for as many passes, None where it was not run. Its
            verdict is by the p-value without correction.
        others: DropAttack against each other method and the random direction.
        encoders: DropAttack against plain training with a pretrained encoder, which is not in the pooled difference.
        recipe: DropAttack against plain training with the learning rate of its recipe, which was not searched again.
    """

    scale: str
    cells: tuple[Evidence, ...]
    pooled: Pooled | None
    verdict: str
    posterior: Posterior | None
    controls: tuple[Evidence | None, ...] = ()
    longer: tuple[Evidence | None, ...] = ()
    others: tuple[Rival, ...] = ()
    encoders: tuple[Evidence, ...] = ()
    recipe: tuple[Evidence, ...] = ()


def answers(claims: Claims, found: Sequence[Found]) -> list[ScaleAnswer]:
    """Return the answer of each scale that has a comparison, the most credible scale first."""
    every = [cell for cell in cells(claims.pooled, found, claims.scales) if cell.counts]
    made = []
    controls = _beside(replace(claims.pooled, method=CONTROL), claims, found)
    longer = {
        place: replace(cell, verdict=verdict(cell.difference, cell.difference.p, claims.margin))
        for place, cell in _beside(replace(claims.pooled, against="longer"), claims, found).items()
    }
    others = _others(found, claims.removed)
    claim = next((one for one in claims.claims if one.id == PRETRAINED), None)
    pretrained = [cell for cell in cells(claim, found, claims.scales) if cell.counts] if claim else []
    checks = [cell for cell in cells(replace(claims.pooled, tables=(RECIPE,)), found, claims.scales) if cell.counts]
    for scale in claims.scales:
        own = tuple(cell for cell in every if cell.scale == scale)
        if not own:
            continue
        pooled = pool([cell.difference for cell in own])
        posterior = signed_rank([cell.difference.mean for cell in own], claims.margin) if len(own) > 1 else None
        said = pooled_verdict(pooled, pooled.p if pooled else math.nan, claims.margin)
        places = [(cell.scale, cell.table, cell.dataset) for cell in own]
        control, long = (tuple(map(beside.get, places)) for beside in (controls, longer))
        encoders = tuple(cell for cell in pretrained if cell.scale == scale)
        recipe = tuple(cell for cell in checks if cell.scale == scale)
        rest = (control, long, others.get(scale, ()), encoders, recipe)
        made.append(ScaleAnswer(scale, own, pooled, said, posterior, *rest))
    return made


def headline(found: Sequence[ScaleAnswer]) -> str:
    """Return one sentence: does it help, by the primary comparisons at the credible scales?"""
    verdicts = [cell.verdict for one in found if one.scale in CREDIBLE for cell in one.cells]
    better = verdicts.count(BETTER)
    if not verdicts or not better:
        return "Nobody can say yes yet."
    where = "wherever it was tested" if better == len(verdicts) else "on some data sets"
    said = f"At equal epochs, DropAttack beats plain training {where}"
    longer = [cell for one in found if one.scale in CREDIBLE for cell in one.longer if cell]
    if not longer:
        return f"{said}."
    scales = " and ".join(dict.fromkeys(cell.scale for cell in longer))
    return f"{said}; at an equal number of passes ({scales}) it is {_verdicts(longer).replace('; ', ', ')}."


def sentences(found: Sequence[ScaleAnswer]) -> list[str]:
    """Return the answer in sentences: every primary comparison of the credible scales, then the pooled differences."""
    said = []
    for one in found:
        if one.scale in CREDIBLE:
            for cell, control, longer in zip_longest(one.cells, one.controls, one.longer):
                said += [_comparison(cell), *([_control(control)] if control else [])]
                said += [_equal_time(longer)] if longer else []
            if one.pooled:
                said.append(_pooled(one))
            said += [_with_recipe(one.recipe)] if one.recipe else []
            said += [_comparison(cell) for cell in one.encoders]
            said += [EPOCHS] if EPOCHS not in said else []
        else:
            said.append(_summary(one))
    if not any(one.scale in CREDIBLE for one in found):
        said.insert(0, "No comparison with three seeds exists at full or midi scale; everything below is mini.")
    return said


def in_short(found: Sequence[ScaleAnswer]) -> list[str]:
    """Return the answer in a few sentences: verdicts at the credible scales, equal time, the control, and the cost.

    Without a comparison at a credible scale, the first gives the verdicts of the others.
    """
    said = []
    credible = [one for one in found if one.scale in CREDIBLE]
    if credible:
        verdicts = _verdicts([cell for one in credible for cell in one.cells], _numbers)
        where = "Against plain training for the same number of epochs"
        said.append(f"{where}, DropAttack's verdicts are: {verdicts}.")
        said += [_with_recipe(one.recipe) for one in credible if one.recipe]
        said += [_pooled(one) for one in credible if one.pooled]
    if encoders := [cell for one in credible for cell in one.encoders]:
        said.append(f"With a pretrained encoder, DropAttack's verdicts are: {_verdicts(encoders, _numbers)}.")
    if longer := [cell for one in credible for cell in one.longer if cell]:
        where = "Against plain training for as many passes (intervals not corrected)"
        said.append(f"{where}, DropAttack gives {_gains(longer)}.")
    if controls := [cell for one in credible for cell in one.controls if cell]:
        said.append(f"The control, the same masks and lengths along a random direction, gives {_gains(controls)}.")
    rivals_there = [rival for one in credible for rival in one.others if rival.difference.n >= MIN_SEEDS]
    if directly := [rival for rival in rivals_there if rival.other == CONTROL]:
        said.append(f"Compared with this control directly, DropAttack's verdicts are: {_against(directly)}.")
    if others := [rival for rival in rivals_there if rival.other != CONTROL]:
        said.append(f"Against the other methods, its verdicts are: {_against(others)}.")
    return [*(said or [_summary(one) for one in found]), *filter(None, [cost(found)])]


def cost(found: Sequence[ScaleAnswer]) -> str:
    """Return what a step costs, as measured in the runs of credible scale, if any; empty if it was not measured."""
    found = [one for one in found if one.scale in CREDIBLE] or found
    timed = [cell for one in found for cell in one.cells if not math.isnan(cell.cost)]
    ratios = sorted(cell.cost for cell in timed)
    if not ratios:
        return ""
    where = f"in the runs of {' and '.join(dict.fromkeys(cell.scale for cell in timed))}"
    middle = (ratios[(len(ratios) - 1) // 2] + ratios[len(ratios) // 2]) / 2
    least, most = (f"{value:.1f}" for value in (ratios[0], ratios[-1]))
    if least == most:
        return f"A step of DropAttack takes {least} times as long as a plain one {where}."
    return f"A step of DropAttack takes {least} to {most} times as long as a plain one {where} (median {middle:.1f})."


def dataset_name(name: str) -> str:
    return NAMES.get(name, name)


def _comparison(cell: Evidence) -> str:
    d = cell.difference
    verdict = {BETTER: "better than", EQUIVALENT: "equivalent to"}.get(cell.verdict)
    sign = "above" if d.mean > 0 else "below"
    words = f"DropAttack is {verdict} plain training" if verdict else (
        "whether DropAttack differs from plain training is not known" if cell.verdict == UNKNOWN
        else "DropAttack is worse than plain training")  # fmt: skip
    rows = f", {cell.rows} training rows" if cell.rows else ""
    all_seeds = all(value > 0 for value in d.values) or all(value < 0 for value in d.values)
    seeds = f", and {sign} in each of {d.n} seeds;" if all_seeds else f" over {d.n} seeds;"
    return (
        f"On {dataset_name(cell.dataset)} at {cell.scale} scale ({cell.model}{rows}), {words}: its accuracy is "
        f"{abs(d.mean):.2f} points {sign} on average [{signed(d.low)}, {signed(d.high)}]{seeds} "
        f"{p_words(cell.p)} after correction for the planned comparisons."
    )


def _pooled(one: ScaleAnswer) -> str:
    assert one.pooled is not None
    return (
        f"Over {one.pooled.k} data sets at {one.scale} scale the pooled difference is {interval(one.pooled)} points, "
        f"{p_words(one.pooled.p)}: {one.verdict}."
    )


def _summary(one: ScaleAnswer) -> str:
    pooled = f" {_pooled(one)}" if one.pooled else ""
    where = f"On data that was cut down for two CPU cores ({one.scale})"
    return f"{where}, DropAttack's verdicts are: {_verdicts(one.cells)}.{pooled}"


def _verdicts(chosen: Sequence[Evidence], numbers: Callable[[Evidence], str] | None = None) -> str:
    """Return the data sets of each verdict: `better on MNIST, PHEME; not known on IMDB`."""
    said = []
    for word in VERDICTS:
        own = [cell for cell in chosen if cell.verdict == word]
        names = sorted({_name(cell) for cell in own})
        if numbers:  # of each scale
            names = [f"{name} ({'; '.join(numbers(cell) for cell in own if _name(cell) == name)})" for name in names]
        said += [f"{word} on {', '.join(names)}"] if names else []
    return "; ".join(said)


def _against(chosen: Sequence[Rival]) -> str:
    """Return where each verdict is, and against which methods: `equivalent on MNIST (full: dropout, fgm)`."""
    said = []
    for word in VERDICTS:
        methods: dict[tuple[str, str], set[str]] = {}
        for one in chosen:
            if one.verdict == word:
                place = dataset_name(one.dataset), one.table.rpartition(", ")[2]
                methods.setdefault(place, set()).add(one.other)
        places = []
        for (name, scale), own in sorted(methods.items()):
            named = "" if own == {CONTROL} else f": {', '.join(sorted(own))}"
            places.append(f"{name} ({scale}{named})")
        said += [f"{word} on {', '.join(places)}"] if places else []
    return "; ".join(said)


def _name(cell: Evidence) -> str:
    return dataset_name(cell.dataset)


def _numbers(cell: Evidence) -> str:
    d = cell.difference
    return f"{cell.scale}: {signed(d.mean)} points [{signed(d.low)}, {signed(d.high)}], {d.n} seeds"


def interval(pooled: Pooled) -> str:
    """Format as `+0.31 [−0.20, +0.82]`."""
    return f"{signed(pooled.mean)} [{signed(pooled.low)}, {signed(pooled.high)}]"


def _beside(claim: Claim, claims: Claims, found: Sequence[Found]) -> dict[tuple[str, str, str], Evidence]:
    """Return the comparisons of `claim` with enough seeds, by scale, table and data set."""
    return {(cell.scale, cell.table, cell.dataset): cell for cell in cells(claim, found, claims.scales) if cell.counts}


def _others(found: Sequence[Found], removed: int) -> dict[str, tuple[Rival, ...]]:
    """Return by scale the comparisons with other methods, without `longer`, which has its own sentences."""
    compared = [one for one in without_methods(found) if one.table.kind == "comparison" and one.table.seeds > 1]
    tables = {f"{one.table.name}, {one.scale}": one for one in compared}
    plans = {name: one.table.plan for name, one in tables.items()}
    every = rivals({name: one.frame for name, one in tables.items()}, plans=plans, removed=removed)
    named: dict[str, tuple[Rival, ...]] = {}
    for one in every:
        if one.other != "longer":
            scale = one.table.rpartition(", ")[2]
            named[scale] = (*named.get(scale, ()), one)
    return named


def _gains(chosen: Sequence[Evidence]) -> str:
    return ", ".join(f"{difference_and_interval(cell.difference)} on {_name(cell)} ({cell.scale})" for cell in chosen)


def _equal_time(cell: Evidence) -> str:
    gain = difference_and_interval(cell.difference)
    return (
        f"Against plain training for as many passes (more epochs, a learning rate of its own), DropAttack gave {gain} "
        f"points on {_name(cell)}: {cell.verdict}; {p_words(cell.difference.p)}, not corrected."
    )


def _with_recipe(checks: Sequence[Evidence]) -> str:
    return (
        "Where plain training keeps its recipe's learning rate instead of the searched one (planned after the table "
        f"had been seen), DropAttack's verdicts are: {_verdicts(checks, _numbers)}."
    )


def _control(cell: Evidence) -> str:
    verdict = "equivalent to plain training" if cell.verdict == EQUIVALENT else cell.verdict
    gain = difference_and_interval(cell.difference)
    return f"The same masks and lengths along a random direction gave {gain} points on {_name(cell)}: {verdict}."
