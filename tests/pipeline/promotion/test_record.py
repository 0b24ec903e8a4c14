"""The gate in the version's own files: recorded before it is published, and judged again if needed."""

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

from pixelmill.pipeline.artifacts import read_json, verify_files
from pixelmill.pipeline.bundles import GATE_REPORT_FILE, METRICS_FILE, ModelBundle, open_bundle
from pixelmill.pipeline.config import PromotionSpec
from pixelmill.pipeline.promotion import (
    Judgement,
    TestImages,
    VersionRefused,
    judge_bundle,
    promote_bundle,
    promote_judged,
)
from pixelmill.pipeline.promotion.page import render_gate
from pixelmill.pipeline.promotion.record import record_judgement
from pixelmill.pipeline.registry import (
    aliases_of,
    promote_version,
    read_log,
    register_bundle,
    reserve_version,
)
from tests.pipeline.promotion.versions import NAMES, register, write_images, write_version

LABELS = np.repeat([0, 1, 2], 100)
SPEC = PromotionSpec(min_recall=0.1)


def wrong(count: int, start: int = 0) -> list[int]:
    """Predictions that are wrong for so many images."""
    predicted = LABELS.copy()
    predicted[start : start + count] = (predicted[start : start + count] + 1) % 3
    return [int(label) for label in predicted]


@pytest.fixture
def test_images(tmp_path: Path) -> TestImages:
    return write_images(tmp_path / "images", LABELS.tolist())


def unpublished(store: Path, predicted: list[int]) -> ModelBundle:
    return write_version(store, predicted, reserve_version(store, "pets"))


def test_a_version_carries_its_judgement_before_it_is_registered(
    tmp_path: Path, test_images: TestImages
) -> None:
    promote_bundle(tmp_path, register(tmp_path, wrong(30)), SPEC, test_images)
    new = unpublished(tmp_path, wrong(10))
    judgement = judge_bundle(tmp_path, new, SPEC, test_images)
    record_judgement(new, judgement)
    assert aliases_of(tmp_path, "pets") == {"champion": 1}
    registered = register_bundle(tmp_path, open_bundle(new.folder))
    promoted = promote_judged(tmp_path, registered, judgement, lambda: pytest.fail("the alias did not move"))
    assert promoted.replaced == 1
    assert aliases_of(tmp_path, "pets") == {"champion": 2}
    folder = tmp_path / "models/pets/2"
    assert GATE_REPORT_FILE in verify_files(folder)["files"]
    metrics = read_json(folder / METRICS_FILE)
    assert metrics["test"] == {"accuracy": 0.5, "loss": 1.0, "images": 1}
    assert metrics["champion"] == "pets@1"
    assert metrics["compared_on"]["images"] == 300
    assert {row["bar"] for row in metrics["gate"]} == {"balanced_accuracy", "recall", "accuracy"}
    page = (folder / GATE_REPORT_FILE).read_text()
    assert "pets@2 passed the gate" in page
    assert "pets@1" in page


def test_a_version_is_judged_again_if_the_alias_has_moved(tmp_path: Path, test_images: TestImages) -> None:
    promote_bundle(tmp_path, register(tmp_path, wrong(60)), SPEC, test_images)
    new = unpublished(tmp_path, wrong(30))
    judgement = judge_bundle(tmp_path, new, SPEC, test_images)
    assert judgement.refusal is None
    record_judgement(new, judgement)
    registered = register_bundle(tmp_path, open_bundle(new.folder))
    better = register(tmp_path, wrong(0))
    promote_version(tmp_path, "pets", better.version, "champion")

    def judge_again() -> Judgement:
        return judge_bundle(tmp_path, registered, SPEC, test_images)

    with pytest.raises(VersionRefused, match=r"pets@3 \(champion\) has 1\.0000"):
        promote_judged(tmp_path, registered, judgement, judge_again)
    assert aliases_of(tmp_path, "pets") == {"champion": 3}
    assert read_log(tmp_path, "pets")[-1].action == "refused"
    assert "pets@3" in read_log(tmp_path, "pets")[-1].reason


def test_how_often_the_same_images_have_decided_is_counted(tmp_path: Path, test_images: TestImages) -> None:
    counted = []
    for mistakes in (30, 29, 90, 28):
        bundle = register(tmp_path, wrong(mistakes))
        counted.append(judge_bundle(tmp_path, bundle, SPEC, test_images).earlier_decisions)
        try:
            promote_bundle(tmp_path, bundle, SPEC, test_images)
        except VersionRefused:
            assert mistakes == 90
    assert counted == [0, 1, 2, 3]
    others = write_images(tmp_path / "others", [0, 1, 2] * 20)
    found = judge_bundle(tmp_path, register(tmp_path, wrong(0)), SPEC, others)
    assert found.earlier_decisions == 0
    assert found.to_json()["compared_on"]["earlier_decisions"] == 0
    assert {row["earlier decisions by these images"] for row in found.table()} == {0}


def test_the_page_shows_refused_bars_first_and_how_to_overrule(
    tmp_path: Path, test_images: TestImages, browser: Browser
) -> None:
    promote_bundle(tmp_path, register(tmp_path, wrong(3)), SPEC, test_images)
    worse = judge_bundle(tmp_path, register(tmp_path, wrong(40)), SPEC, test_images)
    html = render_gate(worse)
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.set_content(html)
    verdicts = page.locator(".bar .verdict").all_inner_texts()
    assert verdicts == sorted(verdicts, key=["refused", "not judged", "passed"].index)
    assert verdicts[0] == "refused"
    assert len(verdicts) == len(worse.verdicts)
    assert page.get_by_text("pixelmill models promote pets@2").is_visible()
    assert page.get_by_text("smallest drop in accuracy that these images could have shown").is_visible()
    assert page.get_by_text("earlier decisions by the same test images").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert "http" not in html.replace("http-equiv", "")
    page.close()


def test_a_class_with_markup_in_its_name_stays_text(tmp_path: Path, browser: Browser) -> None:
    names = ("<b>cat</b>", "<script>document.title = 'x'</script>", NAMES[2])
    test = write_images(tmp_path / "images", LABELS.tolist(), names)
    page = browser.new_page()
    page.set_content(render_gate(judge_bundle(tmp_path, register(tmp_path, wrong(5), names), SPEC, test)))
    assert page.title() == "pets@1 passed the gate"
    assert page.get_by_text("class <b>cat</b>").is_visible()
    page.close()
