"""The report of a scoring run: complete, self-contained, and safe with any file name."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser

from pixelmill.pipeline.display import printable
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.scoring.report import (
    FailedImage,
    ReportContent,
    UncertainImage,
    compact,
    count_bars,
    duration,
    render_scoring_report,
    share,
)
from pixelmill.pipeline.scoring.skipped import SkippedFiles

SECTIONS = ["Labels", "Confidence", "Drift", "Failures", "Least confident", "Throughput", "Run"]
HOSTILE = "<script>alert(1)</script>\"'&amp;<img src=http://outside.test/x onerror=alert(1)>"
ALL_CLASSES = {"not_classes": {"images": 0, "folders": 0, "images_by_folder": {}}}
SMALL = encode_png(np.random.default_rng(0).integers(0, 256, (8, 8, 1), np.uint8))
LARGE = encode_png(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8))


def measured(measure: str, value: float, means: tuple[float, float] | None = None) -> dict[str, Any]:
    baseline_mean, mean = means or (None, None)
    return {
        "measure": measure,
        "value": value,
        "noise": 0.04,
        "threshold": 0.09,
        "verdict": "drifted" if value > 0.09 else "stable",
        "images": 1195,
        "mean": mean,
        "baseline_mean": baseline_mean,
    }


DRIFT = {
    "verdict": "drifted",
    "class_psi": 0.03,
    "confidence_psi": 0.31,
    "images": 1195,
    "images_measured": 1100,
    "baseline_images": 900,
    "tolerance": 0.05,
    "measures": [
        measured("classes", 0.04),
        measured("confidence", 0.12, (0.97, 0.91)),
        measured("horizontal_centre", 0.31, (0.5, 0.64)),
    ],
}


def manifest(**changes: Any) -> dict[str, Any]:
    return {
        "listed": 1200,
        "scored": 1195,
        "failed": 5,
        "failures": {"corrupt": 4, "empty": 1},
        "labels": {"cat": 300, "dog": 895},
        "passed_over": 0,
        "passed_over_kinds": SkippedFiles().describe(),
        "drift": DRIFT,
        "expected_accuracy": None,
        "computed": 1000,
        "reused": 200,
        "seconds": 252.4,
        "startup_seconds": 0.6,
        "images_per_second": 4805.1,
        "stage_seconds": {"decode": 3.0, "infer": 1.5, "read": 0.5, "write": 1.0},
        "provider": "CPUExecutionProvider",
        "threads": 2,
        "threads_reason": "as requested for",
        "request": {
            "model": "pets@3",
            "model_sha256": "c" * 64,
            "images": "/data/pets",
            "format": "parquet",
            "top_k": 1,
            "max_pixels": 89478485,
        },
        "run": {
            "model_name": "pets",
            "model_version": "3",
            "model_sha256": "c" * 64,
            "run_id": "20260131T235959Z-pets-1a2b3c",
            "scored_at": "2026-01-31T23:59:59Z",
        },
        "created_at": "2026-02-01T00:04:11Z",
        "packages": {"pixelmill": "0.1.0", "onnxruntime": "1.20.0"},
        **changes,
    }


def content(name: str = "plain.png", **changes: Any) -> ReportContent:
    return ReportContent(
        manifest=manifest(**changes),
        confidence_counts=[0, 0, 1, 2, 7, 15, 40, 80, 250, 800],
        failures={"corrupt": [FailedImage(name, "corrupt: the end is missing")], "empty": []},
        least_confident=[
            UncertainImage(name, "cat", 0.213, SMALL),
            UncertainImage("photo.jpg", "dog", 0.254, LARGE),
            UncertainImage("gone.png", "dog", 0.301, None),
        ],
    )


class Reading(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def read(of: ReportContent) -> Reading:
    return Reading(render_scoring_report(of))


def test_everything_is_in_the_report() -> None:
    page = render_scoring_report(content())
    assert re.findall("<h2>(.*?)</h2>", page) == SECTIONS
    text = Reading(page).text
    for expected in (
        "pets@3 /data/pets Scored 2026-01-31 23:59:59 UTC, run 20260131T235959Z-pets-1a2b3c",
        "1,200 images listed 1,195 scored 5 failed 200 reused 4,805 images per second",
        "4 min 12 s wall time, 0.6 s to start",
        "dog 895 · 74.9% cat 300 · 25.1%",
        "These images differ from the model's test images Centre, left to right 0.5 → 0.64 0.31 "
        "Confidence 0.97 → 0.91 0.12 Classes 0.04",
        "from those in 900 test images, 0 to 1",
        "the tolerance of 0.05 and what chance can do with 1,195 images, 1,100 of which were measured",
        "corrupt 4 · 0.3% plain.png the end is missing 3 more in the table. empty 1 · 0.1%",
        "cat 21.3% plain.png",
        "no longer readable",
        "read 0.50 8.3% 500 decode 3.00 50.0% 3,000 infer 1.50 25.0% 1,500 write 1.00 16.7% 1,000",
    ):
        assert expected in text
    assert "Accuracy" not in text


def test_nothing_is_loaded_from_elsewhere() -> None:
    reading = read(content())
    assert {tag for tag, _ in reading.tags}.isdisjoint({"script", "link", "iframe", "a", "object"})
    sources = [value or "" for _, attributes in reading.tags for key, value in attributes if key == "src"]
    assert len(sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"https?://|url\(|@import", render_scoring_report(content()))


@settings(max_examples=30, deadline=None)
@given(name=st.one_of(st.just(HOSTILE), st.just("\u202egnp.exe\x1b[2J"), st.text(min_size=1)))
def test_a_name_is_escaped_everywhere(name: str) -> None:
    """As a path, an error, a label, a folder or a failure code."""

    def named(word: str) -> ReportContent:
        request = {**manifest()["request"], "images": word, "model": word}
        facts = manifest(
            labels={word: 2},
            failures={word: 2},
            request=request,
            threads_reason=word,
            passed_over_kinds={**SkippedFiles().describe(), "extensions": {word: 3}},
            accuracy={
                "images": 3,
                "correct": 2,
                "accuracy": 0.67,
                "classes": {word: {"images": 3, "correct": 2}},
                "not_classes": {"images": 3, "folders": 1, "images_by_folder": {word: 3}},
            },
        )
        uncertain = [UncertainImage(word, word, 0.5, SMALL)]
        return ReportContent(facts, [0] * 10, {word: [FailedImage(word, "x" + word + "x")]}, uncertain)

    plain, reading = read(named("plain")), read(named(name))
    assert reading.tags == plain.tags
    # Thirteen places, including the title.
    everything = "".join(reading.texts)
    assert everything.count(printable(name)) >= "".join(plain.texts).count("plain") == 13
    assert not set(everything) & set("\x1b\u202e\u2066\x00\x7f")


def test_a_folder_whose_name_is_not_text_has_a_report() -> None:
    page = render_scoring_report(content(request={**manifest()["request"], "images": "/data/caf\udce9"}))
    assert "/data/caf\\udce9" in page
    page.encode()


def test_a_report_without_failures() -> None:
    text = read(content(failed=0, failures={})).text
    assert "Failures No failures." in text


def test_a_run_without_a_scored_image_has_a_report() -> None:
    facts = manifest(
        scored=0, failed=1200, failures={"corrupt": 1200}, labels={}, drift=None, stage_seconds={}
    )
    for key in ("reused", "startup_seconds"):
        del facts[key]
    facts |= {"computed": 0, "images_per_second": 0.0, "seconds": 0.0}
    text = read(ReportContent(facts, [0] * 10, {}, [])).text
    assert text.count("No image was scored") == 4
    assert "Nothing was computed in this run." in text
    assert "0 reused 0.0 images per second 0.0 s wall time" in text
    assert "corrupt 1,200 · 100.0% 1,200 more in the table." in text


def test_only_the_most_frequent_of_many_labels_are_shown() -> None:
    reading = read(content(labels={f"label {index}": 1000 - index for index in range(1000)}))
    shown = re.findall(r"label \d+", reading.text)
    assert shown == [f"label {index}" for index in range(50)]
    assert "The 50 most frequent; 950 more labels were predicted." in reading.text


def test_accuracy_is_shown_if_it_is_known() -> None:
    classes = {
        "cat": {"images": 4, "correct": 4},
        "dog": {"images": 4, "correct": 3},
        "emu": {"images": 0, "correct": 0},
    }
    facts = {"images": 8, "correct": 7, "accuracy": 0.875, "classes": classes, **ALL_CLASSES}
    text = read(content(accuracy=facts)).text
    assert "87.5% accuracy" in text
    assert "7 of 8 images classified correctly: 87.5%" in text
    assert "dog 3 of 4 · 75.0% cat 4 of 4 · 100.0%" in text
    assert "emu" not in text


def test_skipped_files_and_other_folders_are_shown_if_there_are_any() -> None:
    assert "Skipped" not in read(content()).text
    kinds = {**SkippedFiles().describe(), "extensions": {".cr2": 38, ".txt": 2}, "linked_folders": 1}
    left_out = {"not_classes": {"images": 5, "folders": 1, "images_by_folder": {"2026-01": 5}}}
    facts = {"images": 0, "correct": 0, "accuracy": None, "classes": {}, **left_out}
    text = read(content(passed_over=41, passed_over_kinds=kinds, accuracy=facts)).text
    assert "Skipped 40 files (.cr2 38, .txt 2), 1 linked folder" in text
    assert "Left out: 5 images in 1 folder that is not a class of the model (2026-01)." in text


def test_only_small_images_are_shown_pixelated() -> None:
    images = [dict(attributes) for tag, attributes in read(content()).tags if tag == "img"]
    assert [image.get("class") for image in images] == ["small", None]


def test_a_run_without_drift_says_so() -> None:
    stable = {**DRIFT, "verdict": "stable", "measures": [measured("classes", 0.04)]}
    text = read(content(drift=stable)).text
    assert "No drift beyond chance Classes 0.04" in text
    assert "differ from the model's test images" not in text


@pytest.mark.parametrize("reliable", [True, False])
def test_the_expected_accuracy_is_shown_and_marked_where_there_is_drift(reliable: bool) -> None:
    expected = {"accuracy": 0.912, "interval": [0.894, 0.93], "reliable": reliable, "baseline_accuracy": 0.9}
    text = read(content(expected_accuracy=expected)).text
    assert "91.2% expected accuracy, 89.4 to 93.0%" in text
    assert ("not to be relied on" in text) is not reliable


@pytest.mark.parametrize("reliable", [True, False])
def test_the_estimated_class_totals_are_shown_with_their_interval(reliable: bool) -> None:
    rows = {
        "<b>cat": {"predicted": 300, "estimated": 251.7, "interval": [231, 1274]},
        "dog": {"predicted": 895, "estimated": 943.3, "interval": None},
        "fox": {"predicted": 0, "estimated": 0.2, "interval": [0, 3]},
    }
    text = read(content(class_totals={"reliable": reliable, "classes": rows})).text
    assert "<b>cat 300 252 231 to 1,274" in text
    assert text.index("dog 895 943 —") < text.index("<b>cat 300")
    assert "fox" not in text
    assert ("Not to be relied on" in text) is not reliable
    assert "Estimated class totals" not in read(content()).text


def test_decisions_are_counted_where_there_are_any() -> None:
    assert "to review" not in read(content()).text
    assert "95 to review, 1,100 accepted" in read(content(decisions={"accept": 1100, "review": 95})).text


@given(st.integers(0, 10**12))
def test_a_compact_count_is_short_and_accurate(count: int) -> None:
    text = compact(count)
    assert len(text) <= 5
    units = {"k": 1e3, "M": 1e6, "G": 1e9}
    value = float(text.rstrip("kMG")) * units.get(text[-1], 1)
    assert value == pytest.approx(count, rel=0.06)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min 0 s"), (3599.7, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_durations_are_readable(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@given(st.integers(1, 10**7), st.data())
def test_only_the_whole_is_100_percent_and_only_nothing_is_0(whole: int, data: st.DataObject) -> None:
    part = data.draw(st.integers(0, whole))
    assert (share(part, whole) == "100.0%") == (part == whole)
    assert (share(part, whole) == "0.0%") == (part == 0)
    assert share(0, 0) == "—"


@given(st.dictionaries(st.text(), st.integers(0, 10**9)))
def test_bars_are_sorted_and_fit(counts: dict[str, int]) -> None:
    bars = count_bars(counts, sum(counts.values()))
    assert {bar.name: bar.count for bar in bars} == counts
    assert [bar.count for bar in bars] == sorted(counts.values(), reverse=True)
    assert all(0 <= bar.width <= 100 for bar in bars)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_the_report_is_self_contained_and_fits_the_window(
    tmp_path: Path, browser: Browser, width: int, scheme: str
) -> None:
    long = HOSTILE + "n" * 300
    facts = content(
        f"{long}.png",
        labels={long: 1195},
        stage_seconds={"decode": 12_345_678.9, "infer": 98_765_432.1, "read": 1_234_567.8, "write": 1.0},
        request={**manifest()["request"], "images": f"/{long}", "model": long},
        accuracy={
            "images": 10**9,
            "correct": 1,
            "accuracy": 0.1,
            "classes": {long: {"images": 10**9, "correct": 1}},
            "not_classes": {"images": 3, "folders": 1, "images_by_folder": {long: 3}},
        },
    )
    path = tmp_path / "report.html"
    path.write_text(render_scoring_report(facts), encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    requested: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(path.as_uri())
    assert [url for url in requested if not url.startswith(("file:", "data:"))] == []
    assert complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    overflowing = "[...document.querySelectorAll('.card, .tile')].filter(e => e.scrollWidth > e.clientWidth)"
    assert page.evaluate(f"{overflowing}.length") == 0
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    # The last column of the widest table can be scrolled into view, and no number is wrapped.
    page.evaluate("document.querySelector('.wide').scrollLeft = 1e6")
    last = page.evaluate("document.querySelector('td:last-child').getBoundingClientRect().right")
    assert last <= width
    heights = "new Set([...document.querySelectorAll('td')].map(cell => cell.offsetHeight)).size"
    assert page.evaluate(heights) == 1
    # Nothing is cut off on a page without scroll bars.
    cut = "[...document.querySelectorAll('.path')].filter(e => e.scrollHeight > e.clientHeight + 1)"
    assert (
        width > 480 or page.evaluate(f"{cut}.filter(e => getComputedStyle(e).display == 'block').length") == 0
    )
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 29)"
    assert dark == (scheme == "dark")
    page.close()
