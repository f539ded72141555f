"""SVG of matplotlib as a small tree that can be part of a page: without ids, with text as text, and with tooltips."""

import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from matplotlib.figure import Figure

_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


def tag(artist: Any, method: str, says: str = "") -> Any:
    """Mark what `artist` draws as a method's, with a tooltip. It is not cut at the edge of the axes."""
    artist.set_gid(json.dumps([method, says]))
    artist.set_clip_on(False)
    return artist


def tidy(figure: Figure, colour: Callable[[str], str] = str) -> Element:
    """Return the figure as SVG without ids, definitions and empty groups; text stays text, and tags are attributes."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _LINK)
    source = ElementTree.fromstring(buffer.getvalue())
    shapes = {f"#{e.get('id')}": e for e in source.iter(f"{{{_SVG}}}path") if e.get("id")}
    root = Element(source.tag, {name: source.get(name, "") for name in ("viewBox", "width", "height")})
    for child in source:
        root.extend(_needed(child, shapes, colour))
    return root


def _needed(element: Element, shapes: dict[str, Element], colour: Callable[[str], str]) -> Iterator[Element]:
    tag, attributes = element.tag.rpartition("}")[2], dict(element.attrib)
    name = attributes.pop("id", "")
    attributes.pop("clip-path", None)
    if tag in ("metadata", "defs") or "display: none" in attributes.get("style", ""):
        return
    if tag == "g":
        inside = [one for child in element for one in _needed(child, shapes, colour)]
        if not inside or not name.startswith("["):
            yield from inside
            return
        method, says = json.loads(name)
        group = Element(element.tag, {"data-method": method})
        if says:
            title = Element(f"{{{_SVG}}}title")
            title.text = says
            group.append(title)
        group.extend(inside)
        yield group
        return
    made = Element(element.tag)
    if tag == "use":
        shape = shapes[attributes.pop(f"{{{_LINK}}}href")]
        made.tag = shape.tag
        place = f"translate({attributes.pop('x', '0')} {attributes.pop('y', '0')})"
        styles = (shape.get("style", ""), attributes.get("style", ""))
        rules = dict(rule.split(": ") for style in styles for rule in style.split("; ") if rule)
        attributes |= {
            "d": shape.get("d", ""),
            "transform": place,
            "style": "; ".join(": ".join(r) for r in rules.items()),
        }
    for key, value in attributes.items():
        if key == "style":
            value = re.sub(r"font-family: [^;]*;? ?", "", value).rstrip("; ")
            value = re.sub("#[0-9a-f]{6}", lambda found: colour(found[0]), value)
        elif key in ("d", "x", "y", "transform"):
            value = re.sub(r"-?\d+\.\d+", _short, value)
            value = re.sub(r"\s*\n\s*|(?<=[MLCQz]) ", "", value)
        if not value.startswith("rotate(-0 "):
            made.set(key, value)
    made.text = element.text if tag == "text" else None
    yield made


def _short(number: re.Match[str]) -> str:
    value = float(number[0])
    return f"{value:.1f}".removesuffix(".0") if abs(value) >= 10 else f"{value:.2f}".rstrip("0").rstrip(".")
