"""Elements of the page: axes, intervals, learning curves, colours, cards; and the command."""

import json
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from dropattack.analysis import history
from dropattack.analysis.compare import compare
from dropattack.analysis.drawing import COLOURS, MARKS, Key, Panel, curves, mark
from dropattack.analysis.figures import reach
from dropattack.analysis.records import read_records
from dropattack.commands.main import main
from dropattack.report import cards, colours
from dropattack.report.charts import accuracy_against, chart, gain_against_cost, heat_map
from dropattack.report.intervals import interval_picture
from dropattack.statistics import PairedDifference, estimate, paired_difference
from tests.report import folders

ROOT = Path(__file__).resolve().parents[2]


def difference(mean: float, half: float = math.nan) -> PairedDifference:
    return PairedDifference(mean, 1.0, mean - half, mean + half, 3, 0.5, (mean,) * 3)


def test_the_interval_is_drawn_to_scale():
    drawn = interval_picture(difference(0.5, 0.25), 1.0, "fgm", "fgm: +0.50")
    assert '<path class="interval" d="M73.0,10.0H99.0"/>' in drawn  # 120 wide, margin 8: 52 per point, from 60
    outline = re.search(r'class="mark" d="([^"]*)"', drawn)[1]  # the mark lies around 86, 10
    xs, ys = zip(*(map(float, point.split(",")) for point in re.findall(r"[\d.]+,[\d.]+", outline)), strict=True)
    assert (min(xs) < 86 < max(xs), min(ys) < 10 < max(ys)) == (True, True)
    assert "<title>fgm: +0.50</title>" in drawn
    assert "arrow" not in drawn


def test_wide_interval_is_clipped_with_arrows():
    wide, narrow = difference(0.1, 12.0), difference(0.5, 0.2)
    assert reach([wide, narrow]) == 2.0
    assert interval_picture(wide, 2.0, "fgm", "").count("arrow") == 2
    assert interval_picture(difference(0.1), 2.0, "fgm", "").count("interval") == 0  # one seed has none
    assert reach([]) > 0
    assert reach([difference(0.0)]) > 0


def test_learning_curves_are_means_over_epochs_that_all_seeds_reached(quick_git, tmp_path):
    table = tmp_path / "mini" / "t"
    paths = [folders.run(table, seed=seed, epochs=epochs) for seed, epochs in ((0, 4), (1, 3), (2, 4))]
    read = [history.read_history(entries)["validation.accuracy"] for entries in read_records(table).frame["epochs"]]
    curve = history.over_seeds(read, 100)
    assert [epoch for epoch, _ in curve] == [1, 2, 3]
    said = [json.loads(path.read_text())["history"][2]["validation"]["accuracy"] for path in paths]
    assert curve[2][1] == estimate([100 * value for value in said])


@pytest.mark.parametrize(
    "entries", [[], [1, {"epoch": "1"}, {"epoch": 1, "validation": 2}],
                [{"epoch": 1, "validation": {"accuracy": "nan", "loss": True}}]])  # fmt: skip
def test_malformed_history_has_no_points(entries):
    assert not any(history.read_history(entries).values())


def test_figures_describe_the_numbers_they_draw(filled):
    compared = compare(read_records(filled / "mini" / "vision").frame)
    (row,) = [r for r in compared.itertuples() if r.method == "fgm" and r.dataset == "mnist"]
    (figure,) = [f for f in gain_against_cost(compared) if f.facets.dataset == "mnist"]
    assert f"fgm {row.difference.mean:+.2f} [".replace("-", "−") in figure.panels[0]
    assert f"at {row.cost:.1f}×" in figure.panels[0]


def test_heat_map_has_one_square_per_pair_and_curve_one_point_per_setting(filled):
    ablation = compare(read_records(filled / "mini" / "ablation").frame)
    (squares,) = heat_map(ablation, "reg.epsilon", "reg.p")
    assert squares.panels[0].count(">n = ") == 4
    frame = read_records(filled / "mini" / "half_data").frame
    (curve,) = accuracy_against(frame, "dataset.fraction")
    assert len(re.findall("<title>(?:none|dropattack), fraction", curve.panels[0])) == 2 * 4
    assert [key.method for key in curve.legend] == ["none", "dropattack"]


