"""`dropattack.make`: methods by name."""

import pytest
import yaml

import dropattack as da
from dropattack.regularizers import Compose, Regularizer
from dropattack.regularizers.factory import method_named, names
from tests.regularizers.networks import NETWORKS
from tests.test_layers import ROOT


def test_every_exported_method_has_a_name():
    exported = {getattr(da, name) for name in da.__all__ if isinstance(getattr(da, name), type)}
    methods = {cls for cls in exported if issubclass(cls, Regularizer) and cls not in (Regularizer, Compose)}
    assert {method_named(name) for name in names()} == methods


def test_the_names_are_those_of_the_command_line():
    for path in sorted((ROOT / "conf" / "reg").glob("*.yaml")):
        config = yaml.safe_load(path.read_text())
        options = config.get("reg", config)
        plain = options["_target_"].endswith(".Identity") and options["name"] != "none"  # dropout, say
        if not plain and options["name"] != "compose":
            assert method_named(options["name"]) is getattr(da, options["_target_"].rpartition(".")[2])


def test_makes_the_method_with_its_options():
    model = NETWORKS[0].build()
    made = da.make("FGM", model, epsilon=0.25, every=3)
    assert isinstance(made, da.FGM)
    assert (made.epsilon, made.every, made.targets[0].name) == (0.25, 3, "embed.weight")
    assert isinstance(da.make("none", model), da.Identity)


@pytest.mark.parametrize(("name", "options", "error", "message"), [
    ("smmart", {}, ValueError, "there is no method 'smmart'; did you mean 'smart'[?] methods: awp, "),
    (None, {}, ValueError, "there is no method None; methods: awp, "),
    ("sam", {"epsilon": 1}, TypeError, "SAM has no option 'epsilon'; options: targets, rho, adaptive, dropout_masks"),
    ("none", {"rho": 1}, TypeError, "Identity has no option 'rho'; options: targets, seed"),
])  # fmt: skip
def test_what_there_is_not_is_an_error(name, options, error, message):
    with pytest.raises(error, match=message):
        da.make(name, NETWORKS[0].build(), **options)


def test_an_option_that_a_method_does_not_have_is_an_error_where_it_is_made_directly_too():
    model = NETWORKS[0].build()
    with pytest.raises(
        TypeError,
        match=r"^DropAttack has no option 'eps' \(epsilon\?\); options: targets, epsilon, p, steps, .*schedule$",
    ):
        da.DropAttack(model, "embed.weight", eps=3)

    class Own(da.Regularizer):
        pass

    with pytest.raises(TypeError, match=r"^Own has no option 'eps'; options: targets, dropout_masks, .*schedule$"):
        Own(model, "embed.weight", eps=3)
