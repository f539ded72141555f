"""Every dataset, model, method and scale composes, and every value passes the checks."""

import inspect
import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_method
from omegaconf import OmegaConf

from dropattack.errors import UserError
from dropattack.runs import attacked, build, experiment, identity
from dropattack.runs.checks import check
from dropattack.runs.config import _compose, cells, choices, compose
from dropattack.runs.ranges import CHECKS

CONF = Path(__file__).resolve().parents[1] / "conf"
DATASETS, MODELS, REGS, SCALES = (choices(CONF, group) for group in ("dataset", "model", "reg", "scale"))
KINDS = {
    (group, name): OmegaConf.load(CONF / group / f"{name}.yaml")["kind"]
    for group, names in (("dataset", DATASETS), ("model", MODELS))
    for name in names
}
# Of the choices for a user's own data and models, one of each is enough beside the whole table of the others.
OWN_DATA, OWN_MODELS = ("csv", "glue", "hf", "imagefolder"), ("hf", "timm", "torchvision")
FITTING = [
    (d, m) for d, m in itertools.product(DATASETS, MODELS)
    if KINDS["dataset", d] == KINDS["model", m] and (d in OWN_DATA) == (m in OWN_MODELS)
]  # fmt: skip
PRESETS = [name for name in choices(CONF, "experiment") if name != "null"]


def overrides(dataset: str, model: str, scale: str, reg: str) -> list[str]:
    return [f"dataset={dataset}", f"model={model}", f"scale={scale}", f"reg={reg}"]


def composed(dataset: str, model: str, scale: str, reg: str) -> str:
    """Compose and check one cell of the big table; returns its identity."""
    values = experiment.resolve(compose(CONF, overrides(dataset, model, scale, reg)))
    named = "dropattack+rdrop" if reg == "compose" else reg
    assert [values[group]["name"] for group in ("dataset", "model", "reg", "scale")] == [dataset, model, named, scale]
    return identity.run_id(values)


def fitting_methods(dataset: str) -> list[str]:
    return [reg for reg in REGS if reg != "mixup" or KINDS["dataset", dataset] == "image"]


def a_slice() -> list[tuple[str, str, str, str]]:
    """Return each data set with each model that fits it, at one scale and with one method: all occur."""
    cells, waiting = [], list(REGS)
    for number, (dataset, model) in enumerate(FITTING):
        fitting = fitting_methods(dataset)
        reg = next((reg for reg in waiting if reg in fitting), fitting[number % len(fitting)])
        waiting = [other for other in waiting if other != reg]
        cells.append((dataset, model, SCALES[number % len(SCALES)], reg))
    return cells


@pytest.mark.parametrize(("dataset", "model", "scale", "reg"), a_slice())
def test_a_slice_of_the_table_composes_and_uses_every_option(dataset, model, scale, reg):
    """Each key of a file is an argument of its target, or is read by the experiment."""
    assert len(composed(dataset, model, scale, reg)) == 12
    config: Any = OmegaConf.to_container(compose(CONF, overrides(dataset, model, scale, reg)), resolve=True)
    for group in ("dataset", "model"):
        uses_every_option(group, config[group])
    for one in attacked.methods(config["reg"]).values():
        uses_every_option("reg", one)
    if tokenizer := dict(config["model"].get("tokenizer") or {}):
        assert set(tokenizer) <= {"_target_", *inspect.signature(get_method(tokenizer["_target_"])).parameters}


def uses_every_option(group: str, config: dict) -> None:
    accepted = build._accepted(get_method(config["_target_"]))
    assert accepted is None or set(config) - {"_target_"} - build.NOT_ARGUMENTS[group] <= set(accepted)
    assert accepted is not None or group != "reg"


@pytest.mark.parametrize("tracker", choices(CONF, "tracker"))
def test_every_option_of_a_tracker_is_used(tracker):
    uses_every_option("tracker", OmegaConf.to_container(compose(CONF, [f"tracker={tracker}"]), resolve=True)["tracker"])


def test_the_slice_has_every_choice():
    for choice, occurring in zip((DATASETS, MODELS, SCALES, REGS), zip(*a_slice(), strict=True), strict=True):
        assert set(choice) == set(occurring)


@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "model"), FITTING)
def test_the_whole_table_composes(dataset, model):
    identities = {composed(dataset, model, scale, reg) for scale in SCALES for reg in fitting_methods(dataset)}
    assert len(identities) == len(SCALES) * len(fitting_methods(dataset))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_compose(preset):
    experiment.resolve(compose(CONF, [f"experiment={preset}"]))


