"""The documentation site: `make docs` writes it to build/site, without a network and with warnings as errors.

Sources are docs/, results/ and some files at the repository's root, so that links between them work in the repository
and on the site alike.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxTranslator

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import dropattack  # noqa: E402

project = "DropAttack"
author = "The DropAttack authors"
copyright = f"2026, {author}"
version = release = dropattack.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
PAGES = {"docs", "results", "examples", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"}
exclude_patterns = [path.name for path in ROOT.iterdir() if path.name not in PAGES]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # the anchors that GitHub makes
myst_dmath_double_inline = True

highlight_language = "none"  # of a block that names no language
default_role = "py:obj"  # `name` in a docstring is a link where it names something, and code elsewhere
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # `nullcontext`, not its repr
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
add_module_names = False
napoleon_use_ivar = True

html_math_renderer = "mathml"
html_theme = "furo"
html_title = "DropAttack"
html_static_path = ["_static"]
html_css_files = ["site.css"]
templates_path = ["_templates"]
html_additional_pages = {"index": "redirect.html"}  # the home page is docs/index.html
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"top_of_page_buttons": []}


class NotebookParser(MystParser):
    """Read a Jupyter notebook as Markdown: its text, its code, and the text that its code printed."""

    supported = ("ipynb",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        parts = []
        for cell in json.loads(inputstring)["cells"]:
            source = "".join(cell["source"])
            parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        super().parse("\n\n".join(parts), document)


def math(translator: SphinxTranslator, node: nodes.math | nodes.math_block) -> None:
    r"""Write TeX as MathML, which browsers show without a script; `\qquad` separates lines of a block."""
    block = isinstance(node, nodes.math_block)
    for line in re.split(r",?\s*\\qquad\s*", node.astext()) if block else [node.astext()]:
        formula = convert(line, display="block" if block else "inline")
        translator.body.append(f'<div class="formula">{formula}</div>' if block else formula)
    raise nodes.SkipNode


def escape_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape what reStructuredText would read as markup in a formula: `|w|`, `x*`."""
    for number, line in enumerate(lines):
        parts = line.split("`")
        parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
        lines[number] = "`".join(parts)


def complete_pages(app: Sphinx, docname: str, source: list[str]) -> None:
    """Complete what needs no line of its own: results' titles and figures, the cards, methods in the reference."""
    place = ROOT / docname
    if docname == "docs/methods/README":  # the cards are below their list
        others = sorted(card.stem for card in place.parent.glob("*.md") if card.stem != "README")
        cards = dict.fromkeys([*re.findall(r"\]\((\w+)\.md\)", source[0]), *others])
        titles = {card: place.with_name(f"{card}.md").read_text(encoding="utf-8").splitlines()[0] for card in cards}
        entries = "\n".join(f"{title.lstrip('# ').partition(':')[0]} <{card}>" for card, title in titles.items())
        source[0] += f"\n```{{toctree}}\n:hidden:\n\n{entries}\n```\n"
    if docname == "docs/reference/regularizers":
        known = set(re.findall(r"^\.\. auto\w+:: dropattack\.(\w+)$", source[0], re.MULTILINE))
        if more := [f".. autoclass:: dropattack.{name}" for name in dropattack.__all__ if name not in known]:
            source[0] += "\n## More methods\n\n```{eval-rst}\n" + "\n".join(more) + "\n```\n"
    if not docname.startswith("results/"):
        return
    if not source[0].startswith("# "):
        source[0] = f"# Cost of a step: {place.name}\n\n{source[0]}"
    if place.name == "table":
        figures = [place.with_name("figure.svg"), *sorted(place.parent.glob("landscape/*.svg"))]
    elif place.name == "gradients":
        figures = [place.with_suffix(".svg")]
    else:
        figures = sorted(place.parent.glob(f"{place.name}-*.svg"))
    links = [path.relative_to(place.parent).as_posix() for path in figures if path.is_file()]
    title, _, rest = source[0].partition("\n")
    shown = [f"![{Path(link).stem}]({link})" for link in links]
    if place.name == "table":  # its picture first
        source[0] = "\n\n".join([title, *shown[:1], rest, *shown[1:]])
    else:
        source[0] = "\n\n".join([source[0], *shown])
    if place.name == "findings":  # few sections, and tables that need the room
        source[0] = f"---\nhide-toc: true\n---\n\n{source[0]}"


def unlink_folders(app: Sphinx, document: nodes.document) -> None:
    """Reduce links to the repository's folders to their text: the site does not have them."""
    folder = (ROOT / app.env.docname).parent
    for node in list(document.findall(pending_xref)):
        if node.get("reftype") == "myst" and (folder / node["reftarget"]).is_dir():
            node.replace_self(node.children)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_source_suffix(".ipynb", "ipynb")
    app.add_source_parser(NotebookParser)
    app.add_html_math_renderer("mathml", inline_renderers=(math, None), block_renderers=(math, None))
    app.connect("autodoc-process-docstring", escape_docstring, priority=100)  # before napoleon
    app.connect("source-read", complete_pages)
    app.connect("doctree-read", unlink_folders)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
