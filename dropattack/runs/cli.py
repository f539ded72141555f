"""The command line: arguments, messages and exit codes.

Exit codes: 0 done, now or earlier; 2 bad input; 1 anything else (failed or diverged, see the record; or another process
is running the same experiment); 128 + n stopped by signal n, and the same command resumes it (130: Ctrl-C).
stdout ends with the record's path; everything else goes to stderr.
"""

from __future__ import annotations

import os
import select
import sys
import textwrap
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from dropattack import provenance
from dropattack.errors import AlreadyRunningError, DivergedError, UserError, counted, missing_package
from dropattack.files import leave_stdout
from dropattack.runs import experiment, launching, record
from dropattack.runs.config import GROUPS, SEARCH, cells, choices, compose, parse, search_folders

CONF = experiment.CONF
SWEEP = ("-m", "--multirun")
HYDRA = ("--cfg", "-c", "--info", "-i", "--package", "-p", "--resolve", "--hydra-help", "--version",
         "--shell-completion", "-sc", "--experimental-rerun")  # fmt: skip

RETRY_SECONDS = 2.0  # between checks of a run that another process holds
_failure: Exception | None = None  # from the single run of this process


class CellError(Exception):
    """A cell of a sweep failed, which was reported. Always picklable, so a worker can pass it on."""


PURPOSE = "Train a model on a dataset with a regularizer, and write one JSON record of it."
SWEEP_PURPOSE = """\
Train a model for every combination of the values (give several with commas), and write one JSON record of each run.
Same as `dropattack run --multirun`. Finished runs are skipped, and a run that fails does not stop the others.
`hydra/launcher=joblib hydra.launcher.n_jobs=2` trains two at a time. For a whole table, see `dropattack table`.
"""
HELP = """\
{purpose}

  {program} [GROUP=CHOICE …] [KEY=VALUE …]

Groups and their choices (* is the default):
{groups}

Common keys (`{program} --cfg job` shows all of them, for the given choices):
  seed=1                            seed of weights, batches, dropout and attacks
  trainer.epochs=3                  also batch_size, learning_rate, precision=bf16, device=cpu, patience=2, …
  reg.epsilon=1 reg.p=0.3           the method's hyperparameters, listed in its file in conf/reg/
  'reg.targets=[input,hidden]'      the attacked points: input, hidden, parameter names, globs or modules
  dataset.fraction=0.5              half of the training data
  paths.data=DIR paths.output=DIR   the data folder (or DROPATTACK_DATA), and the folder for all output
  plugins=[my_module]               data sets, models and methods of your own; --config-dir DIR for your own YAMLs
  rerun=true                        run again even if there is a finished record

Examples:
{examples}

Give the same command again to resume a stopped run. A run that is done is not run again.
The last line on stdout is the record's path. Exit codes: 0 done, 2 bad input, 1 failed or diverged, 128 + n
stopped by signal n (130: Ctrl-C).
"""
EXAMPLES = """\
  {program} dataset=digits model=cnn reg=none scale=smoke tracker=none     a few seconds, no download
  {program} dataset=imdb model=lstm reg=dropattack scale=mini              real data on two CPU cores
  {program} experiment=notebook_imdb model.vectors=glove.6B.300d.txt       as the authors ran it
  {program} --multirun reg=none,fgm,dropattack seed=0,1,2 scale=mini       a sweep; done cells are skipped"""
SWEEP_EXAMPLES = """\
  {program} dataset=digits model=cnn scale=smoke tracker=none reg=none,dropattack seed=0,1
  {program} scale=mini reg=none,fgm,dropattack seed=0,1,2 hydra/launcher=joblib hydra.launcher.n_jobs=2
  {program} dataset=digits model=cnn scale=mini reg=dropattack 'reg.epsilon=0.5,1,2'"""


