"""Hostile values on the command line: meaningless values, paths to elsewhere, incompatible choices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.hostile.case import CANARY, Case
from tests.hostile.tables import good

DIGITS, TEXT = ("dataset=digits", "model=cnn"), ("dataset=imdb", "model=lstm")
LONG = 5_000 * "x"


def typed(name: str, says: str, *overrides: str, base: Sequence[str] = DIGITS) -> Case:
    """Make a command line with `overrides`; the data it names exists."""

    def make(folder: Path) -> Sequence[str]:
        if base is TEXT:
            good(folder)
        return [*base, *overrides]

    return Case(name, make, says)


def output_is_a_file(folder: Path) -> Sequence[str]:
    (folder / "out").write_text("mine")
    return DIGITS


CASES = (
    typed("a group that does not exist", r"there is no group or key 'modle' \(did you mean model\?\)", "modle=lstm"),
    typed(
        "a method that does not exist",
        r"there is no reg 'dropatack' \(did you mean dropattack\?\); choices",
        "reg=dropatack",
    ),
    typed(
        "an option of another method",
        r"there is no key 'reg\.epsilon' in reg=rdrop; .*reg=dropattack, .* have it",
        "reg=rdrop",
        "reg.epsilon=1",
    ),
    typed(
        "an option that the constructor does not know",
        r"reg=fgm has no option gamma; options: targets, epsilon",
        "reg=fgm",
        "+reg.gamma=1",
    ),
    typed(
        "an option that is ours to give", r"reg\.model cannot be set in a config: remove it", "reg=fgm", "+reg.model=1"
    ),
    typed("a word without a value", r"cannot read the override 'trainer': write key=value", "trainer"),
    typed("a value without a key", r"cannot read the override '=3': write key=value", "=3"),
    typed(
        "a list left open",
        r"cannot read the override 'reg\.targets=\[input': write key=value",
        "reg=fgm",
        "reg.targets=[input",
    ),
    typed(
        "a negative ε",
        r"reg\.epsilon=-1 is invalid: it must be a number of at least 0",
        "reg=dropattack",
        "reg.epsilon=-1",
    ),
    typed(
        "an infinite ε",
        r"reg\.epsilon=inf is invalid: it must be a number of at least 0",
        "reg=fgm",
        "reg.epsilon=inf",
    ),
    typed("an ε in words", r"reg\.epsilon=large should be a number, such as 1\.0", "reg=fgm", "reg.epsilon=large"),
    typed("p above 1", r"reg\.p=1\.5 is invalid: it must be .* at most 1", "reg=dropattack", "reg.p=1.5"),
    typed("p below 0", r"reg\.p=-0\.1 is invalid: it must be a number of at least 0", "reg=dropattack", "reg.p=-0.1"),
    typed("K of 0", r"reg\.steps=0 is invalid: it must be a whole number of at least 1", "reg=pgd", "reg.steps=0"),
    typed(
        "K of one and a half",
        r"reg\.steps=1\.5 is invalid: it must be a whole number of at least 1",
        "reg=dropattack",
        "reg.steps=1.5",
    ),
    typed("a negative seed", r"seed=-1 is invalid: it must be a whole number from 0", "seed=-1"),
    typed(
        "a seed beyond 32 bits",
        r"seed=4294967296 is invalid: it must be a whole number from 0 to 4294967295",
        "seed=4294967296",
    ),
    typed("a seed in words", r"seed=lucky should be a number, such as 0", "seed=lucky"),
    typed(
        "a negative seed of the split",
        r"dataset\.seed=-1: a seed of the split must be a whole number of at least 0",
        "dataset.seed=-1",
    ),
    typed(
        "a learning rate that is no number",
        r"trainer\.learning_rate=nan is invalid: it must be a number of more than 0",
        "trainer.learning_rate=nan",
    ),
    typed("a dropout of 1", r"model\.dropout=1 is invalid: it must be .*less than 1", "model.dropout=1"),
    typed(
        "more rows than there are",
        r"digits: train_rows=1000000000 must be from 1 to 1097 \(the split's rows\)",
        "dataset.train_rows=1000000000",
    ),
    typed(
        "a hidden size of -1",
        r"model\.hidden_size=-1 is invalid: it must be a whole number of at least 1",
        "model.hidden_size=-1",
        base=TEXT,
    ),
    typed(
        "no layers",
        r"model\.layers=0 is invalid: it must be a whole number of at least 1",
        "model.layers=0",
        base=TEXT,
    ),
    typed(
        "embeddings of size 0",
        r"model\.embedding_size=0 is invalid: it must be a whole number of at least 1",
        "model.embedding_size=0",
        base=TEXT,
    ),
    typed("a width of -1", r"model\.width=-1 is invalid: it must be a number of more than 0", "model.width=-1"),
    typed(
        "a text of no tokens",
        r"tokenizer\.max_length=0 must be a whole number of at least 1",
        "model.tokenizer.max_length=0",
        base=TEXT,
    ),
    typed(
        "a vocabulary of one",
        r"tokenizer\.vocabulary_size=1 must be a whole number of at least 3",
        "model.tokenizer.vocabulary_size=1",
        base=TEXT,
    ),
    typed(
        "no tokenizer",
        r"imdb is text: this model needs a tokenizer \(model\.tokenizer\)",
        "model.tokenizer=null",
        base=TEXT,
    ),
    typed("no recipe", r"model\.recipe\.epochs: node `model\.recipe` is not a container", "model.recipe=null"),
    typed("a scale within a scale", r"there is no scale 'huge'; scales: full, mini, smoke, midi", "scale.name=huge"),
    typed(
        "an augmentation that does not exist",
        r"augment='flip': choose none, crop_flip or shift",
        "dataset.augment=flip",
    ),
    typed(
        "a model that does not read the data",
        r"model=cnn takes image data, and dataset=imdb is text; models that fit: bert",
        "dataset=imdb",
        "model=cnn",
    ),
    typed(
        "an architecture of another size",
        r"model\.arch=lenet5 cannot read images of 8 × 8 pixels .*set model\.arch=small",
        "model.arch=lenet5",
    ),
    typed(
        "a target that matches nothing",
        r"attack target 'nothing' matches no parameter or module; nearest: hidden",
        "reg=fgm",
        "reg.targets=[nothing]",
    ),
    typed(
        "attack points that are a number",
        r"model\.attack_points=3 should be a mapping",
        "model.attack_points=3",
        "reg=fgm",
    ),
    typed(
        "a shell's command for a dashboard",
        r"tracker\._target_=os\.system: there is no such object in dropattack\.tracking or a plug-in; name one",
        "tracker._target_=os.system",
        f"+tracker.command='touch {CANARY}'",
    ),
    typed(
        "a class of another package, behind ours",
        r"tracker\._target_=dropattack\.tracking\.wandb\.os\.system: there is no such object",
        "tracker._target_=dropattack.tracking.wandb.os.system",
        f"+tracker.command='touch {CANARY}'",
    ),
    typed(
        "a function that is no data set",
        r"dataset\._target_=dropattack\.analysis\.formats\.save: there is no such object in .*\.data or a plug-in",
        "dataset._target_=dropattack.analysis.formats.save",
    ),
    typed(
        "a method that is no name",
        r"reg\._target_=3: there is no such object in dropattack\.regularizers or a plug-in; name one",
        "reg._target_=3",
    ),
    typed(
        "a data set's name that climbs out",
        r"dataset\.name=\.\./\.\./evil is invalid: it must be a name",
        "dataset.name=../../evil",
    ),
    typed(
        "a model's name that is a path",
        r"model\.name=/evil is invalid: it must be a name",
        "model.name=/evil",
    ),
    typed(
        "a method's name with a line break",
        r"reg\.name=none\\nevil is invalid: it must be a name",
        "reg.name='none\nevil'",
    ),
    typed(
        "a data set's name with a NUL byte",
        r"dataset\.name=a\\x00b is invalid: it must be a name",
        "dataset.name='a\0b'",
    ),
    typed("a method's name of 5,000 letters", r"reg\.name=x{80}… is invalid: it must be a name", f"reg.name={LONG}"),
    typed("a dashboard's group of 5,000 letters", r"tracker=none has no option group", f"+tracker.group={LONG}"),
    typed(
        "an output folder of 5,000 letters",
        r"paths\.output=x{80}… is invalid: it must be a path",
        f"paths.output={LONG}",
    ),
    typed(
        "an output folder with a NUL byte",
        r"paths\.output=a\\x00b is invalid: it must be a path",
        "paths.output='a\0b'",
    ),
    typed(
        "a data folder of 5,000 letters",
        r"paths\.data=x{80}… is invalid: it must be a path",
        f"paths.data={LONG}",
        base=TEXT,
    ),
    typed(
        "a data folder with a NUL byte",
        r"paths\.data=a\\x00b is invalid: it must be a path",
        "paths.data='a\0b'",
        base=TEXT,
    ),
    typed(
        "vectors of 5,000 letters",
        r"model\.vectors=x{80}… is invalid: it must be a path",
        f"model.vectors={LONG}",
        base=TEXT,
    ),
    Case(
        "a file for an output folder",
        output_is_a_file,
        r"cannot write out/records/.*Not a directory; is paths\.output a writable folder",
    ),
    typed(
        "a secret of the environment",
        r"dataset reads the environment \(oc\.env\), .*write it out",
        "dataset.split=${oc.env:HOME}",
    ),
)
