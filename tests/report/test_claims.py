"""Claims are decided by the right comparisons, at the most credible scale, and impossible claims are refused."""

import math
import re
from dataclasses import replace

import pytest
import yaml

from dropattack.analysis.compare import compare
from dropattack.analysis.data_efficiency import data_efficiency
from dropattack.errors import UserError
from dropattack.report import answer, gather
from dropattack.report.claim_page import effect, page
from dropattack.report.claims import CONTRADICTED, NOT_TESTED, OUTCOMES, SUPPORTED, decide, read_claims
from dropattack.report.findings import findings
from dropattack.report.page import build
from dropattack.runs.experiment import CONF
from dropattack.statistics import BETTER, EQUIVALENT, UNKNOWN, WORSE, Primary, paired_difference
from dropattack.statistics.pooled import pool
from dropattack.sweeps.table import TableConfig, load_table
from tests.report import folders
from tests.report.conftest import ROOT

TABLES = ("vision", "half_data")
BASE = {"claim": "It helps.", "source": "a paper", "test": "cell", "says": "better", "method": "dropattack",
        "changes": "More seeds.", "datasets": ["mnist"], "tables": ["vision"]}  # fmt: skip


def written(tmp_path, *entries, **changes):
    content = {
        "scales": ["full", "midi", "mini"], "margin": 0.5,
        "pooled": {"method": "dropattack", "against": "none", "tables": ["vision"]},
        "ranked": {"methods": ["none", "dropout", "fgm", "dropattack"], "tables": ["vision"]},
        "claims": [{"id": f"c{i}", **BASE, **entry} for i, entry in enumerate(entries)], **changes,
    }  # fmt: skip
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def tables(results):
    return gather.tables(results, [load_table(CONF, name) for name in TABLES])[0]


@pytest.fixture(scope="module")
def found(filled):
    return tables(filled)


def outcome(tmp_path, found, **entry):
    (one,) = decide(read_claims(written(tmp_path, entry), TABLES), found)
    return one


def test_one_row_has_the_verdict_of_its_table(tmp_path, found):
    one = outcome(tmp_path, found)
    (vision,) = [table for table in found if table.table.name == "vision"]
    row = vision.compared.query("dataset == 'mnist' and method == 'dropattack'").iloc[0]
    assert (one.outcome, one.p, one.scale) == (SUPPORTED, row["p_holm"], "mini")
    assert one.cells[0].difference == row["difference"]
    assert outcome(tmp_path, found, method="fgm").outcome == CONTRADICTED
    assert outcome(tmp_path, found, method="sam").outcome == NOT_TESTED
    assert outcome(tmp_path, found, where={"reg.epsilon": 7}).outcome == NOT_TESTED


def test_pooled_claim_is_the_pooled_difference(tmp_path, found):
    one = outcome(tmp_path, found, test="pooled", against="fgm", datasets=[])
    assert [cell.dataset for cell in one.cells] == ["cifar10", "mnist"]
    expected = pool([cell.difference for cell in one.cells])
    assert one.pooled == expected
    assert one.p == expected.p  # a family of one
    frame = next(table.frame for table in found if table.table.name == "vision")
    rows = compare(frame, baseline="fgm").query("method == 'dropattack'")
    assert [cell.difference.mean for cell in one.cells] == pytest.approx([d.mean for d in rows["difference"]])


def test_a_data_set_of_two_tables_counts_once(tmp_path, found):
    (vision,) = [table for table in found if table.table.name == "vision"]
    again = replace(vision, table=replace(vision.table, name="half_data"))
    one = outcome(tmp_path, [vision, again], test="pooled", against="fgm", datasets=[], tables=[*TABLES])
    assert [(cell.table, cell.dataset) for cell in one.cells] == [("vision", "cifar10"), ("vision", "mnist")]


def test_a_data_set_with_two_models_counts_once(tmp_path, found):
    (vision,) = [table for table in found if table.table.name == "vision"]
    frame = vision.frame.assign(model="other", context=vision.frame["context"] + "-other")
    records = replace(vision.records, frame=frame)
    other = replace(vision, table=replace(vision.table, name="half_data"), records=records)
    one = outcome(tmp_path, [vision, other], test="pooled", against="fgm", datasets=[], tables=[*TABLES])
    assert [(cell.model, cell.dataset) for cell in one.cells] == [("vgg", "cifar10"), ("cnn", "mnist")]


