"""Evaluating a model: metrics, the baseline for drift, and the report."""

from dataclasses import asdict
from pathlib import Path
from shutil import copyfile

import numpy as np
import pandas as pd

from pixelmill.pipeline.artifacts import publishing, write_json
from pixelmill.pipeline.bundles import BASELINE_FILE, INSIDE_FILE, METRICS_FILE, REPORT_FILE
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.drift import PredictionCounts
from pixelmill.pipeline.evaluation import Evaluation
from pixelmill.pipeline.evaluation.metrics import MAX_MATRIX_CLASSES, Metrics, measure
from pixelmill.pipeline.evaluation.report import render_report
from pixelmill.pipeline.layers import summarize_layers
from pixelmill.pipeline.training import HISTORY_FILE, TrainedModel

_MAX_PAIRS = 1_000


def evaluate_model(
    model: TrainedModel,
    dataset: PreparedDataset,
    probabilities_path: Path,
    recipe: Recipe,
    folder: Path,
    inside: Path | None = None,
) -> Evaluation:
    """Evaluate a model on the test split and write the results to `folder`.

    Args:
        model: The trained model.
        dataset: The dataset with the test split.
        probabilities_path: The predictions for the test split, as written by `predict_split`.
        recipe: The recipe of the run.
        folder: Where the results are written; must not exist yet.
        inside: The page of `inside.page`, which is copied beside the report if it exists.
    """
    test = dataset.split("test")
    probabilities = np.load(probabilities_path, allow_pickle=False)
    metrics = measure(probabilities, test.labels, dataset.class_names)
    prediction_counts = PredictionCounts.of(
        probabilities.argmax(axis=1), probabilities.max(axis=1), len(dataset.class_names)
    )
    written = {
        **describe_metrics(metrics),
        "validation": {"loss": model.validation_loss, "accuracy": model.validation_accuracy},
        "parameters": model.parameters,
        "training": {
            "epochs": model.epochs,
            "chosen_epoch": model.chosen_epoch,
            "seconds": round(model.seconds, 3),
            "device": model.device,
            "images": dataset.counts["train"],
            "normalization": model.normalization and asdict(model.normalization),
            "starting_weights": model.taken and asdict(model.taken),
        },
    }
    facts = {"kind": "evaluation", "dataset_fingerprint": dataset.fingerprint}
    with publishing(folder, facts) as staging:
        write_json(staging / METRICS_FILE, written)
        write_json(staging / BASELINE_FILE, prediction_counts.to_baseline())
        (staging / REPORT_FILE).parent.mkdir()
        page = render_report(
            recipe=recipe,
            model=model,
            layers=summarize_layers(recipe.model, recipe.image, len(dataset.class_names)),
            history=pd.read_csv(model.folder / HISTORY_FILE),
            dataset=dataset,
            metrics=metrics,
            probabilities=probabilities,
        )
        (staging / REPORT_FILE).write_text(page, encoding="utf-8")
        if inside is not None and inside.is_file():
            copyfile(inside, staging / INSIDE_FILE)
    return Evaluation(folder, probabilities_path, metrics.images, metrics.loss, metrics.accuracy)


def describe_metrics(metrics: Metrics) -> dict[str, object]:
    """The content of `metrics.json` for the test images."""
    return {
        "test": {
            "loss": metrics.loss,
            "accuracy": metrics.accuracy,
            "accuracy_interval": metrics.accuracy_interval,
            "balanced_accuracy": metrics.balanced_accuracy,
            "balanced_accuracy_interval": metrics.balanced_accuracy_interval,
            "images": metrics.images,
            "largest_class": {"name": metrics.largest_class.name, "share": metrics.largest_share},
            "never_predicted": metrics.never_predicted,
        },
        "classes": [asdict(row) for row in metrics.classes],
        "confusion_matrix": metrics.confusion.tolist()
        if len(metrics.classes) <= MAX_MATRIX_CLASSES
        else None,
        "confused_pairs": [asdict(pair) for pair in metrics.confused_pairs(_MAX_PAIRS)],
    }
