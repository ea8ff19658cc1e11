"""The page in a browser: Debian's Chromium, driven by Playwright, with the bundled model and few decoding steps."""
import re
import threading
import typing as tp
from pathlib import Path

import numpy as np
import pytest
import soundfile

from magnet_plugin.app.web import server
from magnet_plugin.app.web.jobs import Cancelled
from magnet_plugin.app.web.limits import Limits
from magnet_plugin.app.web.studio import Studio

from ..helpers.browser import CHROMIUM, FLAGS, missing

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(missing()), reason=missing() or "")]
TEXT = "a fast reel in D major played on the violin"
CARDS = ".mg-card:not(.mg-pending)"
REFUSED = "Failed to load resource: the server responded with a status of 4"       # What tests ask for on purpose.
WAIT = 60_000           # milliseconds; two busy cores


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    from magnet_plugin import MAGNeT
    model = MAGNeT.get_pretrained("//bundled/magnet-16khz", device="cpu")
    return Studio(model, Limits(max_seconds=60, max_upload_mb=1), tmp_path_factory.mktemp("app") / "files")


@pytest.fixture(scope="module")
def address(studio: Studio) -> tp.Iterator[str]:
    """The address of a running app."""
    with server.bind("127.0.0.1", 0) as listening, server.running(studio, listening, "127.0.0.1") as running:
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield server.address(listening, "127.0.0.1")
        running.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def browser() -> tp.Iterator[tp.Any]:
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def new_page(browser: tp.Any, address: str) -> tp.Iterator[tp.Callable[..., tp.Any]]:
    """Opens a page as a visitor of its own; in the end, no script has failed and nothing was asked of another server."""
    contexts, faults = [], list[str]()

    def open_page(**options: tp.Any) -> tp.Any:
        context = browser.new_context(**{"viewport": {"width": 1180, "height": 1000}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if line.type == "error" and not line.text.startswith(
            REFUSED) else None)
        page.on("request", lambda request: faults.append(request.url) if not request.url.startswith(
            (address, "data:", "blob:")) else None)
        page.goto(address)
        page.wait_for_selector("#mg-generate-run")
        page.wait_for_selector(".mg-empty", state="attached")
        choose(page, "#mg-generate-preset", "Draft: a quarter of the steps")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults


def choose(page: tp.Any, field: str, label: str) -> None:
    """Choose an entry of a list."""
    page.click(f"{field} input")
    page.get_by_role("option", name=label, exact=True).click()


def fill(page: tp.Any, field: str, value: tp.Any) -> None:
    """Fill in a field and leave it."""
    box = page.locator(f"{field} textarea, {field} input[type=number], {field} input[type=text]").first
    box.fill(str(value))
    box.blur()


def wait_for_clips(page: tp.Any, count: int) -> None:
    page.wait_for_function(f"document.querySelectorAll('{CARDS}').length === {count}")
    page.wait_for_selector(".mg-done")
    page.wait_for_timeout(300)


def wait_for_message(page: tp.Any, tab: str, text: str) -> None:
    """Wait until the message below a tab's button contains a text."""
    page.wait_for_function(f"document.querySelector('#mg-{tab}-message').textContent.includes('{text}')")


def generate(page: tp.Any, count: int, text: str = TEXT) -> None:
    """Generate clips of one second, by the keyboard."""
    fill(page, "#mg-duration", 1)
    fill(page, "#mg-count", count)
    page.fill("#mg-text textarea", text)
    page.keyboard.press("Control+Enter")


def drag(page: tp.Any, start: float, end: float) -> None:
    """Drag over the waveform from one share of its length to another."""
    page.wait_for_selector("#mg-editor .mg-body[data-ready=true]")
    wave = page.locator("#mg-editor .mg-wave")
    wave.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    box = wave.bounding_box()
    y = box["y"] + 40
    page.mouse.move(box["x"] + box["width"] * start, y)
    page.mouse.down()
    for share in (0.3, 0.6, 1.0):
        page.mouse.move(box["x"] + box["width"] * (start + (end - start) * share), y, steps=4)
    page.mouse.up()


def test_candidates_appear_side_by_side_and_are_used_further(new_page: tp.Callable[..., tp.Any], tmp_path: Path) -> None:
    page = new_page()
    generate(page, 2)
    wait_for_clips(page, 2)
    tops = [card.bounding_box()["y"] for card in page.locator(CARDS).all()]
    assert tops[0] == tops[1]                                           # Side by side.
    page.wait_for_function(f"[...document.querySelectorAll('{CARDS} .mg-body')].every((body) => body.dataset.ready)")
    assert page.locator(f"{CARDS} img").first.evaluate("(img) => img.decode().then(() => img.naturalWidth)") > 50
    seed = page.input_value("#mg-generate-seed input")
    assert f"seed {seed}" in page.locator(CARDS).last.inner_text()
    page.locator(f"{CARDS} .mg-star").last.click()
    page.wait_for_selector(".mg-favourite")
    assert f"seed {seed}" in page.locator(CARDS).first.inner_text()     # Favourites come first.
    with page.expect_download() as download:
        page.locator("[data-do=download]").first.click()
    download.value.save_as(tmp_path / "clip.wav")
    assert soundfile.info(tmp_path / "clip.wav").duration == 1.0
    page.click("text=Clear all but favourites")
    page.wait_for_function(f"document.querySelectorAll('{CARDS}').length === 1")
    page.locator(".mg-more").first.click()
    with page.expect_file_chooser() as chooser:
        page.click("#mg-generate-load")
    chooser.value.set_files(tmp_path / "clip.wav")
    wait_for_message(page, "generate", "Settings of clip.wav loaded")
    assert page.input_value("#mg-generate-seed input") == seed and page.is_checked("#mg-generate-locked input")
    fill(page, "#mg-count", 1)
    page.focus("#mg-generate-locked input")
    page.keyboard.press("Control+Enter")
    page.wait_for_function(f"document.querySelectorAll('{CARDS}').length === 2")
    assert page.is_checked("#mg-generate-locked input")
    again = page.evaluate("fetch(document.querySelectorAll('[data-do=download]')[1].href).then((file) => file.arrayBuffer())"
                          ".then((bytes) => [...new Uint8Array(bytes)])")
    assert bytes(again) == (tmp_path / "clip.wav").read_bytes()         # The same clip again, from the settings inside it.


def test_the_slider_shows_what_each_step_masked(new_page: tp.Callable[..., tp.Any]) -> None:
    page = new_page()
    generate(page, 1)
    wait_for_clips(page, 1)
    page.wait_for_selector(".mg-steps:not([hidden])")
    slider, caption = page.locator(".mg-steps input[type=range]"), page.locator(".mg-steps .mg-caption")
    steps = int(slider.get_attribute("max")) + 1
    assert f"Step {steps} of {steps}: codebook 4" in caption.inner_text()
    pictures = set()
    for step in (0, 1, steps - 1):
        slider.evaluate("(node, value) => { node.value = value; node.dispatchEvent(new Event('input')); }", step)
        pictures.add(page.locator(".mg-steps canvas").evaluate("(canvas) => canvas.toDataURL()"))
    assert len(pictures) == 3
    slider.evaluate("(node) => { node.value = 0; node.dispatchEvent(new Event('input')); }")
    assert re.search(r"Step 1 of \d+: codebook 1, its step 1 of 5\. The 50 least certain frames", caption.inner_text())


def test_a_region_is_dragged_and_replaced(new_page: tp.Callable[..., tp.Any], tmp_path: Path) -> None:
    rate = 16_000
    wav = 0.2 * np.sin(np.arange(3 * rate) / 20)
    soundfile.write(tmp_path / "mine.wav", wav, rate)
    page = new_page()
    page.get_by_role("tab", name="Edit").click()
    page.set_input_files("#mg-upload input", tmp_path / "mine.wav")
    drag(page, 0.4, 0.6)
    page.wait_for_selector("#mg-mask .mg-panel:not([hidden])")
    start, end = map(float, page.input_value("#mg-regions textarea, #mg-regions input").split("-"))
    assert start == pytest.approx(1.2, abs=0.1) and end == pytest.approx(1.8, abs=0.1)
    assert re.search(r"keeps (79|80|81|78)% of the tokens", page.inner_text("#mg-mask"))
    choose(page, "#mg-edit-preset", "Draft: a quarter of the steps")
    page.click("#mg-edit-run")
    wait_for_clips(page, 1)
    with page.expect_download() as download:
        page.locator("[data-do=download]").first.click()
    download.value.save_as(tmp_path / "edited.wav")
    edited = soundfile.read(tmp_path / "edited.wav")[0]
    first, last = round((start - 0.03) * rate), round((end + 0.03) * rate)
    assert len(edited) == len(wav) and np.abs(edited[:first] - wav[:first]).max() < 1e-4
    assert np.abs(edited[last:] - wav[last:]).max() < 1e-4
    assert np.abs(edited[first + 2000:last - 2000] - wav[first + 2000:last - 2000]).max() > 0.01
    page.locator("[data-do=use]").first.click()
    page.wait_for_function("document.querySelector('#mg-editor').textContent.includes('clip-')")
    page.get_by_label("Loop", exact=True).click()
    page.wait_for_function("document.querySelector('#mg-edit-run').textContent.includes('Make a loop')")
    fill(page, "#mg-seam", 1)
    page.click("#mg-edit-run")
    page.wait_for_function(f"document.querySelectorAll('{CARDS}').length === 2")


def test_a_long_request_shows_its_windows_and_is_cancelled(new_page: tp.Callable[..., tp.Any]) -> None:
    page = new_page()
    choose(page, "#mg-generate-preset", "The paper's settings")
    fill(page, "#mg-duration", 60)
    fill(page, "#mg-count", 4)
    page.fill("#mg-text textarea", "")                                  # Without a text, windows come in order.
    page.click("#mg-generate-run")
    page.wait_for_selector(".mg-pending progress")
    page.wait_for_function("/step \\d+ of \\d+/.test(document.querySelector('.mg-pending').textContent)")
    page.click("#mg-generate-cancel")
    wait_for_message(page, "generate", "Cancelled;")
    assert page.locator(".mg-pending").count() == 0 and page.is_enabled("#mg-generate-run")
    page.wait_for_timeout(500)
    choose(page, "#mg-generate-preset", "Draft: a quarter of the steps")
    finished = page.locator(CARDS).count()
    generate(page, 1)
    wait_for_clips(page, finished + 1)


def test_uploads_that_cannot_be_used_are_explained(new_page: tp.Callable[..., tp.Any], tmp_path: Path) -> None:
    (tmp_path / "notes.wav").write_text("this is no audio")
    soundfile.write(tmp_path / "long.wav", np.zeros(61 * 4000), 4000)
    soundfile.write(tmp_path / "large.wav", np.zeros(1_300_000, dtype=np.int16), 48000)
    page = new_page()
    page.get_by_role("tab", name="Edit").click()
    page.click("#mg-edit-run")
    wait_for_message(page, "edit", "nothing to edit yet")
    for name, said in (("notes.wav", "Notes.wav cannot be read as audio"), ("long.wav", "longer than 60 s")):
        page.set_input_files("#mg-upload input", tmp_path / name)
        wait_for_message(page, "edit", said)
        assert page.locator("#mg-edit-message [role=alert]").count() == 1
    page.set_input_files("#mg-upload input", tmp_path / "large.wav")
    page.wait_for_function("/maximum|exceed|too large/i.test(document.body.innerText)")


def test_two_visitors_take_turns_and_do_not_see_each_others_clips(new_page: tp.Callable[..., tp.Any]) -> None:
    one, other = new_page(), new_page()
    generate(one, 3)
    generate(other, 1, "a slow air in G major played on the flute")
    wait_for_clips(one, 3)
    wait_for_clips(other, 1)
    assert "slow air" in other.inner_text("#mg-shelf") and "slow air" not in one.inner_text("#mg-shelf")
    links = [page.locator("[data-do=download]").first.get_attribute("href").split("/") for page in (one, other)]
    assert links[0][2] != links[1][2]
    swapped = "/".join([*links[0][:2], links[1][2], "clip-0003.wav"])
    assert other.evaluate("(url) => fetch(url).then((answer) => answer.status)", swapped) == 404


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_everything_without_scrolling_sideways(new_page: tp.Callable[..., tp.Any], scheme: str) -> None:
    page = new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True)
    generate(page, 1)
    wait_for_clips(page, 1)
    page.wait_for_selector(".mg-steps:not([hidden])")
    for tab in ("Generate", "Edit"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(400)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")


def test_leaving_the_page_ends_its_work(new_page: tp.Callable[..., tp.Any], studio: Studio) -> None:
    page = new_page()
    choose(page, "#mg-generate-preset", "The paper's settings")
    fill(page, "#mg-duration", 60)
    fill(page, "#mg-count", 4)
    page.click("#mg-generate-run")
    page.wait_for_function("/step \\d+ of \\d+/.test(document.querySelector('.mg-pending')?.textContent)")
    (job,) = studio.queue._jobs
    page.context.close()
    assert job.finished.wait(60) and isinstance(job.error, Cancelled)
