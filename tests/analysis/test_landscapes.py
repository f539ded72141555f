"""Figures of landscapes: any number of networks side by side."""

import pytest

from dropattack.analysis.landscapes import draw

METHODS = ("none", "dropout", "fgm", "pgd", "freelb", "dropattack", "sam")


# One row; a row of three and one of two; a row of four and one of three.
@pytest.mark.parametrize("count", [1, 5, pytest.param(7, marks=pytest.mark.slow)])
def test_draws_every_plane(tmp_path, count):
    axis = [-1.0, 0.0, 1.0]
    contents = []
    for i, method in enumerate(METHODS[:count]):
        about = {"dataset": "mnist", "model": "cnn", "method": method, "seed": 0, "split": "test", "rows": 10,
                 "normalise": "filter", "direction_seed": 0}  # fmt: skip
        loss = [[0.1 * (1 + i) + x * x + y * y for x in axis] for y in axis]
        contents.append({"run": method, "kind": "plane", "description": about, "axes": [axis, axis], "done": True,
                         "loss": loss, "accuracy": loss})  # fmt: skip
    made = draw(contents, tmp_path / "figures", "mnist-cnn")
    assert [path.stem for path in made] == [
        f"mnist-cnn-{kind}" for kind in ("contour", "surface", "curves") for _ in "12"
    ]
    assert all(path.stat().st_size > 10_000 for path in made if path.suffix == ".png")
