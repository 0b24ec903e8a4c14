"""The gate on measured results: imbalance, single classes, and versions with other classes."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixelmill.pipeline.artifacts import publishing, write_json
from pixelmill.pipeline.bundles import LABELS_FILE, METRICS_FILE, ONNX_FILE, PARITY_FILE, ModelBundle
from pixelmill.pipeline.config import PromotionSpec
from pixelmill.pipeline.errors import GateRefused, WorkError
from pixelmill.pipeline.evaluation.evaluate import describe_metrics
from pixelmill.pipeline.evaluation.metrics import measure
from pixelmill.pipeline.promotion import promote_bundle
from pixelmill.pipeline.registry import aliases_of, register_bundle, reserve_version

NAMES = ("cat", "dog", "fish")


def register(store: Path, confusion: list[list[int]], names: tuple[str, ...] = NAMES) -> ModelBundle:
    """Register a version with a confusion matrix: [i, j] counts images of class i predicted as j."""
    true, predicted, labels = [], [], range(len(names))
    for i in labels:
        for j in labels:
            true += [i] * confusion[i][j]
            predicted += [j] * confusion[i][j]
    probabilities = np.full((len(true), len(names)), 0.1, np.float32)
    probabilities[np.arange(len(true)), predicted] = 0.9
    metrics = measure(probabilities, np.array(true), names)
    version = reserve_version(store, "pets")
    folder = store / "made"
    with publishing(folder, {"kind": "model-bundle", "name": "pets", "version": version}) as staging:
        (staging / ONNX_FILE).write_bytes(b"network")
        write_json(staging / LABELS_FILE, names)
        write_json(staging / METRICS_FILE, describe_metrics(metrics))
        write_json(staging / PARITY_FILE, {"images": len(true), "label_flips": 0, "max_abs_difference": 0.0})
    return register_bundle(store, ModelBundle(folder, "pets", version, ""))


def promote(store: Path, bundle: ModelBundle, **limits: Any) -> int:
    return promote_bundle(store, bundle, PromotionSpec.model_validate(limits)).version


def refusal(store: Path, bundle: ModelBundle, **limits: Any) -> str:
    before = aliases_of(store, "pets")
    with pytest.raises(GateRefused) as caught:
        promote(store, bundle, **limits)
    assert int(caught.value.exit_code) == 3
    assert aliases_of(store, "pets") == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_that_predicts_only_one_class_is_refused_with_the_class(tmp_path: Path) -> None:
    bundle = register(tmp_path, [[200, 0, 0], [20, 0, 0], [2, 0, 0]])
    message = refusal(tmp_path, bundle)
    assert message.startswith(
        "pets@1 predicts cat for every test image, which is a balanced accuracy of 0.3333"
    )
    assert "expected an interval above 0.3333" in message
    assert "pixelmill models promote pets@1" in message
    # Without a minimum, it is promoted.
    assert promote(tmp_path, bundle, min_balanced_accuracy=0) == 1


def test_a_lucky_model_is_refused(tmp_path: Path) -> None:
    lucky = register(tmp_path, [[190, 10, 0], [18, 2, 0], [2, 0, 0]])
    message = refusal(tmp_path, lucky)
    assert message.startswith("pets@1 has a balanced accuracy of 0.3500 (95% interval 0.3")
    assert (
        " on 222 test images; expected an interval above 0.3333, the result of always predicting one class"
        in message
    )
    # Fewer correct predictions, but the model distinguishes the classes.
    assert promote(tmp_path, register(tmp_path, [[150, 40, 10], [3, 15, 2], [0, 1, 1]])) == 2


def test_a_minimum_balanced_accuracy_is_required(tmp_path: Path) -> None:
    bundle = register(tmp_path, [[9, 1, 0], [0, 9, 1], [0, 0, 10]])
    message = refusal(tmp_path, bundle, min_balanced_accuracy=0.95)
    assert "balanced accuracy of 0.9333" in message
    assert "at least 0.9500 (promotion.min_balanced_accuracy)" in message
    assert promote(tmp_path, bundle, min_balanced_accuracy=28 / 30) == 1


def test_the_class_with_the_lowest_recall_is_reported(tmp_path: Path) -> None:
    bundle = register(tmp_path, [[100, 0, 0], [0, 100, 0], [3, 3, 4]], ("cat", "dog", "fi\u202esh"))
    message = refusal(tmp_path, bundle, min_recall=0.5)
    assert r"pets@1 has a recall of 0.4000 on the 10 test images of class fi\u202esh" in message
    assert promote(tmp_path, bundle, min_recall=0.4) == 1


def test_a_version_with_different_classes_is_refused(tmp_path: Path) -> None:
    right = np.diag([10, 10, 10]).tolist()
    promote(tmp_path, register(tmp_path, right))
    message = refusal(tmp_path, register(tmp_path, right, ("cat", "dog", "horse")))
    assert "pets@2 has different classes from pets@1 (champion): only pets@2 has horse; " in message
    assert "only pets@1 has fish" in message


def test_classes_in_another_order_or_another_unicode_form_are_the_same(tmp_path: Path) -> None:
    right = np.diag([10, 10, 10]).tolist()
    promote(tmp_path, register(tmp_path, right, ("cat", "chi\u00ean", "fish")))
    assert promote(tmp_path, register(tmp_path, right, ("fish", "cat", "chie\u0302n"))) == 2


@pytest.mark.parametrize("number", [1, 2], ids=["of the champion", "of the new version"])
@pytest.mark.parametrize("name", [METRICS_FILE, LABELS_FILE])
def test_modified_results_are_rejected(number: int, name: str, tmp_path: Path) -> None:
    right = np.diag([10, 10, 10]).tolist()
    promote(tmp_path, register(tmp_path, right))
    bundle = register(tmp_path, right)
    path = tmp_path / "models/pets" / str(number) / name
    os.chmod(path, 0o644)
    path.write_text(path.read_text().replace("cat", "bat"))
    with pytest.raises(WorkError, match=name):
        promote(tmp_path, bundle)
    assert aliases_of(tmp_path, "pets") == {"champion": 1}
