"""Compositions on the command line: `reg=compose reg.methods=[…]` and `reg=a+b`."""

import shutil

import pytest

import dropattack as da
from dropattack.data.types import DataSpec
from dropattack.errors import UserError
from dropattack.models.cnn import CNN
from dropattack.runs import build, cli, experiment, identity, record
from dropattack.runs.config import cells, compose
from dropattack.runs.experiment import CONF, Run
from dropattack.runs.launching import prepared

QUICK = ["dataset=digits", "model=cnn", "scale=smoke", "tracker=none"]


def asked(*overrides: str) -> Run:
    return Run.asked([*QUICK, *overrides])


def test_both_forms_are_one_run_and_each_method_has_its_own_options():
    long = asked("reg=compose", "reg.methods=[fgm,rdrop]", "reg.fgm.epsilon=0.1", "reg.rdrop.rate=0.3")
    short = asked("reg=fgm+rdrop", "reg.fgm.epsilon=0.1", "reg.rdrop.rate=0.3")
    assert long == short
    assert long.name.startswith("digits-cnn-fgm+rdrop-s0-")
    reg = long.config["reg"]
    assert reg["fgm"] == {**asked("reg=fgm").config["reg"], "epsilon": 0.1}
    assert (reg["rdrop"]["alpha"], long.config["model"]["dropout"]) == (1.0, 0.3)
    others = [asked("reg=fgm+rdrop"), asked("reg=fgm"), asked("reg=rdrop+fgm", "reg.fgm.epsilon=0.1")]
    assert len({one.run_id for one in (long, *others)}) == 4
    assert asked("reg=compose").config["reg"]["methods"] == ["dropattack", "rdrop"]


def test_the_digest_of_the_code_is_that_of_all_its_methods():
    codes = [record.code(asked(f"reg={name}").config) for name in ("fgm+pgd", "fgm+sam", "fgm")]
    assert len({code["method"] for code in codes}) == 3
    assert len({code["code"] for code in codes}) == 1


def test_options_that_are_newer_than_records_stay_out_of_the_identity():
    kept = identity.of(asked("reg=fgm+dropattack", "reg.fgm.warmup=3").config)["reg"]
    assert kept["fgm"]["warmup"] == 3
    assert not {"every", "start_step", "norm", "weight", "relative"} & set(kept["fgm"])
    assert {"every", "relative"} <= set(kept["dropattack"])


def test_compositions_are_values_of_a_sweep():
    for given in (["reg=none,fgm+rdrop"], ["reg=none,compose", "reg.methods=[fgm,rdrop]"]):
        names = [asked(*cell).config["reg"]["name"] for cell in map(list, cells_of(given))]
        assert names == ["none", "fgm+rdrop"]
    swept = cells_of(["reg=compose", "reg.methods=[fgm,rdrop],[fgm,sam]"])
    assert [asked(*cell).config["reg"]["name"] for cell in swept] == ["fgm+rdrop", "fgm+sam"]


def cells_of(overrides: list[str]) -> list[list[str]]:
    return cells(prepared(CONF, overrides))


def test_a_method_of_a_folder_of_one_s_own_and_options_of_hydra(tmp_path):
    (tmp_path / "reg").mkdir()
    (tmp_path / "reg" / "mine.yaml").write_text(
        (CONF / "reg" / "fgm.yaml").read_text().replace("name: fgm", "name: mine")
    )
    given = prepared(CONF, ["--config-dir", str(tmp_path), "reg=compose", "reg.methods=[mine,rdrop]"])
    assert asked(*given).config["reg"]["name"] == "mine+rdrop"
    assert prepared(CONF, ["--cfg", "job", "reg=compose"]) == ["--cfg", "job", "reg=dropattack+rdrop"]


def test_tuned_settings_are_those_of_the_composition(tmp_path):
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    name = "smoke-digits-cnn-fgm+rdrop"
    (conf / "settings" / "tuned" / f"{name}.yaml").write_text("# @package _global_\nreg:\n  fgm:\n    epsilon: 0.7\n")
    for overrides in (["reg=fgm+rdrop"], ["reg=compose", "reg.methods=[fgm,rdrop]"]):
        config = compose(conf, [*QUICK, *overrides, "settings=tuned"])
        assert config.reg.fgm.epsilon == 0.7
    assert compose(conf, [*QUICK, "reg=fgm+sam", "settings=tuned"]).reg.fgm.epsilon == 1.0