@pytest.mark.parametrize(
    ("dataset", "model", "hidden", "steps", "p", "epochs"),
    [
        ("imdb", "lstm", "rnn.weight_ih_l0", 3, 0.5, 10),
        ("pheme", "bigru", "rnn.weight_hh_l0", 1, 0.5, 5),
        ("agnews", "bigru2", "rnn.weight_ih_l0", 1, 0.7, 5),
    ],
)
def test_notebooks(dataset, model, hidden, steps, p, epochs):
    """Model, K, ε, p, hidden weight and epochs of the authors' notebooks, as in the table of the docs."""
    config = experiment.resolve(compose(CONF, [f"experiment=notebook_{dataset}"]))
    assert config["dataset"]["name"] == dataset
    assert config["dataset"]["split"] == "author"
    assert config["model"]["name"] == model
    assert config["model"]["hidden_size"] == 300
    assert config["model"]["dropout"] == 0.0
    assert config["model"]["attack_points"]["hidden"] == hidden
    tokenizer = config["model"]["tokenizer"]
    assert tokenizer["remove_stop_words"]
    assert tokenizer["remove_punctuation"]
    assert (tokenizer["vocabulary_size"], tokenizer["vocabulary_from"], tokenizer["max_length"]) == (
        250_000,
        "all",
        256,
    )
    reg = config["reg"]
    assert (reg["name"], reg["mode"], reg["epsilon"]) == ("dropattack", "notebook", 5.0)
    assert (reg["steps"], reg["p"]) == (steps, p)
    trainer = config["trainer"]
    assert (trainer["epochs"], trainer["batch_size"]) == (epochs, 128)
    assert (trainer["optimizer"], trainer["learning_rate"]) == ("adam", 1e-3)


@pytest.mark.parametrize("dataset", ["imdb", "pheme", "agnews"])
def test_a_notebook_undoes_no_method(dataset):
    """A notebook once set model.dropout and trainer.epochs, so that dropout and longer trained plainly."""
    plain, dropout, longer = (
        experiment.resolve(compose(CONF, [f"experiment=notebook_{dataset}", f"reg={reg}"]))
        for reg in ("none", "dropout", "longer")
    )
    assert (plain["model"]["dropout"], dropout["model"]["dropout"]) == (0.0, 0.5)
    assert longer["trainer"]["epochs"] == 3 * plain["trainer"]["epochs"]


def test_a_preset_can_be_overridden():
    """Another method under the notebook's conditions keeps none of DropAttack's settings."""
    config = compose(CONF, ["experiment=notebook_imdb", "reg=fgm", "trainer.epochs=2"])
    assert config.trainer.epochs == 2
    assert set(config.reg) == set(compose(CONF, ["reg=fgm"]).reg)


@pytest.mark.parametrize(("dataset", "model"), [
    (d, m) for d in DATASETS for m in MODELS if KINDS["dataset", d] != KINDS["model", m]
][:6])  # fmt: skip
def test_a_model_of_the_wrong_kind_lists_the_fitting_ones(dataset, model):
    with pytest.raises(UserError, match="models that fit: ") as error:
        experiment.resolve(compose(CONF, [f"dataset={dataset}", f"model={model}"]))
    assert next(m for d, m in FITTING if d == dataset) in str(error.value)


def test_reg_dropout_sets_the_models_dropout():
    config = experiment.resolve(compose(CONF, ["reg=dropout"]))
    assert config["model"]["dropout"] == config["reg"]["rate"] == 0.5
    with pytest.raises(UserError, match=r"sets model.dropout to reg.rate=0.5, and something else set it to 0.2: leave"):
        experiment.resolve(compose(CONF, ["reg=dropout", "model.dropout=0.2"]))


def test_longer_training_is_not_cut_short():
    with pytest.raises(UserError, match=r"trainer.max_steps=4 ends that early: leave trainer.max_steps out"):
        experiment.resolve(compose(CONF, ["reg=longer", "trainer.max_steps=4"]))


@pytest.mark.parametrize(("name", "key", "value"), [
    ("label_smoothing", "label_smoothing", 0.1), ("mixup", "mixup", 0.2), ("ema", "average_decay", 0.999),
    ("swa", "average_start", 0.75),
])  # fmt: skip
def test_baselines_set_the_trainers_options(name, key, value):
    images = ["dataset=digits", "model=cnn", f"reg={name}"]
    assert experiment.resolve(compose(CONF, images))["trainer"][key] == value
    assert experiment.resolve(compose(CONF, [*images, f"trainer.{key}=0.3"]))["trainer"][key] == 0.3


