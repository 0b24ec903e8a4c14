"""The report of an export in a browser."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from pixelmill.pipeline.bundles.engines import EngineName
from pixelmill.pipeline.export.formats.agreement import FormatResult
from pixelmill.pipeline.export.parity import FileDifference, Parity
from pixelmill.pipeline.export.report import render_export_report
from pixelmill.pipeline.export.variants import VariantResult

ORIGINAL = VariantResult("fp32", "model.onnx", 1_381_479, 1000, 0, 0.0, 0.58, 9331.0)
HALVES = VariantResult("fp16", "model.fp16.onnx", 192_486, 1000, 0, 0.0033, 0.581, 93.5)
REASON = "61 of 1,000 labels differ from model.onnx (6.10%; at most 1.00%)"
INTEGERS = VariantResult("int8", "model.int8.onnx", 104_213, 1000, 61, 0.18, 0.572, 16674.0, REASON)
TRITON_FILE = "triton/fashion-mnist/12/model.onnx"
FORMATS = (
    FormatResult(
        format="litert",
        file="model.int8.tflite",
        precision="int8",
        engine=EngineName.LITERT,
        version="2.3.0",
        bytes=37_416,
        images=1000,
        label_flips=61,
        invalid=0,
        max_abs_difference=0.014,
        golden_difference=0.02,
        accuracy=0.572,
        allowed_difference=0.04,
        refused=REASON,
    ),
    FormatResult(
        format="triton",
        file=TRITON_FILE,
        precision="fp32",
        engine=EngineName.ONNXRUNTIME,
        version="1.31.1",
        bytes=118_533,
        images=1000,
        label_flips=0,
        invalid=0,
        max_abs_difference=0.0,
        golden_difference=1.2e-7,
        accuracy=0.58,
        allowed_difference=1e-5,
    ),
)
LONG = "a very long folder name/" * 5 + "with" + "out" * 30 + "spaces.jpg"
FURTHEST = (
    FileDifference("test/airplane/0000.jpg", "airplane", 0.8123456, "airplane", 0.8123463, 7.2e-7),
    FileDifference(LONG, "x" * 60, 0.5000001, "truck", 0.5000005, 4.1e-7),
    FileDifference("<script>alert(1)</script>.png", "<b>cat</b>", 0.99, "<b>cat</b>", 0.99, 6e-8),
)
PARITY = Parity(10_000, 3, 0, "", 0, 2, 1e-4, 7.2e-7, 1.5e-7, 1e-5, (1, 64), FURTHEST)

Show = Callable[..., Page]


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Show]:
    """Show a page, and check that it loads nothing else and does not scroll horizontally."""
    pages = []

    def open_page(html: str, width: int = 1280, scheme: str = "light") -> Page:
        (tmp_path / "export.html").write_text(html, encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        pages.append(page)
        requested: list[str] = []
        page.on("request", lambda request: requested.append(request.url))
        page.goto((tmp_path / "export.html").as_uri())
        assert requested == [(tmp_path / "export.html").as_uri()]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        return page

    yield open_page
    for page in pages:
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_no_part_is_cut_off(show: Show, width: int, scheme: str) -> None:
    page = show(
        render_export_report("digits, version 3", PARITY, (ORIGINAL, HALVES, INTEGERS), FORMATS),
        width,
        scheme,
    )
    cut = "[...document.querySelectorAll('.scroll')].map(box => box.scrollWidth - box.clientWidth)"
    assert page.evaluate(cut) == [0, 0, 0]


def test_the_variants_stand_side_by_side(show: Show) -> None:
    page = show(render_export_report("digits, version 3", PARITY, (ORIGINAL, HALVES, INTEGERS)))
    rows = [
        row.locator("th, td").all_inner_texts() for row in page.locator(".variants tbody tr, thead tr").all()
    ]
    assert rows[:7] == [
        ["", "fp32", "fp16", "int8"],
        ["published", "yes", "yes", "no"],
        ["size", "1.4 MB\n100%", "192.5 kB\n14%", "104.2 kB\n8%"],
        ["images/s", "9,331\n1.00×", "93.5\n0.01×", "16,674\n1.79×"],
        ["accuracy", "58.00%", "58.10%\n+0.10", "57.20%\n-0.80"],
        ["different labels", "0\n0.00%", "0\n0.00%", "61\n6.10%"],
        ["largest difference", "0", "0.0033", "0.18"],
    ]
    assert f"int8 is not published: {REASON}." in page.inner_text("body")
    assert "1 of 2" in page.locator(".tile.bad").all_inner_texts()[0]


def test_other_formats_stand_below_each_other(show: Show) -> None:
    page = show(render_export_report("digits, version 3", PARITY, (), FORMATS))
    rows = [row.locator("th, td").all_inner_texts() for row in page.locator(".formats tr").all()]
    assert rows == [
        ["file", "size", "accuracy", "other labels", "difference"],
        ["model.int8.tflite\nLiteRT 2.3.0, not published", "37.4 kB", "57.20%", "61", "0.02"],
        [f"{TRITON_FILE}\nonnxruntime 1.31.1", "118.5 kB", "58.00%", "0", "1.2e-07"],
    ]
    assert f"model.int8.tflite is not published: {REASON}." in page.inner_text(".formats")


def test_the_comparison_with_keras_names_the_images(show: Show) -> None:
    page = show(render_export_report("digits, version 3", PARITY, ()))
    text = page.inner_text("body")
    assert (
        "Each of the 10,000 image files was predicted by Keras, and by model.onnx both in a scoring run and "
        "in batches of 1 and of 64. 3 more can be read by neither." in text
    )
    assert "None gets another label. Not counted are 2 " in text
    assert (
        "is 7.2e-07; less than 1e-05 was required, and the rounding error of the Keras model itself is "
        "1.5e-07." in text
    )
    first, _, script = page.locator(".furthest tbody tr").all()
    assert first.inner_text().split() == [
        "test/airplane/0000.jpg",
        *("airplane", "0.8123456", "airplane", "0.8123463", "7.2e-07"),
    ]
    assert script.locator("th").inner_text() == "<script>alert(1)</script>.png"
    assert page.locator("script, td b").count() == 0
    assert page.locator(".furthest .refused").all_inner_texts() == ["truck"]
    assert "Variants" not in page.locator("h2").all_inner_texts()


def test_unknown_values_are_omitted(show: Show) -> None:
    unknown = [replace(each, accuracy=None) for each in (ORIGINAL, HALVES)]
    parity = replace(PARITY, label_flips=1, tied_flips=0, files=())
    page = show(render_export_report("digits, version 3", parity, unknown))
    assert "accuracy" not in page.locator("tbody th").all_inner_texts()
    assert page.locator(".furthest").count() == 0
    text = page.inner_text("body")
    assert "1 gets another label. The largest" in text
    assert "1 of 1" in text
