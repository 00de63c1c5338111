"""The tab "Draw", in Chromium; `conftest.py` answers instead of the real engine."""

import re

import pytest

from tests.demo.page.helpers import CLASS_CANVAS, LINE, OTHER, draw, draw_two_classes, expect, last_request, winner

pytestmark = pytest.mark.slow  # a browser opens the page for every test


def test_what_is_drawn_is_sent_and_its_answer_shown(page, server):
    expect(page.locator("#draw-verdict")).to_contain_text("at least two boxes")
    draw_two_classes(page)
    request = last_request(server)
    assert request["checkpoint"] == "omniglot_reptile_3w"
    assert [each["name"] for each in request["classes"]] == ["A", "B"], "C has no drawing"
    assert [len(each["pictures"][0]["strokes"]) for each in request["classes"]] == [1, 2]
    stroke = request["queries"][0]["strokes"][0]
    assert stroke[0] == pytest.approx([0.2, 0.2], abs=0.01)
    assert stroke[-1] == pytest.approx([0.8, 0.8], abs=0.01)
    assert float(winner(page).get_attribute("data-probability")) == pytest.approx(0.9)
    expect(winner(page)).to_contain_text("90%")
    expect(page.locator("#draw-bars")).to_contain_text("no drawing yet")
    expect(page.locator("#draw-verdict")).to_have_text("Looks like B")
    expect(page.locator("#draw-notes")).to_contain_text("thinned")
    expect(page.locator("#announcer")).to_have_text("Most like B, 90%")


def test_every_stroke_asks_again(page, server):
    draw_two_classes(page)
    before = len(server.requests)
    draw(page, page.locator(CLASS_CANVAS).nth(0), OTHER)  # now A has two strokes, and comes first
    expect(winner(page)).to_have_attribute("data-name", "A")
    assert len(server.requests) == before + 1


def test_slider_shows_the_answer_after_every_inner_step(page):
    draw_two_classes(page)
    slider = page.locator("#draw-steps input")
    expect(slider).to_have_value("10")
    slider.focus()
    page.keyboard.press("Home")
    expect(page.locator("#draw-bars [data-index='0']")).to_have_attribute("data-probability", "0.5")
    expect(page.locator("#draw-support")).to_contain_text("50%")
    expect(slider).to_have_attribute("aria-valuetext", re.compile("Before any gradient step"))
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#draw-steps output")).to_have_text("After 5 of 10 gradient steps")
    expect(winner(page)).to_contain_text("70%")
    page.locator("#draw-steps button").click()
    expect(slider).to_have_value("10")


def test_undo_and_clear_of_a_class_and_of_the_query(page, server):
    card = page.get_by_test_id("class-card").nth(1)
    canvas = card.locator("canvas.paper")
    draw_two_classes(page)
    card.get_by_test_id("undo").click()
    expect(canvas).to_have_attribute("data-strokes", "1")
    expect(winner(page)).to_have_attribute("data-name", "A")
    assert [len(each["pictures"][0]["strokes"]) for each in last_request(server)["classes"]] == [1, 1]
    card.get_by_test_id("clear").click()
    expect(page.locator("#draw-verdict")).to_contain_text("at least two boxes")
    card.get_by_test_id("undo").click()
    expect(canvas).to_have_attribute("data-strokes", "1")
    page.locator("#query-clear").click()
    expect(page.locator("#draw-verdict")).to_contain_text("draw one of them")
    page.locator("#query-undo").click()
    expect(page.locator("#query-canvas")).to_have_attribute("data-strokes", "2")
    page.locator("#clear-all").click()
    assert page.locator("canvas.paper[data-empty]").count() == 4


def test_classes_are_added_renamed_and_removed(page, server):
    draw_two_classes(page)
    page.locator("#add-class").click()
    cards = page.get_by_test_id("class-card")
    expect(cards).to_have_count(4)
    expect(page.locator("#draw-bars [data-testid=bar]")).to_have_count(4)
    name = cards.nth(3).get_by_test_id("class-name")
    expect(name).to_be_focused()
    name.fill("B")
    name.press("Enter")
    expect(name).to_have_value("B 2")
    name.fill("<b>bold</b>")
    name.press("Enter")
    draw(page, cards.nth(3).locator("canvas.paper"), LINE, OTHER, LINE)
    expect(page.locator("#draw-bars [data-index='3'] .bar-name")).to_have_text("<b>bold</b>")
    assert last_request(server)["classes"][2]["name"] == "<b>bold</b>"
    for _ in range(2):
        cards.nth(0).get_by_test_id("remove-class").click()
    expect(cards).to_have_count(2)
    expect(cards.nth(0).get_by_test_id("remove-class")).to_be_disabled()


