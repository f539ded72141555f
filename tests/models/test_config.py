"""Every model's config builds its model at smoke size, and its attack points exist."""

from importlib import import_module
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from dropattack.data.types import DataSpec
from dropattack.runs.config import compose
from dropattack.runs.resolvers import SCALES

CONF = Path(__file__).resolve().parents[2] / "conf" / "model"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))
IMAGES = {"cnn": [(1, 8, 8), (1, 28, 28), (3, 32, 32)], "vgg": [(3, 32, 32)], "cifarnet": [(3, 32, 32)]}
RECIPE = {"optimizer", "learning_rate", "weight_decay", "batch_size", "epochs", "schedule", "warmup", "clip_norm"}
KEPT_BY_THE_EXPERIMENT = ("name", "kind", "attack_points", "recipe", "tokenizer", "content", "_target_")


def load(name: str, scale: str) -> dict:
    return OmegaConf.to_container(compose(CONF.parent, [f"model={name}", f"scale={scale}"]), resolve=True)["model"]


def find(path: str):
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def build(config: dict, shape):
    words = tuple(map(str, range(config.get("tokenizer", {}).get("vocabulary_size", 0))))
    spec = DataSpec("image", 4, image_shape=shape) if shape else DataSpec("text", 4, words, padding_id=0)
    options = {key: value for key, value in config.items() if key not in KEPT_BY_THE_EXPERIMENT}
    return find(config["_target_"])(spec=spec, **options)


def batch(config: dict, shape):
    if shape:
        return (torch.randn(2, *shape),)
    return torch.randint(1, 50, (2, config["tokenizer"]["max_length"])), torch.tensor([3, 16])


OWN = ("hf", "timm", "torchvision")  # of libraries: their attack points are found in the model; see test_own
CASES = [(name, shape) for name in NAMES if name not in OWN for shape in IMAGES.get(name, [None])]


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_attack_points_exist_and_get_gradients(name, shape):
    config = load(name, "smoke")
    model = build(config, shape)
    model(*batch(config, shape)).logsumexp(1).sum().backward()
    parameters = dict(model.named_parameters())
    assert set(config["attack_points"]) == {"input", "hidden"}
    for point in config["attack_points"].values():
        if point != "<input>":
            assert parameters[point].grad.abs().max() > 0, point
    assert (config["attack_points"]["input"] == "<input>") == (config["kind"] == "image")
    assert sum(p.numel() for p in model.parameters()) < 200_000, "smoke is seconds"


def in_turn() -> list:
    """Return every model at every scale; one of its scales is fast, another for each next model."""
    return [
        pytest.param(name, scale, marks=() if place == number % len(SCALES) else pytest.mark.slow)
        for number, name in enumerate(NAMES) for place, scale in enumerate(SCALES)
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "scale"), in_turn())
def test_values(name, scale):
    config = load(name, scale)
    assert config["name"] == name
    assert config["kind"] in ("text", "image")
    # `dropout` is the rate of reg=dropout, where a model needs an unusual one.
    assert set(config["recipe"]) - {"dropout", "mini_rows"} == RECIPE
    for key in ("learning_rate", "weight_decay", "warmup"):
        assert isinstance(config["recipe"][key], float), key
    for key in ("batch_size", "epochs"):
        assert isinstance(config["recipe"][key], int), key
    if config["kind"] == "text":
        tokenizer = dict(config["tokenizer"])
        find(tokenizer.pop("_target_"))(**tokenizer)
    else:
        assert "tokenizer" not in config


def test_the_notebooks_models():
    """The authors' notebooks: cell, layers, directions, size, hidden target, epochs, batch."""
    for name, expected in {
        "lstm": ("lstm", 1, False, "rnn.weight_ih_l0", 10),
        "bigru": ("gru", 1, True, "rnn.weight_hh_l0", 5),
        "bigru2": ("gru", 2, True, "rnn.weight_ih_l0", 5),
    }.items():
        c = load(name, "full")
        model = (c["cell"], c["layers"], c["bidirectional"], c["attack_points"]["hidden"], c["recipe"]["epochs"])
        assert model == expected
        assert (c["hidden_size"], c["embedding_size"], c["dropout"], c["recipe"]["batch_size"]) == (300, 300, 0.0, 128)
        assert (c["recipe"]["optimizer"], c["recipe"]["learning_rate"]) == ("adam", 1e-3)
