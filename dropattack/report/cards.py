"""Convert the project's Markdown (method cards, the kill test's page) to HTML: MathML, no raw HTML, no dead links."""

import re
from functools import cache, lru_cache
from html import escape
from typing import Any

from markupsafe import Markup

HEADINGS = {f"h{n}": f"h{min(6, n + 2)}" for n in range(1, 7)}  # a card's title is below a section's


@lru_cache(maxsize=100)  # converting formulas takes most of a page's time
def render(markdown: str) -> Markup:
    """Render Markdown with headings two levels down; links that only work in the repository become plain text."""
    parser = _parser()
    tokens = parser.parse(markdown)
    for token in tokens:
        token.tag = HEADINGS.get(token.tag, token.tag)
        if token.children:
            token.children = _links(token.children)
    html = parser.renderer.render(tokens, parser.options, {})
    table = '<div class="scroll" tabindex="0" role="region" aria-label="table"><table>'
    html = html.replace("<table>", table).replace("</table>", "</table></div>")
    return Markup(html.replace("<pre>", '<pre tabindex="0">'))  # make scrolling elements reachable by keyboard


def card(markdown: str) -> tuple[str, Markup]:
    """Split a method's card into (title, the rest as HTML)."""
    first, _, rest = markdown.lstrip().partition("\n")
    return first.lstrip("# ").strip(), render(rest)


def lead_and_rest(markdown: str) -> tuple[Markup, Markup]:
    """Split Markdown into (what precedes the first table, the rest), without the title."""
    _, _, body = markdown.lstrip().partition("\n")
    lead, bar, rest = body.partition("\n|")
    return render(lead), render(bar.lstrip() + rest)


@cache
def _parser() -> Any:
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    return parser.use(dollarmath_plugin, renderer=_formula, allow_space=False, double_inline=True)


def _formula(tex: str, options: dict[str, Any]) -> str:
    r"""Return TeX as MathML, which browsers render natively; TeX that cannot be converted is shown as is.

    Formulas separated by `\qquad` are stacked, because a phone has no room for four in a row.
    """
    if not options.get("display_mode", False):
        return _mathml(tex, "inline")
    lines = re.split(r",?\s*\\qquad\s*", tex)
    return "".join(f'<div class="formula" tabindex="0">{_mathml(line, "block")}</div>' for line in lines)


def _mathml(tex: str, display: str) -> str:
    from latex2mathml.converter import convert

    try:
        return convert(tex, display=display)
    except Exception:  # TeX that the converter rejects is still readable
        return f"<code>{escape(tex)}</code>"


def _links(children: list[Any]) -> list[Any]:
    """Keep links to the web, point links between cards to their sections, and reduce all others to their text."""
    kept, dead = [], 0
    for token in children:
        if token.type == "link_open":
            target = str(token.attrGet("href"))
            if other := re.fullmatch(r"([a-z]+)\.md(#.*)?", target):
                token.attrSet("href", f"#method-{other[1]}")
            elif not target.startswith("https://"):
                dead += 1
                continue
        elif token.type == "link_close" and dead:
            dead -= 1
            continue
        elif token.type == "image":  # nothing may be loaded
            continue
        kept.append(token)
    return kept
