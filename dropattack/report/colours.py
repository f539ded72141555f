"""Colour and mark of each method, as in all figures of the project, lightened where needed on the dark page."""

from dropattack.analysis.figures import COLOURS

LIGHT, DARK = "#fdfdfb", "#15181b"  # the page
LEAST = 3.0  # minimum contrast of a mark with the page (WCAG 2.2, 1.4.11)
# Unit paths: the mark identifies a method as well as its colour does.
MARKS = {
    "none": "M-.9,0a.9,.9 0 1,0 1.8,0a.9,.9 0 1,0 -1.8,0Z",
    "dropout": "M-.85,-.85H.85V.85H-.85Z",
    "fgm": "M0,-1.1L1,.75H-1Z",
    "pgd": "M0,-1.2L1.2,0L0,1.2L-1.2,0Z",
    "freelb": "M0,1.1L1,-.75H-1Z",
    "dropattack": "M0,-1.1L1.05,-.34L.65,.9H-.65L-1.05,-.34Z",
    "rdrop": "M-.35,-1.1H.35V-.35H1.1V.35H.35V1.1H-.35V.35H-1.1V-.35H-.35Z",
    "sam": "M-1.1,-.6H-.55L0,-1.1L.55,-.6H1.1V.6H.55L0,1.1L-.55,.6H-1.1Z",
}
OTHER = "M-1.1,-.5H1.1V.5H-1.1Z"


def mark(method: str) -> str:
    return MARKS.get(method, OTHER)


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


def diverging(value: float, reach: float) -> str:
    """Return a red below zero and a blue above, like matplotlib's RdBu; distinguishable by the colour-blind."""
    share = min(1.0, abs(value) / reach) if reach else 0.0
    return mix("#f7f7f7", "#2166ac" if value > 0 else "#b2182b", share)


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def _luminance(colour: str) -> float:
    channels = [c / 255 for c in _rgb(colour)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
