"""The commands: from records to files, tables and figures, without repeated work, and with clear errors."""

from pathlib import Path

import pytest

from dropattack.analysis import probes as analysis
from dropattack.analysis.records import read_records
from dropattack.probes import store
from dropattack.runs import record

FEW = ("--rows", "20", "--batches", "2", "--steps", "1", "--probes", "1", "--draws", "2", "--attack-steps", "2",
       "--jobs", "1")  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("probes")


def test_probes_are_measured_once_and_become_a_table(command, published, runs, place, capsys, monkeypatch):
    assert command("probe", *runs, "--store", place / "probes.jsonl", "--only", "calibration,gradients", *FEW) == 0
    assert capsys.readouterr().out.split() == [str(place / "probes.jsonl")]
    content = store.read(place / "probes.jsonl")[f"{runs[0].stem} probes"]
    assert set(content["probes"]) == {"calibration", "gradients"}
    assert (content["dataset"], content["method"], content["seed"]) == ("digits", "none", 0)

    assert command("probe", *runs, "--store", place / "probes.jsonl", "--only", "robustness,calibration", *FEW) == 0
    content = store.read(place / "probes.jsonl")[f"{runs[0].stem} probes"]
    assert set(content["probes"]) == {"calibration", "gradients", "robustness"}
    with monkeypatch.context() as patch:
        patch.setattr("dropattack.probes.suite.PROBES", {"calibration": lambda *_: pytest.fail("done before")})
        assert command("probe", runs[0], "--store", place / "probes.jsonl", "--only", "calibration", *FEW) == 0
    capsys.readouterr()
    assert command("probe", runs[0], "--store", place / "probes.jsonl", "--only", "calibration", "--rows", "21") == 2
    assert f"has probes of {runs[0].stem} with other options" in capsys.readouterr().err

    table = (
        "probe-table",
        "--records",
        runs[0].parent,
        "--store",
        place / "probes.jsonl",
        "--output",
        place / "tables",
    )
    assert command(*table) == 0
    written = capsys.readouterr().out.split()
    assert {path.rpartition(".")[2] for path in written} == {"md", "csv", "png", "svg"}
    sent = published["probes-digits-cnn"]
    assert sent["files"] == [Path(path).name for path in written]
    assert (sent["kind"], sent["group"], sent["overrides"]) == ("probes", "digits-cnn-smoke", ["tracker=wandb"])
    text = (place / "tables" / "digits-cnn.md").read_text()
    assert "| calibration error (ECE), %" in text
    assert "not known" in text
    again = {path: Path(path).read_bytes() for path in written}
    assert command(*table) == 0
    assert all(Path(path).read_bytes() == data for path, data in again.items())


def test_probes_of_earlier_weights_are_measured_again(runs, place):
    from dropattack.probes.suite import Options, missing, result_of

    path, name = place / "probes.jsonl", runs[0].stem
    known = store.of_kind(path, store.PROBES)[name]
    options = Options(**known["options"])
    result = result_of(record.read(runs[0]))
    assert known["result"] == result
    names = [*known["probes"]]
    assert missing(path, {name: result}, names, options) == {}
    assert missing(path, {name: [0.0, result[1]]}, names, options) == {name: names}
    frame = read_records(runs[0].parent).frame
    assert len(analysis.with_probes(frame.assign(test_accuracy=0.0), path)) == 0


def test_verdicts_follow_the_better_direction(runs, place):
    frame = analysis.with_probes(read_records(runs[0].parent).frame, place / "probes.jsonl")
    assert len(frame) == 2
    many = []
    for seed in range(5):
        for method, shift in (("none", 0.0), ("fgm", -0.1)):
            row = frame[frame["method"] == method].iloc[0].copy()
            row["seed"] = seed
            value = (1.0 + 0.001 * seed) * (1 + shift)
            row["probes"] = dict.fromkeys(("calibration.ece", "calibration.accuracy", "gradients.input"), value)
            many.append(row)
    compared = analysis.compare_probes(type(frame)(many))
    found = {(row.quantity.key, row.method): row.verdict for row in compared.itertuples()}
    assert found["calibration.ece", "fgm"] == "better"
    assert found["calibration.accuracy", "fgm"] == "worse"
    assert found["gradients.input", "fgm"] == "lower"
    assert found["calibration.ece", "none"] == ""


def test_flat_names():
    probes = {"flatness": {"sharpness": {"mean": 0.1, "n": 2}, "trace": {"mean": None}}, "robustness": {"clean": 0.9,
              "pgd": {"0.1": 0.5}}}  # fmt: skip
    assert analysis.flat(probes) == {"flatness.sharpness": 0.1, "robustness.clean": 0.9, "robustness.pgd.0.1": 0.5}


def test_landscape_from_records_to_figures(command, published, runs, place, capsys):
    values = place / "probes.jsonl"
    options = ("--store", values, "--output", place / "landscape", "--grid", 3, "--rows", 20, "--workers", 1)
    assert command("landscape", *runs, *options) == 0
    written = capsys.readouterr().out.split()
    assert [path.rpartition("/")[2] for path in written if path.endswith(".png")] == [
        "digits-cnn-plane-contour.png", "digits-cnn-plane-surface.png", "digits-cnn-plane-curves.png",
    ]  # fmt: skip
    assert written.pop(0) == str(values)
    before = {path: Path(path).read_bytes() for path in written}
    assert "digits-cnn-plane-contour.png" in published["landscape-digits-cnn-plane"]["files"]
    assert command("landscape", values, "--draw", "--output", place / "landscape") == 0
    assert [path for path, data in before.items() if Path(path).read_bytes() != data] == []  # from the values alone

    other = place / "other.jsonl"
    assert command("landscape", *runs, *options, "--store", other, "--split", "validation") == 0
    capsys.readouterr()
    assert command("landscape", values, other, "--draw", "--output", place / "both") == 0
    drawn = sorted(path.name for path in (place / "both").glob("*-contour.png"))
    assert drawn == ["digits-cnn-plane-1-contour.png", "digits-cnn-plane-2-contour.png"]  # no scale for two splits

    assert command("landscape", *runs, *options, "--line") == 0
    assert command("landscape", *runs, *options, "--rays", 2) == 0
    capsys.readouterr()
    assert command("landscape", *runs, *options, "--seed", 1) == 2
    assert f"another plane of {runs[0].stem} (its description differs)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("probe", "nowhere.json"), "there is no record nowhere.json"),
        (("probe", "nowhere.json", "--only", "speed"), "there is no probe 'speed'; probes: calibration"),
        (("landscape", "nowhere.json"), "there is no record nowhere.json"),
        (("landscape", "nowhere.json", "--line"), "--line needs two records, got 1"),
        (("landscape", "nowhere.json", "--draw"), "there are no landscapes in nowhere.json"),
        (("probe-table", "--records", "nowhere"), "there is no folder nowhere"),
    ],
)
def test_mistakes_give_one_sentence(command, arguments, message, tmp_path, capsys):
    output = () if arguments[0] == "probe" else ("--output", tmp_path / "out")
    assert command(*arguments, *output, "--store", tmp_path / "out" / "probes.jsonl") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert not (tmp_path / "out").exists()


def test_run_without_weights_does_not_stop_the_others(command, changed, runs, tmp_path, capsys):
    code = command("probe", changed(), runs[0], "--store", tmp_path / "p.jsonl", "--only", "calibration", "--jobs", 1)
    shown = capsys.readouterr()
    assert code == 2
    assert "its weights are not in" in shown.err
    assert list(store.read(tmp_path / "p.jsonl")) == [f"{runs[0].stem} probes"]
