"""The page as a whole: tabs, errors, colours, accessibility."""

import pytest

from tests.demo.page.helpers import LINE, OTHER, draw, draw_two_classes, expect, winner

pytestmark = pytest.mark.slow  # a browser opens the page for every test


def test_tabs_follow_the_keyboard(page):
    page.get_by_role("tab", name="Draw").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Fit")).to_be_focused()
    expect(page.locator("#fit")).to_be_visible()
    expect(page.locator("#draw")).to_be_hidden()
    page.keyboard.press("End")
    expect(page.get_by_role("tabpanel", name="Your pictures")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Draw")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowLeft")
    page.reload()
    expect(page.locator("#pictures")).to_be_visible()


def test_errors_of_the_server_are_shown_in_words(page, server):
    draw_two_classes(page)
    problem = page.locator("#draw .problem")
    server.failure = (422, {"error": "A drawing needs at most 10,000 points."})
    draw(page, page.locator("#query-canvas"), LINE)
    expect(problem).to_contain_text("A drawing needs at most 10,000 points.")
    expect(page.locator("#draw-verdict")).to_have_text("No answer yet.")
    server.failure = (500, {})
    page.get_by_role("button", name="Try again").click()
    expect(problem).to_contain_text("status 500")
    server.failure = None
    page.get_by_role("button", name="Try again").click()
    expect(problem).to_be_hidden()
    expect(winner(page)).to_have_count(1)
    assert len(page.complaints) == 2, "the browser itself reports the two statuses"
    page.complaints.clear()


def test_a_server_that_went_away(page, server):
    page.route("**/api/**", lambda route: route.abort())
    page.reload()
    expect(page.locator("#draw .problem")).to_contain_text("The server does not answer")
    expect(page.locator("#draw-checkpoint")).to_have_text("Not available")
    page.unroute("**/api/**")
    page.locator("#draw .problem").get_by_role("button").click()
    expect(page.locator("#draw-checkpoint")).to_be_enabled()
    page.complaints.clear()


def test_an_overtaken_answer_is_not_shown(page, server):
    """The slow answer to the first stroke comes after the second stroke's."""
    slow = []

    def delay(route):
        if not slow:
            slow.append(route)
        else:
            route.continue_()

    draw_two_classes(page)
    page.route("**/api/classify", delay)
    page.locator("#query-undo").click()
    page.wait_for_function("() => document.querySelector('#draw').hasAttribute('aria-busy')")
    page.locator("#query-canvas").press("Delete")
    expect(page.locator("#draw-verdict")).to_contain_text("draw one of them")
    expect(page.locator("#draw .problem")).to_be_hidden()
    draw(page, page.locator("#query-canvas"), LINE, OTHER)
    expect(winner(page)).to_have_attribute("data-name", "B")
    slow[0].abort()
    expect(page.locator("#draw .problem")).to_be_hidden()
    expect(winner(page)).to_have_attribute("data-name", "B")


def test_the_theme_can_be_switched_and_is_kept(page):
    button = page.locator("#theme")
    expect(button).to_have_attribute("aria-pressed", "false")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_nothing_comes_from_elsewhere(page, server):
    urls = page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert len(urls) > 15
    assert all(url.startswith(server.url) for url in urls)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_nothing(page, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    page.get_by_test_id("sample-set").nth(0).click()
    expect(winner(page)).to_have_count(1)
    steps = {
        "Draw": lambda: page.get_by_test_id("add-drawing").first.click(),
        "Fit": lambda: page.locator("#fit-surprise").click(),
        "Your pictures": lambda: page.locator("#pictures-sample").click(),
    }
    for name, act in steps.items():
        page.get_by_role("tab", name=name).click()
        act()
        page.locator("[role=tabpanel]:visible .steps:visible").first.wait_for()
        results = axe.Axe().run(page)
        assert not results.response["violations"], results.generate_report()
    page.get_by_role("tab", name="Draw").click()
    page.locator("#edit-all").click()
    assert not axe.Axe().run(page).response["violations"]
