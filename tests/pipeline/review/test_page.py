"""The review page in a browser, opened from a disk: keys, undo, progress, corrections, names as text."""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from pixelmill.pipeline.datasets.corrections import Correction, read_corrections
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.review import ChosenImage, Picture, Row
from pixelmill.pipeline.review.page import render_page

HOSTILE = "</script><img src=http://outside.test/x onerror=\"document.title='taken'\">\u202egnp"
DIGITS = tuple("0123456789")
PETS = ("cat", "dog", "bird", "catfish")


def write_page(folder: Path, class_names: Sequence[str], count: int = 6, path: str = "{}.png") -> Path:
    """A page with small images, the prediction of each being the class of its number."""
    random = np.random.default_rng(0)
    images = []
    for number in range(count):
        name = f"{number:064x}.png"
        content = encode_png(random.integers(0, 256, (30, 40, 3), np.uint8))
        for place in ("images", "thumbnails"):
            (folder / place).mkdir(parents=True, exist_ok=True)
            (folder / place / name).write_bytes(content)
        index = number % len(class_names)
        row = Row(path.format(number), f"{number:064x}", class_names[index], index, 0.5, class_names[-1], 0.4)
        words = f"{class_names[index]} has 0.500"
        images.append(
            ChosenImage(
                row,
                Picture(0, content, "PNG", 40, 30),
                {"uncertain": words},
                f"images/{name}",
                f"thumbnails/{name}",
            )
        )
    (folder / "index.html").write_text(render_page("pets@3", class_names, images), encoding="utf-8")
    return folder / "index.html"


