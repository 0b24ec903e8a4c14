"""The gate on real predictions: bars, the champion on the same images, and what cannot be compared."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixelmill.pipeline.bundles import LABELS_FILE, ONNX_FILE, ModelBundle
from pixelmill.pipeline.config import PromotionSpec
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.promotion import Promotion, TestImages, VersionRefused, promote_bundle
from pixelmill.pipeline.registry import aliases_of, promote_version
from tests.pipeline.promotion.versions import NAMES, register, write_images

LABELS = np.repeat([0, 1, 2], 200)


@pytest.fixture
def test_images(tmp_path: Path) -> TestImages:
    return write_images(tmp_path / "images", LABELS.tolist())


def wrong_at(*rows: slice) -> list[int]:
    """Predictions that are wrong for some of the images."""
    predicted = LABELS.copy()
    for chosen in rows:
        predicted[chosen] = (predicted[chosen] + 1) % 3
    return [int(label) for label in predicted]


def promote(store: Path, bundle: ModelBundle, test: TestImages, **limits: Any) -> Promotion:
    return promote_bundle(store, bundle, PromotionSpec.model_validate(limits), test)


def refusal(store: Path, bundle: ModelBundle, test: TestImages, **limits: Any) -> VersionRefused:
    before = aliases_of(store, "pets")
    with pytest.raises(VersionRefused) as caught:
        promote(store, bundle, test, **limits)
    assert int(caught.value.exit_code) == 3
    assert aliases_of(store, "pets") == before
    assert "\n" not in str(caught.value)
    assert f"pixelmill models promote pets@{bundle.version}" in str(caught.value)
    return caught.value


def test_the_first_version_is_judged_alone(tmp_path: Path, test_images: TestImages) -> None:
    promotion = promote(tmp_path, register(tmp_path, wrong_at(slice(30))), test_images, min_accuracy=0.95)
    assert (promotion.version, promotion.replaced) == (1, None)
    assert aliases_of(tmp_path, "pets") == {"champion": 1}
    found = promotion.judgement.to_json()
    assert found["champion"] is None
    assert found["compared_on"]["images"] == 600
    assert [(row["bar"], row["scope"], row["verdict"]) for row in found["gate"]] == [
        ("balanced_accuracy", "all", "passed"),
        ("accuracy", "all", "passed"),
    ]
    assert found["gate"][1]["value"] == pytest.approx(0.95)


def test_a_version_below_a_bar_is_refused_and_every_failed_bar_named(
    tmp_path: Path, test_images: TestImages
) -> None:
    bundle = register(tmp_path, wrong_at(slice(120)))
    message = str(refusal(tmp_path, bundle, test_images, min_accuracy=0.95, min_recall=0.5))
    assert "pets@1 has an accuracy of 0.8000 (0.76" in message
    assert "(600 test images)" in message
    assert "it also fails recall (class cat)" in message
    assert "expected at least 0.9500" in message


def test_a_model_that_predicts_one_class_is_refused(tmp_path: Path, test_images: TestImages) -> None:
    bundle = register(tmp_path, [0] * 600)
    message = str(refusal(tmp_path, bundle, test_images))
    assert "pets@1 predicts cat for every test image, which is a balanced accuracy of 0.3333" in message
    assert "the result of always predicting one class" in message
    assert promote(tmp_path, bundle, test_images, min_balanced_accuracy=0).version == 1


def test_a_worse_version_is_refused_and_an_equal_one_promoted(
    tmp_path: Path, test_images: TestImages
) -> None:
    promote(tmp_path, register(tmp_path, wrong_at(slice(10), slice(300, 310))), test_images)
    worse = register(tmp_path, wrong_at(slice(60), slice(300, 310)))
    refused = refusal(tmp_path, worse, test_images)
    assert "pets@2 has an accuracy of 0.8833, and pets@1 (champion) has 0.9667" in str(refused)
    assert "a drop of at most 0.0050" in str(refused)
    assert refused.judgement.champion == "pets@1"
    # As many mistakes, but others.
    equal = register(tmp_path, wrong_at(slice(50, 60), slice(350, 360)))
    assert promote(tmp_path, equal, test_images).replaced == 1


def test_images_that_the_champion_was_trained_on_are_left_out(
    tmp_path: Path, test_images: TestImages
) -> None:
    # It knows by heart the 300 images that it was trained on, and is poor on the others.
    memorized = range(0, 600, 2)
    predicted = LABELS.copy()
    predicted[1::2] = (predicted[1::2] + (np.arange(300) % 2)) % 3
    promote(tmp_path, register(tmp_path, predicted.tolist(), trained_on=memorized), test_images)
    better = register(tmp_path, wrong_at(slice(0, 600, 5)))
    promotion = promote(tmp_path, better, test_images)
    found = promotion.judgement.to_json()
    assert found["compared_on"]["left_out_as_trained_on"] == 300
    assert found["compared_on"]["images"] == 300
    accuracy = next(row for row in found["gate"] if row["champion"] is not None)
    assert (accuracy["value"], accuracy["champion"]) == (pytest.approx(0.8), pytest.approx(0.5))


def test_a_champion_trained_on_every_test_image_cannot_be_compared(
    tmp_path: Path, test_images: TestImages
) -> None:
    champion = register(tmp_path, LABELS.tolist(), trained_on=range(600))
    promote_version(tmp_path, "pets", champion.version, "champion")
    message = str(refusal(tmp_path, register(tmp_path, LABELS.tolist()), test_images))
    assert "pets@1 (champion) was trained on all 600 test images of pets@2" in message


def test_a_version_without_one_of_the_classes_is_refused(tmp_path: Path, test_images: TestImages) -> None:
    promote(tmp_path, register(tmp_path, LABELS.tolist()), test_images)
    names = ("cat", "dog", "horse")
    others = write_images(tmp_path / "images", LABELS.tolist(), names)
    message = str(refusal(tmp_path, register(tmp_path, LABELS.tolist(), names), others))
    assert "pets@2 has no class fish, which pets@1 (champion) has" in message


def test_a_version_with_a_further_class_is_compared_on_the_classes_that_both_have(tmp_path: Path) -> None:
    names = (*NAMES, "horse")
    labels = np.repeat([0, 1, 2, 3], 150)
    test = write_images(tmp_path / "images", labels.tolist(), names)
    known = np.minimum(labels, 2)
    promote_version(tmp_path, "pets", register(tmp_path, known.tolist()).version, "champion")
    promotion = promote(tmp_path, register(tmp_path, labels.tolist(), names), test)
    assert promotion.judgement.images == 450
    assert promotion.replaced == 1


def test_classes_in_another_order_or_another_unicode_form_are_the_same(tmp_path: Path) -> None:
    names = ("cat", "chi\u00ean", "fish")
    test = write_images(tmp_path / "images", LABELS.tolist(), names)
    promote(tmp_path, register(tmp_path, LABELS.tolist(), names), test)
    turned = ((LABELS + 1) % 3).tolist()
    reordered = register(tmp_path, turned, ("fish", "cat", "chie\u0302n"))
    promotion = promote(tmp_path, reordered, test)
    accuracy = next(row for row in promotion.judgement.verdicts if row.champion is not None)
    assert (accuracy.value, accuracy.champion) == (1, 1)


def test_the_gate_compares_with_the_alias_it_is_to_move(tmp_path: Path, test_images: TestImages) -> None:
    promote(tmp_path, register(tmp_path, LABELS.tolist()), test_images)
    worse = register(tmp_path, wrong_at(slice(100)))
    assert promote(tmp_path, worse, test_images, alias="candidate").replaced is None
    assert aliases_of(tmp_path, "pets") == {"champion": 1, "candidate": 2}


@pytest.mark.parametrize("number", [1, 2], ids=["the champion", "the new version"])
@pytest.mark.parametrize("file", [ONNX_FILE, LABELS_FILE])
def test_a_damaged_version_stops_the_run(
    number: int, file: str, tmp_path: Path, test_images: TestImages
) -> None:
    promote(tmp_path, register(tmp_path, LABELS.tolist()), test_images)
    bundle = register(tmp_path, LABELS.tolist())
    path = tmp_path / "models/pets" / str(number) / file
    os.chmod(path, 0o644)
    path.write_bytes(path.read_bytes().replace(b"cat", b"bat"))
    with pytest.raises(WorkError, match=file):
        promote(tmp_path, bundle, test_images)
    assert aliases_of(tmp_path, "pets") == {"champion": 1}
