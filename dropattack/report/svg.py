"""A small chart as inline SVG: two axes, and lines, bands, intervals and marks of methods.

Labels are text and colours are the page's CSS variables, so the chart follows the reader's font size and colour scheme.
`Markup.format` escapes all inserted text.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from dropattack.analysis.tables import MINUS
from dropattack.report.colours import css_class, mark

WIDTH, HEIGHT = 360, 240  # fits a phone unscaled
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 24, 38
Point = tuple[float, float]


def plain(value: float) -> str:
    return f"{value:.4g}".replace("-", MINUS)


def signed(value: float) -> str:
    return f"{value:+.4g}".replace("-", MINUS) if value else "0"


def times(value: float) -> str:
    return f"{value:g}×"


@dataclass(frozen=True)
class Axis:
    """A range from `low` to `high`; `log` makes it logarithmic; `at` replaces the computed ticks."""

    low: float
    high: float
    label: str = ""
    log: bool = False
    form: Callable[[float], str] = plain
    at: tuple[float, ...] = ()
    names: tuple[str, ...] = ()

    def share(self, value: float) -> float:
        """Map `low` to 0 and `high` to 1."""
        low, high, x = (math.log10(v) for v in (self.low, self.high, value)) if self.log else (
            self.low, self.high, value)  # fmt: skip
        return (x - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        values = self.at or (_decades(self.low, self.high) if self.log else round_values(self.low, self.high))
        return list(zip(values, self.names or [self.form(value) for value in values], strict=True))


def around(values: Iterable[float], *, margin: float = 0.06, **options: object) -> Axis:
    """Return an axis over all finite `values`, with a margin."""
    found = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(found), max(found)
    if options.get("log"):
        low = max(low, 1e-12)
        factor = max(high / low, 1.2) ** margin
        return Axis(low / factor, max(high, low * 1.2) * factor, **options)  # type: ignore[arg-type]
    gap = margin * (high - low) or max(abs(high), 1.0) * margin
    return Axis(low - gap, high + gap, **options)  # type: ignore[arg-type]


def round_values(low: float, high: float, count: int = 5) -> tuple[float, ...]:
    """Return about `count` round numbers between `low` and `high`."""
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
    return tuple(round(i * step, 12) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1))


def _decades(low: float, high: float) -> tuple[float, ...]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        found = tuple(factor * 10.0**e for e in exponents for factor in factors if low <= factor * 10.0**e <= high)
        if len(found) >= 3:
            return found
    return found or (low, high)


class Panel:
    """One chart. Everything drawn for a method can be filtered by that method."""

    def __init__(
        self, title: str, x: Axis, y: Axis, *, width: float = WIDTH, height: float = HEIGHT,
        left: float = LEFT,
    ) -> None:  # fmt: skip
        self.title, self.x, self.y, self.width, self.height, self.left = title, x, y, width, height, left
        self._parts: list[Markup] = []

    def px(self, value: float) -> float:
        return self.left + self.x.share(value) * (self.width - self.left - RIGHT)

    def py(self, value: float) -> float:
        return self.height - BOTTOM - self.y.share(value) * (self.height - TOP - BOTTOM)

    def add(self, content: Markup, method: str = "") -> None:
        if method:
            frame = Markup('<g class="{}" data-method="{}">{}</g>')
            content = frame.format(css_class(method), method, content)
        self._parts.append(content)

    def line(self, points: Sequence[Point], method: str, *, dash: int = 0) -> None:
        """Draw a line; `dash` distinguishes variants of one method."""
        pattern = Markup(' stroke-dasharray="{}"').format(("", "6 3", "2 3", "8 3 2 3")[dash % 4]) if dash else ""
        self.add(Markup('<path class="line" d="{}"{}/>').format(self._path(points), pattern), method)

    def band(self, points: Sequence[tuple[float, float, float]], method: str) -> None:
        """Draw a band through points (x, low, high)."""
        if len(points) > 1:
            outline = [(x, high) for x, _, high in points] + [(x, low) for x, low, _ in reversed(points)]
            self.add(Markup('<path class="band" d="{}Z"/>').format(self._path(outline)), method)

    def mark(
        self, x: float, y: float, method: str, *, size: float = 3.4, hollow: bool = False, says: str = "",
        shift: float = 0.0,
    ) -> None:  # fmt: skip
        """Draw a mark at `x`, `y` in axis units; `says` is its tooltip, `shift` moves it right by pixels."""
        self.add(symbol(method, self.px(x) + shift, self.py(y), size, hollow=hollow, says=says), method)

    def interval(self, x: float, low: float, high: float, method: str) -> None:
        place = self.px(x)
        shape = Markup('<path class="interval" d="M{:.1f},{:.1f}V{:.1f}"/>')
        self.add(shape.format(place, self.py(low), self.py(high)), method)

    def rule(self, y: float) -> None:
        shape = Markup('<path class="zero" d="M{},{:.1f}H{}"/>')
        self.add(shape.format(self.left, self.py(y), self.width - RIGHT))

    def words(
        self, x: float, y: float, text: str, *, method: str = "", kind: str = "name", anchor: str = "start"
    ) -> None:
        """Write text at `x`, `y` in pixels."""
        shape = Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
        self.add(shape.format(kind, x, y, anchor, text), method)

    def svg(self, says: str) -> Markup:
        """Return the chart; `says` describes it, with its numbers, for screen readers."""
        head = Markup('<svg class="panel" role="img" viewBox="0 0 {} {}" width="{}"><title>{}</title>')
        parts = [head.format(self.width, self.height, self.width, f"{self.title}: {says}"), *self._frame()]
        return Markup("").join([*parts, *self._parts, Markup("</svg>")])

    def _frame(self) -> list[Markup]:
        bottom = self.height - BOTTOM
        text = Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
        parts = [text.format("title", 2, 13, "start", self.title)]
        for value, name in self.y.ticks():
            y = self.py(value)
            parts.append(Markup('<path class="grid" d="M{},{:.1f}H{}"/>').format(self.left, y, self.width - RIGHT))
            parts.append(text.format("tick", self.left - 6, y + 3.5, "end", name))
        for value, name in self.x.ticks():
            parts.append(text.format("tick", self.px(value), bottom + 14, "middle", name))
        parts.append(
            text.format("label", (self.left + self.width - RIGHT) / 2, self.height - 6, "middle", self.x.label)
        )
        return parts

    def _path(self, points: Sequence[Point]) -> str:
        return "M" + "L".join(f"{self.px(x):.1f},{self.py(y):.1f}" for x, y in points)


def symbol(method: str, x: float, y: float, size: float, *, hollow: bool = False, says: str = "") -> Markup:
    """Draw the mark of a method at a position in pixels."""
    title = Markup("<title>{}</title>").format(says) if says else ""
    shape = Markup('<path class="{}" transform="translate({:.1f} {:.1f}) scale({:g})" d="{}">{}</path>')
    return shape.format("mark hollow" if hollow else "mark", x, y, size, mark(method), title)
