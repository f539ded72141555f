"""Hostile YAML: tables, tuned settings, tuning plans, and files of config groups."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.hostile.case import Case, command, own_conf, run

table, tune = command("table"), command("tune")
GOOD = "title: t\nkind: comparison\nseeds: 2\ngrids: [[dataset=digits, model=cnn, 'reg=none,fgm']]\n"
DIGITS = ("dataset=digits", "model=cnn")


def written(name: str, where: str, content: str | bytes, says: str, *arguments: str, use=run) -> Case:
    """Copy conf/ with one file added or replaced."""

    def make(folder: Path) -> Sequence[str]:
        path = own_conf(folder) / where
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return arguments

    return Case(name, make, says, use=use)


def of_table(name: str, content: str | bytes, says: str) -> Case:
    return written(name, "table/t.yaml", content, says, "t", "--results", "results", use=table)


def called(name: str, says: str, *arguments: str, use=table) -> Case:
    return Case(name, lambda folder: arguments, says, use=use)


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def group(name: str, where: str, content: str | bytes, says: str, *arguments: str) -> Case:
    return written(name, where, content, says, *DIGITS, *arguments)


TUNED = "settings/tuned/smoke-digits-cnn-fgm.yaml"
FGM = "_target_: dropattack.regularizers.FGM\nname: mine\ntargets: [input]\n"
SETTLED = ("reg=fgm", "settings=tuned")


def planned(methods: str, rungs: str = "[{settings: 2, seeds: 1}]") -> str:
    return f"seed: 1\nrungs: {rungs}\nrecipe_rungs: {rungs}\nrecipe: {{}}\nmethods: {methods}\nfollows: {{}}\n"


def of_plan(name: str, content: str, says: str) -> Case:
    """Tune a table of two cells: all cells are composed before the plan is read."""

    def make(folder: Path) -> Sequence[str]:
        conf = own_conf(folder)
        (conf / "table" / "vision.yaml").write_text(GOOD)
        (conf / "tune" / "smoke.yaml").write_text(content)
        return TUNE

    return Case(name, make, says, use=tune)


TUNE = ("vision", "--scale", "smoke", "--jobs", "1", "--output", "out", "--results", "results", "--conf", "tuned")

CASES = (
    of_table("a table that is no YAML", "title: [\n", r"conf/table/t\.yaml cannot be read: .*line 2: .*; correct it"),
    of_table("a table of bytes", b"\xff\xfe\0\1", r"conf/table/t\.yaml cannot be read: 'utf-8' codec .*; correct it"),
    of_table("a table of no bytes", "", r"conf/table/t\.yaml lacks title, kind, seeds, grids; add it"),
    of_table(
        "a table that is a list",
        "- title\n",
        r"conf/table/t\.yaml does not hold a mapping of keys to values; correct it",
    ),
    of_table("a table without grids", GOOD.partition("grids")[0], r"conf/table/t\.yaml lacks grids; add it"),
    of_table(
        "a table of no grids",
        changed("[[dataset=digits, model=cnn, 'reg=none,fgm']]", "[]"),
        r"conf/table/t\.yaml: grids=\[\] must be a list of lists of overrides",
    ),
    of_table(
        "a table whose grids are words",
        changed("[[dataset=digits, model=cnn, 'reg=none,fgm']]", "[reg=none]"),
        r"conf/table/t\.yaml: grids=\['reg=none'\] must be a list of lists of overrides",
    ),
    of_table(
        "a table with a key that nothing reads",
        GOOD + "gird: []\n",
        r"conf/table/t\.yaml: nothing reads gird; its keys can be title, kind",
    ),
    of_table(
        "a table of an unknown kind",
        changed("comparison", "pie"),
        r"conf/table/t\.yaml: kind='pie' must be one of comparison, curve",
    ),
    of_table("a curve without an axis", changed("comparison", "curve"), r"conf/table/t\.yaml lacks x; add it"),
    of_table(
        "a table of no seeds",
        changed("seeds: 2", "seeds: 0"),
        r"conf/table/t\.yaml: seeds=0 must be a whole number from 1",
    ),
    of_table(
        "a table of seeds in words",
        changed("seeds: 2", "seeds: five"),
        r"conf/table/t\.yaml: seeds='five' must be a whole number from 1",
    ),
    of_table(
        "a table with an invalid override",
        changed("model=cnn", "modle=cnn"),
        r"there is no group or key 'modle' \(did you mean model\?\)",
    ),
    of_table(
        "a table of a method that does not exist",
        changed("fgm", "gfm"),
        r"there is no reg 'gfm' \(did you mean fgm\?\); choices: awp",
    ),
    called("a table that does not exist", r"there is no table 'nothing'; tables: .*vision", "nothing"),
    called("a table whose name climbs out", r"there is no table '\.\./\.\./x'; tables: .*vision", "../../x"),
    called(
        "a table in another folder of conf/",
        r"there is no table '\.\./dataset/imdb'; tables: .*vision",
        "../dataset/imdb",
    ),
    called("a table by its whole path", r"there is no table '/etc/hostname'; tables: .*vision", "/etc/hostname"),
    called("a table of 5,000 letters", r"there is no table 'x{79}; tables: .*vision", 5_000 * "x"),
    called("a table with a NUL byte", r"there is no table 'a\\x00b'; tables: .*vision", "a\0b"),
    called("a table of no seeds, as typed", r"--seeds=0 must be at least 1", "vision", "--seeds", "0"),
    called(
        "a tuned table whose name climbs out", r"there is no table '\.\./\.\./x'; tables: .*vision", "../../x", use=tune
    ),
    written(
        "a tuned table whose cells climb out",
        "table/vision.yaml",
        changed("dataset=digits", "dataset=../../evil"),
        r"there is no dataset '\.\./\.\./evil'; choices: agnews",
        *TUNE,
        use=tune,
    ),
    of_plan(
        "a plan without methods",
        "seed: 1000\nrecipe: {}\n",
        r"conf/tune/smoke\.yaml lacks rungs, recipe_rungs, methods, follows; add it",
    ),
    of_plan(
        "a plan that lacks a method",
        planned("{none: {}}"),
        r"the plan of scale smoke has no settings for fgm; add them",
    ),
    of_plan(
        "a plan whose settings are numbers",
        planned("{none: 1}"),
        r"conf/tune/smoke\.yaml: methods must map names to settings, such as fgm",
    ),
    of_plan(
        "a plan whose rungs widen",
        planned("{none: {}}", "[{settings: 2, seeds: 1}, {settings: 3, seeds: 2}]"),
        r"conf/tune/smoke\.yaml: rungs must be a list such as",
    ),
    of_plan(
        "a plan with an unknown key for one data set",
        planned("{none: {}}") + "of_dataset: {mnist: {rung: 1}}\n",
        r"conf/tune/smoke\.yaml: of_dataset must map data sets to rungs, recipe_rungs and rows of their own",
    ),
    of_plan(
        "a plan with a range down to 0",
        planned("{fgm: {reg.epsilon: {log: [0, 1]}}}"),
        r"conf/tune/smoke\.yaml: fgm: reg\.epsilon: log must be \[low, high\], with low < high and low > 0",
    ),
    of_plan(
        "a plan with two kinds of range",
        planned("{fgm: {reg.epsilon: {log: [1, 2], of: [3]}}}"),
        r"conf/tune/smoke\.yaml: fgm: reg\.epsilon must be a value, or one of log, uniform, of and value",
    ),
    of_plan(
        "a plan with an unknown setting",
        planned("{none: {trainer.lr: 1}}"),
        r"there is no key 'trainer\.lr' \(did you mean",
    ),
    group(
        "tuned settings that are no YAML",
        TUNED,
        "# @package _global_\nreg: {\n",
        r"conf/settings/tuned/smoke-digits-cnn-fgm\.yaml, line 3: expected",
        *SETTLED,
    ),
    group(
        "tuned settings with an unknown option",
        TUNED,
        "# @package _global_\nreg: {epsilonn: 1}\n",
        r"reg=fgm has no option epsilonn; options: targets, epsilon",
        *SETTLED,
    ),
    group(
        "tuned settings with an unknown key of the trainer",
        TUNED,
        "# @package _global_\ntrainer: {epochz: 1}\n",
        r"nothing reads trainer\.epochz: remove it",
        *SETTLED,
    ),
    group(
        "tuned settings with a number in words",
        TUNED,
        "# @package _global_\nreg: {epsilon: large}\n",
        r"reg\.epsilon=large is invalid: it must be a number",
        *SETTLED,
    ),
    group(
        "tuned settings that set a folder",
        TUNED,
        "# @package _global_\npaths: {data: ../evil}\n",
        r"smoke-digits-cnn-fgm\.yaml sets paths, but tuned settings only set model, reg, trainer: remove it",
        *SETTLED,
    ),
    group(
        "tuned settings that name code",
        TUNED,
        "# @package _global_\nreg: {_target_: os.system}\n",
        r"reg\._target_=os\.system: there is no such object in dropattack\.regularizers or a plug-in; name one",
        *SETTLED,
    ),
    group(
        "tuned settings that read the environment",
        TUNED,
        "# @package _global_\nreg: {dropout_masks: '${oc.env:HOME}'}\n",
        r"reg reads the environment \(oc\.env\), .*write it out",
        *SETTLED,
    ),
    group(
        "a method's file that is no YAML",
        "reg/mine.yaml",
        "name: mine\n\ttargets: [\n",
        r"conf/reg/mine\.yaml, line 2: found character",
        "reg=mine",
    ),
    group(
        "a method's file of bytes",
        "reg/mine.yaml",
        b"\xff\xfe\0\1",
        r"not UTF-8, one of .*conf/reg/mine\.yaml",
        "reg=mine",
    ),
    group(
        "a method's file of no bytes",
        "reg/mine.yaml",
        "",
        r"there is no reg\.name, and a run needs it: add it",
        "reg=mine",
    ),
    group(
        "a method's file that is a list",
        "reg/mine.yaml",
        "- name\n",
        r"there is no reg\.name, and a run needs it: add it",
        "reg=mine",
    ),
    group(
        "a method's file without a name",
        "reg/mine.yaml",
        FGM.replace("name: mine\n", ""),
        r"there is no reg\.name, and a run needs it: add it",
        "reg=mine",
    ),
    group(
        "a method's file without a class",
        "reg/mine.yaml",
        "name: mine\n",
        r"there is no reg\._target_, and a run needs it: add it",
        "reg=mine",
    ),
    group(
        "a method's file with a class that does not exist",
        "reg/mine.yaml",
        FGM.replace(".FGM", ".FGMM"),
        r"reg\._target_=dropattack\.regularizers\.FGMM: there is no such object",
        "reg=mine",
    ),
    group(
        "a method's file with an unknown option",
        "reg/mine.yaml",
        FGM + "gamma: 1\n",
        r"reg=mine has no option gamma; options: targets, epsilon",
        "reg=mine",
    ),
    group(
        "a method's file with a name that climbs out",
        "reg/mine.yaml",
        FGM.replace("name: mine", "name: ../../evil"),
        r"reg\.name=\.\./\.\./evil is invalid: it must be a name",
        "reg=mine",
    ),
    group(
        "a method's file with a key twice",
        "reg/mine.yaml",
        FGM + "name: other\n",
        r"conf/reg/mine\.yaml, line 4: found duplicate key name",
        "reg=mine",
    ),
    group(
        "a method's file that refers to nothing",
        "reg/mine.yaml",
        FGM + "epsilon: ${nothing.there}\n",
        r"'nothing\.there' not found",
        "reg=mine",
    ),
    group(
        "a trainer's file that lacks keys",
        "trainer/mine.yaml",
        "epochs: 1\n",
        r"there is no key 'trainer\.device'",
        "trainer=mine",
    ),
    group(
        "a data set's file without a kind",
        "dataset/mine.yaml",
        "_target_: dropattack.data.digits.load\nname: mine\n",
        r"there is no dataset\.kind, and a run needs it: add it",
        "dataset=mine",
    ),
    group(
        "a preset with a key that nothing reads",
        "experiment/mine.yaml",
        "# @package _global_\nepochs: 3\n",
        r"nothing reads epochs: remove it",
        "experiment=mine",
    ),
)
