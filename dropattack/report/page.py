"""Build the page: sections in Jinja templates, with style and script inlined, so that nothing is loaded."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from dropattack.analysis.drawing import rank
from dropattack.progress import counting
from dropattack.report import colours, gather, sections
from dropattack.report.claims import Claims
from dropattack.report.elements import swatch
from dropattack.report.gather import Found, TableSpec
from dropattack.report.opening import opening
from dropattack.report.overview import against_others, overview


def build(results: Path, *, tables: Sequence[TableSpec], docs: Path, claims: Claims | None = None) -> str:
    """Return the whole page as HTML. The same files give the same bytes.

    Args:
        results: folder of records, probes, landscapes and benchmarks.
        tables: those of conf/table/, in display order.
        docs: folder with the methods' cards.
        claims: `read_claims(…)`; with them the page opens with the answer.

    Raises:
        UserError: a YAML file or a file of values cannot be read at all.
    """
    found, empty = gather.tables(results, tables)
    with counting("tables", len(found)) as done:
        for one in found:
            _ = one.compared  # cached; most of the time goes into it
            done(f"{one.table.name}, {one.scale}")
    parts = [
        *(opening(claims, found) if claims else []),
        *filter(None, [overview(found), against_others(found, removed=claims.removed if claims else 0)]),
        sections.tables(found, tables, empty),
        sections.landscapes(results),
        sections.step_costs(results),
        sections.kills(results),
        sections.methods(docs, found),
        *filter(None, [sections.single_runs(found), sections.provenance(found)]),
    ]
    environment = Environment(
        loader=PackageLoader("dropattack.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["commands"] = commands
    environment.globals["swatch"] = swatch
    script = _source("script.js")
    return environment.get_template("report.html").render(
        parts=parts, facts=facts(found), choices=choices(found), colours=colours,
        style=Markup(_source("style.css") + colours.stylesheet()),
        script=Markup(script), script_hash=_hash(script),
    )  # fmt: skip


def facts(found: Sequence[Found]) -> list[tuple[str, str]]:
    """Return the facts at the top: runs, data, models, methods, scales."""
    if not found:
        return [("Runs", "none yet")]
    frame = pd.concat([one.frame for one in found]).drop_duplicates("run_id")
    seeds = sorted({int(seed) for seed in frame["seed"]})
    listed = f"{seeds[0]} to {seeds[-1]}" if seeds == list(range(seeds[0], seeds[-1] + 1)) and len(seeds) > 2 else (
        ", ".join(map(str, seeds)))  # fmt: skip
    return [
        ("Runs", f"{len(frame):,} finished, seeds {listed}" if len(seeds) > 1 else f"{len(frame):,}, seed {listed}"),
        ("Data sets", ", ".join(sorted(frame["dataset"].unique()))),
        ("Models", ", ".join(sorted(frame["model"].unique()))),
        ("Methods", ", ".join(sorted(frame["method"].unique(), key=rank))),
        ("Scale", "; ".join(said for scale, said in gather.SCALES.items() if scale in {one.scale for one in found})),
    ]


def choices(found: Sequence[Found]) -> dict[str, list[str]]:
    """Return the values that can be filtered by."""

    def values(column: str) -> set[str]:
        return {str(value) for one in found for value in one.frame[column]}

    return {
        "dataset": sorted(values("dataset")), "model": sorted(values("model")),
        "method": sorted(values("method"), key=rank),
    }  # fmt: skip


def commands(sentence: str) -> Markup:
    """Mark up text in backticks as commands."""
    pieces = [escape(piece) for piece in sentence.split("`")]
    frame = Markup("<code>{}</code>")
    return Markup("").join(frame.format(piece) if i % 2 else piece for i, piece in enumerate(pieces))


def _source(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """Return the hash for the page's security policy, which allows this script only, whatever a record contains."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
