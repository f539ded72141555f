"""The page in a browser without a network. Skipped if there is no Chromium."""

import shutil
from collections.abc import Iterator

import pytest

sync_api = pytest.importorskip("playwright.sync_api")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TELEPHONE, DESK = {"width": 390, "height": 844}, {"width": 1400, "height": 900}
VISIBLE_ROWS = "[...document.querySelectorAll('#table-mini-vision > .grid tr.item')].filter(e => e.offsetParent)"


@pytest.fixture(scope="module")
def browser() -> Iterator:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_api.sync_playwright() as playwright:
        try:  # Playwright's own, if there is no other
            started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"no Chromium that starts: {str(error).splitlines()[0]}")
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(page, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page, encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def opened(browser, address) -> Iterator:
    """Return `opened(hash, **options)`, which opens the page; errors and network requests fail the test."""
    contexts, trouble = [], []

    def go(place: str = "", **options):
        contexts.append(browser.new_context(**({"viewport": DESK, "reduced_motion": "reduce"} | options)))
        tab = contexts[-1].new_page()
        tab.on("console", lambda message: trouble.append(message.text))
        tab.on("pageerror", lambda error: trouble.append(str(error)))
        tab.on("request", lambda request: request.url.startswith(("file:", "data:")) or trouble.append(request.url))
        tab.goto(address + place)
        return tab

    yield go
    for context in contexts:
        context.close()
    assert not trouble


def rows(tab) -> list[str]:
    return tab.evaluate(f"{VISIBLE_ROWS}.map(e => e.dataset.dataset + ' ' + e.dataset.method)")


def test_opens_with_everything_visible(opened):
    tab = opened()
    assert len(rows(tab)) == 8
    assert tab.title() == "DropAttack: the report"
    assert tab.locator("svg.panel").count() > 20
    pictures = "[...document.querySelectorAll('svg, img')].filter(e => e.ariaHidden !== 'true')"
    assert tab.evaluate(f"{pictures}.every(e => e.alt || e.querySelector('title')?.textContent.length > 10)")


def test_filters_hide_everything_else(opened):
    tab = opened()
    tab.check("input[name=dataset][value=mnist]")
    tab.check("input[name=method][value=fgm]")
    assert rows(tab) == ["mnist fgm"]
    assert "Shows" in tab.inner_text("#status")
    assert tab.locator("#glance thead th:visible").all_inner_texts() == ["data / model", "fgm"]
    assert tab.locator("#table-mini-vision figcaption:visible", has_text="cifar10").count() == 0
    drawn = "[...document.querySelectorAll('#table-mini-vision g[data-method]')].filter(e => e.getClientRects().length)"
    assert set(tab.evaluate(f"{drawn}.map(e => e.dataset.method)")) == {"fgm"}
    assert not tab.is_visible("#method-dropattack")
    tab.click("button[type=reset]")
    sync_api.expect(tab.locator("#status")).to_be_empty()
    assert len(rows(tab)) == 8
    assert tab.is_visible("#method-dropattack")


def test_search_finds_words_in_rows_and_unfolds_them(opened):
    tab = opened()
    tab.fill("input[name=q]", "better dropattack")
    assert rows(tab) == ["cifar10 dropattack", "mnist dropattack"]
    tab.fill("input[name=q]", "brier")
    assert tab.locator("#table-mini-vision-beyond tr.heading:visible", has_text="Brier").count() == 2
    tab.fill("input[name=q]", "no such words")
    assert rows(tab) == []
    assert tab.locator("#tables > .nothing").is_visible()


def test_address_keeps_and_restores_the_state(opened):
    tab = opened()
    tab.check("input[name=dataset][value=cifar10]")
    tab.fill("input[name=q]", "fgm worse")
    tab.click("nav a[href='#methods']")
    place = tab.evaluate("location.hash")
    assert place == "#methods&dataset=cifar10&q=fgm%20worse"
    again = opened(place)
    assert again.is_checked("input[name=dataset][value=cifar10]")
    assert again.input_value("input[name=q]") == "fgm worse"
    assert rows(again) == ["cifar10 fgm"]
    tab.click("nav a[href='#landscapes']")
    tab.go_back()
    assert tab.evaluate("document.activeElement.id") == "methods"


def test_malformed_addresses_are_harmless(opened):
    tab = opened("#nothing&&=&dataset=%E0%A4%A&q=%")
    for place in ("", "#", "#%", "#dataset=other", "#table-mini-vision"):
        if place:
            tab.evaluate("place => { location.hash = place }", place)
        assert tab.is_visible("h1")
        tab.check("input[name=method][value=none]", force=True)
        assert tab.evaluate("document.querySelectorAll('#method-none.off').length") == 0


def test_usable_by_keyboard_alone(opened):
    tab = opened()
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    assert tab.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "content"
    box = tab.locator("input[name=method][value=fgm]")
    box.focus()
    tab.keyboard.press("Shift+Tab")
    tab.keyboard.press("Tab")
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.keyboard.press("Space")
    assert rows(tab) == ["cifar10 fgm", "mnist fgm"]
    tab.locator("#method-fgm summary").focus()
    tab.keyboard.press("Enter")
    assert tab.locator("#method-fgm math").first.is_visible()
    reached = "[...document.querySelectorAll('.scroll, pre, .formula')].every(e => e.tabIndex === 0)"
    assert tab.evaluate(reached)


def test_page_is_never_wider_than_the_screen(opened):
    tab = opened()
    tab.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    for size in (TELEPHONE, DESK):
        tab.set_viewport_size(size)
        for scheme in ("light", "dark"):
            tab.emulate_media(color_scheme=scheme)
            assert tab.evaluate("document.documentElement.scrollWidth") <= size["width"], scheme


def test_contents_and_filter_fold_on_a_phone(opened):
    tab = opened(viewport=TELEPHONE)
    assert not tab.is_visible("nav a")
    tab.evaluate("window.scrollTo(0, 4000)")
    tab.click("summary:text('Contents')")
    assert tab.locator("nav a").first.is_visible()
    tab.click("nav a[href='#methods']")
    assert not tab.is_visible("nav a")
    top = tab.evaluate("document.getElementById('methods').getBoundingClientRect().top")
    assert 0 <= top < 200
    tab.click("summary:text('Filter')")
    tab.check("input[name=method][value=fgm]")
    assert tab.is_visible("#method-fgm")


def test_light_and_dark_follow_the_system(opened):
    tab, shades = opened(), {}
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        shades[scheme] = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert shades == {"light": "rgb(253, 253, 251)", "dark": "rgb(21, 24, 27)"}


def test_print_shows_everything_without_controls(opened):
    tab = opened(viewport={"width": 703, "height": 1000}, color_scheme="dark")
    assert not tab.locator("#method-fgm math").first.is_visible()
    tab.emulate_media(media="print")
    sync_api.expect(tab.locator("details.more:not([open])")).to_have_count(0, timeout=30_000)
    assert tab.locator("#method-fgm math").first.is_visible()
    assert not any(tab.is_visible(it) for it in ("form", "nav", ".skip", "button"))
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.evaluate("document.documentElement.scrollWidth") <= 703
    tab.emulate_media(media="screen")
    sync_api.expect(tab.locator("details.more[open]")).to_have_count(0, timeout=30_000)


def test_without_a_script_everything_is_visible(opened):
    tab = opened(java_script_enabled=False, viewport=TELEPHONE)
    assert tab.locator("#method-fgm math").first.is_visible()
    assert tab.locator("nav a").first.is_visible()
    assert not tab.is_visible("form")
    assert tab.locator("details:not([open])").count() == 0
