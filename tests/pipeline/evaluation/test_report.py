"""The report in a browser: self-contained, and readable in wide, narrow, light and dark windows."""

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from pixelmill.pipeline.artifacts import read_json
from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.datasets import Images
from pixelmill.pipeline.evaluation.report.charts import draw_search
from pixelmill.pipeline.evaluation.report.links import link_pages
from pixelmill.pipeline.evaluation.report.pictures import PredictedImages, draw_thumbnail
from pixelmill.pipeline.evaluation.report.training_images import draw_training_images
from pixelmill.pipeline.training import NormalizationCheck, RateSearch
from pixelmill.pipeline.training.input_pipeline import TrainingBatches
from tests.pipeline.evaluation.reports import noisy_probabilities, write_report
from tests.pipeline.training.recipes import digits, small_recipe


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
    assert page.locator(".charts.training svg").count() == 3
    assert page.locator(".charts.robustness svg").count() >= 5
    page.close()


def test_the_curves_follow_the_dark_theme(browser: Browser, bundle: ModelBundle) -> None:
    colors = {}
    for scheme in ("light", "dark"):
        page, _ = open_report(browser, bundle, 800, scheme)
        colors[scheme] = page.evaluate("getComputedStyle(document.querySelector('.charts svg text')).fill")
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
    path = write_report(tmp_path, names, labels.tolist(), probabilities, side=120)
    assert path.stat().st_size < 5_000_000
    page = open_page(browser, path, 390, "light")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator(".confusion tbody tr").count() == 20
    of_seven = page.locator(".confusion tbody tr", has_text=names[7]).locator("td").all_inner_texts()
    assert sorted(map(int, of_seven)) == [0] * 20 + [3]
    assert page.locator(".gallery h3").count() == 60
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


MARKUP = ("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", 'a" onmouseover="alert(1)', "a & b")


def test_names_with_markup_stay_text(browser: Browser, tmp_path: Path) -> None:
    labels = list(range(4)) * 3
    probabilities = np.tile(np.array([0.1, 0.2, 0.3, 0.4], np.float32), (12, 1))
    files = [f"<b>/{index}.png" for index in range(12)]
    thresholds = [
        {"class": name, "threshold": 0.9, "precision": 1, "precision_interval": [0.5, 1], "coverage": 0.1}
        for name in MARKUP
    ]
    below = {"images": 3, "accuracy": 0, "accuracy_interval": [0, 0.5], "p_value": 0.01, "is_below": True}
    slices = [{"property": f"column {MARKUP[1]}", "slices": [{"value": name, **below} for name in MARKUP]}]
    path = write_report(
        tmp_path,
        MARKUP,
        labels,
        probabilities,
        files=files,
        more={"thresholds": thresholds, "slices": slices},
    )
    page = open_page(browser, path, 1280, "light")
    assert page.locator("script, b > b, img[src=x], [onmouseover], [onerror]").count() == 0
    for selector in (".classes tbody th", ".thresholds tbody th", ".slices tbody th", ".gallery h3"):
        shown = page.locator(selector).all_text_contents()
        assert set(MARKUP) <= set(shown), selector
    assert "<b>/2.png" in page.locator(".mistakes .file").all_inner_texts()
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_printed_report_is_black_on_white(browser: Browser, tmp_path: Path, scheme: str) -> None:
    labels = [0, 1] * 20
    path = write_report(tmp_path, ("cat", "dog"), labels, noisy_probabilities(labels, 2))
    page = open_page(browser, path, 794, scheme)
    page.emulate_media(media="print")
    colors = page.evaluate(
        "[getComputedStyle(document.body), getComputedStyle(document.querySelector('.charts svg text'))]"
        ".map(style => [style.backgroundColor, style.color])"
    )
    assert colors == [["rgb(255, 255, 255)", "rgb(28, 35, 48)"], ["rgba(0, 0, 0, 0)", "rgb(28, 35, 48)"]]
    assert not page.locator("nav.sections").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 794
    page.close()


def test_what_matters_comes_first(browser: Browser, tmp_path: Path) -> None:
    labels = np.repeat([0, 1, 2], 40)
    probabilities = np.eye(3, dtype=np.float32)[labels] * 0.9 + 0.1 / 3
    # Half of the dogs are taken for cats.
    probabilities[40:60] = probabilities[0]
    path = write_report(tmp_path, ("cat", "dog", "fox"), labels.tolist(), probabilities)
    page = open_page(browser, path, 1280, "light")
    notable = page.locator(".notable li").all_inner_texts()
    assert notable[0] == "Lowest recall: 50.0% (35.2 to 64.8) for dog."
    assert notable[1] == "Most frequent mistake: 20 of 40 images of dog are predicted as cat."
    first, *others = page.locator(".classes tbody tr").all()
    cells = first.locator("th, td").all_inner_texts()
    assert [cell.replace("\n", " ") for cell in cells] == [
        "dog",
        "100.0% 83.9 to 100.0",
        "50.0% 35.2 to 64.8",
        "66.7% 52.1 to 78.6",
        "40",
        "20",
    ]
    assert first.get_attribute("class") == "below"
    assert [row.get_attribute("class") for row in others] == [None, None]
    bottom = page.locator(".notable").bounding_box()
    assert bottom
    assert bottom["y"] + bottom["height"] < 900
    page.close()


