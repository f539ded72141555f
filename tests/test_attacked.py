"""Attack targets checked from the config alone (without torch: test_cli.py); the names are the built model's."""

import pytest

from dropattack.data.types import DataSpec
from dropattack.errors import UserError
from dropattack.models.rnn import RNNClassifier
from dropattack.runs import attacked, experiment
from dropattack.runs.config import compose


def resolved(*overrides):
    return experiment.resolve(compose(experiment.CONF, ["dataset=pydoc", "scale=smoke", "reg=fgm", *overrides]))


@pytest.mark.parametrize("name", ["lstm", "bigru", "bigru2"])
def test_names_are_those_of_the_built_model(name):
    config = resolved(f"model={name}")["model"]
    keys = ("cell", "layers", "bidirectional", "hidden_size", "embedding_size")
    model = RNNClassifier(spec=DataSpec("text", 2, ("a", "b"), 0), **{key: config[key] for key in keys})
    built = [*dict(model.named_parameters()), *(module for module, _ in model.named_modules() if module)]
    assert sorted(attacked.names_of(config)) == sorted(built)


@pytest.mark.parametrize("target", ["embed.weight", "rnn.weight_*", "embed", "input", "hidden", '"<input>"'])
def test_what_a_model_has_is_accepted(target):
    resolved("model=lstm", f"reg.targets=[{target}]")


@pytest.mark.parametrize("target", ["embedding.weight", "rnn.weight_ih_l1", "rnn.weight_ih_l0_reverse", "nothing"])
def test_what_it_does_not_have_is_refused(target):
    with pytest.raises(UserError, match=f"reg.targets: '{target}' matches no parameter.*embed.weight"):
        resolved("model=lstm", f"reg.targets=[{target}]")


def test_other_models_are_asked_when_they_are_built():
    assert attacked.names_of({"_target_": "dropattack.models.cnn.CNN"}) is None
