"""Real retrainings: `python -m tests.pipeline.prune.retrainings STORE IMAGES COUNT`.

The stages are those of `flows/retraining.py`. Without Prefect, and with one process for all that needs Keras
except the export, each takes seconds. Before each, one image is added to each class, so that neither dataset
nor weights are those of the last one.
"""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from pixelmill.pipeline.artifacts import remove_file, scratch_folder
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
from pixelmill.pipeline.promotion import TestImages, VersionRefused, judge_bundle, promote_judged
from pixelmill.pipeline.promotion.record import record_judgement
from pixelmill.pipeline.recipes import parse_recipe
from pixelmill.pipeline.registry import newest_classes, register_bundle, reserve_version
from pixelmill.pipeline.runs import begin_run
from pixelmill.pipeline.training.checkpoints import checkpoint_path
from pixelmill.pipeline.training.trainer import train_model

_IMAGES_PER_CLASS = 40
_RECIPE: dict[str, Any] = {
    "name": "pets",
    "image": {"height": 8, "width": 8, "channels": 1},
    "model": {
        "layers": [
            {"layer": "convolution", "filters": 4, "kernel_size": 3},
            {"layer": "global_average_pooling"},
            {"layer": "dense", "units": "classes"},
            {"layer": "softmax"},
        ]
    },
    "training": {"epochs": 1, "batch_size": 8, "learning_rate": {"peak": 0.1}},
    "evaluation": {"robustness_images": 0, "inside": False},
    "promotion": {"min_accuracy": 0, "max_accuracy_drop": 1},
}


def retrain(recipe: Recipe, store: Path) -> None:
    """Train, export, judge, register and promote a version."""
    run = begin_run(store, recipe.name)
    raw = download_dataset(recipe.dataset, store)
    history = ModelHistory(ledger_folder(store, recipe.name), newest_classes(store, recipe.name))
    dataset = prepare_dataset(raw, recipe, store, history)
    checkpoint = checkpoint_path(dataset, recipe, store)
    model = train_model(dataset, recipe, run / "training", checkpoint)
    predicted = predict_test_images(model, dataset, recipe, run)
    evaluation = evaluate_model(model, dataset, predicted, recipe, run / "evaluation")
    version = reserve_version(store, recipe.name)
    source = source_of_run(model, evaluation, dataset, recipe, run.name, version)
    with scratch_folder("held-out", run) as files:
        bundle = export_proven(source, from_dataset(dataset, recipe.image, files), run / "bundle")
    with scratch_folder("test-images", run) as folder:
        judgement = judge_bundle(store, bundle, recipe.promotion, TestImages.of_dataset(dataset, folder))
    record_judgement(bundle, judgement)
    registered = register_bundle(store, bundle)
    remove_file(checkpoint)
    with suppress(VersionRefused):
        promote_judged(store, registered, judgement, lambda: judgement)


def add_image(folder: Path, number: int) -> None:
    """Write an image that no other is equal or near to."""
    folder.mkdir(parents=True, exist_ok=True)
    dark = np.random.default_rng(number).integers(0, 128, (8, 8, 1), np.uint8)
    (folder / f"{number:05}.png").write_bytes(encode_png(dark if folder.name == "dark" else dark + 128))


def main() -> None:
    """Retrain COUNT times with the images of a folder, of which there are more each time."""
    store, images, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    for number in range(_IMAGES_PER_CLASS + count):
        for name in ("bright", "dark"):
            add_image(images / name, 2 * number + (name == "dark"))
        if number >= _IMAGES_PER_CLASS:
            retrain(
                parse_recipe({**_RECIPE, "dataset": {"source": "folder", "path": str(images)}}, "tests"),
                store,
            )
            print(number, flush=True)


if __name__ == "__main__":
    main()
