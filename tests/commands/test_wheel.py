"""The wheel: built from the files of the project, installed, and used in an empty folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from dropattack import __version__ as VERSION

ROOT = Path(__file__).resolve().parents[2]
BUILT_FROM = ("dropattack", "conf", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")


def call(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "DROPATTACK_COMMIT")}
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env={**clean, "OMP_NUM_THREADS": "1", **environment}, capture_output=True,
        text=True, timeout=200, check=False,
    )  # fmt: skip


pytestmark = pytest.mark.skipif(os.name != "posix", reason="the folders of a POSIX environment")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build the wheel from a copy, as pip does, without a network."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in BUILT_FROM:
        place = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(place, copy / name, ignore=ignore) if place.is_dir() else shutil.copy(place, copy / name)
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    done = call(sys.executable, "-c", build, out, cwd=copy)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """Install the wheel in an environment that borrows the other packages of this one; return its command."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python"]
    done = call(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    assert done.returncode == 0, done.stderr
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")  # a plain path, behind the wheel's package
    return folder / "bin" / "dropattack"


def test_the_wheel_holds_the_package_and_every_config(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    configs = {f"dropattack/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "dropattack").rglob("*.py")}
    assert configs | modules <= names
    assert {name.partition("/")[0] for name in names} == {"dropattack", f"dropattack-{VERSION}.dist-info"}


def test_the_packaged_command_finds_its_configs(wheel, tmp_path):
    """From the wheel's own files, unpacked; installed: the slow test."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "empty").mkdir()
    code = (
        "import sys; from dropattack.commands import main\n"
        "assert main.__file__.startswith(sys.argv[1]); sys.exit(main.main(['run', '--help']))"
    )
    site = str(tmp_path / "site")
    done = call(sys.executable, "-c", code, site, cwd=tmp_path / "empty", PYTHONPATH=site)
    assert done.returncode == 0, done.stderr
    assert all(path.stem in done.stdout for path in (ROOT / "conf" / "reg").glob("*.yaml"))
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_folder(installed, tmp_path):
    """Train, compare and predict with the installed command; everything is written below outputs/."""
    done = call(installed, "run", "--help", cwd=tmp_path)
    assert "dropattack" in done.stdout
    run = ("dataset=digits", "model=cnn", "reg=fgm", "scale=smoke", "tracker=none", "trainer.device=cpu")
    done = call(installed, "run", *run, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = done.stdout.splitlines()[-1]
    assert f'"hash": "v{VERSION}"' in (tmp_path / record).read_text()
    table = call(installed, "compare", "--baseline", "fgm", cwd=tmp_path)
    assert (table.returncode, "| digits / cnn | fgm" in table.stdout) == (0, True), table.stderr
    Image.new("L", (8, 8)).save(tmp_path / "outputs" / "black.png")
    said = call(installed, "predict", record, "--images", "outputs/black.png", cwd=tmp_path)
    assert (said.returncode, said.stdout.count("\t")) == (0, 2), said.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
    report = call(installed, "report", cwd=tmp_path)
    assert (report.returncode, report.stderr.count("\n")) == (2, 1)
    assert "there is no folder results" in report.stderr
