"""Build a W&B report of tables that were logged there: per table its runs, grouped by data set and method.

    dropattack wandb-report text vision --entity my-team

Expects each table's runs in the group `table-<name>`, as `make table-<name>` logs them. Needs `wandb login`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dropattack.commands.parsing import new_parser
from dropattack.errors import UserError
from dropattack.runs import cli, experiment
from dropattack.sweeps.table import TableConfig, load_table

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr


def report(tables: list[TableConfig], *, entity: str, project: str) -> wr.Report:
    """Build the report without saving it."""
    try:
        import wandb_workspaces.reports.v2 as wr
        from wandb_workspaces import expr
    except ImportError as error:
        raise UserError("pip install 'wandb-workspaces>=0.4' first") from error

    blocks: list[Any] = [
        wr.P("Made from the runs. `make table-<name>` makes tables with paired intervals and verdicts.")
    ]
    for table in tables:
        own = expr.And(expr.Metric("Group") == f"table-{table.name}")
        runs = wr.Runset(
            entity=entity, project=project, name=table.title, filters=own,
            groupby=["config.dataset.name", "config.reg.name"],
        )  # fmt: skip
        panels: list[Any] = [
            wr.BarPlot(title="test accuracy", metrics=[wr.SummaryMetric("test/accuracy")], groupby_aggfunc="mean",
                       groupby_rangefunc="stddev", layout=wr.Layout(0, 0, 12, 8)),
            wr.LinePlot(title="validation accuracy", x="Step", y=["validation/accuracy"], groupby_aggfunc="mean",
                        groupby_rangefunc="stddev", layout=wr.Layout(12, 0, 12, 8)),
            wr.LinePlot(title="training loss", x="Step", y=["train/loss"], groupby_aggfunc="mean",
                        layout=wr.Layout(0, 8, 12, 8)),
        ]  # fmt: skip
        blocks += [wr.H1(table.title), wr.PanelGrid(runsets=[runs], panels=panels)]
    return wr.Report(entity=entity, project=project, title="DropAttack: tables", blocks=blocks)


def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser("wandb-report", __doc__)
    parser.add_argument("tables", nargs="+", help="names of conf/table/, or files of your own")
    parser.add_argument("--entity", default="", help="user or team (default: the logged-in one)")
    parser.add_argument("--project", default="dropattack")
    args = parser.parse_args(argv)
    return cli.guarded(lambda: send(args))


def send(args: argparse.Namespace) -> int:
    tables = [load_table(experiment.CONF, name) for name in args.tables]
    made = report(tables, entity=args.entity, project=args.project)
    try:
        made.save()
    except Exception as error:  # no key, no network, no such entity: report the server's message
        print(f"error: W&B did not accept the report: {error}", file=sys.stderr)
        return 1
    print(made.url)
    return 0