def main(
    hydra_main: Callable[[], Any], argv: Sequence[str] | None = None, *, program: str = "dropattack run"
) -> int:  # fmt: skip
    """Run the command line.

    Args:
        hydra_main: the function under `@hydra.main`; it reads `sys.argv` itself.
        argv: the arguments; None uses `sys.argv`.
        program: the command, as --help shows it.

    Returns:
        The exit code: see the module's docstring.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "-h" in arguments or "--help" in arguments:
        print(help_text(CONF, program), end="")
        return 0
    return guarded(lambda: _dispatch(hydra_main, arguments))


def execute(config: DictConfig) -> None:
    """Run one experiment inside Hydra, and print the path of its record.

    In a sweep, report an error and raise it, so that the launcher knows the cell failed. In a single run, keep it for
    `main`: Hydra would add its own messages.

    Raises:
        CellError: the run failed, in a sweep.
    """  # noqa: DOC501  the UserError is kept, or becomes a CellError
    global _failure
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    sweep = hydra.mode == RunMode.MULTIRUN
    if not sweep:
        os.environ.setdefault(provenance.JOBS, "1")
    try:
        if hydra.job.chdir:  # set in a file of conf/: overrides were refused earlier
            raise UserError(launching.CHDIR)
        path = _run_cell(config) if sweep else experiment.run(config)
        if os.environ.get("RANK", "0") == "0":  # under torchrun, once
            _show(path)
    except Exception as error:
        if sweep:
            why = provenance.without_secrets(sentence(error))
            experiment.say(f"{' '.join(hydra.overrides.task)}: {why}")
            record.note_error(experiment.Run.of(config).record_path, why)
            raise CellError(why) from None
        _failure = error


def _show(path: Path) -> None:
    """Print the record's path; a reader that has gone does not make a finished run fail."""
    try:
        print(path, flush=True)
    except BrokenPipeError:
        leave_stdout()


def _run_cell(config: DictConfig) -> Path:
    """Run one cell of a sweep. If another process holds the run, wait, then return or resume it."""
    waits = False
    while True:
        try:
            return experiment.run(config)
        except AlreadyRunningError as error:
            if not waits:
                experiment.say(f"waiting: {error}")
            waits = True
            time.sleep(RETRY_SECONDS)


def _dispatch(hydra_main: Callable[[], Any], arguments: list[str]) -> int:
    given, arguments = arguments, launching.prepared(CONF, arguments)
    if sys.argv[1:] == given:
        sys.argv[1:] = arguments
    flags = [argument for argument in arguments if argument.startswith("-")]
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    if any(flag.partition("=")[0] in HYDRA for flag in flags):
        return _hydra(hydra_main)  # Hydra handles these itself
    unknown = [flag for flag in flags if flag not in SWEEP]
    if unknown:
        raise UserError(f"there is no option {unknown[0]}; write GROUP=CHOICE or KEY=VALUE, or see --help")
    parsed = parse(overrides)
    if sys.argv[1:] == arguments:  # Hydra reads sys.argv, and wants flags before or after all overrides
        sys.argv[1:] = [*flags, *overrides]
    if flags:
        return _sweep(hydra_main, overrides)
    launching.check_environment()
    for override in parsed:
        if override.is_sweep_override():
            raise UserError(f"{override.input_line} names several values: add --multirun, or quote a list as [a,b]")
    if any(override.key_or_group.startswith("hydra") for override in parsed):
        launching.check_hydra(CONF, overrides, sweep=False)
    asked = experiment.Run.of(compose(CONF, overrides))
    say_untuned([asked.config], search_folders(parsed))
    if (found := asked.done()) is not None and found["status"] == "finished":
        experiment.say("already done (rerun=true runs it again)")
        _show(asked.record_path)
        return 0
    return _hydra(hydra_main)


def _sweep(hydra_main: Callable[[], Any], overrides: list[str]) -> int:
    """Check all cells, run them through Hydra's launcher, and report the result of each at the end."""
    wanted = cells(overrides)
    asked = {}
    for cell in wanted:
        own = [text for text in cell if not text.lstrip("+~").startswith("hydra") or text.startswith(SEARCH)]
        asked[" ".join(cell)] = experiment.Run.of(compose(CONF, own))
    records = {line: one.record_path for line, one in asked.items()}
    launching.check_hydra(CONF, wanted[0], sweep=True)
    say_untuned((one.config for one in asked.values()), search_folders(parse(overrides)))
    runs = set(records.values())
    before = sum(record.is_done(path) is not None for path in runs)
    twice = f" ({len(wanted)} cells, some of which are the same run)" * (len(runs) < len(wanted))
    experiment.say(f"{counted(len(runs), 'run')}{twice}, {before} of them done already")
    code = 0
    try:
        code = _hydra(hydra_main)
    except CellError:
        code = 1  # each failure was reported when it happened
    except Exception as error:
        code = 1
        experiment.say(f"error: the sweep ended early: {provenance.without_secrets(sentence(error))}")
    states = {path: record.state(path) for path in runs}
    counts = Counter(states.values())
    experiment.say(", ".join(f"{number} {state}" for state, number in sorted(counts.items())))
    _say_unfinished({line: (states[path], record.why(path)) for line, path in records.items()
                     if states[path] != "finished"})  # fmt: skip
    return code if code else int(counts["finished"] < len(runs))