@pytest.mark.parametrize(("overrides", "sentence"), [
    (["reg=mixup"], r"trainer\.mixup=0\.2 mixes the pixels of two images, and dataset=imdb is text"),
    (["trainer.average_decay=0.9"], r"needs trainer\.average=ema, and it is none"),
    (["reg=ema", "trainer.average_start=0.5"], r"needs trainer\.average=swa, and it is ema"),
    (["trainer.label_smoothing=1"], r"trainer\.label_smoothing=1 is invalid: .* less than 1"),
])  # fmt: skip
def test_options_of_the_baselines_that_would_do_nothing_are_refused(overrides, sentence):
    with pytest.raises(UserError, match=sentence):
        experiment.resolve(compose(CONF, overrides))


def test_every_check_has_an_existing_key():
    """A check of a nonexistent key would silently check nothing."""
    missing = set(CHECKS)
    for cell in a_slice():
        if missing:
            config = compose(CONF, overrides(*cell))
            missing -= {key for key in missing if OmegaConf.select(config, key, default=config) is not config}
    assert not missing


def test_check_reads_a_plain_mapping():
    config = experiment.resolve(compose(CONF, []))
    config["trainer"]["epochs"] = 0
    with pytest.raises(UserError, match=r"trainer\.epochs=0"):
        check(config, CONF)


@pytest.mark.parametrize(
    ("reg", "whole", "real"),
    [
        ("fgm", "reg.epsilon=1", "reg.epsilon=1.0"),
        ("none", "dataset.fraction=1", "dataset.fraction=1.0"),
        ("none", "trainer.clip_norm=1", "trainer.clip_norm=1.0"),
        ("none", "model.dropout=0", "model.dropout=0.0"),
        ("fgm+rdrop", "reg.rdrop.alpha=2", "reg.rdrop.alpha=2.0"),
    ],
)
def test_a_whole_number_is_the_same_run_as_the_real_one(reg, whole, real):
    runs = [experiment.Run.asked(["dataset=digits", "model=cnn", f"reg={reg}", one]) for one in (whole, real)]
    assert runs[0].config == runs[1].config
    assert runs[0].run_id == runs[1].run_id
    assert isinstance(runs[0].config["trainer"]["epochs"], int)


def test_the_cells_of_a_sweep_are_all_combinations_and_the_last_override_counts():
    given = ["reg=fgm,pgd", "seed=range(2)", "trainer.epochs=3", "reg.targets=[input,hidden]", "trainer.epochs=4"]
    common = ["trainer.epochs=4", "reg.targets=[input,hidden]"]
    assert cells(given) == [[f"reg={reg}", f"seed={seed}", *common] for reg in ("fgm", "pgd") for seed in (0, 1)]
    assert cells(["+reg.x=a b"]) == [[r"+reg.x=a\ b"]]  # quoted, because it is parsed again
    for cell in cells(given):
        assert compose(CONF, cell).trainer.epochs == 4


@pytest.mark.parametrize("override", ["seed=interval(0,1)", "reg=glob(*)"])
def test_a_sweep_lists_its_values(override):
    with pytest.raises(UserError, match="a sweep lists its values"):
        cells([override])


DIGITS = ["dataset=digits", "model=cnn", "scale=smoke"]


@pytest.mark.parametrize("overrides", [
    ["seed=3", "trainer.epochs=3", "trainer.epochs=4", "paths.output='a b'"],
    ["reg=fgm", "reg.targets=[hidden,input]", "trainer.checkpoint={share: 0.5}", "dataset.train_rows=null"],
    ["reg=fgm", "paths.data=${oc.env:HOME}", "trainer.learning_rate=${model.recipe.epochs}"],
    ["reg=fgm", "+reg.gamma=1", "~trainer.max_skipped", "++reg.epsilon=2"],
], ids=lambda overrides: overrides[-1])  # fmt: skip
def test_other_values_are_those_that_hydra_composes(overrides):
    given = [*DIGITS, *overrides]
    assert OmegaConf.to_yaml(compose(CONF, given)) == OmegaConf.to_yaml(_compose(CONF, given))
    assert compose(CONF, DIGITS).seed == 0, "they are the values of one run"


def test_a_file_that_changed_is_read_again(tmp_path):
    """A search writes settings that the next runs of the same process read."""
    conf = Path(shutil.copytree(CONF, tmp_path / "conf"))
    for rate in (0.002, 0.003):
        (conf / "recipe" / "smoke-digits-cnn.yaml").write_text(f"model:\n  recipe:\n    learning_rate: {rate}\n")
        assert compose(conf, [*DIGITS, "seed=1"]).trainer.learning_rate == rate
