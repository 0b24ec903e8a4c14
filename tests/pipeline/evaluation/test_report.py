"""The report in a browser: self-contained, and readable in wide, narrow, light and dark windows."""

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from pixelmill.pipeline.artifacts import read_json
from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.training import NormalizationCheck
from tests.pipeline.evaluation.reports import noisy_probabilities, write_report


def open_page(browser: Browser, path: Path, width: int, scheme: str) -> Page:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(path.as_uri())
    return page


def open_report(browser: Browser, bundle: ModelBundle, width: int, scheme: str) -> tuple[Page, list[str]]:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto((bundle.folder / "report/index.html").as_uri())
    return page, requested


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_the_report_is_self_contained_and_fits_the_window(
    browser: Browser, bundle: ModelBundle, width: int, scheme: str
) -> None:
    page, requested = open_report(browser, bundle, width, scheme)
    assert [url for url in requested if not url.startswith(("file:", "data:"))] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_the_report_shows_the_metrics(browser: Browser, bundle: ModelBundle) -> None:
    page, _ = open_report(browser, bundle, 1280, "light")
    metrics = read_json(bundle.folder / "metrics.json")
    text = page.inner_text("body")
    assert f"{metrics['test']['accuracy'] * 100:.2f}%" in text
    cells = page.locator(".confusion td").all_inner_texts()
    assert list(map(int, cells)) == [count for row in metrics["confusion_matrix"] for count in row]
    wrong = 359 - sum(row[index] for index, row in enumerate(metrics["confusion_matrix"]))
    assert page.locator(".mistakes img").count() == min(wrong, 24)
    loaded = "[...document.images].every(image => image.complete && image.naturalWidth === 8)"
    assert page.evaluate(loaded)
    assert page.locator(".curves svg").count() == 2
    page.close()


def test_the_curves_follow_the_dark_theme(browser: Browser, bundle: ModelBundle) -> None:
    colors = {}
    for scheme in ("light", "dark"):
        page, _ = open_report(browser, bundle, 800, scheme)
        colors[scheme] = page.evaluate("getComputedStyle(document.querySelector('.curves svg text')).fill")
        page.close()
    assert colors["light"] != colors["dark"]


TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_every_column_of_a_table_is_reachable(
    browser: Browser, tmp_path: Path, scheme: str
) -> None:
    labels = np.repeat(np.arange(10), 400)
    path = write_report(tmp_path, TEN, labels.tolist(), noisy_probabilities(labels.tolist(), 10))
    page = open_page(browser, path, 390, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    widths = page.evaluate(
        "[...document.querySelectorAll('.scroll')].map(e => [e.scrollWidth, e.clientWidth])"
    )
    assert len(widths) == 4
    assert all(inside <= outside for inside, outside in widths), widths
    page.close()


def test_the_report_of_a_thousand_classes_is_small_and_names_the_confused_pairs(
    browser: Browser, tmp_path: Path
) -> None:
    names = tuple(f"n{index:08} and what it is called" for index in range(1000))
    labels = np.repeat(np.arange(1000), 3)
    probabilities = noisy_probabilities(labels.tolist(), 1000)
    # Class 7 is always predicted as class 500.
    probabilities[labels == 7] = np.eye(1000, dtype=np.float32)[500]
    path = write_report(tmp_path, names, labels.tolist(), probabilities, side=224)
    assert path.stat().st_size < 2_000_000
    page = open_page(browser, path, 390, "light")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator(".confusion").count() == 0
    first = page.locator(".pairs tbody tr").first.locator("th, td").all_inner_texts()
    assert first == [names[7], names[500], "3", "100.0%"]
    assert page.locator(".classes").first.locator("tbody tr").count() == 20
    assert page.locator("details .classes tbody tr").count() == 1000
    assert not page.locator("details .classes").is_visible()
    page.close()


def test_the_worst_mistakes_show_their_file_names(browser: Browser, tmp_path: Path) -> None:
    files = [f"cat/{index}.jpg" for index in range(3)] + ["dog/na\u202eme.png"]
    probabilities = np.array([[0.9, 0.1], [0.3, 0.7], [0.2, 0.8], [1.0, 0.0]], np.float32)
    path = write_report(tmp_path, ("cat", "dog"), [0, 0, 0, 1], probabilities, files=files)
    page = open_page(browser, path, 1280, "light")
    shown = page.locator(".mistakes .file").all_inner_texts()
    assert shown == [r"dog/na\u202eme.png", "cat/2.jpg", "cat/1.jpg"]
    page.close()


def test_warnings_are_shown_at_the_top(browser: Browser, tmp_path: Path) -> None:
    always_cat = np.tile(np.array([0.9, 0.1], np.float32), (10, 1))
    path = write_report(
        tmp_path,
        ("cat", "dog"),
        [0] * 9 + [1],
        always_cat,
        normalization=NormalizationCheck(100, 0.5, 0.9),
        warnings=("2 files were left out",),
    )
    page = open_page(browser, path, 1280, "light")
    described = page.locator(".warning p").all_inner_texts()
    assert described[:2] == ["2 files were left out", "Never predicted for any test image: dog."]
    assert described[2].startswith("on 100 training images the accuracy is 0.5000 with the stored ")
    tiles = page.locator(".tile").all_inner_texts()
    assert tiles[0].startswith("90.00%\ntest accuracy (59.58% to 98.21%)")
    assert tiles[1].startswith("50.00%\nbalanced accuracy")
    assert tiles[2] == "90.00%\nof the test images are cat, the largest class"
    assert tiles[3] == "1\nof 2 classes never predicted"
    page.close()


def test_a_class_name_cannot_act_as_html(tmp_path: Path) -> None:
    names = ("<script>alert(1)</script>", "a & b")
    probabilities = np.tile(np.array([0.3, 0.7], np.float32), (4, 1))
    files = [f"<b>/{index}.png" for index in range(4)]
    page = write_report(tmp_path, names, [0, 1, 0, 1], probabilities, files=files).read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;b&gt;/2.png" in page
    assert "50.00%" in page