def _say_unfinished(runs: Mapping[str, tuple[str, str]]) -> None:
    """Report each unfinished run's state and reason, and a reason that several share once."""
    shared = Counter(runs.values())
    for (state, why), number in shared.items():
        lines = [line for line, own in runs.items() if own == (state, why)]
        if number == 1:
            experiment.say(f"  {state}: {lines[0]} ({why})")
        else:
            experiment.say("\n".join([f"  {number} {state} ({why}):", *(f"    {line}" for line in lines)]))


def say_untuned(configs: Iterable[Mapping[str, Any]], folders: Sequence[Path] = ()) -> None:
    """Report runs for which `settings=tuned` finds no tuned settings in `conf` and these other folders."""
    names: dict[str, None] = {}
    for values in configs:
        name = "-".join(values[group]["name"] for group in ("scale", "dataset", "model", "reg"))
        chosen = values["settings"]["name"]
        files = [folder / "settings" / chosen / f"{name}.yaml" for folder in (CONF, *folders)]
        if chosen != "paper" and not any(file.exists() for file in files):
            names[f"settings={chosen}: nothing was tuned for {name}"] = None
    if names:
        shown = "; ".join([*names][:5]) + f" and {len(names) - 5} more" * (len(names) > 5)
        experiment.say(f"{shown}. These runs use the settings of conf/reg/ and the model's recipe (see `make tune`)")


def _hydra(hydra_main: Callable[[], Any]) -> int:
    global _failure
    _failure = None  # of an earlier run of this process
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise exceptions unchanged
    hydra_main()
    if _failure is not None:
        raise _failure
    return 0


def guarded(action: Callable[[], int]) -> int:
    """Run a command and turn any exception into one sentence and an exit code; `commands.main` ends a broken pipe."""
    try:
        return action()
    except UserError as error:
        experiment.say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        experiment.say("interrupted; the same command resumes the run")
        return 130
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _has_no_reader():
            raise
        if isinstance(error, ModuleNotFoundError) and (missing := missing_package(error)):
            experiment.say(f"error: {missing}")
            return 2
        if not _is_expected(error):
            experiment.say(provenance.without_secrets(traceback.format_exc()))
        experiment.say(f"error: {provenance.without_secrets(sentence(error))}")
        return 1
    except BaseException as error:
        if not hasattr(error, "exit_code"):  # SystemExit
            raise
        experiment.say(f"{error}; the same command resumes the run")
        return int(error.exit_code)


def _has_no_reader() -> bool:
    """Return whether the reader of stdout has gone; a large write that failed leaves nothing in the buffer."""
    try:
        sys.stdout.flush()
        pipe = select.poll()  # not on Windows
        pipe.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in pipe.poll(0))
    except BrokenPipeError:
        return True
    except (AttributeError, OSError, ValueError):  # not a file
        return False


def _is_expected(error: Exception) -> bool:
    return isinstance(error, DivergedError | AlreadyRunningError)


def sentence(error: BaseException) -> str:
    """Return an error as one line for the user."""
    lines = str(error).strip().splitlines()
    if isinstance(error, UserError) or (isinstance(error, Exception) and _is_expected(error)):
        return str(error)
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def help_text(conf: Path, program: str = "dropattack run") -> str:
    """Return the text of --help for the command `program`, with the groups found on disk."""
    from omegaconf import OmegaConf

    defaults: dict[str, Any] = {}
    config: Any = OmegaConf.to_container(OmegaConf.load(conf / "config.yaml"))
    for entry in config["defaults"]:
        if isinstance(entry, dict):
            defaults.update(entry)
    lines = []
    for group in GROUPS:
        names = [f"{name}*" if name == str(defaults.get(group) or "null") else name for name in choices(conf, group)]
        lines += textwrap.wrap(f"  {group:<11} {', '.join(names)}", 100, subsequent_indent=" " * 14)
    purpose, examples = (SWEEP_PURPOSE, SWEEP_EXAMPLES) if program.endswith("sweep") else (PURPOSE, EXAMPLES)
    return HELP.format(
        purpose=purpose.rstrip(), groups="\n".join(lines), program=program, examples=examples.format(program=program)
    )
