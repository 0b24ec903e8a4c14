"""The report as a browser shows it: whole by itself, readable wide and narrow, light and dark."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from pipeline.artifacts import read_json
from pipeline.export import ModelBundle


def open_report(browser: Browser, bundle: ModelBundle, width: int, scheme: str) -> tuple[Page, list[str]]:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((bundle.folder / "report/index.html").as_uri())
    return page, asked


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_the_report_needs_nothing_else_and_fits(
    browser: Browser, bundle: ModelBundle, width: int, scheme: str
) -> None:
    page, asked = open_report(browser, bundle, width, scheme)
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_the_report_says_what_the_metrics_say(browser: Browser, bundle: ModelBundle) -> None:
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


def test_dark_text_is_light_in_the_curves_too(browser: Browser, bundle: ModelBundle) -> None:
    colors = {}
    for scheme in ("light", "dark"):
        page, _ = open_report(browser, bundle, 800, scheme)
        colors[scheme] = page.evaluate("getComputedStyle(document.querySelector('.curves svg text')).fill")
        page.close()
    assert colors["light"] != colors["dark"]


def test_a_class_name_cannot_act_as_html(tmp_path: Path) -> None:
    import numpy as np
    import pandas as pd

    from pipeline.datasets import PreparedDataset
    from pipeline.evaluation.metrics import measure
    from pipeline.evaluation.report import render_report
    from pipeline.layers import summarize_layers
    from pipeline.recipes import load_recipe
    from pipeline.training import TrainedModel

    names = ("<script>alert(1)</script>", "a & b")
    np.save(tmp_path / "test_images.npy", np.zeros((4, 8, 8, 1), np.uint8))
    np.save(tmp_path / "test_labels.npy", np.array([0, 1, 0, 1]))
    dataset = PreparedDataset(tmp_path, "folder", "f" * 64, names, {"train": 1, "validation": 1, "test": 4})
    probabilities = np.tile(np.array([0.3, 0.7], np.float32), (4, 1))
    recipe = load_recipe("digits")
    page = render_report(
        recipe=recipe,
        model=TrainedModel(tmp_path, 1, 1, 1.0, "cpu", 0.1, 0.9, 1),
        layers=summarize_layers(recipe.model, recipe.image, 2),
        history=pd.DataFrame(
            {"epoch": [1], "loss": [1.0], "val_loss": [1.0], "accuracy": [0.5], "val_accuracy": [0.5]}
        ),
        dataset=dataset,
        metrics=measure(probabilities, np.array([0, 1, 0, 1]), names),
        probabilities=probabilities,
    )
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "50.00%" in page
