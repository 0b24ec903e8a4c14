"""Evaluating a model: metrics, the baseline for drift, and the report."""

from dataclasses import asdict
from pathlib import Path
from shutil import copyfile

import numpy as np
import pandas as pd

from pixelmill.pipeline.artifacts import publishing, write_json
from pixelmill.pipeline.audit import AUDIT_FOLDER, PAGE_FILE
from pixelmill.pipeline.bundles import BASELINE_FILE, INSIDE_FILE, METRICS_FILE, REPORT_FILE
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.evaluation import Evaluation
from pixelmill.pipeline.evaluation.baseline import baseline_of_dataset
from pixelmill.pipeline.evaluation.final_predictions import finish_predictions
from pixelmill.pipeline.evaluation.metrics import MAX_MATRIX_CLASSES, Metrics, measure
from pixelmill.pipeline.evaluation.metrics_file import ClassShare, MetricsFile, Row, TestMetrics
from pixelmill.pipeline.evaluation.predict import TestPredictions
from pixelmill.pipeline.evaluation.reliability import coverage_curve, reliability_bins
from pixelmill.pipeline.evaluation.report.links import link_pages
from pixelmill.pipeline.evaluation.report.page import render_report
from pixelmill.pipeline.evaluation.slices import measure_slices
from pixelmill.pipeline.inference import Probabilities
from pixelmill.pipeline.layers import summarize_layers
from pixelmill.pipeline.training import HISTORY_FILE, TrainedModel, read_search

_MAX_PAIRS = 1_000


def evaluate_model(
    model: TrainedModel,
    dataset: PreparedDataset,
    predicted: TestPredictions,
    recipe: Recipe,
    folder: Path,
) -> Evaluation:
    """Evaluate a model on the test split and write the results to `folder`.

    Args:
        model: The trained model.
        dataset: The dataset with the test split.
        predicted: The predictions for the test split.
        recipe: The recipe of the run.
        folder: Where the results are written; must not exist yet.
    """
    test = dataset.split("test")
    final = finish_predictions(
        np.load(predicted.probabilities, allow_pickle=False), model, dataset, recipe.evaluation
    )
    probabilities = final.probabilities
    metrics = measure(probabilities, test.labels, dataset.class_names)
    written = {
        **describe_metrics(metrics),
        **describe_model(model, dataset),
        **describe_predictions(probabilities, dataset),
        **final.to_json(),
        "robustness": as_json(predicted.robustness),
    }
    facts = {"kind": "evaluation", "dataset_fingerprint": dataset.fingerprint}
    with publishing(folder, facts) as staging:
        write_json(staging / METRICS_FILE, written)
        write_json(staging / BASELINE_FILE, baseline_of_dataset(dataset, probabilities))
        (staging / REPORT_FILE).parent.mkdir()
        page = render_report(
            recipe=recipe,
            model=model,
            layers=summarize_layers(recipe.model, recipe.image, len(dataset.class_names)),
            history=pd.read_csv(model.folder / HISTORY_FILE),
            dataset=dataset,
            results=MetricsFile.model_validate(written),
            probabilities=probabilities,
            search=read_search(model),
        )
        (staging / REPORT_FILE).write_text(page, encoding="utf-8")
        if predicted.inside is not None:
            copyfile(predicted.inside, staging / INSIDE_FILE)
        link_pages((staging / REPORT_FILE).parent, _audit_beside(folder))
    return Evaluation(folder, predicted.probabilities, metrics.images, metrics.loss, metrics.accuracy)


def _audit_beside(folder: Path) -> dict[str, str]:
    """The page of the audit in the folder of the run, as the report sees it."""
    page = f"{AUDIT_FOLDER}/{PAGE_FILE}"
    return {f"../../{page}": "The audit of the images"} if (folder.parent / page).is_file() else {}


def describe_metrics(metrics: Metrics) -> dict[str, object]:
    """The content of `metrics.json` for the test images as a whole and for each class."""
    test = TestMetrics(
        loss=metrics.loss,
        loss_interval=metrics.loss_interval,
        accuracy=metrics.accuracy,
        accuracy_interval=metrics.accuracy_interval,
        balanced_accuracy=metrics.balanced_accuracy,
        balanced_accuracy_interval=metrics.balanced_accuracy_interval,
        calibration_error=metrics.calibration_error,
        calibration_error_interval=metrics.calibration_error_interval,
        images=metrics.images,
        largest_class=ClassShare(name=metrics.largest_class.name, share=metrics.largest_share),
        never_predicted=list(metrics.never_predicted),
    )
    is_small = len(metrics.classes) <= MAX_MATRIX_CLASSES
    return {
        "test": as_json(test),
        "classes": [as_json(row) for row in metrics.classes],
        "confusion_matrix": metrics.confusion.tolist() if is_small else None,
        "most_confused": as_json(metrics.most_confused()),
        "confused_pairs": [as_json(pair) for pair in metrics.confused_pairs(_MAX_PAIRS)],
    }


def describe_model(model: TrainedModel, dataset: PreparedDataset) -> dict[str, object]:
    """The content of `metrics.json` about the training."""
    return {
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
            "found_learning_rate": model.found_peak,
            "time_budget": model.time_budget and asdict(model.time_budget),
        },
    }


def describe_predictions(probabilities: Probabilities, dataset: PreparedDataset) -> dict[str, object]:
    """The content of `metrics.json` about the probabilities, and about parts of the test images."""
    labels = dataset.split("test").labels
    slices = measure_slices(dataset, probabilities.argmax(axis=1) == labels)
    return {
        "reliability": [as_json(row) for row in reliability_bins(probabilities, labels)],
        "coverage": [as_json(row) for row in coverage_curve(probabilities, labels)],
        "slices": [as_json(group) for group in slices],
    }


def as_json(row: Row | None) -> dict[str, object] | None:
    """A part of `metrics.json` as `json` writes it."""
    return None if row is None else row.model_dump(mode="json")
