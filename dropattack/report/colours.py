"""Colour and mark of each method, as in all figures of the project, lightened where needed on the dark page."""

from markupsafe import Markup
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path

from dropattack.analysis.drawing import COLOURS, FAINT, INK, PAGE, QUIET, marker

LIGHT, DARK = "#fdfdfb", "#15181b"  # the page
LEAST = 3.0  # minimum contrast of a mark with the page (WCAG 2.2, 1.4.11)
# The page's CSS variable of each colour of a figure.
VARIABLES = {
    INK: "var(--ink)", QUIET: "var(--quiet)", "#555555": "var(--quiet)", "#777777": "var(--quiet)",
    "#999999": "var(--quiet)", FAINT: "var(--faint)", PAGE: "var(--page)",
    **{colour: f"var(--m-{name})" for name, colour in COLOURS.items()},
}  # fmt: skip
LETTERS = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C", Path.CLOSEPOLY: "Z"}


def variable(colour: str) -> str:
    """Return the page's variable for a colour of a figure, or the colour, if it is the same on every page."""
    return VARIABLES.get(colour, colour)


def symbol(method: str, x: float, y: float, size: float) -> Markup:
    """Draw the mark of a method at a position in pixels."""
    style = MarkerStyle(marker(method))
    outline = style.get_path().transformed(style.get_transform())
    steps = [
        LETTERS[code] + " ".join(f"{x + size * a:.1f},{y - size * b:.1f}" for a, b in points.reshape(-1, 2))
        if code != Path.CLOSEPOLY else "Z"
        for points, code in outline.iter_segments()
    ]  # fmt: skip
    return Markup('<path class="mark" d="{}"/>').format("".join(steps))


def css_class(method: str) -> str:
    """Return a CSS class; only known names become one, so that a record's text is never part of the markup."""
    return f"m m-{method}" if method in COLOURS else "m"


def stylesheet() -> str:
    """Return each method's colour as a CSS variable, for the light and the dark page."""
    light = "".join(f"--m-{name}:{colour};" for name, colour in COLOURS.items())
    dark = "".join(f"--m-{name}:{lightened(colour, DARK)};" for name, colour in COLOURS.items())
    classes = "".join(f".m-{name}{{--c:var(--m-{name})}}\n" for name in COLOURS)
    return f":root{{{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n{classes}"


def lightened(colour: str, background: str) -> str:
    """Mix `colour` with as much white as it needs for contrast with a dark `background`."""
    for step in range(21):
        mixed = mix(colour, "#ffffff", step / 20)
        if contrast(mixed, background) >= LEAST:
            return mixed
    return "#ffffff"


def mix(first: str, second: str, share: float) -> str:
    """Mix two colours; `share` is that of the second."""
    parts = zip(_rgb(first), _rgb(second), strict=True)
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in parts)


def contrast(first: str, second: str) -> float:
    """Return the WCAG 2 contrast ratio: 1 (equal) to 21."""
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def _luminance(colour: str) -> float:
    channels = [c / 255 for c in _rgb(colour)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
