"""The page with the checkpoints that come with the package, served and written as files."""

import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from lightning_meta.inference import pretrained
from tests.demo.page.helpers import expect, winner

pytestmark = pytest.mark.slow  # starts the command, and opens the page for every test

CURVES = ("sinusoid_maml", "sinusoid_reptile")
WAVE = [(-4.0, 2.88), (-2.0, -0.42), (0.0, -2.52), (2.0, 2.52), (4.0, 0.42)]  # 3 sin(x - 1), to two digits


@pytest.fixture(scope="module", params=["served", "hosted"])
def address(request: pytest.FixtureRequest, study: ModuleType, browser: Any) -> Iterator[str]:
    """Of a page with all checkpoints; the browser is asked for first, so that without one nothing is started."""
    with getattr(study, request.param)(*pretrained()) as address:
        yield address


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 375])
def test_axe_finds_nothing(address: str, browser: Any, study: ModuleType, scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    options = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
    with study.opened(browser, address, **options) as page:
        page.get_by_test_id("sample-set").nth(0).click()
        expect(winner(page)).to_have_count(1)
        acts = {"Draw": None, "Fit": "#fit-surprise", "Your pictures": "#pictures-sample"}
        for name, button in acts.items():
            page.get_by_role("tab", name=name).click()
            if name == "Fit" and page.locator("#fit-checkpoint").is_disabled():
                assert not set(CURVES) & set(pretrained())
            elif button:
                page.locator(button).click()
                page.locator("[role=tabpanel]:visible .steps:visible").first.wait_for()
            results = axe.Axe().run(page)
            assert not results.response["violations"], results.generate_report()
            wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert page.evaluate(wider) == 0, f"{name} is wider than the screen"


@pytest.mark.parametrize("checkpoint", CURVES)
def test_the_learner_fits_a_wave_better_than_the_joint_network(
    address: str, browser: Any, study: ModuleType, checkpoint: str
) -> None:
    with study.opened(browser, address) as page:
        page.get_by_role("tab", name="Fit").click()
        page.locator("#fit-checkpoint").select_option(checkpoint)
        click_points(page)
        points = page.get_by_test_id("fit-point")
        expect(points).to_have_count(len(WAVE))
        page.locator("#fit:not([aria-busy])").wait_for()
        slider = page.locator("#fit-steps input")
        assert slider.input_value() == slider.get_attribute("max"), "the last step"
        after = {key: error(page, key) for key in ("steps", "joint")}
        slider.fill("0")
        assert after["steps"] < after["joint"]
        assert after["steps"] < error(page, "steps"), "it learned"


def click_points(page: Any) -> None:
    """Click the points of the wave: the frame of the plot runs from -5 to 5, and from -6 to 6."""
    area = page.locator("#fit-meta .area")
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    for x, y in WAVE:
        page.mouse.click(box["x"] + (x + 5) / 10 * box["width"], box["y"] + (6 - y) / 12 * box["height"])


def error(page: Any, key: str) -> float:
    """The mean squared error that the page shows."""
    found = re.search(r"[\d.]+$", page.locator(f"#fit-error-{key}").inner_text())
    assert found
    return float(found.group())