def test_no_picture_is_shown_where_none_is_wanted(tmp_path: Path) -> None:
    labels = [0, 1] * 20
    settings = ("evaluation.worst_mistakes=0",)
    path = write_report(tmp_path, ("cat", "dog"), labels, noisy_probabilities(labels, 2), settings=settings)
    assert "data:image" not in path.read_text()


def test_the_gallery_goes_from_the_highest_to_the_lowest_probability(tmp_path: Path) -> None:
    labels = [0] * 20 + [1] * 3
    probabilities = np.zeros((23, 2), np.float32)
    probabilities[:, 0] = np.linspace(0, 1, 23)
    probabilities[:, 1] = 1 - probabilities[:, 0]
    pixels = np.zeros((23, 8, 8, 3), np.uint8)
    files = [str(index) for index in range(23)]
    pictures = PredictedImages(Images(pixels, np.array(labels)), files, ("cat", "dog"), probabilities)
    gallery = pictures.gallery(["dog", "cat"])
    assert [picture.file for picture in gallery["dog"]] == ["20", "21", "22"]
    assert [picture.is_right for picture in gallery["dog"]] == [False] * 3
    shown = [int(picture.file) for picture in gallery["cat"]]
    assert (shown[0], shown[-1], len(shown)) == (19, 0, 8)
    assert shown == sorted(shown, reverse=True)
    assert pictures.least_certain(50)[0].file == "11"
    assert len(pictures.least_certain(50)) == 12


def test_the_report_links_to_the_pages_beside_it(tmp_path: Path) -> None:
    labels = [0, 1] * 4
    write_report(tmp_path, ("cat", "dog"), labels, noisy_probabilities(labels, 2))
    index = tmp_path / "index.html"
    plain = index.read_text()
    link_pages(tmp_path)
    assert index.read_text() == plain
    (tmp_path / "gate.html").touch()
    link_pages(tmp_path, {"../audit/index.html": "The audit"})
    assert '<a href="gate.html">The gate</a><a href="../audit/index.html">The audit</a>' in index.read_text()
    (tmp_path / "gate.html").unlink()
    link_pages(tmp_path)
    assert index.read_text() == plain
    index.write_text("<p>a report of an older version")
    link_pages(tmp_path)
    assert index.read_text() == "<p>a report of an older version"
    link_pages(tmp_path / "missing")


def test_the_report_of_a_bundle_links_to_its_proof(browser: Browser, bundle: ModelBundle) -> None:
    page, _ = open_report(browser, bundle, 1280, "light")
    page.click("nav.pages >> text=proof")
    assert page.url.endswith("report/export.html")
    page.close()


def test_the_report_shows_training_images_as_the_network_gets_them(tmp_path: Path) -> None:
    dataset = digits(tmp_path)
    recipe = small_recipe(augmentation={"shift": 0.2, "cutmix": 1.0}, label_smoothing=0.1, batch_size=10)
    shown = draw_training_images(dataset, recipe)
    batches = TrainingBatches(dataset.split("train"), 10, recipe.training)
    first = [batches[0], batches[1]]
    pixels, labels = (np.concatenate(parts)[:16] for parts in zip(*first, strict=True))
    assert [picture.source for picture in shown] == [draw_thumbnail(one, 112) for one in pixels]
    assert len(shown) == 16
    mixed = 0
    for picture, label in zip(shown, labels, strict=True):
        largest = np.argsort(-label)[: len(picture.labels)]
        assert [name for name, _ in picture.labels] == [dataset.class_names[at] for at in largest]
        unsmoothed = (label[largest] - 0.01) / 0.9
        assert [share for _, share in picture.labels] == pytest.approx(unsmoothed, abs=1e-6)
        assert sum(share for _, share in picture.labels) == pytest.approx(1, abs=0.01)
        mixed += len(picture.labels) == 2
    assert 4 < mixed <= 16


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_training_images_of_a_bundle_are_on_its_page(
    browser: Browser, bundle: ModelBundle, width: int, scheme: str
) -> None:
    page, requested = open_report(browser, bundle, width, scheme)
    assert page.locator(".training-images figure").count() == 16
    heights = page.evaluate(
        "[...document.querySelectorAll('.training-images img')].map(image => image.naturalHeight)"
    )
    assert min(heights) > 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert len(requested) == 1


def test_the_search_for_the_learning_rate_is_drawn() -> None:
    drawn = draw_search(RateSearch(0.01, (1e-6, 1e-4, 0.01, 1.0), (2.0, 1.9, 1.0, 3.0)))
    assert drawn.startswith("<svg")
    assert "chosen peak 0.01" in drawn
