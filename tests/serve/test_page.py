"""The page of `glpi serve` in Chromium, as a person uses it."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_browser import quiet_page
from PIL import Image

pytestmark = pytest.mark.browser

# What a person does who drags files over the page and lets them go.
DROP = """files => {
    const dataTransfer = new DataTransfer();
    for (const [content, name] of files) {
        const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
        dataTransfer.items.add(new File([bytes], name));
    }
    for (const kind of ["dragover", "drop"]) {
        const event = new DragEvent(kind, {dataTransfer, bubbles: true, cancelable: true});
        document.getElementById("drop").dispatchEvent(event);
    }
}"""


@pytest.fixture
def page(port: int) -> Iterator[Any]:
    with quiet_page() as page:
        page.goto(f"http://127.0.0.1:{port}/")
        yield page


def photograph(path: Path, seed: int, file_format: str = "PNG") -> Path:
    """A picture of blocks, 120 pixels wide and 90 high."""
    blocks = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize((120, 90), Image.Resampling.NEAREST).save(path, file_format)
    return path


def drop(page: Any, *paths: Path) -> None:
    page.evaluate(DROP, [[base64.b64encode(p.read_bytes()).decode(), p.name] for p in paths])


def shown(scorer, path: Path) -> str:
    result = scorer.score(path)
    return f"{result.score:.2f} ± {result.standard_error:.2f}"


def test_a_chosen_photograph(page, scorer, tmp_path):
    path = photograph(tmp_path / "a photo.png", 1)
    page.set_input_files("#file", path)
    page.locator("#map").wait_for()
    assert page.inner_text("#score") == shown(scorer, path)
    assert page.inner_text("#details").startswith("a photo.png · ")
    assert page.inner_text("#scale") == scorer.scale
    assert page.locator("#map").evaluate("map => map.naturalWidth") > 200
    assert page.locator("#photo").is_hidden()
    assert page.locator("#error").is_hidden()


def test_dropped_ones(page, scorer, tmp_path):
    """The second in the place of the first; a file name is text, and no type of a name is asked."""
    for seed, name in ((1, "first.png"), (2, "<b onclick='x'>&amp;.jpeg")):
        path = photograph(tmp_path / name, seed, "JPEG")
        drop(page, path)
        page.locator("#details", has_text=name).wait_for()
        page.locator("#map").wait_for()
        assert page.inner_text("#score") == shown(scorer, path)
        assert "over" not in (page.locator("#drop").get_attribute("class") or "")


def test_of_several_the_first_is_scored_and_the_page_says_so(page, scorer, tmp_path):
    first, second = photograph(tmp_path / "1.png", 1), photograph(tmp_path / "2.png", 2)
    drop(page, first, second)
    page.locator("#map").wait_for()
    assert page.inner_text("#score") == shown(scorer, first)
    assert page.inner_text("#details").startswith("1.png · the first of 2 files · ")


def test_the_same_file_may_be_chosen_again(page, scorer, tmp_path):
    path = photograph(tmp_path / "photo.png", 1)
    for seed in (1, 2):
        photograph(path, seed)
        with page.expect_response("**/api/map"):
            page.set_input_files("#file", path)
        page.locator("#map").wait_for()
        assert page.inner_text("#score") == shown(scorer, path)
        assert page.input_value("#file") == ""  # else Chromium tells of no change


def test_a_map_that_fails(port, scorer, tmp_path):
    """The score stays, and nothing says that the map is still to come."""
    path = photograph(tmp_path / "photo.png", 1)
    with quiet_page(but="ERR_CONNECTION_REFUSED") as page:
        page.goto(f"http://127.0.0.1:{port}/")
        held: list[Any] = []
        page.route("**/api/map", lambda route: held.append(route))
        page.set_input_files("#file", path)
        page.get_by_text("The map is being drawn").wait_for()
        held[0].abort("connectionrefused")
        page.get_by_role("alert").wait_for()
        assert page.inner_text("#score") == shown(scorer, path)
        assert "being drawn" not in page.inner_text("body")


def test_the_latest_wins(page, scorer, tmp_path):
    """The server is told that nobody waits for an earlier photograph's answer."""
    first, second = photograph(tmp_path / "1.png", 1), photograph(tmp_path / "2.png", 2)
    held: list[Any] = []
    page.route("**/api/score", lambda route: route.continue_() if held else held.append(route))
    page.set_input_files("#file", first)
    while not held:
        page.wait_for_timeout(10)
    with page.expect_event("requestfailed") as failed:
        page.set_input_files("#file", second)
    assert failed.value.failure == "net::ERR_ABORTED"
    page.locator("#map").wait_for()
    assert page.inner_text("#score") == shown(scorer, second) != shown(scorer, first)
    assert page.inner_text("#details").startswith("2.png")


@pytest.mark.parametrize("width", [320, 1400])
def test_nothing_is_wider_than_the_window(port, tmp_path, width):
    with quiet_page(width) as page:
        page.goto(f"http://127.0.0.1:{port}/")
        page.set_input_files("#file", photograph(tmp_path / f"{'long_name_' * 20}.png", 1))
        page.locator("#map").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_what_is_no_image(port, scorer, tmp_path):
    """The reason is shown, no result, and the next photograph is scored all the same."""
    path = tmp_path / "notes.png"
    path.write_text("hello")
    with quiet_page(but="status of 415") as page:
        page.goto(f"http://127.0.0.1:{port}/")
        page.set_input_files("#file", path)
        error = page.get_by_role("alert")
        error.wait_for()
        assert error.inner_text() == "no image of these kinds: BMP, GIF, JPEG, PNG, TIFF, WEBP"
        assert page.locator("#result").is_hidden()
        good = photograph(tmp_path / "good.png", 1)
        page.set_input_files("#file", good)
        page.locator("#map").wait_for()
        assert page.inner_text("#score") == shown(scorer, good)
        assert error.is_hidden()


def test_a_server_that_is_gone(port, tmp_path):
    with quiet_page(but="ERR_CONNECTION_REFUSED") as page:
        page.goto(f"http://127.0.0.1:{port}/")
        page.route("**/api/score", lambda route: route.abort("connectionrefused"))
        page.set_input_files("#file", photograph(tmp_path / "photo.png", 1))
        error = page.get_by_role("alert")
        error.wait_for()
        assert error.inner_text() == "no answer: is glpi serve still running?"