def test_claims_of_one_source_are_corrected_together(tmp_path, found):
    entry = {"test": "pooled", "against": "fgm", "datasets": []}
    claims = read_claims(written(tmp_path, entry, {**entry, "against": "dropout"}, {**entry, "source": "b"}), TABLES)
    one, other, alone = decide(claims, found)
    raw = [pool([cell.difference for cell in x.cells]).p for x in (one, other)]
    assert min(one.p, other.p) == pytest.approx(2 * min(raw))
    assert alone.p == pytest.approx(raw[0])


def test_less_data_is_compared_with_all_of_it(tmp_path, found):
    less = {"test": "less", "says": "same", "tables": ["half_data"], "x": "dataset.fraction"}
    assert outcome(tmp_path, found, **less, at=0.5).outcome == SUPPORTED  # better than plain training on all of it
    one = outcome(tmp_path, found, **less, at=0.1)
    (half_data,) = [table for table in found if table.table.name == "half_data"]
    expected = [row for row in data_efficiency(half_data.frame, "dataset.fraction") if row.value == 0.1]
    assert {row.method: row.p_holm for row in expected}["dropattack"] == one.p
    assert one.cells[0].difference.mean == pytest.approx(-6, abs=0.3)
    assert one.outcome == CONTRADICTED


def test_probe_is_a_ratio(tmp_path, found):
    one = outcome(tmp_path, found, test="probe", says="lower", quantity="flatness.sharpness")
    assert math.exp(one.cells[0].difference.mean) == pytest.approx(0.5)
    assert effect(one).startswith("×0.50 [")
    assert one.outcome == UNKNOWN  # four equal ratios: p = 1/8 by the sign-flip test
    assert outcome(tmp_path, found, test="probe", says="lower", quantity="flatness.other").outcome == NOT_TESTED


def test_the_most_credible_scale_decides(quick_git, tmp_path):
    for scale, base in (("mini", 0.5), ("full", 0.9)):
        for method in ("none", "dropattack"):
            for seed in range(4 if scale == "mini" else 3):
                folders.run(tmp_path / scale / "vision", method, seed=seed, base=base)
    one = outcome(tmp_path, tables(tmp_path))
    assert one.scale == "full"
    assert [(cell.scale, cell.difference.n) for cell in one.others] == [("mini", 4)]
    (first, second) = answer.answers(read_claims(written(tmp_path, {}), TABLES), tables(tmp_path))
    assert (first.scale, second.scale, first.pooled) == ("full", "mini", None)


def test_claim_over_data_sets_needs_two_of_them(quick_git, tmp_path):
    for method in ("none", "dropattack"):
        for seed in range(3):
            folders.run(tmp_path / "mini" / "vision", method, seed=seed)
    assert outcome(tmp_path, tables(tmp_path), test="pooled", datasets=[]).outcome == NOT_TESTED
    assert outcome(tmp_path, tables(tmp_path), test="pooled").outcome == SUPPORTED


def test_the_random_direction_is_reported_beside_its_comparison(quick_git, tmp_path):
    for method in ("none", "dropattack", "randomattack"):
        for seed in range(3):
            folders.run(tmp_path / "full" / "vision", method, seed=seed)
    claims = read_claims(written(tmp_path, {}), TABLES)
    first, second, last = answer.sentences(answer.answers(claims, tables(tmp_path)))
    assert first.startswith(
        "On MNIST at full scale (cnn), DropAttack is better than plain training: its accuracy is 2.0"
    )
    assert second.startswith("The same masks and lengths along a random direction gave ")
    assert last == answer.EPOCHS


def test_equal_time_is_reported_beside_its_comparison(quick_git, tmp_path):
    for method in ("none", "dropattack", "longer"):
        for seed in range(3):
            folders.run(tmp_path / "full" / "vision", method, seed=seed)
    claims = read_claims(written(tmp_path, {}), TABLES)
    (found,) = answer.answers(claims, tables(tmp_path))
    (against,) = found.longer
    assert against.difference.n == 3
    assert answer.sentences([found])[1].startswith("Against plain training for as many passes")


def test_an_encoder_is_reported_beside_the_answer_and_not_pooled(quick_git, tmp_path):
    for method in ("none", "dropattack"):
        for seed in range(3):
            folders.run(tmp_path / "midi" / "vision", method, seed=seed)
            folders.run(tmp_path / "midi" / "half_data", method, seed=seed, dataset="agnews", model="bert")
    entry = {"id": "pretrained", "test": "pooled", "datasets": [], "tables": ["half_data"]}
    (found,) = answer.answers(read_claims(written(tmp_path, entry), TABLES), tables(tmp_path))
    assert [cell.dataset for cell in found.encoders] == ["agnews"]
    assert [cell.dataset for cell in found.cells] == ["mnist"]
    assert "With a pretrained encoder, DropAttack's verdicts are: better on AG News (midi: +2.0" in " ".join(
        answer.in_short([found])
    )


