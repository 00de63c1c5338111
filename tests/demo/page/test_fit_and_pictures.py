"""The tabs "Fit" and "Your pictures", in Chromium."""

import base64
import io
import re

import pytest
from PIL import Image

from tests.demo.page.helpers import expect, last_request, png, upload

pytestmark = pytest.mark.slow  # a browser opens the page for every test


def test_fit_by_click_drag_and_keyboard(page, server):
    page.get_by_role("tab", name="Fit").click()
    assert page.locator("#fit-checkpoint option").count() == 1, "the joint network is beside every other"
    plot = page.locator("#fit-meta")
    box = plot.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 4)
    points = page.get_by_test_id("fit-point")
    expect(points).to_have_count(1)
    expect(page.locator("#fit-error-steps")).to_have_text("Mean squared error at your points: 0.00")
    expect(page.locator("#fit-error-joint")).not_to_have_text(re.compile("0.00"))
    (path, request) = server.requests[-1]
    assert path == "/api/fit"
    assert request["checkpoint"] == "sinusoid_maml"
    [(x, y)] = request["points"]
    assert abs(x) < 0.5
    assert 2 < y < 4
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    expect(points).to_have_count(1)
    page.wait_for_function("() => !document.querySelector('#fit').hasAttribute('aria-busy')")
    assert abs(last_request(server)["points"][0][1]) < 0.7, "dragged to the middle"
    page.locator("#fit-x").fill("1.5")
    page.locator("#fit-y").fill("-2")
    page.keyboard.press("Enter")
    expect(points).to_have_count(2)
    expect(points.nth(1)).to_contain_text("(1.50, \N{MINUS SIGN}2.00)")
    page.locator("#fit-steps input").fill("0")
    expect(page.locator("#fit-steps output")).to_have_text("Before any gradient step")
    points.nth(0).get_by_role("button").click()
    expect(points).to_have_count(1)
    expect(points.nth(0).get_by_role("button")).to_be_focused()
    page.locator("#fit-clear").click()
    expect(page.locator("#fit-steps")).to_be_hidden()
    page.locator("#fit-surprise").click()
    expect(points).to_have_count(5)
    expect(page.locator("#fit-meta .truth")).to_have_count(1)
    expect(page.locator("#fit-steps input")).to_have_value("10")


def test_pictures_are_sorted_sent_and_answered(page, server):
    page.get_by_role("tab", name="Your pictures").click()
    inputs = page.get_by_test_id("class-files")
    inputs.nth(0).set_input_files([upload("black.png", png(0)), upload("dark.png", png(60))])
    inputs.nth(1).set_input_files(upload("white.png", png(255)))
    expect(page.locator("#pictures-advice")).to_contain_text("Now drop the pictures")
    page.get_by_test_id("query-files").set_input_files(
        [upload("<img src=x>.png", png(255)), upload("second.png", png(60))]
    )
    results = page.get_by_test_id("picture-result")
    expect(results.nth(0).get_by_test_id("picture-verdict")).to_have_text("B 90%")
    expect(results.nth(1).get_by_test_id("picture-verdict")).to_have_text("A 90%")
    expect(results.nth(0).locator(".file-name")).to_have_text("<img src=x>.png")
    assert [len(each["pictures"]) for each in last_request(server)["classes"]] == [2, 1]
    page.locator("#pictures-steps input").fill("0")
    expect(results.nth(0).locator("[data-testid=bar]").nth(0)).to_have_attribute("data-probability", "0.5")
    results.nth(0).get_by_role("button").click()
    expect(results).to_have_count(1)
    expect(results.nth(0).get_by_test_id("picture-verdict")).to_contain_text("A")
    page.locator("#pictures-clear").click()
    expect(page.get_by_test_id("picture")).to_have_count(0)


def test_a_dropped_file_lands_in_its_class(page):
    page.get_by_role("tab", name="Your pictures").click()
    transfer = page.evaluate_handle(
        """async (bytes) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
          return transfer;
        }""",
        list(png(9)),
    )
    page.get_by_test_id("picture-class").nth(1).dispatch_event("drop", {"dataTransfer": transfer})
    expect(page.get_by_test_id("picture-class").nth(1).get_by_test_id("picture")).to_have_count(1)


def test_a_large_picture_is_sent_small_and_a_text_file_refused(page, server):
    page.get_by_role("tab", name="Your pictures").click()
    page.get_by_test_id("class-files").nth(0).set_input_files(
        [upload("notes.png", b"not a picture"), upload("good.png", png(0))]
    )
    expect(page.locator("#pictures .problem")).to_contain_text("notes.png could not be opened as a picture")
    expect(page.get_by_test_id("picture")).to_have_count(1)
    file = io.BytesIO()
    Image.new("RGB", (3000, 1500), "red").save(file, "PNG")
    page.get_by_test_id("class-files").nth(1).set_input_files(upload("large.png", file.getvalue()))
    page.get_by_test_id("query-files").set_input_files(upload("query.png", png(0)))
    expect(page.get_by_test_id("picture-verdict")).to_have_text("A 90%")
    expect(page.locator("#pictures .problem")).to_be_hidden()
    sent = base64.b64decode(last_request(server)["classes"][1]["pictures"][0]["file"])
    assert Image.open(io.BytesIO(sent)).size == (384, 192)


def test_example_pictures(page):
    page.get_by_role("tab", name="Your pictures").click()
    page.locator("#pictures-sample").click()
    expect(page.get_by_test_id("picture")).to_have_count(6)
    expect(page.locator("#picture-results [data-winner=true]")).to_have_count(3)


def test_a_pile_of_pictures_takes_several_requests(page, server):
    page.get_by_role("tab", name="Your pictures").click()
    for number, shade in enumerate([0, 255]):
        page.get_by_test_id("class-files").nth(number).set_input_files(upload("example.png", png(shade)))
    pile = [upload(f"{number}.png", png(255 * (number % 2))) for number in range(60)]
    page.get_by_test_id("query-files").set_input_files(pile)
    verdicts = page.get_by_test_id("picture-verdict")
    expect(verdicts.nth(59)).to_have_text("B 90%")
    assert verdicts.all_inner_texts() == ["A 90%", "B 90%"] * 30
    assert [len(request["queries"]) for _, request in server.requests] == [50, 10]
