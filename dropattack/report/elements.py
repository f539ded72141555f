"""Elements of a page: grids (tables) and figures, with the facets they can be filtered by."""

from dataclasses import dataclass, field, replace

from markupsafe import Markup

from dropattack.analysis.drawing import Key
from dropattack.report.colours import css_class, symbol
from dropattack.report.intervals import SIGNS

EMPTY = Markup()


@dataclass(frozen=True)
class Facets:
    """The data set, model and method of an element; an empty field means all."""

    dataset: str = ""
    model: str = ""
    method: str = ""

    def of(self, method: str) -> "Facets":
        return replace(self, method=method)


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: as shown.
        kind: text, number, picture, verdict, or said (a number with the sign of its verdict).
        picture: replaces the text.
        says: the verdict, for `said`.
    """

    text: str
    kind: str = "number"
    picture: Markup = EMPTY
    says: str = ""

    @property
    def verdict(self) -> str:
        return self.text if self.kind == "verdict" else self.says

    @property
    def sign(self) -> str:
        return SIGNS.get(self.verdict, "")

    @property
    def tone(self) -> str:
        return {"better": "good", "worse": "bad"}.get(self.verdict, "")


@dataclass(frozen=True)
class Row:
    cells: tuple[Cell, ...]
    facets: Facets = Facets()

    @property
    def swatch(self) -> Markup:
        return swatch(self.facets.method) if self.facets.method else Markup()


@dataclass(frozen=True)
class Group:
    """Rows below a common heading."""

    heading: str
    rows: tuple[Row, ...]
    facets: Facets = Facets()


@dataclass(frozen=True)
class Grid:
    caption: str
    columns: tuple[str, ...]
    groups: tuple[Group, ...]
    notes: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()  # the method of each column, empty for other columns


@dataclass(frozen=True)
class Figure:
    """Panels that share a legend, and the caption that explains them."""

    caption: str
    panels: tuple[Markup, ...]
    legend: tuple[Key, ...] = ()
    facets: Facets = Facets()
    note: str = ""
    dense: bool = False  # small panels, two side by side on a phone


@dataclass
class Part:
    """A section with a heading. `missing` lists what has not been made yet and the command that makes it."""

    id: str
    title: str
    lead: str = ""
    grids: list[Grid] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    folded: list[Grid] = field(default_factory=list)  # long tables, collapsed, after the figures
    parts: list["Part"] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    html: Markup = EMPTY
    details: Markup = EMPTY
    details_title: str = ""
    facets: Facets = Facets()


def swatch(method: str) -> Markup:
    """Draw the mark of a method next to its name; hidden from screen readers, which read the name."""
    frame = Markup('<svg class="swatch {}" aria-hidden="true" viewBox="0 0 14 14" width="14" height="14">{}</svg>')
    return frame.format(css_class(method), symbol(method, 7, 7, 9))
