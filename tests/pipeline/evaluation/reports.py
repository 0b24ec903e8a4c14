"""Reports of synthetic evaluations."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from pixelmill.pipeline.evaluation.evaluate import describe_metrics, describe_model, describe_predictions
from pixelmill.pipeline.evaluation.metrics import measure
from pixelmill.pipeline.evaluation.metrics_file import MetricsFile
from pixelmill.pipeline.evaluation.report.page import render_report
from pixelmill.pipeline.inference import Probabilities
from pixelmill.pipeline.layers import summarize_layers
from pixelmill.pipeline.recipes import load_recipe
from pixelmill.pipeline.training import NormalizationCheck, TrainedModel
from tests.datasets import prepare_test_images


def write_report(
    folder: Path,
    class_names: tuple[str, ...],
    labels: Sequence[int],
    probabilities: Probabilities,
    *,
    files: Sequence[str] | None = None,
    side: int = 8,
    normalization: NormalizationCheck | None = None,
    warnings: tuple[str, ...] = (),
    settings: tuple[str, ...] = (),
    more: Mapping[str, object] | None = None,
) -> Path:
    """Write the report of a model with these probabilities for images of noise.

    `settings` are overrides of the recipe, and `more` further entries of `metrics.json`.
    """
    count, draws = len(labels), np.random.default_rng(0)
    pixels = draws.integers(0, 256, (count, side, side, 3), np.uint8)
    names = list(files or (f"test {index}" for index in range(count)))
    dataset = prepare_test_images(folder / "store", pixels, labels, names, class_names)
    dataset = replace(dataset, warnings=warnings)
    recipe = load_recipe("folder", list(settings))
    model = TrainedModel(folder, 1, 2, 1.0, "cpu", 0.1, 0.9, 1, normalization)
    results = {
        **describe_metrics(measure(probabilities, np.array(labels), class_names)),
        **describe_model(model, dataset),
        **describe_predictions(probabilities, dataset),
        "robustness": None,
        **(more or {}),
    }
    page = render_report(
        recipe=recipe,
        model=model,
        layers=summarize_layers(recipe.model, recipe.image, len(class_names)),
        history=pd.DataFrame(
            {
                "epoch": [1, 2],
                "loss": [1.0, 0.5],
                "val_loss": [1.0, 0.75],
                "accuracy": [0.5, 0.75],
                "val_accuracy": [0.5, 0.6],
                "learning_rate": [0.01, 0.001],
            }
        ),
        dataset=dataset,
        results=MetricsFile.model_validate(results),
        probabilities=probabilities,
    )
    path = folder / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def noisy_probabilities(labels: Sequence[int], classes: int) -> Probabilities:
    """Probabilities that favour the true class, with some mistakes."""
    draws = np.random.default_rng(1)
    logits = draws.normal(0, 1, (len(labels), classes))
    logits[np.arange(len(labels)), labels] += 3
    exponentials = np.exp(logits)
    probabilities: Probabilities = (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities
