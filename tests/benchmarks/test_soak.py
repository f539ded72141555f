"""The soak test of long sweeps: what counts as growth or loss, and a short sweep of real runs."""

import json

import pytest

from benchmarks import soak, soak_page


def sweep(memory: float = 0.0, cpu: float = 0.0, **changes) -> dict:
    """Return a sweep of 100 runs whose worker grows by `memory` MB and `cpu` seconds with each run."""
    samples = [
        {"seconds": 2.0 * done, "done": done, "cpu_seconds": done + cpu * done**2, "driver": [200, 9],
         "workers": [[0, 700 + memory * done, 12], [1, 650, 12]]}
        for done in range(101)
    ]  # fmt: skip
    known = {"runs": 100, "finished": 100, "failed": [], "stored": [{"records": 100, "reads": 3}], "samples": samples}
    return {**known, **changes}


def test_growth_and_losses_are_found():
    assert soak_page.problems(sweep()) == []
    assert soak_page.problems(sweep(memory=2.0)) == ["memory went from 730 to 890"]
    assert soak_page.problems(sweep(cpu=0.01)) == ["cpu went from 1.3 to 2.9"]
    assert soak_page.problems(sweep(finished=99)) == ["1 of 100 runs have no finished record"]
    assert soak_page.problems(sweep(stored=[{"records": 90, "reads": 1}])) == ["the store has 90 of 100 records"]
    assert soak_page.problems(sweep(samples=[]))  # nothing was seen


def test_the_page_is_made_again_from_the_json(tmp_path):
    path = tmp_path / "soak.json"
    path.write_text(soak_page.dumps({"joblib": sweep(), "ray": sweep(memory=2.0)}))
    assert json.loads(path.read_text())["sweeps"]["joblib"] == sweep()
    assert soak.main(["--no-run", "--json", str(path)]) == 0
    made = path.with_suffix(".md").read_text()
    assert "| joblib | 100 | 0 | 2 | 700 → 700 MB | 12 → 12 | 1.00 → 1.00 s | 200 → 200 MB | 9 → 9 |" in made
    assert "- ray: memory went from 730 to 890" in made
    assert path.with_suffix(".svg").read_text().startswith("<svg")


@pytest.mark.slow
def test_a_short_sweep(tmp_path):
    path = tmp_path / "soak.json"
    soak.main(["--runs", "20", "--store-every", "10", "--every", "0.5", "--json", str(path)])
    found = json.loads(path.read_text())["sweeps"]["joblib"]
    assert found["finished"] == found["runs"] == found["stored"][-1]["records"] >= 20
    assert found["failed"] == []
    assert {worker[0] for sample in found["samples"] for worker in sample["workers"]} == {0, 1}
    assert str(tmp_path) not in path.read_text()