def test_the_recipes_rate_is_reported_beside_the_answer(quick_git, tmp_path, monkeypatch):
    monkeypatch.setattr(answer, "RECIPE", "half_data")
    for method in ("none", "dropattack"):
        for seed in range(3):
            folders.run(tmp_path / "midi" / "vision", method, seed=seed)
            folders.run(tmp_path / "midi" / "half_data", method, seed=seed, dataset="agnews", model="bigru")
    (found,) = answer.answers(read_claims(written(tmp_path, {}), TABLES), tables(tmp_path))
    assert [cell.dataset for cell in found.recipe] == ["agnews"]
    assert [cell.dataset for cell in found.cells] == ["mnist"]
    for said in (answer.in_short([found]), answer.sentences([found])):
        (own,) = [one for one in said if "its recipe's learning rate" in one]
        assert "verdicts are: better on AG News (midi: +2.0" in own


def test_two_seeds_decide_nothing(quick_git, tmp_path):
    for method in ("none", "dropattack"):
        for seed in range(2):
            folders.run(tmp_path / "full" / "vision", method, seed=seed)
    one = outcome(tmp_path, tables(tmp_path))
    assert (one.outcome, one.cells, len(one.others)) == (NOT_TESTED, (), 1)
    claims = read_claims(written(tmp_path, {}), TABLES)
    assert answer.headline(answer.answers(claims, tables(tmp_path))) == "Nobody can say yes yet."
    assert "So far there are fewer than three seeds, or only one data set." in page(claims, tables(tmp_path))


def test_equal_results_are_equivalent(quick_git, tmp_path):
    for method in ("none", "pgd"):
        for seed in range(5):
            folders.run(tmp_path / "mini" / "vision", method, seed=seed)
    assert outcome(tmp_path, tables(tmp_path), method="pgd").outcome == EQUIVALENT
    assert outcome(tmp_path, tables(tmp_path), method="pgd", says="same").outcome == SUPPORTED


def test_two_rows_of_a_method_need_a_choice(quick_git, tmp_path):
    folders.run(tmp_path / "mini" / "half_data", "none")
    for epsilon in (1.0, 2.0):
        folders.run(tmp_path / "mini" / "half_data", "dropattack", epsilon=epsilon)
    with pytest.raises(UserError, match="half_data at mini has several rows of dropattack on mnist; select one"):
        outcome(tmp_path, tables(tmp_path), test="pooled", tables=["half_data"])


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"test": "guess"}, "that do not fit"),
        ({"says": "nice"}, "that do not fit"),
        ({"datasets": []}, "that do not fit"),
        ({"against": "fgm"}, "that do not fit"),
        ({"test": "norm", "quantity": "gradients.nose"}, "that do not fit"),
        ({"test": "less"}, "that do not fit"),
        ({"colour": 1}, "unexpected keyword argument 'colour'"),
        ({"tables": ["nowhere"]}, "there is no table nowhere"),
    ],
)
def test_impossible_claims_are_refused(tmp_path, entry, says):
    with pytest.raises(UserError, match=re.escape(says)):
        read_claims(written(tmp_path, entry), TABLES)


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"margin": "wide"}, "is not a file of claims"), ({"scales": ["huge"]}, "scales has huge"),
     ({"claims": [{"id": "a", **BASE}, {"id": "a", **BASE}]}, "a occurs twice")],
)  # fmt: skip
def test_impossible_files_are_refused(tmp_path, changes, says):
    with pytest.raises(UserError, match=says):
        read_claims(written(tmp_path, **changes), TABLES)


def test_the_page_has_every_claim_and_the_answer(tmp_path, found):
    claims = read_claims(written(tmp_path, {}, {"method": "sam"}, {"test": "pooled", "datasets": []}), TABLES)
    text = page(claims, found)
    for claim in claims.claims:
        assert f"### {claim.id}\n" in text
        assert f"](#{claim.id})" in text
    assert "1 not tested" in text
    assert "rest on mini alone" in text
    assert "No comparison with three seeds exists at full or midi scale" in text
    assert "Friedman's test" in text


