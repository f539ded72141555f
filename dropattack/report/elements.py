"""What a page is made of: grids (tables) and figures, with what they can be filtered by."""

from dataclasses import dataclass, field, replace

from markupsafe import Markup

from dropattack.analysis.compare import ORDER
from dropattack.report.colours import css_class
from dropattack.report.intervals import SIGNS
from dropattack.report.svg import symbol

EMPTY = Markup()


@dataclass(frozen=True)
class Facets:
    """What an element is about; an empty one is about all of them."""

    dataset: str = ""
    model: str = ""
    method: str = ""

    def of(self, method: str) -> "Facets":
        return replace(self, method=method)


@dataclass(frozen=True)
class Cell:
    """`kind`: text, number, picture, verdict, or said: a number with the sign of its verdict `says`."""

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
    """Rows under a heading of their own."""

    heading: str
    rows: tuple[Row, ...]
    facets: Facets = Facets()


@dataclass(frozen=True)
class Grid:
    caption: str
    columns: tuple[str, ...]
    groups: tuple[Group, ...]
    notes: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()  # where a column is about a method: which, for each column


@dataclass(frozen=True)
class Figure:
    """Panels that share a legend, and the caption that explains them."""

    caption: str
    panels: tuple[Markup, ...]
    legend: tuple["Key", ...] = ()
    facets: Facets = Facets()
    note: str = ""
    dense: bool = False  # small panels, two beside each other on a telephone


@dataclass(frozen=True)
class Key:
    """One line of a legend; `dash` as that of the line it explains."""

    method: str
    label: str
    dash: int = 0

    @property
    def swatch(self) -> Markup:
        return swatch(self.method)

    @property
    def variant(self) -> str:
        return ("", "dashed", "dotted", "dash-dotted")[self.dash % 4]


@dataclass
class Part:
    """A section under a heading; `missing` says what is not there and which command makes it."""

    id: str
    title: str
    lead: str = ""
    grids: list[Grid] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    folded: list[Grid] = field(default_factory=list)  # long tables, after the figures, opened by who wants them
    parts: list["Part"] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    html: Markup = EMPTY
    details: Markup = EMPTY
    details_title: str = ""
    facets: Facets = Facets()


def swatch(method: str) -> Markup:
    """The mark of a method beside its name, which says the same: nothing to be read aloud."""
    frame = Markup('<svg class="swatch {}" aria-hidden="true" viewBox="0 0 14 14" width="14" height="14">{}</svg>')
    return frame.format(css_class(method), symbol(method, 7, 7, 4.4))


def rank(method: str) -> tuple[int, str]:
    """The order of methods everywhere."""
    return (ORDER.index(method) if method in ORDER else len(ORDER), method)
