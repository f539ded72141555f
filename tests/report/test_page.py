"""The page as a document: valid, self-contained, reproducible, and consistent with `compare`."""

import base64
import hashlib
import json
import re
import shutil
import warnings
from collections import Counter
from pathlib import Path

import pytest

from dropattack.analysis.compare import compare
from dropattack.analysis.findings import rivals
from dropattack.analysis.records import read_records
from dropattack.analysis.tables import comparison_table
from dropattack.commands.main import main
from dropattack.errors import UserError
from dropattack.probes.store import STORE
from dropattack.runs.experiment import CONF
from dropattack.sweeps.table import load_table
from tests.report import folders

html5lib = pytest.importorskip("html5lib")

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>'


def parse(text: str):
    """Parse the document; invalid HTML raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)


@pytest.fixture(scope="module")
def tree(page):
    return parse(page)


def named(tree, name: str) -> list:
    return [e for e in tree.iter() if isinstance(e.tag, str) and e.tag.rpartition("}")[2] == name]


def words(element) -> str:
    return " ".join("".join(element.itertext()).split())


def rows_of(tree, section: str) -> list[list[str]]:
    """Return the text of each row of the first table in a section, without pictures and their titles."""
    found = next(e for e in named(tree, "section") if e.get("id") == section)
    table = named(found, "table")[0]
    rows = [row for row in named(table, "tr") if "item" in (row.get("class") or "")]
    return [[words(cell) for cell in row if "picture" not in (cell.get("class") or "")] for row in rows]


def test_valid_html_with_unique_ids_and_no_dead_links(tree):
    ids = Counter(e.get("id") for e in tree.iter() if e.get("id"))
    assert max(ids.values()) == 1
    for link in named(tree, "a"):
        target = link.get("href")
        assert target.startswith("https://") or target[1:] in ids, target


def test_same_folder_gives_the_same_bytes_in_any_place(make, page, filled, tmp_path):
    shutil.copytree(filled, tmp_path / "elsewhere")
    again = make(tmp_path / "elsewhere")
    assert again == page
    assert str(tmp_path) not in again
    assert str(filled) not in page


def test_nothing_is_loaded(page, tree):
    for e in tree.iter():
        for attribute in ("src", "srcset", "data", "poster", "xlink:href"):
            assert (e.get(attribute) or "data:").startswith("data:"), (e.tag, attribute)
    assert [e.get("href") for e in named(tree, "link")] == ["data:,"]
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|innerHTML", page)
    assert len(page.encode()) < 5_000_000
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)  # the only one that the policy allows
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page


@pytest.mark.parametrize(("name", "section"), [("vision", "table-mini-vision"), ("half_data", "table-mini-half_data")])
def test_numbers_equal_those_of_compare(tree, filled, name, section):
    plan = load_table(CONF, name).plan
    compared = compare(read_records(filled / "mini" / name).frame, plan=plan)
    expected = [list(row[1:]) for row in comparison_table(compared, seeds=5, plan=plan).rows]
    shown = rows_of(tree, section)
    signs = {"better": "▲ better", "worse": "▼ worse", "equivalent": "≈ equivalent", "not known": "○ not known"}
    assert shown == [[signs.get(cell, cell) for cell in row] for row in expected]
    assert any("▲ better" in row for row in shown)


def test_section_of_a_method_has_its_rows_of_every_table(tree):
    shown = rows_of(tree, "method-dropattack")
    assert len(shown) == 2 + 4 + 4  # vision, half_data, ablation
    assert shown[1][:3] == ["mnist / cnn", "dropattack", "4 of 10"]


def test_every_picture_has_a_description(tree):
    pictures = [e for e in named(tree, "svg") if e.get("aria-hidden") != "true"]
    assert len(pictures) > 30
    for picture in pictures:
        assert picture.get("role") == "img"
        title = picture[0]
        assert title.tag.endswith("title")
        assert re.search(r"\d", words(title)), words(title)
    for image in named(tree, "img"):
        assert image.get("alt")


def test_all_parts_are_there(page, tree):
    captions = {words(e) for e in named(tree, "figcaption")}
    assert captions >= {
        "mnist · cnn: gain against cost", "mnist · cnn: learning curves", "mnist · cnn: accuracy against fraction",
        "mnist · cnn: gain over two settings", "mnist · cnn: accuracy on spoilt inputs", "mnist · cnn: gradient norms",
        "mnist · cnn: test loss around the weights", "mnist · cnn: test loss along the directions",
    }  # fmt: skip
    assert "calibration error (ECE)" in page
    assert "50 kills: 50 equal." in page
    assert "imdb-lstm" in page
    assert "the loss was not finite" in page  # the failed run is listed
    assert "<math" in page
    assert "72 finished, seeds 0 to 3" in page
    assert "0123456789" in page


def test_missing_parts_name_the_command_that_makes_them(make, tmp_path):
    tree = parse(make(tmp_path))
    said = [words(e) for e in named(tree, "p") if e.get("class") == "missing"]
    for command in ("make table-vision SCALE=mini", "make bench", "make kill-test", "dropattack landscape"):
        assert any(command in sentence for sentence in said), command
    assert not named(tree, "fieldset")
    cards = {path.stem for path in (Path(__file__).resolve().parents[2] / "docs" / "methods").glob("*.md")} - {"README"}
    ids = {e.get("id") or "" for e in named(tree, "section")}
    assert {name.removeprefix("method-") for name in ids if name.startswith("method-")} == cards


def test_table_without_probes_names_their_command(page):
    assert "make probes TABLE=ablation SCALE=mini" in page
    assert "make probes TABLE=vision SCALE=mini" not in page


def test_records_are_escaped(quick_git, make, tmp_path):
    folder = tmp_path / "mini" / "vision"
    for seed in range(3):
        folders.run(folder, seed=seed, cpu=EVIL, commit="<b>&'\"</b>xx")
        folders.run(folder, "fgm", seed=seed, cpu=EVIL, commit="<b>&'\"</b>xx", targets=[EVIL])
        folders.run(folder, "fgm", seed=seed, cpu=EVIL, commit="<b>&'\"</b>xx", targets=["x"])
    with (folder / "runs.txt").open("a") as runs:
        runs.write("<i>-s0-0 -\n")  # missing from the store
    folders.landscape(tmp_path / "mini" / STORE, EVIL, 1.0)
    (tmp_path / "bench").mkdir()
    cell = folders.BENCH["cells"][0] | {"workload": EVIL}
    (tmp_path / "bench" / "<u>.json").write_text(json.dumps(folders.BENCH | {"cells": [cell]}))
    (tmp_path / "survival").mkdir()
    (tmp_path / "survival" / "kills.md").write_text(f"# x\n\n{EVIL} [x](javascript:alert(1)) ![x](https://x/y.png)\n")
    (tmp_path / "reference.yaml").write_text(f"vision: {{source: '{EVIL}', mnist: {{none: null}}}}\n")
    tree = parse(make(tmp_path))
    assert len(named(tree, "script")) == 1
    assert not [e for name in ("img", "u", "i", "b") for e in named(tree, name)]
    assert not [e for e in tree.iter() if any(str(key).startswith("on") for key in e.attrib)]
    assert not [a for a in named(tree, "a") if a.get("href").startswith("javascript")]
    shown = words(named(tree, "body")[0])
    assert shown.count(EVIL) > 5
    assert {e.get("class") for e in named(tree, "g") if e.get("data-method") == EVIL} == {"m"}


def test_policy_allows_only_this_script(page):
    assert re.search(r"default-src 'none'; [^\"]*script-src 'sha256-[\w+/]+={0,2}'", page.replace("&#39;", "'"))


@pytest.mark.parametrize("files", [
    {"mini/probes.jsonl": "{", "mini/records.jsonl": "{", "bench/broken.json": "{", "bench/other.json": '{"cells": 3}',
     "bench/list.json": "[1]"},
    {"mini/probes.jsonl": "[1]"},
    {"mini/probes.jsonl": '{"schema": 1, "run": "probes", "axes": [], "kind": "plane", "description": {}}'},
])  # fmt: skip
def test_broken_file_is_listed_and_the_rest_is_shown(quick_git, make, tmp_path, files):
    folders.run(tmp_path / "mini" / "vision")
    for place, content in files.items():
        (tmp_path / place).parent.mkdir(exist_ok=True)
        with (tmp_path / place).open("a") as file:
            file.write(content)
    tree = parse(make(tmp_path))
    left_out = " ".join(words(e) for e in named(tree, "li") if "left-out" not in (e.get("class") or ""))
    assert all(Path(place).stem in left_out for place in files), left_out
    assert rows_of(tree, "table-mini-vision")


def test_unfinished_landscape_is_left_out(make, tmp_path):
    folders.landscape(tmp_path / "mini" / STORE, "none", 1.0, done=False)
    page = make(tmp_path)
    assert "the plane of mnist-cnn-none-s0-0: it is unfinished" in page
    assert "No landscapes yet" in page


def test_invalid_reference_yaml_is_a_user_error(make, tmp_path):
    (tmp_path / "reference.yaml").write_text("a: [")
    with pytest.raises(UserError, match=r"reference\.yaml"):
        make(tmp_path)


def test_one_seed_and_no_baseline(quick_git, make, tmp_path):
    folders.run(tmp_path / "mini" / "vision", "fgm")
    tree = parse(make(tmp_path))
    assert "no run of none with the same data" in " ".join(rows_of(tree, "table-mini-vision")[0])


def test_method_without_docs_is_shown(quick_git, make, tmp_path):
    for seed in range(3):
        folders.run(tmp_path / "mini" / "vision", seed=seed)
        folders.run(tmp_path / "mini" / "vision", "mymethod", seed=seed)
    tree = parse(make(tmp_path))
    section = next(e for e in named(tree, "section") if e.get("id") == "method-mymethod")
    assert "does not exist" in words(section)
    assert len(rows_of(tree, "method-mymethod")) == 1


def test_every_command_on_the_page_exists(make, tmp_path):
    root = Path(__file__).resolve().parents[2]
    makefile = (root / "Makefile").read_text()
    for command in re.findall(r"<code>((?:make|python) [^<]+)</code>", make(tmp_path)):
        tool, first = command.split()[:2]
        if tool == "make":
            target = "table-%" if first.startswith("table-") else first
            assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), command
        else:
            module = command.split()[2].replace(".", "/") + ".py" if first == "-m" else first
            assert (root / module).is_file(), command


def test_overview_has_difference_and_verdict_of_each_comparison(tree, filled):
    compared = compare(read_records(filled / "mini" / "vision").frame)
    shown = {(row[0], i): cell for row in rows_of(tree, "glance") for i, cell in enumerate(row)}
    for row in compared[compared["method"] != "none"].itertuples():
        column = 1 + ["dropout", "fgm", "dropattack"].index(row.method)
        said = shown[f"{row.dataset} / {row.model}", column]
        assert said.startswith(f"{row.difference.mean:+.2f}".replace("-", "−"))
        assert said.endswith(row.verdict)


def test_non_numeric_setting_is_not_drawn(quick_git, make, tmp_path):
    folders.run(tmp_path / "mini" / "half_data", fraction=None)
    folders.run(tmp_path / "mini" / "ablation", "none")
    folders.run(tmp_path / "mini" / "ablation", "dropattack", epsilon="large")
    tree = parse(make(tmp_path))
    assert not named(tree, "figcaption")
    assert len(rows_of(tree, "table-mini-ablation")) == 2


def test_dropattack_is_compared_with_every_other_method(tree, filled):
    frame = read_records(filled / "mini" / "vision").frame
    shown = {(row[0], i): cell for row in rows_of(tree, "others") for i, cell in enumerate(row)}
    found = rivals({"vision": frame})
    assert {one.other for one in found} == {"dropout", "fgm"}
    for one in found:
        said = shown[f"{one.dataset} / {one.model}", 1 + ["dropout", "fgm"].index(one.other)]
        assert said.startswith(f"{one.difference.mean:+.2f}".replace("-", "−"))
        assert said.endswith(one.verdict)


def test_a_table_of_one_s_own_is_shown_when_its_file_is_named(tmp_path, capsys, quick_git):
    results, file = tmp_path / "results", tmp_path / "mine.yaml"
    for seed in range(3):
        folders.run(results / "mini" / "mine", "none", seed=seed)
        folders.run(results / "mini" / "mine", "fgm", seed=seed)
    file.write_text(
        "title: Mine alone\nkind: comparison\nseeds: 3\ngrids:\n- ['dataset=mnist', 'model=cnn', 'reg=none,fgm']\n"
    )
    assert main(["report", "--results", str(results)]) == 0
    assert "mine is left out: name its file" in capsys.readouterr().err
    assert "Mine alone" not in (results / "report.html").read_text()
    assert main(["report", str(file), "--results", str(results)]) == 0
    assert "left out" not in capsys.readouterr().err
    text = (results / "report.html").read_text()
    assert "Mine alone (mini)" in text
    assert "Nobody can say yes yet." not in text  # nor the claims of this project
    assert main(["report", "mine", "--results", str(results)]) == 2
