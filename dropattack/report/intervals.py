"""Draw a difference in a table's row: a dot, its interval, and the line of no difference."""

import math

from markupsafe import Markup

from dropattack.report.colours import css_class, symbol
from dropattack.statistics import BETTER, EQUIVALENT, UNKNOWN, WORSE, PairedDifference

WIDTH, HEIGHT = 120, 20
# A sign accompanies the word: no verdict is shown by colour alone.
SIGNS = {BETTER: "▲", WORSE: "▼", EQUIVALENT: "≈", UNKNOWN: "○", "higher": "↑", "lower": "↓"}


def interval_picture(difference: PairedDifference, scale: float, method: str, says: str) -> Markup:
    """Draw one row; `scale` is shared by the rows compared by eye, and `says` is the text alternative."""

    def place(value: float) -> float:
        return WIDTH / 2 + max(-1.0, min(1.0, value / scale)) * (WIDTH / 2 - 8)

    middle = HEIGHT / 2
    parts = [Markup('<path class="zero" d="M{0},1V{1}"/>').format(WIDTH / 2, HEIGHT - 1)]
    if math.isfinite(difference.low):
        shape = Markup('<path class="interval" d="M{:.1f},{}H{:.1f}"/>')
        parts.append(shape.format(place(difference.low), middle, place(difference.high)))
        arrow = Markup('<path class="arrow" d="M{},{}l{},-4v8Z"/>')
        if difference.low < -scale * 1.001:
            parts.append(arrow.format(2, middle, 6))
        if difference.high > scale * 1.001:
            parts.append(arrow.format(WIDTH - 2, middle, -6))
    parts.append(symbol(method, place(difference.mean), middle, 9))
    frame = Markup(
        '<svg class="forest {}" role="img" viewBox="0 0 {w} {h}" width="{w}" height="{h}"><title>{}</title>{}</svg>'
    )
    return frame.format(css_class(method), says, Markup("").join(parts), w=WIDTH, h=HEIGHT)
