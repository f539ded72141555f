"""The command `dropattack` itself: names, help, exit codes, and the end of a pipe."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from dropattack.commands.main import NAMES, main
from dropattack.runs import cli

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_every_command_has_a_file_and_every_file_a_command():
    files = {path.stem.replace("_", "-") for path in (ROOT / "dropattack" / "commands").glob("*.py")}
    assert files - {"--init--", "each", "inputs", "main", "parsing"} == set(NAMES)


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in NAMES)
    assert max(map(len, out.splitlines())) <= 120
    assert main([]) == 2
    assert capsys.readouterr().out == out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dropattack ")


@pytest.mark.parametrize("name", NAMES)
def test_help_of_each_starts_nothing(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([name, "--help"]) == 0
    assert f"dropattack {name}" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_name_is_answered_in_one_sentence(capsys):
    assert main(["comparee"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: there is no command 'comparee' (did you mean compare?); commands: run, ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(("given", "said"), [
    (["table"], "the following arguments are required: name; `dropattack table --help` explains"),
    (["predict"], "the following arguments are required: record; `dropattack predict --help` explains"),
    (["claims", "--nothing"], "unrecognized arguments: --nothing; `dropattack claims --help` explains"),
])  # fmt: skip
def test_wrong_arguments_are_answered_in_one_line(given, said, capsys):
    assert main(given) == 2
    assert capsys.readouterr().err == f"error: {said}\n"


def test_a_missing_package_is_answered_in_one_sentence(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "dropattack.commands.table", None)
    with pytest.raises(ModuleNotFoundError):
        main(["table"])  # not a package of the extra: an error of ours
    monkeypatch.setitem(sys.modules, "hydra", None)
    monkeypatch.delitem(sys.modules, "dropattack.commands.run", raising=False)
    assert main(["run"]) == 2
    said = "error: hydra is not installed: the command line needs the extra `experiments`"
    assert capsys.readouterr().err.startswith(said)


def test_help_and_wrong_names_import_nothing_heavy():
    code = (
        "import sys; from dropattack.commands.main import main; codes = [main(['--help']), main(['nothing'])]\n"
        "sys.exit(codes != [0, 2] or bool({'torch', 'hydra', 'numpy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.name != "posix", reason="a pipe of POSIX")
@pytest.mark.parametrize("arguments", [
    ["--help"], ["run", "--help"], pytest.param(["table", "--help"], marks=pytest.mark.slow),
], ids=" ".join)  # fmt: skip
def test_a_closed_pipe_ends_quietly(arguments):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "dropattack", *arguments]
    done = subprocess.run(command, env=ENVIRONMENT, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) in ((141, ""), (0, ""))  # argparse writes its help without an error


@pytest.mark.skipif(os.name != "posix", reason="a pipe of POSIX")
def test_a_large_write_to_a_closed_pipe_is_not_an_error_of_ours(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    out = os.fdopen(write, "w")
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(BrokenPipeError):  # `main` ends it quietly
        cli.guarded(lambda: print("x" * 100_000))
    with suppress(BrokenPipeError):
        out.close()
