"""Take the screenshots of `magnet app` that docs/app.md shows, with a headless Chromium driven by Playwright.

    python -m tools.app_screenshots docs/images
"""
from __future__ import annotations

import io
import sys
import tempfile
import threading
import typing as tp
from pathlib import Path

CHROMIUM = "/usr/bin/chromium"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--no-first-run", "--hide-scrollbars")
TEXTS = "a fast reel in D major played on the violin\na slow air in G major played on the flute"
CARDS = ".mg-card:not(.mg-pending)"
DESKTOP, PHONE = {"width": 1180, "height": 1000}, {"width": 390, "height": 844}


def save(page: tp.Any, path: Path, element: str = "") -> None:
    """Write a small PNG picture of a page, or of what is above and including an element of it."""
    from PIL import Image
    page.wait_for_timeout(1500)
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_timeout(300)
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    if element:
        box = page.locator(element).last.bounding_box()
        scale = picture.width / page.viewport_size["width"]
        picture = picture.crop((0, 0, picture.width, round((box["y"] + box["height"] + 16) * scale)))
    picture.quantize(256).save(path, optimize=True)
    print(f"{path}: {picture.width} x {picture.height}, {path.stat().st_size / 1000:.0f} kB")


def open_page(browser: tp.Any, address: str, **options: tp.Any) -> tp.Any:
    """Open the page as a new visitor."""
    page = browser.new_context(**options).new_page()
    page.goto(address)
    page.wait_for_selector(".mg-empty", state="attached")
    return page


def generate(page: tp.Any, texts: str, count: int, clips: int) -> None:
    """Generate clips with fixed seeds, and wait for all of them."""
    page.fill("#mg-text textarea", texts)
    page.fill("#mg-count input[type=number]", str(count))
    page.check("#mg-generate-locked input")
    page.keyboard.press("Control+Enter")
    page.wait_for_function(f"document.querySelectorAll('{CARDS}').length === {clips}", timeout=120_000)
    page.wait_for_selector(".mg-steps:not([hidden])")
    page.locator(".mg-steps input[type=range]").evaluate(
        "(slider) => { slider.value = 10; slider.dispatchEvent(new Event('input')); }")


def edit(page: tp.Any, regions: str) -> None:
    """Use the first clip as the recording, and mark regions of it."""
    page.locator("[data-do=use]").first.click()
    page.wait_for_selector("#mg-editor .mg-body[data-ready=true]")
    page.locator("#mg-regions textarea, #mg-regions input").first.press_sequentially(regions)
    page.locator("#mg-regions textarea, #mg-regions input").first.blur()
    page.wait_for_selector("#mg-mask .mg-panel:not([hidden])")


def take(address: str, folder: Path) -> None:
    """Take all pictures of the app at an address."""
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = open_page(browser, address, viewport=DESKTOP, color_scheme="light")
        generate(page, TEXTS, 3, 6)
        save(page, folder / "app-generate.png")
        edit(page, "1.2-2.4, 3.5-4.2")
        save(page, folder / "app-edit.png", "#mg-edit-run")
        page = open_page(browser, address, viewport=DESKTOP, color_scheme="dark")
        generate(page, TEXTS, 3, 6)
        save(page, folder / "app-dark.png")
        page = open_page(browser, address, viewport=PHONE, color_scheme="light", has_touch=True)
        generate(page, TEXTS.splitlines()[0], 1, 1)
        save(page, folder / "app-phone.png")
        browser.close()


def main(folder: Path) -> None:
    """Start the app with the bundled model, and take its pictures."""
    from magnet_plugin import MAGNeT
    from magnet_plugin.app.web import server
    from magnet_plugin.app.web.studio import Studio
    folder.mkdir(parents=True, exist_ok=True)
    model = MAGNeT.get_pretrained("//bundled/magnet-16khz", device="cpu")
    studio = Studio(model, folder=Path(tempfile.mkdtemp()))
    with server.bind("127.0.0.1", 0) as listening, server.running(studio, listening, "127.0.0.1") as running:
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            take(server.address(listening, "127.0.0.1"), folder)
        finally:
            running.should_exit = True
            thread.join(10)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