def test_the_sentences_have_the_numbers_of_the_records():
    difference = paired_difference({0: 2.0, 1: 1.0, 2: 1.5}, {0: 0.0, 1: 0.0, 2: 0.0})
    cell = answer.Evidence("paper", "full", "imdb", "lstm", "40,000", difference, 3.6, 0.08, UNKNOWN)
    found = [answer.ScaleAnswer("full", (cell,), None, UNKNOWN, None)]
    assert answer.sentences(found) == [
        "On IMDB at full scale (lstm, 40,000 training rows), whether DropAttack differs from plain training is not "
        "known: its accuracy is 1.50 points above on average [+0.26, +2.74], and above in each of 3 seeds; "
        "p = 0.080 after correction for the planned comparisons.",
        "Both sides of a comparison have the same number of epochs, so DropAttack took longer.",
    ]
    assert answer.in_short(found) == [
        "Against plain training for the same number of epochs, DropAttack's verdicts are: not known on IMDB "
        "(full: +1.50 points [+0.26, +2.74], 3 seeds).",
        answer.cost(found),
    ]
    control = answer.Evidence("paper", "full", "imdb", "lstm", "40,000", difference, 3.6, 0.08, UNKNOWN)
    assert answer.in_short([replace(found[0], controls=(control,))])[1] == (
        "The control, the same masks and lengths along a random direction, gives +1.50 [+0.26, +2.74] on IMDB (full)."
    )
    better = replace(control, verdict=BETTER)
    longer, worse = replace(found[0], longer=(better,)), replace(control, dataset="mnist", verdict=WORSE)
    assert answer.headline([replace(found[0], cells=(better,), longer=(better, worse))]) == (
        "At equal epochs, DropAttack beats plain training wherever it was tested; at an equal number of passes "
        "(full) it is better on IMDB, worse on MNIST."
    )
    assert answer.in_short([longer])[1] == (
        "Against plain training for as many passes (intervals not corrected), DropAttack gives +1.50 [+0.26, +2.74] on "
        "IMDB (full)."
    )
    assert answer.sentences([longer])[1] == (
        "Against plain training for as many passes (more epochs, a learning rate of its own), DropAttack gave "
        "+1.50 [+0.26, +2.74] points on IMDB: better; p = 0.035, not corrected."
    )
    names = (("mnist", "fgm", EQUIVALENT), ("mnist", "dropout", EQUIVALENT), ("imdb", "fgm", UNKNOWN))
    others = tuple(answer.Rival("paper, full", d, "cnn", d, m, m, difference, 1.0, v) for d, m, v in names)
    assert answer.in_short([replace(found[0], others=others)])[1] == (
        "Against the other methods, its verdicts are: equivalent on MNIST (full: dropout, fgm); not known on IMDB "
        "(full: fgm)."
    )
    direct = answer.Rival("midi, midi", "mnist", "cnn", "mnist", "randomattack", "", difference, 1.0, EQUIVALENT)
    assert answer.in_short([replace(found[0], others=(direct,))])[1] == (
        "Compared with this control directly, DropAttack's verdicts are: equivalent on MNIST (midi)."
    )
    assert answer.cost(found) == "A step of DropAttack takes 3.6 times as long as a plain one in the runs of full."


def test_the_report_opens_with_the_answer(tmp_path, filled, make):
    claims = read_claims(written(tmp_path, {}), TABLES)
    text = build(filled, tables=[load_table(CONF, name) for name in TABLES], docs=ROOT / "docs", claims=claims)
    places = [
        text.index(f'<section id="{name}"')
        for name in ("answer", "claims", "glance", "tables", "methods", "provenance")
    ]
    assert places == sorted(places)
    first = text[places[0] : places[1]]
    assert "Nobody can say yes yet." in first
    assert '<a href="#claims">' in first
    assert first.count("<svg") == 1
    assert "<table" not in first
    assert "0123456789" not in text[: places[-1]]  # the commits are at the back


def test_every_outcome_is_a_word_of_the_page():
    assert len(set(OUTCOMES)) == 5
    assert isinstance(load_table(CONF, "paper"), TableConfig)
    assert load_table(CONF, "paper").plan.primary == Primary(
        "dropattack", "none", ("imdb", "agnews", "mnist", "pheme", "cifar10"), {"reg.relative": True},
        "before the first run (results/PLAN.md)",
    )  # fmt: skip


def test_findings_need_a_table(tmp_path):
    with pytest.raises(UserError, match="no finished table of several seeds"):
        findings(tmp_path, [], read_claims(written(tmp_path, {}), TABLES))