@pytest.mark.parametrize(("line", "sentence"), [
    ("reg=fgm+fgn", r"there is no method 'fgn' \(did you mean fgm\?\)"),
    ("reg=fgm+", "there is no method ''"),
    ("reg=fgm+fgm", "names fgm twice"),
    ("reg=fgm+ema", r"ema sets trainer\.average, .* set these beside the composition"),
    ("reg=fgm+dropout", r"dropout sets model\.dropout"),
    ("reg=fgm+longer", "longer has no loss of its own"),
    ("reg=fgm+compose", "compose has no loss of its own"),
    ("reg=compose reg.methods=[fgm]", "composes nothing: name two methods"),
    ("reg=compose reg.methods=fgm", "must be a list of methods"),
    ("reg=fgm+pgd reg.methods=[fgm,pgd]", r"names its methods: leave reg\.methods out"),
    ("reg=fgm reg.methods=[fgm,pgd]", r"no key 'reg\.methods' in reg=fgm; reg=compose has it"),
    ("reg=fgm+pgd reg.fgm.epsilon=-1", r"reg\.fgm\.epsilon=-1 is invalid"),
    ("reg=fgm+pgd reg.fgm.epsilom=1", r"no key 'reg\.fgm\.epsilom' .*did you mean reg\.fgm\.epsilon"),
    ("reg=fgm+pgd +reg.fgm.x=1", "reg=fgm has no option x"),
    ("reg=fgm+pgd ~reg.pgd", "has no options of pgd"),
    ("reg=rat+rdrop reg.rat.rate=0.3", r"reg\.rat\.rate=0\.3 and reg\.rdrop\.rate=0\.5 differ"),
    ("reg=fgm+rdrop reg.rdrop.rate=0", r"no dropout masks to compare: set reg\.rdrop\.rate above 0"),
    ("reg=rat model.dropout=0", r"no dropout masks to compare: set reg\.rate above 0"),
    ("reg=dropout model.dropout=0", r"model\.dropout to reg\.rate=0\.5, .*set it to 0: .* set reg\.rate"),
    ("reg=longer trainer.epochs=2", r"trains for 3 × model\.recipe\.epochs=1 epochs, .*set trainer\.epochs to 2"),
    ("reg=label_smoothing trainer.label_smoothing=0", r"works through trainer\.label_smoothing"),
    ("reg=mixup trainer.mixup=0", r"works through trainer\.mixup"),
    ("reg=ema trainer.average=none", r"works through trainer\.average, and something else set it to none"),
    ("reg=fgm+pgd dataset=pydoc model=lstm reg.fgm.targets=[nothing]", r"reg\.fgm\.targets: 'nothing' matches no"),
])  # fmt: skip
def test_what_cannot_be_composed_is_refused_in_one_sentence(line, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        asked(*line.split())
    assert cli.main(lambda: pytest.fail("a run was started"), [*QUICK, *line.split()]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def built(*overrides: str) -> da.Regularizer:
    model = CNN(spec=DataSpec("image", 10, image_shape=(1, 8, 8)), dropout=0.5)
    return build.build_reg(asked(*overrides).config, model)


def test_the_methods_are_built_in_their_order_with_random_numbers_of_their_own():
    reg = built("reg=dropattack+rdrop", "reg.dropattack.steps=2", "reg.rdrop.alpha=3")
    assert isinstance(reg, da.Compose)
    first, second = reg.methods
    assert (type(first), type(second)) == (da.DropAttack, da.RDrop)
    assert (first.steps, second.alpha, reg.passes) == (2, 3, 6)
    assert first.seed != second.seed


@pytest.mark.parametrize(("name", "sentence"), [
    ("sam+awp", "SAM and AWP both replace the gradient"), ("fgm+freelb", "FreeLB has no clean pass"),
    ("fgm+pgd", "one dropout_masks for all methods"),
])  # fmt: skip
def test_methods_that_exclude_each_other_are_refused(name, sentence):
    options = ["reg.fgm.dropout_masks=shared"] if name == "fgm+pgd" else []
    with pytest.raises(UserError, match=rf"^reg={name.replace('+', '.')}: .*{sentence}"):
        built(f"reg={name}", *options)


def test_a_composition_runs_and_its_record_says_what_it_cost(tmp_path):
    overrides = [*QUICK, f"paths.output={tmp_path}", "trainer.max_steps=2"]
    made = record.read(experiment.run(compose(CONF, [*overrides, "reg=dropattack+rdrop"])))
    assert (made["status"], made["passes_per_step"]) == ("finished", 4)
    assert made["config"]["reg"]["name"] == "dropattack+rdrop"
    assert Run.asked([*overrides, "reg=compose", "reg.methods=[dropattack,rdrop]"]).done()
