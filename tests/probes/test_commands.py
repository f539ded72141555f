"""The commands: from records to files, tables and figures, without repeated work, and with clear errors."""

import json
from pathlib import Path

import pytest

from dropattack.analysis import probes as analysis
from dropattack.analysis.records import read_records

FEW = ("--rows", "20", "--batches", "2", "--steps", "1", "--probes", "1", "--draws", "2", "--attack-steps", "2",
       "--jobs", "1")  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("probes")


def test_probes_are_measured_once_and_become_a_table(command, published, runs, place, capsys, monkeypatch):
    assert command("probe", *runs, "--output", place / "probes", "--only", "calibration,gradients", *FEW) == 0
    paths = [place / "probes" / f"{path.stem}.json" for path in runs]
    assert capsys.readouterr().out.split() == [str(path) for path in paths]
    content = json.loads(paths[0].read_text())
    assert set(content["probes"]) == {"calibration", "gradients"}
    assert (content["dataset"], content["method"], content["seed"]) == ("digits", "none", 0)

    assert command("probe", *runs, "--output", place / "probes", "--only", "robustness,calibration", *FEW) == 0
    content = json.loads(paths[0].read_text())
    assert set(content["probes"]) == {"calibration", "gradients", "robustness"}
    with monkeypatch.context() as patch:
        patch.setattr("dropattack.probes.suite.PROBES", {"calibration": lambda *_: pytest.fail("done before")})
        assert command("probe", runs[0], "--output", place / "probes", "--only", "calibration", *FEW) == 0
    capsys.readouterr()
    assert command("probe", runs[0], "--output", place / "probes", "--only", "calibration", "--rows", "21") == 2
    assert "was made with other options" in capsys.readouterr().err

    assert command("probe-table", "--records", runs[0].parent, "--probes", place / "probes") == 0
    written = capsys.readouterr().out.split()
    assert {path.rpartition(".")[2] for path in written} == {"md", "csv", "png", "svg"}
    sent = published["probes-digits-cnn"]
    assert sent["files"] == [Path(path).name for path in written]
    assert (sent["kind"], sent["group"], sent["overrides"]) == ("probes", "digits-cnn-smoke", ["tracker=wandb"])
    table = (place / "probe_tables" / "digits-cnn.md").read_text()
    assert "| calibration error (ECE), %" in table
    assert "not known" in table
    again = {path: Path(path).read_bytes() for path in written}
    assert command("probe-table", "--records", runs[0].parent, "--probes", place / "probes") == 0
    assert all(Path(path).read_bytes() == data for path, data in again.items())


def test_verdicts_follow_the_better_direction(runs, place):
    frame = analysis.with_probes(read_records(runs[0].parent).frame, place / "probes")
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
    options = ("--output", place / "landscape", "--grid", 3, "--rows", 20, "--workers", 1)
    assert command("landscape", *runs, *options) == 0
    written = capsys.readouterr().out.split()
    assert [path.rpartition("/")[2] for path in written if path.endswith(".png")] == [
        "digits-cnn-plane-contour.png", "digits-cnn-plane-surface.png", "digits-cnn-plane-curves.png",
    ]  # fmt: skip
    before = {path: Path(path).read_bytes() for path in written}
    values = [path for path in written if path.endswith(".json")]
    assert "digits-cnn-plane-contour.png" in published["landscape-digits-cnn-plane"]["files"]
    assert command("landscape", *values, "--draw", "--output", place / "landscape") == 0
    assert [path for path, data in before.items() if Path(path).read_bytes() != data] == []  # from the values alone

    assert command("landscape", *runs, *options, "--line") == 0
    assert command("landscape", *runs, *options, "--rays", 2) == 0
    capsys.readouterr()
    assert command("landscape", *runs, *options, "--seed", 1) == 2
    assert "another landscape (its description differs)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("probe", "nowhere.json"), "there is no record nowhere.json"),
        (("probe", "nowhere.json", "--only", "speed"), "there is no probe 'speed'; probes: calibration"),
        (("landscape", "nowhere.json"), "there is no record nowhere.json"),
        (("landscape", "nowhere.json", "--line"), "--line needs two records, got 1"),
        (("landscape", "nowhere.json", "--draw"), "cannot be read as a landscape"),
        (("probe-table", "--records", "nowhere", "--probes", "nowhere"), "there is no folder nowhere"),
    ],
)
def test_mistakes_give_one_sentence(command, arguments, message, tmp_path, capsys):
    output = () if arguments[0] == "probe-table" else ("--output", tmp_path / "out")
    assert command(*arguments, *output) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert not (tmp_path / "out").exists()


def test_run_without_weights_does_not_stop_the_others(command, changed, runs, tmp_path, capsys):
    code = command("probe", changed(), runs[0], "--output", tmp_path / "p", "--only", "calibration", "--jobs", 1)
    shown = capsys.readouterr()
    assert code == 2
    assert "its weights are not in" in shown.err
    assert shown.out.split() == [str(tmp_path / "p" / f"{runs[0].stem}.json")]
