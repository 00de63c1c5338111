"""What the tests of the page share: waiting, drawing with the mouse, files to upload."""

import io
from typing import Any

from PIL import Image

CLASS_CANVAS = "[data-testid=class-card] canvas.paper"
LINE = [(0.2, 0.2), (0.8, 0.8)]
OTHER = [(0.8, 0.2), (0.2, 0.8)]


def expect(locator: Any) -> Any:
    """Playwright's assertions, which wait; imported late, as Playwright may be missing."""
    from playwright.sync_api import expect as expect_locator

    expect_locator.set_options(timeout=15_000)
    return expect_locator(locator)


def draw(page: Any, canvas: Any, *strokes: list[tuple[float, float]]) -> None:
    """Draws strokes of (x, y) in 0..1 with the mouse."""
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    for stroke in strokes:
        points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point, steps=3)
        page.mouse.up()


def draw_two_classes(page: Any) -> None:
    """A has one stroke, B has two, and the query two as well."""
    canvases = page.locator(CLASS_CANVAS)
    draw(page, canvases.nth(0), LINE)
    draw(page, canvases.nth(1), LINE, OTHER)
    draw(page, page.locator("#query-canvas"), LINE, OTHER)
    expect(winner(page)).to_have_attribute("data-name", "B")


def winner(page: Any) -> Any:
    return page.locator("#draw-bars [data-testid=bar][data-winner=true]")


def last_request(server: Any) -> Any:
    return server.requests[-1][1]


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (20, 12), shade).save(file, "PNG")
    return file.getvalue()


def upload(name: str, content: bytes) -> Any:
    return {"name": name, "mimeType": "image/png", "buffer": content}
