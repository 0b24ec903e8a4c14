"""A dataset grows by near-identical frames: the version trained on them is worse, and is not promoted."""

import colorsys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixelmill.pipeline.artifacts import read_json
from pixelmill.pipeline.bundles import GATE_REPORT_FILE, METRICS_FILE
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets.division import ModelHistory
from pixelmill.pipeline.datasets.download import download_dataset
from pixelmill.pipeline.datasets.ledger import ledger_folder
from pixelmill.pipeline.datasets.preparation import prepare_dataset
from pixelmill.pipeline.evaluation.evaluate import evaluate_model
from pixelmill.pipeline.evaluation.predict import predict_test_images
from pixelmill.pipeline.export.exporter import export_proven
from pixelmill.pipeline.export.held_out import from_dataset
from pixelmill.pipeline.export.source import source_of_run
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.promotion import (
    Judgement,
    TestImages,
    VersionRefused,
    judge_bundle,
    promote_judged,
)
from pixelmill.pipeline.promotion.record import record_judgement
from pixelmill.pipeline.recipes import parse_recipe
from pixelmill.pipeline.registry import aliases_of, newest_classes, register_bundle, reserve_version
from pixelmill.pipeline.training.trainer import train_model

CLASSES, PICTURES, FRAMES = 10, 300, 150
# A network that sees only the mean colour, so that frames of one object move its boundaries.
RECIPE = {
    "name": "hues",
    "image": {"height": 16, "width": 16, "channels": 3},
    "model": {
        "layers": [
            {"layer": "batch_normalization"},
            {"layer": "global_average_pooling"},
            {"layer": "dense", "units": "classes"},
            {"layer": "softmax"},
        ]
    },
    "training": {"epochs": 8, "batch_size": 64, "learning_rate": {"peak": 0.2}},
}


def picture(hue: float, rng: np.random.Generator) -> np.ndarray:
    """An object of one hue with a texture of its own, uint8 [16, 16, 3]."""
    color = np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.6, 1), rng.uniform(0.5, 0.9)))
    texture = np.kron(rng.uniform(0.7, 1.1, (4, 4)), np.ones((4, 4)))
    pixels: np.ndarray = np.clip(255 * color * texture[:, :, None], 0, 255).astype(np.uint8)
    return pixels


def write(folder: Path, label: int, name: str, pixels: np.ndarray) -> None:
    path = folder / f"hue {label}" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(pixels))


def retrain(recipe: Recipe, store: Path, run: Path) -> Judgement:
    """The stages of a retraining in the order of its flow."""
    run.mkdir()
    raw = download_dataset(recipe.dataset, store)
    history = ModelHistory(ledger_folder(store, recipe.name), newest_classes(store, recipe.name))
    dataset = prepare_dataset(raw, recipe, store, history)
    model = run_in_spawned_process(train_model, dataset, recipe, run / "training", run / "state.npz")
    predicted = run_in_spawned_process(predict_test_images, model, dataset, recipe, run)
    evaluation = evaluate_model(model, dataset, predicted, recipe, run / "evaluation")
    version = reserve_version(store, recipe.name)
    source = source_of_run(model, evaluation, dataset, recipe, run.name, version)
    (run / "held-out").mkdir()
    held_out = from_dataset(dataset, recipe.image, run / "held-out")
    bundle = export_proven(source, held_out, run / "bundle")
    (run / "test-images").mkdir()
    test = TestImages.of_dataset(dataset, run / "test-images")
    judgement = judge_bundle(store, bundle, recipe.promotion, test)
    record_judgement(bundle, judgement)
    registered = register_bundle(store, bundle)
    promote_judged(store, registered, judgement, lambda: judgement)
    return judgement


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_champion_is_kept_and_the_report_says_why(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, store = tmp_path / "images", tmp_path / "store"
    given: dict[str, Any] = {**RECIPE, "dataset": {"source": "folder", "path": str(images)}}
    recipe = parse_recipe(given, "hues")
    for label in range(CLASSES):
        for number in range(PICTURES):
            write(images, label, f"{number:03d}", picture(label / CLASSES + rng.normal(0, 0.03), rng))
    retrain(recipe, store, tmp_path / "first")
    # One object of each class, half way to the next one, in front of a camera that does not move.
    for label in range(CLASSES):
        still = picture((label + 0.5) / CLASSES, rng).astype(np.int16)
        for number in range(FRAMES):
            noise = rng.integers(-1, 2, still.shape)
            write(images, label, f"frame {number:03d}", np.clip(still + noise, 0, 255).astype(np.uint8))
    with pytest.raises(VersionRefused) as refusal:
        retrain(recipe, store, tmp_path / "second")
    assert aliases_of(store, "hues") == {"champion": 1}
    found = refusal.value.judgement.to_json()
    accuracy = next(row for row in found["gate"] if row["bar"] == "accuracy" and row["champion"])
    print(f"accuracy {accuracy['champion']:.4f} and {accuracy['value']:.4f} on {accuracy['images']} images")
    print(f"the drop is {accuracy['interval'][0]:.4f} to {accuracy['interval'][1]:.4f}")
    before, after = (read_json(tmp_path / name / "evaluation" / METRICS_FILE) for name in ("first", "second"))
    print(f"each on the test images of its day: {before['test']['accuracy']}, {after['test']['accuracy']}")
    assert accuracy["verdict"] == "refused"
    assert found["compared_on"]["left_out_as_trained_on"] == 0
    bundle = store / "models/hues/2"
    assert read_json(bundle / METRICS_FILE)["champion"] == "hues@1"
    page = (bundle / GATE_REPORT_FILE).read_text()
    assert "hues@2 is refused by the gate" in page
    assert "hues@2 has an accuracy of" in page
    assert "pixelmill models promote hues@2" in page