def test_several_drawings_of_a_class(page, server):
    draw_two_classes(page)
    card = page.get_by_test_id("class-card").nth(0)
    card.get_by_test_id("add-drawing").click()
    expect(card.get_by_test_id("thumbnail")).to_have_count(2)
    draw(page, card.locator("canvas.paper"), LINE, OTHER)
    expect(winner(page)).to_have_attribute("data-name", "A")
    assert [len(picture["strokes"]) for picture in last_request(server)["classes"][0]["pictures"]] == [1, 2]
    card.get_by_test_id("thumbnail").nth(0).click()
    expect(card.locator("canvas.paper")).to_have_attribute("data-strokes", "1")


def test_edit_all_shows_every_drawing(page, server):
    draw_two_classes(page)
    page.locator("#edit-all").click()
    canvases = page.get_by_test_id("edit-canvas")
    expect(canvases).to_have_count(3)
    page.locator("#edit-dialog").get_by_role("button", name="Another drawing").nth(2).click()
    expect(canvases).to_have_count(4)
    draw(page, canvases.nth(3), LINE)
    page.get_by_role("button", name="Remove drawing 1 of C").click()
    expect(canvases).to_have_count(3)
    page.get_by_role("button", name="Done").click()
    expect(page.locator(CLASS_CANVAS).nth(2)).to_have_attribute("data-strokes", "1")
    assert [each["name"] for each in last_request(server)["classes"]] == ["A", "B", "C"]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_sample_drawings_fill_the_classes_and_the_query(page, server, number):
    page.get_by_test_id("sample-set").nth(number).click()
    expect(winner(page)).to_have_count(1)
    request = last_request(server)
    assert len({each["name"] for each in request["classes"]}) == 3
    drawings = [each["pictures"][0]["strokes"] for each in request["classes"]]
    for strokes in [*drawings, request["queries"][0]["strokes"]]:
        assert all(0 <= value <= 1 for stroke in strokes for point in stroke for value in point)
    assert request["queries"][0]["strokes"] not in drawings, "another hand"
    page.locator("#query-sample").click()
    expect(page.locator("#query-canvas")).not_to_have_attribute("data-empty", "")
    page.wait_for_function("() => !document.querySelector('#draw').hasAttribute('aria-busy')")
    assert last_request(server)["queries"] != request["queries"]


def test_arrow_keys_draw(page, server):
    draw_two_classes(page)
    page.locator("#query-clear").click()
    canvas = page.locator("#query-canvas")
    canvas.focus()
    for key in ["ArrowRight", "Space", "ArrowRight", "ArrowDown", "Shift+ArrowDown", "Space"]:
        page.keyboard.press(key)
    expect(canvas).to_have_attribute("data-strokes", "1")
    expect(winner(page)).to_have_attribute("data-name", "A")
    (stroke,) = last_request(server)["queries"][0]["strokes"]
    assert stroke == [[0.54, 0.5], [0.58, 0.5], [0.58, 0.54], [0.58, 0.55]]
    page.keyboard.press("Backspace")
    expect(canvas).to_have_attribute("data-strokes", "0")


def test_touch_draws(browser, server):
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(server.url)
    page.locator("#draw-checkpoint:enabled").wait_for()
    canvas = page.locator("#query-canvas")
    canvas.tap()
    expect(canvas).to_have_attribute("data-strokes", "1")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    context.close()


def test_another_checkpoint_is_asked(page, server):
    draw_two_classes(page)
    page.locator("#draw-checkpoint").select_option("omniglot_maml_5w1s")
    expect(page.locator("#draw-checkpoint-note")).to_contain_text("MAML: trained on tasks of 5 classes")
    page.wait_for_function("() => !document.querySelector('#draw').hasAttribute('aria-busy')")
    assert last_request(server)["checkpoint"] == "omniglot_maml_5w1s"