def test_text_in_a_chart_is_escaped():
    def draw(ax):
        ax.set_xlabel("<i>")
        mark(ax, 0, 0, '"<q>', says="<a>")

    drawn = chart(Panel("", "<b>", draw, "<p>"))
    assert isinstance(drawn, Markup)
    assert not re.search(r"<[biqap]>", drawn)
    (group,) = [e for e in ElementTree.fromstring(drawn).iter("g") if e.get("data-method")]
    assert group.attrib == {"data-method": '"<q>', "class": "m"}
    assert group.find("title").text == "<a>"


def test_chart_follows_the_page_and_has_no_ids():
    line = [(Key("fgm", "fgm"), [(1.0, difference(0.5, 0.25)), (2.0, difference(0.7, 0.25))])]
    panel = Panel("", "loss", lambda ax: curves(ax, line, "epoch"), "fgm")
    drawn = chart(panel)
    assert drawn == chart(panel)
    assert "var(--m-fgm)" in drawn
    assert not re.search(r"#[0-9a-f]{6}| id=|url\(|<use|font-family", drawn)


def test_colours_match_all_figures_and_contrast_with_both_pages():
    style = colours.stylesheet()
    for method, colour in COLOURS.items():
        assert f"--m-{method}:{colour};" in style
        assert colours.contrast(colours.lightened(colour, colours.DARK), colours.DARK) >= 3
    assert set(MARKS) == set(COLOURS)
    assert len(set(MARKS.values())) == len(COLOURS)
    assert colours.contrast("#000000", "#ffffff") == pytest.approx(21)
    css = (ROOT / "dropattack" / "report" / "templates" / "style.css").read_text()
    assert f"--page: {colours.LIGHT}" in css
    assert f"--page: {colours.DARK}" in css


def test_difference_without_a_common_seed_is_nan():
    assert paired_difference({}, {}).n == 0
    assert reach([paired_difference({}, {})]) > 0


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "methods").glob("[a-z]*.md")), ids=lambda path: path.stem)
def test_every_card_is_rendered_with_its_formulas(path):
    title, html = cards.card(path.read_text())
    assert title
    assert "<math" in html
    text = re.sub(r"<(code|pre|annotation)\b.*?</\1>", "", str(html), flags=re.DOTALL)
    assert not re.search(r"\$|\\[a-zA-Z]{2,}|&amp;lt;|^\|", text, re.MULTILINE)
    assert not re.search(r'(?:href|src)="(?!https://|#method-)', html)


def test_markdown_escapes_html_and_keeps_odd_formulas_readable():
    html = cards.render("# a\n\n<script>x</script> [a](javascript:x) ![b](https://c/d.png) $\\nosuch{<b>$ [e](../f.md)")
    assert not re.search(r"<(script|img|b)\b", html)
    assert "javascript" not in re.sub(r">[^<]*<", "", html)
    assert "<h3>a</h3>" in html
    assert "e" in html


def test_the_command_writes_the_page(quick_git, tmp_path, capsys):
    folders.run(tmp_path / "mini" / "vision")
    output = tmp_path / "new" / "report.html"
    assert main(["report", "--results", str(tmp_path), "--output", str(output)]) == 0
    assert capsys.readouterr() == (f"{output}\n", "[1/1] vision, mini\n")
    text = output.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "make table-text SCALE=mini" in text


@pytest.mark.parametrize("at", ["results", "output"])
def test_impossible_path_gives_one_sentence(tmp_path, capsys, at):
    (tmp_path / "file").write_text("")
    places = {"results": tmp_path, "output": tmp_path / "a.html"} | {at: tmp_path / "file" / "nothing"}
    assert main(["report", "--results", str(places["results"]), "--output", str(places["output"])]) == 2
    assert re.fullmatch(r"error: .*nothing.*\n", capsys.readouterr().err)