class Visit:
    """An open page, with its requests and complaints."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page, self.path = page, path
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(path.as_uri())

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def progress(self) -> str:
        return self.page.locator("#progress").inner_text()

    def save(self, folder: Path) -> dict[str, Correction]:
        with self.page.expect_download() as download:
            self.page.locator("#export").click()
        assert download.value.suggested_filename == "corrections.csv"
        download.value.save_as(folder / "corrections.csv")
        return {**read_corrections(str(folder / "corrections.csv")).by_sha256}


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    yield context.new_page()
    context.close()


def labels(found: dict[str, Correction]) -> dict[int, str]:
    return {int(sha256, 16): row.label for sha256, row in found.items()}


def test_every_key_does_what_the_page_says(page: Page, tmp_path: Path) -> None:
    visit = Visit(page, write_page(tmp_path, PETS))
    assert visit.progress() == "0 of 6 answered, 0 skipped · image 1"
    assert page.locator("#export").is_disabled()
    visit.press("2", "Enter", "Space", "Delete", "ArrowLeft", "ArrowRight")
    assert visit.progress() == "3 of 6 answered, 1 skipped · image 5"
    visit.press("1", "Backspace")
    assert visit.progress() == "3 of 6 answered, 1 skipped · image 5"
    page.keyboard.type("fish")
    assert page.locator("#classes button").all_inner_texts() == ["4\ncatfish\nsecond"]
    visit.press("Enter")
    page.locator("#who").fill("Ada, 1")
    visit.press("Enter")
    found = visit.save(tmp_path)
    assert labels(found) == {0: "dog", 1: "dog", 3: "exclude", 4: "catfish"}
    assert {row.who for row in found.values()} == {"Ada, 1"}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row.when) for row in found.values())
    assert visit.complaints == []


def test_a_search_can_be_left_and_its_matches_chosen(page: Page, tmp_path: Path) -> None:
    visit = Visit(page, write_page(tmp_path, PETS))
    page.keyboard.type("cat")
    assert page.locator("#classes .name").all_inner_texts() == ["cat", "catfish"]
    visit.press("Escape")
    assert page.locator("#classes button").count() == 4
    page.keyboard.type("cat")
    visit.press("ArrowDown", "Enter")
    page.keyboard.type("zebra")
    expect(page.locator("#classes")).to_contain_text("No class has this in its name")
    visit.press("Enter", "Escape")
    assert labels(visit.save(tmp_path)) == {0: "catfish"}


def test_digits_have_their_own_keys(page: Page, tmp_path: Path) -> None:
    visit = Visit(page, write_page(tmp_path, DIGITS))
    visit.press("0", "7", "1")
    assert labels(visit.save(tmp_path)) == {0: "0", 1: "7", 2: "1"}


def test_progress_is_kept_and_belongs_to_the_content(page: Page, tmp_path: Path) -> None:
    visit = Visit(page, write_page(tmp_path / "one", PETS))
    visit.press("2", "3", "Space")
    page.reload()
    assert visit.progress() == "2 of 6 answered, 1 skipped · image 4"
    visit.press("Control+z", "Control+z")
    assert visit.progress() == "1 of 6 answered, 0 skipped · image 2"
    # The same images on another page are the same review; others are not.
    page.goto(write_page(tmp_path / "again", PETS).as_uri())
    assert visit.progress() == "1 of 6 answered, 0 skipped · image 2"
    page.goto(write_page(tmp_path / "other", PETS, count=5).as_uri())
    assert visit.progress() == "0 of 5 answered, 0 skipped · image 1"


def test_buttons_and_the_strip_do_the_same(page: Page, tmp_path: Path) -> None:
    visit = Visit(page, write_page(tmp_path, PETS))
    for name in ("accept", "skip", "exclude"):
        page.locator(f"#{name}").click()
    page.locator("#classes button").nth(2).click()
    page.locator("#strip button").first.click()
    assert visit.progress() == "3 of 6 answered, 1 skipped · image 1"
    assert page.locator("#classes .chosen").inner_text().split() == ["1", "cat", "predicted"]
    page.locator("#undo").click()
    page.locator("#back").click()
    assert visit.progress() == "2 of 6 answered, 1 skipped · image 3"
    page.locator("#stage").click()
    assert page.locator("#stage.actual").count() == 1
    assert labels(visit.save(tmp_path)) == {0: "cat", 2: "exclude"}


def test_names_stay_text_and_nothing_is_fetched_elsewhere(page: Page, tmp_path: Path) -> None:
    names = (HOSTILE, "=1+1", "dog")
    visit = Visit(page, write_page(tmp_path, names, path=f'=cmd,{HOSTILE}/"{{}}.png'))
    visit.press("Enter", "Enter", "3")
    page.keyboard.type("on")
    expect(page.locator("#stage img:not(.under)")).to_have_js_property("naturalWidth", 40)
    assert page.title() == "Review of 6 images by pets@3"
    assert page.locator("script").count() == 2
    assert "\u202e" not in page.locator("body").inner_text()
    assert "\\u202e" in page.locator("#path").inner_text()
    visit.press("Escape")
    assert labels(visit.save(tmp_path)) == {0: HOSTILE, 1: "=1+1", 2: "dog"}
    with (tmp_path / "corrections.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["path"] == f'./=cmd,{HOSTILE}/"0.png'
    elsewhere = [url for url in visit.requests if not url.startswith((tmp_path.as_uri(), "data:", "blob:"))]
    assert elsewhere == []
    assert visit.complaints == []


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_the_window(browser: Browser, tmp_path: Path, width: int) -> None:
    window = browser.new_page(viewport={"width": width, "height": 800})
    visit = Visit(window, write_page(tmp_path, PETS, count=40))
    assert window.evaluate("document.documentElement.scrollWidth") <= width
    assert window.locator("#stage").bounding_box() is not None
    assert visit.complaints == []
    window.close()


def test_a_missing_picture_is_told(page: Page, tmp_path: Path) -> None:
    path = write_page(tmp_path, PETS)
    (tmp_path / "images" / f"{0:064x}.png").unlink()
    page.goto(path.as_uri())
    expect(page.locator("#trouble")).to_contain_text("is missing: keep its folder beside the page")
