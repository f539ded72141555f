"""A table's margin and primary family, as read from its file."""

import re
from pathlib import Path

import pytest
import yaml

from dropattack.errors import UserError
from dropattack.runs.experiment import CONF
from dropattack.statistics import MARGIN, FoundRow, Plan, Primary
from dropattack.sweeps.table import load_table, overrides

TABLE = {"title": "T", "kind": "comparison", "seeds": 2, "grids": [["reg=none"]]}
PRIMARY = {"method": "fgm", "against": "none", "datasets": ["imdb", "mnist"]}


def load(tmp_path, **more):
    (tmp_path / "table").mkdir(exist_ok=True)
    (tmp_path / "table" / "t.yaml").write_text(yaml.safe_dump({**TABLE, **more}))
    return load_table(tmp_path, "t").plan


def test_plan_of_a_table(tmp_path):
    assert load(tmp_path) == Plan(MARGIN, None)
    assert load(tmp_path, kind="curve", x="reg.epsilon", grids=[["dataset=imdb", "reg=fgm"]]).rows == ()
    assert load(tmp_path, margin=1).margin == 1.0
    assert (load(tmp_path).timed, load(tmp_path, timed=False).timed) == (True, False)
    more = {**PRIMARY, "where": {"reg.epsilon": 1.0}, "declared": "before"}
    assert load(tmp_path, primary=more).primary == Primary(
        "fgm", "none", ("imdb", "mnist"), {"reg.epsilon": 1.0}, "before"
    )


def test_rows_of_a_table_come_from_its_grids(tmp_path):
    (tmp_path / "experiment").mkdir()
    preset = {"defaults": ["_self_", {"override /dataset": "pheme"}, {"override /reg": "dropattack"}]}
    (tmp_path / "experiment" / "own.yaml").write_text(yaml.safe_dump(preset))
    grids = [["dataset=imdb,mnist", "reg=none,fgm", "seed=range(3)"], ["experiment=own"],
             ["experiment=own", "reg=fgm", "reg.epsilon=1,5"], ["dataset=imdb", "reg=none", "seed=3,4"]]  # fmt: skip
    plan = load(tmp_path, grids=grids)
    assert [(row.dataset, str(row), row.seeds) for row in plan.rows] == [
        ("imdb", "none", 5), ("imdb", "fgm", 3), ("mnist", "none", 3), ("mnist", "fgm", 3), ("pheme", "dropattack", 2),
        ("pheme", "fgm (epsilon=1)", 2), ("pheme", "fgm (epsilon=5)", 2),
    ]  # fmt: skip
    assert plan.seeds(FoundRow("imdb", "lstm", "none", {})) == 5
    assert plan.seeds(FoundRow("pheme", "bigru", "fgm", {"reg.epsilon": 5.0})) == 2
    assert plan.seeds(FoundRow("pheme", "bigru", "sam", {})) == 0, "not of this table"
    assert missing(plan, ("imdb", "lstm", "none", {}), ("mnist", "cnn", "none", {}),
                   ("pheme", "bigru", "fgm", {"reg.epsilon": 1.0})) == [
        "imdb fgm", "mnist fgm", "pheme dropattack", "pheme fgm (epsilon=5)"
    ]  # fmt: skip


def test_numbers_are_read_as_hydra_reads_them(tmp_path):
    plan = load(tmp_path, grids=[["dataset=imdb", "reg=fgm", "reg.epsilon=1e-5,1e-3"]])
    found = [("imdb", "lstm", "fgm", {"reg.epsilon": value}) for value in (1e-5, 1e-3)]
    assert missing(plan, *found) == []
    assert [plan.seeds(FoundRow(*one)) for one in found] == [2, 2]


def missing(plan, *found):
    return [f"{row.dataset} {row}" for row in plan.missing([FoundRow(*one) for one in found])]


def test_rows_are_found_by_their_values_whatever_their_form(tmp_path):
    grids = [["dataset=imdb", "model=lstm", "reg=fgm", "reg.targets=[input],[hidden]", "reg.relative=false"],
             ["dataset=imdb", "model=lstm", "reg=freelb", "reg.epsilon=null"],
             ["dataset=imdb", "model=lstm", "reg=compose", "reg.methods=[fgm,awp]"],
             ["dataset=glue", "dataset.task=rte", "model=bert,hf", "reg=none"]]  # fmt: skip
    plan = load(tmp_path, grids=grids)
    fgm = [("imdb", "lstm", "fgm", {"reg.targets": [point]}) for point in ("input", "hidden")]  # false is left out
    found = [*fgm, ("imdb", "lstm", "freelb", {"reg.epsilon": None}), ("imdb", "lstm", "fgm+awp", {}),
             ("glue-rte", "MiniLM (model=bert)", "none", {}), ("glue-rte", "hf", "none", {})]  # fmt: skip
    assert missing(plan, *found) == []
    assert missing(plan, *found[1:]) == ["imdb fgm (relative=false, targets=['input'])"]
    assert missing(plan, *found[:-1]) == ["glue-rte none"], "of the other model"


def test_a_row_without_settings_is_not_found_in_one_that_has_its_own(tmp_path):
    grids = [["dataset=imdb", "reg=dropattack"], ["dataset=imdb", "reg=dropattack", "reg.relative=true"]]
    plan = load(tmp_path, grids=grids)
    relative = ("imdb", "lstm", "dropattack", {"reg.relative": True, "reg.epsilon": 0.1})
    assert missing(plan, relative) == ["imdb dropattack"]
    assert missing(plan, relative, ("imdb", "lstm", "dropattack", {"reg.relative": False})) == []


def test_seeds_that_are_asked_for_replace_those_of_every_grid(tmp_path):
    load(tmp_path, grids=[["reg=none", "seed=7"], ["reg=fgm"]])
    for seeds, wanted in ((None, [["seed=7"], ["seed=0,1"]]), (3, [["seed=0,1,2"]] * 2)):
        grids = overrides(load_table(tmp_path, "t", seeds), scale="smoke", output=Path("outputs"))
        assert [[one for one in grid if one.startswith("seed=")] for grid in grids] == wanted


@pytest.mark.parametrize("margin", [0, -1, 100, "wide", True])
def test_impossible_margin_is_refused(tmp_path, margin):
    with pytest.raises(UserError, match=r"t\.yaml: margin=.* must be points of accuracy, above 0"):
        load(tmp_path, margin=margin)


@pytest.mark.parametrize(
    "changes",
    [{"against": "fgm"}, {"datasets": []}, {"datasets": ["imdb", "imdb"]}, {"where": []}, {"colour": "red"},
     {"method": None}, {"declared": 3}],
)  # fmt: skip
def test_impossible_primary_family_is_refused(tmp_path, changes):
    with pytest.raises(UserError, match=r"t\.yaml: primary=.* must be a mapping with method, against: none"):
        load(tmp_path, primary={**PRIMARY, **changes})


@pytest.mark.parametrize("path", sorted((CONF / "table").glob("*.yaml")), ids=lambda path: path.stem)
def test_primary_families_name_data_sets_and_methods_that_exist(path):
    primary = load_table(CONF, path.stem).plan.primary
    if primary is not None:
        groups = [re.sub(r"^glue-(rte|mrpc|cola)$", "glue", name) for name in primary.datasets]
        assert all((CONF / "dataset" / f"{name}.yaml").is_file() for name in groups)
        assert (CONF / "reg" / f"{primary.method}.yaml").is_file()
